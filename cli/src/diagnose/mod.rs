//! Measures what a network allows, and reports it.

pub(crate) mod network;
pub(crate) mod report;
