//! How endpoints are written, and what they have in common: the default port, the name of a relay,
//! and the maximum number of addresses of a machine.

mod backend;
mod host_address;
mod host_port;
mod relay_address;

use std::net::IpAddr;

pub(crate) use self::backend::Backend;
pub(crate) use self::host_address::HostAddress;
pub(crate) use self::host_port::{HostPort, in_brackets};
pub(crate) use self::relay_address::{
    RelayAddress, RelayTarget, TCP_PORT, key_of, place, place_of,
};

/// Returns true for an address that other networks do not reach: private, of this machine, of one
/// link, or of a provider's NAT (RFC 1918, RFC 6598, RFC 4193).
pub(crate) const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0b1100_0000 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The default UDP port of a connector or a relay.
pub(crate) const PORT: u16 = 4433;

/// The name in every relay's certificate. A relay is identified by its key
/// (docs/protocol.md, "Relay addresses").
pub(crate) const RELAY_NAME: &str = "relay";

/// Maximum number of addresses of one connector in an invite and in a saved service: those of a
/// machine with a few networks.
pub(crate) const MAX_ADDRESSES: usize = 8;
