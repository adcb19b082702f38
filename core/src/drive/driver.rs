//! The loop: receive, let the node act, send, sleep; and again, within a budget.
//!
//! Five pitfalls are handled here once for every runtime: the clock is compared with the deadline,
//! a timer's readiness is not trusted; only a blocked socket is tried again; a blocked batch is
//! kept with its bytes and the node is not asked for another; a turn has a budget, after which the
//! driver wakes itself and lets others run; the lock is taken once per turn.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::byte_streams::ByteStreams;
use super::handle::Handle;
use super::io::Io;
use super::shared::{Inner, Shared};
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::fallback::Fallback;
use crate::node::{Input, Node, Start};
use crate::timer::earliest;
use crate::tls::TlsError;
use crate::transmit::{Datagram, Transmit};

/// Batches sent in one turn: as many as the peer takes in one receive.
const BATCHES: usize = 4;

/// Joins a socket with a node.
///
/// `seed` is all the randomness of the node: 32 bytes from the system.
///
/// # Errors
/// [`TlsError`] when the identity or the trust cannot be used.
pub fn drive<I: Io>(
    io: I,
    config: Config,
    seed: [u8; 32],
) -> Result<(Handle, Driver<I>), TlsError> {
    let clock = io.clock();
    let local = io.local_addr().map_err(|error| error.kind());
    let start = Start { seed, now: clock.now(), unix: clock.unix() };
    let fallback = Fallback::new(config.tls.provider(), seed);
    let inner = Inner::new(Node::new(config, start)?);
    let shared = Arc::new(Shared::new(inner, fallback, clock, local));
    let driver = Driver {
        io,
        shared: shared.clone(),
        inbox: Vec::new(),
        outbox: VecDeque::new(),
        spare: Vec::new(),
        byte_streams: ByteStreams::new(),
        has_left: false,
        has_finished: false,
    };
    Ok((Handle::new(shared), driver))
}

/// The event loop of one socket, as a future: poll it on any task or thread. It ends after
/// [`Handle::shutdown`], or with the error that ended the socket. Dropping it closes the socket
/// without notice to the peers.
#[must_use = "a driver does nothing unless it is polled"]
pub struct Driver<I> {
    io: I,
    shared: Arc<Shared>,
    inbox: Vec<Datagram>,
    /// Batches that the socket has not taken yet.
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    byte_streams: ByteStreams,
    /// The node has shut down: only what it has to send is left, whatever still arrives.
    has_left: bool,
    /// The node has sent all: what its byte streams hold is left.
    has_finished: bool,
}

impl<I> std::fmt::Debug for Driver<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("waiting", &self.outbox.len()).finish_non_exhaustive()
    }
}

/// The result of one turn.
enum Turn {
    /// There may be more to do immediately.
    Again,
    /// No more to do until a waker wakes us.
    Rest,
    /// The node has shut down.
    Over,
}

impl<I: Io> Driver<I> {
    /// Returns the adapter, for its own methods.
    pub const fn io(&mut self) -> &mut I {
        &mut self.io
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Turn> {
        let may_receive_more = self.receive(cx)?;
        let clock = self.shared.clock.clone();
        let now = clock.now();
        let mut inner = self.shared.lock();
        inner.node.set_max_segments(self.io.max_segments());
        inner.node.handle(Input::Wall(clock.unix()), now);
        for datagram in self.inbox.drain(..) {
            inner.node.handle(Input::Datagram(datagram), now);
        }
        while let Some(event) = inner.node.poll_event() {
            inner.on_event(event);
        }
        let heard: Vec<_> = std::iter::from_fn(|| inner.node.poll_heard_by_tcp()).collect();
        let was_blocked = !self.outbox.is_empty();
        if !was_blocked {
            while self.outbox.len() < BATCHES {
                let mut buffer = self.spare.pop().unwrap_or_default();
                let Some(output) = inner.node.poll_output(&mut buffer, now) else {
                    self.spare.push(buffer);
                    break;
                };
                match inner.take(output) {
                    Some(transmit) => self.outbox.push_back((transmit, buffer)),
                    None => self.spare.push(buffer),
                }
            }
        }
        // What the node has to send beyond the batches that had to wait was not asked for.
        let mut may_send_more = was_blocked || self.outbox.len() == BATCHES;
        if !inner.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        self.has_left = inner.node.is_shut_down();
        let is_over = inner.node.is_drained();
        let deadline = inner.node.timer();
        drop(inner);
        for client in heard {
            self.shared.fallback().handle_authenticated(client, now);
        }
        let is_blocked = self.send(cx);
        if is_over && self.outbox.is_empty() && !may_send_more && self.has_finished(now) {
            return Ok(Turn::Over);
        }
        may_send_more &= !is_blocked;
        may_send_more |= self.byte_streams.send(&mut self.io, &self.shared);
        if may_receive_more || may_send_more {
            return Ok(Turn::Again);
        }
        let deadline = deadline.filter(|_| !self.has_finished);
        match earliest([deadline, self.shared.fallback_deadline()]) {
            Some((at, _)) if at <= clock.now() => Ok(Turn::Again),
            Some((at, _)) if self.io.poll_sleep(cx, at).is_ready() => Ok(Turn::Again),
            Some(_) | None => Ok(Turn::Rest),
        }
    }

    /// Fills the inbox; returns whether there may be more. Once a turn: together with the adapter's
    /// batch this bounds how long a small request can wait behind bulk that arrives.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Self { io, shared, inbox, byte_streams, .. } = self;
        let mut is_more = byte_streams.receive(io, cx, shared, inbox);
        if self.has_left {
            self.inbox.clear();
            return Ok(is_more);
        }
        let (now, uses_fallback) = (shared.clock.now(), shared.uses_fallback());
        let received = io.poll_recv(cx, &mut |datagram| {
            if !uses_fallback || shared.fallback().handle_datagram(&datagram, now) {
                inbox.push(datagram);
            }
        });
        match received {
            Poll::Ready(Ok(())) => is_more = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(is_more)
    }

    /// Empties the outbox; returns whether the socket is full.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some((transmit, bytes)) = self.outbox.front() {
            match send_batch(&mut self.io, cx, &self.shared, transmit, &bytes[..transmit.size]) {
                Poll::Pending => return true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let input =
                        Input::SendFailed { route: transmit.route, detail: error.to_string() };
                    self.shared.lock().node.handle(input, self.shared.clock.now());
                    // Its consequences belong to the next turn, which must not wait.
                    cx.waker().wake_by_ref();
                }
            }
            self.spare.extend(self.outbox.pop_front().map(|(_, bytes)| bytes));
        }
        false
    }

    /// The node has sent all. Returns whether its byte streams have, too.
    fn has_finished(&mut self, now: Instant) -> bool {
        if !self.shared.uses_fallback() {
            return true;
        }
        let mut fallback = self.shared.fallback();
        if !std::mem::replace(&mut self.has_finished, true) {
            fallback.finish(now);
        }
        fallback.is_idle()
    }
}

/// Sends one batch by UDP, or hands it to the TCP fallback.
fn send_batch<I: Io>(
    io: &mut I,
    cx: &mut Context<'_>,
    shared: &Shared,
    transmit: &Transmit,
    bytes: &[u8],
) -> Poll<io::Result<()>> {
    if !shared.uses_fallback() {
        return io.poll_send(cx, transmit, bytes);
    }
    let remote = transmit.route.remote;
    let is_by_tcp = shared.fallback().is_by_tcp(remote);
    if !is_by_tcp {
        let sent = ready!(io.poll_send(cx, transmit, bytes));
        if let Err(error) = sent
            && !shared.fallback().handle_refused(remote, shared.clock.now())
        {
            return Poll::Ready(Err(error));
        }
    }
    let question = shared.fallback().handle_sent(transmit, bytes, shared.clock.now());
    if let Some(question) = question {
        let (size, route) = (question.len(), transmit.route);
        let trial = Transmit { route, ecn: None, segment_size: None, size };
        // One that is not sent is one that is not answered.
        let _ = io.poll_send(cx, &trial, &question);
    }
    Poll::Ready(Ok(()))
}

impl<I: Io + Unpin> Future for Driver<I> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let driver = self.get_mut();
        match driver.turn(cx) {
            Ok(Turn::Again) => {
                // After one turn, the other tasks of this thread run.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(Turn::Rest) => Poll::Pending,
            Ok(Turn::Over) => {
                driver.shared.lock().end(Failure::new(Code::Closed, "shut down"));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let sentence = format!("the socket ended: {error}");
                driver.shared.lock().end(Failure::new(Code::Unreachable, sentence));
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<I> Drop for Driver<I> {
    fn drop(&mut self) {
        self.shared.lock().end(Failure::new(Code::Closed, "the driver is gone"));
    }
}
