//! adit on tokio: the socket and the clock for the core's event loop.

#![forbid(unsafe_code)]

mod io;
mod system;

pub use crate::io::TokioIo;
