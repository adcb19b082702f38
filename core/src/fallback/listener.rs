//! The clients of a relay that come by TCP: who may have a stream, and under which address the node
//! sees it. It decides admission; it opens and closes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::address::tcp_client_address;
use super::streams::ByteStreamId;
use crate::config::setters;
use crate::shares::{MakesRoom, Shares, SourceNetwork, WIDTHS};

/// How long no connection is accepted after one could not be: when the system has no more
/// descriptors, some come free meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// How much more than a /64 the wider networks of a subscriber may have, the widest first: a /48
/// four times as much, and a /56 twice.
const WIDER: [usize; WIDTHS] = [4, 2, 1];

/// What a relay allows to clients on TCP.
///
/// ```
/// use adit_core::fallback::ListenerLimits;
/// assert_eq!(ListenerLimits::default().streams(10).streams, 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// Streams in all. Default 16,384: more than the idle clients that a relay is measured with. Above
    /// it, the newest of the source with the most makes room for one with fewer.
    pub streams: usize,
    /// Streams of one source, an IPv4 address or an IPv6 /64. Default 256: an office behind one
    /// address is a usual place for UDP to be blocked. An IPv6 /56 may have twice as many, and a /48
    /// four times.
    pub per_source: usize,
    /// Streams of clients that have not proven their key; the oldest of the source with the most
    /// makes room when there are more. Default 1,024: an honest client takes four round trips.
    pub opening: usize,
    /// How long a TLS handshake may take, and afterwards the handshake of QUIC inside. Default 10 s,
    /// as handshakes of QUIC without it.
    pub open_within: Duration,
    /// How long the node may hear nothing from the client. Only an authenticated packet counts.
    /// Default 60 s, when the connection inside is lost as well; while it lives, there is one every
    /// 10 s.
    pub idle: Duration,
    /// Bytes that wait for one stream at most; the oldest datagrams go when there are more. Default
    /// 256 KiB: 100 ms of 20 Mbit/s.
    pub queue: usize,
}

setters!(ListenerLimits {
    streams: usize,
    per_source: usize,
    opening: usize,
    open_within: Duration,
    idle: Duration,
    queue: usize,
});

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            streams: 16_384,
            per_source: 256,
            opening: 1_024,
            open_within: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            queue: 256 * 1024,
        }
    }
}

/// What became of the clients on TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Streams now, those in their TLS handshake included.
    pub open: usize,
    /// Streams that were opened, TLS included.
    pub opened: u64,
    /// Connections that a limit refused.
    pub refused: u64,
    /// Handshakes that failed, were too slow, or made room for others.
    pub failed: u64,
    /// Datagrams that a stream did not take, or that were for one that is gone.
    pub dropped: u64,
}

/// One client.
#[derive(Debug, Clone, Copy)]
struct FallbackClient {
    stream: ByteStreamId,
    real: SocketAddr,
    is_open: bool,
    /// It has proven its key.
    is_known: bool,
}

/// A source that has streams.
#[derive(Debug)]
struct SourceStreams {
    number: u16,
    streams: usize,
}

/// A client that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The address that the node has for it.
    pub(super) address: SocketAddr,
    /// The client that makes room for it among those that have not proven their key.
    pub(super) evicted: Option<ByteStreamId>,
    /// The client that makes room for it among all.
    pub(super) displaced: Option<ByteStreamId>,
}

/// The clients by the addresses that the node has for them.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) limits: ListenerLimits,
    pub(super) config: Arc<ServerConfig>,
    clients: BTreeMap<SocketAddr, FallbackClient>,
    sources: BTreeMap<SourceNetwork, SourceStreams>,
    /// The numbers of these sources.
    numbers: BTreeSet<u16>,
    all: Shares<SourceNetwork, WIDTHS, ByteStreamId>,
    /// Those that have not proven their key.
    opening: Shares<SourceNetwork, WIDTHS, ByteStreamId>,
    next_number: u64,
    next_source: u16,
    paused_until: Option<Instant>,
    stats: ListenerStats,
}

impl Listener {
    pub(super) fn new(config: Arc<ServerConfig>, limits: ListenerLimits) -> Self {
        Self {
            limits,
            config,
            clients: BTreeMap::new(),
            sources: BTreeMap::new(),
            numbers: BTreeSet::new(),
            all: Shares::default(),
            opening: Shares::default(),
            next_number: 0,
            next_source: 0,
            paused_until: None,
            stats: ListenerStats::default(),
        }
    }

    /// Admits a connection, or refuses it by a limit. The newest of the source with the most makes
    /// room where there are too many, and the oldest where too many have not proven their key.
    pub(super) fn admit(&mut self, stream: ByteStreamId, real: SocketAddr) -> Option<Admitted> {
        let (source, lineage) = (SourceNetwork::of(real.ip()), SourceNetwork::lineage(real.ip()));
        let is_beyond = (0..WIDTHS).any(|width| {
            let most = self.limits.per_source.saturating_mul(WIDER[width]);
            self.all.held(&lineage, width) >= most
        });
        let is_full = self.clients.len() >= self.limits.streams;
        let displaced = self.all.makes_room(&lineage, 1, MakesRoom::Newest).filter(|_| is_full);
        if is_beyond || (is_full && displaced.is_none()) {
            self.stats.refused += 1;
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        let address = tcp_client_address(self.claim(source), number);
        let client = FallbackClient { stream, real, is_open: false, is_known: false };
        self.clients.insert(address, client);
        self.all.set(stream, lineage, 1);
        self.opening.set(stream, lineage, 1);
        let is_beyond = self.opening.len() > self.limits.opening;
        let evicted = self.opening.largest(MakesRoom::Oldest).filter(|_| is_beyond);
        Some(Admitted { address, evicted, displaced })
    }

    /// The TLS handshake of a client is complete. Returns the address from which it came.
    pub(super) fn handle_opened(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        let client = self.clients.get_mut(&address)?;
        client.is_open = true;
        self.stats.opened += 1;
        Some(client.real)
    }

    /// The node has authenticated a packet of a client. Returns its stream.
    pub(super) fn handle_authenticated(&mut self, address: SocketAddr) -> Option<ByteStreamId> {
        let client = self.clients.get_mut(&address)?;
        if !std::mem::replace(&mut client.is_known, true) {
            self.opening.remove(client.stream);
        }
        Some(client.stream)
    }

    /// A client's stream is gone, which had dropped so many datagrams.
    pub(super) fn handle_gone(&mut self, address: SocketAddr, dropped: u64) {
        let Some(client) = self.clients.remove(&address) else { return };
        self.opening.remove(client.stream);
        self.all.remove(client.stream);
        self.stats.failed += u64::from(!client.is_open);
        self.stats.dropped += dropped;
        let source = SourceNetwork::of(client.real.ip());
        if let Some(known) = self.sources.get_mut(&source) {
            known.streams -= 1;
            if known.streams == 0 {
                self.numbers.remove(&known.number);
                self.sources.remove(&source);
            }
        }
    }

    /// Returns the stream of the client at `address`; without one, a batch for it counts as
    /// dropped.
    pub(super) fn stream_of(&mut self, address: SocketAddr) -> Option<ByteStreamId> {
        let stream = self.clients.get(&address).map(|client| client.stream);
        self.stats.dropped += u64::from(stream.is_none());
        stream
    }

    /// Returns the address from which a client came.
    pub(super) fn real_address(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.clients.get(&address).map(|client| client.real)
    }

    /// A connection could not be accepted.
    pub(super) fn handle_accept_failed(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    /// Returns whether connections are accepted at `now`.
    pub(super) fn is_accepting(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
    }

    /// Returns when accepting is to be tried again.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.is_accepting(now) {
            self.paused_until = None;
        }
    }

    /// Returns the counts; `dropped_by` gives those of a stream that still lives.
    pub(super) fn stats(&self, dropped_by: impl Fn(ByteStreamId) -> u64) -> ListenerStats {
        let waiting: u64 = self.clients.values().map(|client| dropped_by(client.stream)).sum();
        let dropped = self.stats.dropped + waiting;
        ListenerStats { open: self.clients.len(), dropped, ..self.stats }
    }

    /// Counts one more stream of a source. Returns its number, which no other source has now.
    fn claim(&mut self, source: SourceNetwork) -> u16 {
        if let Some(known) = self.sources.get_mut(&source) {
            known.streams += 1;
            return known.number;
        }
        // There are at most as many sources as streams, so that a number is free unless the limit
        // is beyond them all; two sources then share what the node grants to one.
        for _ in 0..=u16::MAX {
            self.next_source = self.next_source.wrapping_add(1);
            if self.numbers.insert(self.next_source) {
                break;
            }
        }
        self.sources.insert(source, SourceStreams { number: self.next_source, streams: 1 });
        self.next_source
    }
}

#[cfg(test)]
mod tests;
