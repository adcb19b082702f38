//! The composition root: all protocol work on one UDP socket.
//!
//! A [`Node`] routes values between the transport, its owners and its caller. It has no policy: an
//! `if` about time, counts or scores belongs to an owner or to a machine of it.
//!
//! | owner | what it owns |
//! |---|---|
//! | `Peers` | who there is, their connections, certificates and control streams |
//! | `Streams` | every stream: its header, its reads and writes |
//! | `Requests` | queues, exchanges and their deadlines |
//! | `Overlay` | end-to-end connections, their paths, and this node's own addresses |
//! | `RelayClient` | what is registered and looked up at relays |
//! | `RelayServer` | the clients of a relay; what it decides, [`crate::relay`] |
//!
//! Each owner has its own fields and is called with `&mut Io`: the transport, the clock, the
//! configuration, and the queues of events and effects. No owner holds a reference to the node.
//! What one causes in another is an effect in a queue that the node alone drains, so that no method
//! reaches itself through others (`core/tests/recursion.rs`).
//!
//! The contract, as in any sans-IO machine: after every call drain [`Node::poll_output`] until it
//! returns `None`, then sleep until [`Node::deadline`] or the next input, whichever is first.

pub(crate) mod demux;
#[cfg(any(test, feature = "testing"))]
mod fault_injection;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod io;
mod overlay;
mod peers;
mod relay_client;
mod relay_server;
mod requests;
mod shutdown;
mod snapshot;
mod streams;

use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use rustls_pki_types::CertificateDer;

#[cfg(any(test, feature = "testing"))]
pub use fault_injection::FaultInjector;
pub use snapshot::{PeerSnapshot, Snapshot};
pub use streams::{StreamError, StreamRef};

use crate::clock::ClampedClock;
use crate::config::{Config, Dial};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::history::History;
use crate::id::{Channel, PeerId, RequestId, StreamId};
use crate::lifecycle::State;
use crate::message::{
    ControlMessage, Goaway, Matched, Message, Register, RelayMessage, ServiceName,
};
use crate::quic::{self, ConnectionId, Endpoint};
use crate::request::{Offer, Request};
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, earliest};
use crate::tls::{Tls, TlsError};
use crate::transmit::{self, Datagram, NextHop, Route, Transmit};
use demux::DatagramClass;
use io::{Effect, Io};
use overlay::Overlay;
use peers::{CONTEXT_APPLICATION, CONTEXT_CONTROL, Peers};
use relay_client::RelayClient;
use relay_server::RelayServer;
use requests::Requests;
use shutdown::Shutdown;
use snapshot::Parts;
use streams::Streams;

/// The inputs that a node takes from its environment at the start: from here on it is
/// deterministic.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// All the randomness that a node uses, except for TLS. Take it from the system; equal seeds
    /// make equal connection ids.
    pub seed: [u8; 32],
    /// Monotonic time.
    pub now: Instant,
    /// Time since the Unix epoch, against which certificates are checked.
    pub unix: Duration,
}

/// An input from outside the node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Datagrams arrived.
    Datagram(Datagram),
    /// The system failed to send a datagram.
    SendFailed {
        /// Where it was to go.
        route: Route,
        /// The system's reason, for a person.
        detail: String,
    },
    /// The addresses of this machine changed, or it moved to another network.
    NetworkChanged,
    /// The addresses of this machine on its networks, each with the port of the socket: all of
    /// them, whenever one changes. They are advertised to peers behind relays.
    LocalAddresses(Vec<SocketAddr>),
    /// The external addresses that a gateway maps to the socket: all of them, whenever one changes;
    /// an empty list withdraws them. They are advertised to peers behind relays. A gateway is not
    /// trusted: an address is used only after a peer's probe has arrived at it.
    MappedAddresses(Vec<SocketAddr>),
    /// The wall clock was set, or read again: time since the Unix epoch.
    Wall(Duration),
    /// A deadline passed, or may have. Early and repeated ticks are harmless.
    Tick,
}

/// An action that a node asks of its caller.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes, which are in the caller's buffer.
    Transmit(Transmit),
    /// Something happened.
    Event(Event),
}

/// All protocol work on one UDP socket, as a function of inputs and time.
pub struct Node {
    io: Io,
    peers: Peers,
    streams: Streams,
    requests: Requests,
    overlay: Overlay,
    relay_client: RelayClient,
    /// `None` unless this node is a relay.
    relay_server: Option<RelayServer>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peers", &self.peers.ids().count()).finish_non_exhaustive()
    }
}

impl Node {
    /// Returns a node without peers.
    ///
    /// # Errors
    /// [`TlsError`] when the identity, the trust or the provider cannot be used.
    pub fn new(config: Config, start: Start) -> Result<Self, TlsError> {
        let mut rng = Rng::new(start.seed, "node");
        let clock = ClampedClock::new(start.now, start.unix);
        let verifiers = config.tls.verifiers()?;
        let quic = Endpoint::new(&config, &verifiers, clock.wall(), &mut rng)?;
        let discovery = Rng::new(rng.seed(), "discovery");
        let relay_server = RelayServer::of(&config);
        Ok(Self {
            io: Io::new(quic, clock, config, rng),
            peers: Peers::new(verifiers),
            streams: Streams::default(),
            requests: Requests::default(),
            overlay: Overlay::new(discovery, start.now),
            relay_client: RelayClient::default(),
            relay_server,
        })
    }

    /// Sets how many datagrams one [`Output::Transmit`] may hold: what the socket takes in one
    /// call. The default is 1.
    pub const fn set_max_segments(&mut self, segments: usize) {
        self.io.quic.set_max_segments(segments);
    }

    /// Takes one input. It never fails: a peer cannot cause an error here.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.io.clock.advance(now);
        match input {
            Input::Datagram(datagram) => self.on_datagram(datagram),
            Input::SendFailed { route, detail } => {
                self.peers.on_send_failed(route, &detail, &mut self.io);
                self.overlay.on_send_failed(route, &mut self.io);
            }
            Input::NetworkChanged => {
                self.peers.on_network_changed(&mut self.io);
                self.overlay.on_network_changed(&mut self.io);
            }
            Input::LocalAddresses(addresses) => self.overlay.set_local(&addresses),
            Input::MappedAddresses(addresses) => self.overlay.set_mapped(&addresses),
            Input::Wall(unix) => self.io.clock.set_unix(unix),
            Input::Tick => {}
        }
        self.advance();
    }

    /// Returns the node's next output. Bytes to send are put into `out`, which is cleared first.
    pub fn poll_output(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<Output> {
        let now = self.io.clock.advance(now);
        loop {
            if let Some(event) = self.io.poll_event() {
                return Some(Output::Event(event));
            }
            out.clear();
            if let Some(transmit) = self.overlay.poll_transmit(out) {
                return Some(Output::Transmit(transmit));
            }
            if let Some(relay) = &mut self.relay_server {
                relay.feed_clients(&mut self.io);
            }
            if let Some(batch) = self.io.quic.poll_transmit(out, now) {
                let transmit = match transmit::overlay_id(&batch.transmit.route.remote) {
                    None => Some(batch.transmit),
                    Some(id) => self.overlay.dispatch(id, batch, out, &mut self.io),
                };
                match transmit {
                    Some(transmit) => return Some(Output::Transmit(transmit)),
                    None => continue,
                }
            }
            // Sending can end a connection: the consequences are sent before the node rests.
            self.settle();
            if !self.has_output() {
                return None;
            }
        }
    }

    /// Returns the next event alone, for a caller that leaves sending to another.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.io.poll_event()
    }

    /// Returns the node's next deadline, and its reason. It is due while output is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        if self.has_output() {
            return Some((self.io.now(), Reason::Output));
        }
        self.timer()
    }

    /// Returns the next timer alone, for a caller with a socket that accepts no more for now:
    /// pending output does not make it due.
    #[must_use]
    pub fn timer(&self) -> Option<Deadline> {
        earliest([
            self.io.quic.deadline(),
            self.peers.deadline(&self.io),
            self.streams.deadline(),
            self.requests.deadline(),
            self.overlay.deadline(),
            self.relay_client.deadline(),
            self.relay_server.as_ref().and_then(|relay| relay.deadline(self.io.now())),
            self.io.shutdown.deadline(),
        ])
    }

    /// Dials a peer, and dials it again whenever the connection is lost, until
    /// [`Node::disconnect`] or until its policy gives up.
    ///
    /// # Errors
    /// [`Misuse`] when the name or address cannot be dialled, there are too many peers, or the
    /// node is shutting down.
    pub fn dial(&mut self, dial: Dial, now: Instant) -> Result<PeerId, Misuse> {
        self.io.clock.advance(now);
        let id = self.peers.dial(dial, &mut self.io)?;
        self.settle();
        Ok(id)
    }

    /// Replaces the dial's own identity and trust, which it uses instead of the node's, for the
    /// connections that are made from here on.
    ///
    /// # Errors
    /// [`Misuse::UnknownPeer`] when there is no such peer, [`Misuse::UnusableIdentity`] when the
    /// identity cannot be used.
    pub fn set_dial_tls(&mut self, peer: PeerId, tls: &Tls) -> Result<(), Misuse> {
        self.peers.set_dial_tls(peer, tls, &self.io)
    }

    /// Dials a failed peer again.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] unless it had failed.
    pub fn reconnect(&mut self, peer: PeerId, now: Instant) -> Result<(), Misuse> {
        self.io.clock.advance(now);
        self.peers.reconnect(peer, &mut self.io)?;
        self.settle();
        Ok(())
    }

    /// Ends a peer: closes its connection, fails its requests, and removes it.
    ///
    /// # Errors
    /// [`Misuse::UnknownPeer`] when there is no such peer.
    pub fn disconnect(&mut self, peer: PeerId, now: Instant) -> Result<(), Misuse> {
        self.io.clock.advance(now);
        self.end(peer, Failure::new(Code::Closed, "closed by this side"))?;
        self.settle();
        Ok(())
    }

    /// Replaces the identity and the trust while running. Handshakes from now on use them. Existing
    /// connections keep the identity with which they were made, unless the new trust does not
    /// accept their peer: these are closed with `unauthenticated`, in the turns that follow.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; the node is then unchanged.
    pub fn set_tls(&mut self, tls: Tls, now: Instant) -> Result<(), TlsError> {
        self.io.clock.advance(now);
        self.peers.set_tls(tls, &mut self.io)?;
        self.advance();
        Ok(())
    }

    /// Records that a peer which dialled this node has another certificate, as after a renewal:
    /// from now on its connection may last until that one expires.
    ///
    /// # Errors
    /// The reason when the certificate is not valid, or not that peer's. The node is then
    /// unchanged.
    pub fn renew_credential(
        &mut self,
        id: PeerId,
        chain: Vec<CertificateDer<'static>>,
        now: Instant,
    ) -> Result<(), Failure> {
        self.io.clock.advance(now);
        self.peers.renew_credential(id, chain, &self.io)
    }

    /// Returns the lifecycle state of a peer.
    #[must_use]
    pub fn state(&self, peer: PeerId) -> Option<&State> {
        self.peers.state(peer)
    }

    /// Returns the last lifecycle events of all peers.
    #[must_use]
    pub const fn history(&self) -> &History {
        self.peers.history()
    }

    /// Offers services through every relay that this node has dialled or will dial, in place of its
    /// earlier offer; `None` withdraws every offer. [`Event::Registered`] and
    /// [`Event::Unregistered`] report whether a relay accepts it. The node sets
    /// [`Register::takeover`] itself.
    pub fn register(&mut self, offer: Option<Register>, now: Instant) {
        self.io.clock.advance(now);
        self.relay_client.register(offer, &mut self.io);
        self.settle();
    }

    /// Opens a stream to a service of a peer. `Ok(None)` means that the peer allows no more for
    /// now and [`Event::StreamsAvailable`] follows.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] without a connection, [`Misuse::ShuttingDown`] when either side is
    /// shutting down.
    pub fn open(&mut self, id: PeerId, service: ServiceName) -> Result<Option<StreamId>, Misuse> {
        self.peers.may_open(id, &self.io)?;
        self.streams.open(id, service, &mut self.io)
    }

    /// Accepts a stream that was offered: from here on its bytes are the caller's.
    ///
    /// # Errors
    /// [`Misuse::UnknownStream`] when it no longer exists, [`Misuse::WrongState`] when it was not
    /// offered.
    pub fn accept_stream(&mut self, id: StreamId) -> Result<(), Misuse> {
        self.streams.accept(id, &mut self.io)
    }

    /// Refuses a stream that was offered, with a reason that the peer gets.
    ///
    /// # Errors
    /// [`Misuse::UnknownStream`] when it no longer exists, [`Misuse::WrongState`] when it was not
    /// offered.
    pub fn refuse_stream(&mut self, id: StreamId, failure: &Failure) -> Result<(), Misuse> {
        let refused = self.streams.refuse_offered(id, failure, &mut self.io);
        self.settle_effects();
        refused
    }

    /// Returns a stream, for reading and writing. Calls on a stream that no longer exists return
    /// the reason.
    pub const fn stream(&mut self, id: StreamId) -> StreamRef<'_> {
        StreamRef { node: self, id }
    }

    /// Makes a request. Without a connection it waits for one, within its deadline.
    /// [`Event::RequestProgressed`] means that [`Node::response`] has data.
    ///
    /// # Errors
    /// [`Misuse::OverLimit`] when the body is over 10 MiB, the queue is full, or the deadline is
    /// later than time can be represented; [`Misuse::WrongState`] when the peer has failed;
    /// [`Misuse::ShuttingDown`].
    pub fn request(
        &mut self,
        peer: PeerId,
        request: Request,
        now: Instant,
    ) -> Result<RequestId, Misuse> {
        self.io.clock.advance(now);
        self.peers.may_request(peer, &self.io)?;
        let id = self.requests.push(peer, request, &self.io)?;
        self.flush_requests(peer);
        self.settle();
        Ok(id)
    }

    /// Returns the next part of the answer to a request of ours. `None` is its end. After the end
    /// or a failure the request is removed. `Pending` means that [`Event::RequestProgressed`]
    /// follows.
    ///
    /// # Errors
    /// The [`Failure`] of the request, once.
    pub fn response(&mut self, id: RequestId) -> Poll<Result<Option<Bytes>, Failure>> {
        let response = self.requests.response(id, &mut self.streams, &mut self.io);
        self.settle_effects();
        response
    }

    /// Cancels a request, this node's or a peer's, and notifies the other side.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when there is no such request.
    pub fn cancel(&mut self, id: RequestId) -> Result<(), Misuse> {
        let cancelled = self.requests.cancel(id, &mut self.streams, &mut self.io);
        self.settle_effects();
        cancelled
    }

    /// Returns the content of a peer's request. It can be taken once.
    pub fn offer(&mut self, id: RequestId) -> Option<Offer> {
        self.requests.offer(id)
    }

    /// Returns true if a peer's request has not been taken yet.
    #[must_use]
    pub fn is_offered(&self, id: RequestId) -> bool {
        self.requests.is_offered(id)
    }

    /// Answers a peer's request whole.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when the peer has cancelled it, [`Misuse::OverLimit`] above 10
    /// MiB, [`Misuse::WrongState`] when it was answered before.
    pub fn respond(&mut self, id: RequestId, body: Bytes) -> Result<(), Misuse> {
        let responded = self.requests.respond(id, body, &mut self.streams, &mut self.io);
        self.settle_effects();
        responded
    }

    /// Adds a chunk to a streamed answer. `Pending` means that the chunk was not taken:
    /// [`Event::RequestProgressed`] follows when the peer has read.
    ///
    /// # Errors
    /// As [`Node::respond`].
    pub fn respond_chunk(
        &mut self,
        id: RequestId,
        body: Bytes,
        is_final: bool,
    ) -> Poll<Result<(), Misuse>> {
        let (streams, io) = (&mut self.streams, &mut self.io);
        let responded = self.requests.respond_chunk(id, body, is_final, streams, io);
        self.settle_effects();
        responded
    }

    /// Answers a peer's request with a failure.
    ///
    /// # Errors
    /// As [`Node::respond`].
    pub fn fail(&mut self, id: RequestId, failure: &Failure) -> Result<(), Misuse> {
        let failed = self.requests.fail(id, failure, &mut self.streams, &mut self.io);
        self.settle_effects();
        failed
    }

    /// Sends a datagram: it arrives once, or not at all.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] without a connection; [`Misuse::OverLimit`] when it is larger than
    /// [`Node::max_datagram`].
    pub fn send_datagram(&mut self, id: PeerId, data: &[u8]) -> Result<(), Misuse> {
        self.peers.state(id).ok_or(Misuse::UnknownPeer)?;
        let connection = self.peers.link(id).ok_or(Misuse::NotConnected)?;
        let framed = framed(CONTEXT_APPLICATION, data);
        self.io.on(connection, |c| c.send_datagram(framed)).ok_or(Misuse::NotConnected)?
    }

    /// Returns the next datagram received from a peer.
    pub fn recv_datagram(&mut self, id: PeerId) -> Option<Bytes> {
        self.peers.pop_datagram(id)
    }

    /// Returns the size of the largest datagram that the path to a peer carries now.
    pub fn max_datagram(&mut self, id: PeerId) -> Option<usize> {
        let connection = self.peers.link(id)?;
        self.io.on(connection, quic::Connection::max_datagram)??.checked_sub(1)
    }

    /// Shuts the node down: no new peers, streams or requests; peers are notified; work in progress
    /// may finish within the configured drain time; then every connection is closed and
    /// [`Event::ShutDown`] follows.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.io.clock.advance(now);
        if self.io.shutdown.is_under_way() {
            return;
        }
        self.io.shutdown.begin(now + self.io.config.drain, now);
        self.io.quic.stop_accepting();
        let mut why = Failure::new(Code::ShuttingDown, "shutting down");
        if let Some(relay) = &mut self.relay_server {
            why = why.with_retry_after(relay.drain());
        }
        // A peer without work in progress is closed now, with the same reason.
        for peer in self.peers.ids().filter(|id| !self.is_quiet(*id)).collect::<Vec<_>>() {
            self.io.send(peer, Message::Control(ControlMessage::Goaway(Goaway::from(&why))));
        }
        self.settle();
        self.advance();
    }

    /// Returns true if a shutdown was requested and every peer is closed. The remaining output
    /// notifies the peers, so drain the outputs before the socket is closed.
    #[must_use]
    pub const fn is_shut_down(&self) -> bool {
        self.io.shutdown.is_over()
    }

    /// Returns true if the shutdown is complete and every peer was notified, as far as this side
    /// can do so. The driver can stop then.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_shut_down() && !self.io.quic.is_sending() && !self.io.quic.is_closing()
    }

    /// Returns all statistics, with ages as of the latest time that the node received.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(self.io.now())
    }

    /// Returns all statistics, with ages as of `now`: an idle node receives no time until a
    /// heartbeat is due.
    #[must_use]
    pub fn snapshot_at(&self, now: Instant) -> Snapshot {
        Snapshot {
            connections: self.io.quic.len(),
            handshakes: self.io.quic.admission(),
            mapping: self.overlay.mapping(),
            relay: self.relay_server.as_ref().map(|relay| relay.view(now)),
            peers: self.peers.ids().filter_map(|id| self.peer_snapshot_at(id, now)).collect(),
        }
    }

    /// Returns the statistics of one peer, as in [`Node::snapshot`].
    #[must_use]
    pub fn peer_snapshot(&self, id: PeerId) -> Option<PeerSnapshot> {
        self.peer_snapshot_at(id, self.io.now())
    }

    /// Returns the statistics of one peer, as in [`Node::snapshot_at`].
    #[must_use]
    pub fn peer_snapshot_at(&self, id: PeerId, now: Instant) -> Option<PeerSnapshot> {
        let connection = self.peers.connection(id);
        let parts = Parts {
            is_registered: self.relay_client.is_registered(id),
            path: connection.and_then(|connection| self.overlay.view(connection, now)),
            requests: self.requests.counts(id),
            streams: self.streams.count(id),
            held_bytes: self.streams.held_bytes(id),
            now,
        };
        self.peers.describe(id, parts, &self.io)
    }

    /// Passes each packet of a batch to its owner.
    fn on_datagram(&mut self, mut datagram: Datagram) {
        if transmit::overlay_id(&datagram.route.remote).is_some() {
            return;
        }
        let (route, ecn, segment_size) = (datagram.route, datagram.ecn, datagram.segment_size);
        let (via, size) = (NextHop::Direct(route), demux::segment(&datagram));
        while let Some((class, payload)) =
            demux::split_run(&mut datagram, &self.io.quic, &self.overlay)
        {
            match class {
                DatagramClass::Probe => {
                    payload.chunks(size).for_each(|one| self.on_probe(route, one))
                }
                DatagramClass::Overlay(id) => {
                    self.overlay.on_packets(id, via, (payload, segment_size, ecn), &mut self.io);
                }
                DatagramClass::Direct => {
                    let (batch, now) =
                        (Datagram { route, ecn, segment_size, payload }, self.io.now());
                    self.io.quic.handle_datagram(batch, now);
                }
            }
        }
    }

    /// Handles a probe on the socket: a peer's, a relay's, or a question to this node as a relay.
    fn on_probe(&mut self, route: Route, bytes: &[u8]) {
        let is_known = self.overlay.on_probe(NextHop::Direct(route), bytes, &mut self.io);
        if let (false, Some(relay)) = (is_known, &self.relay_server)
            && let Some(answer) = relay.answer_discovery(route, bytes)
        {
            self.overlay.push(route, answer, None);
        }
    }

    /// Does all work that is due, and its consequences.
    fn advance(&mut self) {
        let now = self.io.now();
        self.io.quic.handle_timeout(now);
        self.settle();
        while let Some(peer) = self.peers.pop_due(now) {
            self.peers.on_due(peer, &mut self.io);
            self.settle();
        }
        while let Some(peer) = self.streams.pop_due(now) {
            self.streams.on_due(peer, &mut self.io);
        }
        self.requests.on_due(now, &mut self.streams, &mut self.io);
        self.overlay.advance(&mut self.io);
        self.relay_client.advance(now, &self.overlay, &mut self.io);
        if let Some(relay) = &mut self.relay_server {
            relay.advance(&mut self.io);
        }
        self.peers.advance_certificates(&mut self.io);
        self.settle();
        self.advance_shutdown(now);
    }

    fn has_output(&self) -> bool {
        self.io.has_events()
            || self.io.has_effects()
            || self.io.quic.is_sending()
            || self.overlay.is_sending()
    }

    /// Carries out every effect and routes every event of the transport, in order.
    fn settle(&mut self) {
        loop {
            self.settle_effects();
            let Some((connection, event)) = self.io.quic.poll_event() else { return };
            self.on_transport_event(connection, event);
        }
    }

    /// Carries out every effect. No effect calls this method again.
    fn settle_effects(&mut self) {
        while let Some(effect) = self.io.poll_effect() {
            self.apply(effect);
        }
    }

    /// Passes an effect to the owners that it concerns.
    fn apply(&mut self, effect: Effect) {
        let (streams, io) = (&mut self.streams, &mut self.io);
        match effect {
            Effect::Send { peer, message } => self.peers.send(peer, &message, io),
            Effect::Close { peer, failure } => {
                if let Some(connection) = self.peers.close(peer, &failure, io) {
                    self.overlay.leave(connection, io);
                    self.peers.on_lost(peer, connection, failure, io);
                }
            }
            Effect::AttemptStarted { peer } => {
                if let Some(service) = self.peers.service(peer) {
                    self.relay_client.look_up(peer, service, &self.overlay, io);
                }
            }
            Effect::AttemptFailed { peer } => self.relay_client.on_peer_down(peer),
            Effect::LookupOverdue { peer } => {
                if let Some(failure) = self.relay_client.verdict(peer) {
                    self.peers.on_not_found(peer, failure, io);
                }
            }
            Effect::Up { peer } => self.on_up(peer),
            Effect::Down { peer, connection, failure } => self.on_down(peer, connection, failure),
            Effect::Redial { peer, failure } => self.peers.on_link_lost(peer, failure, io),
            Effect::GaveUp { peer, failure } => {
                self.requests.fail_queued(peer, &failure, streams, io);
                self.peers.on_gave_up(peer, failure, io);
            }
            Effect::Remove { peer, failure } => {
                self.requests.fail_queued(peer, &failure, streams, io);
                self.requests.forget(peer);
                streams.forget(peer);
                self.relay_client.forget(peer);
                self.peers.remove(peer, failure, io);
            }
            Effect::Refused { connection } => self.overlay.on_gone(connection, io),
            Effect::RequestArrived { stream, request } => {
                self.requests.on_arrived(stream, request, streams, io);
            }
            Effect::BodyReleased { peer } => streams.on_body_released(peer, io),
            Effect::AddressChanged { relay } => {
                let now = io.now();
                let others = self.relay_client.others(relay);
                for connection in others.into_iter().filter_map(|id| self.peers.link(id)) {
                    io.quic.with(connection, now, quic::Connection::ping);
                }
            }
        }
    }

    /// Passes an event of the transport to the owner that it concerns. A connection has no owner
    /// before its handshake is confirmed, and after this side closed it.
    fn on_transport_event(&mut self, connection: ConnectionId, event: quic::ConnectionEvent) {
        let io = &mut self.io;
        let Some(peer) = self.peers.on(connection) else {
            match event {
                quic::ConnectionEvent::Connected => self.peers.on_accepted(connection, io),
                quic::ConnectionEvent::Rejected(remote, failure) => {
                    self.on_rejected(connection, remote, failure)
                }
                quic::ConnectionEvent::Lost(_) => self.overlay.on_gone(connection, io),
                quic::ConnectionEvent::Opened
                | quic::ConnectionEvent::Available
                | quic::ConnectionEvent::Readable(_)
                | quic::ConnectionEvent::Writable(_)
                | quic::ConnectionEvent::Finished(_)
                | quic::ConnectionEvent::Stopped(..)
                | quic::ConnectionEvent::Moved(_)
                | quic::ConnectionEvent::Datagrams => {}
            }
            return;
        };
        match event {
            quic::ConnectionEvent::Connected => self.peers.on_dialled(peer, connection, io),
            quic::ConnectionEvent::Rejected(remote, failure) => {
                self.on_rejected(connection, remote, failure)
            }
            quic::ConnectionEvent::Lost(failure) => {
                self.peers.on_gone(connection);
                self.peers.on_lost(peer, connection, failure, io);
                self.overlay.on_gone(connection, io);
            }
            quic::ConnectionEvent::Moved(remote) => {
                if let Some(relay) = &mut self.relay_server {
                    relay.on_moved(peer, remote);
                }
            }
            quic::ConnectionEvent::Opened => self.on_streams_opened(peer),
            quic::ConnectionEvent::Available => {
                self.flush_requests(peer);
                self.io.emit(Event::StreamsAvailable { peer });
            }
            quic::ConnectionEvent::Readable(index) if self.peers.is_control(peer, index) => {
                self.read_control(peer);
            }
            quic::ConnectionEvent::Readable(index) => self.streams.on_readable(peer, index, io),
            quic::ConnectionEvent::Writable(index) if self.peers.is_control(peer, index) => {
                self.peers.flush_control(peer, io);
            }
            quic::ConnectionEvent::Writable(index) => {
                if let Some(request) = self.streams.on_writable(peer, index, io) {
                    self.requests.write(request, &mut self.streams, io);
                }
            }
            quic::ConnectionEvent::Finished(index) => self.streams.on_finished(peer, index, io),
            quic::ConnectionEvent::Stopped(index, code) => {
                if let Some(request) = self.streams.on_stopped(peer, index, code, io) {
                    self.requests.on_stopped(request, &mut self.streams, io);
                }
            }
            quic::ConnectionEvent::Datagrams => self.on_datagrams(peer),
        }
    }

    /// Handles the failure of a handshake that another node began.
    fn on_rejected(&mut self, connection: ConnectionId, remote: SocketAddr, failure: Failure) {
        self.overlay.on_gone(connection, &mut self.io);
        tracing::debug!(%remote, %failure, "a handshake failed");
        self.io.reject(remote, failure);
    }

    fn on_up(&mut self, peer: PeerId) {
        let Some(connection) = self.peers.link(peer) else { return };
        let client = self.relay_server.as_mut().filter(|_| !self.peers.is_dialled(peer));
        self.streams.on_up(peer, connection, client.is_none());
        let remote = self.io.quic.get(connection).map(quic::Connection::remote);
        if let (Some(relay), Some(credential), Some(remote)) =
            (client, self.peers.credential(peer), remote)
        {
            relay.on_up(peer, connection, credential, remote);
        }
        if let Some(credential) = self.peers.credential(peer) {
            self.relay_client.on_found(peer, credential.key);
        }
        self.overlay.on_up(connection, peer, &mut self.io);
        if self.peers.is_relay(peer) {
            self.overlay.on_relay_up(peer, connection);
            self.relay_client.on_relay_up(peer, &self.overlay, &mut self.io);
        }
        self.flush_requests(peer);
        self.on_streams_opened(peer);
        self.on_datagrams(peer);
    }

    fn on_down(&mut self, peer: PeerId, connection: ConnectionId, failure: Failure) {
        let io = &mut self.io;
        self.overlay.on_gone(connection, io);
        self.relay_client.on_peer_down(peer);
        if let Some(relay) = &mut self.relay_server {
            relay.on_down(peer);
        }
        if self.peers.is_relay(peer) {
            self.relay_client.on_relay_down(peer, io);
            self.overlay.on_relay_down(peer, io);
        }
        self.streams.on_down(peer, failure.clone());
        self.requests.on_down(peer, &failure, &mut self.streams, io);
    }

    fn flush_requests(&mut self, peer: PeerId) {
        if self.peers.takes_requests(peer) {
            self.requests.flush(peer, &mut self.streams, &mut self.io);
        }
    }

    fn on_streams_opened(&mut self, peer: PeerId) {
        while let Some(connection) = self.peers.link(peer) {
            let accepted = self.io.on(connection, quic::Connection::accept).flatten();
            let Some(index) = accepted else { return };
            if self.peers.is_control(peer, index) {
                self.read_control(peer);
            } else {
                self.streams.on_opened(peer, index, &mut self.io);
            }
        }
    }

    fn read_control(&mut self, peer: PeerId) {
        while let Some(message) = self.peers.poll_control(peer, &mut self.io) {
            self.on_message(peer, message);
        }
    }

    /// Passes each datagram of a connection to the owner that its first byte names. Between a relay
    /// and its clients, datagrams carry packets of other peers instead of an application's data.
    fn on_datagrams(&mut self, peer: PeerId) {
        let Some(connection) = self.peers.link(peer) else { return };
        let (is_relay, mut is_news) = (self.peers.is_relay(peer), false);
        let is_registered = self.relay_client.is_registered(peer);
        let is_client = self.relay_server.is_some() && !self.peers.is_dialled(peer);
        let now = self.io.now();
        while let Some(data) = self.io.on(connection, quic::Connection::recv_datagram).flatten() {
            match (data.first(), &mut self.relay_server) {
                (Some(&CONTEXT_CONTROL), _) => {
                    let data = data.slice(1..);
                    if let Some(message) = self.peers.on_control_datagram(peer, data, &mut self.io)
                    {
                        self.on_message(peer, message);
                    }
                }
                (_, Some(relay)) if is_client => relay.forward(peer, &data, now),
                (_, _) if is_relay => {
                    self.overlay.on_encapsulated(peer, data, is_registered, &mut self.io);
                }
                (Some(&CONTEXT_APPLICATION), _) => {
                    self.peers.push_datagram(peer, &data[1..], &self.io);
                    is_news = true;
                }
                (Some(_) | None, _) => {}
            }
        }
        if is_news {
            self.io.emit(Event::DatagramReceived { peer });
        }
    }

    /// Passes a control message to the owner that it concerns.
    fn on_message(&mut self, peer: PeerId, message: Message) {
        let (is_dialled, io) = (self.peers.is_dialled(peer), &mut self.io);
        match (message, &mut self.relay_server) {
            (Message::Control(message), _) => self.on_control_message(peer, message),
            (Message::Relay(message), _) if self.peers.is_relay(peer) => {
                self.on_relay_message(peer, message);
            }
            (message @ Message::Relay(_), Some(relay)) if !is_dialled => {
                relay.on_message(peer, &message, io.now());
            }
            (Message::Relay(_) | Message::Stream(_) | Message::Cloud(_), _) => misplaced(peer, io),
        }
    }

    fn on_control_message(&mut self, peer: PeerId, message: ControlMessage) {
        let io = &mut self.io;
        match message {
            ControlMessage::Heartbeat(_) if self.peers.is_dialled(peer) => misplaced(peer, io),
            ControlMessage::Heartbeat(beat) => {
                self.peers.on_heartbeat(peer, &beat, self.requests.queued(peer), io);
            }
            ControlMessage::HeartbeatAck(ack) => {
                self.peers.on_heartbeat_ack(peer, ack.sequence, io);
            }
            ControlMessage::Goaway(goaway) => self.peers.on_goaway(peer, &goaway, io),
            ControlMessage::PrewarmSignal(_) => {}
            ControlMessage::Candidates(candidates) => {
                if let Some(connection) = self.peers.link(peer) {
                    self.overlay.on_candidates(connection, &candidates, io);
                }
            }
        }
    }

    /// Passes a message of a relay that this node uses to the owner that it concerns.
    fn on_relay_message(&mut self, relay: PeerId, message: RelayMessage) {
        let io = &mut self.io;
        match message {
            RelayMessage::Welcome(welcome) => self.overlay.on_welcome(relay, &welcome, io),
            RelayMessage::Registered(it) => self.relay_client.on_registered(relay, &it, io),
            RelayMessage::Unregistered(it) => self.relay_client.on_unregistered(relay, &it, io),
            RelayMessage::Matched(matched) => self.on_matched(relay, &matched),
            RelayMessage::Unmatched(unmatched) => {
                let verdict = self.relay_client.on_unmatched(relay, &unmatched, io);
                if let Some((peer, failure)) = verdict {
                    self.peers.on_not_found(peer, failure, io);
                }
            }
            RelayMessage::Incoming(it) => self.overlay.on_incoming(relay, &it, io),
            RelayMessage::Hangup(hangup) => {
                let channel = Channel { relay, number: hangup.channel };
                tracing::debug!(%channel, why = %hangup.to_failure(), "a channel is over");
                if let Some(peer) = self.overlay.drop_channel(channel, io) {
                    self.relay_client.on_channel_lost(peer, relay, io);
                }
            }
            RelayMessage::Register(_) | RelayMessage::Withdraw(_) | RelayMessage::Connect(_) => {
                misplaced(relay, io);
            }
        }
    }

    /// Handles a service that a relay found: the channel goes to the peer that it was looked up
    /// for.
    fn on_matched(&mut self, relay: PeerId, matched: &Matched) {
        let (channel, io) = (Channel { relay, number: matched.channel }, &mut self.io);
        let Some(peer) = self.relay_client.on_matched(relay, matched, io) else {
            return overlay::hang_up(channel, &relay_client::unwanted(), io);
        };
        let connection = self.peers.connection(peer);
        if let Some(id) = connection.and_then(|connection| self.overlay.by_connection(connection)) {
            return self.overlay.add_channel(id, channel, io);
        }
        let Some(name) = self.peers.awaited_name(peer) else {
            return overlay::hang_up(channel, &relay_client::unwanted(), io);
        };
        match self.overlay.dial(peer, channel, &name, io) {
            Ok(connection) => {
                self.peers.set_attempt(peer, connection);
                self.relay_client.set_connection(peer, connection);
            }
            Err(misuse) => {
                let failure = Failure::new(Code::Misconfigured, misuse.to_string());
                self.peers.on_not_found(peer, failure, io);
            }
        }
    }

    fn end(&mut self, peer: PeerId, failure: Failure) -> Result<(), Misuse> {
        if let Some(connection) = self.peers.end(peer, failure, &mut self.io)? {
            self.overlay.leave(connection, &self.io);
        }
        Ok(())
    }

    /// Ends the peers without work in progress, once a shutdown has begun.
    fn advance_shutdown(&mut self, now: Instant) {
        let Some(is_over) = self.io.shutdown.poll(now) else { return };
        let (relays, others): (Vec<_>, Vec<_>) =
            self.peers.ids().partition(|id| self.peers.is_relay(*id));
        // A relay carries the closing messages of the others: its connection is closed last.
        let are_alone = others.is_empty() && !relays.is_empty() && !self.is_sending_to_relays();
        let mut ended: Vec<_> =
            others.into_iter().filter(|id| is_over || self.is_quiet(*id)).collect();
        if is_over || are_alone {
            ended.extend(relays);
        }
        for id in ended {
            let failure = Failure::new(Code::ShuttingDown, "shutting down");
            // It is in the list that was just made.
            let _ = self.end(id, failure);
        }
        self.settle();
        if self.peers.ids().next().is_none() {
            self.io.shutdown = Shutdown::Done;
            self.io.emit(Event::ShutDown);
        }
    }

    /// Returns true if a closed connection still has packets to send through a relay.
    fn is_sending_to_relays(&mut self) -> bool {
        let waits = |id| {
            let connection = self.peers.link(id);
            connection.is_some_and(|it| self.io.quic.datagrams_waiting(it) > 0)
        };
        self.peers.ids().any(waits) || self.io.quic.is_closing()
    }

    fn is_quiet(&self, peer: PeerId) -> bool {
        let is_forwarded = |relay: &RelayServer| relay.has_channels(peer);
        self.requests.queued(peer) == 0
            && self.streams.count(peer) == 0
            && !self.relay_server.as_ref().is_some_and(is_forwarded)
    }
}

/// Returns the class of a datagram, and its bytes./// Closes the connection of a peer that sent a message which is not for its control stream.
fn misplaced(peer: PeerId, io: &mut Io) {
    let sentence = "a message that does not belong on the control stream";
    let failure = Failure::new(Code::ProtocolViolation, sentence);
    io.effect(Effect::Close { peer, failure });
}

fn framed(context: u8, data: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(data.len() + 1);
    framed.put_u8(context);
    framed.put_slice(data);
    framed.freeze()
}
