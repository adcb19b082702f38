//! The invariants of the requests between any two calls of the node.

use std::collections::{BTreeMap, BTreeSet};

use super::{RequestState, Requests, Streams};
use crate::id::{PeerId, RequestId, StreamId};
use crate::node::streams::Inspection;

impl Requests {
    pub(in crate::node) fn audit(&self, streams: &Streams) {
        let sent =
            self.exchanges.values().filter(|e| matches!(e, RequestState::Sent { .. })).count();
        assert_eq!(sent, self.timers.len(), "each request that was sent has a deadline");
        let carried: BTreeMap<RequestId, StreamId> =
            Inspection(streams).requests().map(|(stream, request)| (request, stream)).collect();
        for (request, stream) in &carried {
            let exchange = self.exchanges.get(request);
            let has = exchange.and_then(RequestState::stream);
            assert_eq!(has, Some(*stream), "{stream} belongs to {request}, which is {exchange:?}");
        }
        let mut queued: BTreeMap<PeerId, usize> = BTreeMap::new();
        let mut on_streams: BTreeMap<PeerId, BTreeSet<RequestId>> = BTreeMap::new();
        for (id, exchange) in &self.exchanges {
            match exchange {
                RequestState::Queued { peer, .. } => *queued.entry(*peer).or_default() += 1,
                RequestState::Sent { stream, .. } => {
                    assert!(
                        Inspection(streams).is_alive(*stream),
                        "{id} lives on a lost connection"
                    );
                    on_streams.entry(stream.peer).or_default().insert(*id);
                }
                RequestState::Theirs { stream, .. } => {
                    assert_eq!(carried.get(id), Some(stream), "{id}");
                    on_streams.entry(stream.peer).or_default().insert(*id);
                }
                RequestState::Failed(_) => {}
            }
        }
        for (peer, of) in &self.peers {
            assert_eq!(of.queue.len(), queued.remove(peer).unwrap_or(0), "{peer}");
            assert_eq!(of.on_streams, on_streams.remove(peer).unwrap_or_default(), "{peer}");
        }
        assert!(queued.is_empty(), "requests wait for peers that are gone: {queued:?}");
        assert!(on_streams.is_empty(), "requests are not listed: {on_streams:?}");
    }
}
