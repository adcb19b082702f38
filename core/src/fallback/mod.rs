//! The TCP fallback: the datagrams of a connection to a relay travel in TLS over TCP while UDP is
//! blocked between the two.
//!
//! It is one machine, [`Fallback`], beside the node: bytes of streams in, datagrams out, and the
//! reverse, with the time as an argument. The node notices nothing: a client's node sees one
//! address of its relay; the relay's node sees an address that changes, as that of any client that
//! moves (RFC 9000 §9). The machine never opens a socket and never waits for a stream that does not
//! take what it should: its queue drops what is oldest, as a router would.
//!
//! | file | what it decides |
//! |---|---|
//! | `switch` | for one relay, whether UDP or TCP carries, and when a stream is needed |
//! | `relay` | one relay of a client: carries that out |
//! | `listener` | which clients a relay admits by TCP |
//! | `session` | one stream: when it is open, and when it is dead |
//! | `proxy` | what an HTTP proxy is asked, and whether its answer is a tunnel |
//! | `queue` | which datagrams are dropped when a stream is slow |
//! | `tls` | what TLS shows and checks |
//! | `streams` | which stream has something to write, and which is due |
//! | `address`, `udp_probe` | how addresses of clients and questions to UDP look |
//!
//! Source: docs/protocol.md, "TCP fallback".

mod address;
mod listener;
mod machine;
mod proxy;
mod queue;
mod relay;
mod session;
mod streams;
mod switch;
mod tls;
mod udp_probe;

pub use address::is_tcp_client_address;
pub use listener::{ListenerLimits, ListenerStats};
pub use machine::Fallback;
pub use proxy::{HttpProxy, InvalidAuthorization};
pub use relay::{FallbackStatus, FallbackTarget};
pub use session::StreamOutput;
pub use streams::{ByteStreamId, StreamAction};
pub use switch::FallbackState;
#[cfg(any(test, feature = "testing"))]
pub(crate) use udp_probe::{TRIAL_LEN, Trial};
