//! The life of a connection: dialling, accepting, losing, ending.
//!
//! It asks the lifecycle, the retry policy and the heartbeat, and passes each answer on to the
//! next; it makes none of their decisions.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Peers;
use super::control::Control;
use super::peer::{ConnectAttempt, DialCredentials, Dialled, PeerConnection, PeerEntry};
use super::twins;
use crate::config::{Destination, Dial};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::heartbeat::HeartbeatMonitor;
use crate::id::PeerId;
use crate::lifecycle::State;
use crate::node::io::{Effect, Io};
use crate::quic::{self, ConnectionId};
use crate::retry::{Retry, RetryDecision};
use crate::shares::Origin;
use crate::tls::{Tls, TlsError};
use crate::transmit::Route;

/// The address of a peer while its path is not known.
const UNKNOWN_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0);

impl Peers {
    /// Adds a peer and starts the first attempt to connect to it.
    pub(in crate::node) fn dial(&mut self, dial: Dial, io: &mut Io) -> Result<PeerId, Misuse> {
        if io.shutdown.is_under_way() {
            return Err(Misuse::ShuttingDown);
        }
        if self.all.len() >= io.config.limits.peers {
            return Err(Misuse::OverLimit);
        }
        let own = dial.tls.as_ref().map(|tls| own(tls, &dial.to, io)).transpose()?;
        let connection = begin(&dial, own.as_ref(), io)?;
        let id = new_id(&mut self.next);
        let policy = dial.retry.unwrap_or(io.config.retry);
        let remote = match dial.to {
            Destination::Address(address) | Destination::Relay(address) => address,
            Destination::Service(_) => UNKNOWN_ADDRESS,
        };
        let retry = Retry::new(policy, io.rng("retry"));
        let dialled = Dialled {
            dial,
            own,
            attempt: Some(attempt(connection, &retry, io)),
            retry,
            heartbeat: HeartbeatMonitor::new(io.config.heartbeat),
            moved: None,
        };
        self.by_connection.extend(connection.map(|connection| (connection, id)));
        self.all.insert(id, PeerEntry::new(id, Some(dialled), remote));
        let now = io.now();
        self.transition(id, io, |lifecycle| lifecycle.connect(now));
        io.effect(Effect::AttemptStarted { peer: id });
        self.reindex(id);
        Ok(id)
    }

    /// Replaces the dial's own identity and trust, which it uses instead of the node's.
    pub(in crate::node) fn set_dial_tls(
        &mut self,
        id: PeerId,
        tls: &Tls,
        io: &Io,
    ) -> Result<(), Misuse> {
        let dialled = self.all.get_mut(&id).and_then(|p| p.dialled.as_mut());
        let dialled = dialled.ok_or(Misuse::UnknownPeer)?;
        dialled.own = Some(own(tls, &dialled.dial.to, io)?);
        Ok(())
    }

    /// Dials a failed peer again.
    pub(in crate::node) fn reconnect(&mut self, id: PeerId, io: &mut Io) -> Result<(), Misuse> {
        let peer = self.all.get(&id).ok_or(Misuse::UnknownPeer)?;
        if !matches!(peer.lifecycle.state(), State::Failed { .. }) {
            return Err(Misuse::WrongState);
        }
        let now = io.now();
        self.transition(id, io, |lifecycle| lifecycle.connect(now));
        self.start_attempt(id, io);
        Ok(())
    }

    /// Returns the name expected in the certificate of a peer, while its attempt waits until a
    /// relay finds the service.
    pub(in crate::node) fn awaited_name(&self, id: PeerId) -> Option<String> {
        let dialled = self.all.get(&id)?.dialled.as_ref()?;
        let is_waiting = dialled.attempt.is_some_and(|attempt| attempt.connection.is_none());
        is_waiting.then(|| dialled.dial.server_name.clone())
    }

    /// Assigns this connection to the attempt of a peer behind relays.
    pub(in crate::node) fn set_attempt(&mut self, id: PeerId, connection: ConnectionId) {
        let dialled = self.all.get_mut(&id).and_then(|p| p.dialled.as_mut());
        if let Some(attempt) = dialled.and_then(|d| d.attempt.as_mut()) {
            attempt.connection = Some(connection);
            self.by_connection.insert(connection, id);
        }
    }

    /// Handles a new address of a peer. One that was dialed at an address is dialed there as well when
    /// it is lost.
    pub(in crate::node) fn on_moved(&mut self, id: PeerId, remote: SocketAddr) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        let Some(dialled) = &mut peer.dialled else { return };
        if let Destination::Address(at) = dialled.dial.to {
            dialled.moved = Some(remote).filter(|it| *it != at);
            peer.remote = remote;
        }
    }

    fn start_attempt(&mut self, id: PeerId, io: &mut Io) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        let Some(dialled) = &mut peer.dialled else { return };
        // The address that it had before is dialed in turn: it may be there again.
        if let (Some(next), Destination::Address(at)) = (&mut dialled.moved, &mut dialled.dial.to) {
            std::mem::swap(next, at);
            peer.remote = *at;
        }
        match begin(&dialled.dial, dialled.own.as_ref(), io) {
            Ok(connection) => {
                self.by_connection.extend(connection.map(|connection| (connection, id)));
                if let Some(dialled) = self.all.get_mut(&id).and_then(|p| p.dialled.as_mut()) {
                    dialled.attempt = Some(attempt(connection, &dialled.retry, io));
                }
                io.effect(Effect::AttemptStarted { peer: id });
            }
            Err(misuse) => {
                let failure = Failure::new(Code::Misconfigured, misuse.to_string());
                self.on_attempt_failed(id, failure, io);
            }
        }
        self.reindex(id);
    }

    /// Handles an established connection that this node dialled.
    pub(in crate::node) fn on_dialled(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        io: &mut Io,
    ) {
        let dialled = self.all.get(&id).and_then(|p| p.dialled.as_ref());
        let credential = match self.check(connection, dialled, io) {
            Ok(credential) => credential,
            Err(failure) => return io.effect(Effect::Close { peer: id, failure }),
        };
        // The peer's limit always allows the first stream of a new connection: without any stream
        // it would be of no use to either end.
        let control = io.on(connection, quic::Connection::open).flatten();
        let (is_relay, now) = (self.is_relay(id), io.now());
        self.expiries.set(id, credential.not_after);
        let Some(peer) = self.all.get_mut(&id) else { return };
        let reconnected = matches!(peer.lifecycle.state(), State::Reconnecting { .. });
        peer.reconnections += u64::from(reconnected);
        peer.credential = Some(credential);
        let control = if is_relay { Control::of_relay(control) } else { Control::new(control) };
        peer.link = Some(PeerConnection::new(connection, control));
        if let Some(dialled) = &mut peer.dialled {
            dialled.attempt = None;
            dialled.retry.on_up(now);
            dialled.heartbeat.start(now);
        }
        self.transition(id, io, |lifecycle| lifecycle.connected(now));
        io.effect(Effect::Up { peer: id });
        self.beat(id, io);
        self.reindex(id);
    }

    /// Handles the completed handshake that another node began.
    pub(in crate::node) fn on_accepted(&mut self, connection: ConnectionId, io: &mut Io) {
        let Some(remote) = io.quic.get(connection).map(quic::Connection::remote) else { return };
        let admitted = match io.shutdown.is_under_way() {
            true => Err(Failure::new(Code::ShuttingDown, "shutting down")),
            false => self.check(connection, None, io).and_then(|credential| {
                let origin = Origin::new(remote.ip(), credential.mesh, credential.key);
                let silence = |id: &PeerId| {
                    let connection = self.link(*id).and_then(|it| io.quic.get(it));
                    let heard = connection.map(quic::Connection::last_heard);
                    heard.map_or(Duration::MAX, |at| io.now().saturating_duration_since(at))
                };
                let (limits, peers) = (&io.config.limits, self.all.len());
                let displaced =
                    self.places.displaced_by(&credential, &origin, limits, peers, silence)?;
                Ok((credential, origin, displaced))
            }),
        };
        let (credential, origin, displaced) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => {
                io.close(connection, &failure);
                io.effect(Effect::Refused { connection });
                io.reject(remote, failure);
                return;
            }
        };
        if let Some((peer, failure)) = displaced {
            self.places.remove(peer);
            io.effect(Effect::Close { peer, failure });
        }
        let (id, now) = (new_id(&mut self.next), io.now());
        self.expiries.set(id, credential.not_after);
        self.places.insert(id, &origin, credential.key);
        let mut peer = PeerEntry::new(id, None, remote);
        // The key of an invite is of no device.
        let key = (!credential.is_guest()).then_some(credential.key);
        peer.twin_key = key;
        peer.credential = Some(credential);
        peer.link = Some(PeerConnection::new(connection, Control::new(None)));
        self.by_connection.insert(connection, id);
        self.all.insert(id, peer);
        self.transition(id, io, |lifecycle| lifecycle.connect(now));
        self.transition(id, io, |lifecycle| lifecycle.connected(now));
        io.emit(Event::Accepted { peer: id });
        io.effect(Effect::Up { peer: id });
        self.reindex(id);
        if let Some(key) = key {
            self.twins.insert(key, id);
            twins::ask(self, key, id, io);
        }
    }

    /// Closes the connection of a peer, established or not; returns it unless it was closed before.
    pub(in crate::node) fn close(
        &mut self,
        id: PeerId,
        failure: &Failure,
        io: &mut Io,
    ) -> Option<ConnectionId> {
        let connection = self.connection(id)?;
        self.by_connection.remove(&connection)?;
        io.close(connection, failure);
        Some(connection)
    }

    /// Handles a connection that the transport has dropped; returns the peer it belonged to.
    pub(in crate::node) fn on_gone(&mut self, connection: ConnectionId) -> Option<PeerId> {
        self.by_connection.remove(&connection)
    }

    /// Handles the end of a peer's connection, or of an attempt at one.
    pub(in crate::node) fn on_lost(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        failure: Failure,
        io: &mut Io,
    ) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        let Some(link) = peer.link.take_if(|l| l.connection == connection) else {
            return self.on_attempt_failed(id, failure, io);
        };
        peer.last_failure = Some(failure.clone());
        let is_dialled = peer.dialled.is_some();
        self.expiries.set(id, None);
        io.effect(Effect::Down { peer: id, connection, failure: failure.clone() });
        if is_dialled {
            let failure = match link.back_after {
                Some(after) => failure.with_retry_after(after),
                None => failure,
            };
            io.effect(Effect::Redial { peer: id, failure });
        } else {
            io.effect(Effect::Remove { peer: id, failure });
        }
    }

    /// Handles a dialled peer's lost connection, once its streams and requests are settled.
    pub(in crate::node) fn on_link_lost(&mut self, id: PeerId, failure: Failure, io: &mut Io) {
        let now = io.now();
        let Some(dialled) = self.all.get_mut(&id).and_then(|p| p.dialled.as_mut()) else {
            return;
        };
        dialled.heartbeat.stop();
        match dialled.retry.on_down(&failure, now) {
            RetryDecision::Wait { attempt, .. } => {
                self.transition(id, io, |lifecycle| lifecycle.lost(failure, attempt, now));
            }
            RetryDecision::GiveUp(reason) => {
                self.transition(id, io, |lifecycle| lifecycle.lost(failure, 1, now));
                io.effect(Effect::GaveUp { peer: id, failure: reason });
            }
        }
        self.reindex(id);
    }

    pub(in crate::node) fn on_attempt_failed(&mut self, id: PeerId, failure: Failure, io: &mut Io) {
        let now = io.now();
        let Some(peer) = self.all.get_mut(&id) else { return };
        peer.last_failure = Some(failure.clone());
        let reconnecting = matches!(peer.lifecycle.state(), State::Reconnecting { .. });
        let Some(dialled) = &mut peer.dialled else { return };
        dialled.attempt = None;
        io.effect(Effect::AttemptFailed { peer: id });
        match dialled.retry.on_attempt_failed(&failure, now) {
            RetryDecision::Wait { attempt, until } => {
                io.emit(Event::AttemptFailed {
                    peer: id,
                    failure: failure.clone(),
                    attempt,
                    retry_in: until.saturating_duration_since(now),
                });
                if reconnecting {
                    self.transition(id, io, |lifecycle| lifecycle.attempt_failed(failure, now));
                }
            }
            RetryDecision::GiveUp(failure) => io.effect(Effect::GaveUp { peer: id, failure }),
        }
        self.reindex(id);
    }

    /// Handles an attempt for which no relay found the service, or that cannot be dialled.
    pub(in crate::node) fn on_not_found(&mut self, id: PeerId, failure: Failure, io: &mut Io) {
        let waiting = self.all.get(&id).and_then(|p| p.dialled.as_ref()?.attempt);
        if waiting.is_some_and(|attempt| attempt.connection.is_none()) {
            self.on_attempt_failed(id, failure, io);
        }
    }

    /// Handles the end of all attempts: what waits for a connection cannot succeed.
    pub(in crate::node) fn on_gave_up(&mut self, id: PeerId, reason: Failure, io: &mut Io) {
        if let Some(dialled) = self.all.get_mut(&id).and_then(|p| p.dialled.as_mut()) {
            dialled.retry.cancel();
        }
        let now = io.now();
        self.transition(id, io, |lifecycle| lifecycle.fail(reason, now));
        self.reindex(id);
    }

    /// Ends a peer permanently and sends the other side the reason; returns the connection that
    /// this closed.
    pub(in crate::node) fn end(
        &mut self,
        id: PeerId,
        failure: Failure,
        io: &mut Io,
    ) -> Result<Option<ConnectionId>, Misuse> {
        if !self.all.contains_key(&id) {
            return Err(Misuse::UnknownPeer);
        }
        let closed = self.close(id, &failure, io);
        self.expiries.set(id, None);
        let Some(peer) = self.all.get_mut(&id) else { return Err(Misuse::UnknownPeer) };
        peer.last_failure = Some(failure.clone());
        if let Some(link) = peer.link.take() {
            let (connection, failure) = (link.connection, failure.clone());
            io.effect(Effect::Down { peer: id, connection, failure });
        }
        io.effect(Effect::Remove { peer: id, failure });
        Ok(closed)
    }

    /// Removes a peer without any remaining state.
    pub(in crate::node) fn remove(&mut self, id: PeerId, failure: Failure, io: &mut Io) {
        let Some(peer) = self.all.get(&id) else { return };
        if let Some(key) = peer.twin_key {
            self.twins.remove(key, id);
        }
        let now = io.now();
        self.transition(id, io, |lifecycle| lifecycle.disconnect(now));
        self.all.remove(&id);
        self.places.remove(id);
        self.timers.set(id, None);
        io.emit(Event::Closed { peer: id, failure });
    }

    /// Does the work that is due for a peer.
    pub(in crate::node) fn on_due(&mut self, id: PeerId, io: &mut Io) {
        let now = io.now();
        let Some(peer) = self.all.get_mut(&id) else { return };
        twins::judge(peer, io);
        let Some(dialled) = &mut peer.dialled else { return self.reindex(id) };
        if dialled.retry.poll(now).is_some() {
            self.start_attempt(id, io);
        } else if let Some(attempt) = dialled.attempt.filter(|a| a.due <= now) {
            if attempt.connection.is_none() {
                io.effect(Effect::LookupOverdue { peer: id });
            } else {
                let sentence = "the handshake was not complete within the connect timeout";
                let failure = Failure::new(Code::TimedOut, sentence);
                io.effect(Effect::Close { peer: id, failure });
            }
        }
        self.beat(id, io);
        self.reindex(id);
    }

    pub(in crate::node) fn on_network_changed(&mut self, io: &mut Io) {
        let now = io.now();
        for id in self.ids().collect::<Vec<_>>() {
            let Some(peer) = self.all.get_mut(&id) else { continue };
            if let Some(dialled) = &mut peer.dialled {
                dialled.retry.on_network_change(now);
                dialled.heartbeat.on_resume(now);
            }
            let link = peer.link.as_ref().map(|link| link.connection);
            // An overlay connection has a constant address: its paths change.
            let link = link.filter(|&it| io.quic.get(it).is_some_and(|c| !c.is_overlay()));
            if let Some(connection) = link {
                io.quic.with(connection, now, quic::Connection::local_address_changed);
            }
            self.reindex(id);
        }
    }

    /// Handles a caller that waits for a connection to this peer. Behind relays, those that are not
    /// connected are wanted as well.
    pub(in crate::node) fn on_demand(&mut self, id: PeerId, io: &Io) {
        let now = io.now();
        let Some(peer) = self.all.get(&id).filter(|p| p.link.is_none()) else { return };
        let Some(dialled) = &peer.dialled else { return };
        let mut wanted = vec![id];
        if matches!(dialled.dial.to, Destination::Service(_)) {
            wanted.extend(self.all.values().filter(|p| p.is_relay()).map(|p| p.id));
        }
        for id in wanted {
            let Some(peer) = self.all.get_mut(&id).filter(|p| p.link.is_none()) else { continue };
            if let Some(dialled) = &mut peer.dialled {
                dialled.retry.on_demand(now);
            }
            self.reindex(id);
        }
    }

    /// Handles a failed send to an address: attempts that go there have failed.
    pub(in crate::node) fn on_send_failed(&mut self, route: Route, detail: &str, io: &mut Io) {
        let fails = |p: &&PeerEntry| {
            p.remote == route.remote && p.dialled.as_ref().is_some_and(|d| d.attempt.is_some())
        };
        for peer in self.all.values().filter(fails) {
            let failure = Failure::new(Code::Unreachable, detail);
            io.effect(Effect::Close { peer: peer.id, failure });
        }
    }
}

const fn new_id(next: &mut u64) -> PeerId {
    let id = PeerId(*next);
    *next += 1;
    id
}

fn attempt(connection: Option<ConnectionId>, retry: &Retry, io: &Io) -> ConnectAttempt {
    let due: Instant = io.now() + retry.attempt_timeout(io.config.transport.connect_timeout);
    ConnectAttempt { connection, due }
}

/// Begins a connection, if the address is known.
fn begin(
    dial: &Dial,
    own: Option<&DialCredentials>,
    io: &mut Io,
) -> Result<Option<ConnectionId>, Misuse> {
    match dial.to {
        Destination::Address(address) | Destination::Relay(address) => {
            let (route, client, now) = (Route::to(address), own.map(|own| &own.client), io.now());
            io.quic.connect(route, &dial.server_name, client, now).map(Some)
        }
        Destination::Service(_) => Ok(None),
    }
}

fn own(tls: &Tls, to: &Destination, io: &Io) -> Result<DialCredentials, Misuse> {
    let layer = match to {
        Destination::Relay(_) => quic::Layer::Underlay,
        Destination::Address(_) | Destination::Service(_) => quic::Layer::Direct,
    };
    let unusable = |error: TlsError| {
        tracing::warn!(%error, "the identity or the trust of a dial cannot be used");
        Misuse::UnusableIdentity
    };
    let verifiers = tls.verifiers().map_err(unusable)?;
    let client = io.quic.client(tls, &verifiers, layer).map_err(unusable)?;
    Ok(DialCredentials { client, verifiers })
}
