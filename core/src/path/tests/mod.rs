//! Two machines and the paths between them, in virtual time.

mod attack;
mod failing;
mod life;
mod narrow;
mod pauses;
mod sequences;
mod world;
