//! The composition root: everything that happens on one UDP socket.
//!
//! A [`Node`] routes values between the transport, its peers' machines and its caller. It holds no
//! policy: an `if` about time, counts or scores belongs to the machine it asks.
//!
//! The contract, as in any sans-IO machine: after every call drain [`Node::poll_output`] until it
//! gives `None`, then sleep until [`Node::deadline`] or the next input, whichever is first.
//!
//! | to change | look in |
//! |---|---|
//! | how a connection comes and goes | `link.rs` |
//! | how a stream begins | `opening.rs`; what its first frames mean, `streams.rs` |
//! | how a stream is read and written | `stream.rs` |
//! | requests | `exchange.rs` (ours), `offers.rs` (a peer's), machines in [`crate::request`] |
//! | heartbeats, goodbyes, datagrams | `signalling.rs`, `control.rs`; schedule in [`crate::heartbeat`] |
//! | how long a certificate is believed | `credentials.rs` |
//! | who hears of a transport event | `routing.rs`, and `link.rs` for connections |
//! | whose a datagram is | `demux.rs` |
//! | how end-to-end packets travel | `ways.rs`, `carriage.rs`; which path they take, [`crate::path`] |
//! | which addresses are told to peers | `candidates.rs` |
//! | what is asked of relays | `attach.rs`; when, `crate::relay_client` |
//! | what a relay does | `serving.rs`; what it decides, [`crate::relay`] |

mod attach;
#[cfg(feature = "testing")]
mod audit;
mod candidates;
mod carriage;
mod control;
mod credentials;
pub(crate) mod demux;
mod exchange;
mod link;
#[cfg(feature = "testing")]
mod meddling;
mod offers;
mod opening;
mod peer;
mod routing;
mod serving;
mod shutdown;
mod signalling;
mod snapshot;
mod stream;
mod streams;
mod ways;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
pub use meddling::Meddler;
pub use snapshot::{PeerSnapshot, Snapshot};
pub use stream::{StreamError, StreamRef};

use crate::clock::Clock;
use crate::config::{Config, Dial};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::history::{History, Kind, Record};
use crate::id::{PeerId, RequestId};
use crate::lifecycle::{State, Transition};
use crate::path::AddressDiscovery;
use crate::quic::{ConnectionId, Endpoint};
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::tls::{TlsError, Verifiers};
use crate::transmit::{self, Datagram, Route, Transmit};
use attach::Attached;
use credentials::Expiries;
use exchange::Exchange;
use peer::Peer;
use serving::Serving;
use shutdown::Shutdown;
use ways::Ways;

/// The impure part of a node's beginning: from here on everything follows from its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// All the randomness a node will ever use, TLS's own aside. Take it from the system; equal
    /// seeds make equal connection ids.
    pub seed: [u8; 32],
    /// Monotonic time.
    pub now: Instant,
    /// Time since the Unix epoch, against which certificates are checked.
    pub unix: Duration,
}

/// What happened outside.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Datagrams arrived.
    Datagram(Datagram),
    /// The system would not send there.
    SendFailed {
        /// Where to.
        route: Route,
        /// What it said, for a person.
        detail: String,
    },
    /// The addresses of this machine changed, or it moved to another network.
    NetworkChanged,
    /// Where this machine can be reached on the networks that it is on, each with the port of the
    /// socket: all of them, whenever one changes. Peers behind relays are told.
    LocalAddresses(Vec<SocketAddr>),
    /// The addresses outside that a gateway maps to the socket: all of them, whenever one changes;
    /// none takes them away. Peers behind relays are told. Whoever says so is not trusted: an address
    /// counts for nothing until a peer's probe has come by it.
    MappedAddresses(Vec<SocketAddr>),
    /// The wall clock was set, or read again: time since the Unix epoch.
    Wall(Duration),
    /// A deadline passed, or may have. Early and repeated ticks are harmless.
    Tick,
}

/// What a node wants.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes, which are in the caller's buffer.
    Transmit(Transmit),
    /// Know this.
    Event(Event),
}

/// Everything that happens on one UDP socket, as a function of inputs and time.
pub struct Node {
    config: Config,
    clock: Clock,
    rng: Rng,
    endpoint: Endpoint,
    peers: BTreeMap<PeerId, Peer>,
    by_connection: BTreeMap<ConnectionId, PeerId>,
    next_peer: u64,
    exchanges: BTreeMap<RequestId, Exchange>,
    next_request: u64,
    peer_timers: Timers<PeerId>,
    attached: Attached,
    ways: Ways,
    discovery: AddressDiscovery,
    /// The revision of what was discovered that the ways know.
    discovered: u64,
    /// What a relay decides, if this node is one.
    serving: Option<Serving>,
    verifiers: Verifiers,
    expiries: Expiries,
    request_timers: Timers<RequestId>,
    events: VecDeque<Event>,
    history: History,
    shutdown: Shutdown,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Node {
    /// A node with no peers.
    ///
    /// # Errors
    /// [`TlsError`] when the identity, the trust or the provider cannot be used.
    pub fn new(config: Config, start: Start) -> Result<Self, TlsError> {
        let mut rng = Rng::new(start.seed, "node");
        let clock = Clock::new(start.now, start.unix);
        let verifiers = config.tls.verifiers()?;
        let endpoint = Endpoint::new(&config, &verifiers, clock.wall(), &mut rng)?;
        Ok(Self {
            clock,
            endpoint,
            peers: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            next_peer: 0,
            exchanges: BTreeMap::new(),
            next_request: 0,
            peer_timers: Timers::new(),
            attached: Attached::default(),
            ways: Ways::default(),
            discovery: AddressDiscovery::new(Rng::new(rng.seed(), "discovery"), start.now),
            discovered: 0,
            serving: Serving::of(&config),
            verifiers,
            expiries: Expiries::default(),
            request_timers: Timers::new(),
            events: VecDeque::new(),
            history: History::default(),
            shutdown: Shutdown::default(),
            config,
            rng,
        })
    }

    /// How many datagrams one [`Output::Transmit`] may hold: what the socket takes at once, 1
    /// unless told otherwise.
    pub const fn set_max_segments(&mut self, segments: usize) {
        self.endpoint.set_max_segments(segments);
    }

    /// Takes one input. It never fails: a peer cannot cause an error here.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let now = self.clock.advance(now);
        match input {
            Input::Datagram(datagram) => self.on_datagram(datagram, now),
            Input::SendFailed { route, detail } => self.on_send_failed(route, &detail, now),
            Input::NetworkChanged => self.on_network_changed(now),
            Input::LocalAddresses(addresses) => self.discovery.set_local(&addresses),
            Input::MappedAddresses(addresses) => self.discovery.set_mapped(&addresses),
            Input::Wall(unix) => self.clock.set_unix(unix),
            Input::Tick => {}
        }
        self.advance(now);
    }

    /// The next thing this node wants. Bytes to send are put into `out`, which is cleared first.
    pub fn poll_output(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<Output> {
        let now = self.clock.advance(now);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Output::Event(event));
            }
            out.clear();
            if let Some(transmit) = self.ways.poll_transmit(out) {
                return Some(Output::Transmit(transmit));
            }
            self.feed_clients();
            if let Some(batch) = self.endpoint.poll_transmit(out, now) {
                let transmit = match transmit::virtual_number(&batch.transmit.route.remote) {
                    None => Some(batch.transmit),
                    Some(number) => self.carry(number, batch, out, now),
                };
                match transmit {
                    Some(transmit) => return Some(Output::Transmit(transmit)),
                    None => continue,
                }
            }
            // Sending can end a connection: what that caused goes out before the node rests.
            self.route(now);
            self.advance_shutdown(now);
            if !self.has_output() {
                return None;
            }
        }
    }

    /// The next event alone: for a caller that leaves sending to somebody else.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When this node wants to be called next, and why. Due at once while output is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        if self.has_output() {
            return Some((self.clock.now(), Reason::Output));
        }
        self.timer()
    }

    /// The next timer alone, for a caller whose socket takes no more for now: waiting output does
    /// not make it due.
    #[must_use]
    pub fn timer(&self) -> Option<Deadline> {
        earliest([
            self.endpoint.deadline(),
            self.peer_timers.next(),
            self.request_timers.next(),
            self.ways.deadline(),
            self.discovery.deadline(),
            self.serving.as_ref().and_then(Serving::deadline),
            self.expiries.deadline(self.clock.unix(), self.clock.now()),
            self.shutdown.deadline(),
        ])
    }

    /// Dials a peer, and dials it again whenever the connection is lost, until
    /// [`Node::disconnect`] or until its policy gives up.
    ///
    /// # Errors
    /// [`Misuse`] when the name or address cannot be dialled, there are too many peers, or the
    /// node is shutting down.
    pub fn dial(&mut self, dial: Dial, now: Instant) -> Result<PeerId, Misuse> {
        let now = self.clock.advance(now);
        if self.shutdown.is_under_way() {
            return Err(Misuse::ShuttingDown);
        }
        if self.peers.len() >= self.config.limits.peers {
            return Err(Misuse::OverLimit);
        }
        let id = self.start_dialling(dial, now)?;
        self.route(now);
        Ok(id)
    }

    /// Dials a peer again that had failed.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] unless it had failed.
    pub fn reconnect(&mut self, peer: PeerId, now: Instant) -> Result<(), Misuse> {
        let now = self.clock.advance(now);
        self.redial(peer, now)?;
        self.route(now);
        Ok(())
    }

    /// Ends a peer: closes its connection, fails its requests, forgets it.
    ///
    /// # Errors
    /// [`Misuse::UnknownPeer`] when it is not there.
    pub fn disconnect(&mut self, peer: PeerId, now: Instant) -> Result<(), Misuse> {
        let now = self.clock.advance(now);
        let failure = Failure::new(Code::Closed, "closed by this side");
        self.end_peer(peer, &failure, now)?;
        self.route(now);
        Ok(())
    }

    /// Where a peer stands.
    #[must_use]
    pub fn state(&self, peer: PeerId) -> Option<&State> {
        self.peers.get(&peer).map(|p| p.lifecycle.state())
    }

    /// The last lifecycle events of all peers.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Lets everything that is due happen, and routes what follows from it.
    fn advance(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.route(now);
        while let Some((id, _)) = self.peer_timers.pop_due(now) {
            self.on_peer_due(id, now);
            self.route(now);
        }
        while let Some((id, _)) = self.request_timers.pop_due(now) {
            self.on_request_due(id, now);
        }
        self.advance_ways(now);
        self.advance_serving(now);
        self.end_expired(now);
        self.advance_shutdown(now);
        self.route(now);
    }

    fn has_output(&self) -> bool {
        !self.events.is_empty() || self.endpoint.is_sending() || self.ways.is_sending()
    }

    /// Hands every event of the transport to the part that it concerns.
    fn route(&mut self, now: Instant) {
        while let Some((connection, event)) = self.endpoint.poll_event() {
            self.on_transport_event(connection, event, now);
        }
    }

    /// Recomputes when a peer wants to be called.
    fn reindex(&mut self, id: PeerId) {
        let deadline = self.peers.get_mut(&id).and_then(Peer::deadline);
        self.peer_timers.set(id, deadline);
    }

    fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn emit_transition(&mut self, peer: PeerId, transition: Transition) {
        let (kind, cause) = match &transition.to {
            State::Disconnected => (Kind::Disconnected, None),
            State::Connecting { .. } => (Kind::Connecting, None),
            State::Connected { .. } => (Kind::Connected, None),
            State::Reconnecting { last_error, .. } => (Kind::Reconnecting, Some(last_error)),
            State::Failed { error, .. } => (Kind::Failed, Some(error)),
        };
        let (at, cause) = (self.clock.unix(), cause.cloned());
        self.history.push(Record { at, peer, kind, cause });
        self.emit(Event::Transition { peer, transition });
    }
}
