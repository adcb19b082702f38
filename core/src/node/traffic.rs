//! Streams and datagrams: from the transport to whom they concern, and the caller's face to them.

use std::fmt;
use std::task::Poll;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Node;
use super::peer::Link;
use super::streams::{self, Preface, Receiving, Sending, Stream};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::frame::DecodeError;
use crate::id::{PeerId, StreamId};
use crate::message::{ErrorMessage, Message, Open, Opened, ServiceName};
use crate::quic::{self, Class, Read, Write};

/// First byte of a datagram that carries a control frame.
const CONTEXT_CONTROL: u8 = 0;
/// First byte of a datagram of the application's.
const CONTEXT_APPLICATION: u8 = 1;

/// Why a stream gives or takes no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset its direction.
    #[error("reset by the peer: {}", .0.as_str())]
    Reset(Code),
    /// The peer wants no more of ours.
    #[error("stopped by the peer: {}", .0.as_str())]
    Stopped(Code),
    /// The acceptor refused the stream.
    #[error("refused: {0}")]
    Refused(Failure),
    /// The connection that the stream lived on is gone.
    #[error("the connection is gone: {0}")]
    ConnectionLost(Failure),
    /// This side has finished, reset or stopped it, or read it to its end.
    #[error("this direction of the stream is over")]
    Closed,
}

impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::ConnectionLost(_) => {
                std::io::ErrorKind::ConnectionReset
            }
            StreamError::Stopped(_) => std::io::ErrorKind::BrokenPipe,
            StreamError::Refused(_) => std::io::ErrorKind::ConnectionRefused,
            StreamError::Closed => std::io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// A stream of a node, borrowed for reading and writing. Nothing is copied on the way: chunks are
/// handed over as they are.
pub struct StreamRef<'a> {
    node: &'a mut Node,
    id: StreamId,
}

impl fmt::Debug for StreamRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamRef").field(&self.id).finish()
    }
}

impl StreamRef<'_> {
    /// Reads the next bytes in order, at most `max`. `None` is the end. `Pending` means that
    /// [`Event::StreamReadable`] follows.
    ///
    /// # Errors
    /// [`StreamError`] once, when the stream gives no more.
    pub fn read(&mut self, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.node.stream_read(self.id, max)
    }

    /// Writes from the front of `data` what the windows allow, and takes it off. `Pending` means
    /// that nothing was taken and [`Event::StreamWritable`] follows. Bytes may be written before
    /// the acceptor has answered.
    ///
    /// # Errors
    /// [`StreamError`] when the stream takes no more.
    pub fn write(&mut self, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        self.node.stream_write(self.id, data)
    }

    /// Ends our direction: [`Event::StreamFinished`] follows when the peer has everything.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it is over already.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.node.stream_finish(self.id)
    }

    /// Abandons our direction: what is not delivered yet will not be.
    pub fn reset(&mut self, code: Code) {
        self.node.stream_reset(self.id, code);
    }

    /// Asks the peer to send no more, and discards what it sent.
    pub fn stop(&mut self, code: Code) {
        self.node.stream_stop(self.id, code);
    }

    /// Whether the acceptor has said yes. `Pending` means that [`Event::StreamReadable`] follows.
    ///
    /// # Errors
    /// [`StreamError::Refused`] when it said no.
    pub fn accepted(&mut self) -> Poll<Result<(), StreamError>> {
        self.node.stream_answer(self.id)
    }

    /// Whether the peer has acknowledged everything of a finished stream.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let link = self.node.link_of(self.id);
        link.and_then(|l| l.streams.get(self.id.index)).is_none_or(|s| s.sending == Sending::Done)
    }
}

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

    /// A stream, for reading and writing. Calls on one that is gone say why.
    pub const fn stream(&mut self, id: StreamId) -> StreamRef<'_> {
        StreamRef { node: self, id }
    }

    /// Sends a datagram: it arrives once, or not at all.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] without a connection; [`Misuse::OverLimit`] when it is larger than
    /// [`Node::max_datagram`].
    pub fn send_datagram(&mut self, id: PeerId, data: &[u8]) -> Result<(), Misuse> {
        let peer = self.peers.get(&id).ok_or(Misuse::UnknownPeer)?;
        let link = peer.link.as_ref().ok_or(Misuse::NotConnected)?;
        let framed = framed(CONTEXT_APPLICATION, data);
        self.endpoint
            .stream(link.connection, |c| c.send_datagram(framed))
            .ok_or(Misuse::NotConnected)?
    }

    /// The next datagram received from a peer.
    pub fn recv_datagram(&mut self, id: PeerId) -> Option<Bytes> {
        self.peers.get_mut(&id)?.pop_datagram()
    }

    /// Bytes of the largest datagram that the path to a peer carries now.
    pub fn max_datagram(&mut self, id: PeerId) -> Option<usize> {
        let connection = self.peers.get(&id)?.link.as_ref()?.connection;
        let max = self.endpoint.stream(connection, quic::Connection::max_datagram)??;
        max.checked_sub(1)
    }

    pub(super) fn link_of(&self, id: StreamId) -> Option<&Link> {
        let link = self.peers.get(&id.peer)?.link.as_ref()?;
        (link.number == id.connection).then_some(link)
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let link = self.peers.get_mut(&id.peer)?.link.as_mut()?;
        if link.number != id.connection {
            return None;
        }
        link.streams.get_mut(id.index)
    }

    fn name(&self, peer: PeerId, index: u64) -> Option<StreamId> {
        let connection = self.peers.get(&peer)?.link.as_ref()?.number;
        Some(StreamId { peer, connection, index })
    }

    fn reap(&mut self, id: StreamId) {
        if let Some(link) = self.peers.get_mut(&id.peer).and_then(|p| p.link.as_mut()) {
            link.streams.reap(id.index);
        }
    }

    /// Why a stream that is not in the table gives nothing.
    fn gone(&self, id: StreamId) -> StreamError {
        if self.link_of(id).is_some() {
            return StreamError::Closed;
        }
        let failure = self.peers.get(&id.peer).and_then(|p| p.last_failure.clone());
        StreamError::ConnectionLost(
            failure.unwrap_or_else(|| Failure::new(Code::Closed, "the peer is gone")),
        )
    }

    fn quic_read(&mut self, id: StreamId, max: usize) -> Read {
        let Some(connection) = self.link_of(id).map(|l| l.connection) else { return Read::Gone };
        self.endpoint.stream(connection, |c| c.read(id.index, max)).unwrap_or(Read::Gone)
    }

    pub(super) fn quic_write(&mut self, id: StreamId, data: &mut Bytes, class: Class) -> Write {
        let Some(connection) = self.link_of(id).map(|l| l.connection) else { return Write::Gone };
        self.endpoint.stream(connection, |c| c.write(id.index, data, class)).unwrap_or(Write::Gone)
    }

    pub(super) fn on_streams_opened(&mut self, id: PeerId, now: Instant) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let Some(link) = &mut peer.link else { return };
            let accepted = self.endpoint.stream(link.connection, quic::Connection::accept);
            let Some(index) = accepted.flatten() else { break };
            if peer.dialled.is_none() && link.control.stream.is_none() {
                link.control.stream = Some(index);
            } else {
                let due = now + self.config.limits.preface_timeout;
                link.streams.insert_arrived(index, due, now);
            }
            self.on_readable(id, index, now);
        }
        self.reindex(id);
    }

    pub(super) fn on_streams_available(&mut self, id: PeerId, now: Instant) {
        self.flush_queue(id, now);
        self.emit(Event::StreamsAvailable { peer: id });
    }

    pub(super) fn on_readable(&mut self, peer: PeerId, index: u64, now: Instant) {
        let Some(link) = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut()) else { return };
        if link.control.stream == Some(index) {
            self.read_control(peer, now);
            return;
        }
        let id = StreamId { peer, connection: link.number, index };
        let Some(stream) = link.streams.get_mut(index) else { return };
        match stream.receiving {
            Receiving::Preface(_) => self.read_preface(id, now),
            Receiving::Request(request) => self.emit(Event::RequestProgressed { request }),
            Receiving::Answer(_) | Receiving::Raw | Receiving::Refused(_) => {
                self.emit(Event::StreamReadable { stream: id });
            }
            Receiving::Held(_) | Receiving::Offered | Receiving::Done => {}
        }
    }

    pub(super) fn on_writable(&mut self, peer: PeerId, index: u64, now: Instant) {
        let Some(link) = self.peers.get(&peer).and_then(|p| p.link.as_ref()) else { return };
        if link.control.stream == Some(index) {
            self.flush_control(peer, now);
            return;
        }
        let Some(id) = self.name(peer, index) else { return };
        if self.flush_ahead(id).is_pending() {
            return;
        }
        if let Some(Receiving::Request(request)) = self.stream_mut(id).map(|s| &s.receiving) {
            let request = *request;
            self.write_exchange(request);
        } else {
            self.emit(Event::StreamWritable { stream: id });
        }
    }

    pub(super) fn on_finished(&mut self, peer: PeerId, index: u64) {
        let Some(id) = self.name(peer, index) else { return };
        if let Some(stream) = self.stream_mut(id) {
            stream.sending = Sending::Done;
            self.emit(Event::StreamFinished { stream: id });
            self.reap(id);
        }
    }

    pub(super) fn on_stopped(&mut self, peer: PeerId, index: u64, code: Code) {
        let Some(id) = self.name(peer, index) else { return };
        // The stream has to be reset in answer (RFC 9000 §3.5).
        self.stream_reset(id, code);
        let receiving = self.stream_mut(id).map(|s| &s.receiving);
        if let Some(Receiving::Request(request)) = receiving {
            let request = *request;
            self.on_exchange_stopped(request, code);
        } else {
            self.emit(Event::StreamStopped { stream: id, code });
        }
        self.reap(id);
    }

    pub(super) fn on_datagrams(&mut self, id: PeerId, now: Instant) {
        let Some(connection) =
            self.peers.get(&id).and_then(|p| p.link.as_ref()).map(|l| l.connection)
        else {
            return;
        };
        let mut fresh = false;
        while let Some(mut data) =
            self.endpoint.stream(connection, quic::Connection::recv_datagram).flatten()
        {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            match data.split_to(data.len().min(1)).first() {
                Some(&CONTEXT_APPLICATION) => {
                    let limit = self.config.transport.datagram_receive_buffer as usize;
                    peer.push_datagram(data, limit);
                    fresh = true;
                }
                Some(&CONTEXT_CONTROL) => {
                    let link = peer.link.as_mut();
                    if let Some(message) = link.and_then(|l| l.control.handle_datagram(data)) {
                        self.on_control_message(id, message, now);
                    }
                }
                Some(_) | None => {}
            }
        }
        if fresh {
            self.emit(Event::DatagramReceived { peer: id });
        }
    }

    fn read_control(&mut self, peer: PeerId, now: Instant) {
        loop {
            let Some(link) = self.peers.get(&peer).and_then(|p| p.link.as_ref()) else { return };
            let Some(index) = link.control.stream else { return };
            let id = StreamId { peer, connection: link.number, index };
            let mut chunk = match self.quic_read(id, super::control::MAX_CONTROL_PAYLOAD) {
                Read::Chunk(chunk) => chunk,
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    let sentence = "the peer ended the control stream";
                    self.break_link(peer, Failure::new(Code::ProtocolViolation, sentence), now);
                    return;
                }
            };
            loop {
                let link = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut());
                let Some(link) = link.filter(|l| l.number == id.connection) else { return };
                match link.control.poll_message(&mut chunk) {
                    Ok(Some(message)) => self.on_control_message(peer, message, now),
                    Ok(None) => break,
                    Err(failure) => {
                        self.break_link(peer, failure, now);
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn flush_control(&mut self, peer: PeerId, now: Instant) {
        loop {
            let Some(link) = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut()) else {
                return;
            };
            let (connection, Some(index)) = (link.connection, link.control.stream) else { return };
            let Some(front) = link.control.front() else { return };
            let wrote = self
                .endpoint
                .stream(connection, |c| c.write(index, &mut front.bytes, Class::Control))
                .unwrap_or(Write::Gone);
            match wrote {
                Write::Taken(_) => {
                    front.as_datagram = false;
                    if front.bytes.is_empty() {
                        link.control.pop();
                    }
                }
                Write::Blocked if front.as_datagram => {
                    let datagram = framed(CONTEXT_CONTROL, &front.bytes);
                    // A path too narrow for it loses it, as any path may.
                    let _ = self.endpoint.stream(connection, |c| c.send_datagram(datagram));
                    link.control.pop();
                }
                Write::Blocked => return,
                Write::Stopped(_) | Write::Gone => {
                    let sentence = "the peer stopped the control stream";
                    self.break_link(peer, Failure::new(Code::ProtocolViolation, sentence), now);
                    return;
                }
            }
        }
    }

    pub(super) fn read_preface(&mut self, id: StreamId, now: Instant) {
        while let Some(Receiving::Preface(decoder)) = self.stream_mut(id).map(|s| &s.receiving) {
            let wanted = decoder.wanted().max(1);
            if self.holds_back(id) {
                return;
            }
            match self.quic_read(id, wanted) {
                Read::Chunk(chunk) => self.on_preface_chunk(id, chunk, now),
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    self.stream_reset(id, Code::Cancelled);
                    self.set_received(id, Receiving::Done);
                }
            }
        }
    }

    fn on_preface_chunk(&mut self, id: StreamId, mut chunk: Bytes, now: Instant) {
        let Some(stream) = self.stream_mut(id) else { return };
        let Receiving::Preface(decoder) = &mut stream.receiving else { return };
        match decoder.poll_frame(&mut chunk) {
            Ok(None) => {}
            Ok(Some(frame)) => match streams::preface(frame) {
                Preface::Service(service) if !self.shutdown.is_under_way() => {
                    self.set_received(id, Receiving::Offered);
                    self.emit(Event::StreamOffered { stream: id, service });
                }
                Preface::Request(request) if !self.shutdown.is_under_way() => {
                    self.on_request(id, request, now);
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

    /// Puts a new state in place of the receiving direction's, and forgets a stream that is over.
    pub(super) fn set_received(&mut self, id: StreamId, receiving: Receiving) {
        if let Some(stream) = self.stream_mut(id) {
            stream.receiving = receiving;
        }
        self.reap(id);
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
    fn flush_ahead(&mut self, id: StreamId) -> Poll<Result<(), StreamError>> {
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
    fn stream_answer(&mut self, id: StreamId) -> Poll<Result<(), StreamError>> {
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

    fn stream_read(
        &mut self,
        id: StreamId,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        match self.stream_answer(id) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        match self.stream_mut(id).map(|s| &s.receiving) {
            Some(Receiving::Raw) => {}
            Some(_) => return Poll::Ready(Err(StreamError::Closed)),
            None => return Poll::Ready(Err(self.gone(id))),
        }
        match self.quic_read(id, max) {
            Read::Chunk(bytes) => Poll::Ready(Ok(Some(bytes))),
            Read::Blocked => Poll::Pending,
            Read::End => {
                self.set_received(id, Receiving::Done);
                Poll::Ready(Ok(None))
            }
            Read::Reset(code) => {
                self.set_received(id, Receiving::Done);
                Poll::Ready(Err(StreamError::Reset(code)))
            }
            Read::Gone => {
                self.set_received(id, Receiving::Done);
                Poll::Ready(Err(StreamError::Closed))
            }
        }
    }

    fn stream_write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        match self.flush_ahead(id) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let now = self.clock.now();
        let Some(stream) = self.stream_mut(id) else { return Poll::Ready(Err(self.gone(id))) };
        if stream.sending != Sending::Open {
            return Poll::Ready(Err(StreamError::Closed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let class = stream.class(now);
        match self.quic_write(id, data, class) {
            Write::Taken(taken) => {
                if let Some(stream) = self.stream_mut(id) {
                    stream.on_written(taken);
                }
                Poll::Ready(Ok(taken))
            }
            Write::Blocked => Poll::Pending,
            Write::Stopped(code) => Poll::Ready(Err(StreamError::Stopped(code))),
            Write::Gone => Poll::Ready(Err(StreamError::Closed)),
        }
    }

    pub(super) fn stream_finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let pending = self.flush_ahead(id).is_pending();
        let Some(stream) = self.stream_mut(id) else { return Err(self.gone(id)) };
        if stream.sending != Sending::Open {
            return Err(StreamError::Closed);
        }
        if pending {
            stream.finish_after = true;
            return Ok(());
        }
        stream.sending = Sending::Finishing;
        let Some(connection) = self.link_of(id).map(|l| l.connection) else {
            return Err(self.gone(id));
        };
        match self.endpoint.stream(connection, |c| c.finish(id.index)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(StreamError::Closed),
        }
    }

    pub(super) fn stream_reset(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.stream_mut(id) else { return };
        if stream.sending != Sending::Done {
            stream.sending = Sending::Done;
            if let Some(connection) = self.link_of(id).map(|l| l.connection) {
                self.endpoint.stream(connection, |c| c.reset(id.index, code));
            }
        }
        self.reap(id);
    }

    pub(super) fn stream_stop(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.stream_mut(id) else { return };
        if !matches!(stream.receiving, Receiving::Done) {
            stream.receiving = Receiving::Done;
            if let Some(connection) = self.link_of(id).map(|l| l.connection) {
                self.endpoint.stream(connection, |c| c.stop(id.index, code));
            }
        }
        self.reap(id);
    }
}

fn framed(context: u8, data: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(data.len() + 1);
    framed.put_u8(context);
    framed.put_slice(data);
    framed.freeze()
}

fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    if message.encode(&mut out).is_err() {
        // Every message given to this function has bounded fields.
        tracing::error!("a message of ours cannot be encoded");
    }
    out.freeze()
}
