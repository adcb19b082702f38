//! Two machines and the ways between them, in virtual time.

mod attack;
mod failing;
mod life;
mod sequences;
mod world;
