//! The TCP fallback: the datagrams of a connection to a relay travel in TLS over TCP while UDP is
//! blocked.
//!
//! Source: docs/protocol.md, "TCP fallback".

mod address;
mod switch;
mod udp_probe;

pub use address::{carried, is_carried};
pub use switch::*;
pub use udp_probe::{TRIAL_LEN, Trial};
