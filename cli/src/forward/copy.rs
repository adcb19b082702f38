//! Copies one local connection and one stream of the tunnel into each other.
//!
//! An end of one direction is passed on as an end of that direction. A reset on either side resets
//! the other, after the bytes that came before it. A socket that takes no more bytes is still read
//! to its end. It reads no more than there is room for, so that a slow reader slows the writer at
//! the other end. An idle connection holds no buffer.

mod batch;
mod watch;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_tokio::core::drive::{RecvHalf, SendHalf, StreamError};
use adit_tokio::core::error::Code;
use bytes::{Bytes, BytesMut};

use self::batch::Batch;
use self::watch::{CopyProgress, watch};
use super::VANISHED;
use super::socket::StreamSocket;

/// Smallest and largest read buffer: the size doubles as long as reads fill it. Measured on
/// loopback, more than 256 KiB carries no more.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// Room that justifies another read into a used buffer.
const MIN_READ: usize = 4 * 1024;

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
    /// Resets the direction after what was given, unless it is finished.
    fn reset_at_end(&mut self, code: Code);
    /// Ready once the peer has read what was given before an end or a reset at the end.
    fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The receiving direction of a stream.
pub(super) trait ByteSource {
    /// Returns the next bytes in order, at most `max`, or `None` at the end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>>;
    /// Ready once the connection is lost or the stream is reset, while no bytes are taken.
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

    fn reset_at_end(&mut self, code: Code) {
        Self::reset_at_end(self, code);
    }

    fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finished(cx).map(drop)
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

/// How the direction from the socket to the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentEnd {
    /// With the end of the socket.
    Finished,
    /// With an error of the socket, after its last byte.
    Reset,
    /// The peer wants no more.
    Stopped,
}

/// How the direction from the stream to the socket ended.
#[derive(Debug)]
enum ReceivedEnd {
    /// With the end of the stream.
    Finished,
    /// With a reset of the stream, after its last byte.
    Reset(StreamError),
    /// The socket takes no more.
    Stopped,
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
    let ended = copy(&socket, &mut sink, &mut source, (&progress, half_open)).await;
    let result = match ended {
        Ok((SentEnd::Finished, ReceivedEnd::Finished)) => {
            socket.end_orderly();
            Ok(())
        }
        Ok((_, ReceivedEnd::Reset(error))) => {
            sink.reset(Code::Cancelled);
            let _ = tokio::time::timeout(VANISHED, socket.drained()).await;
            Err(Broken::Tunnel(error))
        }
        Ok((SentEnd::Stopped, _)) => {
            // What the service answered must not be lost by the reset that follows it.
            let _ = tokio::time::timeout(VANISHED, socket.drained()).await;
            Err(Broken::Tunnel(StreamError::Stopped(Code::Cancelled)))
        }
        Ok((SentEnd::Finished | SentEnd::Reset, _)) => {
            sink.reset_at_end(Code::Cancelled);
            let delivered = poll_fn(|cx| sink.poll_delivered(cx));
            if tokio::time::timeout(VANISHED, delivered).await.is_err() {
                sink.reset(Code::TimedOut);
            }
            Err(progress.to_broken())
        }
        Err(broken) => {
            let code = match broken {
                Broken::Socket(_) | Broken::Tunnel(_) => Code::Cancelled,
                Broken::HalfOpen => Code::TimedOut,
            };
            sink.reset(code);
            source.stop(code);
            Err(broken)
        }
    };
    if result.is_err() {
        socket.break_off();
    }
    (progress.totals(), result)
}

/// Copies until both directions have ended, or until one of them makes the other pointless.
async fn copy(
    socket: &impl StreamSocket,
    sink: &mut impl ByteSink,
    source: &mut impl ByteSource,
    (progress, half_open): (&CopyProgress, Duration),
) -> Result<(SentEnd, ReceivedEnd), Broken> {
    let mut watched = pin!(watch(socket, progress, half_open));
    let mut there = pin!(read_socket(socket, sink, progress));
    let mut back = pin!(write_socket(socket, source, progress));
    let (mut sent, mut received) = (None, None);
    poll_fn(move |cx| {
        let was_broken = progress.is_broken();
        if let Poll::Ready(broken) = watched.as_mut().poll(cx) {
            return Poll::Ready(Err(broken));
        }
        if sent.is_none()
            && let Poll::Ready(end) = there.as_mut().poll(cx)
        {
            sent = Some(end?);
        }
        if received.is_none()
            && let Poll::Ready(end) = back.as_mut().poll(cx)
        {
            received = Some(end?);
        }
        if progress.is_broken() && !was_broken {
            // Those polled earlier have not seen it.
            cx.waker().wake_by_ref();
        }
        match (sent, received.take_if(|end| sent.is_some() || matches!(end, ReceivedEnd::Reset(_))))
        {
            (sent, Some(received)) => Poll::Ready(Ok((sent.unwrap_or(SentEnd::Reset), received))),
            (_, None) => Poll::Pending,
        }
    })
    .await
}

async fn read_socket(
    socket: &impl StreamSocket,
    sink: &mut impl ByteSink,
    progress: &CopyProgress,
) -> Result<SentEnd, Broken> {
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
            Err(error) => {
                progress.on_broken(error);
                0
            }
        };
        if count == 0 {
            return end_sink(sink, progress);
        }
        if count == room {
            size = READ.1.min(size * 2);
        } else if count < room / 4 {
            size = READ.0.max(size / 2);
        }
        let mut chunk = buffer.split().freeze();
        while !chunk.is_empty() {
            match poll_fn(|cx| sink.poll_give(cx, &mut chunk)).await {
                Ok(()) => {}
                Err(StreamError::Stopped(_)) => return Ok(SentEnd::Stopped),
                Err(error) => return Err(error.into()),
            }
        }
        progress.sent.fetch_add(count as u64, Relaxed);
        turn += count;
    }
}

/// Ends the stream as the socket ended.
fn end_sink(sink: &mut impl ByteSink, progress: &CopyProgress) -> Result<SentEnd, Broken> {
    if progress.is_reset() {
        sink.reset_at_end(Code::Cancelled);
        return Ok(SentEnd::Reset);
    }
    match sink.finish() {
        Ok(()) => {
            progress.sent_all.store(true, Relaxed);
            Ok(SentEnd::Finished)
        }
        Err(StreamError::Stopped(_)) => Ok(SentEnd::Stopped),
        Err(error) => Err(error.into()),
    }
}

async fn write_socket(
    socket: &impl StreamSocket,
    source: &mut impl ByteSource,
    progress: &CopyProgress,
) -> Result<ReceivedEnd, Broken> {
    let mut batch = Batch::default();
    let mut turn = 0;
    loop {
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| match progress.is_broken() {
            true => Poll::Ready(()),
            false => batch.poll_fill(source, cx),
        })
        .await;
        while !progress.is_broken() && !batch.is_empty() {
            match batch.write_to(socket) {
                Ok(count) => {
                    progress.received.fetch_add(count as u64, Relaxed);
                    turn += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                    biased;
                    result = socket.writable() => result?,
                    // A client that no longer reads must not keep a stream that is lost.
                    error = poll_fn(|cx| source.poll_lost(cx)) => return Err(error.into()),
                },
                Err(error) => progress.on_broken(error),
            }
        }
        if progress.is_broken() {
            source.stop(Code::Cancelled);
            return Ok(ReceivedEnd::Stopped);
        }
        match batch.end() {
            None => {}
            Some(Ok(())) => {
                if let Err(error) = socket.shutdown_write() {
                    progress.on_broken(error);
                    return Ok(ReceivedEnd::Stopped);
                }
                progress.received_all.store(true, Relaxed);
                return Ok(ReceivedEnd::Finished);
            }
            Some(Err(error @ StreamError::Reset(_))) => return Ok(ReceivedEnd::Reset(error)),
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
