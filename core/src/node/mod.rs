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
mod routing;
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
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::State;
use crate::message::{ControlMessage, Goaway, Message, Register, ServiceName};
use crate::quic::{self, Endpoint};
use crate::request::{Offer, Request};
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, earliest};
use crate::tls::{Tls, TlsError};
use crate::transmit::{self, Datagram, Route, Transmit};
use io::Io;
use overlay::Overlay;
use peers::{CONTEXT_APPLICATION, Peers};
use relay_client::RelayClient;
use relay_server::RelayServer;
use requests::Requests;
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
    /// The drain time of a shutdown ends now: what is still under way is closed.
    DrainEnded,
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
        let now = self.io.clock.advance(now);
        match input {
            Input::Datagram(datagram) => self.on_datagram(datagram),
            Input::SendFailed { route, detail } => {
                self.io.quic.on_send_failed(route);
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
            Input::DrainEnded => self.io.shutdown.end_drain(now),
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

    /// Takes the address of a client on TCP of which the node has authenticated a packet, for
    /// [`Fallback::handle_authenticated`](crate::fallback::Fallback::handle_authenticated).
    pub fn poll_heard_by_tcp(&mut self) -> Option<SocketAddr> {
        self.io.quic.poll_heard_by_tcp()
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
            self.streams.deadline(self.io.now()),
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

    /// Brings the next attempt to connect to a peer forward, since a caller waits for it: it is made
    /// now, or 2 s after the attempt before it. For 10 s further attempts follow each other as fast.
    /// A pause that the peer asked for is kept. [`Node::open`] and [`Node::request`] do the same.
    pub fn dial_now(&mut self, peer: PeerId, now: Instant) {
        self.io.clock.advance(now);
        self.peers.on_demand(peer, &self.io);
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
        self.open_from(id, service, None)
    }

    /// Opens a stream as [`Node::open`] does, with a mark of what is forwarded
    /// (docs/protocol.md, "Streams").
    ///
    /// # Errors
    /// As [`Node::open`]; [`Misuse::InvalidName`] for a mark that is empty or too long.
    pub fn open_from(
        &mut self,
        id: PeerId,
        service: ServiceName,
        origin: Option<String>,
    ) -> Result<Option<StreamId>, Misuse> {
        self.peers.on_demand(id, &self.io);
        self.peers.may_open(id, &self.io)?;
        self.streams.open(id, (service, origin), &mut self.io)
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
        self.peers.on_demand(peer, &self.io);
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

    fn end(&mut self, peer: PeerId, failure: Failure) -> Result<(), Misuse> {
        if let Some(connection) = self.peers.end(peer, failure, &mut self.io)? {
            self.overlay.leave(connection, &self.io);
        }
        Ok(())
    }
}

fn framed(context: u8, data: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(data.len() + 1);
    framed.put_u8(context);
    framed.put_slice(data);
    framed.freeze()
}
