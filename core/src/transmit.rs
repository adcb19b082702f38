//! Received and sent datagrams: metadata, and the ownership of the bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;

use crate::id::{Channel, OverlayId};

/// Where a datagram goes, or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The other end.
    pub remote: SocketAddr,
    /// The local address it arrived at, or must leave from; `None` leaves it to the system.
    pub local_ip: Option<IpAddr>,
}

impl Route {
    /// Returns the route to `remote` from an address that the system picks.
    #[must_use]
    pub const fn to(remote: SocketAddr) -> Self {
        Self { remote, local_ip: None }
    }
}

/// The next hop of a packet of an end-to-end connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The peer itself, at this address.
    Direct(Route),
    /// A relay, which forwards the packet on this channel.
    Relayed(Channel),
}

impl NextHop {
    /// Returns true if packets to both take one path. A direct path is named by its remote address,
    /// whichever local address packets leave from.
    pub(crate) fn is_same_path(self, other: Self) -> bool {
        match (self, other) {
            (Self::Direct(a), Self::Direct(b)) => a.remote == b.remote,
            (Self::Relayed(a), Self::Relayed(b)) => a == b,
            (Self::Direct(_), Self::Relayed(_)) | (Self::Relayed(_), Self::Direct(_)) => false,
        }
    }

    /// Returns true if no relay is in between.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// The first 32 bits of addresses that name an end-to-end connection within a node: of the range
/// for local use (RFC 4193), and never on any wire.
const VIRTUAL: [u16; 2] = [0xfd15, 0x070b];

/// Returns the address by which the transport knows an end-to-end connection. Each is in a separate
/// network, since limits by source count an IPv6 /64 as one.
pub(crate) const fn overlay_address(id: OverlayId) -> SocketAddr {
    let (high, low) = ((id.0 >> 16) as u16, (id.0 & 0xffff) as u16);
    let ip = Ipv6Addr::new(VIRTUAL[0], VIRTUAL[1], high, low, 0, 0, 0, 1);
    SocketAddr::new(IpAddr::V6(ip), 1)
}

/// Returns the end-to-end connection that an address names: no packet from a network can have such
/// an address.
pub(crate) fn overlay_id(address: &SocketAddr) -> Option<OverlayId> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let [first, second, high, low, ..] = ip.segments();
    let number = u32::from(high) << 16 | u32::from(low);
    ([first, second] == VIRTUAL).then_some(OverlayId(number))
}

/// Explicit congestion notification codepoint (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ecn {
    /// Capable transport, 0b10.
    Ect0,
    /// Capable transport, 0b01.
    Ect1,
    /// Congestion experienced, 0b11.
    Ce,
}

/// One received batch: datagrams of one route, back to back in one buffer (GRO).
#[derive(Debug)]
pub struct Datagram {
    /// Where it came from and where it arrived.
    pub route: Route,
    /// The codepoint it carried.
    pub ecn: Option<Ecn>,
    /// Bytes of each datagram; the last one may be shorter. Zero means one datagram.
    pub segment_size: usize,
    /// The datagrams, back to back.
    pub payload: BytesMut,
}

/// One batch to send: metadata only, the bytes are in the caller's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to send it.
    pub route: Route,
    /// The codepoint to set.
    pub ecn: Option<Ecn>,
    /// Bytes of each datagram, the last one may be shorter; `None` is a single datagram.
    pub segment_size: Option<usize>,
    /// Bytes in all.
    pub size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    #[test]
    fn a_direct_path_is_named_by_its_remote_address() {
        let route = Route::to("192.0.2.1:1".parse().unwrap());
        let from = Route { local_ip: Some("10.0.0.1".parse().unwrap()), ..route };
        assert!(NextHop::Direct(route).is_same_path(NextHop::Direct(from)));
        let relayed = |number| NextHop::Relayed(Channel { relay: PeerId(1), number });
        assert!(relayed(1).is_same_path(relayed(1)) && !relayed(1).is_same_path(relayed(2)));
        assert!(!relayed(1).is_same_path(NextHop::Direct(route)));
    }
}
