//! The opening of streams: the opener's header, the acceptor's answer, and the caller's decision.
//!
//! `table` decides what a frame means; here frames are read, written and acted on.

use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::table::{self, Opening, Receiving, StreamState};
use super::{StreamError, Streams};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::frame::DecodeError;
use crate::id::{PeerId, StreamId};
use crate::message::{ErrorMessage, Message, Open, Opened, ServiceName, StreamMessage};
use crate::node::io::{Effect, Io};
use crate::quic::{self, Read, Write};

impl Streams {
    /// Opens a stream to a service of a connected peer; `None` if the peer allows no more for now.
    pub(in crate::node) fn open(
        &mut self,
        peer: PeerId,
        (service, origin): (ServiceName, Option<String>),
        io: &mut Io,
    ) -> Result<Option<StreamId>, Misuse> {
        let link = self.links.get_mut(&peer).ok_or(Misuse::NotConnected)?;
        let mut ahead = BytesMut::new();
        Message::Stream(StreamMessage::Open(Open { service, origin }))
            .encode(&mut ahead)
            .map_err(|_| Misuse::InvalidName)?;
        let opened = io.on(link.connection, quic::Connection::open).flatten();
        let Some(index) = opened else { return Ok(None) };
        link.table.insert(index, StreamState::opened(ahead.freeze(), io.now()));
        let id = StreamId { peer, connection: link.connection.0, index };
        // The acceptor learns of the stream from its header, which is sent now.
        let _ = self.flush_ahead(id, io);
        Ok(Some(id))
    }

    /// Handles a stream the peer opened.
    pub(in crate::node) fn on_opened(&mut self, peer: PeerId, index: u64, io: &mut Io) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let due = io.now() + io.config.limits.header_timeout;
        link.table.insert_arrived(index, due, io.now());
        self.on_readable(peer, index, io);
        self.reindex(peer);
    }

    /// Accepts an offered stream: from here on its bytes are the caller's.
    pub(in crate::node) fn accept(&mut self, id: StreamId, io: &mut Io) -> Result<(), Misuse> {
        let stream = self.offered(id)?;
        stream.receiving = Receiving::Raw;
        stream.origin = None;
        stream.ahead = encoded(&Message::Stream(StreamMessage::Opened(Opened)));
        // A blocked write goes on when the transport has room.
        let _ = self.flush_ahead(id, io);
        Ok(())
    }

    /// Returns the mark that the opener gave an offered stream.
    pub(in crate::node) fn origin(&self, id: StreamId) -> Option<&str> {
        self.get(id)?.origin.as_deref()
    }

    /// Refuses an offered stream.
    pub(in crate::node) fn refuse_offered(
        &mut self,
        id: StreamId,
        failure: &Failure,
        io: &mut Io,
    ) -> Result<(), Misuse> {
        self.offered(id)?;
        self.refuse(id, failure, io);
        Ok(())
    }

    fn offered(&mut self, id: StreamId) -> Result<&mut StreamState, Misuse> {
        let stream = self.get_mut(id).ok_or(Misuse::UnknownStream)?;
        if matches!(stream.receiving, Receiving::Offered) {
            Ok(stream)
        } else {
            Err(Misuse::WrongState)
        }
    }

    pub(super) fn read_header(&mut self, id: StreamId, io: &mut Io) {
        while let Some(Receiving::Header(decoder)) = self.get(id).map(|s| &s.receiving) {
            let wanted = decoder.wanted().max(1);
            if let Some(failure) = decoder.header().and_then(table::excess) {
                self.refuse(id, &failure, io);
                return;
            }
            if self.holds_back(id, io) {
                return;
            }
            match self.read_raw(id, wanted, io) {
                Read::Chunk(chunk) => self.on_header_chunk(id, chunk, io),
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    self.reset(id, Code::Cancelled, io);
                    self.set_received(id, Receiving::Done, io);
                }
            }
        }
    }

    fn on_header_chunk(&mut self, id: StreamId, mut chunk: Bytes, io: &mut Io) {
        let Some(link) = self.link_mut(id) else { return };
        let has_services = link.has_services;
        let Some(stream) = link.table.get_mut(id.index) else { return };
        let Receiving::Header(decoder) = &mut stream.receiving else { return };
        let opening = match decoder.poll_frame(&mut chunk) {
            Ok(None) => return,
            Ok(Some(frame)) => table::opening(frame, has_services),
            Err(DecodeError::TooLarge { declared }) => Opening::Refuse(Failure::new(
                Code::TooLarge,
                format!("a first frame of {declared} bytes"),
            )),
        };
        match opening {
            Opening::Refuse(failure) => self.refuse(id, &failure, io),
            Opening::ResetAt(at) => {
                self.stop(id, Code::Closed, io);
                self.reset(id, Code::Closed, io);
                self.on_reset_at(id.peer, &at, io);
            }
            Opening::Service(_) | Opening::Request(_) if io.shutdown.is_under_way() => {
                self.refuse(id, &Failure::new(Code::ShuttingDown, "shutting down"), io);
            }
            Opening::Service(Open { service, origin }) => {
                if let Some(stream) = self.get_mut(id) {
                    stream.origin = origin.map(Into::into);
                }
                self.set_received(id, Receiving::Offered, io);
                io.emit(Event::StreamOffered { stream: id, service });
            }
            Opening::Request(request) => {
                self.set_received(id, Receiving::Arrived, io);
                io.effect(Effect::RequestArrived { stream: id, request });
            }
        }
    }

    /// Refuses a stream that the peer opened: an error frame, the end, and no more from the peer.
    fn refuse(&mut self, id: StreamId, failure: &Failure, io: &mut Io) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.ahead = encoded(&Message::Stream(StreamMessage::Error(ErrorMessage {
            code: failure.code().as_str().into(),
            message: failure.detail().into(),
            details: None,
        })));
        // It was open: no data has been written on it before.
        let _ = self.finish(id, io);
        self.stop(id, failure.code(), io);
    }

    /// Refuses the streams of a peer with an overdue header.
    pub(in crate::node) fn on_due(&mut self, peer: PeerId, io: &mut Io) {
        while let Some(link) = self.links.get_mut(&peer) {
            let Some(index) = link.table.poll_overdue(io.now()) else { break };
            let id = StreamId { peer, connection: link.connection.0, index };
            let sentence = "the stream did not say in time what it is for";
            self.refuse(id, &Failure::new(Code::TimedOut, sentence), io);
        }
        self.reindex(peer);
    }

    /// Writes the frame that precedes a stream's own bytes.
    pub(super) fn flush_ahead(
        &mut self,
        id: StreamId,
        io: &mut Io,
    ) -> Poll<Result<(), StreamError>> {
        let now = io.now();
        let Some(link) = self.link_mut(id) else { return Poll::Ready(Err(self.gone(id))) };
        let connection = link.connection;
        let Some(stream) = link.table.get_mut(id.index) else {
            return Poll::Ready(Err(self.gone(id)));
        };
        if stream.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let class = stream.class(now);
        let wrote = io.on(connection, |c| c.write(id.index, &mut stream.ahead, class));
        let wrote = wrote.unwrap_or(Write::Gone);
        if let Write::Taken(taken) = wrote {
            link.credit.on_written(id.index, taken, now);
        }
        match wrote {
            Write::Taken(_) if stream.ahead.is_empty() => {
                if std::mem::take(&mut stream.finish_after) {
                    self.finish_written(id, io);
                }
                Poll::Ready(Ok(()))
            }
            Write::Taken(_) | Write::Blocked => Poll::Pending,
            Write::Stopped(code) => Poll::Ready(Err(StreamError::Stopped(code))),
            Write::Gone => Poll::Ready(Err(StreamError::Closed)),
        }
    }

    /// Reads the acceptor's answer as far as it has arrived.
    pub(super) fn read_answer(
        &mut self,
        id: StreamId,
        io: &mut Io,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let Some(stream) = self.get(id) else { return Poll::Ready(Err(self.gone(id))) };
            let wanted = match &stream.receiving {
                Receiving::Answer(decoder) => decoder.wanted().max(1),
                Receiving::Refused(failure) => {
                    return Poll::Ready(Err(StreamError::Refused(failure.clone())));
                }
                Receiving::Done
                | Receiving::Raw
                | Receiving::Header(_)
                | Receiving::Held(_)
                | Receiving::Offered
                | Receiving::Arrived
                | Receiving::Request(_) => return Poll::Ready(Ok(())),
            };
            match self.read_raw(id, wanted, io) {
                Read::Blocked => return Poll::Pending,
                Read::Chunk(mut chunk) => {
                    let Some(stream) = self.get_mut(id) else { continue };
                    let Receiving::Answer(decoder) = &mut stream.receiving else { continue };
                    match decoder.poll_frame(&mut chunk) {
                        Ok(None) => {}
                        Ok(Some(frame)) => stream.receiving = table::answer(frame),
                        Err(error) => {
                            let failure = Failure::new(Code::ProtocolViolation, error.to_string());
                            stream.receiving = Receiving::Refused(failure);
                        }
                    }
                }
                Read::Reset(code) => {
                    self.set_received(id, Receiving::Done, io);
                    return Poll::Ready(Err(StreamError::Reset(code)));
                }
                Read::End | Read::Gone => {
                    self.set_received(id, Receiving::Done, io);
                    return Poll::Ready(Err(StreamError::Reset(Code::ProtocolViolation)));
                }
            }
        }
    }
}

pub(super) fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    if message.encode(&mut out).is_err() {
        // Every message passed to this function has bounded fields.
        tracing::error!("a message of ours cannot be encoded");
    }
    out.freeze()
}
