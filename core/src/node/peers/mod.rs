//! Every peer of a node, its connection and its timers.
//!
//! Peers are added and removed in `connections`, authenticated in `credentials`, and exchange
//! control messages in `control_io`; `twins` compares the connections of one device. This owner decides how many peers there may be. Consequences
//! for the streams, requests, paths and relays of a peer are queued as an
//! [`Effect`](super::io::Effect).

mod connections;
mod control;
mod control_io;
mod credentials;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod peer;
mod places;
mod twins;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::io::Io;
use super::snapshot::{Parts, PeerSnapshot};
use crate::error::Misuse;
use crate::event::Event;
use crate::history::{History, Record, RecordKind};
use crate::id::PeerId;
use crate::lifecycle::{Lifecycle, Refused, State, Transition};
use crate::message::ServiceName;
use crate::quic::{Connection, ConnectionId};
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::tls::{Credential, Verifiers};
pub(super) use control_io::{CONTEXT_APPLICATION, CONTEXT_CONTROL};
use credentials::Expiries;
use peer::{PeerConnection, PeerEntry};
use places::Places;
use twins::Twins;

/// All peers of a node.
pub(super) struct Peers {
    all: BTreeMap<PeerId, PeerEntry>,
    /// The peer of each connection; one that this side closed has none.
    by_connection: BTreeMap<ConnectionId, PeerId>,
    next: u64,
    timers: Timers<PeerId>,
    verifiers: Verifiers,
    expiries: Expiries,
    twins: Twins,
    /// Peers with certificates that are still to be checked against the present trust.
    rechecks: VecDeque<PeerId>,
    history: History,
    /// Of the peers that connected to this node.
    places: Places,
}

impl Peers {
    pub(super) fn new(verifiers: Verifiers) -> Self {
        Self {
            all: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            next: 0,
            timers: Timers::new(),
            verifiers,
            expiries: Expiries::default(),
            twins: Twins::default(),
            rechecks: VecDeque::new(),
            history: History::default(),
            places: Places::default(),
        }
    }

    pub(super) fn state(&self, id: PeerId) -> Option<&State> {
        self.all.get(&id).map(|p| p.lifecycle.state())
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PeerId> {
        self.all.keys().copied()
    }

    /// Returns the peer whose connection this is.
    pub(super) fn on(&self, connection: ConnectionId) -> Option<PeerId> {
        self.by_connection.get(&connection).copied()
    }

    /// Returns the connection of a peer, established or not.
    pub(super) fn connection(&self, id: PeerId) -> Option<ConnectionId> {
        self.all.get(&id)?.connection()
    }

    /// Returns the connection of a peer, if it is established.
    pub(super) fn link(&self, id: PeerId) -> Option<ConnectionId> {
        Some(self.all.get(&id)?.link.as_ref()?.connection)
    }

    pub(super) fn is_dialled(&self, id: PeerId) -> bool {
        self.all.get(&id).is_some_and(|p| p.dialled.is_some())
    }

    /// Returns true if this node uses a peer as a relay.
    pub(super) fn is_relay(&self, id: PeerId) -> bool {
        self.all.get(&id).is_some_and(PeerEntry::is_relay)
    }

    /// Returns the service by which a peer is looked up, if it is behind relays.
    pub(super) fn service(&self, id: PeerId) -> Option<&ServiceName> {
        let crate::config::Destination::Service(service) =
            &self.all.get(&id)?.dialled.as_ref()?.dial.to
        else {
            return None;
        };
        Some(service)
    }

    pub(super) fn credential(&self, id: PeerId) -> Option<&Credential> {
        self.all.get(&id)?.credential.as_ref()
    }

    /// Whether a stream may be opened to a peer.
    pub(super) fn may_open(&self, id: PeerId, io: &Io) -> Result<(), Misuse> {
        let peer = self.all.get(&id).ok_or(Misuse::UnknownPeer)?;
        let link = peer.link.as_ref().ok_or(Misuse::NotConnected)?;
        if io.shutdown.is_under_way() || link.going_away {
            Err(Misuse::ShuttingDown)
        } else {
            Ok(())
        }
    }

    /// Checks whether a request to a peer may wait for its connection.
    pub(super) fn may_request(&self, id: PeerId, io: &Io) -> Result<(), Misuse> {
        let peer = self.all.get(&id).ok_or(Misuse::UnknownPeer)?;
        if io.shutdown.is_under_way() {
            return Err(Misuse::ShuttingDown);
        }
        if matches!(peer.lifecycle.state(), State::Failed { .. }) {
            return Err(Misuse::WrongState);
        }
        Ok(())
    }

    /// Returns true if requests can be written to a peer now.
    pub(super) fn takes_requests(&self, id: PeerId) -> bool {
        self.all.get(&id).and_then(|p| p.link.as_ref()).is_some_and(|link| !link.going_away)
    }

    /// Keeps a datagram for the application until it is fetched.
    pub(super) fn push_datagram(&mut self, id: PeerId, data: &[u8], io: &Io) {
        let limit = io.config.transport.datagram_receive_buffer as usize;
        if let Some(peer) = self.all.get_mut(&id) {
            peer.push_datagram(data, limit);
        }
    }

    pub(super) fn pop_datagram(&mut self, id: PeerId) -> Option<Bytes> {
        self.all.get_mut(&id)?.pop_datagram()
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        self.timers.pop_due(now).map(|(id, _)| id)
    }

    pub(super) fn deadline(&self, io: &Io) -> Option<Deadline> {
        let rechecks = (!self.rechecks.is_empty()).then(|| (io.now(), Reason::Backlog));
        earliest([self.timers.next(), self.expiries.deadline(io.unix(), io.now()), rechecks])
    }

    /// Fills in this owner's part of a peer's snapshot.
    pub(super) fn describe(&self, id: PeerId, parts: Parts, io: &Io) -> Option<PeerSnapshot> {
        let peer = self.all.get(&id)?;
        let connection = peer.link.as_ref().and_then(|l| io.quic.get(l.connection));
        Some(PeerSnapshot {
            id,
            credential: peer.credential.clone(),
            remote: connection.map_or(peer.remote, Connection::remote),
            dialled: peer.dialled.is_some(),
            is_relay: peer.is_relay(),
            is_registered: parts.is_registered,
            path: parts.path,
            state: peer.lifecycle.state().view(parts.now),
            healthy: peer.lifecycle.is_healthy(),
            latency: peer.latency.summary(),
            heartbeats: peer.dialled.as_ref().map(|d| d.heartbeat.stats()).unwrap_or_default(),
            transport: connection.map(Connection::statistics).unwrap_or_default(),
            rtt_ms: connection.map(|c| c.rtt().as_secs_f64() * 1e3),
            requests: parts.requests,
            streams: parts.streams,
            reconnections: peer.reconnections,
            datagrams_dropped: peer.datagrams_dropped,
            unknown_frames: peer.link.as_ref().map_or(0, |l| l.control.unknown),
            held_bytes: parts.held_bytes,
            last_failure: peer.last_failure.clone(),
        })
    }

    fn link_mut(&mut self, id: PeerId) -> Option<&mut PeerConnection> {
        self.all.get_mut(&id)?.link.as_mut()
    }

    /// Recomputes the deadline of a peer.
    fn reindex(&mut self, id: PeerId) {
        let deadline = self.all.get(&id).and_then(PeerEntry::deadline);
        self.timers.set(id, deadline);
    }

    /// Changes a peer's state and emits the transition; a refused change is a bug of this node.
    fn transition(
        &mut self,
        id: PeerId,
        io: &mut Io,
        change: impl FnOnce(&mut Lifecycle) -> Result<Transition, Refused>,
    ) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        match change(&mut peer.lifecycle) {
            Ok(transition) => {
                self.history.push(record(id, &transition, io));
                io.emit(Event::Transition { peer: id, transition });
            }
            Err(refused) => tracing::error!(%refused, "an illegal transition was tried"),
        }
    }
}

fn record(peer: PeerId, transition: &Transition, io: &Io) -> Record {
    let (kind, cause) = match &transition.to {
        State::Disconnected => (RecordKind::Disconnected, None),
        State::Connecting { .. } => (RecordKind::Connecting, None),
        State::Connected { .. } => (RecordKind::Connected, None),
        State::Reconnecting { last_error, .. } => (RecordKind::Reconnecting, Some(last_error)),
        State::Failed { error, .. } => (RecordKind::Failed, Some(error)),
    };
    Record { at: io.unix(), peer, kind, cause: cause.cloned() }
}
