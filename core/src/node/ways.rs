//! Each end-to-end connection has a way: its path machine, the channels it has at relays, and the
//! parts of packets that are not whole yet. Here ways begin, are found and end; `carriage` moves
//! their bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::Node;
use crate::encapsulation::Reassembly;
use crate::error::{Code, Failure};
use crate::id::{Channel, PeerId};
use crate::path::{self, PathRole, Paths};
use crate::probe::ProbeKey;
use crate::quic::ConnectionId;
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::transmit::{Route, Transmit};

/// What keeps the keys of probes apart from every other use of a TLS session (RFC 8446 §7.5).
const PROBE_LABEL: &[u8] = b"adit/1 path probe";

/// Probes and released packets that wait to be sent: those beyond are lost, as on any full queue.
const MAX_WAITING: usize = 4_096;

/// One connection's way.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) role: PathRole,
    pub(super) paths: Paths,
    pub(super) connection: Option<ConnectionId>,
    /// The tag by which the peer's probes name this way, and their key.
    pub(super) theirs: Option<(u64, ProbeKey)>,
    pub(super) reassembly: Reassembly,
    pub(super) next_part: u16,
    /// When it is closed unless its connection is confirmed by then.
    pub(super) due: Option<Instant>,
}

/// All ways of a node.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) all: BTreeMap<u32, Way>,
    pub(super) by_channel: BTreeMap<Channel, u32>,
    pub(super) by_session: BTreeMap<u64, u32>,
    pub(super) by_connection: BTreeMap<ConnectionId, u32>,
    timers: Timers<u32>,
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    next: u32,
}

impl Ways {
    /// Ways whose connection is not confirmed yet.
    pub(super) fn waiting(&self) -> usize {
        self.all.values().filter(|way| way.due.is_some()).count()
    }

    pub(super) fn by_channel(&self, channel: Channel) -> Option<u32> {
        self.by_channel.get(&channel).copied()
    }

    pub(super) fn by_connection(&self, connection: ConnectionId) -> Option<u32> {
        self.by_connection.get(&connection).copied()
    }

    pub(super) fn channels_of(&self, relay: PeerId) -> Vec<Channel> {
        self.by_channel.keys().filter(|channel| channel.relay == relay).copied().collect()
    }

    pub(super) fn has_channel_at(&self, number: u32, relay: PeerId) -> bool {
        self.by_channel.iter().any(|(channel, of)| *of == number && channel.relay == relay)
    }

    pub(super) fn set_connection(&mut self, number: u32, connection: ConnectionId) {
        if let Some(way) = self.all.get_mut(&number) {
            way.connection = Some(connection);
            self.by_connection.insert(connection, number);
        }
    }

    /// A connection was closed: its way carries its last words and is forgotten then.
    pub(super) fn leave(&mut self, connection: ConnectionId, due: Instant) {
        let Some(number) = self.by_connection.remove(&connection) else { return };
        if let Some(way) = self.all.get_mut(&number) {
            way.due = Some(due);
        }
        self.reindex(number);
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next batch that goes out bare, put into `out`.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.outbox.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(transmit)
    }

    pub(super) fn push(&mut self, route: Route, bytes: Vec<u8>, segment_size: Option<usize>) {
        if self.outbox.len() < MAX_WAITING {
            let size = bytes.len();
            let segment_size = segment_size.filter(|segment| *segment < size);
            self.outbox.push_back((Transmit { route, ecn: None, segment_size, size }, bytes));
        }
    }

    /// Checks that the indices agree with what they index.
    ///
    /// # Panics
    /// When they do not.
    #[cfg(feature = "testing")]
    pub(super) fn audit(&self) {
        let is_there = |number: &u32| self.all.contains_key(number);
        assert!(self.by_channel.values().all(is_there), "a channel leads nowhere");
        assert!(self.by_session.values().all(is_there), "a session is nobody's");
        for (connection, number) in &self.by_connection {
            let way = self.all.get(number).expect("a connection has its way");
            assert_eq!(way.connection, Some(*connection));
        }
        assert!(self.outbox.len() <= MAX_WAITING);
    }

    pub(super) fn reindex(&mut self, number: u32) {
        let deadline = self.all.get(&number).and_then(|way| {
            earliest([way.paths.deadline(), way.due.map(|due| (due, Reason::Connect))])
        });
        self.timers.set(number, deadline);
    }
}

impl Node {
    /// A way for a connection that begins on a channel of a relay.
    pub(super) fn open_way(&mut self, role: PathRole, channel: Channel, now: Instant) -> u32 {
        let number = self.ways.next;
        self.ways.next = number.wrapping_add(1);
        let rng = Rng::new(self.rng.seed(), "path");
        let due = match role {
            // An attempt has a time limit of its own.
            PathRole::Dialler => None,
            PathRole::Acceptor => Some(now + self.config.limits.handshake_timeout),
        };
        let way = Way {
            role,
            paths: Paths::new(self.config.path.clone(), role, channel, rng, now),
            connection: None,
            theirs: None,
            reassembly: Reassembly::default(),
            next_part: 0,
            due,
        };
        self.ways.all.insert(number, way);
        self.ways.by_channel.insert(channel, number);
        self.ways.reindex(number);
        number
    }

    /// Another relay leads to the same peer.
    pub(super) fn add_channel(&mut self, number: u32, channel: Channel, now: Instant) {
        if let Some(way) = self.ways.all.get_mut(&number) {
            way.paths.add_relayed(channel, now);
            self.ways.by_channel.insert(channel, number);
            self.drain_way(number, now);
        }
    }

    /// A channel is over; its way goes on by others, if there are any.
    pub(super) fn drop_channel(&mut self, channel: Channel, now: Instant) {
        let Some(number) = self.ways.by_channel.remove(&channel) else { return };
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        way.paths.remove_relayed(channel, now);
        let is_of_nobody = way.connection.is_none();
        self.drain_way(number, now);
        if is_of_nobody {
            self.close_way(number, now);
        }
    }

    /// Forgets a way; relays are told that its channels are not needed any more.
    pub(super) fn close_way(&mut self, number: u32, now: Instant) {
        let Some(way) = self.ways.all.remove(&number) else { return };
        self.ways.timers.set(number, None);
        if let Some(connection) = way.connection {
            self.ways.by_connection.remove(&connection);
        }
        if let Some((session, _)) = way.theirs {
            self.ways.by_session.remove(&session);
        }
        let of = |(channel, of): (&Channel, &u32)| (*of == number).then_some(*channel);
        let channels: Vec<Channel> = self.ways.by_channel.iter().filter_map(of).collect();
        let why = Failure::new(Code::Closed, "the connection is over");
        for channel in channels {
            self.ways.by_channel.remove(&channel);
            self.hang_up(channel, &why, now);
        }
    }

    /// The end-to-end connection is up: its two ends share a secret from here on.
    pub(super) fn on_inner_up(&mut self, number: u32, connection: ConnectionId, now: Instant) {
        self.ways.set_connection(number, connection);
        let export = |context: &[u8]| {
            let end = self.endpoint.get(connection)?;
            let bytes: [u8; 40] = end.export(PROBE_LABEL, context)?;
            let (session, key) = bytes.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*session), ProbeKey::new(*key.first_chunk()?)))
        };
        let (Some(dialler), Some(acceptor)) = (export(b"dialler"), export(b"acceptor")) else {
            return;
        };
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        let (ours, theirs) = match way.role {
            PathRole::Dialler => (dialler, acceptor),
            PathRole::Acceptor => (acceptor, dialler),
        };
        way.due = None;
        way.theirs = Some(theirs.clone());
        self.ways.by_session.insert(theirs.0, number);
        way.paths.set_keys(ours, theirs, now);
        way.paths.set_local(&candidates, mapping, now);
        self.drain_way(number, now);
    }

    /// Tells every way that the network under it is another one.
    pub(super) fn on_ways_network_changed(&mut self, now: Instant) {
        for number in self.ways.all.keys().copied().collect::<Vec<_>>() {
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.on_network_changed(now);
            }
            self.drain_way(number, now);
        }
    }

    /// The system would not send there.
    pub(super) fn on_ways_send_failed(&mut self, route: Route, now: Instant) {
        for number in self.ways.all.keys().copied().collect::<Vec<_>>() {
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.on_send_failed(route, now);
            }
            self.drain_way(number, now);
        }
    }

    /// What the ways have to do by now.
    pub(super) fn advance_ways(&mut self, now: Instant) {
        self.on_discovered(now);
        while let Some((number, _)) = self.ways.timers.pop_due(now) {
            let is_overdue =
                self.ways.all.get(&number).and_then(|way| way.due).is_some_and(|due| due <= now);
            if is_overdue {
                self.close_way(number, now);
            } else {
                self.drain_way(number, now);
            }
        }
    }

    /// The peer whose connection takes a way, once it is known.
    pub(super) fn peer_on(&self, number: u32) -> Option<PeerId> {
        let connection = self.ways.all.get(&number)?.connection?;
        self.by_connection.get(&connection).copied()
    }

    /// How a peer is reached, and why so.
    pub(super) fn path_view(&self, peer: PeerId, now: Instant) -> Option<path::PathsView> {
        let number = self.way_of(peer)?;
        self.ways.all.get(&number).map(|way| way.paths.view(now))
    }
}
