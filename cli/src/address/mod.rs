//! How endpoints are written, and what is the same of all of them: the default port, the name of a
//! relay, how many addresses a machine is known by.

mod backend;
mod host_address;
mod host_port;
mod relay_address;

pub(crate) use self::backend::Backend;
pub(crate) use self::host_address::HostAddress;
pub(crate) use self::host_port::HostPort;
pub(crate) use self::relay_address::{
    RelayAddress, RelayTarget, TCP_PORT, key_of, place, place_of,
};

/// The UDP port of a connector or a relay, unless another is given.
pub(crate) const PORT: u16 = 4433;

/// The name in every relay's certificate, which is known by its key (docs/protocol.md, "Relay
/// addresses").
pub(crate) const RELAY_NAME: &str = "relay";

/// Most addresses of one connector in an invite and in what is kept of it: those of a machine with a
/// few networks.
pub(crate) const MAX_ADDRESSES: usize = 8;
