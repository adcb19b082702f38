//! This node as a relay: it forwards the messages and packets of its clients as [`crate::relay`]
//! decides.
//!
//! An input from one client can concern thousands of others: a withdrawn service, a connector that
//! vanishes. Each turn carries out [`ACTIONS`] of the consequences, and leaves the rest for the
//! next.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::io::{Effect, Io};
use crate::config::Config;
use crate::encapsulation::COST_OF_PARTS;
use crate::id::PeerId;
use crate::message::Message;
use crate::quic::{self, ConnectionId};
use crate::relay::{self, Client, Relay, RelayAction, RelayView};
use crate::timer::{Deadline, Reason};
use crate::tls::Credential;
use crate::transmit::Route;

/// Messages to clients, and clients removed, in one turn: at about 3 µs each they take less than a
/// millisecond, so that the packets of others do not wait for a crowd.
const ACTIONS: usize = 256;

/// The state of a node that is a relay.
#[derive(Debug)]
pub(super) struct RelayServer {
    relay: Relay,
    /// The connections of the clients.
    clients: BTreeMap<PeerId, ConnectionId>,
    /// Clients for which packets wait.
    ready: VecDeque<PeerId>,
    #[cfg(any(test, feature = "testing"))]
    pub(super) fault_injector: Option<Box<dyn super::FaultInjector>>,
}

impl RelayServer {
    /// Returns `None` for a node that is not a relay.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let settings = config.relay.clone()?;
        Some(Self {
            relay: Relay::new(settings, relay::secret_of(&config.tls)),
            clients: BTreeMap::new(),
            ready: VecDeque::new(),
            #[cfg(any(test, feature = "testing"))]
            fault_injector: None,
        })
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Deadline> {
        if self.relay.has_actions() {
            return Some((now, Reason::Backlog));
        }
        self.relay.deadline()
    }

    pub(super) fn view(&self, now: Instant) -> RelayView {
        self.relay.view(now)
    }

    /// Handles a connected client.
    pub(super) fn on_up(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        credential: &Credential,
        observed: SocketAddr,
    ) {
        let client = Client {
            key: credential.key,
            mesh: credential.mesh,
            serial: credential.serial.clone(),
            names: credential.names.clone(),
            may_serve: credential.may_serve,
        };
        self.clients.insert(id, connection);
        self.relay.on_attached(id, &client, observed);
    }

    /// Handles a new source address of a client's packets.
    pub(super) fn on_moved(&mut self, id: PeerId, observed: SocketAddr) {
        self.relay.on_moved(id, observed);
    }

    /// Handles the lost connection of a client.
    pub(super) fn on_down(&mut self, id: PeerId) {
        self.clients.remove(&id);
        self.relay.on_detached(id);
    }

    pub(super) fn on_message(&mut self, id: PeerId, message: &Message, now: Instant) {
        self.relay.handle_message(id, message, now);
    }

    /// Stops admitting clients. Returns the pause after which they should come back.
    pub(super) fn drain(&mut self) -> Duration {
        let after = self.relay.config().come_back_after;
        self.relay.drain(after);
        after
    }

    /// Returns true if packets of a client are forwarded.
    pub(super) fn has_channels(&self, id: PeerId) -> bool {
        self.relay.has_channels(id)
    }

    /// Accepts a packet from one client for another.
    pub(super) fn forward(&mut self, id: PeerId, datagram: &[u8], now: Instant) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(injector) = &mut self.fault_injector {
            for (from, datagram) in injector.on_packet(id, datagram) {
                self.relay.forward(from, &datagram, now);
            }
            return;
        }
        self.relay.forward(id, datagram, now);
    }

    /// Moves packets into the clients' connections while these have room.
    pub(super) fn feed_clients(&mut self, io: &mut Io) {
        while let Some(client) = self.relay.poll_ready() {
            self.ready.push_back(client);
        }
        for _ in 0..self.ready.len() {
            let Some(client) = self.ready.pop_front() else { return };
            let Some(connection) = self.clients.get(&client).copied() else { continue };
            let relay = &mut self.relay;
            if io.on(connection, |c| feed(c, relay, client)) == Some(true) {
                self.ready.push_back(client);
            }
        }
    }

    /// Carries out the actions of the relay, as many as one turn may.
    pub(super) fn advance(&mut self, io: &mut Io) {
        for _ in 0..ACTIONS {
            let Some(action) = self.relay.poll(io.now()) else { return };
            match action {
                RelayAction::Send { client, message } => {
                    #[cfg(any(test, feature = "testing"))]
                    let message = self.inject(client, message);
                    io.send(client, message);
                }
                RelayAction::Break { client, failure } => {
                    io.effect(Effect::Close { peer: client, failure });
                }
            }
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn inject(&mut self, client: PeerId, mut message: Message) -> Message {
        if let Some(injector) = &mut self.fault_injector {
            injector.on_message(client, &mut message);
        }
        message
    }

    /// Returns the answer to an address discovery probe: never longer than the question.
    pub(super) fn answer_discovery(&self, route: Route, bytes: &[u8]) -> Option<Vec<u8>> {
        Some(self.relay.discovery().answer(bytes, route.remote)?.to_vec())
    }
}

/// Moves packets into a connection while it has room; returns true if more wait.
fn feed(connection: &mut quic::Connection, relay: &mut Relay, client: PeerId) -> bool {
    let largest = connection.max_datagram().unwrap_or(0);
    while let Some(size) = relay.peek_packet(client) {
        if connection.datagram_room() < size + COST_OF_PARTS {
            return true;
        }
        for datagram in relay.poll_packet(client, largest).into_iter().flatten() {
            // A full connection counts as a path that lost the packet.
            let _ = connection.send_datagram(datagram);
        }
    }
    false
}
