//! The streams of a relay: who may have one, under which address the node sees it, and which queue
//! leads to it. It decides admission; it opens and closes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_core::fallback::carried;
use tokio::sync::oneshot;

use super::queue::Queue;

/// What a relay grants to streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams in all. Default 16,384: more than the idle clients that a relay is measured with.
    pub streams: usize,
    /// Streams of one source, an IPv4 address or an IPv6 /64. Default 256: an office behind one
    /// address is a usual place for UDP to be blocked.
    pub per_source: usize,
    /// Streams whose TLS handshake is under way; the oldest goes when there are more. Default 512:
    /// whoever means it needs two round trips.
    pub opening: usize,
    /// How long a TLS handshake may take, and afterwards the first answer of the node, which answers
    /// to QUIC alone. Default 10 s, as handshakes of QUIC.
    pub open_within: Duration,
    /// How long the node may have nothing to say to a client. Default 60 s, when the connection
    /// inside is lost as well; while it lives, there is something every 10 s.
    pub idle: Duration,
    /// Bytes that wait for one stream at most; the oldest datagrams go when there are more. Default
    /// 256 KiB: 100 ms of 20 Mbit/s.
    pub queue: usize,
}

impl Default for Limits {
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

/// What became of those who came by TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that there are now, those being opened included.
    pub open: usize,
    /// Streams that were opened, TLS included.
    pub opened: u64,
    /// Connections that were refused by a limit.
    pub refused: u64,
    /// Handshakes that failed, were too slow, or made way for others.
    pub failed: u64,
    /// Datagrams that a stream did not take, or that were for one that is gone.
    pub dropped: u64,
}

/// A way to ask about the streams of a [`Server`](super::Server); clones ask the same one.
#[derive(Debug, Clone)]
pub struct Streams(pub(super) Arc<Registry>);

impl Streams {
    /// Where a client on TCP really is, by the address that the node knows it by; `None` for any
    /// other address, and once its stream is gone.
    #[must_use]
    pub fn real(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.0.lock().streams.get(&address).map(|stream| stream.real)
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.0.lock();
        let waiting: u64 = inner.streams.values().map(|stream| stream.queue.dropped()).sum();
        let dropped = inner.stats.dropped + waiting;
        Stats { open: inner.streams.len(), dropped, ..inner.stats }
    }
}

/// All streams of a relay.
#[derive(Debug)]
pub(super) struct Registry {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    streams: BTreeMap<SocketAddr, Stream>,
    sources: BTreeMap<IpAddr, Source>,
    /// Dropped when its stream has to make way.
    opening: BTreeMap<u64, oneshot::Sender<()>>,
    next_stream: u64,
    next_source: u16,
    stats: Stats,
}

#[derive(Debug)]
struct Stream {
    queue: Arc<Queue>,
    real: SocketAddr,
}

/// A source that has streams.
#[derive(Debug)]
struct Source {
    number: u16,
    streams: usize,
}

/// A place among the streams, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    registry: Arc<Registry>,
    number: u64,
    source: IpAddr,
    pub(super) address: SocketAddr,
    pub(super) queue: Arc<Queue>,
    /// Ready once it has to make way for others, while it is opening.
    pub(super) lost: oneshot::Receiver<()>,
    is_open: bool,
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// A place for a connection, or `None` where a limit refuses one. The oldest that is opening
    /// loses its place should there be too many.
    pub(super) fn admit(self: &Arc<Self>, real: SocketAddr) -> Option<Place> {
        let source = source_of(real.ip());
        let mut inner = self.lock();
        let held = inner.sources.get(&source).map_or(0, |it| it.streams);
        if inner.streams.len() >= self.limits.streams || held >= self.limits.per_source {
            inner.stats.refused += 1;
            return None;
        }
        let number = inner.next_stream;
        inner.next_stream += 1;
        let address = carried(inner.claim(source), number);
        let queue = Arc::new(Queue::new(self.limits.queue));
        inner.streams.insert(address, Stream { queue: queue.clone(), real });
        let (claim, lost) = oneshot::channel();
        inner.opening.insert(number, claim);
        if inner.opening.len() > self.limits.opening {
            inner.opening.pop_first();
        }
        let registry = self.clone();
        Some(Place { registry, number, source, address, queue, lost, is_open: false })
    }

    /// Puts a batch into the queue of the client at `address`.
    pub(super) fn push(&self, address: SocketAddr, batch: &[u8], segment_size: Option<usize>) {
        let mut inner = self.lock();
        match inner.streams.get(&address) {
            Some(stream) => stream.queue.push_batch(batch, segment_size),
            None => inner.stats.dropped += 1,
        }
    }

    /// Nothing more will come: every stream ends behind what it has.
    pub(super) fn finish(&self) {
        for stream in self.lock().streams.values() {
            stream.queue.finish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Counts one more stream of a source and gives its number, which no other source has now.
    fn claim(&mut self, source: IpAddr) -> u16 {
        if let Some(known) = self.sources.get_mut(&source) {
            known.streams += 1;
            return known.number;
        }
        // As many sources as there are streams at most, so that there is a free one unless the limit
        // is beyond them all; two then share what the node grants to one.
        for _ in 0..=u16::MAX {
            self.next_source = self.next_source.wrapping_add(1);
            if self.sources.values().all(|it| it.number != self.next_source) {
                break;
            }
        }
        self.sources.insert(source, Source { number: self.next_source, streams: 1 });
        self.next_source
    }
}

impl Place {
    pub(super) fn limits(&self) -> Limits {
        self.registry.limits
    }

    /// The handshake is over.
    pub(super) fn open(&mut self) {
        self.is_open = true;
        let mut inner = self.registry.lock();
        inner.opening.remove(&self.number);
        inner.stats.opened += 1;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.opening.remove(&self.number);
        inner.stats.failed += u64::from(!self.is_open);
        if let Some(stream) = inner.streams.remove(&self.address) {
            inner.stats.dropped += stream.queue.dropped();
        }
        if let Some(source) = inner.sources.get_mut(&self.source) {
            source.streams -= 1;
            if source.streams == 0 {
                inner.sources.remove(&self.source);
            }
        }
    }
}

/// Whom an address counts for: IPv6 hosts choose among the 2^64 addresses of their network.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(limits: Limits) -> Arc<Registry> {
        Arc::new(Registry::new(limits))
    }

    fn real(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn places_are_given_up_to_the_limit_and_again_once_one_is_free() {
        let registry = registry(Limits { streams: 2, ..Limits::default() });
        let one = registry.admit(real("192.0.2.1:1")).unwrap();
        let _two = registry.admit(real("192.0.2.2:1")).unwrap();
        assert!(registry.admit(real("192.0.2.3:1")).is_none());
        drop(one);
        assert!(registry.admit(real("192.0.2.3:1")).is_some());
        let stats = Streams(registry).stats();
        assert_eq!((stats.refused, stats.failed, stats.open), (1, 2, 1));
    }

    #[tokio::test]
    async fn a_source_has_its_own_limit_which_is_a_network_in_ipv6() {
        let registry = registry(Limits { per_source: 1, ..Limits::default() });
        let one = registry.admit(real("[2001:db8:1:2::1]:1")).unwrap();
        assert!(registry.admit(real("[2001:db8:1:2:3::9]:2")).is_none());
        let other = registry.admit(real("[2001:db8:1:3::1]:1")).unwrap();
        let mapped = registry.admit(real("[::ffff:192.0.2.1]:1")).unwrap();
        assert!(registry.admit(real("192.0.2.1:2")).is_none(), "the same written otherwise");
        let networks = [&one, &other, &mapped].map(|it| source_of(it.address.ip()));
        assert!(networks[0] != networks[1] && networks[1] != networks[2], "{networks:?}");
    }

    #[tokio::test]
    async fn no_address_is_given_twice_and_streams_of_a_source_share_a_network() {
        let registry = registry(Limits::default());
        let one = registry.admit(real("192.0.2.1:1")).unwrap();
        let two = registry.admit(real("192.0.2.1:2")).unwrap();
        assert_eq!(source_of(one.address.ip()), source_of(two.address.ip()));
        let (first, second) = (one.address, two.address);
        drop((one, two));
        let three = registry.admit(real("192.0.2.1:1")).unwrap();
        assert!(first != second && second != three.address && first != three.address);
    }

    #[tokio::test]
    async fn the_oldest_that_is_opening_makes_way_and_an_open_one_does_not() {
        let registry = registry(Limits { opening: 2, ..Limits::default() });
        let mut open = registry.admit(real("192.0.2.1:1")).unwrap();
        open.open();
        let places = [2, 3, 4].map(|port| registry.admit(([192, 0, 2, 1], port).into()).unwrap());
        let lost = places.map(|mut place| place.lost.try_recv().is_err_and(is_closed));
        assert_eq!(lost, [true, false, false]);
        assert_eq!(Streams(registry.clone()).real(open.address), Some(real("192.0.2.1:1")));
    }

    fn is_closed(error: oneshot::error::TryRecvError) -> bool {
        error == oneshot::error::TryRecvError::Closed
    }

    #[tokio::test]
    async fn what_is_for_a_stream_that_is_gone_is_counted() {
        let registry = registry(Limits { queue: 10, ..Limits::default() });
        let place = registry.admit(real("192.0.2.1:1")).unwrap();
        registry.push(place.address, &[1; 8], None);
        registry.push(place.address, &[1; 8], None);
        assert_eq!(Streams(registry.clone()).stats().dropped, 1, "the queue is full");
        let address = place.address;
        drop(place);
        registry.push(address, &[1; 8], None);
        let streams = Streams(registry);
        assert_eq!((streams.stats().dropped, streams.real(address)), (2, None));
    }
}
