//! The invariants of the streams between any two calls of the node.

use super::table::Receiving;
use super::{Io, Streams};
use crate::id::{PeerId, RequestId, StreamId};
use crate::node::requests::MAX_BODY;
use crate::quic::ConnectionId;

/// Most entries of streams that are past their header, where there are few streams.
const MAX_STALE_HEADERS: usize = 1_024;

/// The streams, as the checks of the node read them.
#[derive(Clone, Copy)]
pub(in crate::node) struct Inspection<'a>(pub(in crate::node) &'a Streams);

impl<'a> Inspection<'a> {
    pub(in crate::node) fn audit(self, io: &Io) {
        let held: usize = self.0.links.values().map(|link| link.held_bytes).sum();
        assert_eq!(held, self.0.held_in_all);
        assert!(held <= io.config.limits.request_bytes_in_all, "{held} bytes held for all");
        for (peer, link) in &self.0.links {
            let charged: usize = link.table.iter().map(|(_, s)| s.charged).sum();
            assert_eq!(charged, link.held_bytes, "{peer}");
            // One body may have any size while no other is held.
            let most = link.most_bytes.max(MAX_BODY + 1024);
            assert!(link.held_bytes <= most, "{peer}: {} bytes held", link.held_bytes);
            link.credit.audit();
            let arrived = link.table.iter().filter_map(|(_, s)| s.arrived.as_ref());
            let sizes: Vec<_> = arrived.map(|it| it.bytes.size()).collect();
            assert_eq!(sizes.iter().map(|it| it.bytes).sum::<usize>(), link.arrived.bytes);
            assert_eq!(sizes.iter().map(|it| it.pieces).sum::<usize>(), link.arrived.pieces);
            assert!(link.table.openings() <= 2 * link.table.len().max(MAX_STALE_HEADERS));
            for (index, stream) in link.table.iter() {
                assert!(!stream.is_over(), "{peer} {index} is over and still there");
                assert!(!matches!(stream.receiving, Receiving::Arrived), "{peer} {index}");
            }
        }
    }

    /// Returns the peers that have a connection.
    pub(in crate::node) fn peers(self) -> impl Iterator<Item = PeerId> + use<'a> {
        self.0.links.keys().copied()
    }

    pub(in crate::node) fn connection(self, peer: PeerId) -> Option<ConnectionId> {
        self.0.links.get(&peer).map(|link| link.connection)
    }

    /// Returns every stream that carries a request, with the request.
    pub(in crate::node) fn requests(self) -> impl Iterator<Item = (StreamId, RequestId)> + use<'a> {
        self.0.links.iter().flat_map(|(&peer, link)| {
            link.table.iter().filter_map(move |(index, stream)| {
                let Receiving::Request(request) = stream.receiving else { return None };
                Some((StreamId { peer, connection: link.connection.0, index }, request))
            })
        })
    }

    /// Returns true if the connection of a stream is established.
    pub(in crate::node) fn is_alive(self, id: StreamId) -> bool {
        self.0.link(id).is_some()
    }
}
