//! The addresses that a relay gives to its clients on TCP, so that its node can tell them apart. It
//! decides how they look, never who has one.

use std::net::{IpAddr, SocketAddr};

/// The first 48 bits of the addresses that a relay gives to its clients on TCP. They exist only
/// within the relay: nothing from such an address is ever taken from UDP, or sent there.
const PREFIX: [u16; 3] = [0xfd15, 0x070a, 0x510c];

/// The address of one client on TCP: `[fd15:70a:510c:source::stream]:1`. All streams of one source
/// share a /64, so that what the node grants to each source of handshakes holds for these as well.
#[must_use]
pub(super) fn tcp_client_address(source: u16, stream: u64) -> SocketAddr {
    let [a, b, c] = PREFIX;
    let word = |shift: u32| (stream >> shift) as u16;
    (IpAddr::from([a, b, c, source, word(48), word(32), word(16), word(0)]), 1).into()
}

/// Whether an address is that of a client on TCP, as this relay has given it.
#[must_use]
pub fn is_tcp_client_address(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V6(ip) => ip.segments().starts_with(&PREFIX),
        IpAddr::V4(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_an_address_of_its_own_within_the_prefix_and_nothing_else_is_in_it() {
        for (source, stream) in [(0, 0), (u16::MAX, u64::MAX), (1, 0), (0, 1)] {
            assert!(is_tcp_client_address(tcp_client_address(source, stream)));
        }
        assert_eq!(tcp_client_address(3, 0x10_0002).to_string(), "[fd15:70a:510c:3::10:2]:1");
        assert_ne!(tcp_client_address(1, 0), tcp_client_address(0, 1));
        assert_ne!(tcp_client_address(0, 1 << 63), tcp_client_address(0, 0));
        for other in ["[fd15:70a:510b::1]:1", "[fd15:70b:510c::1]:1", "253.21.7.10:1"] {
            assert!(!is_tcp_client_address(other.parse().unwrap()), "{other}");
        }
    }
}
