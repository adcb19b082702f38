//! The invariants of a node between any two calls, checked by simulations.
//!
//! It only reads; a broken invariant is a bug of this node, and panics.

use super::streams::Inspection;
use super::{FaultInjector, Node};
use crate::admission::MAX_SOURCES;

impl Node {
    /// Returns true if a shutdown was requested.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.io.shutdown.is_under_way()
    }

    /// Gives `injector` control of this node, which is a relay.
    pub fn take_over(&mut self, injector: Box<dyn FaultInjector>) {
        if let Some(relay) = &mut self.relay_server {
            relay.fault_injector = Some(injector);
        }
    }

    /// Checks that all indices and counters match their contents, and that every collection is
    /// within its limit.
    ///
    /// # Panics
    /// When they do not.
    pub fn audit(&self) {
        assert!(!self.io.has_effects(), "effects are left between two calls");
        self.peers.audit(&self.io);
        let streams = Inspection(&self.streams);
        streams.audit(&self.io);
        self.requests.audit(&self.streams);
        self.overlay.audit();
        let linked = self.peers.ids().filter(|id| self.peers.link(*id).is_some());
        assert!(streams.peers().eq(linked), "streams without a connection");
        for id in streams.peers() {
            assert_eq!(streams.connection(id), self.peers.link(id), "{id}");
        }
        for (peer, connection) in self.overlay.peers() {
            assert_eq!(self.peers.connection(peer), Some(connection), "{peer}: not its paths");
        }
        let (stats, limits) = (self.io.quic.admission(), &self.io.config.limits);
        assert_eq!(stats.under_way, self.io.quic.tickets(), "a ticket was lost");
        assert!(stats.under_way <= limits.handshakes, "{stats:?}");
        assert!(stats.sources <= MAX_SOURCES.max(limits.handshakes), "{stats:?}");
    }
}
