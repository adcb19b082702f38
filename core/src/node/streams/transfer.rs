//! Reading, writing and ending streams.
//!
//! No data is buffered here: chunks are passed to the transport and from it unchanged.

use std::task::Poll;

use bytes::Bytes;

use super::table::{Receiving, Sending};
use super::{StreamError, Streams};
use crate::error::Code;
use crate::id::StreamId;
use crate::node::io::Io;
use crate::quic::{Read, Write};

impl Streams {
    pub(in crate::node) fn read(
        &mut self,
        id: StreamId,
        max: usize,
        io: &mut Io,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        match self.read_answer(id, io) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let Some(stream) = self.get(id) else { return Poll::Ready(Err(self.gone(id))) };
        if !matches!(stream.receiving, Receiving::Raw) {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let mut most = max;
        if let Some((offset, code)) = stream.reset_at {
            let rest = offset.saturating_sub(stream.read);
            if rest == 0 {
                self.stop(id, code, io);
                return Poll::Ready(Err(StreamError::Reset(code)));
            }
            most = usize::try_from(rest).map_or(max, |rest| max.min(rest));
        }
        let end = match self.read_raw(id, most, io) {
            Read::Chunk(bytes) => {
                if let Some(stream) = self.get_mut(id) {
                    stream.read += bytes.len() as u64;
                }
                return Poll::Ready(Ok(Some(bytes)));
            }
            Read::Blocked => return Poll::Pending,
            Read::End => Ok(None),
            Read::Reset(code) => Err(StreamError::Reset(code)),
            Read::Gone => Err(StreamError::Closed),
        };
        self.set_received(id, Receiving::Done, io);
        Poll::Ready(end)
    }

    /// Returns `Ready` once the acceptor has accepted the stream.
    pub(in crate::node) fn accepted(
        &mut self,
        id: StreamId,
        io: &mut Io,
    ) -> Poll<Result<(), StreamError>> {
        self.read_answer(id, io)
    }

    /// Returns why a stream has no data although none was asked for: its connection is lost, or the
    /// peer has reset it.
    pub(in crate::node) fn lost(&mut self, id: StreamId, io: &mut Io) -> Option<StreamError> {
        let Some(link) = self.link(id) else { return Some(self.gone(id)) };
        let stream = link.table.get(id.index)?;
        if !matches!(stream.receiving, Receiving::Raw) {
            return None;
        }
        // Of a stream that is read as it arrives, the transport has handed over the reset as well.
        let code = match stream.arrived.as_ref().and_then(|arrived| arrived.reset()) {
            Some(code) => code,
            None => io.on(link.connection, |c| c.take_reset(id.index)).flatten()?,
        };
        self.set_received(id, Receiving::Done, io);
        Some(StreamError::Reset(code))
    }

    /// Returns `Ready` once the peer has acknowledged everything of a finished stream.
    pub(in crate::node) fn finished(&self, id: StreamId) -> Poll<Result<(), StreamError>> {
        let Some(link) = self.link(id) else { return Poll::Ready(Err(self.gone(id))) };
        match link.table.get(id.index).map(|s| s.sending) {
            Some(Sending::Open | Sending::Finishing | Sending::Resetting(_)) => Poll::Pending,
            Some(Sending::Stopped(code)) => Poll::Ready(Err(StreamError::Stopped(code))),
            Some(Sending::Done) | None => Poll::Ready(Ok(())),
        }
    }

    pub(in crate::node) fn write(
        &mut self,
        id: StreamId,
        data: &mut Bytes,
        io: &mut Io,
    ) -> Poll<Result<usize, StreamError>> {
        let polled = self.try_write(id, data, io);
        if let Poll::Ready(Err(StreamError::Stopped(code))) = polled {
            // The writer knows now: no more is kept for it.
            self.reset(id, code, io);
        }
        polled
    }

    fn try_write(
        &mut self,
        id: StreamId,
        data: &mut Bytes,
        io: &mut Io,
    ) -> Poll<Result<usize, StreamError>> {
        if let Some(Sending::Stopped(code)) = self.get(id).map(|s| s.sending) {
            return Poll::Ready(Err(StreamError::Stopped(code)));
        }
        match self.flush_ahead(id, io) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let Some(stream) = self.get(id) else { return Poll::Ready(Err(self.gone(id))) };
        if stream.sending != Sending::Open {
            return Poll::Ready(Err(StreamError::Closed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.write_raw(id, data, io) {
            Write::Taken(taken) => {
                if let Some(stream) = self.get_mut(id) {
                    stream.written += taken as u64;
                }
                Poll::Ready(Ok(taken))
            }
            Write::Blocked => Poll::Pending,
            Write::Stopped(code) => Poll::Ready(Err(StreamError::Stopped(code))),
            Write::Gone => Poll::Ready(Err(StreamError::Closed)),
        }
    }

    /// Ends our direction, after the preceding frame if that is not written yet.
    pub(in crate::node) fn finish(&mut self, id: StreamId, io: &mut Io) -> Result<(), StreamError> {
        let is_pending = self.flush_ahead(id, io).is_pending();
        let Some(stream) = self.get_mut(id) else { return Err(self.gone(id)) };
        if let Sending::Stopped(code) = stream.sending {
            self.reset(id, code, io);
            return Err(StreamError::Stopped(code));
        }
        if stream.sending != Sending::Open {
            return Err(StreamError::Closed);
        }
        if is_pending {
            stream.finish_after = true;
            return Ok(());
        }
        if self.finish_written(id, io) { Ok(()) } else { Err(StreamError::Closed) }
    }

    /// Ends our direction once it is all written; returns false if it was over.
    pub(super) fn finish_written(&mut self, id: StreamId, io: &mut Io) -> bool {
        let Some(link) = self.link_mut(id) else { return false };
        let connection = link.connection;
        let Some(stream) = link.table.get_mut(id.index) else { return false };
        if stream.sending != Sending::Open {
            return false;
        }
        stream.sending = Sending::Finishing;
        matches!(io.on(connection, |c| c.finish(id.index)), Some(Ok(())))
    }

    /// Abandons our direction.
    pub(in crate::node) fn reset(&mut self, id: StreamId, code: Code, io: &mut Io) {
        let Some(link) = self.link_mut(id) else { return };
        let connection = link.connection;
        let Some(stream) = link.table.get_mut(id.index) else { return };
        let before = std::mem::replace(&mut stream.sending, Sending::Done);
        if matches!(before, Sending::Resetting(_)) {
            link.unannounced.retain(|&index| index != id.index);
        }
        if matches!(before, Sending::Open | Sending::Finishing | Sending::Resetting(_)) {
            io.on(connection, |c| c.reset(id.index, code));
            link.credit.on_reset(id.index);
        }
        self.reap(id);
    }

    /// Abandons the peer's direction.
    pub(in crate::node) fn stop(&mut self, id: StreamId, code: Code, io: &mut Io) {
        let Some(link) = self.link_mut(id) else { return };
        let connection = link.connection;
        let Some(stream) = link.table.get_mut(id.index) else { return };
        if !matches!(stream.receiving, Receiving::Done) {
            io.on(connection, |c| c.stop(id.index, code));
            self.on_read_over(id, true, io);
            self.set_received(id, Receiving::Done, io);
        }
    }

    /// Handles an answer to this node's request that has been read to its end.
    pub(in crate::node) fn end_request(&mut self, id: StreamId, io: &mut Io) {
        self.set_received(id, Receiving::Done, io);
        // A responder that answers before it has the whole request wants no more of it.
        if self.get(id).is_some_and(|s| s.sending == Sending::Open) {
            self.reset(id, Code::Closed, io);
        }
    }
}
