//! The public interface of a stream: read, write, finish, reset, stop.
//!
//! No data is buffered here: chunks are passed to the transport and from it unchanged.

use std::fmt;
use std::task::Poll;

use bytes::Bytes;

use crate::error::{Code, Failure};
use crate::id::StreamId;
use crate::node::Node;

/// Why a stream accepts or returns no more data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset its direction.
    #[error("reset by the peer: {}", .0.as_str())]
    Reset(Code),
    /// The peer wants no more of our data.
    #[error("stopped by the peer: {}", .0.as_str())]
    Stopped(Code),
    /// The acceptor refused the stream.
    #[error("refused: {0}")]
    Refused(Failure),
    /// The connection of the stream is lost.
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

/// A stream of a node, borrowed for reading and writing. No data is copied: chunks are passed on as
/// they are.
pub struct StreamRef<'a> {
    pub(in crate::node) node: &'a mut Node,
    pub(in crate::node) id: StreamId,
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
    /// [`StreamError`] once, when the stream has no more data.
    ///
    /// [`Event::StreamReadable`]: crate::event::Event::StreamReadable
    pub fn read(&mut self, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        let read = self.node.streams.read(self.id, max, &mut self.node.io);
        self.node.settle_effects();
        read
    }

    /// Writes from the front of `data` as much as the windows allow, and removes that part.
    /// `Pending` means that no data was taken and [`Event::StreamWritable`] follows. Bytes may be
    /// written before the acceptor has answered.
    ///
    /// # Errors
    /// [`StreamError`] when the stream accepts no more data.
    ///
    /// [`Event::StreamWritable`]: crate::event::Event::StreamWritable
    pub fn write(&mut self, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        self.node.streams.write(self.id, data, &mut self.node.io)
    }

    /// Ends our direction: [`Event::StreamFinished`] follows when the peer has everything.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it is over already.
    ///
    /// [`Event::StreamFinished`]: crate::event::Event::StreamFinished
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.node.streams.finish(self.id, &mut self.node.io)
    }

    /// Resets our direction: data that is not delivered yet is lost.
    pub fn reset(&mut self, code: Code) {
        self.node.streams.reset(self.id, code, &mut self.node.io);
    }

    /// Resets our direction once the peer has read everything that was written.
    /// [`StreamRef::finished`] is ready when it has; [`StreamRef::reset`] gives up earlier.
    pub fn reset_at_end(&mut self, code: Code) {
        self.node.streams.reset_at_end(self.id, code, &mut self.node.io);
    }

    /// Asks the peer to stop sending, and discards what it sent.
    pub fn stop(&mut self, code: Code) {
        self.node.streams.stop(self.id, code, &mut self.node.io);
        self.node.settle_effects();
    }

    /// Returns the mark that the opener gave a stream that was offered.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.node.streams.origin(self.id)
    }

    /// Returns whether the acceptor has accepted the stream. `Pending` means that
    /// [`Event::StreamReadable`] follows.
    ///
    /// # Errors
    /// [`StreamError::Refused`] when it refused.
    ///
    /// [`Event::StreamReadable`]: crate::event::Event::StreamReadable
    pub fn accepted(&mut self) -> Poll<Result<(), StreamError>> {
        let accepted = self.node.streams.accepted(self.id, &mut self.node.io);
        self.node.settle_effects();
        accepted
    }

    /// Returns why the stream returns no more data than was read, if its connection is lost or the
    /// peer reset it. A reader that is not ready to read learns it here.
    pub fn lost(&mut self) -> Option<StreamError> {
        let lost = self.node.streams.lost(self.id, &mut self.node.io);
        self.node.settle_effects();
        lost
    }

    /// Returns whether the peer has acknowledged everything of a finished stream. `Pending` means
    /// that [`Event::StreamFinished`](crate::event::Event::StreamFinished) follows.
    ///
    /// # Errors
    /// [`StreamError::ConnectionLost`] when the connection is lost, even if the peer had
    /// acknowledged everything before: no state of it is kept. [`StreamError::Stopped`] when the
    /// peer wanted no more.
    pub fn finished(&self) -> Poll<Result<(), StreamError>> {
        self.node.streams.finished(self.id)
    }
}
