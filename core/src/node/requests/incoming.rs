//! Requests of peers: offered to the caller, and answered.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::{RequestState, Requests};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::id::{RequestId, StreamId};
use crate::message;
use crate::node::io::Io;
use crate::node::streams::Streams;
use crate::request::{Offer, ReceivedRequest};

impl Requests {
    /// Handles a peer's request that has arrived whole.
    pub(in crate::node) fn on_arrived(
        &mut self,
        stream: StreamId,
        request: message::Request,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        let id = RequestId(self.next);
        if !streams.on_request(stream, id, io) {
            return;
        }
        let id = self.new_id();
        let offer = Offer {
            correlation: request.id,
            deadline: request.deadline_ms.map(Duration::from_millis),
            priority: request.priority,
            body: request.body,
        };
        let machine = ReceivedRequest::new();
        self.exchanges.insert(id, RequestState::Theirs { machine, stream, offer: Some(offer) });
        self.peers.entry(stream.peer).or_default().on_streams.insert(id);
        io.emit(Event::RequestOffered { peer: stream.peer, request: id });
    }

    /// Returns the content of a peer's request, once.
    pub(in crate::node) fn offer(&mut self, id: RequestId) -> Option<Offer> {
        match self.exchanges.get_mut(&id)? {
            RequestState::Theirs { offer, .. } => offer.take(),
            RequestState::Queued { .. } | RequestState::Sent { .. } | RequestState::Failed(_) => {
                None
            }
        }
    }

    /// Returns true if a peer's request has not been taken yet.
    pub(in crate::node) fn is_offered(&self, id: RequestId) -> bool {
        matches!(self.exchanges.get(&id), Some(RequestState::Theirs { offer: Some(_), .. }))
    }

    /// Answers a peer's request whole.
    pub(in crate::node) fn respond(
        &mut self,
        id: RequestId,
        body: Bytes,
        streams: &mut Streams,
        io: &mut Io,
    ) -> Result<(), Misuse> {
        self.theirs(id)?.respond(body)?;
        self.write(id, streams, io);
        Ok(())
    }

    /// Adds a chunk to a streamed answer; `Pending` means that it was not taken.
    pub(in crate::node) fn respond_chunk(
        &mut self,
        id: RequestId,
        body: Bytes,
        is_final: bool,
        streams: &mut Streams,
        io: &mut Io,
    ) -> Poll<Result<(), Misuse>> {
        let taken = self.theirs(id).and_then(|machine| machine.respond_chunk(body, is_final));
        match taken {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                self.write(id, streams, io);
                Poll::Ready(Ok(()))
            }
            Err(misuse) => Poll::Ready(Err(misuse)),
        }
    }

    /// Answers a peer's request with a failure.
    pub(in crate::node) fn fail(
        &mut self,
        id: RequestId,
        failure: &Failure,
        streams: &mut Streams,
        io: &mut Io,
    ) -> Result<(), Misuse> {
        self.theirs(id)?.fail(failure)?;
        self.write(id, streams, io);
        Ok(())
    }

    fn theirs(&mut self, id: RequestId) -> Result<&mut ReceivedRequest, Misuse> {
        match self.exchanges.get_mut(&id) {
            Some(RequestState::Theirs { machine, .. }) => Ok(machine),
            Some(
                RequestState::Queued { .. } | RequestState::Sent { .. } | RequestState::Failed(_),
            )
            | None => Err(Misuse::UnknownRequest),
        }
    }

    /// Removes a request of a peer: answered, or cancelled by either side.
    pub(super) fn end_offer(&mut self, id: RequestId, streams: &mut Streams, io: &mut Io) {
        let Some(RequestState::Theirs { stream, .. }) = self.exchanges.get(&id) else { return };
        let stream = *stream;
        self.exchanges.remove(&id);
        self.leave_stream(id, stream);
        io.emit(Event::RequestProgressed { request: id });
        // The end of the peer's direction has not been read: without this the transport would
        // never allow the peer another stream in its place.
        streams.stop(stream, Code::Closed, io);
    }
}
