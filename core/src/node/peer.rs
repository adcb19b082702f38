//! One peer: its machines side by side, and the connection they share while there is one.
//!
//! It holds; the node routes between what it holds. The only decision here is how much a peer's
//! datagrams may take.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::control::Control;
use super::streams::Streams;
use crate::config::Dial;
use crate::error::Failure;
use crate::event::RequestCounts;
use crate::heartbeat::Heartbeat;
use crate::id::{PeerId, RequestId};
use crate::latency::Latency;
use crate::lifecycle::Lifecycle;
use crate::quic::{Client, ConnectionId};
use crate::relay_client::{Registration, Search};
use crate::request::queue::Queue;
use crate::retry::Retry;
use crate::timer::{Deadline, Reason, earliest};
use crate::tls::{Credential, Verifiers};

/// A connection being made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// `None` until a relay knows the service.
    pub(super) connection: Option<ConnectionId>,
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
    /// How long it asked to be left alone then.
    pub(super) back_after: Option<Duration>,
    /// How its packets travel, if end to end.
    pub(super) way: Option<u32>,
    /// The certificates that it was given in place of those it connected with.
    pub(super) renewed: Option<Vec<CertificateDer<'static>>>,
}

/// What a dialled peer has and an accepted one has not.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) dial: Dial,
    /// What the dial brought of its own instead of the node's identity and trust.
    pub(super) own: Option<Own>,
    /// What is known of a relay, if it is one.
    pub(super) attachment: Option<Registration>,
    /// What was found out of a service behind relays, if it is one.
    pub(super) search: Option<Search>,
    pub(super) retry: Retry,
    pub(super) heartbeat: Heartbeat,
    pub(super) attempt: Option<Attempt>,
}

/// An identity and a trust for one peer.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) client: Client,
    pub(super) verifiers: Verifiers,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// `None` for a peer that connected to us.
    pub(super) dialled: Option<Dialled>,
    pub(super) lifecycle: Lifecycle,
    pub(super) link: Option<Link>,
    pub(super) remote: SocketAddr,
    /// Who it proved to be on its latest connection.
    pub(super) credential: Option<Credential>,
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
            credential: None,
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
        let attempt = || self.dialled.as_ref()?.attempt.and_then(|a| a.connection);
        self.link.as_ref().map(|l| l.connection).or_else(attempt)
    }

    /// Keeps a received datagram, in memory of its own so that it does not pin the packets it came
    /// with; the oldest go beyond `limit` bytes. An empty one takes room as well.
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

    /// What the received datagrams take that are kept.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn datagram_bytes(&self) -> usize {
        assert_eq!(
            self.datagram_bytes,
            self.datagrams.iter().map(|data| cost(data)).sum::<usize>()
        );
        self.datagram_bytes
    }

    /// The earliest of all this peer's machines.
    pub(super) fn deadline(&mut self) -> Option<Deadline> {
        let preface = self.link.as_mut().and_then(|l| l.streams.deadline());
        let mut all = [preface.map(|at| (at, Reason::Preface)), None, None, None, None, None, None];
        all[1] = self.queue.deadline();
        if let Some(dialled) = &self.dialled {
            all[2] = dialled.retry.deadline();
            all[3] = dialled.attempt.map(|a| (a.due, Reason::Connect));
            all[4] = dialled.heartbeat.deadline();
            all[5] = dialled.attachment.as_ref().and_then(Registration::deadline);
            all[6] = dialled.search.as_ref().and_then(Search::deadline);
        }
        earliest(all)
    }
}

/// What keeping a datagram takes: its bytes, their allocation and their place in the queue.
const fn cost(data: &[u8]) -> usize {
    data.len() + 2 * size_of::<Bytes>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new(PeerId(0), None, SocketAddr::from(([127, 0, 0, 1], 1)))
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
