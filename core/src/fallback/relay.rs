//! One relay of a client: by what its datagrams travel, its byte stream, and what waits for one. It
//! carries out what [`TransportSwitch`] decides.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;

use super::proxy::{HttpProxy, ProxyHandshake};
use super::session::{Ended, Session};
use super::streams::{ByteStreamId, FallbackStreams, Owner};
use super::switch::{FallbackState, Heard, SwitchAction, TransportSwitch};
use super::tls;
use super::udp_probe::Trial;
use crate::rng::Rng;
use crate::tls::KeyDigest;
use crate::transmit::{Datagram, Transmit};

/// Bytes that wait for the stream at most: 100 ms of 20 Mbit/s. More would be delay, not
/// throughput.
const QUEUE: usize = 256 * 1024;

/// How long opening a stream may take, TLS included.
pub(super) const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Datagrams that are kept for a stream that may follow: a handshake's first flight, or the last
/// probes of a connection, whose next would come seconds later.
const KEPT: usize = 4;

/// Trials whose answers count: those of the last seconds.
const TRIALS: usize = 4;

/// The longest datagram that TCP carries, unless UDP has carried longer ones. The discovery of the
/// path's limit would find none in TCP, and UDP would then swallow what it sends. An Ethernet of
/// 1,500 bytes, less the headers of IPv6 and UDP.
const ETHERNET_DATAGRAM: usize = 1_452;

/// One relay and where it takes TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackTarget {
    /// Its UDP address, which is the one that the node dials and sees.
    pub relay: SocketAddr,
    /// Where it listens for TLS on TCP.
    pub tcp: SocketAddr,
    /// The name that TLS asks for, which a firewall may want to see; an address is not sent.
    pub name: String,
    /// The digest of its leaf's public key, where it is known.
    pub pin: Option<KeyDigest>,
    /// The HTTP proxy that opens the stream, where nothing else leads out.
    pub proxy: Option<HttpProxy>,
}

impl FallbackTarget {
    /// Returns a relay by its UDP address, with its TCP address and its name for TLS: without a pin,
    /// and without a proxy.
    #[must_use]
    pub fn new(relay: SocketAddr, tcp: SocketAddr, name: impl Into<String>) -> Self {
        Self { relay, tcp, name: name.into(), pin: None, proxy: None }
    }

    /// Returns the same relay with this key, where it is known.
    #[must_use]
    pub fn pin(mut self, pin: Option<KeyDigest>) -> Self {
        self.pin = pin;
        self
    }

    /// Returns the same relay, reached through this proxy, if there is one.
    #[must_use]
    pub fn proxy(mut self, proxy: Option<HttpProxy>) -> Self {
        self.proxy = proxy;
        self
    }
}

/// How a relay is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackStatus {
    /// By what datagrams travel.
    pub state: FallbackState,
    /// Since when, by the node's clock.
    pub since: Instant,
    /// Streams opened, or tried to be.
    pub opened: u64,
    /// Datagrams that no stream took.
    pub dropped: u64,
    /// Why the last stream ended, or did not open; a sentence for a person.
    pub last_failure: Option<String>,
}

/// One relay.
#[derive(Debug)]
pub(super) struct FallbackRelay {
    target: FallbackTarget,
    switch: TransportSwitch,
    rng: Rng,
    provider: Arc<CryptoProvider>,
    stream: Option<ByteStreamId>,
    opened: u64,
    trials: VecDeque<Trial>,
    kept: VecDeque<Vec<u8>>,
    longest: usize,
    /// Of streams that are gone, and of no stream.
    dropped: u64,
    since: Instant,
    last_failure: Option<String>,
}

impl FallbackRelay {
    pub(super) fn new(
        target: FallbackTarget,
        mut rng: Rng,
        provider: Arc<CryptoProvider>,
        now: Instant,
    ) -> Self {
        Self {
            target,
            switch: TransportSwitch::new(Rng::new(rng.seed(), "backoff")),
            rng,
            provider,
            stream: None,
            opened: 0,
            trials: VecDeque::new(),
            kept: VecDeque::new(),
            longest: ETHERNET_DATAGRAM,
            dropped: 0,
            since: now,
            last_failure: None,
        }
    }

    /// Returns the address that the node knows it by.
    pub(super) const fn address(&self) -> SocketAddr {
        self.target.relay
    }

    /// The relay takes TCP elsewhere, or shows another key, from the next stream on.
    pub(super) fn retarget(&mut self, target: FallbackTarget) {
        self.target = target;
    }

    /// Returns whether the next datagram goes by TCP.
    pub(super) const fn is_by_tcp(&self) -> bool {
        self.switch.is_by_tcp()
    }

    /// UDP did not take a datagram. Returns whether TCP may, so that the node need not know.
    pub(super) fn handle_refused(&mut self, streams: &mut FallbackStreams, now: Instant) -> bool {
        self.step(streams, now, |switch| switch.handle_refused(now));
        match self.switch.state() {
            FallbackState::Opening | FallbackState::Opened | FallbackState::Tcp => true,
            FallbackState::Udp | FallbackState::Leaving | FallbackState::Waiting => false,
        }
    }

    /// A batch is on its way by UDP, or goes from here by TCP. Returns the question that is to be
    /// sent along by UDP.
    pub(super) fn handle_sent(
        &mut self,
        transmit: &Transmit,
        payload: &[u8],
        streams: &mut FallbackStreams,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let longest = transmit.segment_size.unwrap_or(payload.len());
        let is_by_tcp = self.is_by_tcp();
        if !is_by_tcp {
            self.longest = self.longest.max(longest);
        }
        match self.stream {
            Some(id) if is_by_tcp && longest <= self.longest => {
                streams.push_batch(id, payload, transmit.segment_size);
            }
            Some(_) | None if is_by_tcp => self.dropped += 1,
            Some(_) | None if self.switch.is_suspect(now) => self.keep(payload, longest),
            Some(_) | None => self.kept.clear(),
        }
        if !self.switch.handle_sent(now) {
            return None;
        }
        let mut ids = [0; 16];
        self.rng.fill(&mut ids);
        let trial = Trial::new(ids);
        self.trials.truncate(TRIALS - 1);
        self.trials.push_front(trial);
        Some(trial.question())
    }

    fn keep(&mut self, payload: &[u8], segment_size: usize) {
        for datagram in payload.chunks(segment_size.max(1)) {
            self.kept.truncate(KEPT - 1);
            self.kept.push_front(datagram.to_vec());
        }
    }

    /// A batch came by UDP. Returns whether it is for the node.
    pub(super) fn handle_udp(
        &mut self,
        batch: &Datagram,
        streams: &mut FallbackStreams,
        now: Instant,
    ) -> bool {
        let size = match batch.segment_size {
            0 => batch.payload.len(),
            size => size,
        };
        let (mut answers, mut others) = (0_usize, 0_usize);
        for datagram in batch.payload.chunks(size.max(1)) {
            match self.trials.iter().any(|trial| trial.is_answered_by(datagram)) {
                true => answers += 1,
                false => others += 1,
            }
        }
        if answers > 0 {
            self.trials.clear();
            self.step(streams, now, |switch| switch.handle_heard(Heard::Trial, now));
        }
        if others > 0 {
            self.step(streams, now, |switch| switch.handle_heard(Heard::Udp, now));
        }
        others > 0
    }

    /// Datagrams came by a stream.
    pub(super) fn handle_tcp(
        &mut self,
        id: ByteStreamId,
        streams: &mut FallbackStreams,
        now: Instant,
    ) {
        if self.is_current(id) {
            self.step(streams, now, |switch| switch.handle_heard(Heard::Tcp, now));
        }
    }

    /// A stream is open.
    pub(super) fn handle_opened(
        &mut self,
        id: ByteStreamId,
        streams: &mut FallbackStreams,
        now: Instant,
    ) {
        if !self.is_current(id) {
            return;
        }
        for datagram in self.kept.drain(..).rev() {
            streams.push_batch(id, &datagram, None);
        }
        tracing::info!(relay = %self.target.relay, tcp = %self.target.tcp, "reached by TCP");
        self.step(streams, now, |switch| switch.handle_up(now));
    }

    /// A stream has ended, which had dropped so many datagrams.
    pub(super) fn handle_gone(
        &mut self,
        id: ByteStreamId,
        dropped: u64,
        ended: &Ended,
        streams: &mut FallbackStreams,
        now: Instant,
    ) {
        if !self.is_current(id) {
            return;
        }
        let FallbackTarget { relay, tcp, .. } = &self.target;
        tracing::info!(%relay, %tcp, error = %ended, "no TCP stream");
        self.last_failure = Some(ended.to_string());
        self.stream = None;
        self.dropped += dropped;
        self.step(streams, now, |switch| {
            switch.handle_down(now);
            None
        });
    }

    pub(super) fn handle_timeout(&mut self, streams: &mut FallbackStreams, now: Instant) {
        while self.deadline().is_some_and(|at| at <= now) {
            self.step(streams, now, |switch| switch.handle_timeout(now));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.switch.deadline()
    }

    /// Returns how it is reached.
    pub(super) fn status(&self, streams: &FallbackStreams) -> FallbackStatus {
        let waiting = self.stream.map_or(0, |id| streams.dropped(id));
        FallbackStatus {
            state: self.switch.state(),
            since: self.since,
            opened: self.opened,
            dropped: self.dropped + waiting,
            last_failure: self.last_failure.clone(),
        }
    }

    /// Ends the stream, if there is one.
    pub(super) fn close(&mut self, streams: &mut FallbackStreams, now: Instant) {
        if let Some(id) = self.stream.take() {
            self.dropped += streams.dropped(id);
            streams.close(id, now);
        }
    }

    fn is_current(&self, id: ByteStreamId) -> bool {
        self.stream == Some(id)
    }

    /// Lets the switch take one input, and does what it decides.
    fn step(
        &mut self,
        streams: &mut FallbackStreams,
        now: Instant,
        input: impl FnOnce(&mut TransportSwitch) -> Option<SwitchAction>,
    ) {
        let before = self.switch.state();
        let action = input(&mut self.switch);
        if self.switch.state() != before {
            self.since = now;
        }
        match action {
            Some(SwitchAction::Open) => self.open(streams, now),
            Some(SwitchAction::Close) => self.close(streams, now),
            None => {}
        }
    }

    fn open(&mut self, streams: &mut FallbackStreams, now: Instant) {
        self.close(streams, now);
        self.opened += 1;
        let FallbackTarget { relay, tcp, name, pin, proxy } = &self.target;
        match proxy.as_ref().map(HttpProxy::address) {
            Some(proxy) => {
                tracing::info!(%relay, %tcp, %proxy, "no answer by UDP: trying TCP by the HTTP proxy");
            }
            None => tracing::info!(%relay, %tcp, "no answer by UDP: trying TCP"),
        }
        match tls::connect(*pin, name, tcp.ip(), self.provider.clone()) {
            Ok(session) => {
                let to = proxy.as_ref().map_or(*tcp, HttpProxy::address);
                let proxy = proxy.as_ref().map(|proxy| ProxyHandshake::new(proxy, *tcp));
                let session = Session::connecting(session, proxy, QUEUE, now + OPEN_WITHIN);
                let owner = Owner::Relay(canonical(*relay));
                self.stream = Some(streams.connect(owner, session, to));
            }
            Err(error) => {
                tracing::warn!(%relay, %error, "TLS for the TCP fallback cannot begin");
                self.switch.handle_down(now);
            }
        }
    }
}

/// Returns an address as the core sees it: IPv4 as such, and neither scope nor flow.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
