//! How the packets of end-to-end connections travel: each such connection has a way, which is its
//! path machine, the channels it has at relays, and the parts of packets that are not whole yet.
//!
//! Which path a packet takes is decided by [`crate::path`]; here the bytes move.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Node;
use crate::envelope::{self, Content, Envelope, Reassembly};
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::id::{Channel, PeerId};
use crate::message::{self, CandidateKind, Candidates, Message};
use crate::path::{self, Dispatch, Offer, Paths, Role};
use crate::probe::{self, Key, Probe};
use crate::quic::{self, ConnectionId, Outgoing};
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::transmit::{self, Datagram, Ecn, Route, Transmit, Via};

/// What keeps the keys of probes apart from every other use of a TLS session (RFC 8446 §7.5).
const PROBE_LABEL: &[u8] = b"adit/1 path probe";

/// Probes and released packets that wait to be sent: those beyond are lost, as on any full queue.
const MAX_WAITING: usize = 4_096;

/// One connection's way.
#[derive(Debug)]
struct Way {
    role: Role,
    paths: Paths,
    connection: Option<ConnectionId>,
    /// The tag by which the peer's probes name this way, and their key.
    theirs: Option<(u64, Key)>,
    reassembly: Reassembly,
    next_part: u16,
    /// When it is closed unless its connection is confirmed by then.
    due: Option<Instant>,
}

/// All ways of a node.
#[derive(Debug, Default)]
pub(super) struct Ways {
    all: BTreeMap<u32, Way>,
    by_channel: BTreeMap<Channel, u32>,
    by_session: BTreeMap<u64, u32>,
    by_connection: BTreeMap<ConnectionId, u32>,
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

    fn reindex(&mut self, number: u32) {
        let deadline = self.all.get(&number).and_then(|way| {
            earliest([way.paths.deadline(), way.due.map(|due| (due, Reason::Connect))])
        });
        self.timers.set(number, deadline);
    }
}

impl Node {
    /// A way for a connection that begins on a channel of a relay.
    pub(super) fn open_way(&mut self, role: Role, channel: Channel, now: Instant) -> u32 {
        let number = self.ways.next;
        self.ways.next = number.wrapping_add(1);
        let rng = Rng::new(self.rng.seed(), "path");
        let due = match role {
            // An attempt has a time limit of its own.
            Role::Dialler => None,
            Role::Acceptor => Some(now + self.config.limits.handshake_timeout),
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
            Some((u64::from_be_bytes(*session), Key::new(*key.first_chunk()?)))
        };
        let (Some(dialler), Some(acceptor)) = (export(b"dialler"), export(b"acceptor")) else {
            return;
        };
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        let (ours, theirs) = match way.role {
            Role::Dialler => (dialler, acceptor),
            Role::Acceptor => (acceptor, dialler),
        };
        way.due = None;
        way.theirs = Some(theirs.clone());
        self.ways.by_session.insert(theirs.0, number);
        way.paths.set_keys(ours, theirs, now);
        way.paths.set_local(&candidates, mapping, now);
        self.drain_way(number, now);
    }

    /// What this node knows of its own addresses changed.
    pub(super) fn on_discovered(&mut self, now: Instant) {
        self.drain_discovery(now);
        let revision = self.discovery.revision();
        if std::mem::replace(&mut self.discovered, revision) == revision {
            return;
        }
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        for number in self.ways.all.keys().copied().collect::<Vec<_>>() {
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.set_local(&candidates, mapping, now);
            }
            self.drain_way(number, now);
        }
    }

    pub(super) fn drain_discovery(&mut self, now: Instant) {
        while let Some((to, bytes)) = self.discovery.poll(now) {
            self.ways.push(Route::to(to), bytes.to_vec(), None);
        }
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

    /// The peer said where it may be reached.
    pub(super) fn on_candidates(&mut self, peer: PeerId, candidates: &Candidates, now: Instant) {
        let Some(number) = self.way_of(peer) else { return };
        if let Some(way) = self.ways.all.get_mut(&number) {
            way.paths.handle_candidates(&offer(candidates), now);
        }
        self.drain_way(number, now);
    }

    /// A datagram of a relay's that carries a packet of somebody else.
    pub(super) fn on_enveloped(&mut self, relay: PeerId, datagram: Bytes, now: Instant) {
        let Some(Envelope { channel, content }) = Envelope::parse(datagram.clone()) else { return };
        let channel = Channel { relay, number: channel };
        let Some(number) = self.ways.by_channel(channel) else {
            if self.is_registered(relay) {
                self.attached.early.push(channel, &datagram, now);
            }
            return;
        };
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        let packet = match content {
            Content::Whole(packet) => BytesMut::from(&packet[..]),
            Content::Part(part) => match way.reassembly.push(part) {
                Some(packet) => packet,
                None => return,
            },
        };
        let via = Via::Relayed(channel);
        if packet.first().is_some_and(|first| probe::FIRST_BYTES.contains(first)) {
            self.on_probe(via, &packet, now);
        } else {
            self.on_inner(number, via, (packet, 0, None), now);
        }
    }

    /// Packets of an end-to-end connection, however they came.
    pub(super) fn on_inner(
        &mut self,
        number: u32,
        via: Via,
        (payload, segment_size, ecn): (BytesMut, usize, Option<Ecn>),
        now: Instant,
    ) {
        let route = Route::to(transmit::virtual_address(number));
        let datagram = Datagram { route, ecn, segment_size, payload };
        let Some(received) = self.endpoint.handle_datagram(datagram, now) else { return };
        // A connection id of another connection leads nowhere: it is not known by this address.
        let is_known_by = |c: &quic::Connection| c.remote() == route.remote;
        let Some(connection) = self.endpoint.get(received.connection).filter(|c| is_known_by(c))
        else {
            return;
        };
        let rtt = connection.rtt();
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        if way.connection.is_none() {
            // The handshake that was waited for: from here on its connection says what becomes of it.
            way.connection = Some(received.connection);
            self.ways.by_connection.insert(received.connection, number);
        }
        if received.is_authentic {
            way.paths.note_rtt(rtt);
            way.paths.on_received(via, now);
            self.drain_way(number, now);
        }
    }

    /// A probe, however it came.
    pub(super) fn on_probe(&mut self, via: Via, bytes: &[u8], now: Instant) {
        let Some(session) = Probe::session(bytes) else { return };
        if let Some(number) = self.ways.by_session.get(&session).copied() {
            if let Via::Relayed(channel) = via {
                self.adopt(number, channel, bytes, now);
            }
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.handle_probe(via, bytes, now);
            }
            self.drain_way(number, now);
        } else if let Via::Direct(route) = via {
            if self.discovery.handle_probe(route.remote, bytes, now) {
                self.on_discovered(now);
            } else {
                self.answer_discovery(route, bytes);
            }
        }
    }

    /// A channel on which a known peer speaks is that peer's: it found this node by another relay.
    fn adopt(&mut self, number: u32, channel: Channel, bytes: &[u8], now: Instant) {
        let Some(other) = self.ways.by_channel(channel).filter(|other| *other != number) else {
            return;
        };
        let is_of_nobody = self.ways.all.get(&other).is_some_and(|way| way.connection.is_none());
        let theirs = self.ways.all.get(&number).and_then(|way| way.theirs.as_ref());
        let is_genuine = theirs.is_some_and(|(_, key)| Probe::decode(bytes, key).is_some());
        if is_of_nobody && is_genuine {
            self.ways.by_channel.insert(channel, number);
            self.close_way(other, now);
            self.add_channel(number, channel, now);
        }
    }

    /// Sends a batch of an end-to-end connection on its way. What goes out bare is given back; what
    /// goes to a relay is in that relay's connection.
    pub(super) fn carry(
        &mut self,
        number: u32,
        batch: Outgoing,
        bytes: &[u8],
        now: Instant,
    ) -> Option<Transmit> {
        let Outgoing { mut transmit, is_mtu_probe } = batch;
        let way = self.ways.all.get_mut(&number)?;
        if is_mtu_probe {
            transmit.route = way.paths.dispatch_mtu_probe()?;
            return Some(transmit);
        }
        let packets = &bytes[..transmit.size];
        let dispatch = way.paths.dispatch(packets, transmit.segment_size, now);
        self.ways.reindex(number);
        let (via, copy) = match dispatch {
            Dispatch::Held => return None,
            Dispatch::Send(via) => (via, None),
            Dispatch::Both { first, copy } => (first, Some(copy)),
        };
        for via in copy.into_iter().chain(Some(via)) {
            match via {
                Via::Relayed(channel) => {
                    self.send_relayed(number, channel, packets, transmit.segment_size);
                }
                Via::Direct(route) => {
                    transmit.route = route;
                    return Some(transmit);
                }
            }
        }
        None
    }

    fn send_relayed(
        &mut self,
        number: u32,
        channel: Channel,
        packets: &[u8],
        segment_size: Option<usize>,
    ) {
        let link = self.peers.get(&channel.relay).and_then(|p| p.link.as_ref());
        let Some(outer) = link.map(|link| link.connection) else { return };
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        let next_part = &mut way.next_part;
        self.endpoint.stream(outer, |outer| {
            let Some(room) = outer.max_datagram() else { return };
            for packet in packets.chunks(segment_size.unwrap_or(packets.len()).max(1)) {
                *next_part = next_part.wrapping_add(1);
                for datagram in envelope::wrap(channel.number, *next_part, packet, room) {
                    // A connection that cannot take it is a path that lost it.
                    let _ = outer.send_datagram(datagram);
                }
            }
        });
    }

    /// Carries out what a path machine decided.
    fn drain_way(&mut self, number: u32, now: Instant) {
        while let Some(way) = self.ways.all.get_mut(&number) {
            let Some(action) = way.paths.poll(now) else { break };
            let connection = way.connection;
            match action {
                path::Action::Probe { via, bytes } => {
                    self.send_on(number, via, bytes.to_vec(), None)
                }
                path::Action::Packets { via, bytes, segment_size } => {
                    self.send_on(number, via, bytes, segment_size);
                }
                path::Action::Candidates(offer) => {
                    let peer = connection.and_then(|c| self.by_connection.get(&c).copied());
                    if let Some(peer) = peer {
                        self.say(peer, &Message::Candidates(told(&offer)), now);
                    }
                }
                path::Action::Changed { to, reason, .. } => {
                    let peer = connection.and_then(|c| self.by_connection.get(&c).copied());
                    if let Some(peer) = peer {
                        self.emit(Event::PathChanged { peer, via: to, reason });
                    }
                }
                path::Action::Shrink => {
                    if let Some(connection) = connection {
                        self.endpoint.with(connection, now, |c| c.forget_path(now));
                    }
                }
            }
        }
        self.ways.reindex(number);
    }

    fn send_on(&mut self, number: u32, via: Via, bytes: Vec<u8>, segment_size: Option<usize>) {
        match via {
            Via::Direct(route) => self.ways.push(route, bytes, segment_size),
            Via::Relayed(channel) => self.send_relayed(number, channel, &bytes, segment_size),
        }
    }

    /// The peer whose connection takes a way, once it is known.
    pub(super) fn peer_on(&self, number: u32) -> Option<PeerId> {
        let connection = self.ways.all.get(&number)?.connection?;
        self.by_connection.get(&connection).copied()
    }

    /// How a peer is reached, and why so.
    pub(super) fn path_view(&self, peer: PeerId, now: Instant) -> Option<path::View> {
        let number = self.way_of(peer)?;
        self.ways.all.get(&number).map(|way| way.paths.view(now))
    }
}

/// What a peer told, as the path machine takes it; kinds of later versions are left out.
fn offer(told: &Candidates) -> Offer {
    let candidate = |it: &message::Candidate| {
        let kind = match it.kind {
            CandidateKind::Host => path::Kind::Host,
            CandidateKind::Reflexive => path::Kind::Reflexive,
            CandidateKind::Mapped => path::Kind::Mapped,
            CandidateKind::Unknown => return None,
        };
        Some(path::Candidate { kind, address: it.address })
    };
    let mapping = match told.mapping {
        message::Mapping::None => path::Mapping::None,
        message::Mapping::Independent => path::Mapping::Independent,
        message::Mapping::Dependent => path::Mapping::Dependent,
        message::Mapping::Unknown => path::Mapping::Unknown,
    };
    let candidates = told.candidates.iter().filter_map(candidate).collect();
    Offer { candidates, mapping, round: told.round }
}

/// What this node tells a peer; an address from which the peer came is nothing to tell.
fn told(offer: &Offer) -> Candidates {
    let candidate = |it: &path::Candidate| {
        let kind = match it.kind {
            path::Kind::Host => CandidateKind::Host,
            path::Kind::Reflexive => CandidateKind::Reflexive,
            path::Kind::Mapped => CandidateKind::Mapped,
            path::Kind::PeerReflexive => return None,
        };
        Some(message::Candidate { kind, address: it.address })
    };
    let mapping = match offer.mapping {
        path::Mapping::None => message::Mapping::None,
        path::Mapping::Independent => message::Mapping::Independent,
        path::Mapping::Dependent => message::Mapping::Dependent,
        path::Mapping::Unknown => message::Mapping::Unknown,
    };
    let candidates = offer.candidates.iter().filter_map(candidate).collect();
    Candidates { candidates, mapping, round: offer.round }
}
