//! What a running process is like, for people and for programs.

pub(crate) mod status;
