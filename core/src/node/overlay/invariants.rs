//! The invariants of the end-to-end connections between any two calls of the node.

use super::{MAX_WAITING, Overlay};
use crate::id::PeerId;
use crate::quic::ConnectionId;

impl Overlay {
    /// Checks that the indices match their contents.
    pub(in crate::node) fn audit(&self) {
        for (channel, id) in &self.by_channel {
            let overlaid = self.all.get(id).expect("a channel leads somewhere");
            assert!(overlaid.channels.contains(channel), "{channel} is not listed");
        }
        let listed: usize = self.all.values().map(|it| it.channels.len()).sum();
        assert_eq!(listed, self.by_channel.len());
        assert!(self.by_session.values().all(|id| self.all.contains_key(id)), "a stale session");
        for (connection, id) in &self.by_connection {
            let overlaid = self.all.get(id).expect("a connection has its paths");
            assert_eq!(overlaid.connection, Some(*connection));
        }
        let waiting = self.all.values().filter(|it| it.due.is_some()).count();
        assert_eq!(waiting, self.waiting);
        assert!(self.outbox.len() <= MAX_WAITING);
    }

    /// Returns the peers that are reached end to end, each with its connection.
    pub(in crate::node) fn peers(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> {
        self.all.values().filter_map(|it| Some((it.peer?, it.connection?)))
    }
}
