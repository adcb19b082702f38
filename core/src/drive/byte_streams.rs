//! Moves bytes between the TCP fallback and the adapter's byte streams. It decides how much is
//! moved in one turn, and which stream is asked: one that woke, or that has something to write. It
//! never looks into the bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::io::Io;
use super::shared::Shared;
use crate::fallback::{ByteStreamId, StreamAction, StreamOutput};
use crate::transmit::Datagram;

/// Reads of all streams in one turn: as many bytes as one receive by UDP gives. A stream has one
/// read and then waits for its next turn.
const READS: usize = 32;

/// Bytes of one read: what one TLS record holds (RFC 8446 §5.1).
const CHUNK: usize = 16 * 1024;

/// Streams that are written to in one turn.
const WRITERS: usize = 64;

/// Writes to one stream in one turn.
const WRITES: usize = 4;

/// Connections accepted in one turn.
const ACCEPTS: usize = 32;

/// The streams that the adapter has for the fallback.
#[derive(Debug)]
pub(super) struct ByteStreams {
    awake: Arc<Awake>,
    streams: BTreeMap<ByteStreamId, ByteStream>,
    /// Those that took nothing when they were last written to.
    blocked: BTreeSet<ByteStreamId>,
    accepting: Arc<Sleeper>,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct ByteStream {
    sleeper: Arc<Sleeper>,
    /// Where it connects to, until it has.
    connecting: Option<SocketAddr>,
}

/// Those that woke since the last turn, and the driver's task.
#[derive(Debug, Default)]
struct Awake(Mutex<AwakeInner>);

#[derive(Debug, Default)]
struct AwakeInner {
    streams: VecDeque<ByteStreamId>,
    driver: Option<Waker>,
}

/// What one stream, or the listeners, wake the driver by.
#[derive(Debug)]
struct Sleeper {
    /// The stream; none for the listeners.
    id: Option<ByteStreamId>,
    is_awake: AtomicBool,
    awake: Arc<Awake>,
}

impl Awake {
    fn lock(&self) -> MutexGuard<'_, AwakeInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<ByteStreamId> {
        self.lock().streams.pop_front()
    }
}

impl Sleeper {
    fn new(id: Option<ByteStreamId>, awake: &Arc<Awake>) -> Arc<Self> {
        Arc::new(Self { id, is_awake: AtomicBool::new(false), awake: awake.clone() })
    }

    /// Puts it among those that are awake, once.
    fn mark_awake(&self) -> bool {
        if self.is_awake.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(id) = self.id {
            self.awake.lock().streams.push_back(id);
        }
        true
    }

    /// From now on a wake-up counts again.
    fn rest(&self) {
        self.is_awake.store(false, Ordering::Release);
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.mark_awake() {
            let driver = self.awake.lock().driver.clone();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}

impl ByteStreams {
    pub(super) fn new() -> Self {
        let awake = Arc::new(Awake::default());
        let accepting = Sleeper::new(None, &awake);
        // Nobody has asked the listeners yet.
        accepting.mark_awake();
        Self {
            awake,
            streams: BTreeMap::new(),
            blocked: BTreeSet::new(),
            accepting,
            buffer: Box::default(),
        }
    }

    /// Accepts and reads what is there. Returns whether there may be more.
    pub(super) fn receive<I: Io>(
        &mut self,
        io: &mut I,
        cx: &Context<'_>,
        shared: &Shared,
        inbox: &mut Vec<Datagram>,
    ) -> bool {
        if !shared.uses_fallback() {
            return false;
        }
        let mut awake = self.awake.lock();
        if !awake.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            awake.driver = Some(cx.waker().clone());
        }
        drop(awake);
        shared.fallback().handle_timeout(shared.clock.now());
        self.act(io, shared);
        let mut is_more = self.accept(io, shared);
        for _ in 0..READS {
            let Some(id) = self.awake.pop() else { return is_more };
            self.serve(id, io, shared, inbox);
        }
        is_more |= !self.awake.lock().streams.is_empty();
        is_more
    }

    /// Connects and closes what the fallback asks for.
    fn act<I: Io>(&mut self, io: &mut I, shared: &Shared) {
        loop {
            let Some(action) = shared.fallback().poll_action() else { return };
            match action {
                StreamAction::Connect(id, to) => self.add(id, Some(to)),
                StreamAction::Close(id) => {
                    self.streams.remove(&id);
                    self.blocked.remove(&id);
                    io.close(id);
                }
            }
        }
    }

    fn add(&mut self, id: ByteStreamId, connecting: Option<SocketAddr>) {
        let sleeper = Sleeper::new(Some(id), &self.awake);
        sleeper.mark_awake();
        self.streams.insert(id, ByteStream { sleeper, connecting });
    }

    /// Returns whether there may be more connections.
    fn accept<I: Io>(&mut self, io: &mut I, shared: &Shared) -> bool {
        if !self.accepting.is_awake.load(Ordering::Acquire) {
            return false;
        }
        let now = shared.clock.now();
        let waker = Waker::from(self.accepting.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..ACCEPTS {
            let mut fallback = shared.fallback();
            if !fallback.is_accepting(now) {
                return false;
            }
            let id = fallback.next_id();
            drop(fallback);
            self.accepting.rest();
            let accepted = io.poll_accept(&mut cx, id);
            match accepted {
                Poll::Pending => return false,
                Poll::Ready(Ok(real)) => {
                    self.add(id, None);
                    shared.fallback().handle_accepted(id, real, now);
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a TCP connection could not be accepted");
                    shared.fallback().handle_accept_failed(now);
                }
            }
            self.accepting.mark_awake();
        }
        true
    }

    /// Connects or reads one stream that woke.
    fn serve<I: Io>(
        &mut self,
        id: ByteStreamId,
        io: &mut I,
        shared: &Shared,
        inbox: &mut Vec<Datagram>,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.sleeper.rest();
        let waker = Waker::from(stream.sleeper.clone());
        let mut cx = Context::from_waker(&waker);
        if let Some(to) = stream.connecting {
            match io.poll_connect(&mut cx, id, to) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    stream.connecting = None;
                    shared.fallback().handle_connected(id);
                }
                Poll::Ready(Err(error)) => {
                    return shared.fallback().handle_ended(
                        id,
                        Some(&error.to_string()),
                        shared.clock.now(),
                    );
                }
            }
        }
        if self.blocked.remove(&id) {
            shared.fallback().mark_writable(id);
        }
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK].into();
        }
        let read = io.poll_read(&mut cx, id, &mut self.buffer);
        let now = shared.clock.now();
        match read {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => shared.fallback().handle_ended(id, None, now),
            Poll::Ready(Ok(count)) => {
                let sink = &mut |datagram| inbox.push(datagram);
                shared.fallback().handle_bytes(id, &self.buffer[..count], now, sink);
                stream.sleeper.mark_awake();
            }
            Poll::Ready(Err(error)) => {
                shared.fallback().handle_ended(id, Some(&error.to_string()), now);
            }
        }
    }

    /// Writes what the streams take. Returns whether there may be more to do.
    pub(super) fn send<I: Io>(&mut self, io: &mut I, shared: &Shared) -> bool {
        if !shared.uses_fallback() {
            return false;
        }
        for _ in 0..WRITERS {
            let Some(id) = shared.fallback().poll_writable() else { break };
            if !self.blocked.contains(&id) {
                self.write(id, io, shared);
            }
        }
        self.act(io, shared);
        shared.fallback().has_work() || !self.awake.lock().streams.is_empty()
    }

    fn write<I: Io>(&mut self, id: ByteStreamId, io: &mut I, shared: &Shared) {
        let Some(stream) = self.streams.get(&id).filter(|it| it.connecting.is_none()) else {
            return;
        };
        let waker = Waker::from(stream.sleeper.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..WRITES {
            let now = shared.clock.now();
            let Some(output) = shared.fallback().poll_output(id, now) else { return };
            let written = match &output {
                StreamOutput::Bytes(bytes) => io.poll_write(&mut cx, id, bytes),
                StreamOutput::Shutdown => io.poll_shutdown(&mut cx, id).map_ok(|()| 0),
            };
            let mut fallback = shared.fallback();
            match (written, output) {
                (Poll::Pending, _) => {
                    self.blocked.insert(id);
                    return;
                }
                (Poll::Ready(Ok(_)), StreamOutput::Shutdown) => {
                    return fallback.handle_shut_down(id, now);
                }
                (Poll::Ready(Ok(0)), StreamOutput::Bytes(_)) => {
                    return fallback.handle_ended(id, None, now);
                }
                (Poll::Ready(Ok(count)), StreamOutput::Bytes(_)) => {
                    fallback.handle_written(id, count);
                }
                (Poll::Ready(Err(error)), _) => {
                    return fallback.handle_ended(id, Some(&error.to_string()), now);
                }
            }
        }
        shared.fallback().mark_writable(id);
    }
}
