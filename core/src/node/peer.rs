//! One peer: its machines side by side, and the connection they share while there is one.
//!
//! It holds; the node routes between what it holds. The only decision here is how much a peer's
//! datagrams may take.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::control::Control;
use super::streams::Streams;
use crate::config::Dial;
use crate::error::Failure;
use crate::event::RequestCounts;
use crate::heartbeat::Heartbeat;
use crate::id::{PeerId, RequestId};
use crate::quality::Latency;
use crate::quic::ConnectionId;
use crate::request::queue::Queue;
use crate::retry::Retry;
use crate::session::Lifecycle;
use crate::timer::{Deadline, Reason, earliest};

/// A connection being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) connection: ConnectionId,
    /// When it has used up its time.
    pub(super) due: Instant,
}

/// A connection that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    /// Which connection of the node this is: it names the streams.
    pub(super) number: u64,
    pub(super) control: Control,
    pub(super) streams: Streams,
    /// The peer said that it shuts down.
    pub(super) going_away: bool,
}

/// What a dialled peer has and an accepted one has not.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) dial: Dial,
    pub(super) retry: Retry,
    pub(super) heartbeat: Heartbeat,
    pub(super) attempt: Option<Attempt>,
}

/// What a kept datagram takes beyond its bytes, about: without it a peer could pile up any number
/// of empty ones.
const DATAGRAM_OVERHEAD: usize = 64;

const fn cost(datagram: &Bytes) -> usize {
    datagram.len() + DATAGRAM_OVERHEAD
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// `None` for a peer that connected to us.
    pub(super) dialled: Option<Dialled>,
    pub(super) lifecycle: Lifecycle,
    pub(super) link: Option<Link>,
    pub(super) remote: SocketAddr,
    /// DNS names of the verified leaf certificate.
    pub(super) names: Vec<String>,
    pub(super) latency: Latency,
    pub(super) last_failure: Option<Failure>,
    pub(super) reconnections: u64,
    pub(super) counts: RequestCounts,
    /// Requests that wait for a connection or a stream.
    pub(super) queue: Queue<RequestId>,
    /// Bytes of the peer's request bodies held here.
    pub(super) held_bytes: usize,
    /// Bodies that had to wait are being let go on.
    pub(super) is_unblocking: bool,
    datagrams: VecDeque<Bytes>,
    datagram_bytes: usize,
    /// Received datagrams dropped because the application did not fetch them.
    pub(super) datagrams_dropped: u64,
}

impl Peer {
    pub(super) fn new(id: PeerId, dialled: Option<Dialled>, remote: SocketAddr) -> Self {
        Self {
            id,
            dialled,
            lifecycle: Lifecycle::new(),
            link: None,
            remote,
            names: Vec::new(),
            latency: Latency::default(),
            last_failure: None,
            reconnections: 0,
            counts: RequestCounts::default(),
            queue: Queue::default(),
            held_bytes: 0,
            is_unblocking: false,
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            datagrams_dropped: 0,
        }
    }

    /// The connection of this peer, up or being made.
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        let attempt = || self.dialled.as_ref()?.attempt.map(|a| a.connection);
        self.link.as_ref().map(|l| l.connection).or_else(attempt)
    }

    /// Keeps a received datagram; the oldest go beyond `limit` bytes. It is kept in memory of its
    /// own: as it came, it would hold on to all that arrived with it.
    pub(super) fn push_datagram(&mut self, data: &[u8], limit: usize) {
        let data = Bytes::copy_from_slice(data);
        self.datagram_bytes += cost(&data);
        self.datagrams.push_back(data);
        while self.datagram_bytes > limit {
            let Some(old) = self.datagrams.pop_front() else { break };
            self.datagram_bytes -= cost(&old);
            self.datagrams_dropped += 1;
        }
    }

    pub(super) fn pop_datagram(&mut self) -> Option<Bytes> {
        let data = self.datagrams.pop_front()?;
        self.datagram_bytes -= cost(&data);
        Some(data)
    }

    /// What the received datagrams that are kept cost.
    #[cfg(feature = "testing")]
    pub(super) fn datagram_bytes(&self) -> usize {
        assert_eq!(self.datagram_bytes, self.datagrams.iter().map(cost).sum::<usize>());
        self.datagram_bytes
    }

    /// The earliest of all this peer's machines.
    pub(super) fn deadline(&mut self) -> Option<Deadline> {
        let preface = self.link.as_mut().and_then(|l| l.streams.deadline());
        let mut all = [preface.map(|at| (at, Reason::Preface)), None, None, None, None];
        all[1] = self.queue.deadline();
        if let Some(dialled) = &self.dialled {
            all[2] = dialled.retry.deadline();
            all[3] = dialled.attempt.map(|a| (a.due, Reason::Connect));
            all[4] = dialled.heartbeat.deadline();
        }
        earliest(all)
    }
}
