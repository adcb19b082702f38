//! What must hold within a node between any two calls, checked by simulations.
//!
//! It looks and never changes anything; a broken invariant is a bug of this node, and panics.

use std::collections::BTreeMap;

use super::Node;
use super::exchange::Exchange;
use super::peer::Peer;
use super::streams::{Receiving, Stream};
use crate::admission::MAX_SOURCES;
use crate::id::{PeerId, StreamId};

/// Entries of streams that are past their opening, where there are few streams.
const MAX_STALE_OPENINGS: usize = 1_024;

impl Node {
    /// Whether a shutdown was asked for.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.shutdown.is_under_way()
    }

    /// Checks that all indices and counters agree with what they index and count, and that every
    /// collection is within its limit.
    ///
    /// # Panics
    /// When they do not.
    pub fn audit(&self) {
        let mut connections = BTreeMap::new();
        for (id, peer) in &self.peers {
            assert_eq!(*id, peer.id);
            let attempt = peer.dialled.as_ref().and_then(|d| d.attempt);
            assert!(attempt.is_none() || peer.link.is_none(), "{id}: an attempt while connected");
            assert_eq!(peer.lifecycle.is_connected(), peer.link.is_some(), "{id}");
            if let Some(connection) = peer.connection() {
                assert_eq!(connections.insert(connection, *id), None, "two peers share one");
            }
            self.audit_peer(peer);
        }
        assert_eq!(connections, self.by_connection);
        assert!(self.peers.len() <= self.config.limits.peers);
        let connected = self.peers.values().filter(|p| p.link.is_some()).count();
        assert!(self.expiries.len() <= connected, "certificates of nobody are watched");
        for id in connections.keys() {
            assert!(self.endpoint.get(*id).is_some(), "{id:?} is gone and still in use");
        }
        self.audit_admission();
        self.audit_exchanges();
        self.audit_ways();
    }

    fn audit_ways(&self) {
        self.ways.audit();
        for (id, peer) in &self.peers {
            let Some(number) = peer.link.as_ref().and_then(|link| link.way) else { continue };
            assert_eq!(self.way_of(*id), Some(number), "{id}: its way is another's");
        }
    }

    fn audit_admission(&self) {
        let (stats, limits) = (self.endpoint.admission(), &self.config.limits);
        assert_eq!(stats.under_way, self.endpoint.tickets(), "a ticket was lost");
        assert!(stats.under_way <= limits.handshakes, "{stats:?}");
        assert!(stats.sources <= MAX_SOURCES.max(limits.handshakes), "{stats:?}");
    }

    fn audit_peer(&self, peer: &Peer) {
        let limit = self.config.transport.datagram_receive_buffer as usize;
        assert!(peer.datagram_bytes() <= limit, "{}: datagrams beyond the limit", peer.id);
        let Some(link) = &peer.link else {
            assert_eq!(peer.held_bytes, 0, "{}: bodies held without a connection", peer.id);
            return;
        };
        let charged: usize = link.streams.iter().map(|(_, s)| s.charged).sum();
        assert_eq!(charged, peer.held_bytes, "{}", peer.id);
        // One body may be as large as it likes where no other is held.
        let most = self.config.limits.request_bytes.max(super::exchange::MAX_BODY + 1024);
        assert!(peer.held_bytes <= most, "{}: {} bytes held", peer.id, peer.held_bytes);
        assert!(!peer.is_unblocking);
        assert!(link.control.waiting() <= super::control::MAX_WAITING);
        assert!(link.streams.openings() <= 2 * link.streams.len().max(MAX_STALE_OPENINGS));
        for (index, stream) in link.streams.iter() {
            let id = StreamId { peer: peer.id, connection: link.number, index };
            assert!(!stream.is_over(), "{id} is over and still there");
            self.audit_stream(id, stream);
        }
    }

    fn audit_stream(&self, id: StreamId, stream: &Stream) {
        let Receiving::Request(request) = stream.receiving else { return };
        match self.exchanges.get(&request) {
            Some(Exchange::Sent { stream, .. } | Exchange::Theirs { stream, .. }) => {
                assert_eq!(*stream, id, "{request}");
            }
            other @ (Some(Exchange::Queued { .. } | Exchange::Failed(_)) | None) => {
                panic!("{id} belongs to {request}, which is {other:?}")
            }
        }
    }

    fn audit_exchanges(&self) {
        let sent = self.exchanges.values().filter(|e| matches!(e, Exchange::Sent { .. })).count();
        assert_eq!(sent, self.request_timers.len(), "each request that was sent has a deadline");
        let mut queued: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (id, exchange) in &self.exchanges {
            match exchange {
                Exchange::Queued { peer, .. } => *queued.entry(*peer).or_default() += 1,
                Exchange::Sent { stream, .. } => {
                    assert!(self.link_of(*stream).is_some(), "{id} lives on a lost connection");
                }
                Exchange::Theirs { stream, .. } => {
                    let link = self.link_of(*stream).expect("it lives on a connection");
                    let receiving = link.streams.get(stream.index).map(|s| &s.receiving);
                    assert!(matches!(receiving, Some(Receiving::Request(r)) if r == id), "{id}");
                }
                Exchange::Failed(_) => {}
            }
        }
        for (id, peer) in &self.peers {
            assert_eq!(peer.queue.len(), queued.remove(id).unwrap_or(0), "{id}");
        }
        assert!(queued.is_empty(), "requests wait for peers that are gone: {queued:?}");
    }
}
