//! How endpoints are written, and what they have in common: the default port, the name of a relay,
//! and the maximum number of addresses of a machine.

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

/// The default UDP port of a connector or a relay.
pub(crate) const PORT: u16 = 4433;

/// The name in every relay's certificate. A relay is identified by its key
/// (docs/protocol.md, "Relay addresses").
pub(crate) const RELAY_NAME: &str = "relay";

/// Maximum number of addresses of one connector in an invite and in a saved service: those of a
/// machine with a few networks.
pub(crate) const MAX_ADDRESSES: usize = 8;
