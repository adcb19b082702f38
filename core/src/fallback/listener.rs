//! The clients of a relay that come by TCP: who may have a stream, and under which address the node
//! sees it. It decides admission; it opens and closes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::address::tcp_client_address;
use super::streams::ByteStreamId;
use crate::config::setters;

/// How long no connection is accepted after one could not be: when the system has no more
/// descriptors, some come free meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// What a relay allows to clients on TCP.
///
/// ```
/// use adit_core::fallback::ListenerLimits;
/// assert_eq!(ListenerLimits::default().streams(10).streams, 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// Streams in all. Default 16,384: more than the idle clients that a relay is measured with.
    pub streams: usize,
    /// Streams of one source, an IPv4 address or an IPv6 /64. Default 256: an office behind one
    /// address is a usual place for UDP to be blocked.
    pub per_source: usize,
    /// Streams whose TLS handshake is under way; the oldest makes room when there are more. Default
    /// 512: an honest handshake takes two round trips.
    pub opening: usize,
    /// How long a TLS handshake may take, and afterwards the first answer of the node, which
    /// answers to QUIC alone. Default 10 s, as handshakes of QUIC.
    pub open_within: Duration,
    /// How long the node may have nothing to send to a client. Default 60 s, when the connection
    /// inside is lost as well; while it lives, there is something every 10 s.
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
            opening: 512,
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
    number: u64,
    is_open: bool,
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
    /// The client that makes room for it.
    pub(super) evicted: Option<ByteStreamId>,
}

/// The clients by the addresses that the node has for them.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) limits: ListenerLimits,
    pub(super) config: Arc<ServerConfig>,
    clients: BTreeMap<SocketAddr, FallbackClient>,
    sources: BTreeMap<IpAddr, SourceStreams>,
    /// Those whose handshake is under way, the oldest first.
    opening: BTreeSet<(u64, ByteStreamId)>,
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
            opening: BTreeSet::new(),
            next_number: 0,
            next_source: 0,
            paused_until: None,
            stats: ListenerStats::default(),
        }
    }

    /// Admits a connection, or refuses it by a limit. The oldest handshake makes room where there
    /// are too many.
    pub(super) fn admit(&mut self, stream: ByteStreamId, real: SocketAddr) -> Option<Admitted> {
        let source = source_of(real.ip());
        let held = self.sources.get(&source).map_or(0, |it| it.streams);
        if self.clients.len() >= self.limits.streams || held >= self.limits.per_source {
            self.stats.refused += 1;
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        let address = tcp_client_address(self.claim(source), number);
        self.clients.insert(address, FallbackClient { stream, real, number, is_open: false });
        self.opening.insert((number, stream));
        let is_beyond = self.opening.len() > self.limits.opening;
        let evicted = self.opening.first().filter(|_| is_beyond).map(|(_, stream)| *stream);
        Some(Admitted { address, evicted })
    }

    /// The TLS handshake of a client is complete. Returns the address from which it came.
    pub(super) fn handle_opened(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        let client = self.clients.get_mut(&address)?;
        client.is_open = true;
        self.opening.remove(&(client.number, client.stream));
        self.stats.opened += 1;
        Some(client.real)
    }

    /// A client's stream is gone, which had dropped so many datagrams.
    pub(super) fn handle_gone(&mut self, address: SocketAddr, dropped: u64) {
        let Some(client) = self.clients.remove(&address) else { return };
        self.opening.remove(&(client.number, client.stream));
        self.stats.failed += u64::from(!client.is_open);
        self.stats.dropped += dropped;
        let source = source_of(client.real.ip());
        if let Some(known) = self.sources.get_mut(&source) {
            known.streams -= 1;
            if known.streams == 0 {
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
    fn claim(&mut self, source: IpAddr) -> u16 {
        if let Some(known) = self.sources.get_mut(&source) {
            known.streams += 1;
            return known.number;
        }
        // There are at most as many sources as streams, so that a number is free unless the limit
        // is beyond them all; two sources then share what the node grants to one.
        for _ in 0..=u16::MAX {
            self.next_source = self.next_source.wrapping_add(1);
            if self.sources.values().all(|it| it.number != self.next_source) {
                break;
            }
        }
        self.sources.insert(source, SourceStreams { number: self.next_source, streams: 1 });
        self.next_source
    }
}

/// Returns the source that an address counts for: IPv6 hosts choose among the 2^64 addresses of
/// their network.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
