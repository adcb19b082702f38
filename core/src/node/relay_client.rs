//! This node as a client of relays: what it registers there, and which services it looks up.
//!
//! [`crate::relay_client`] decides when to ask; this module sends the questions and handles the
//! answers.

use std::collections::BTreeMap;
use std::iter;
use std::time::{Duration, Instant};

use super::io::{Effect, Io};
use super::overlay::Overlay;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::id::PeerId;
use crate::message::{
    Connect, Matched, Message, Register, Registered, RelayMessage, ServiceName, Unmatched,
    Unregistered, Withdraw,
};
use crate::quic::ConnectionId;
use crate::relay_client::{LookupState, Registration, RegistrationAction};
use crate::timer::{Deadline, Timers, earliest};
use crate::tls::KeyDigest;

/// A relay that this node has been connected to.
#[derive(Debug)]
struct KnownRelay {
    registration: Registration,
    is_up: bool,
}

/// A peer behind relays, by its service.
#[derive(Debug)]
struct Lookup {
    search: LookupState,
    service: ServiceName,
    /// Its connection, established or not.
    connection: Option<ConnectionId>,
    /// An attempt to connect is in progress, or the peer is connected.
    is_active: bool,
}

/// This node's registrations and lookups at its relays.
#[derive(Debug, Default)]
pub(super) struct RelayClient {
    /// Its offer, the same for every relay.
    offer: Option<Register>,
    next_request: u64,
    relays: BTreeMap<PeerId, KnownRelay>,
    lookups: BTreeMap<PeerId, Lookup>,
    registration_timers: Timers<PeerId>,
    lookup_timers: Timers<PeerId>,
}

impl RelayClient {
    /// Replaces the offer at every relay.
    pub(super) fn register(&mut self, offer: Option<Register>, io: &mut Io) {
        if self.offer == offer {
            return;
        }
        self.offer = offer;
        let is_wanted = self.offer.is_some();
        for id in self.connected() {
            let Some(relay) = self.relays.get_mut(&id) else { continue };
            let action = relay.registration.set(is_wanted, io.now());
            self.on_registration(id, action, io);
        }
    }

    /// Returns true if a relay has registered this node's offer.
    pub(super) fn is_registered(&self, relay: PeerId) -> bool {
        self.relays.get(&relay).is_some_and(|it| it.registration.is_held())
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        earliest([self.registration_timers.next(), self.lookup_timers.next()])
    }

    /// Handles a connected relay: registers the offer there, and looks up the wanted services.
    pub(super) fn on_relay_up(&mut self, id: PeerId, overlay: &Overlay, io: &mut Io) {
        let is_wanted = self.offer.is_some();
        let relay = self
            .relays
            .entry(id)
            .or_insert_with(|| KnownRelay { registration: Registration::new(), is_up: false });
        relay.is_up = true;
        let action = relay.registration.on_up(is_wanted, io.now());
        self.on_registration(id, action, io);
        for peer in self.active() {
            self.ask(peer, id, overlay, io);
        }
    }

    /// Handles the lost connection to a relay.
    pub(super) fn on_relay_down(&mut self, id: PeerId, io: &mut Io) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.is_up = false;
        let was_held = relay.registration.is_held();
        relay.registration.on_down();
        self.reindex(id);
        if was_held {
            let failure = Failure::new(Code::Unreachable, "the connection to the relay is lost");
            io.emit(Event::Unregistered { peer: id, failure });
        }
        for peer in self.active() {
            self.on_channel_lost(peer, id, io);
        }
    }

    /// Removes a peer that is over.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.relays.remove(&peer);
        self.lookups.remove(&peer);
        self.registration_timers.set(peer, None);
        self.lookup_timers.set(peer, None);
    }

    /// Begins an attempt to connect to a peer behind relays: each of them is asked.
    pub(super) fn look_up(
        &mut self,
        peer: PeerId,
        service: &ServiceName,
        overlay: &Overlay,
        io: &mut Io,
    ) {
        let lookup = self.lookups.entry(peer).or_insert_with(|| Lookup {
            search: LookupState::default(),
            service: service.clone(),
            connection: None,
            is_active: false,
        });
        lookup.search.restart();
        (lookup.is_active, lookup.connection) = (true, None);
        self.ask_everywhere(peer, overlay, io);
    }

    /// Assigns this connection to the attempt of a peer.
    pub(super) fn set_connection(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(lookup) = self.lookups.get_mut(&peer) {
            lookup.connection = Some(connection);
        }
    }

    /// Handles a connected peer; `key` is its name at the relays.
    pub(super) fn on_found(&mut self, peer: PeerId, key: KeyDigest) {
        if let Some(lookup) = self.lookups.get_mut(&peer) {
            lookup.search.on_connected(key);
        }
    }

    /// Handles the end of a peer's connection, or of an attempt at one.
    pub(super) fn on_peer_down(&mut self, peer: PeerId) {
        if let Some(lookup) = self.lookups.get_mut(&peer) {
            (lookup.is_active, lookup.connection) = (false, None);
        }
    }

    /// Handles the end of a channel to a peer: its relay is asked again after a while.
    pub(super) fn on_channel_lost(&mut self, peer: PeerId, relay: PeerId, io: &Io) {
        if let Some(lookup) = self.lookups.get_mut(&peer) {
            lookup.search.on_lost(relay, io.now());
        }
        self.reindex(peer);
    }

    pub(super) fn on_registered(&mut self, id: PeerId, registered: &Registered, io: &mut Io) {
        let refresh = Duration::from_millis(registered.refresh_ms);
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.registration.on_registered(refresh, io.now()) {
            io.emit(Event::Registered { peer: id });
        }
        self.reindex(id);
    }

    pub(super) fn on_unregistered(&mut self, id: PeerId, unregistered: &Unregistered, io: &mut Io) {
        let failure = unregistered.to_failure();
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.registration.on_unregistered(&failure, io.now());
        }
        self.reindex(id);
        io.emit(Event::Unregistered { peer: id, failure });
    }

    /// Handles a service that a relay found. Returns the peer that it was looked up for, if it is
    /// still wanted.
    pub(super) fn on_matched(
        &mut self,
        relay: PeerId,
        matched: &Matched,
        io: &Io,
    ) -> Option<PeerId> {
        let peer = self.asked_by(matched.request, relay)?;
        let lookup = self.lookups.get_mut(&peer)?;
        let is_wanted = lookup.search.on_matched(relay, matched.key, io.now());
        self.reindex(peer);
        is_wanted.then_some(peer)
    }

    /// Handles a lookup without a match. Returns the peer that cannot be found, and the reason.
    pub(super) fn on_unmatched(
        &mut self,
        relay: PeerId,
        unmatched: &Unmatched,
        io: &Io,
    ) -> Option<(PeerId, Failure)> {
        let peer = self.asked_by(unmatched.request, relay)?;
        let lookup = self.lookups.get_mut(&peer)?;
        let verdict = lookup.search.on_unmatched(relay, unmatched.to_failure(), io.now());
        self.reindex(peer);
        verdict.map(|failure| (peer, failure))
    }

    /// Returns why a service was not found within the time of an attempt.
    pub(super) fn verdict(&self, peer: PeerId) -> Option<Failure> {
        let has_relay = self.relays.values().any(|relay| relay.is_up);
        self.lookups.get(&peer).map(|lookup| lookup.search.verdict(has_relay))
    }

    /// Does the work that is due by now.
    pub(super) fn advance(&mut self, now: Instant, overlay: &Overlay, io: &mut Io) {
        // Each relay once: one that does not answer is due until its connection is closed.
        let due = iter::from_fn(|| self.registration_timers.pop_due(now)).collect::<Vec<_>>();
        for (id, _) in due {
            let action = self.relays.get_mut(&id).and_then(|it| it.registration.poll(now));
            self.on_registration(id, action, io);
        }
        while let Some((peer, _)) = self.lookup_timers.pop_due(now) {
            if self.lookups.get_mut(&peer).is_some_and(|lookup| lookup.search.poll(now)) {
                self.ask_everywhere(peer, overlay, io);
            }
            self.reindex(peer);
        }
    }

    /// Returns the connected relays other than this one.
    pub(super) fn others(&self, relay: PeerId) -> Vec<PeerId> {
        self.connected().into_iter().filter(|id| *id != relay).collect()
    }

    fn connected(&self) -> Vec<PeerId> {
        self.relays.iter().filter(|(_, relay)| relay.is_up).map(|(id, _)| *id).collect()
    }

    /// Returns the peers that are being looked up.
    fn active(&self) -> Vec<PeerId> {
        self.lookups.iter().filter(|(_, lookup)| lookup.is_active).map(|(id, _)| *id).collect()
    }

    fn on_registration(&mut self, relay: PeerId, action: Option<RegistrationAction>, io: &mut Io) {
        match action {
            None => {}
            Some(RegistrationAction::Register { takeover }) => {
                if let Some(offer) = self.offer.clone() {
                    io.send(
                        relay,
                        Message::Relay(RelayMessage::Register(Register { takeover, ..offer })),
                    );
                }
            }
            Some(RegistrationAction::Withdraw) => {
                io.send(relay, Message::Relay(RelayMessage::Withdraw(Withdraw {})))
            }
            Some(RegistrationAction::Dead) => {
                let sentence = "the relay does not answer a registration";
                let failure = Failure::new(Code::TimedOut, sentence);
                io.effect(Effect::Close { peer: relay, failure });
            }
        }
        self.reindex(relay);
    }

    fn ask_everywhere(&mut self, peer: PeerId, overlay: &Overlay, io: &mut Io) {
        for relay in self.connected() {
            self.ask(peer, relay, overlay, io);
        }
        self.reindex(peer);
    }

    /// Looks a service up at a relay, unless there is a channel already, or an answer is
    /// outstanding.
    fn ask(&mut self, peer: PeerId, relay: PeerId, overlay: &Overlay, io: &mut Io) {
        let Some(lookup) = self.lookups.get_mut(&peer) else { return };
        let has_channel = |connection| overlay.has_channel_at(connection, relay);
        if lookup.connection.is_some_and(has_channel) || lookup.search.is_asking(relay) {
            return;
        }
        let request = self.next_request;
        self.next_request += 1;
        lookup.search.on_asked(relay, request);
        let service = lookup.service.clone();
        let exclude = lookup.search.excluded().to_vec();
        io.send(
            relay,
            Message::Relay(RelayMessage::Connect(Connect { request, service, exclude })),
        );
    }

    /// Returns the peer for which a relay answers this lookup.
    fn asked_by(&self, request: u64, relay: PeerId) -> Option<PeerId> {
        let awaits = |(_, lookup): &(&PeerId, &Lookup)| lookup.search.awaits(relay, request);
        self.lookups.iter().find(awaits).map(|(peer, _)| *peer)
    }

    fn reindex(&mut self, id: PeerId) {
        let registration = self.relays.get(&id).and_then(|it| it.registration.deadline());
        self.registration_timers.set(id, registration);
        let lookup = self.lookups.get(&id).and_then(|it| it.search.deadline());
        self.lookup_timers.set(id, lookup);
    }
}

/// Returns the reason for which a channel without a waiting peer is returned.
pub(super) fn unwanted() -> Failure {
    Failure::new(Code::Cancelled, "nobody waits for this channel")
}
