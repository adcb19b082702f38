//! Requests of this node: queued until there is a connection, then written, then answered.

use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use super::{MAX_BODY, RequestState, Requests};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::id::{PeerId, RequestId, StreamId};
use crate::node::io::Io;
use crate::node::streams::Streams;
use crate::quic::Read;
use crate::request::{Request, SentRequest, Step};
use crate::timer::Reason;

impl Requests {
    /// Queues a request.
    pub(in crate::node) fn push(
        &mut self,
        peer: PeerId,
        request: Request,
        io: &Io,
    ) -> Result<RequestId, Misuse> {
        if request.body.len() > MAX_BODY {
            return Err(Misuse::OverLimit);
        }
        let timeout = request.deadline.unwrap_or(io.config.request_timeout);
        let due = io.now().checked_add(timeout).ok_or(Misuse::OverLimit)?;
        let (id, bytes) = (RequestId(self.next), request.body.len());
        let queue = &mut self.peers.entry(peer).or_default().queue;
        let accepted =
            queue.push(request.priority, id, bytes, Some(due)).map_err(|_| Misuse::OverLimit)?;
        let id = self.new_id();
        let slot = accepted.slot;
        self.exchanges.insert(id, RequestState::Queued { peer, slot, request, due });
        self.reindex(peer);
        Ok(id)
    }

    /// Writes the queued requests of a connected peer, as far as the peer allows more streams.
    pub(in crate::node) fn flush(&mut self, peer: PeerId, streams: &mut Streams, io: &mut Io) {
        self.expire(peer, streams, io);
        while let Some(of) = self.peers.get_mut(&peer) {
            let Some(id) = of.queue.peek().copied() else { break };
            let Some(stream) = streams.open_request(peer, id, io) else { break };
            of.queue.pop();
            of.counts.sent += 1;
            of.on_streams.insert(id);
            self.start(id, stream, streams, io);
        }
        self.reindex(peer);
    }

    fn start(&mut self, id: RequestId, stream: StreamId, streams: &mut Streams, io: &mut Io) {
        let Some(RequestState::Queued { request, due, .. }) = self.exchanges.remove(&id) else {
            return;
        };
        let left = due.saturating_duration_since(io.now());
        let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        match SentRequest::new(id.0.to_string(), request, deadline_ms) {
            Ok(machine) => {
                self.exchanges.insert(id, RequestState::Sent { machine, stream });
                self.timers.set(id, Some((due, Reason::Request)));
                self.write(id, streams, io);
            }
            Err(error) => {
                self.leave_stream(id, stream);
                streams.reset(stream, Code::TooLarge, io);
                streams.stop(stream, Code::TooLarge, io);
                let failure = Failure::new(Code::TooLarge, error.to_string());
                self.exchanges.insert(id, RequestState::Failed(failure));
                io.emit(Event::RequestProgressed { request: id });
            }
        }
    }

    /// Returns the next part of the answer; `None` is its end.
    pub(in crate::node) fn response(
        &mut self,
        id: RequestId,
        streams: &mut Streams,
        io: &mut Io,
    ) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            match self.exchanges.get_mut(&id) {
                None | Some(RequestState::Theirs { .. }) => {
                    let sentence = "no such request, or it has ended";
                    return Poll::Ready(Err(Failure::new(Code::Cancelled, sentence)));
                }
                Some(RequestState::Queued { .. }) => return Poll::Pending,
                Some(RequestState::Failed(failure)) => {
                    let failure = failure.clone();
                    self.exchanges.remove(&id);
                    return Poll::Ready(Err(failure));
                }
                Some(RequestState::Sent { machine, stream }) => {
                    match read_response(machine, *stream, streams, io) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(None) => {}
                        Poll::Ready(Some(Step::Body(body))) => return Poll::Ready(Ok(Some(body))),
                        Poll::Ready(Some(Step::End)) => {
                            self.end_sent(id, true, streams, io);
                            self.exchanges.remove(&id);
                            return Poll::Ready(Ok(None));
                        }
                        Poll::Ready(Some(Step::Failed(failure))) => {
                            self.fail_own(id, failure, streams, io);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn cancel_own(&mut self, id: RequestId, streams: &mut Streams, io: &mut Io) {
        self.fail_own(id, Failure::new(Code::Cancelled, "cancelled by its caller"), streams, io);
        self.exchanges.remove(&id);
    }

    /// Settles the stream, the deadline and the counters of a request that was sent.
    fn end_sent(&mut self, id: RequestId, succeeded: bool, streams: &mut Streams, io: &mut Io) {
        self.timers.set(id, None);
        let Some(stream) = self.exchanges.get(&id).and_then(RequestState::stream) else { return };
        if let Some(of) = self.peers.get_mut(&stream.peer) {
            let counter = if succeeded { &mut of.counts.succeeded } else { &mut of.counts.failed };
            *counter += 1;
        }
        self.leave_stream(id, stream);
        if succeeded {
            streams.end_request(stream, io);
        } else {
            streams.reset(stream, Code::Cancelled, io);
            streams.stop(stream, Code::Cancelled, io);
        }
    }

    /// Fails one of this node's requests, once; the caller fetches the failure.
    pub(super) fn fail_own(
        &mut self,
        id: RequestId,
        failure: Failure,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        match self.exchanges.get(&id) {
            Some(RequestState::Queued { peer, slot, .. }) => {
                let (peer, slot) = (*peer, *slot);
                if let Some(of) = self.peers.get_mut(&peer) {
                    // It is no longer queued if it expired or its queue is being emptied.
                    of.queue.remove(slot);
                    of.counts.failed += 1;
                }
                self.reindex(peer);
            }
            Some(RequestState::Sent { .. }) => self.end_sent(id, false, streams, io),
            Some(RequestState::Failed(_) | RequestState::Theirs { .. }) | None => return,
        }
        self.exchanges.insert(id, RequestState::Failed(failure));
        io.emit(Event::RequestProgressed { request: id });
    }

    /// Handles a written request that was lost with its connection.
    pub(super) fn fail_sent(
        &mut self,
        id: RequestId,
        failure: &Failure,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        let detail = format!("the connection was lost after sending: {failure}");
        self.fail_own(id, Failure::new(Code::ConnectionLost, detail), streams, io);
    }

    /// Fails the requests that are past their deadline.
    pub(in crate::node) fn on_due(&mut self, now: Instant, streams: &mut Streams, io: &mut Io) {
        while let Some((id, _)) = self.timers.pop_due(now) {
            let sentence = "no complete answer within the deadline";
            self.fail_own(id, Failure::new(Code::DeadlineExceeded, sentence), streams, io);
        }
        while let Some((peer, _)) = self.queue_timers.pop_due(now) {
            self.expire(peer, streams, io);
            self.reindex(peer);
        }
    }

    fn expire(&mut self, peer: PeerId, streams: &mut Streams, io: &mut Io) {
        let Some(of) = self.peers.get_mut(&peer) else { return };
        let expired: Vec<RequestId> = of.queue.expire(io.now()).collect();
        for id in expired {
            let sentence = "no connection within the deadline";
            self.fail_own(id, Failure::new(Code::DeadlineExceeded, sentence), streams, io);
        }
    }

    /// Fails every request queued for a peer: there will be no connection.
    pub(in crate::node) fn fail_queued(
        &mut self,
        peer: PeerId,
        failure: &Failure,
        streams: &mut Streams,
        io: &mut Io,
    ) {
        while let Some(popped) = self.peers.get_mut(&peer).and_then(|of| of.queue.pop()) {
            self.fail_own(popped.item, failure.clone(), streams, io);
        }
        self.reindex(peer);
    }
}

fn read_response(
    machine: &mut SentRequest,
    stream: StreamId,
    streams: &mut Streams,
    io: &mut Io,
) -> Poll<Option<Step>> {
    Poll::Ready(match streams.read_raw(stream, machine.wanted(), io) {
        Read::Chunk(chunk) => machine.handle_chunk(chunk),
        Read::Blocked => return Poll::Pending,
        Read::End => Some(machine.handle_end()),
        Read::Reset(code) => {
            Some(Step::Failed(Failure::new(code, "the responder broke the answer off")))
        }
        Read::Gone => {
            Some(Step::Failed(Failure::new(Code::ConnectionLost, "the connection is gone")))
        }
    })
}
