//! Where the peer of one connection is, and from which of this host's addresses it is sent to, beyond
//! what the transport knows.
//!
//! QUIC lets the side that dialed change its address and nobody else (RFC 9000 §9). It decides when the
//! dialing side follows an acceptor to another address, and when a source address is left to the
//! system. It never sends, and never judges whether a packet is authentic.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::transmit::Route;

/// How long nothing authentic may have come from the present address of an acceptor before another
/// one is taken: a copy that overtakes its original on another path moves nothing while the original's
/// address is heard.
const MOVED_AFTER: Duration = Duration::from_millis(500);

/// The addresses of one connection.
#[derive(Debug, Clone)]
pub(super) struct PeerSource {
    /// This side dialed directly: the peer may move.
    is_followed: bool,
    /// Where the peer is, if that is not where the transport has it.
    moved_to: Option<SocketAddr>,
    /// When the present address of the peer was heard.
    heard: Instant,
    /// The source address of the connection may be gone.
    is_unpinned: bool,
}

impl PeerSource {
    /// Returns the addresses of a new connection, whose peer is followed or not.
    pub(super) const fn new(is_followed: bool, now: Instant) -> Self {
        Self { is_followed, moved_to: None, heard: now, is_unpinned: false }
    }

    /// Returns true if the peer may move.
    pub(super) const fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Returns where the peer is, if that is not where the transport has it.
    pub(super) const fn moved_to(&self) -> Option<SocketAddr> {
        self.moved_to
    }

    /// Handles an authentic packet, where the transport has the peer at `remote` and this host at
    /// `local_ip`. Returns true if the peer is at another address from here on.
    pub(super) fn on_heard(
        &mut self,
        from: Route,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        now: Instant,
    ) -> bool {
        if from.local_ip == local_ip {
            self.is_unpinned = false;
        }
        let is_there = from.remote == self.moved_to.unwrap_or(remote);
        let is_silent = now.saturating_duration_since(self.heard) >= MOVED_AFTER;
        let is_moved = self.is_followed && !is_there && is_silent;
        if is_moved {
            self.moved_to = Some(from.remote).filter(|at| *at != remote);
        }
        if is_there || is_moved {
            self.heard = now;
        }
        is_moved
    }

    /// Leaves the source address to the system.
    pub(super) const fn unpin(&mut self) {
        self.is_unpinned = true;
    }

    /// Returns the route of a packet that the transport sends by `route`.
    pub(super) fn route(&self, route: Route) -> Route {
        let local_ip = route.local_ip.filter(|_| !self.is_unpinned);
        Route { remote: self.moved_to.unwrap_or(route.remote), local_ip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    fn at(host: u8) -> Route {
        Route { remote: ([192, 0, 2, host], 4433).into(), local_ip: None }
    }

    /// Returns true if the peer, which is at host 1 for the transport, has moved.
    fn hears(source: &mut PeerSource, host: u8, now: Instant) -> bool {
        source.on_heard(at(host), at(1).remote, None, now)
    }

    #[test]
    fn an_acceptor_is_followed_once_its_old_address_is_silent_and_back_again() {
        let start = anchor();
        let mut source = PeerSource::new(true, start);
        assert!(!hears(&mut source, 2, start + MOVED_AFTER - NANO));
        assert_eq!(source.route(at(1)), at(1));
        assert!(hears(&mut source, 2, start + MOVED_AFTER));
        assert_eq!((source.route(at(1)), source.moved_to()), (at(2), Some(at(2).remote)));
        let later = start + 2 * MOVED_AFTER;
        assert!(!hears(&mut source, 2, later));
        assert!(!hears(&mut source, 1, later + MOVED_AFTER - NANO));
        assert!(hears(&mut source, 1, later + MOVED_AFTER));
        assert_eq!((source.route(at(1)), source.moved_to()), (at(1), None));
    }

    #[test]
    fn a_dialer_is_left_to_the_transport() {
        let start = anchor();
        let mut source = PeerSource::new(false, start);
        assert!(!hears(&mut source, 2, start + 60 * MOVED_AFTER));
        assert_eq!(source.route(at(2)), at(2));
    }

    #[test]
    fn a_source_address_is_left_until_the_peer_sends_there() {
        let (start, here) = (anchor(), Some(IpAddr::from([198, 51, 100, 1])));
        let pinned = Route { local_ip: here, ..at(1) };
        let mut source = PeerSource::new(false, start);
        assert_eq!(source.route(pinned), pinned);
        source.unpin();
        let other = Route { local_ip: Some(IpAddr::from([198, 51, 100, 2])), ..at(1) };
        source.on_heard(other, at(1).remote, here, start);
        assert_eq!(source.route(pinned), at(1));
        source.on_heard(pinned, at(1).remote, here, start);
        assert_eq!(source.route(pinned), pinned);
    }
}
