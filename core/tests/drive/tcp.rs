//! TCP in virtual time for driven nodes: connections with delay, bounded buffers, partial reads and
//! writes, stalls, and hosts that refuse or swallow. It never decides what is sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use adit_core::fallback::ByteStreamId;

/// From one end to the other.
const DELAY: Duration = Duration::from_millis(5);

/// Bytes that a direction holds between its two ends.
const BUFFER: usize = 64 * 1024;

/// Who wakes when.
pub(crate) type Sleeps = Vec<(Instant, Waker)>;

/// What the network does to TCP now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// New connections are refused.
    pub(crate) refuses: bool,
    /// New connections are never answered.
    pub(crate) swallows: bool,
    /// Nothing arrives by any connection.
    pub(crate) stalls: bool,
    /// Bytes of one read or write at most.
    pub(crate) grain: usize,
}

impl Weather {
    pub(crate) const FINE: Self =
        Self { refuses: false, swallows: false, stalls: false, grain: usize::MAX };
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    wire: usize,
    /// 0 for the one that connected, 1 for the one that accepted.
    side: usize,
}

/// One direction of a connection.
#[derive(Default)]
struct Flow {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    /// Its writer will write no more.
    is_finished: bool,
    /// Its reader is gone.
    is_unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A host that listens.
#[derive(Default)]
struct Listener {
    backlog: VecDeque<(Instant, usize)>,
    waker: Option<Waker>,
}

/// All connections of a network.
pub(crate) struct Tcp {
    pub(crate) weather: Weather,
    /// Each flow by the side that writes it.
    wires: Vec<[Flow; 2]>,
    listeners: BTreeMap<SocketAddr, Listener>,
    connecting: BTreeMap<(SocketAddr, ByteStreamId), (Instant, Option<usize>)>,
    ends: BTreeMap<(SocketAddr, ByteStreamId), End>,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        Self {
            weather: Weather::FINE,
            wires: Vec::new(),
            listeners: BTreeMap::new(),
            connecting: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    pub(crate) fn listen(&mut self, at: SocketAddr) {
        self.listeners.entry(at).or_default();
    }

    /// Changes the weather, and wakes all that may notice.
    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
        for flow in self.wires.iter_mut().flatten() {
            flow.reader.take().into_iter().chain(flow.writer.take()).for_each(Waker::wake);
        }
    }

    /// Connections that both ends have.
    pub(crate) fn open(&self) -> usize {
        self.wires.iter().filter(|wire| wire.iter().all(|flow| !flow.is_unread)).count()
    }

    /// Connects without a node: to write junk, or nothing.
    pub(crate) fn knock(&mut self, to: SocketAddr, bytes: &[u8], now: Instant) -> Option<End> {
        let wire = self.wires.len();
        let listener = self.listeners.get_mut(&to)?;
        let mut flows = [Flow::default(), Flow::default()];
        if !bytes.is_empty() {
            flows[0].held = bytes.len();
            flows[0].chunks.push_back((now, bytes.to_vec()));
        }
        self.wires.push(flows);
        listener.backlog.push_back((now, wire));
        listener.waker.take().into_iter().for_each(Waker::wake);
        Some(End { wire, side: 0 })
    }

    pub(crate) fn poll_connect(
        &mut self,
        key: (SocketAddr, ByteStreamId),
        to: SocketAddr,
        cx: &Context<'_>,
        now: Instant,
        sleeps: &mut Sleeps,
    ) -> Poll<io::Result<()>> {
        if !self.connecting.contains_key(&key) {
            let is_taken = !self.weather.refuses && !self.weather.swallows;
            let wire =
                if is_taken { self.knock(to, &[], now + DELAY).map(|end| end.wire) } else { None };
            self.connecting.insert(key, (now + 2 * DELAY, wire));
        }
        let (at, wire) = self.connecting[&key];
        if wire.is_none() && self.weather.swallows {
            return Poll::Pending;
        }
        if at > now {
            sleeps.push((at, cx.waker().clone()));
            return Poll::Pending;
        }
        self.connecting.remove(&key);
        let Some(wire) = wire else { return Poll::Ready(Err(ErrorKind::ConnectionRefused.into())) };
        self.ends.insert(key, End { wire, side: 0 });
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_accept(
        &mut self,
        key: (SocketAddr, ByteStreamId),
        cx: &Context<'_>,
        now: Instant,
        sleeps: &mut Sleeps,
    ) -> Poll<io::Result<SocketAddr>> {
        let Some(listener) = self.listeners.get_mut(&key.0) else {
            return Poll::Ready(Err(ErrorKind::Unsupported.into()));
        };
        match listener.backlog.front().copied() {
            Some((at, wire)) if at <= now => {
                listener.backlog.pop_front();
                self.ends.insert(key, End { wire, side: 1 });
                // Few addresses: limits by source are to be met.
                let [high, low] = (wire as u16).to_be_bytes();
                Poll::Ready(Ok(([198, 51, high & 3, 1], 1_000 + u16::from(low)).into()))
            }
            Some((at, _)) => {
                sleeps.push((at, cx.waker().clone()));
                listener.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => {
                listener.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        key: (SocketAddr, ByteStreamId),
        buffer: &mut [u8],
        cx: &Context<'_>,
        now: Instant,
        sleeps: &mut Sleeps,
    ) -> Poll<io::Result<usize>> {
        let (weather, end) = (self.weather, self.ends[&key]);
        let flow = &mut self.wires[end.wire][1 - end.side];
        let next = flow.chunks.front().map(|(at, _)| *at);
        match flow.chunks.front_mut().filter(|(at, _)| *at <= now && !weather.stalls) {
            Some((_, chunk)) => {
                let count = chunk.len().min(buffer.len()).min(weather.grain);
                buffer[..count].copy_from_slice(&chunk[..count]);
                chunk.drain(..count);
                if chunk.is_empty() {
                    flow.chunks.pop_front();
                }
                flow.held -= count;
                flow.writer.take().into_iter().for_each(Waker::wake);
                Poll::Ready(Ok(count))
            }
            None if next.is_none() && flow.is_finished && !weather.stalls => Poll::Ready(Ok(0)),
            None => {
                flow.reader = Some(cx.waker().clone());
                sleeps.extend(next.filter(|at| *at > now).map(|at| (at, cx.waker().clone())));
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        key: (SocketAddr, ByteStreamId),
        bytes: &[u8],
        cx: &Context<'_>,
        now: Instant,
        sleeps: &mut Sleeps,
    ) -> Poll<io::Result<usize>> {
        let (weather, end) = (self.weather, self.ends[&key]);
        let flow = &mut self.wires[end.wire][end.side];
        if flow.is_unread {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        assert!(!flow.is_finished, "a write behind the end");
        let count = bytes.len().min(BUFFER - flow.held).min(weather.grain);
        if count == 0 {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        flow.held += count;
        flow.chunks.push_back((now + DELAY, bytes[..count].to_vec()));
        sleeps.extend(flow.reader.take().map(|waker| (now + DELAY, waker)));
        Poll::Ready(Ok(count))
    }

    pub(crate) fn finish(
        &mut self,
        key: (SocketAddr, ByteStreamId),
        now: Instant,
        sleeps: &mut Sleeps,
    ) {
        let end = self.ends[&key];
        let flow = &mut self.wires[end.wire][end.side];
        flow.is_finished = true;
        sleeps.extend(flow.reader.take().map(|waker| (now + DELAY, waker)));
    }

    pub(crate) fn close(&mut self, key: (SocketAddr, ByteStreamId)) {
        let begun = self.connecting.remove(&key).and_then(|(_, wire)| wire);
        let begun = begun.map(|wire| End { wire, side: 0 });
        if let Some(end) = self.ends.remove(&key).or(begun) {
            self.hang_up(end);
        }
    }

    /// All ends of a host are gone.
    pub(crate) fn close_host(&mut self, host: SocketAddr) {
        let ids: Vec<_> = self.ends.keys().filter(|(at, _)| *at == host).copied().collect();
        ids.into_iter().for_each(|key| self.close(key));
        for (_, wire) in self.listeners.remove(&host).unwrap_or_default().backlog {
            self.hang_up(End { wire, side: 1 });
        }
    }

    /// An end is gone, and what it has not read with it.
    pub(crate) fn hang_up(&mut self, end: End) {
        let wire = &mut self.wires[end.wire];
        wire[end.side].is_finished = true;
        let flow = &mut wire[1 - end.side];
        flow.is_unread = true;
        flow.chunks.clear();
        for flow in wire {
            flow.reader.take().into_iter().chain(flow.writer.take()).for_each(Waker::wake);
        }
    }
}
