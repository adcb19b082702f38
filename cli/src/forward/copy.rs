//! Copies one local connection and one stream of the tunnel into each other.
//!
//! An end of one direction is passed on as an end of that direction. A reset on either side resets
//! the other. It reads no more than there is room for, so that a slow reader slows the writer at
//! the other end. An idle connection holds no buffer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_tokio::core::drive::{RecvHalf, SendHalf, StreamError};
use adit_tokio::core::error::Code;
use bytes::{Bytes, BytesMut};

use super::socket::StreamSocket;

/// Smallest and largest read buffer: the size doubles as long as reads fill it. Measured on
/// loopback, more than 256 KiB carries no more.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// Room that justifies another read into a used buffer.
const MIN_READ: usize = 4 * 1024;

/// Maximum number of bytes and of pieces taken from the stream for one write to a socket.
const WRITE: (usize, usize) = (256 * 1024, 64);

/// Bytes that one connection copies before the others of its thread have a turn: a small request
/// waits for no more than this of each bulk transfer.
pub(super) const TURN: usize = 128 * 1024;

/// The sending direction of a stream.
pub(super) trait ByteSink {
    /// Takes what there is room for from the front; ready once some was taken.
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), StreamError>>;
    /// Finishes the direction after what was given.
    fn finish(&mut self) -> Result<(), StreamError>;
    /// Resets the direction; what was given need not arrive.
    fn reset(&mut self, code: Code);
}

/// The receiving direction of a stream.
pub(super) trait ByteSource {
    /// Returns the next bytes in order, at most `max`, or `None` at the end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>>;
    /// Ready once the connection is lost, while no bytes are taken.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<StreamError>;
    /// Stops the direction: no more bytes are wanted.
    fn stop(&mut self, code: Code);
}

impl ByteSink for SendHalf {
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        self.poll_write_chunk(cx, chunk)
    }

    fn finish(&mut self) -> Result<(), StreamError> {
        Self::finish(self)
    }

    fn reset(&mut self, code: Code) {
        Self::reset(self, code);
    }
}

impl ByteSource for RecvHalf {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.poll_read_chunk(cx, max)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        Self::poll_lost(self, cx)
    }

    fn stop(&mut self, code: Code) {
        Self::stop(self, code);
    }
}

/// Bytes copied, from the view of the local connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Read from the socket and given to the tunnel.
    pub(super) sent: u64,
    /// Taken from the tunnel and written to the socket.
    pub(super) received: u64,
}

/// Why a connection ended other than by both ends finishing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    #[error("tunnel: {0}")]
    Tunnel(#[from] StreamError),
    #[error("half open without a byte for too long")]
    HalfOpen,
}

/// What the two directions have done, for each other and for the log.
#[derive(Default)]
struct CopyProgress {
    sent: AtomicU64,
    received: AtomicU64,
    sent_all: AtomicBool,
    received_all: AtomicBool,
}

/// Copies both directions until both have ended, or one has broken, which ends the other. A
/// connection of which one direction has ended breaks when the other is silent for `half_open`.
pub(super) async fn both_ways(
    socket: impl StreamSocket,
    mut sink: impl ByteSink,
    mut source: impl ByteSource,
    half_open: Duration,
) -> (Totals, Result<(), Broken>) {
    let progress = CopyProgress::default();
    let result = {
        let there = read_socket(&socket, &mut sink, &progress);
        let back = write_socket(&socket, &mut source, &progress);
        tokio::select! {
            biased;
            result = async { tokio::try_join!(there, back) } => result.map(|_| ()),
            broken = linger(&socket, &progress, half_open) => Err(broken),
        }
    };
    if let Err(broken) = &result {
        let code = match broken {
            Broken::Socket(_) | Broken::Tunnel(_) => Code::Cancelled,
            Broken::HalfOpen => Code::TimedOut,
        };
        sink.reset(code);
        source.stop(code);
        socket.break_off();
    }
    (progress.totals(), result)
}

async fn read_socket(
    socket: &impl StreamSocket,
    sink: &mut impl ByteSink,
    progress: &CopyProgress,
) -> Result<(), Broken> {
    let mut size = READ.0;
    let mut buffer = BytesMut::new();
    let mut turn = 0;
    loop {
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
        socket.readable().await?;
        if buffer.capacity() < MIN_READ {
            buffer.reserve(size);
        }
        let room = buffer.capacity();
        let count = match socket.try_read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                buffer = BytesMut::new();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            sink.finish()?;
            progress.sent_all.store(true, Relaxed);
            return Ok(());
        }
        if count == room {
            size = READ.1.min(size * 2);
        } else if count < room / 4 {
            size = READ.0.max(size / 2);
        }
        let mut chunk = buffer.split().freeze();
        while !chunk.is_empty() {
            poll_fn(|cx| sink.poll_give(cx, &mut chunk)).await?;
        }
        progress.sent.fetch_add(count as u64, Relaxed);
        turn += count;
    }
}

async fn write_socket(
    socket: &impl StreamSocket,
    source: &mut impl ByteSource,
    progress: &CopyProgress,
) -> Result<(), Broken> {
    let mut batch = Batch::default();
    let mut turn = 0;
    loop {
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
        let ended = poll_fn(|cx| batch.poll_fill(source, cx)).await?;
        while !batch.is_empty() {
            match batch.write_to(socket) {
                Ok(count) => {
                    progress.received.fetch_add(count as u64, Relaxed);
                    turn += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                    biased;
                    result = socket.writable() => result?,
                    // A client that no longer reads must not keep a tunnel that is lost.
                    error = poll_fn(|cx| source.poll_lost(cx)) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        if ended {
            socket.shutdown_write()?;
            progress.received_all.store(true, Relaxed);
            return Ok(());
        }
    }
}

/// Pieces taken from the stream that one system call writes: a stream returns the data of one
/// packet at a time, and a write for each would cost more than everything else here.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    done: usize,
    bytes: usize,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.done == self.pieces.len()
    }

    /// Takes all that is there, up to the limits; ready with data or with the end, which is `true`.
    fn poll_fill(
        &mut self,
        source: &mut impl ByteSource,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, StreamError>> {
        self.pieces.clear();
        (self.done, self.bytes) = (0, 0);
        while self.pieces.len() < WRITE.1 && self.bytes < WRITE.0 {
            match source.poll_take(cx, WRITE.0 - self.bytes) {
                Poll::Ready(Ok(Some(piece))) => {
                    self.bytes += piece.len();
                    self.pieces.push(piece);
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.pieces.is_empty() => {
                    self.pieces = Vec::new();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(false))
    }

    fn write_to(&mut self, socket: &impl StreamSocket) -> io::Result<usize> {
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

impl CopyProgress {
    fn totals(&self) -> Totals {
        Totals { sent: self.sent.load(Relaxed), received: self.received.load(Relaxed) }
    }

    fn is_half_open(&self) -> bool {
        self.sent_all.load(Relaxed) || self.received_all.load(Relaxed)
    }
}

/// Waits for what breaks a connection of which one direction has ended: silence for too long, or a
/// reset that no read would report, since reading is over. It is polled after the two directions in
/// the same task, so that it observes their progress without a waker.
async fn linger(
    socket: &impl StreamSocket,
    progress: &CopyProgress,
    half_open: Duration,
) -> Broken {
    poll_fn(|_| if progress.is_half_open() { Poll::Ready(()) } else { Poll::Pending }).await;
    let silence = async {
        loop {
            let before = progress.totals();
            tokio::time::sleep(half_open).await;
            if progress.totals() == before {
                return Broken::HalfOpen;
            }
        }
    };
    let reset = async {
        if progress.received_all.load(Relaxed) {
            return std::future::pending().await;
        }
        match socket.failed().await {
            Ok(Some(error)) | Err(error) => Broken::Socket(error),
            Ok(None) => std::future::pending().await,
        }
    };
    tokio::select! {
        broken = silence => broken,
        broken = reset => broken,
    }
}

#[cfg(test)]
mod tests;
