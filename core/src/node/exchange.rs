//! Requests: between the queue, the machines of each exchange, and the streams they use.
//!
//! A request is written to at most one connection. What was written when the connection went is
//! reported as lost and not repeated: it may have been carried out (docs/protocol.md, "Requests").

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use super::Node;
use super::streams::{Receiving, Sending, Stream};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::frame::MAX_PAYLOAD;
use crate::id::{PeerId, RequestId, StreamId};
use crate::quic::{self, Read, Write};
use crate::request::queue::Slot;
use crate::request::{Incoming, Offer, Outgoing, Request, Step};
use crate::timer::Reason;

/// Largest body of a request: a frame less the request's own header.
pub(super) const MAX_BODY: usize = MAX_PAYLOAD - 1024;

/// One request, ours or a peer's.
#[derive(Debug)]
pub(super) enum Exchange {
    /// Ours, waiting for a connection or a stream.
    Queued { peer: PeerId, slot: Slot, request: Request, due: Instant },
    /// Ours, written or being written.
    Sent { machine: Outgoing, stream: StreamId },
    /// Ours, over; it stays until the caller has been told.
    Failed(Failure),
    /// The peer's.
    Theirs { machine: Incoming, stream: StreamId, offer: Option<Offer> },
}

impl Exchange {
    /// What is still to be written, and on which stream.
    const fn unsent(&mut self) -> Option<(&mut VecDeque<Bytes>, StreamId)> {
        match self {
            Self::Sent { machine, stream } => Some((machine.unsent(), *stream)),
            Self::Theirs { machine, stream, .. } => Some((machine.unsent(), *stream)),
            Self::Queued { .. } | Self::Failed(_) => None,
        }
    }
}

impl Node {
    /// Makes a request. Without a connection it waits for one, within its deadline.
    /// [`Event::RequestProgressed`] says when to ask [`Node::response`].
    ///
    /// # Errors
    /// [`Misuse::OverLimit`] when the body is over 10 MiB, the queue is full, or the deadline is
    /// later than time can be told;
    /// [`Misuse::WrongState`] when the peer has failed; [`Misuse::ShuttingDown`].
    pub fn request(
        &mut self,
        peer: PeerId,
        request: Request,
        now: Instant,
    ) -> Result<RequestId, Misuse> {
        let now = self.clock.advance(now);
        let timeout = request.deadline.unwrap_or(self.config.request_timeout);
        let entry = self.peers.get_mut(&peer).ok_or(Misuse::UnknownPeer)?;
        if self.shutdown.is_under_way() {
            return Err(Misuse::ShuttingDown);
        }
        if matches!(entry.lifecycle.state(), crate::lifecycle::State::Failed { .. }) {
            return Err(Misuse::WrongState);
        }
        if request.body.len() > MAX_BODY {
            return Err(Misuse::OverLimit);
        }
        let due = now.checked_add(timeout).ok_or(Misuse::OverLimit)?;
        let id = RequestId(self.next_request);
        let bytes = request.body.len();
        let accepted = entry
            .queue
            .push(request.priority, id, bytes, Some(due))
            .map_err(|_| Misuse::OverLimit)?;
        self.next_request += 1;
        self.exchanges.insert(id, Exchange::Queued { peer, slot: accepted.slot, request, due });
        self.flush_queue(peer, now);
        self.reindex(peer);
        self.route(now);
        Ok(id)
    }

    /// The next part of the answer to a request of ours. `None` is its end. After the end or a
    /// failure the request is forgotten. `Pending` means that [`Event::RequestProgressed`]
    /// follows.
    ///
    /// # Errors
    /// The [`Failure`] of the request, once.
    pub fn response(&mut self, id: RequestId) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            match self.exchanges.get_mut(&id) {
                None | Some(Exchange::Theirs { .. }) => {
                    let sentence = "no such request, or it has ended";
                    return Poll::Ready(Err(Failure::new(Code::Cancelled, sentence)));
                }
                Some(Exchange::Queued { .. }) => return Poll::Pending,
                Some(Exchange::Failed(failure)) => {
                    let failure = failure.clone();
                    self.exchanges.remove(&id);
                    return Poll::Ready(Err(failure));
                }
                Some(Exchange::Sent { machine, stream }) => {
                    let (stream, wanted) = (*stream, machine.wanted());
                    match self.read_response(id, stream, wanted) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(None) => {}
                        Poll::Ready(Some(Step::Body(body))) => return Poll::Ready(Ok(Some(body))),
                        Poll::Ready(Some(Step::End)) => {
                            self.end_request(id, true);
                            self.exchanges.remove(&id);
                            return Poll::Ready(Ok(None));
                        }
                        Poll::Ready(Some(Step::Failed(failure))) => {
                            self.fail_request(id, failure);
                        }
                    }
                }
            }
        }
    }

    fn read_response(
        &mut self,
        id: RequestId,
        stream: StreamId,
        wanted: usize,
    ) -> Poll<Option<Step>> {
        let read = self.quic_read(stream, wanted);
        let Some(Exchange::Sent { machine, .. }) = self.exchanges.get_mut(&id) else {
            return Poll::Ready(None);
        };
        Poll::Ready(match read {
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

    /// Gives a request up, ours or a peer's: the other side is told.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when it is not there.
    pub fn cancel(&mut self, id: RequestId) -> Result<(), Misuse> {
        match self.exchanges.get(&id).ok_or(Misuse::UnknownRequest)? {
            Exchange::Theirs { .. } => self.fail(id, &crate::request::abandoned()),
            Exchange::Queued { .. } | Exchange::Sent { .. } | Exchange::Failed(_) => {
                self.fail_request(id, Failure::new(Code::Cancelled, "cancelled by its caller"));
                self.exchanges.remove(&id);
                Ok(())
            }
        }
    }

    /// Sends what waits, as far as the peer allows more streams.
    pub(super) fn flush_queue(&mut self, peer: PeerId, now: Instant) {
        self.expire_queued(peer, now);
        loop {
            let Some(entry) = self.peers.get_mut(&peer) else { return };
            let Some(link) = entry.link.as_mut().filter(|l| !l.going_away) else { return };
            if entry.queue.is_empty() {
                return;
            }
            let opened = self.endpoint.stream(link.connection, quic::Connection::open).flatten();
            let Some(index) = opened else { return };
            let Some(popped) = entry.queue.pop() else { return };
            let id = popped.item;
            let stream = StreamId { peer, connection: link.number, index };
            link.streams.insert(index, Stream::new(Receiving::Request(id), Bytes::new(), now));
            entry.counts.sent += 1;
            self.start_exchange(id, stream, now);
        }
    }

    fn start_exchange(&mut self, id: RequestId, stream: StreamId, now: Instant) {
        let Some(Exchange::Queued { request, due, .. }) = self.exchanges.remove(&id) else {
            return;
        };
        let left = due.saturating_duration_since(now);
        let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        match Outgoing::new(id.0.to_string(), request, deadline_ms) {
            Ok(machine) => {
                self.exchanges.insert(id, Exchange::Sent { machine, stream });
                self.request_timers.set(id, Some((due, Reason::Request)));
                self.write_exchange(id);
            }
            Err(error) => {
                self.stream_reset(stream, Code::TooLarge);
                self.stream_stop(stream, Code::TooLarge);
                let failure = Failure::new(Code::TooLarge, error.to_string());
                self.exchanges.insert(id, Exchange::Failed(failure));
                self.emit(Event::RequestProgressed { request: id });
            }
        }
    }

    /// Writes what an exchange has to say, as far as the stream takes it.
    pub(super) fn write_exchange(&mut self, id: RequestId) {
        let now = self.clock.now();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let is_ours = matches!(exchange, Exchange::Sent { .. });
        let Some((waiting, stream)) = exchange.unsent() else { return };
        let mut unsent = std::mem::take(waiting);
        let outcome = self.write_all(stream, &mut unsent, now);
        if let Some((waiting, _)) = self.exchanges.get_mut(&id).and_then(Exchange::unsent) {
            *waiting = unsent;
        }
        match outcome {
            Write::Stopped(code) if is_ours => {
                self.fail_request(id, Failure::new(code, "the responder refused the request"));
            }
            Write::Gone if is_ours => {}
            Write::Stopped(_) | Write::Gone => self.end_offer(id),
            Write::Taken(_) | Write::Blocked => self.after_write(id, stream),
        }
    }

    fn after_write(&mut self, id: RequestId, stream: StreamId) {
        match self.exchanges.get_mut(&id) {
            Some(Exchange::Sent { machine, .. }) if machine.unsent_bytes() == 0 => {
                // Finished once before when a blocked write was retried for nothing.
                let _ = self.stream_finish(stream);
            }
            Some(Exchange::Theirs { machine, .. }) if machine.is_done() => {
                // As above.
                let _ = self.stream_finish(stream);
                self.end_offer(id);
            }
            Some(Exchange::Theirs { machine, .. }) if machine.has_room() => {
                self.emit(Event::RequestProgressed { request: id });
            }
            Some(
                Exchange::Sent { .. }
                | Exchange::Theirs { .. }
                | Exchange::Queued { .. }
                | Exchange::Failed(_),
            )
            | None => {}
        }
    }

    fn write_all(&mut self, stream: StreamId, unsent: &mut VecDeque<Bytes>, now: Instant) -> Write {
        while let Some(front) = unsent.front_mut() {
            let Some(entry) = self.stream_mut(stream) else { return Write::Gone };
            let class = entry.class(now);
            match self.quic_write(stream, front, class) {
                Write::Taken(taken) => {
                    if let Some(entry) = self.stream_mut(stream) {
                        entry.on_written(taken);
                    }
                }
                other @ (Write::Blocked | Write::Stopped(_) | Write::Gone) => return other,
            }
            if unsent.front().is_some_and(Bytes::is_empty) {
                unsent.pop_front();
            }
        }
        Write::Taken(0)
    }

    /// A request of ours is over: its stream, deadline and counters are settled.
    fn end_request(&mut self, id: RequestId, succeeded: bool) {
        self.request_timers.set(id, None);
        let stream = match self.exchanges.get(&id) {
            Some(Exchange::Sent { stream, .. }) => Some(*stream),
            Some(Exchange::Queued { .. } | Exchange::Failed(_) | Exchange::Theirs { .. })
            | None => None,
        };
        let Some(stream) = stream else { return };
        if let Some(peer) = self.peers.get_mut(&stream.peer) {
            let counter =
                if succeeded { &mut peer.counts.succeeded } else { &mut peer.counts.failed };
            *counter += 1;
        }
        if succeeded {
            self.set_received(stream, Receiving::Done);
            // A responder that answers before it has the whole request wants no more of it.
            if self.stream_mut(stream).is_some_and(|s| s.sending == Sending::Open) {
                self.stream_reset(stream, Code::Closed);
            }
        } else {
            self.stream_reset(stream, Code::Cancelled);
            self.stream_stop(stream, Code::Cancelled);
        }
    }

    /// Fails a request of ours, once; the caller learns it from [`Node::response`].
    fn fail_request(&mut self, id: RequestId, failure: Failure) {
        match self.exchanges.get(&id) {
            Some(Exchange::Queued { peer, slot, .. }) => {
                let (peer, slot) = (*peer, *slot);
                if let Some(entry) = self.peers.get_mut(&peer) {
                    // It has left already when it expired or its queue is being emptied.
                    entry.queue.remove(slot);
                    entry.counts.failed += 1;
                }
                self.reindex(peer);
            }
            Some(Exchange::Sent { .. }) => self.end_request(id, false),
            Some(Exchange::Failed(_) | Exchange::Theirs { .. }) | None => return,
        }
        self.exchanges.insert(id, Exchange::Failed(failure));
        self.emit(Event::RequestProgressed { request: id });
    }

    pub(super) fn on_request_due(&mut self, id: RequestId, now: Instant) {
        let sentence = "no complete answer within the deadline";
        self.fail_request(id, Failure::new(Code::DeadlineExceeded, sentence));
        self.route(now);
    }

    pub(super) fn expire_queued(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let expired: Vec<RequestId> = entry.queue.expire(now).collect();
        for id in expired {
            let sentence = "no connection within the deadline";
            self.fail_request(id, Failure::new(Code::DeadlineExceeded, sentence));
        }
    }

    /// No connection will come: everything queued for this peer fails.
    pub(super) fn fail_queued(&mut self, peer: PeerId, failure: &Failure) {
        while let Some(popped) = self.peers.get_mut(&peer).and_then(|p| p.queue.pop()) {
            self.fail_request(popped.item, failure.clone());
        }
    }

    /// The connection is gone: everything written to it is lost, in both directions.
    pub(super) fn fail_sent(&mut self, peer: PeerId, failure: &Failure) {
        let on_it = |(id, exchange): (&RequestId, &Exchange)| match exchange {
            Exchange::Sent { stream, .. } | Exchange::Theirs { stream, .. } => {
                (stream.peer == peer).then_some(*id)
            }
            Exchange::Queued { .. } | Exchange::Failed(_) => None,
        };
        let lost: Vec<RequestId> = self.exchanges.iter().filter_map(on_it).collect();
        for id in lost {
            self.end_offer(id);
            let detail = format!("the connection was lost after sending: {failure}");
            self.fail_request(id, Failure::new(Code::ConnectionLost, detail));
        }
    }

    /// The peer stopped the stream of an exchange: it does not want what we say.
    pub(super) fn on_exchange_stopped(&mut self, id: RequestId) {
        match self.exchanges.get(&id) {
            // The responder may have answered already without reading on: its answer says.
            Some(Exchange::Sent { .. }) => self.emit(Event::RequestProgressed { request: id }),
            Some(Exchange::Theirs { .. }) => self.end_offer(id),
            Some(Exchange::Queued { .. } | Exchange::Failed(_)) | None => {}
        }
    }
}
