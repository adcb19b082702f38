//! How streams begin: the opener's first frame, the acceptor's answer, and what a caller decides.
//!
//! What a frame means is `streams.rs`'s; here it is read, written and acted on.

use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Node;
use super::stream::StreamError;
use super::streams::{self, Preface, Receiving, Stream};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::frame::DecodeError;
use crate::id::{PeerId, StreamId};
use crate::message::{ErrorMessage, Message, Open, Opened, ServiceName};
use crate::quic::{self, Read, Write};

impl Node {
    /// Opens a stream to a service of a peer. `Ok(None)` means that the peer allows no more for
    /// now and [`Event::StreamsAvailable`] follows.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] without a connection, [`Misuse::ShuttingDown`] when either side is
    /// leaving.
    pub fn open(&mut self, id: PeerId, service: ServiceName) -> Result<Option<StreamId>, Misuse> {
        let now = self.clock.now();
        let leaving = self.shutdown.is_under_way();
        let peer = self.peers.get_mut(&id).ok_or(Misuse::UnknownPeer)?;
        let link = peer.link.as_mut().ok_or(Misuse::NotConnected)?;
        if leaving || link.going_away {
            return Err(Misuse::ShuttingDown);
        }
        let mut ahead = BytesMut::new();
        Message::Open(Open { service }).encode(&mut ahead).map_err(|_| Misuse::InvalidName)?;
        let opened = self.endpoint.stream(link.connection, quic::Connection::open).flatten();
        let Some(index) = opened else { return Ok(None) };
        link.streams.insert(index, Stream::opened(ahead.freeze(), now));
        let id = StreamId { peer: id, connection: link.number, index };
        // The acceptor learns of the stream from its first frame: it goes out at once.
        let _ = self.flush_ahead(id);
        Ok(Some(id))
    }

    /// Accepts a stream that was offered: from here on its bytes are the caller's.
    ///
    /// # Errors
    /// [`Misuse::UnknownStream`] when it is gone, [`Misuse::WrongState`] when it was not offered.
    pub fn accept_stream(&mut self, id: StreamId) -> Result<(), Misuse> {
        let stream = self.offered(id)?;
        stream.receiving = Receiving::Raw;
        stream.ahead = encoded(&Message::Opened(Opened));
        // A blocked write goes on when the transport says so.
        let _ = self.flush_ahead(id);
        Ok(())
    }

    /// Refuses a stream that was offered, with a reason the peer is told.
    ///
    /// # Errors
    /// [`Misuse::UnknownStream`] when it is gone, [`Misuse::WrongState`] when it was not offered.
    pub fn refuse_stream(&mut self, id: StreamId, failure: &Failure) -> Result<(), Misuse> {
        self.offered(id)?;
        self.refuse(id, failure);
        Ok(())
    }

    fn offered(&mut self, id: StreamId) -> Result<&mut Stream, Misuse> {
        let stream = self.stream_mut(id).ok_or(Misuse::UnknownStream)?;
        if matches!(stream.receiving, Receiving::Offered) {
            Ok(stream)
        } else {
            Err(Misuse::WrongState)
        }
    }

    pub(super) fn read_preface(&mut self, id: StreamId) {
        while let Some(Receiving::Preface(decoder)) = self.stream_mut(id).map(|s| &s.receiving) {
            let wanted = decoder.wanted().max(1);
            if let Some(failure) = decoder.header().and_then(streams::excess) {
                self.refuse(id, &failure);
                return;
            }
            if self.holds_back(id) {
                return;
            }
            match self.quic_read(id, wanted) {
                Read::Chunk(chunk) => self.on_preface_chunk(id, chunk),
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    self.stream_reset(id, Code::Cancelled);
                    self.set_received(id, Receiving::Done);
                }
            }
        }
    }

    fn on_preface_chunk(&mut self, id: StreamId, mut chunk: Bytes) {
        let Some(stream) = self.stream_mut(id) else { return };
        let Receiving::Preface(decoder) = &mut stream.receiving else { return };
        match decoder.poll_frame(&mut chunk) {
            Ok(None) => {}
            // A relay is for packets alone.
            Ok(Some(_)) if self.is_client(id.peer()) => {
                self.refuse(id, &Failure::new(Code::NoSuchService, "a relay has no services"));
            }
            Ok(Some(frame)) => match streams::preface(frame) {
                Preface::Service(service) if !self.shutdown.is_under_way() => {
                    self.set_received(id, Receiving::Offered);
                    self.emit(Event::StreamOffered { stream: id, service });
                }
                Preface::Request(request) if !self.shutdown.is_under_way() => {
                    self.on_request(id, request);
                }
                Preface::Service(_) | Preface::Request(_) => {
                    self.refuse(id, &Failure::new(Code::ShuttingDown, "shutting down"));
                }
                Preface::Refuse(failure) => self.refuse(id, &failure),
            },
            Err(DecodeError::TooLarge { declared }) => {
                let detail = format!("a first frame of {declared} bytes");
                self.refuse(id, &Failure::new(Code::TooLarge, detail));
            }
        }
    }

    /// Says no to a stream the peer opened: an error frame, the end, and no more from the peer.
    fn refuse(&mut self, id: StreamId, failure: &Failure) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.ahead = encoded(&Message::Error(ErrorMessage {
            code: failure.code().as_str().into(),
            message: failure.detail().into(),
            details: None,
        }));
        // It was open: nothing has been written on it before.
        let _ = self.stream_finish(id);
        self.stream_stop(id, failure.code());
    }

    pub(super) fn refuse_overdue_prefaces(&mut self, peer: PeerId, now: Instant) {
        loop {
            let Some(link) = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut()) else {
                return;
            };
            let number = link.number;
            let Some(index) = link.streams.poll_overdue(now) else { return };
            let id = StreamId { peer, connection: number, index };
            let sentence = "the stream did not say in time what it is for";
            self.refuse(id, &Failure::new(Code::TimedOut, sentence));
        }
    }

    /// Writes the frame that goes ahead of a stream's own bytes.
    pub(super) fn flush_ahead(&mut self, id: StreamId) -> Poll<Result<(), StreamError>> {
        let now = self.clock.now();
        let Some(stream) = self.stream_mut(id) else { return Poll::Ready(Err(self.gone(id))) };
        if stream.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (mut ahead, class) = (std::mem::take(&mut stream.ahead), stream.class(now));
        let wrote = self.quic_write(id, &mut ahead, class);
        let Some(stream) = self.stream_mut(id) else { return Poll::Ready(Err(self.gone(id))) };
        stream.ahead = ahead;
        match wrote {
            Write::Taken(_) if stream.ahead.is_empty() => {
                if stream.finish_after {
                    // Finishing can only fail when it is over already.
                    let _ = self.stream_finish(id);
                }
                Poll::Ready(Ok(()))
            }
            Write::Taken(_) | Write::Blocked => Poll::Pending,
            Write::Stopped(code) => Poll::Ready(Err(StreamError::Stopped(code))),
            Write::Gone => Poll::Ready(Err(StreamError::Closed)),
        }
    }

    /// Reads the acceptor's answer as far as it is there.
    pub(super) fn stream_answer(&mut self, id: StreamId) -> Poll<Result<(), StreamError>> {
        loop {
            let Some(stream) = self.stream_mut(id) else { return Poll::Ready(Err(self.gone(id))) };
            let wanted = match &stream.receiving {
                Receiving::Answer(decoder) => decoder.wanted().max(1),
                Receiving::Refused(failure) => {
                    return Poll::Ready(Err(StreamError::Refused(failure.clone())));
                }
                Receiving::Done
                | Receiving::Raw
                | Receiving::Preface(_)
                | Receiving::Held(_)
                | Receiving::Offered
                | Receiving::Request(_) => return Poll::Ready(Ok(())),
            };
            match self.quic_read(id, wanted) {
                Read::Blocked => return Poll::Pending,
                Read::Chunk(mut chunk) => {
                    let Some(stream) = self.stream_mut(id) else { continue };
                    let Receiving::Answer(decoder) = &mut stream.receiving else { continue };
                    match decoder.poll_frame(&mut chunk) {
                        Ok(None) => {}
                        Ok(Some(frame)) => stream.receiving = streams::answer(frame),
                        Err(error) => {
                            let failure = Failure::new(Code::ProtocolViolation, error.to_string());
                            stream.receiving = Receiving::Refused(failure);
                        }
                    }
                }
                Read::Reset(code) => {
                    self.set_received(id, Receiving::Done);
                    return Poll::Ready(Err(StreamError::Reset(code)));
                }
                Read::End | Read::Gone => {
                    self.set_received(id, Receiving::Done);
                    return Poll::Ready(Err(StreamError::Reset(Code::ProtocolViolation)));
                }
            }
        }
    }
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    if message.encode(&mut out).is_err() {
        // Every message given to this function has bounded fields.
        tracing::error!("a message of ours cannot be encoded");
    }
    out.freeze()
}
