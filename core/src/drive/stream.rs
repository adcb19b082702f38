//! A stream's handle, whole or in halves, with inherent poll methods: an adapter wraps them in its
//! runtime's traits.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::shared::{Inner, Shared};
use super::wakers::Direction;
use crate::error::Code;
use crate::id::StreamId;
use crate::node::{StreamError, StreamRef};

/// Most bytes that one [`SendHalf::poll_write`] copies. A caller that repeats a call with the rest
/// of its megabytes would otherwise have all of them copied every time.
const MAX_COPY: usize = 64 * 1024;

/// Both directions of a stream.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            send: SendHalf { shared: shared.clone(), id, over: false },
            recv: RecvHalf { shared, id, over: false },
        }
    }

    /// Returns its id in the node.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.send.id
    }

    /// Returns the two directions apart.
    #[must_use]
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// Returns the sending direction.
    pub const fn send(&mut self) -> &mut SendHalf {
        &mut self.send
    }

    /// Returns the receiving direction.
    pub const fn recv(&mut self) -> &mut RecvHalf {
        &mut self.recv
    }
}

/// The sending direction of a stream. Dropping it unfinished resets it.
pub struct SendHalf {
    shared: Arc<Shared>,
    id: StreamId,
    /// Finished, reset, or known to accept no more data.
    over: bool,
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.id).finish()
    }
}

impl SendHalf {
    /// Writes as much as possible from the front of `data`. Ready when data was taken, or `data`
    /// was empty.
    ///
    /// # Errors
    /// [`StreamError`] when the stream accepts no more data.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        if self.over {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let (result, inner) = with_node(&self.shared, self.id, |stream| stream.write(data));
        match waiting(result, inner, self.id, Direction::Write, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => {
                self.over = true;
                Poll::Ready(Err(error))
            }
        }
    }

    /// Copies from the front of `data`, at most 64 KiB; returns how many bytes were taken.
    ///
    /// # Errors
    /// [`StreamError`] when the stream accepts no more data.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        let data = &data[..data.len().min(MAX_COPY)];
        let mut copy = Bytes::copy_from_slice(data);
        self.poll_write_chunk(cx, &mut copy).map_ok(|()| data.len() - copy.len())
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// [`StreamError`] when the stream accepts no more data.
    pub async fn write_all(&mut self, data: impl Into<Bytes>) -> Result<(), StreamError> {
        let mut data = data.into();
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Ends the direction: the peer reads to the end. A second call has no effect.
    ///
    /// # Errors
    /// [`StreamError`] when the stream no longer exists.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if self.over {
            return Ok(());
        }
        self.over = true;
        let (result, mut inner) = with_node(&self.shared, self.id, |stream| stream.finish());
        inner.settle();
        result
    }

    /// Becomes ready when the peer has acknowledged everything of a finished stream.
    ///
    /// # Errors
    /// [`StreamError::ConnectionLost`] when the connection went first, and
    /// [`StreamError::Stopped`] when the peer wanted no more.
    pub fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let (result, inner) = with_node(&self.shared, self.id, |stream| stream.finished());
        waiting(result, inner, self.id, Direction::Write, cx)
    }

    /// Resets the direction: the peer sees a reset.
    pub fn reset(&mut self, code: Code) {
        self.over = true;
        let ((), mut inner) = with_node(&self.shared, self.id, |stream| stream.reset(code));
        inner.settle();
    }

    /// Resets the direction once the peer has read everything that was written: the peer sees a
    /// reset after the last byte. [`SendHalf::poll_finished`] becomes ready when it has read it;
    /// dropping this handle earlier resets the direction immediately.
    pub fn reset_at_end(&mut self, code: Code) {
        let ((), mut inner) = with_node(&self.shared, self.id, |stream| stream.reset_at_end(code));
        inner.settle();
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.over {
            self.reset(Code::Cancelled);
        }
        self.shared.lock().wakers.forget_stream(self.id, Direction::Write);
    }
}

/// The receiving direction of a stream. Dropping it before its end asks the peer to stop.
pub struct RecvHalf {
    shared: Arc<Shared>,
    id: StreamId,
    /// Read to its end, stopped, or known to have no more data.
    over: bool,
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvHalf").field(&self.id).finish()
    }
}

impl RecvHalf {
    /// Returns the next bytes in order, at most `max`; `None` is the end.
    ///
    /// # Errors
    /// [`StreamError`] when the stream has no more data.
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if self.over {
            return Poll::Ready(Ok(None));
        }
        let (result, inner) = with_node(&self.shared, self.id, |stream| stream.read(max));
        let polled = waiting(result, inner, self.id, Direction::Read, cx);
        // A refusal stays in the node until the stream is stopped, which dropping this handle does.
        self.over = match &polled {
            Poll::Ready(Ok(None)) => true,
            Poll::Ready(Err(error)) => !matches!(error, StreamError::Refused(_)),
            Poll::Ready(Ok(Some(_))) | Poll::Pending => false,
        };
        polled
    }

    /// Becomes ready with the reason once the connection of the stream is lost, or the peer has
    /// reset it: for a reader that has no room for more, and would not learn it from reading.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let (lost, inner) = with_node(&self.shared, self.id, |stream| stream.lost());
        let polled = lost.map_or(Poll::Pending, |error| Poll::Ready(Err::<(), _>(error)));
        waiting(polled, inner, self.id, Direction::Read, cx)
            .map(|result| result.err().unwrap_or(StreamError::Closed))
    }

    /// Reads into `out`; 0 is the end.
    ///
    /// # Errors
    /// [`StreamError`] when the stream has no more data.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        self.poll_read_chunk(cx, out.len()).map_ok(|chunk| {
            let chunk = chunk.unwrap_or_default();
            out[..chunk.len()].copy_from_slice(&chunk);
            chunk.len()
        })
    }

    /// Waits as [`RecvHalf::poll_read_chunk`] does.
    ///
    /// # Errors
    /// As [`RecvHalf::poll_read_chunk`].
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read_chunk(cx, max)).await
    }

    /// Waits until the acceptor has accepted the stream.
    ///
    /// # Errors
    /// [`StreamError::Refused`] when it refused.
    pub async fn accepted(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| {
            let (result, inner) = with_node(&self.shared, self.id, |stream| stream.accepted());
            waiting(result, inner, self.id, Direction::Read, cx)
        })
        .await
    }

    /// Asks the peer to stop sending, and discards what it sent.
    pub fn stop(&mut self, code: Code) {
        self.over = true;
        let ((), mut inner) = with_node(&self.shared, self.id, |stream| stream.stop(code));
        inner.settle();
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if !self.over {
            self.stop(Code::Cancelled);
        }
        self.shared.lock().wakers.forget_stream(self.id, Direction::Read);
    }
}

fn with_node<T>(
    shared: &Shared,
    id: StreamId,
    act: impl FnOnce(&mut StreamRef<'_>) -> T,
) -> (T, std::sync::MutexGuard<'_, Inner>) {
    let mut inner = shared.lock();
    let result = act(&mut inner.node.stream(id));
    (result, inner)
}

/// Registers the waker of a task that has to wait, and lets the driver process its call.
fn waiting<T>(
    polled: Poll<Result<T, StreamError>>,
    mut inner: std::sync::MutexGuard<'_, Inner>,
    id: StreamId,
    direction: Direction,
    cx: &Context<'_>,
) -> Poll<Result<T, StreamError>> {
    if polled.is_pending() {
        if let Some(failure) = &inner.over {
            return Poll::Ready(Err(StreamError::ConnectionLost(failure.clone())));
        }
        inner.wakers.wait_stream(id, direction, cx);
    }
    inner.settle();
    polled
}
