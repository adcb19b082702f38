//! How connections come and go: dialling, accepting, losing, ending.
//!
//! It asks the lifecycle, the retry policy and the heartbeat, and passes each one's answer on to
//! the next; it decides none of what they decide.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::control::Control;
use super::peer::{Attempt, Dialled, Link, Own, Peer};
use super::streams::Streams;
use super::{Node, Route};
use crate::config::{Destination, Dial};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::heartbeat::Heartbeat;
use crate::id::PeerId;
use crate::lifecycle::State;
use crate::quic::{self, ConnectionId};
use crate::relay_client::{Registration, Search};
use crate::retry::{Retry, Verdict};
use crate::rng::Rng;
use crate::tls::{Tls, TlsError};

/// The address of a peer before it is known how it is reached.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0);

/// How long the way of a connection is kept that this side closed: as long as its last words may
/// take, which pacing can hold back.
const LEAVING: Duration = Duration::from_secs(3);

impl Node {
    pub(super) fn start_dialling(&mut self, dial: Dial, now: Instant) -> Result<PeerId, Misuse> {
        let own = match &dial.tls {
            Some(tls) => Some(self.own(tls, &dial.to)?),
            None => None,
        };
        let connection = self.begin(&dial, own.as_ref(), now)?;
        let id = self.new_peer_id();
        let policy = dial.retry.unwrap_or(self.config.retry);
        let (attachment, search, remote) = match dial.to {
            Destination::Address(address) => (None, None, address),
            Destination::Relay(address) => (Some(Registration::new()), None, address),
            // Until the path is known there is no address.
            Destination::Service(_) => (None, Some(Search::default()), NOWHERE),
        };
        let dialled = Dialled {
            dial,
            own,
            attachment,
            search,
            retry: Retry::new(policy, Rng::new(self.rng.seed(), "retry")),
            heartbeat: Heartbeat::new(self.config.heartbeat),
            attempt: Some(self.attempt(connection, now)),
        };
        self.by_connection.extend(connection.map(|connection| (connection, id)));
        self.peers.insert(id, Peer::new(id, Some(dialled), remote));
        self.transition(id, |lifecycle| lifecycle.connect(now));
        self.ask_everywhere(id, now);
        self.reindex(id);
        Ok(id)
    }

    /// Begins a connection, if it is known where to.
    fn begin(
        &mut self,
        dial: &Dial,
        own: Option<&Own>,
        now: Instant,
    ) -> Result<Option<ConnectionId>, Misuse> {
        match dial.to {
            Destination::Address(address) | Destination::Relay(address) => {
                let (route, client) = (Route::to(address), own.map(|own| &own.client));
                self.endpoint.connect(route, &dial.server_name, client, now).map(Some)
            }
            Destination::Service(_) => Ok(None),
        }
    }

    fn own(&self, tls: &Tls, to: &Destination) -> Result<Own, Misuse> {
        let layer = match to {
            Destination::Relay(_) => quic::Layer::Outer,
            Destination::Address(_) | Destination::Service(_) => quic::Layer::Plain,
        };
        let unusable = |error: TlsError| {
            tracing::warn!(%error, "the identity or the trust of a dial cannot be used");
            Misuse::UnusableIdentity
        };
        let verifiers = tls.verifiers().map_err(unusable)?;
        let client = self.endpoint.client(tls, &verifiers, layer).map_err(unusable)?;
        Ok(Own { client, verifiers })
    }

    /// Exchanges what a dial brought of its own instead of the node's identity and trust, for the
    /// connections that are made from here on.
    ///
    /// # Errors
    /// [`Misuse::UnknownPeer`] when it is not there, [`Misuse::UnusableIdentity`] when it cannot be
    /// used.
    pub fn set_dial_tls(&mut self, peer: PeerId, tls: &Tls) -> Result<(), Misuse> {
        let dialled = self.peers.get(&peer).and_then(|p| p.dialled.as_ref());
        let own = self.own(tls, &dialled.ok_or(Misuse::UnknownPeer)?.dial.to)?;
        if let Some(dialled) = self.peers.get_mut(&peer).and_then(|p| p.dialled.as_mut()) {
            dialled.own = Some(own);
        }
        Ok(())
    }

    pub(super) fn redial(&mut self, id: PeerId, now: Instant) -> Result<(), Misuse> {
        let peer = self.peers.get(&id).ok_or(Misuse::UnknownPeer)?;
        if !matches!(peer.lifecycle.state(), State::Failed { .. }) {
            return Err(Misuse::WrongState);
        }
        self.transition(id, |lifecycle| lifecycle.connect(now));
        self.start_attempt(id, now);
        Ok(())
    }

    const fn new_peer_id(&mut self) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        id
    }

    fn attempt(&self, connection: Option<ConnectionId>, now: Instant) -> Attempt {
        Attempt { connection, due: now + self.config.transport.connect_timeout }
    }

    /// Changes a peer's state and tells everybody; a refused change would be a bug of this node.
    fn transition(
        &mut self,
        id: PeerId,
        change: impl FnOnce(
            &mut crate::lifecycle::Lifecycle,
        ) -> Result<crate::lifecycle::Transition, crate::lifecycle::Refused>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match change(&mut peer.lifecycle) {
            Ok(transition) => self.emit_transition(id, transition),
            Err(refused) => tracing::error!(%refused, "an illegal transition was tried"),
        }
    }

    fn start_attempt(&mut self, id: PeerId, now: Instant) {
        let Some(dialled) = self.peers.get(&id).and_then(|p| p.dialled.as_ref()) else { return };
        let (dial, own) = (dialled.dial.clone(), dialled.own.clone());
        match self.begin(&dial, own.as_ref(), now) {
            Ok(connection) => {
                let attempt = self.attempt(connection, now);
                self.by_connection.extend(connection.map(|connection| (connection, id)));
                if let Some(dialled) = self.peers.get_mut(&id).and_then(|p| p.dialled.as_mut()) {
                    dialled.attempt = Some(attempt);
                    if let Some(search) = &mut dialled.search {
                        search.restart();
                    }
                }
                self.ask_everywhere(id, now);
            }
            Err(misuse) => {
                let failure = Failure::new(Code::Misconfigured, misuse.to_string());
                self.on_attempt_failed(id, failure, now);
            }
        }
        self.reindex(id);
    }

    pub(super) fn on_transport_event(
        &mut self,
        connection: ConnectionId,
        event: quic::Event,
        now: Instant,
    ) {
        let peer = self.by_connection.get(&connection).copied();
        match (event, peer) {
            (quic::Event::Connected, Some(id)) => self.on_dialled(id, connection, now),
            (quic::Event::Connected, None) => self.on_accepted(connection, now),
            (quic::Event::Moved(remote), Some(id)) => self.on_client_moved(id, remote, now),
            (quic::Event::Lost(failure), Some(id)) => {
                self.by_connection.remove(&connection);
                self.on_lost(id, connection, failure, now);
                self.close_way_of(connection, now);
            }
            (quic::Event::Rejected(remote, failure), _) => {
                self.close_way_of(connection, now);
                tracing::debug!(%remote, %failure, "a handshake came to nothing");
                self.reject(remote, failure);
            }
            (quic::Event::Opened, Some(id)) => self.on_streams_opened(id, now),
            (quic::Event::Available, Some(id)) => self.on_streams_available(id, now),
            (quic::Event::Readable(stream), Some(id)) => self.on_readable(id, stream, now),
            (quic::Event::Writable(stream), Some(id)) => self.on_writable(id, stream, now),
            (quic::Event::Finished(stream), Some(id)) => self.on_finished(id, stream),
            (quic::Event::Stopped(stream, code), Some(id)) => self.on_stopped(id, stream, code),
            (quic::Event::Datagrams, Some(id)) => self.on_datagrams(id, now),
            // Before its handshake is confirmed, or after we ended it: nothing is owed to it. An
            // accepted peer's early streams are picked up once it is confirmed.
            (
                quic::Event::Lost(_)
                | quic::Event::Opened
                | quic::Event::Available
                | quic::Event::Readable(_)
                | quic::Event::Writable(_)
                | quic::Event::Finished(_)
                | quic::Event::Stopped(..)
                | quic::Event::Moved(_)
                | quic::Event::Datagrams,
                None,
            ) => {}
        }
    }

    fn link(&mut self, connection: ConnectionId, control: Option<u64>) -> Link {
        Link {
            connection,
            number: connection.0,
            control: Control::new(control),
            streams: Streams::default(),
            going_away: false,
            back_after: None,
            way: self.ways.by_connection(connection),
            renewed: None,
        }
    }

    fn on_dialled(&mut self, id: PeerId, connection: ConnectionId, now: Instant) {
        // The first stream of a fresh connection: the peer's limit always allows it, since a
        // connection without any stream would be of no use to either.
        let control = self.endpoint.stream(connection, quic::Connection::open).flatten();
        let mut link = self.link(connection, control);
        if self.is_relay(id) {
            link.control = Control::of_relay(control);
        }
        let way = link.way;
        let dialled = self.peers.get(&id).and_then(|p| p.dialled.as_ref());
        let credential = match self.check(connection, dialled) {
            Ok(credential) => credential,
            Err(failure) => return self.break_link(id, failure, now),
        };
        self.expiries.set(id, credential.not_after);
        let key = credential.key;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let reconnected = matches!(peer.lifecycle.state(), State::Reconnecting { .. });
        peer.reconnections += u64::from(reconnected);
        peer.credential = Some(credential);
        peer.link = Some(link);
        if let Some(dialled) = &mut peer.dialled {
            dialled.attempt = None;
            dialled.retry.on_up(now);
            dialled.heartbeat.start(now);
        }
        self.transition(id, |lifecycle| lifecycle.connected(now));
        if let Some(number) = way {
            self.note_found(id, key);
            self.on_inner_up(number, connection, now);
        }
        if self.is_relay(id) {
            self.on_relay_up(id, now);
        }
        self.beat(id, now);
        self.flush_queue(id, now);
        self.on_streams_opened(id, now);
        self.on_datagrams(id, now);
        self.reindex(id);
    }

    fn on_accepted(&mut self, connection: ConnectionId, now: Instant) {
        let Some(remote) = self.endpoint.get(connection).map(quic::Connection::remote) else {
            return;
        };
        let admitted = if self.shutdown.is_under_way() {
            Err(Failure::new(Code::ShuttingDown, "shutting down"))
        } else if self.peers.len() >= self.config.limits.peers {
            Err(Failure::new(Code::Overloaded, "at the limit of peers"))
        } else {
            self.check(connection, None)
        };
        let credential = match admitted {
            Ok(credential) => credential,
            Err(failure) => {
                self.endpoint.with(connection, now, |c| c.close(&failure, now));
                self.close_way_of(connection, now);
                self.reject(remote, failure);
                return;
            }
        };
        let id = self.new_peer_id();
        self.expiries.set(id, credential.not_after);
        let mut peer = Peer::new(id, None, remote);
        peer.credential = Some(credential);
        let link = self.link(connection, None);
        let way = link.way;
        peer.link = Some(link);
        self.by_connection.insert(connection, id);
        self.peers.insert(id, peer);
        self.transition(id, |lifecycle| lifecycle.connect(now));
        self.transition(id, |lifecycle| lifecycle.connected(now));
        self.emit(Event::Accepted { peer: id });
        match way {
            Some(number) => self.on_inner_up(number, connection, now),
            None => self.on_client_attached(id, remote, now),
        }
        self.on_streams_opened(id, now);
        self.on_datagrams(id, now);
        self.reindex(id);
    }

    /// Tells of a handshake that came to nothing, unless the node has said its last word.
    fn reject(&mut self, remote: SocketAddr, failure: Failure) {
        if !self.is_shut_down() {
            self.emit(Event::Rejected { remote, failure });
        }
    }

    pub(super) fn on_lost(&mut self, id: PeerId, connection: ConnectionId, failure: Failure, now: Instant) {
        let Some(peer) = self.peers.get(&id) else { return };
        let was_up = peer.link.as_ref().is_some_and(|l| l.connection == connection);
        match (peer.dialled.is_some(), was_up) {
            (true, true) => self.on_link_lost(id, failure, now),
            (true, false) => self.on_attempt_failed(id, failure, now),
            (false, _) => self.remove_peer(id, &failure, now),
        }
    }

    fn on_link_lost(&mut self, id: PeerId, mut failure: Failure, now: Instant) {
        let link = self.peers.get(&id).and_then(|p| p.link.as_ref());
        if let Some(after) = link.and_then(|link| link.back_after) {
            failure = failure.with_retry_after(after);
        }
        self.drop_link(id, &failure, now);
        let Some(dialled) = self.peers.get_mut(&id).and_then(|p| p.dialled.as_mut()) else {
            return;
        };
        dialled.heartbeat.stop();
        match dialled.retry.on_down(&failure, now) {
            Verdict::Wait { attempt, .. } => {
                self.transition(id, |lifecycle| lifecycle.lost(failure, attempt, now));
            }
            Verdict::GiveUp(reason) => {
                self.transition(id, |lifecycle| lifecycle.lost(failure, 1, now));
                self.give_up(id, reason, now);
            }
        }
        self.reindex(id);
    }

    fn on_attempt_failed(&mut self, id: PeerId, failure: Failure, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.last_failure = Some(failure.clone());
        let reconnecting = matches!(peer.lifecycle.state(), State::Reconnecting { .. });
        let Some(dialled) = &mut peer.dialled else { return };
        dialled.attempt = None;
        match dialled.retry.on_attempt_failed(&failure, now) {
            Verdict::Wait { attempt, until } => {
                self.emit(Event::AttemptFailed {
                    peer: id,
                    failure: failure.clone(),
                    attempt,
                    retry_in: until.saturating_duration_since(now),
                });
                if reconnecting {
                    self.transition(id, |lifecycle| lifecycle.attempt_failed(failure, now));
                }
            }
            Verdict::GiveUp(reason) => self.give_up(id, reason, now),
        }
        self.reindex(id);
    }

    /// No further attempt will be made, so that nothing that waits for one can succeed.
    fn give_up(&mut self, id: PeerId, reason: Failure, now: Instant) {
        if let Some(dialled) = self.peers.get_mut(&id).and_then(|p| p.dialled.as_mut()) {
            dialled.retry.cancel();
        }
        self.fail_queued(id, &reason);
        self.transition(id, |lifecycle| lifecycle.fail(reason, now));
    }

    /// Forgets the connection of a peer and everything that lived on it.
    fn drop_link(&mut self, id: PeerId, failure: &Failure, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.last_failure = Some(failure.clone());
        peer.held_bytes = 0;
        if let Some(link) = peer.link.take() {
            self.by_connection.remove(&link.connection);
            self.close_way_of(link.connection, now);
            self.on_client_detached(id, now);
            if self.is_relay(id) {
                self.on_relay_down(id, now);
            }
        }
        self.expiries.set(id, None);
        self.fail_sent(id, failure);
    }

    /// Ends a peer for good, telling the other side why if there is one.
    pub(super) fn end_peer(
        &mut self,
        id: PeerId,
        failure: &Failure,
        now: Instant,
    ) -> Result<(), Misuse> {
        let peer = self.peers.get(&id).ok_or(Misuse::UnknownPeer)?;
        if let Some(connection) = peer.connection() {
            self.by_connection.remove(&connection);
            self.endpoint.with(connection, now, |c| c.close(failure, now));
            self.let_go(connection, now);
        }
        self.remove_peer(id, failure, now);
        Ok(())
    }

    fn remove_peer(&mut self, id: PeerId, failure: &Failure, now: Instant) {
        self.drop_link(id, failure, now);
        self.fail_queued(id, failure);
        self.transition(id, |lifecycle| lifecycle.disconnect(now));
        self.peers.remove(&id);
        self.peer_timers.set(id, None);
        self.emit(Event::Closed { peer: id, failure: failure.clone() });
    }

    /// Closes a connection whose peer did not keep to the rules; the peer may come back. What follows
    /// for the peer happens when the node drains its queue, never from within this call.
    pub(super) fn break_link(&mut self, id: PeerId, failure: Failure, now: Instant) {
        let Some(connection) = self.peers.get(&id).and_then(Peer::connection) else { return };
        // Once is enough: what was closed before is in the queue already.
        if self.by_connection.remove(&connection).is_none() {
            return;
        }
        self.endpoint.with(connection, now, |c| c.close(&failure, now));
        self.let_go(connection, now);
        self.broken.push_back((id, connection, failure));
    }

    /// What a closed connection has still to say takes its way before that is forgotten.
    fn let_go(&mut self, connection: ConnectionId, now: Instant) {
        self.ways.leave(connection, now + LEAVING);
    }

    /// Forgets the way of a connection that is no more.
    fn close_way_of(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(number) = self.ways.by_connection(connection) {
            self.close_way(number, now);
        }
    }

    /// No relay knows the service of an attempt, or it cannot be dialled.
    pub(super) fn on_not_found(&mut self, id: PeerId, failure: Failure, now: Instant) {
        let waiting = self.peers.get(&id).and_then(|p| p.dialled.as_ref()?.attempt);
        if waiting.is_some_and(|attempt| attempt.connection.is_none()) {
            self.on_attempt_failed(id, failure, now);
        }
    }

    pub(super) fn on_peer_due(&mut self, id: PeerId, now: Instant) {
        self.refuse_overdue_prefaces(id, now);
        self.expire_queued(id, now);
        let has_relay = self.has_relay();
        let Some(dialled) = self.peers.get_mut(&id).and_then(|p| p.dialled.as_mut()) else {
            self.reindex(id);
            return;
        };
        if dialled.retry.poll(now).is_some() {
            self.start_attempt(id, now);
        } else if let Some(attempt) = dialled.attempt.filter(|a| a.due <= now) {
            let failure = match &dialled.search {
                Some(search) if attempt.connection.is_none() => search.verdict(has_relay),
                Some(_) | None => {
                    let sentence = "the handshake was not complete within the connect timeout";
                    Failure::new(Code::TimedOut, sentence)
                }
            };
            self.on_not_found(id, failure.clone(), now);
            self.break_link(id, failure, now);
        }
        self.on_attach_due(id, now);
        self.beat(id, now);
        self.reindex(id);
    }

    pub(super) fn on_network_changed(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if let Some(dialled) = &mut peer.dialled {
                dialled.retry.on_network_change(now);
            }
            // An end-to-end connection has no address that could change: its way has.
            if let Some(link) = peer.link.as_ref().filter(|link| link.way.is_none()) {
                let connection = link.connection;
                self.endpoint.with(connection, now, quic::Connection::local_address_changed);
            }
            self.reindex(id);
        }
        self.discovery.on_network_changed(now);
        self.on_ways_network_changed(now);
    }

    pub(super) fn on_send_failed(&mut self, route: Route, detail: &str, now: Instant) {
        let attempts: Vec<PeerId> = self
            .peers
            .values()
            .filter(|p| p.dialled.as_ref().is_some_and(|d| d.attempt.is_some()))
            .filter(|p| p.remote == route.remote)
            .map(|p| p.id)
            .collect();
        for id in attempts {
            self.break_link(id, Failure::new(Code::Unreachable, detail), now);
        }
        self.on_ways_send_failed(route, now);
    }
}
