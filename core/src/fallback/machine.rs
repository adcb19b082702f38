//! The machine: relays that may be reached by TCP, clients that come by TCP, and their byte
//! streams. It routes values between them and decides nothing itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rustls::crypto::CryptoProvider;

use super::address::is_tcp_client_address;
use super::listener::{Listener, ListenerLimits, ListenerStats};
use super::relay::{FallbackRelay, FallbackStatus, FallbackTarget, canonical};
use super::session::{Disuse, Ended, Session, StreamOutput};
use super::streams::{ByteStreamId, FallbackStreams, Owner, StreamAction};
use super::tls;
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, earliest};
use crate::tls::{Identity, TlsError};
use crate::transmit::{Datagram, Route, Transmit};

/// The TCP fallback of one node, beside its UDP socket.
///
/// The caller has three duties. Each UDP datagram passes [`Fallback::handle_datagram`] on its way
/// in, and [`Fallback::is_by_tcp`] and [`Fallback::handle_sent`] on its way out. Byte streams are
/// connected and closed by [`Fallback::poll_action`], accepted while [`Fallback::is_accepting`],
/// read into [`Fallback::handle_bytes`] and written from [`Fallback::poll_output`].
/// [`Fallback::handle_timeout`] is called at [`Fallback::deadline`].
///
/// ```
/// use adit_core::fallback::{Fallback, FallbackState, FallbackTarget, StreamAction};
/// use adit_core::{tls::default_provider, transmit::{Route, Transmit}};
/// use std::time::Instant;
/// let (relay, tcp) = ("192.0.2.7:4433".parse()?, "192.0.2.7:443".parse()?);
/// let now = Instant::now();
/// let mut fallback = Fallback::new(default_provider(), [7; 32]);
/// fallback.add(FallbackTarget::new(relay, tcp, "relay.example"), now);
/// // UDP carries until it is silent for two seconds.
/// let batch = Transmit { route: Route::to(relay), ecn: None, segment_size: None, size: 5 };
/// fallback.handle_sent(&batch, b"hello", now);
/// assert!(!fallback.is_by_tcp(relay));
/// let (later, _) = fallback.deadline().ok_or("nothing is due")?;
/// fallback.handle_timeout(later);
/// assert!(matches!(fallback.poll_action(), Some(StreamAction::Connect(_, to)) if to == tcp));
/// assert_eq!(fallback.statuses()[&relay].state, FallbackState::Opening);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Fallback {
    provider: Arc<CryptoProvider>,
    rng: Rng,
    streams: FallbackStreams,
    relays: BTreeMap<SocketAddr, FallbackRelay>,
    listener: Option<Listener>,
    is_finished: bool,
}

impl Fallback {
    /// Returns a machine without relays and without a listener. All its randomness comes from
    /// `seed`, that of TLS from the provider.
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>, seed: [u8; 32]) -> Self {
        Self {
            provider,
            rng: Rng::new(seed, "tcp fallback"),
            streams: FallbackStreams::new(),
            relays: BTreeMap::new(),
            listener: None,
            is_finished: false,
        }
    }

    /// Adds a relay that may be reached by TCP, or changes where and how it takes TCP.
    pub fn add(&mut self, target: FallbackTarget, now: Instant) {
        let key = canonical(target.relay);
        match self.relays.get_mut(&key) {
            Some(relay) => relay.retarget(target),
            None => {
                let rng = Rng::new(self.rng.seed(), "relay");
                self.relays
                    .insert(key, FallbackRelay::new(target, rng, self.provider.clone(), now));
            }
        }
    }

    /// Removes a relay; its stream, if there is one, is closed.
    pub fn remove(&mut self, relay: SocketAddr, now: Instant) {
        if let Some(mut relay) = self.relays.remove(&canonical(relay)) {
            relay.close(&mut self.streams, now);
        }
    }

    /// Returns how each relay is reached, by its UDP address.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<SocketAddr, FallbackStatus> {
        self.relays.iter().map(|(key, relay)| (*key, relay.status(&self.streams))).collect()
    }

    /// Takes clients by TCP from now on: they are shown this identity.
    ///
    /// # Errors
    /// [`TlsError`] when the identity cannot be used.
    pub fn listen(&mut self, identity: &Identity, limits: ListenerLimits) -> Result<(), TlsError> {
        let config = tls::server_config(identity, self.provider.clone())?;
        self.listener = Some(Listener::new(config, limits));
        Ok(())
    }

    /// Returns the address from which a client on TCP came, by the address that the node has for
    /// it; `None` for any other address, and once its stream is gone.
    #[must_use]
    pub fn real_address(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.real_address(address))
    }

    /// Returns what became of the clients on TCP.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        let stats = |listener: &Listener| listener.stats(|stream| self.streams.dropped(stream));
        self.listener.as_ref().map(stats).unwrap_or_default()
    }

    /// Takes note of a batch that came by UDP. Returns whether it is for the node.
    pub fn handle_datagram(&mut self, batch: &Datagram, now: Instant) -> bool {
        // Nobody is there: the source is forged, and its answer would go to a stream.
        if self.listener.is_some() && is_tcp_client_address(batch.route.remote) {
            return false;
        }
        if self.relays.is_empty() {
            return true;
        }
        let relay = self.relays.get_mut(&canonical(batch.route.remote));
        relay.is_none_or(|relay| relay.handle_udp(batch, &mut self.streams, now))
    }

    /// Returns whether the next batch to this address goes by TCP; or else by UDP.
    #[must_use]
    pub fn is_by_tcp(&self, remote: SocketAddr) -> bool {
        if self.listener.is_some() && is_tcp_client_address(remote) {
            return true;
        }
        !self.relays.is_empty()
            && self.relays.get(&canonical(remote)).is_some_and(FallbackRelay::is_by_tcp)
    }

    /// Takes a batch that goes by TCP, or notes one that is on its way by UDP. Returns a datagram
    /// that is to be sent along by UDP; if it is not sent, it is not answered, and that is all.
    pub fn handle_sent(
        &mut self,
        transmit: &Transmit,
        payload: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let remote = transmit.route.remote;
        if let Some(listener) = self.listener.as_mut().filter(|_| is_tcp_client_address(remote)) {
            let id = listener.stream_of(remote)?;
            self.streams.push_batch(id, payload, transmit.segment_size);
            return None;
        }
        if self.relays.is_empty() {
            return None;
        }
        let relay = self.relays.get_mut(&canonical(remote))?;
        relay.handle_sent(transmit, payload, &mut self.streams, now)
    }

    /// UDP refused to send a batch. Returns whether it is taken all the same, since TCP may carry
    /// it: it then counts as sent.
    pub fn handle_refused(&mut self, remote: SocketAddr, now: Instant) -> bool {
        let relay = self.relays.get_mut(&canonical(remote));
        relay.is_some_and(|relay| relay.handle_refused(&mut self.streams, now))
    }

    /// Returns the next thing to do with a byte stream.
    pub fn poll_action(&mut self) -> Option<StreamAction> {
        self.streams.poll_action()
    }

    /// Returns whether connections are accepted at `now`.
    #[must_use]
    pub fn is_accepting(&self, now: Instant) -> bool {
        let is_accepting = |listener: &Listener| listener.is_accepting(now);
        !self.is_finished && self.listener.as_ref().is_some_and(is_accepting)
    }

    /// Returns the id that the next connection to be accepted has.
    pub const fn next_id(&mut self) -> ByteStreamId {
        self.streams.next_id()
    }

    /// A connection was accepted under this id. It is closed by an action where a limit refuses it.
    pub fn handle_accepted(&mut self, id: ByteStreamId, real: SocketAddr, now: Instant) {
        let listener = self.listener.as_mut().filter(|_| !self.is_finished);
        let Some(listener) = listener else { return self.streams.refuse(id) };
        let Some(admitted) = listener.admit(id, real) else { return self.streams.refuse(id) };
        let limits = listener.limits;
        match tls::accept(listener.config.clone()) {
            Ok(session) => {
                let disuse = Disuse { first: limits.open_within, idle: limits.idle };
                let until = now + limits.open_within;
                let session = Session::accepted(session, limits.queue, until, disuse);
                self.streams.insert(id, Owner::Client(admitted.address), session);
            }
            Err(error) => {
                tracing::debug!(%real, %error, "TLS on TCP cannot begin");
                listener.handle_gone(admitted.address, 0);
                self.streams.refuse(id);
            }
        }
        for evicted in [admitted.evicted, admitted.displaced].into_iter().flatten() {
            self.on_ended(evicted, &Ended::MadeRoom, now);
        }
    }

    /// The node has authenticated a packet from this address: the client's stream is in use. Nothing
    /// else shows that, since the node answers strangers as well.
    pub fn handle_authenticated(&mut self, from: SocketAddr, now: Instant) {
        let known = self.listener.as_mut().and_then(|it| it.handle_authenticated(from));
        if let Some(id) = known {
            self.streams.handle_authenticated(id, now);
        }
    }

    /// A connection could not be accepted; the next is tried a moment later.
    pub fn handle_accept_failed(&mut self, now: Instant) {
        if let Some(listener) = &mut self.listener {
            listener.handle_accept_failed(now);
        }
    }

    /// A stream that [`StreamAction::Connect`] asked for is connected.
    pub fn handle_connected(&mut self, id: ByteStreamId) {
        self.streams.handle_connected(id);
    }

    /// Takes bytes that were read from a stream, and hands the datagrams in them to `sink`.
    pub fn handle_bytes(
        &mut self,
        id: ByteStreamId,
        bytes: &[u8],
        now: Instant,
        sink: &mut dyn FnMut(Datagram),
    ) {
        let mut datagrams = Vec::new();
        let progress = self.streams.handle_bytes(id, bytes, now, &mut datagrams);
        let Some(progress) = progress else { return };
        match progress.owner {
            Owner::Relay(key) => {
                self.on_relay_read(key, id, progress.is_opened, datagrams, now, sink)
            }
            Owner::Client(address) => {
                if let Some(listener) = self.listener.as_mut().filter(|_| progress.is_opened) {
                    let real = listener.handle_opened(address);
                    tracing::debug!(?real, %address, "a client on TCP");
                }
                deliver(address, datagrams, sink);
            }
        }
        if let Some(ended) = progress.ended {
            self.on_ended(id, &ended, now);
        }
    }

    fn on_relay_read(
        &mut self,
        key: SocketAddr,
        id: ByteStreamId,
        is_opened: bool,
        datagrams: Vec<BytesMut>,
        now: Instant,
        sink: &mut dyn FnMut(Datagram),
    ) {
        let Some(relay) = self.relays.get_mut(&key) else { return };
        if is_opened {
            relay.handle_opened(id, &mut self.streams, now);
        }
        if !datagrams.is_empty() {
            relay.handle_tcp(id, &mut self.streams, now);
            deliver(relay.address(), datagrams, sink);
        }
    }

    /// A stream has ended: the other side closed it, or the system gave it up.
    pub fn handle_ended(&mut self, id: ByteStreamId, error: Option<&str>, now: Instant) {
        let ended = error.map_or(Ended::Closed, |error| Ended::Failed(error.to_owned()));
        self.on_ended(id, &ended, now);
    }

    /// Returns a stream that may have something to write.
    pub fn poll_writable(&mut self) -> Option<ByteStreamId> {
        self.streams.poll_writable()
    }

    /// The stream is to be returned by [`Fallback::poll_writable`] again.
    pub fn mark_writable(&mut self, id: ByteStreamId) {
        self.streams.mark_writable(id);
    }

    /// Returns what is to be written to a stream now; the same until it was written. More follows
    /// once it was.
    pub fn poll_output(&mut self, id: ByteStreamId, now: Instant) -> Option<StreamOutput> {
        match self.streams.poll_output(id, now) {
            Ok(output) => output,
            Err(ended) => {
                self.on_ended(id, &ended, now);
                None
            }
        }
    }

    /// A stream took so many bytes of what [`Fallback::poll_output`] returned.
    pub fn handle_written(&mut self, id: ByteStreamId, count: usize) {
        self.streams.handle_written(id, count);
    }

    /// This side's direction of a stream is shut down.
    pub fn handle_shut_down(&mut self, id: ByteStreamId, now: Instant) {
        self.streams.handle_shut_down(id, now);
    }

    /// Ends every stream behind what is queued, soon; nothing is opened or accepted any more.
    pub fn finish(&mut self, now: Instant) {
        self.is_finished = true;
        self.relays.clear();
        self.streams.finish(now);
    }

    /// Returns whether there is no stream and nothing to do with one.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && !self.streams.has_work()
    }

    /// Returns whether [`Fallback::poll_action`] or [`Fallback::poll_writable`] has something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.streams.has_work()
    }

    /// Returns when [`Fallback::handle_timeout`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        let relays = self.relays.values().filter_map(FallbackRelay::deadline);
        let listener = self.listener.as_ref().and_then(Listener::deadline);
        let own = relays.chain(listener).min().map(|at| (at, Reason::Fallback));
        earliest([own, self.streams.deadline()])
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, ended)) = self.streams.poll_timeout(now) {
            self.on_ended(id, &ended, now);
        }
        for relay in self.relays.values_mut() {
            relay.handle_timeout(&mut self.streams, now);
        }
        if let Some(listener) = &mut self.listener {
            listener.handle_timeout(now);
        }
    }

    /// Drops a stream and notes it where it belongs.
    fn on_ended(&mut self, id: ByteStreamId, ended: &Ended, now: Instant) {
        let Some((owner, dropped)) = self.streams.remove(id) else { return };
        match owner {
            Owner::Relay(key) => {
                if let Some(relay) = self.relays.get_mut(&key) {
                    relay.handle_gone(id, dropped, ended, &mut self.streams, now);
                }
            }
            Owner::Client(address) => {
                tracing::debug!(%address, %ended, "a stream on TCP has ended");
                if let Some(listener) = &mut self.listener {
                    listener.handle_gone(address, dropped);
                }
            }
        }
    }
}

fn deliver(from: SocketAddr, datagrams: Vec<BytesMut>, sink: &mut dyn FnMut(Datagram)) {
    for payload in datagrams {
        sink(Datagram { route: Route::to(from), ecn: None, segment_size: 0, payload });
    }
}

#[cfg(test)]
mod tests;
