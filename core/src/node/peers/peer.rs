//! One peer: its machines, and the connection they share while there is one.
//!
//! The only decision here is how much memory a peer's received datagrams may take.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::control::Control;
use super::twins::Question;
use crate::config::{Destination, Dial};
use crate::error::Failure;
use crate::heartbeat::HeartbeatMonitor;
use crate::id::PeerId;
use crate::latency::Latency;
use crate::lifecycle::Lifecycle;
use crate::quic::{ClientConfig, ConnectionId};
use crate::retry::Retry;
use crate::timer::{Deadline, Reason, earliest};
use crate::tls::{Credential, KeyDigest, Verifiers};

/// A connection being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectAttempt {
    /// `None` until a relay has found the service.
    pub(super) connection: Option<ConnectionId>,
    /// The end of its time limit.
    pub(super) due: Instant,
}

/// A connection that is up.
#[derive(Debug)]
pub(super) struct PeerConnection {
    pub(super) connection: ConnectionId,
    pub(super) control: Control,
    /// It is to be closed: no more is read from it.
    pub(super) is_closing: bool,
    /// The peer is shutting down.
    pub(super) going_away: bool,
    /// The pause before the next attempt that the peer requested when it shut down.
    pub(super) back_after: Option<Duration>,
    /// The certificates that replace those of the handshake.
    pub(super) renewed: Option<Vec<CertificateDer<'static>>>,
}

impl PeerConnection {
    pub(super) const fn new(connection: ConnectionId, control: Control) -> Self {
        Self {
            connection,
            control,
            is_closing: false,
            going_away: false,
            back_after: None,
            renewed: None,
        }
    }
}

/// The state that only a dialled peer has.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) dial: Dial,
    /// The dial's own identity and trust, used instead of the node's.
    pub(super) own: Option<DialCredentials>,
    pub(super) retry: Retry,
    pub(super) heartbeat: HeartbeatMonitor,
    pub(super) attempt: Option<ConnectAttempt>,
    /// Another address of an acceptor that has moved, the one to dial next.
    pub(super) moved: Option<SocketAddr>,
}

/// An identity and a trust for one peer.
#[derive(Debug, Clone)]
pub(super) struct DialCredentials {
    pub(super) client: ClientConfig,
    pub(super) verifiers: Verifiers,
}

#[derive(Debug)]
pub(super) struct PeerEntry {
    pub(super) id: PeerId,
    /// `None` for a peer that connected to us.
    pub(super) dialled: Option<Dialled>,
    pub(super) lifecycle: Lifecycle,
    pub(super) link: Option<PeerConnection>,
    pub(super) remote: SocketAddr,
    /// The identity that it proved on its latest connection.
    pub(super) credential: Option<Credential>,
    pub(super) latency: Latency,
    pub(super) last_failure: Option<Failure>,
    pub(super) reconnections: u64,
    /// The key under which it is among the twins of its device.
    pub(super) twin_key: Option<KeyDigest>,
    /// Its device connected again, and this connection is asked for a sign of life.
    pub(super) question: Option<Question>,
    datagrams: VecDeque<Bytes>,
    datagram_bytes: usize,
    /// Received datagrams dropped because the application did not fetch them.
    pub(super) datagrams_dropped: u64,
}

impl PeerEntry {
    pub(super) fn new(id: PeerId, dialled: Option<Dialled>, remote: SocketAddr) -> Self {
        Self {
            id,
            dialled,
            lifecycle: Lifecycle::new(),
            link: None,
            remote,
            credential: None,
            latency: Latency::default(),
            last_failure: None,
            reconnections: 0,
            twin_key: None,
            question: None,
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            datagrams_dropped: 0,
        }
    }

    /// Returns the connection of this peer, established or not.
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        let attempt = || self.dialled.as_ref()?.attempt.and_then(|a| a.connection);
        self.link.as_ref().map(|l| l.connection).or_else(attempt)
    }

    /// Keeps a copy of a received datagram, so that it does not pin the packets it came with. The
    /// oldest are dropped beyond `limit` bytes. An empty one takes room as well.
    pub(super) fn push_datagram(&mut self, data: &[u8], limit: usize) {
        self.datagram_bytes += cost(data);
        self.datagrams.push_back(Bytes::copy_from_slice(data));
        while self.datagram_bytes > limit && self.pop_datagram().is_some() {
            self.datagrams_dropped += 1;
        }
    }

    pub(super) fn pop_datagram(&mut self) -> Option<Bytes> {
        let data = self.datagrams.pop_front()?;
        self.datagram_bytes -= cost(&data);
        Some(data)
    }

    /// Returns the memory used by the kept datagrams.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn datagram_bytes(&self) -> usize {
        assert_eq!(
            self.datagram_bytes,
            self.datagrams.iter().map(|data| cost(data)).sum::<usize>()
        );
        self.datagram_bytes
    }

    /// Returns true if this node uses it as a relay.
    pub(super) fn is_relay(&self) -> bool {
        self.dialled.as_ref().is_some_and(|d| matches!(d.dial.to, Destination::Relay(_)))
    }

    /// Returns the earliest deadline of this peer's machines.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let question = self.question.map(|question| (question.due, Reason::HeartbeatAck));
        let Some(dialled) = &self.dialled else { return question };
        earliest([
            dialled.retry.deadline(),
            dialled.attempt.map(|a| (a.due, Reason::Connect)),
            dialled.heartbeat.deadline(),
        ])
    }
}

/// Returns what keeping a datagram takes: its bytes, their allocation and their place in the queue.
const fn cost(data: &[u8]) -> usize {
    data.len() + 2 * size_of::<Bytes>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerEntry {
        PeerEntry::new(PeerId(0), None, SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    #[test]
    fn the_oldest_datagrams_go_one_past_the_limit() {
        let (mut peer, limit) = (peer(), 3 * cost(b"a"));
        for data in [b"a", b"b", b"c"] {
            peer.push_datagram(data, limit);
        }
        assert_eq!(peer.datagrams_dropped, 0);
        peer.push_datagram(b"d", limit);
        let kept: Vec<_> = std::iter::from_fn(|| peer.pop_datagram()).collect();
        assert_eq!((kept, peer.datagrams_dropped), (vec!["b".into(), "c".into(), "d".into()], 1));
    }

    #[test]
    fn empty_datagrams_cannot_pile_up() {
        let (mut peer, limit) = (peer(), 1 << 20);
        for _ in 0..100_000 {
            peer.push_datagram(b"", limit);
        }
        assert_eq!(peer.datagrams.len(), limit / cost(b""));
    }
}
