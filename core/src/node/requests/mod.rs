//! Every request of a node, its own and those of its peers: the queued ones, those on a stream, and
//! their deadlines.
//!
//! A request is written to at most one connection. One that was written when the connection is lost
//! fails and is not repeated: it may have been carried out (docs/protocol.md, "Requests").
//! `outgoing` has this node's requests, `incoming` those of peers. The machines of both ends are in
//! [`crate::request`]; this owner moves their bytes and keeps their deadlines.

mod incoming;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::io::Io;
use super::streams::Streams;
use crate::error::{Failure, Misuse};
use crate::event::{Event, RequestCounts};
use crate::frame::MAX_PAYLOAD;
use crate::id::{PeerId, RequestId, StreamId};
use crate::quic::Write;
use crate::request::queue::{PriorityQueue, Slot};
use crate::request::{Offer, ReceivedRequest, Request, SentRequest, abandoned};
use crate::timer::{Deadline, Timers, earliest};

/// Largest body of a request: a frame less the request's own header.
pub(super) const MAX_BODY: usize = MAX_PAYLOAD - 1024;

/// One request, this node's or a peer's.
#[derive(Debug)]
enum RequestState {
    /// This node's, waiting for a connection or a stream.
    Queued { peer: PeerId, slot: Slot, request: Request, due: Instant },
    /// This node's, written or being written.
    Sent { machine: SentRequest, stream: StreamId },
    /// This node's, over; it stays until the caller has fetched the failure.
    Failed(Failure),
    /// The peer's.
    Theirs { machine: ReceivedRequest, stream: StreamId, offer: Option<Offer> },
}

impl RequestState {
    /// Returns the data still to be written, and its stream.
    const fn unsent(&mut self) -> Option<(&mut VecDeque<Bytes>, StreamId)> {
        match self {
            Self::Sent { machine, stream } => Some((machine.unsent(), *stream)),
            Self::Theirs { machine, stream, .. } => Some((machine.unsent(), *stream)),
            Self::Queued { .. } | Self::Failed(_) => None,
        }
    }

    /// Returns the stream of a request that has one.
    const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Sent { stream, .. } | Self::Theirs { stream, .. } => Some(*stream),
            Self::Queued { .. } | Self::Failed(_) => None,
        }
    }
}

/// The requests to and from one peer.
#[derive(Debug, Default)]
struct PeerRequests {
    /// Requests that wait for a connection or a stream.
    queue: PriorityQueue<RequestId>,
    counts: RequestCounts,
    /// Requests, in both directions, that are on a stream of the present connection.
    on_streams: BTreeSet<RequestId>,
}

/// All requests of a node.
#[derive(Debug, Default)]
pub(super) struct Requests {
    exchanges: BTreeMap<RequestId, RequestState>,
    peers: BTreeMap<PeerId, PeerRequests>,
    next: u64,
    /// Deadlines of this node's requests that were sent.
    timers: Timers<RequestId>,
    /// The first deadline in a peer's queue.
    queue_timers: Timers<PeerId>,
}

impl Requests {
    pub(super) fn deadline(&self) -> Option<Deadline> {
        earliest([self.timers.next(), self.queue_timers.next()])
    }

    /// Returns the number of requests that wait for a peer.
    pub(super) fn queued(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |of| of.queue.len())
    }

    pub(super) fn counts(&self, peer: PeerId) -> RequestCounts {
        let Some(of) = self.peers.get(&peer) else { return RequestCounts::default() };
        RequestCounts { queued: of.queue.len(), ..of.counts }
    }

    /// Removes every request of a peer that is over, from the queue and from streams.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.queue_timers.set(peer, None);
    }

    /// Cancels a request, this node's or a peer's, and notifies the other side.
    pub(super) fn cancel(
        &mut self,
        id: RequestId,
        streams: &mut Streams,
        io: &mut Io,
    ) -> Result<(), Misuse> {
        match self.exchanges.get(&id).ok_or(Misuse::UnknownRequest)? {
            RequestState::Theirs { .. } => self.fail(id, &abandoned(), streams, io),
            RequestState::Queued { .. } | RequestState::Sent { .. } | RequestState::Failed(_) => {
                self.cancel_own(id, streams, io);
                Ok(())
            }
        }
    }

    /// Handles the lost connection of a peer: every request on it is lost, in both directions.
    pub(super) fn on_down(
        &mut self,
        peer: PeerId,
        failure: &Failure,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        let Some(of) = self.peers.get(&peer) else { return };
        for id in of.on_streams.clone() {
            self.end_offer(id, streams, io);
            self.fail_sent(id, failure, streams, io);
        }
    }

    /// Handles a peer's stop on the stream of a request: the peer does not want this side's data.
    pub(super) fn on_stopped(&mut self, id: RequestId, streams: &mut Streams, io: &mut Io) {
        match self.exchanges.get(&id) {
            // The responder may have answered already without reading the rest: then its answer
            // counts.
            Some(RequestState::Sent { .. }) => io.emit(Event::RequestProgressed { request: id }),
            Some(RequestState::Theirs { .. }) => self.end_offer(id, streams, io),
            Some(RequestState::Queued { .. } | RequestState::Failed(_)) | None => {}
        }
    }

    /// A stream takes data again: continues the request or the answer on it, if there is one.
    pub(super) fn on_writable(
        &mut self,
        peer: PeerId,
        index: u64,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        if let Some(request) = streams.on_writable(peer, index, io) {
            self.write(request, streams, io);
        }
    }

    /// Writes the unsent part of a request or an answer, as far as the stream allows.
    pub(super) fn write(&mut self, id: RequestId, streams: &mut Streams, io: &mut Io) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let is_ours = matches!(exchange, RequestState::Sent { .. });
        let Some((unsent, stream)) = exchange.unsent() else { return };
        match write_all(stream, unsent, streams, io) {
            Write::Stopped(code) if is_ours => {
                let failure = Failure::new(code, "the responder refused the request");
                self.fail_own(id, failure, streams, io);
            }
            Write::Gone if is_ours => {}
            Write::Stopped(_) | Write::Gone => self.end_offer(id, streams, io),
            Write::Taken(_) | Write::Blocked => self.after_write(id, stream, streams, io),
        }
    }

    fn after_write(&mut self, id: RequestId, stream: StreamId, streams: &mut Streams, io: &mut Io) {
        match self.exchanges.get_mut(&id) {
            Some(RequestState::Sent { machine, .. }) if machine.unsent_bytes() == 0 => {
                // A blocked write must not make this finish a second time.
                let _ = streams.finish(stream, io);
            }
            Some(RequestState::Theirs { machine, .. }) if machine.is_done() => {
                // As above.
                let _ = streams.finish(stream, io);
                self.end_offer(id, streams, io);
            }
            Some(RequestState::Theirs { machine, .. }) if machine.has_room() => {
                io.emit(Event::RequestProgressed { request: id });
            }
            Some(
                RequestState::Sent { .. }
                | RequestState::Theirs { .. }
                | RequestState::Queued { .. }
                | RequestState::Failed(_),
            )
            | None => {}
        }
    }

    const fn new_id(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        id
    }

    /// Takes a request off the list of those on streams.
    fn leave_stream(&mut self, id: RequestId, stream: StreamId) {
        if let Some(of) = self.peers.get_mut(&stream.peer) {
            of.on_streams.remove(&id);
        }
    }

    fn reindex(&mut self, peer: PeerId) {
        let deadline = self.peers.get(&peer).and_then(|of| of.queue.deadline());
        self.queue_timers.set(peer, deadline);
    }
}

fn write_all(
    stream: StreamId,
    unsent: &mut VecDeque<Bytes>,
    streams: &mut Streams,
    io: &mut Io,
) -> Write {
    while let Some(front) = unsent.front_mut() {
        match streams.write_raw(stream, front, io) {
            Write::Taken(_) => {}
            other @ (Write::Blocked | Write::Stopped(_) | Write::Gone) => return other,
        }
        if unsent.front().is_some_and(Bytes::is_empty) {
            unsent.pop_front();
        }
    }
    Write::Taken(0)
}
