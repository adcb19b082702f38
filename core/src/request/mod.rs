//! Requests.

pub mod queue;
