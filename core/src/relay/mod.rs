//! The policy of a relay: who is registered, which clients are matched, and what is forwarded.
//!
//! It decides which client holds a name, which clients may have a channel to which connector, what
//! a client may cost, and which packet goes next. It never inspects a packet, opens no connection
//! and keeps no clock; it grants a channel for ciphertext, and the two ends still have to
//! authenticate each other.
//!
//! The life of a client, each call followed by draining `Relay::poll`:
//!
//! ```text
//!   on_attached ──▶ Welcome            (or Break: no room, or not its mesh)
//!   Register    ──▶ Registered         (or Unregistered: the name is somebody else's)
//!   Connect     ──▶ Incoming to the connector, Matched to who asked   (or Unmatched, in 2 s)
//!   forward     ──▶ poll_ready, poll_packet: with the other's number for the channel
//!   Hangup      ──▶ Hangup to the other
//!   on_detached ──▶ Hangup to every other
//! ```
//!
//! Every collection has a bound in [`RelayConfig`]. An idle client is a few hundred bytes.
//!
//! Source: docs/protocol.md, "Through a relay".

mod client;
mod config;
mod connecting;
mod discovery;
mod forwarding;
mod held;
mod meter;
mod queue;
mod registering;
mod registry;
mod revocations;
mod serial;
mod view;

#[cfg(any(test, feature = "testing"))]
mod audit;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::client::Attached;
use self::held::HeldLookups;
use self::meter::Meter;
use self::queue::Queues;
use self::registry::Registry;
use self::revocations::Revocations;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::message::{DiscoveryKey, Message, RelayMessage, Welcome};
use crate::shares::{ClientShares, Origin};
use crate::timer::{Deadline, Timers, earliest};

pub(crate) use self::client::Client;
pub use self::config::{MAX_OFFERS, RelayConfig};
pub use self::discovery::ProbeResponder;
pub(crate) use self::discovery::secret_of;
pub use self::view::{Drops, RegistrationView, RelayView};
pub use crate::message::{MAX_DISCOVERY, MAX_GUESTS, MAX_REVOKED, MAX_SERVICES, Register};

/// Length of a question to a [`ProbeResponder`] and of its answer, in bytes.
pub const DISCOVERY_LEN: usize = crate::probe::LEN;

/// An action for the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RelayAction {
    /// Send this message on the control stream of a client.
    Send {
        /// The receiving client.
        client: PeerId,
        /// The message.
        message: Message,
    },
    /// End the connection of a client. A client that was never admitted is not known here any more;
    /// for another the caller reports the end with [`Relay::on_detached`].
    Break {
        /// The client.
        client: PeerId,
        /// Why.
        failure: Failure,
    },
}

/// A relay, less its connections.
#[derive(Debug)]
pub(crate) struct Relay {
    config: RelayConfig,
    discovery: ProbeResponder,
    clients: BTreeMap<PeerId, Attached>,
    /// Clients without a mesh.
    guests: usize,
    /// Those of them that no connector listed when they came.
    strangers: ClientShares<PeerId>,
    registry: Registry,
    revocations: Revocations,
    held: HeldLookups,
    queues: Queues,
    timers: Timers<PeerId>,
    /// Bytes of all clients.
    bytes: Meter,
    actions: VecDeque<RelayAction>,
    draining: Option<Duration>,
    channels: usize,
    counters: RelayCounters,
}

/// Counts of events since the start.
#[derive(Debug, Clone, Copy, Default)]
struct RelayCounters {
    packets: u64,
    bytes: u64,
    drops: Drops,
    matched: u64,
    unmatched: u64,
    evicted: u64,
    displaced: u64,
    expired: u64,
}

impl Relay {
    /// Returns a relay without clients. The keys of discovery are derived from `secret`, which
    /// should be different at every start.
    #[must_use]
    pub(crate) fn new(config: RelayConfig, secret: [u8; 32]) -> Self {
        let queues = Queues::new(queue::QueueCapacity {
            of_a_receiver: config.queue_bytes,
            of_a_source: config.queue_bytes_of_a_source,
            in_all: config.queue_bytes_in_all,
        });
        Self {
            config,
            discovery: ProbeResponder::new(secret),
            clients: BTreeMap::new(),
            guests: 0,
            strangers: ClientShares::default(),
            registry: Registry::default(),
            revocations: Revocations::default(),
            held: HeldLookups::default(),
            queues,
            timers: Timers::new(),
            bytes: Meter::default(),
            actions: VecDeque::new(),
            draining: None,
            channels: 0,
            counters: RelayCounters::default(),
        }
    }

    /// Returns its configuration.
    #[must_use]
    pub(crate) const fn config(&self) -> &RelayConfig {
        &self.config
    }

    /// Returns true if a client is attached, not refused and not disconnected.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn is_attached(&self, client: PeerId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Returns the responder to the probes with which clients ask for their address.
    #[must_use]
    pub(crate) const fn discovery(&self) -> &ProbeResponder {
        &self.discovery
    }

    /// Handles a connected client, which has proven its identity.
    pub(crate) fn on_attached(&mut self, client: PeerId, who: &Client, observed: SocketAddr) {
        self.on_detached(client);
        let is_listed = self.registry.is_guest(who.key);
        let mesh = who.mesh.filter(|mesh| self.config.admits(mesh, &who.key));
        let refusal = if let Some(after) = self.draining {
            Some(shutting_down(after))
        } else if self.clients.len() >= self.config.clients {
            Some(Failure::new(Code::Overloaded, "the relay has no room for another client"))
        } else if who.mesh.is_some() && mesh.is_none() && !is_listed {
            Some(Failure::new(Code::Forbidden, "the relay does not serve this mesh"))
        } else if mesh.is_none() && !is_listed && !self.has_room_for_a_guest(who, observed) {
            Some(Failure::new(Code::Overloaded, "the relay has no room for another guest"))
        } else {
            None
        };
        if let Some(failure) = refusal {
            self.actions.push_back(RelayAction::Break { client, failure });
            return;
        }
        self.guests += usize::from(mesh.is_none());
        if mesh.is_none() && !is_listed {
            let origin = Origin::new(observed.ip(), None, who.key);
            self.strangers.set(client, &origin, 1);
        }
        let who = Client { mesh, ..who.clone() };
        let attached = Attached::new(&who, plain(observed));
        self.clients.insert(client, attached);
        self.welcome(client);
    }

    /// Returns true if there is room for a client without a mesh that no connector lists. Of the
    /// source that has the most of these, the newest makes room.
    fn has_room_for_a_guest(&mut self, who: &Client, observed: SocketAddr) -> bool {
        if self.guests < self.config.guests {
            return true;
        }
        let origin = Origin::new(observed.ip(), None, who.key);
        let Some(client) = self.strangers.makes_room(&origin, 1) else { return false };
        self.on_detached(client);
        let words = "the relay has no room left for guests, and others have fewer";
        let failure = Failure::new(Code::Overloaded, words);
        self.actions.push_back(RelayAction::Break { client, failure });
        true
    }

    /// Handles a new source address of a client's packets.
    pub(crate) fn on_moved(&mut self, client: PeerId, observed: SocketAddr) {
        let Some(attached) = self.clients.get_mut(&client) else { return };
        let observed = plain(observed);
        if attached.observed != observed {
            attached.observed = observed;
            self.welcome(client);
        }
    }

    /// Handles the end of a client's connection.
    pub(crate) fn on_detached(&mut self, client: PeerId) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let gone = Failure::new(Code::PeerGone, "the other end left the relay");
        self.hang_up_all(client, &gone, |_| true);
        self.unregister(client);
        self.held.remove_client(client);
        if let Some(attached) = self.clients.remove(&client) {
            self.guests -= usize::from(attached.mesh.is_none());
            self.strangers.remove(client);
        }
        self.counters.drops.receiver_gone += self.queues.remove(client);
    }

    /// Handles a message from the control stream of a client.
    pub(crate) fn handle_message(&mut self, client: PeerId, message: &Message, now: Instant) {
        if !self.clients.contains_key(&client) {
            return;
        }
        match message {
            Message::Relay(RelayMessage::Register(register)) => {
                self.register(client, register, now)
            }
            Message::Relay(RelayMessage::Withdraw(_)) => self.withdraw(client),
            Message::Relay(RelayMessage::Connect(connect)) => self.connect(client, connect, now),
            Message::Relay(RelayMessage::Hangup(hangup)) => self.on_hangup(client, hangup),
            Message::Relay(_) | Message::Control(_) | Message::Stream(_) | Message::Cloud(_) => {
                let sentence = "a message that no client sends to a relay";
                let failure = Failure::new(Code::ProtocolViolation, sentence);
                self.actions.push_back(RelayAction::Break { client, failure });
            }
        }
    }

    /// Returns the next action for the caller. Work that is due by `now` is done here.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<RelayAction> {
        while let Some((client, _)) = self.timers.pop_due(now) {
            self.expire(client);
        }
        while let Some(lookup) = self.held.poll(now) {
            self.answer(lookup.client, &lookup.connect, now);
        }
        loop {
            let action = self.actions.pop_front()?;
            match &action {
                // Messages to a client that left are dropped.
                RelayAction::Send { client, .. } if !self.clients.contains_key(client) => {}
                RelayAction::Send { .. } | RelayAction::Break { .. } => return Some(action),
            }
        }
    }

    /// Returns true if [`Relay::poll`] has an action now.
    #[must_use]
    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Returns the next deadline of [`Relay::poll`]: a registration expires then, or a lookup is
    /// answered.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        earliest([self.timers.next(), self.held.deadline()])
    }

    /// Prepares for the relay's shutdown: no further client is admitted, registered or matched, and
    /// each is asked to come back after this time. Existing channels go on. The caller sends the
    /// closing [`Goaway`](crate::message::Goaway) itself.
    pub(crate) const fn drain(&mut self, come_back_after: Duration) {
        self.draining = Some(come_back_after);
    }

    /// Returns true if a client is an end of a channel.
    #[must_use]
    pub(crate) fn has_channels(&self, client: PeerId) -> bool {
        self.clients.get(&client).is_some_and(|attached| !attached.channels.is_empty())
    }

    fn welcome(&mut self, client: PeerId) {
        let Some(attached) = self.clients.get(&client) else { return };
        let session = self.discovery.session_for(client, &attached.key);
        let welcome = Welcome {
            observed: attached.observed,
            discovery: self.config.discovery.clone(),
            session,
            key: DiscoveryKey(self.discovery.secret_for(session)),
        };
        self.send(client, Message::Relay(RelayMessage::Welcome(welcome)));
    }

    fn send(&mut self, client: PeerId, message: Message) {
        self.actions.push_back(RelayAction::Send { client, message });
    }
}

fn shutting_down(after: Duration) -> Failure {
    Failure::new(Code::ShuttingDown, "the relay is shutting down").with_retry_after(after)
}

/// Returns an address as others can use it: IPv4 as such, and without a scope, which only has
/// meaning on this host.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
