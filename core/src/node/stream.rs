//! The caller's face to a stream: read, write, finish, reset, stop.
//!
//! Nothing is buffered here: chunks go to the transport and come from it as they are.

use std::fmt;
use std::task::Poll;

use bytes::Bytes;

use super::Node;
use super::peer::Link;
use super::streams::{Receiving, Sending, Stream};
use crate::error::{Code, Failure};
use crate::id::{PeerId, StreamId};
use crate::quic::{Class, Read, Write};

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
    ///
    /// [`Event::StreamReadable`]: crate::event::Event::StreamReadable
    pub fn read(&mut self, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.node.stream_read(self.id, max)
    }

    /// Writes from the front of `data` what the windows allow, and takes it off. `Pending` means
    /// that nothing was taken and [`Event::StreamWritable`] follows. Bytes may be written before
    /// the acceptor has answered.
    ///
    /// # Errors
    /// [`StreamError`] when the stream takes no more.
    ///
    /// [`Event::StreamWritable`]: crate::event::Event::StreamWritable
    pub fn write(&mut self, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        self.node.stream_write(self.id, data)
    }

    /// Ends our direction: [`Event::StreamFinished`] follows when the peer has everything.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it is over already.
    ///
    /// [`Event::StreamFinished`]: crate::event::Event::StreamFinished
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
    ///
    /// [`Event::StreamReadable`]: crate::event::Event::StreamReadable
    pub fn accepted(&mut self) -> Poll<Result<(), StreamError>> {
        self.node.stream_answer(self.id)
    }

    /// Why the stream gives nothing more beyond what was read, where its connection is gone. A
    /// reader that is not ready to read learns it here.
    #[must_use]
    pub fn lost(&self) -> Option<StreamError> {
        self.node.link_of(self.id).is_none().then(|| self.node.gone(self.id))
    }

    /// Whether the peer has acknowledged everything of a finished stream. `Pending` means that
    /// [`Event::StreamFinished`](crate::event::Event::StreamFinished) follows.
    ///
    /// # Errors
    /// [`StreamError::ConnectionLost`] when the connection is gone, even if the peer had
    /// acknowledged everything before: nothing is kept of it. [`StreamError::Stopped`] when the
    /// peer wanted no more.
    pub fn finished(&self) -> Poll<Result<(), StreamError>> {
        let Some(link) = self.node.link_of(self.id) else {
            return Poll::Ready(Err(self.node.gone(self.id)));
        };
        match link.streams.get(self.id.index).map(|s| s.sending) {
            Some(Sending::Open | Sending::Finishing) => Poll::Pending,
            Some(Sending::Stopped(code)) => Poll::Ready(Err(StreamError::Stopped(code))),
            Some(Sending::Done) | None => Poll::Ready(Ok(())),
        }
    }
}

impl Node {
    /// A stream, for reading and writing. Calls on one that is gone say why.
    pub const fn stream(&mut self, id: StreamId) -> StreamRef<'_> {
        StreamRef { node: self, id }
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

    pub(super) fn name(&self, peer: PeerId, index: u64) -> Option<StreamId> {
        let connection = self.peers.get(&peer)?.link.as_ref()?.number;
        Some(StreamId { peer, connection, index })
    }

    pub(super) fn reap(&mut self, id: StreamId) {
        if let Some(link) = self.peers.get_mut(&id.peer).and_then(|p| p.link.as_mut()) {
            link.streams.reap(id.index);
        }
    }

    /// Why a stream that is not in the table gives nothing.
    pub(super) fn gone(&self, id: StreamId) -> StreamError {
        if self.link_of(id).is_some() {
            return StreamError::Closed;
        }
        let failure = self.peers.get(&id.peer).and_then(|p| p.last_failure.clone());
        StreamError::ConnectionLost(
            failure.unwrap_or_else(|| Failure::new(Code::Closed, "the peer is gone")),
        )
    }

    pub(super) fn quic_read(&mut self, id: StreamId, max: usize) -> Read {
        let Some(connection) = self.link_of(id).map(|l| l.connection) else { return Read::Gone };
        self.endpoint.stream(connection, |c| c.read(id.index, max)).unwrap_or(Read::Gone)
    }

    pub(super) fn quic_write(&mut self, id: StreamId, data: &mut Bytes, class: Class) -> Write {
        let Some(connection) = self.link_of(id).map(|l| l.connection) else { return Write::Gone };
        self.endpoint.stream(connection, |c| c.write(id.index, data, class)).unwrap_or(Write::Gone)
    }

    /// Puts a new state in place of the receiving direction's, and forgets a stream that is over.
    pub(super) fn set_received(&mut self, id: StreamId, receiving: Receiving) {
        if matches!(receiving, Receiving::Done) {
            self.release(id);
        }
        if let Some(stream) = self.stream_mut(id) {
            stream.receiving = receiving;
        }
        self.reap(id);
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
        let polled = self.try_write(id, data);
        if let Poll::Ready(Err(StreamError::Stopped(code))) = polled {
            // The writer knows now: nothing more is kept for it.
            self.stream_reset(id, code);
        }
        polled
    }

    fn try_write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        if let Some(Sending::Stopped(code)) = self.stream_mut(id).map(|s| s.sending) {
            return Poll::Ready(Err(StreamError::Stopped(code)));
        }
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
        if let Sending::Stopped(code) = stream.sending {
            self.stream_reset(id, code);
            return Err(StreamError::Stopped(code));
        }
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
        let before = std::mem::replace(&mut stream.sending, Sending::Done);
        if matches!(before, Sending::Open | Sending::Finishing)
            && let Some(connection) = self.link_of(id).map(|l| l.connection)
        {
            self.endpoint.stream(connection, |c| c.reset(id.index, code));
        }
        self.reap(id);
    }

    pub(super) fn stream_stop(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.stream_mut(id) else { return };
        if !matches!(stream.receiving, Receiving::Done) {
            if let Some(connection) = self.link_of(id).map(|l| l.connection) {
                self.endpoint.stream(connection, |c| c.stop(id.index, code));
            }
            self.set_received(id, Receiving::Done);
        }
    }
}
