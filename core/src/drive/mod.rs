//! The event loop.

pub mod io;
