//! What a running process reports of itself, for people and for programs.

mod convert;
pub(crate) mod process;
pub(crate) mod render;
pub(crate) mod schema;
pub(crate) mod words;
