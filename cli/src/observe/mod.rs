//! What a running process is like, for people and for programs.

pub(crate) mod render;
pub(crate) mod seen;
pub(crate) mod status;
