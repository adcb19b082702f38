//! The invariants of the peers between any two calls of the node.

use std::collections::BTreeMap;

use super::control::MAX_WAITING;
use super::{Io, Peers};

impl Peers {
    pub(in crate::node) fn audit(&self, io: &Io) {
        let mut connections = BTreeMap::new();
        for (id, peer) in &self.all {
            assert_eq!(*id, peer.id);
            let attempt = peer.dialled.as_ref().and_then(|d| d.attempt);
            assert!(attempt.is_none() || peer.link.is_none(), "{id}: an attempt while connected");
            assert_eq!(peer.lifecycle.is_connected(), peer.link.is_some(), "{id}");
            if let Some(connection) = peer.connection() {
                assert_eq!(connections.insert(connection, *id), None, "two peers share one");
            }
            let limit = io.config.transport.datagram_receive_buffer as usize;
            assert!(peer.datagram_bytes() <= limit, "{id}: datagrams beyond the limit");
            if let Some(link) = &peer.link {
                assert!(!link.is_closing, "{id}: to be closed, and still there");
                assert!(link.control.waiting() <= MAX_WAITING);
            }
        }
        let twins = self.all.values().filter(|peer| peer.twin_key.is_some()).count();
        assert_eq!(self.twins.len(), twins, "a device has connections that are no peers");
        assert_eq!(connections, self.by_connection);
        assert!(self.all.len() <= io.config.limits.peers);
        let accepted = self.all.values().filter(|p| p.dialled.is_none()).map(|p| p.id);
        assert!(self.places.audit().eq(accepted), "a peer without a place");
        let connected = self.all.values().filter(|p| p.link.is_some()).count();
        assert!(self.expiries.len() <= connected, "certificates of nobody are watched");
        for id in connections.keys() {
            assert!(io.quic.get(*id).is_some(), "{id:?} is gone and still in use");
        }
    }
}
