//! This node as a relay: its clients' messages and packets, passed on as [`crate::relay`] decides.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Node;
use crate::config::Config;
use crate::encapsulation::COST_OF_PARTS;
use crate::id::PeerId;
use crate::message::Message;
use crate::quic;
use crate::relay::{self, Action, Client, Relay, View};
use crate::timer::Deadline;
use crate::transmit::Route;

/// What a relay is made of.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) relay: Relay,
    /// Clients for whom something waits.
    ready: VecDeque<PeerId>,
    #[cfg(any(test, feature = "testing"))]
    pub(super) meddler: Option<Box<dyn super::Meddler>>,
}

impl Serving {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let settings = config.relay.clone()?;
        let relay = Relay::new(settings, relay::secret_of(&config.tls));
        Some(Self {
            relay,
            ready: VecDeque::new(),
            #[cfg(any(test, feature = "testing"))]
            meddler: None,
        })
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.relay.deadline()
    }

    pub(super) fn view(&self, now: Instant) -> View {
        self.relay.view(now)
    }
}

impl Node {
    /// Whether a peer is a client of this relay.
    pub(super) fn is_client(&self, peer: PeerId) -> bool {
        self.serving.is_some() && self.peers.get(&peer).is_some_and(|p| p.dialled.is_none())
    }

    pub(super) fn on_client_attached(&mut self, id: PeerId, observed: SocketAddr, now: Instant) {
        let credential = self.peers.get(&id).and_then(|p| p.credential.as_ref());
        let (Some(serving), Some(credential)) = (&mut self.serving, credential) else { return };
        let who = Client {
            key: credential.key,
            mesh: credential.mesh,
            serial: credential.serial.clone(),
        };
        serving.relay.on_attached(id, &who, observed);
        self.advance_serving(now);
    }

    pub(super) fn on_client_moved(&mut self, id: PeerId, observed: SocketAddr, now: Instant) {
        if let Some(serving) = &mut self.serving {
            serving.relay.on_moved(id, observed);
            self.advance_serving(now);
        }
    }

    pub(super) fn on_client_detached(&mut self, id: PeerId, now: Instant) {
        if let Some(serving) = &mut self.serving {
            serving.relay.on_detached(id);
            self.advance_serving(now);
        }
    }

    pub(super) fn on_client_message(&mut self, id: PeerId, message: &Message, now: Instant) {
        if let Some(serving) = &mut self.serving {
            serving.relay.handle_message(id, message, now);
            self.advance_serving(now);
        }
    }

    /// A relay lets nobody else in from here on, and says after what time its clients should be back.
    pub(super) fn start_relay_drain(&mut self) -> Option<Duration> {
        let serving = self.serving.as_mut()?;
        let after = serving.relay.config().come_back_after;
        serving.relay.drain(after);
        Some(after)
    }

    /// Whether a peer is a client whose packets this relay passes on.
    pub(super) fn is_carrying_for(&self, peer: PeerId) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.relay.has_channels(peer))
    }

    /// A client's datagram for another.
    pub(super) fn pass_on(&mut self, id: PeerId, datagram: &[u8], now: Instant) {
        #[cfg(any(test, feature = "testing"))]
        if self.meddle_with_packet(id, datagram, now) {
            return;
        }
        if let Some(serving) = &mut self.serving {
            serving.relay.forward(id, datagram, now);
        }
    }

    /// Gives the clients' connections as much of what waits for them as they have room for.
    pub(super) fn feed_clients(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        while let Some(client) = serving.relay.poll_ready() {
            serving.ready.push_back(client);
        }
        for _ in 0..serving.ready.len() {
            let Some(client) = serving.ready.pop_front() else { return };
            let link = self.peers.get(&client).and_then(|p| p.link.as_ref());
            let Some(connection) = link.map(|link| link.connection) else { continue };
            let relay = &mut serving.relay;
            let is_full = self.endpoint.stream(connection, |c| feed(c, relay, client));
            if is_full == Some(true) {
                serving.ready.push_back(client);
            }
        }
    }

    /// Carries out what the relay decided.
    pub(super) fn advance_serving(&mut self, now: Instant) {
        while let Some(action) = self.serving.as_mut().and_then(|s| s.relay.poll(now)) {
            match action {
                Action::Say { client, message } => {
                    #[cfg(any(test, feature = "testing"))]
                    let message = self.meddle_with_message(client, message);
                    self.say(client, &message, now);
                }
                Action::Break { client, failure } => self.break_link(client, failure, now),
            }
        }
    }

    /// Answers who asks for its address, at once and with no more than was asked with.
    pub(super) fn answer_discovery(&mut self, route: Route, bytes: &[u8]) {
        let answer =
            self.serving.as_ref().and_then(|s| s.relay.discovery().answer(bytes, route.remote));
        if let Some(answer) = answer {
            self.ways.push(route, answer.to_vec(), None);
        }
    }

    /// What this relay does for whom; `None` where the node is none.
    pub(super) fn relay_view(&self, now: Instant) -> Option<View> {
        self.serving.as_ref().map(|serving| serving.view(now))
    }
}

/// Moves packets into a connection while it has room; true if more wait.
fn feed(connection: &mut quic::Connection, relay: &mut Relay, client: PeerId) -> bool {
    let largest = connection.max_datagram().unwrap_or(0);
    while let Some(size) = relay.peek_packet(client) {
        if connection.datagram_room() < size + COST_OF_PARTS {
            return true;
        }
        for datagram in relay.poll_packet(client, largest).into_iter().flatten() {
            // A connection that cannot take it is a path that lost it.
            let _ = connection.send_datagram(datagram);
        }
    }
    false
}
