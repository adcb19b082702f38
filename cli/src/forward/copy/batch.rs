//! What one system call writes to a socket. It decides how much of a stream is taken for it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use adit_tokio::core::drive::StreamError;
use bytes::Bytes;

use super::ByteSource;
use crate::forward::socket::StreamSocket;

/// Maximum number of bytes and of pieces taken from the stream for one write to a socket.
const WRITE: (usize, usize) = (256 * 1024, 64);

/// Pieces taken from the stream that one system call writes: a stream returns the data of one
/// packet at a time, and a write for each would cost more than everything else here.
#[derive(Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    done: usize,
    bytes: usize,
    /// How the stream ends after the pieces.
    end: Option<Result<(), StreamError>>,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.done == self.pieces.len()
    }

    /// Returns how the stream ends after the pieces, if its end was reached.
    pub(super) const fn end(&mut self) -> Option<Result<(), StreamError>> {
        self.end.take()
    }

    /// Takes all that is there, up to the limits; ready with data or with the end.
    pub(super) fn poll_fill(
        &mut self,
        source: &mut impl ByteSource,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        self.pieces.clear();
        (self.done, self.bytes) = (0, 0);
        while self.pieces.len() < WRITE.1 && self.bytes < WRITE.0 {
            match source.poll_take(cx, WRITE.0 - self.bytes) {
                Poll::Ready(Ok(Some(piece))) => {
                    self.bytes += piece.len();
                    self.pieces.push(piece);
                }
                Poll::Ready(end) => {
                    self.end = Some(end.map(drop));
                    break;
                }
                Poll::Pending if self.pieces.is_empty() => {
                    self.pieces = Vec::new();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    /// Writes what there is room for.
    pub(super) fn write_to(&mut self, socket: &impl StreamSocket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE.1];
        let left = &self.pieces[self.done..];
        for (slice, piece) in slices.iter_mut().zip(left) {
            *slice = IoSlice::new(piece);
        }
        let count = socket.try_write(&slices[..left.len()])?;
        self.on_written(count);
        Ok(count)
    }

    fn on_written(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.get_mut(self.done) {
            if piece.len() > count {
                bytes::Buf::advance(piece, count);
                return;
            }
            count -= piece.len();
            *piece = Bytes::new();
            self.done += 1;
        }
    }
}
