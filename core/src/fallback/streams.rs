//! All byte streams of a node: their sessions, which of them have something to write, and when each
//! is due. It decides nothing about who may have one, and nothing about when one is needed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use super::session::{Ended, Session, StreamOutput};
use crate::timer::{Deadline, Reason, Timers};

/// One byte stream of a node. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteStreamId(u64);

impl fmt::Display for ByteStreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte stream {}", self.0)
    }
}

/// What is to be done with a byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamAction {
    /// Connect to this address.
    Connect(ByteStreamId, SocketAddr),
    /// Drop it, whatever waits in it.
    Close(ByteStreamId),
}

/// Whose datagrams a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Those of this relay, by its UDP address.
    Relay(SocketAddr),
    /// Those of a client, by the address that the node has for it.
    Client(SocketAddr),
}

/// What bytes that were read have come to.
#[derive(Debug)]
pub(super) struct ReadProgress {
    pub(super) owner: Owner,
    pub(super) is_opened: bool,
    pub(super) ended: Option<Ended>,
}

#[derive(Debug)]
struct FallbackStream {
    owner: Owner,
    session: Session,
    is_listed: bool,
}

/// The streams by their ids.
#[derive(Debug)]
pub(super) struct FallbackStreams {
    streams: BTreeMap<ByteStreamId, FallbackStream>,
    /// Those that may have something to write, each once, in turn.
    writable: VecDeque<ByteStreamId>,
    timers: Timers<ByteStreamId>,
    actions: VecDeque<StreamAction>,
    next: u64,
}

impl FallbackStreams {
    pub(super) const fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            writable: VecDeque::new(),
            timers: Timers::new(),
            actions: VecDeque::new(),
            next: 0,
        }
    }

    /// Returns the id that the next stream may have.
    pub(super) const fn next_id(&mut self) -> ByteStreamId {
        let id = ByteStreamId(self.next);
        self.next += 1;
        id
    }

    /// Connects a stream to this address.
    pub(super) fn connect(
        &mut self,
        owner: Owner,
        session: Session,
        to: SocketAddr,
    ) -> ByteStreamId {
        let id = self.next_id();
        self.actions.push_back(StreamAction::Connect(id, to));
        self.insert(id, owner, session);
        id
    }

    /// Adds a stream that is connected already.
    pub(super) fn insert(&mut self, id: ByteStreamId, owner: Owner, session: Session) {
        self.streams.insert(id, FallbackStream { owner, session, is_listed: false });
        self.settle(id);
    }

    /// Drops a stream that was never added.
    pub(super) fn refuse(&mut self, id: ByteStreamId) {
        self.actions.push_back(StreamAction::Close(id));
    }

    pub(super) fn poll_action(&mut self) -> Option<StreamAction> {
        self.actions.pop_front()
    }

    /// Returns a stream that may have something to write.
    pub(super) fn poll_writable(&mut self) -> Option<ByteStreamId> {
        loop {
            let id = self.writable.pop_front()?;
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.is_listed = false;
                return Some(id);
            }
        }
    }

    /// The stream may have more to write.
    pub(super) fn mark_writable(&mut self, id: ByteStreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_listed, true)
        {
            self.writable.push_back(id);
        }
    }

    pub(super) fn handle_connected(&mut self, id: ByteStreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session.handle_connected();
            self.mark_writable(id);
        }
    }

    /// Takes bytes that were read; `None` for a stream that is gone. One that ended is removed.
    pub(super) fn handle_bytes(
        &mut self,
        id: ByteStreamId,
        bytes: &[u8],
        now: Instant,
        datagrams: &mut Vec<BytesMut>,
    ) -> Option<ReadProgress> {
        let stream = self.streams.get_mut(&id)?;
        let owner = stream.owner;
        let (is_opened, ended) = match stream.session.handle_bytes(bytes, now, datagrams) {
            Ok(is_opened) => (is_opened, None),
            Err(ended) => (false, Some(ended)),
        };
        self.mark_writable(id);
        self.settle(id);
        Some(ReadProgress { owner, is_opened, ended })
    }

    /// The node has authenticated what came by a stream.
    pub(super) fn handle_authenticated(&mut self, id: ByteStreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session.handle_authenticated(now);
            self.settle(id);
        }
    }

    pub(super) fn push_batch(
        &mut self,
        id: ByteStreamId,
        batch: &[u8],
        segment_size: Option<usize>,
    ) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session.push_batch(batch, segment_size);
            self.mark_writable(id);
        }
    }

    /// Returns what is to be written to a stream now, or why it is over.
    pub(super) fn poll_output(
        &mut self,
        id: ByteStreamId,
        now: Instant,
    ) -> Result<Option<StreamOutput>, Ended> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(None) };
        let output = stream.session.poll_output(now);
        self.settle(id);
        output
    }

    pub(super) fn handle_written(&mut self, id: ByteStreamId, count: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session.handle_written(count);
            self.settle(id);
        }
    }

    pub(super) fn handle_shut_down(&mut self, id: ByteStreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session.handle_shut_down(now);
            self.settle(id);
        }
    }

    /// Ends a stream behind what is queued, or drops it where it is not open.
    pub(super) fn close(&mut self, id: ByteStreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.session.close(now) {
            self.mark_writable(id);
            self.settle(id);
        } else {
            self.remove(id);
        }
    }

    /// Ends every stream, each soon.
    pub(super) fn finish(&mut self, now: Instant) {
        let all: Vec<_> = self.streams.keys().copied().collect();
        for id in all {
            self.close(id, now);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.session.shorten_closing(now);
                self.settle(id);
            }
        }
    }

    /// Drops a stream. Returns whose it was, and how many datagrams it had dropped.
    pub(super) fn remove(&mut self, id: ByteStreamId) -> Option<(Owner, u64)> {
        let stream = self.streams.remove(&id)?;
        self.timers.set(id, None);
        self.actions.push_back(StreamAction::Close(id));
        Some((stream.owner, stream.session.dropped()))
    }

    /// Returns a stream that is over at `now`, and why. It is still there.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<(ByteStreamId, Ended)> {
        while let Some((id, _)) = self.timers.pop_due(now) {
            let ended = self.streams.get(&id).and_then(|it| it.session.handle_timeout(now));
            if let Some(ended) = ended {
                return Some((id, ended));
            }
            self.settle(id);
        }
        None
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }

    /// Returns how many datagrams a stream has dropped.
    pub(super) fn dropped(&self, id: ByteStreamId) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.session.dropped())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns whether something waits to be written or done.
    pub(super) fn has_work(&self) -> bool {
        !self.writable.is_empty() || !self.actions.is_empty()
    }

    fn settle(&mut self, id: ByteStreamId) {
        let deadline = self.streams.get(&id).and_then(|stream| stream.session.deadline());
        self.timers.set(id, deadline.map(|at| (at, Reason::Fallback)));
    }
}
