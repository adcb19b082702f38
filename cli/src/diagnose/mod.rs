//! What a network allows, asked of it, and what is found.

pub(crate) mod network;
pub(crate) mod report;
