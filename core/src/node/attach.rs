//! This node as a client of relays: what it registers there, whom it looks for, and the channels
//! that come of it. When to ask is decided by [`crate::relay_client`]; here it is asked and answered.

use std::time::{Duration, Instant};

use super::Node;
use super::peer::Peer;
use crate::config::Destination;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::fallback::is_carried;
use crate::id::{Channel, PeerId};
use crate::message::{Connect, Hangup, Incoming, Matched, Message, Register, Welcome, Withdraw};
use crate::path::PathRole;
use crate::quic;
use crate::relay_client::{Action, Early, Registration, Search};
use crate::tls::KeyDigest;

/// What this node asked of its relays.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// What it offers, to every relay alike.
    offer: Option<Register>,
    next_request: u64,
    /// Datagrams of channels that no relay has told of yet.
    pub(super) early: Early,
}

impl Node {
    /// Offers services through every relay that this node has dialled or will dial, in place of
    /// what it offered before; `None` offers nothing any more. Whether a relay takes it, is told by
    /// [`Event::Registered`] and [`Event::Unregistered`]. [`Register::takeover`] is the node's own to
    /// say.
    pub fn register(&mut self, offer: Option<Register>, now: Instant) {
        let now = self.clock.advance(now);
        if self.attached.offer == offer {
            return;
        }
        self.attached.offer = offer;
        for relay in self.relays() {
            let is_wanted = self.attached.offer.is_some();
            let action = self.registration(relay).and_then(|r| r.set(is_wanted, now));
            self.on_registration(relay, action, now);
        }
        self.route(now);
    }

    /// The relays that this node has dialled and is connected to.
    fn relays(&self) -> Vec<PeerId> {
        let is_relay = |p: &&Peer| {
            p.link.is_some() && p.dialled.as_ref().is_some_and(|d| d.attachment.is_some())
        };
        self.peers.values().filter(is_relay).map(|p| p.id).collect()
    }

    /// Whether a relay is connected.
    pub(super) fn has_relay(&self) -> bool {
        !self.relays().is_empty()
    }

    fn registration(&mut self, relay: PeerId) -> Option<&mut Registration> {
        self.peers.get_mut(&relay)?.dialled.as_mut()?.attachment.as_mut()
    }

    fn search(&mut self, peer: PeerId) -> Option<&mut Search> {
        self.peers.get_mut(&peer)?.dialled.as_mut()?.search.as_mut()
    }

    /// Whether a peer is a relay of this node's.
    pub(super) fn is_relay(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|p| p.dialled.as_ref().is_some_and(|d| d.attachment.is_some()))
    }

    /// Whether a relay has what this node offers.
    pub(super) fn is_registered(&self, relay: PeerId) -> bool {
        let dialled = self.peers.get(&relay).and_then(|p| p.dialled.as_ref());
        dialled.and_then(|d| d.attachment.as_ref()).is_some_and(Registration::is_held)
    }

    fn on_registration(&mut self, relay: PeerId, action: Option<Action>, now: Instant) {
        match action {
            None => {}
            Some(Action::Register { takeover }) => {
                if let Some(offer) = self.attached.offer.clone() {
                    self.say(relay, &Message::Register(Register { takeover, ..offer }), now);
                }
            }
            Some(Action::Withdraw) => self.say(relay, &Message::Withdraw(Withdraw {}), now),
            Some(Action::Dead) => {
                let sentence = "the relay does not answer a registration";
                self.break_link(relay, Failure::new(Code::TimedOut, sentence), now);
            }
        }
        self.reindex(relay);
    }

    /// Puts a message on a peer's control stream.
    pub(super) fn say(&mut self, peer: PeerId, message: &Message, now: Instant) {
        let link = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut());
        if let Some(pushed) = link.map(|l| l.control.push(message)) {
            self.after_push(peer, pushed, now);
        }
    }

    /// A relay is connected: it is told what is offered, and asked for what is wanted.
    pub(super) fn on_relay_up(&mut self, relay: PeerId, now: Instant) {
        let is_wanted = self.attached.offer.is_some();
        let action = self.registration(relay).and_then(|r| r.on_up(is_wanted, now));
        self.on_registration(relay, action, now);
        for peer in self.searching() {
            self.ask(peer, relay, now);
        }
    }

    /// A relay is gone, and every channel of it.
    pub(super) fn on_relay_down(&mut self, relay: PeerId, now: Instant) {
        if let Some(registration) = self.registration(relay) {
            let was_held = registration.is_held();
            registration.on_down();
            if was_held {
                let failure =
                    Failure::new(Code::Unreachable, "the connection to the relay is lost");
                self.emit(Event::Unregistered { peer: relay, failure });
            }
        }
        self.attached.early.forget(relay);
        self.discovery.on_relay_lost(relay);
        for peer in self.searching() {
            if let Some(search) = self.search(peer) {
                search.on_lost(relay, now);
            }
            self.reindex(peer);
        }
        for channel in self.ways.channels_of(relay) {
            self.drop_channel(channel, now);
        }
    }

    /// Peers that are looked for behind relays.
    fn searching(&self) -> Vec<PeerId> {
        let is_searching = |p: &&Peer| {
            let is_up = p.link.is_some();
            p.dialled.as_ref().is_some_and(|d| d.search.is_some() && (is_up || d.attempt.is_some()))
        };
        self.peers.values().filter(is_searching).map(|p| p.id).collect()
    }

    /// Looks for a service at every relay that is connected.
    pub(super) fn ask_everywhere(&mut self, peer: PeerId, now: Instant) {
        for relay in self.relays() {
            self.ask(peer, relay, now);
        }
        self.reindex(peer);
    }

    /// Looks for a service at a relay, unless there is a channel already, or an answer to come.
    fn ask(&mut self, peer: PeerId, relay: PeerId, now: Instant) {
        if self.way_of(peer).is_some_and(|number| self.ways.has_channel_at(number, relay)) {
            return;
        }
        let dialled = self.peers.get_mut(&peer).and_then(|p| p.dialled.as_mut());
        let Some(dialled) = dialled else { return };
        let (Some(search), Destination::Service(service)) = (&mut dialled.search, &dialled.dial.to)
        else {
            return;
        };
        if search.is_asking(relay) {
            return;
        }
        let request = self.attached.next_request;
        self.attached.next_request += 1;
        let message = Message::Connect(Connect {
            request,
            service: service.clone(),
            exclude: search.excluded().to_vec(),
        });
        search.on_asked(relay, request);
        self.say(relay, &message, now);
    }

    /// What of a peer's relays is due.
    pub(super) fn on_attach_due(&mut self, id: PeerId, now: Instant) {
        let action = self.registration(id).and_then(|r| r.poll(now));
        if action.is_some() {
            self.on_registration(id, action, now);
        }
        if self.search(id).is_some_and(|search| search.poll(now)) {
            self.ask_everywhere(id, now);
        }
    }

    /// Takes a message that only relays send; gives back any other.
    pub(super) fn on_relay_message(
        &mut self,
        relay: PeerId,
        message: Message,
        now: Instant,
    ) -> Option<Message> {
        match message {
            Message::Welcome(welcome) => self.on_welcome(relay, &welcome, now),
            Message::Registered(registered) => {
                let refresh = Duration::from_millis(registered.refresh_ms);
                if self.registration(relay).is_some_and(|r| r.on_registered(refresh, now)) {
                    self.emit(Event::Registered { peer: relay });
                }
            }
            Message::Unregistered(unregistered) => {
                let failure = unregistered.to_failure();
                if let Some(registration) = self.registration(relay) {
                    registration.on_unregistered(&failure, now);
                }
                self.emit(Event::Unregistered { peer: relay, failure });
            }
            Message::Matched(matched) => self.on_matched(relay, &matched, now),
            Message::Unmatched(unmatched) => {
                let peer = self.who_asked(unmatched.request, relay)?;
                let failure = unmatched.to_failure();
                let verdict = self.search(peer).and_then(|s| s.on_unmatched(relay, failure, now));
                if let Some(failure) = verdict {
                    self.on_not_found(peer, failure, now);
                }
                self.reindex(peer);
            }
            Message::Incoming(incoming) => self.on_incoming(relay, &incoming, now),
            Message::Hangup(hangup) => {
                let channel = Channel { relay, number: hangup.channel };
                tracing::debug!(%channel, why = %hangup.to_failure(), "a channel is over");
                self.on_hangup(channel, now);
            }
            other @ (Message::Heartbeat(_)
            | Message::HeartbeatAck(_)
            | Message::EscalationRequest(_)
            | Message::EscalationResponse(_)
            | Message::StreamChunk(_)
            | Message::StreamEnd(_)
            | Message::Error(_)
            | Message::PrewarmSignal(_)
            | Message::Open(_)
            | Message::Opened(_)
            | Message::Request(_)
            | Message::Response(_)
            | Message::ResponseChunk(_)
            | Message::Goaway(_)
            | Message::Register(_)
            | Message::Withdraw(_)
            | Message::Connect(_)
            | Message::Candidates(_)) => return Some(other),
        }
        None
    }

    fn on_welcome(&mut self, relay: PeerId, welcome: &Welcome, now: Instant) {
        let key = crate::probe::ProbeKey::new(welcome.key.0);
        // What a relay calls a client on TCP is an address of nobody's.
        let observed = Some(welcome.observed).filter(|&it| !is_carried(it));
        let session = welcome.session;
        let is_moved =
            self.discovery.on_welcome(relay, observed, &welcome.discovery, session, key, now);
        if is_moved {
            self.greet_others(relay, now);
        }
        if let Some(address) = observed {
            self.emit(Event::Observed { peer: relay, address });
        }
        self.on_discovered(now);
    }

    /// A relay sees this node elsewhere: what was open in a NAT may be shut, and the others reach it
    /// again when they have heard it.
    fn greet_others(&mut self, relay: PeerId, now: Instant) {
        for other in self.relays().into_iter().filter(|other| *other != relay) {
            let link = self.peers.get(&other).and_then(|p| p.link.as_ref());
            if let Some(connection) = link.map(|link| link.connection) {
                self.endpoint.with(connection, now, quic::Connection::ping);
            }
        }
    }

    /// Whose search a relay answers.
    fn who_asked(&self, request: u64, relay: PeerId) -> Option<PeerId> {
        let awaits = |p: &&Peer| {
            let search = p.dialled.as_ref().and_then(|d| d.search.as_ref());
            search.is_some_and(|search| search.awaits(relay, request))
        };
        self.peers.values().find(awaits).map(|p| p.id)
    }

    fn on_matched(&mut self, relay: PeerId, matched: &Matched, now: Instant) {
        let channel = Channel { relay, number: matched.channel };
        let found = self.who_asked(matched.request, relay).and_then(|peer| {
            let is_wanted = self.search(peer)?.on_matched(relay, matched.key, now);
            self.reindex(peer);
            is_wanted.then_some(peer)
        });
        let Some(peer) = found else {
            let why = Failure::new(Code::Cancelled, "nobody waits for this channel");
            self.hang_up(channel, &why, now);
            return;
        };
        match self.way_of(peer) {
            Some(number) => self.add_channel(number, channel, now),
            None => self.begin_inner(peer, channel, now),
        }
    }

    /// The first channel to a peer: the connection end to end begins on it.
    fn begin_inner(&mut self, peer: PeerId, channel: Channel, now: Instant) {
        let dialled = self.peers.get(&peer).and_then(|p| p.dialled.as_ref());
        let waiting = dialled.filter(|d| d.attempt.is_some_and(|a| a.connection.is_none()));
        let Some(name) = waiting.map(|d| d.dial.server_name.clone()) else {
            let why = Failure::new(Code::Cancelled, "nobody waits for this channel");
            self.hang_up(channel, &why, now);
            return;
        };
        let number = self.open_way(PathRole::Dialler, channel, now);
        let address = crate::transmit::virtual_address(number);
        match self.endpoint.connect_inner(address, &name, now) {
            Ok(connection) => {
                self.by_connection.insert(connection, peer);
                self.ways.set_connection(number, connection);
                let dialled = self.peers.get_mut(&peer).and_then(|p| p.dialled.as_mut());
                if let Some(attempt) = dialled.and_then(|d| d.attempt.as_mut()) {
                    attempt.connection = Some(connection);
                }
            }
            Err(misuse) => {
                self.close_way(number, now);
                let failure = Failure::new(Code::Misconfigured, misuse.to_string());
                self.on_not_found(peer, failure, now);
            }
        }
        self.reindex(peer);
    }

    /// A relay connected somebody with this node.
    fn on_incoming(&mut self, relay: PeerId, incoming: &Incoming, now: Instant) {
        let channel = Channel { relay, number: incoming.channel };
        let refusal = if self.shutdown.is_under_way() {
            Some(Failure::new(Code::ShuttingDown, "shutting down"))
        } else if !self.config.listening {
            Some(Failure::new(Code::UnknownService, "this node accepts nobody"))
        } else if self.ways.waiting() >= self.config.limits.handshakes {
            Some(Failure::new(Code::Overloaded, "too many handshakes are under way"))
        } else {
            None
        };
        if let Some(why) = refusal {
            self.hang_up(channel, &why, now);
            return;
        }
        self.open_way(PathRole::Acceptor, channel, now);
        for datagram in self.attached.early.take(channel, now) {
            self.on_enveloped(relay, datagram, now);
        }
    }

    fn on_hangup(&mut self, channel: Channel, now: Instant) {
        let number = self.ways.by_channel(channel);
        self.drop_channel(channel, now);
        let Some(peer) = number.and_then(|number| self.peer_on(number)) else { return };
        if let Some(search) = self.search(peer) {
            search.on_lost(channel.relay, now);
        }
        self.reindex(peer);
    }

    /// Tells a relay that a channel is not needed any more.
    pub(super) fn hang_up(&mut self, channel: Channel, why: &Failure, now: Instant) {
        self.say(channel.relay, &Message::Hangup(Hangup::new(channel.number, why)), now);
    }

    /// A way of a peer's, connected or not yet.
    pub(super) fn way_of(&self, peer: PeerId) -> Option<u32> {
        let peer = self.peers.get(&peer)?;
        self.ways.by_connection(peer.connection()?)
    }

    /// The key by which relays know who is at the other end, once it is connected.
    pub(super) fn note_found(&mut self, peer: PeerId, key: KeyDigest) {
        if let Some(search) = self.search(peer) {
            search.on_connected(key);
        }
    }
}
