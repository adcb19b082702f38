//! One event loop for every runtime, over `std::task` and the trait [`Io`](io::Io) of an adapter.
//!
//! [`drive`] makes a [`Driver`], a plain future that owns the socket, and a [`Handle`], through
//! which the rest of a program uses it. No task is spawned: the caller decides where the driver
//! runs. The driver makes no decision about the tunnel; the node does.

mod byte_streams;
mod driver;
mod handle;
pub mod io;
mod peer;
mod requests;
mod shared;
mod stream;
mod tcp_fallback;
mod wakers;

pub use crate::node::StreamError;
pub use driver::{Driver, drive};
pub use handle::{Events, Handle};
pub use peer::{IncomingStream, Peer};
pub use requests::{IncomingRequest, Responder, Response};
pub use stream::{RecvHalf, SendHalf, Stream};
pub use tcp_fallback::TcpFallback;
