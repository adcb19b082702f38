//! Requests of peers: offered to the caller, answered, and charged for while they are held.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::exchange::Exchange;
use super::streams::{Receiving, Sending};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::id::{RequestId, StreamId};
use crate::message::{self, Kind};
use crate::request::{Incoming, Offer};

impl Node {
    /// What a peer's request asks. It can be taken once.
    pub fn offer(&mut self, id: RequestId) -> Option<Offer> {
        match self.exchanges.get_mut(&id)? {
            Exchange::Theirs { offer, .. } => offer.take(),
            Exchange::Queued { .. } | Exchange::Sent { .. } | Exchange::Failed(_) => None,
        }
    }

    /// Whether a peer's request still waits to be taken.
    #[must_use]
    pub fn is_offered(&self, id: RequestId) -> bool {
        matches!(self.exchanges.get(&id), Some(Exchange::Theirs { offer: Some(_), .. }))
    }

    /// Answers a peer's request whole.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when the peer has given it up, [`Misuse::OverLimit`] above
    /// 10 MiB, [`Misuse::WrongState`] when it was answered before.
    pub fn respond(&mut self, id: RequestId, body: Bytes) -> Result<(), Misuse> {
        self.theirs(id)?.respond(body)?;
        self.write_exchange(id);
        Ok(())
    }

    /// Adds a chunk to a streamed answer. `Pending` took nothing: [`Event::RequestProgressed`]
    /// follows when the peer has read.
    ///
    /// # Errors
    /// As [`Node::respond`].
    pub fn respond_chunk(
        &mut self,
        id: RequestId,
        body: Bytes,
        is_final: bool,
    ) -> Poll<Result<(), Misuse>> {
        let taken = self.theirs(id).and_then(|machine| machine.respond_chunk(body, is_final));
        match taken {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                self.write_exchange(id);
                Poll::Ready(Ok(()))
            }
            Err(misuse) => Poll::Ready(Err(misuse)),
        }
    }

    /// Answers a peer's request with a failure.
    ///
    /// # Errors
    /// As [`Node::respond`].
    pub fn fail(&mut self, id: RequestId, failure: &Failure) -> Result<(), Misuse> {
        self.theirs(id)?.fail(failure)?;
        self.write_exchange(id);
        Ok(())
    }

    fn theirs(&mut self, id: RequestId) -> Result<&mut Incoming, Misuse> {
        match self.exchanges.get_mut(&id) {
            Some(Exchange::Theirs { machine, .. }) => Ok(machine),
            Some(Exchange::Queued { .. } | Exchange::Sent { .. } | Exchange::Failed(_)) | None => {
                Err(Misuse::UnknownRequest)
            }
        }
    }

    /// Forgets a request of a peer's: answered, or given up by either side.
    pub(super) fn end_offer(&mut self, id: RequestId) {
        let Some(Exchange::Theirs { stream, .. }) = self.exchanges.get(&id) else { return };
        let stream = *stream;
        self.exchanges.remove(&id);
        self.emit(Event::RequestProgressed { request: id });
        // The end of the peer's direction has not been read: without this the transport would
        // never allow the peer another stream in its place.
        self.stream_stop(stream, Code::Closed);
    }

    /// A peer's request is complete.
    pub(super) fn on_request(&mut self, stream: StreamId, request: message::Request) {
        if let Some(Sending::Stopped(code)) = self.stream_mut(stream).map(|s| s.sending) {
            // Whoever asked wants no answer any more.
            self.stream_reset(stream, code);
            self.stream_stop(stream, Code::Closed);
            return;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let offer = Offer {
            correlation: request.id,
            deadline: request.deadline_ms.map(Duration::from_millis),
            priority: request.priority,
            body: request.body,
        };
        let machine = Incoming::new();
        self.exchanges.insert(id, Exchange::Theirs { machine, stream, offer: Some(offer) });
        self.set_received(stream, Receiving::Request(id));
        self.emit(Event::RequestOffered { peer: stream.peer, request: id });
    }

    /// Whether the body that a stream declares must wait, and charges it when not. A body is
    /// charged once, when its header is known and before any of it is read.
    pub(super) fn holds_back(&mut self, id: StreamId) -> bool {
        let limit = self.config.limits.request_bytes;
        let Some(peer) = self.peers.get_mut(&id.peer) else { return false };
        let held = peer.held_bytes;
        let Some(stream) = peer.link.as_mut().and_then(|l| l.streams.get_mut(id.index)) else {
            return false;
        };
        let Receiving::Preface(decoder) = &stream.receiving else { return false };
        let Some(header) = decoder.header() else { return false };
        if stream.charged > 0 || Kind::from_wire(header.kind) != Some(Kind::Request) {
            return false;
        }
        let length = header.length as usize;
        if held > 0 && held + length > limit {
            stream.hold();
            return true;
        }
        stream.charged = length;
        peer.held_bytes += length;
        false
    }

    /// Gives back what a request's body was charged, and lets bodies go on that waited for it,
    /// oldest first.
    pub(super) fn release(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let charged = std::mem::take(&mut stream.charged);
        if charged == 0 {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id.peer) else { return };
        peer.held_bytes = peer.held_bytes.saturating_sub(charged);
        // A body that goes on may be refused and released in turn: the loop below, which is
        // already running then, sees to the next.
        if std::mem::replace(&mut peer.is_unblocking, true) {
            return;
        }
        while let Some(index) = self.link_of(id).and_then(|l| l.streams.first_held()) {
            let next = StreamId { index, ..id };
            let Some(stream) = self.stream_mut(next) else { break };
            stream.unhold();
            self.read_preface(next);
            if self.stream_mut(next).is_some_and(|s| matches!(s.receiving, Receiving::Held(_))) {
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(&id.peer) {
            peer.is_unblocking = false;
        }
    }
}
