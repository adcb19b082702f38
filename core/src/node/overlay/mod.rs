//! Every end-to-end connection of a node, the paths of its packets, and the addresses at which this
//! node may be reached.
//!
//! The transport sees one constant address per overlay connection (its [`OverlayId`]); below that,
//! each packet goes directly or through a relay. [`crate::path`] decides which path it takes. This
//! owner keeps the paths, the channels at relays and the incomplete packets; `packets` moves their
//! bytes, `candidates` exchanges addresses.

mod candidates;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod packets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::io::Io;
use crate::encapsulation::Reassembly;
use crate::error::{Code, Failure, Misuse};
use crate::id::{Channel, OverlayId, PeerId};
use crate::message::{Hangup, Incoming, Message, RelayMessage};
use crate::path::{self, AddressDiscovery, Mapping, PathRole, Paths};
use crate::probe::ProbeKey;
use crate::quic::ConnectionId;
use crate::relay_client::EarlyDatagrams;
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::transmit::{Route, Transmit, overlay_address};

/// Label that separates the keys of probes from every other use of a TLS session (RFC 8446 §7.5).
const PROBE_LABEL: &[u8] = b"adit/1 path probe";

/// Probes and released packets that wait to be sent: more are dropped, as on any full queue.
const MAX_WAITING: usize = 4_096;

/// How long the paths of a connection that this side closed are kept: pacing can hold its close
/// back.
const LEAVING: Duration = Duration::from_secs(3);

/// One end-to-end connection.
#[derive(Debug)]
struct OverlayConnection {
    role: PathRole,
    paths: Paths,
    connection: Option<ConnectionId>,
    /// The peer at the other end, while it is known and its connection is not closed.
    peer: Option<PeerId>,
    /// Its channels at relays.
    channels: BTreeSet<Channel>,
    /// The tag by which the peer's probes name this connection, and their key.
    theirs: Option<(u64, ProbeKey)>,
    reassembly: Reassembly,
    next_part: u16,
    /// When it is removed unless its connection is confirmed by then.
    due: Option<Instant>,
}

/// All end-to-end connections of a node.
#[derive(Debug)]
pub(super) struct Overlay {
    all: BTreeMap<OverlayId, OverlayConnection>,
    by_channel: BTreeMap<Channel, OverlayId>,
    by_session: BTreeMap<u64, OverlayId>,
    by_connection: BTreeMap<ConnectionId, OverlayId>,
    /// Connections to relays, which carry packets.
    relays: BTreeMap<PeerId, ConnectionId>,
    timers: Timers<OverlayId>,
    /// Connections that are closing, or without a confirmed handshake.
    waiting: usize,
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    next: OverlayId,
    discovery: AddressDiscovery,
    /// The revision of what was discovered that the paths know.
    discovered: u64,
    /// Packets of channels that are not announced yet.
    early: EarlyDatagrams,
}

impl Overlay {
    pub(super) fn new(rng: Rng, now: Instant) -> Self {
        Self {
            all: BTreeMap::new(),
            by_channel: BTreeMap::new(),
            by_session: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            relays: BTreeMap::new(),
            timers: Timers::new(),
            waiting: 0,
            outbox: VecDeque::new(),
            next: OverlayId::default(),
            discovery: AddressDiscovery::new(rng, now),
            discovered: 0,
            early: EarlyDatagrams::default(),
        }
    }

    pub(super) fn by_connection(&self, connection: ConnectionId) -> Option<OverlayId> {
        self.by_connection.get(&connection).copied()
    }

    /// Returns true if a connection has a channel at a relay.
    pub(super) fn has_channel_at(&self, connection: ConnectionId, relay: PeerId) -> bool {
        let overlaid = self.by_connection(connection).and_then(|id| self.all.get(&id));
        overlaid.is_some_and(|it| it.channels.iter().any(|channel| channel.relay == relay))
    }

    /// Returns how the network maps the addresses of this node's packets.
    pub(super) const fn mapping(&self) -> Mapping {
        self.discovery.mapping()
    }

    /// Returns the paths to the other end of a connection, and why one is in use.
    pub(super) fn view(&self, connection: ConnectionId, now: Instant) -> Option<path::PathsView> {
        let id = self.by_connection(connection)?;
        self.all.get(&id).map(|it| it.paths.view(now))
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        earliest([self.timers.next(), self.discovery.deadline()])
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Puts the next batch for a direct path into `out`.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.outbox.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(transmit)
    }

    /// Queues a batch for a direct path.
    pub(super) fn push(&mut self, route: Route, bytes: Vec<u8>, segment_size: Option<usize>) {
        if self.outbox.len() < MAX_WAITING {
            let size = bytes.len();
            let segment_size = segment_size.filter(|segment| *segment < size);
            self.outbox.push_back((Transmit { route, ecn: None, segment_size, size }, bytes));
        }
    }

    /// Adds the first channel to a peer that this node dials, and begins a connection on it.
    pub(super) fn dial(
        &mut self,
        peer: PeerId,
        channel: Channel,
        server_name: &str,
        io: &mut Io,
    ) -> Result<ConnectionId, Misuse> {
        let (id, now) = (self.begin(PathRole::Dialler, channel, io), io.now());
        match io.quic.connect_overlay(overlay_address(id), server_name, now) {
            Ok(connection) => {
                self.set_connection(id, connection);
                if let Some(overlaid) = self.all.get_mut(&id) {
                    overlaid.peer = Some(peer);
                }
                Ok(connection)
            }
            Err(misuse) => {
                self.forget(id, io);
                Err(misuse)
            }
        }
    }

    /// Handles a channel that a relay announces, of a client that dials this node.
    pub(super) fn on_incoming(&mut self, relay: PeerId, incoming: &Incoming, io: &mut Io) {
        let channel = Channel { relay, number: incoming.channel };
        let refusal = if io.shutdown.is_under_way() {
            Some(Failure::new(Code::ShuttingDown, "shutting down"))
        } else if !io.config.listening {
            Some(Failure::new(Code::UnknownService, "this node accepts nobody"))
        } else if self.waiting >= io.config.limits.handshakes {
            Some(Failure::new(Code::Overloaded, "too many handshakes are under way"))
        } else {
            None
        };
        if let Some(why) = refusal {
            hang_up(channel, &why, io);
            return;
        }
        self.begin(PathRole::Acceptor, channel, io);
        for datagram in self.early.take(channel, io.now()) {
            self.on_encapsulated(relay, datagram, false, io);
        }
    }

    fn begin(&mut self, role: PathRole, channel: Channel, io: &mut Io) -> OverlayId {
        let id = self.next;
        self.next = id.next();
        let (rng, now) = (io.rng("path"), io.now());
        let due = match role {
            // An attempt has a time limit of its own.
            PathRole::Dialler => None,
            PathRole::Acceptor => Some(now + io.config.limits.handshake_timeout),
        };
        let overlaid = OverlayConnection {
            role,
            paths: Paths::new(io.config.path.clone(), role, channel, rng, now),
            connection: None,
            peer: None,
            channels: BTreeSet::from([channel]),
            theirs: None,
            reassembly: Reassembly::default(),
            next_part: 0,
            due,
        };
        self.waiting += usize::from(due.is_some());
        self.all.insert(id, overlaid);
        self.by_channel.insert(channel, id);
        self.reindex(id);
        id
    }

    /// Adds a channel through another relay to the other end of a connection.
    pub(super) fn add_channel(&mut self, id: OverlayId, channel: Channel, io: &mut Io) {
        if let Some(overlaid) = self.all.get_mut(&id) {
            overlaid.paths.add_relayed(channel, io.now());
            overlaid.channels.insert(channel);
            self.by_channel.insert(channel, id);
            self.drain(id, io);
        }
    }

    /// Removes a channel that is over; its connection goes on over other paths, if there are any.
    /// Returns the peer that the channel belonged to.
    pub(super) fn drop_channel(&mut self, channel: Channel, io: &mut Io) -> Option<PeerId> {
        let id = self.by_channel.remove(&channel)?;
        let overlaid = self.all.get_mut(&id)?;
        overlaid.channels.remove(&channel);
        overlaid.paths.remove_relayed(channel, io.now());
        let (has_connection, peer) = (overlaid.connection.is_some(), overlaid.peer);
        self.drain(id, io);
        if !has_connection {
            self.forget(id, io);
        }
        peer
    }

    /// Handles a connected relay.
    pub(super) fn on_relay_up(&mut self, relay: PeerId, connection: ConnectionId) {
        self.relays.insert(relay, connection);
    }

    /// Handles the loss of a relay, and of every channel through it.
    pub(super) fn on_relay_down(&mut self, relay: PeerId, io: &mut Io) {
        self.relays.remove(&relay);
        self.early.forget(relay);
        self.discovery.on_relay_lost(relay);
        let (first, last) = (Channel { relay, number: 0 }, Channel { relay, number: u32::MAX });
        let channels = self.by_channel.range(first..=last).map(|(channel, _)| *channel);
        for channel in channels.collect::<Vec<_>>() {
            self.drop_channel(channel, io);
        }
    }

    /// Handles an established end-to-end connection: from here on its two ends share a secret.
    pub(super) fn on_up(&mut self, connection: ConnectionId, peer: PeerId, io: &mut Io) {
        let Some(id) = self.by_connection(connection) else { return };
        let export = |context: &[u8]| {
            let end = io.quic.get(connection)?;
            let bytes: [u8; 40] = end.export(PROBE_LABEL, context)?;
            let (session, key) = bytes.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*session), ProbeKey::new(*key.first_chunk()?)))
        };
        let (Some(dialler), Some(acceptor)) = (export(b"dialler"), export(b"acceptor")) else {
            return;
        };
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        let now = io.now();
        let Some(overlaid) = self.all.get_mut(&id) else { return };
        let (ours, theirs) = match overlaid.role {
            PathRole::Dialler => (dialler, acceptor),
            PathRole::Acceptor => (acceptor, dialler),
        };
        self.waiting -= usize::from(overlaid.due.take().is_some());
        overlaid.peer = Some(peer);
        overlaid.theirs = Some(theirs.clone());
        self.by_session.insert(theirs.0, id);
        overlaid.paths.set_keys(ours, theirs, now);
        overlaid.paths.set_local(&candidates, mapping, now);
        self.drain(id, io);
    }

    /// Handles the close of a connection by this side: its path is kept until the close is sent.
    pub(super) fn leave(&mut self, connection: ConnectionId, io: &Io) {
        let Some(id) = self.by_connection.remove(&connection) else { return };
        if let Some(overlaid) = self.all.get_mut(&id) {
            overlaid.peer = None;
            let was_waiting = overlaid.due.replace(io.now() + LEAVING).is_some();
            self.waiting += usize::from(!was_waiting);
        }
        self.reindex(id);
    }

    /// Handles the failure of a handshake that another node began.
    pub(super) fn on_rejected(
        &mut self,
        connection: ConnectionId,
        remote: SocketAddr,
        failure: Failure,
        io: &mut Io,
    ) {
        self.on_gone(connection, io);
        tracing::debug!(%remote, %failure, "a handshake failed");
        io.reject(remote, failure);
    }

    /// Removes a connection that no longer exists.
    pub(super) fn on_gone(&mut self, connection: ConnectionId, io: &mut Io) {
        if let Some(id) = self.by_connection(connection) {
            self.forget(id, io);
        }
    }

    /// Removes a connection and returns its channels to the relays.
    fn forget(&mut self, id: OverlayId, io: &mut Io) {
        let Some(overlaid) = self.all.remove(&id) else { return };
        self.timers.set(id, None);
        self.waiting -= usize::from(overlaid.due.is_some());
        if let Some(connection) = overlaid.connection {
            self.by_connection.remove(&connection);
        }
        if let Some((session, _)) = overlaid.theirs {
            self.by_session.remove(&session);
        }
        let why = Failure::new(Code::Closed, "the connection is over");
        for channel in overlaid.channels {
            self.by_channel.remove(&channel);
            hang_up(channel, &why, io);
        }
    }

    pub(super) fn on_network_changed(&mut self, io: &mut Io) {
        self.discovery.on_network_changed(io.now());
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(overlaid) = self.all.get_mut(&id) {
                overlaid.paths.on_network_changed(io.now());
            }
            self.drain(id, io);
        }
    }

    /// Handles a failed send to an address.
    pub(super) fn on_send_failed(&mut self, route: Route, io: &mut Io) {
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(overlaid) = self.all.get_mut(&id) {
                overlaid.paths.on_send_failed(route, io.now());
            }
            self.drain(id, io);
        }
    }

    /// Does the work that is due by now.
    pub(super) fn advance(&mut self, io: &mut Io) {
        let now = io.now();
        self.on_discovered(io);
        while let Some((id, _)) = self.timers.pop_due(now) {
            let due = self.all.get(&id).and_then(|overlaid| overlaid.due);
            if due.is_some_and(|due| due <= now) {
                self.forget(id, io);
            } else {
                self.drain(id, io);
            }
        }
    }

    fn set_connection(&mut self, id: OverlayId, connection: ConnectionId) {
        if let Some(overlaid) = self.all.get_mut(&id) {
            overlaid.connection = Some(connection);
            self.by_connection.insert(connection, id);
        }
    }

    pub(super) fn set_local(&mut self, addresses: &[SocketAddr]) {
        self.discovery.set_local(addresses);
    }

    pub(super) fn set_mapped(&mut self, addresses: &[SocketAddr]) {
        self.discovery.set_mapped(addresses);
    }

    fn reindex(&mut self, id: OverlayId) {
        let deadline = self.all.get(&id).and_then(|overlaid| {
            let due = overlaid.due.map(|due| (due, Reason::Connect));
            earliest([overlaid.paths.deadline(), due])
        });
        self.timers.set(id, deadline);
    }
}

/// Returns a channel to its relay.
pub(super) fn hang_up(channel: Channel, why: &Failure, io: &mut Io) {
    io.send(channel.relay, Message::Relay(RelayMessage::Hangup(Hangup::new(channel.number, why))));
}
