//! The bytes of end-to-end connections, as they come and go: out of the envelopes of relays and off
//! the bare socket, and back onto them. By which path a packet goes is decided by [`crate::path`].

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Node;
use super::candidates::told;
use crate::encapsulation::{self, Content, Envelope, Head, RELAY_IDS};
use crate::event::Event;
use crate::id::{Channel, PeerId};
use crate::message::Message;
use crate::path::{self, Dispatch};
use crate::probe::{self, Probe};
use crate::quic::{self, Outgoing};
use crate::transmit::{self, Datagram, Ecn, NextHop, Route, Transmit};

impl Node {
    /// A datagram of a relay's that carries a packet of somebody else.
    pub(super) fn on_enveloped(&mut self, relay: PeerId, datagram: Bytes, now: Instant) {
        let Some(Head { channel, .. }) = Head::parse(&datagram) else { return };
        let channel = Channel { relay, number: channel };
        let Some(number) = self.ways.by_channel(channel) else {
            if self.is_registered(relay) {
                self.attached.early.push(channel, &datagram, now);
            }
            return;
        };
        let Some(way) = self.ways.all.get_mut(&number) else { return };
        let Some(Envelope { content, .. }) = Envelope::parse(datagram) else { return };
        let packet = match content {
            Content::Whole(packet) => BytesMut::from(&packet[..]),
            Content::Part(part) => match way.reassembly.push(part) {
                Some(packet) => packet,
                None => return,
            },
        };
        let via = NextHop::Relayed(channel);
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
        via: NextHop,
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
    pub(super) fn on_probe(&mut self, via: NextHop, bytes: &[u8], now: Instant) {
        let Some(session) = Probe::session(bytes) else { return };
        if let Some(number) = self.ways.by_session.get(&session).copied() {
            if let NextHop::Relayed(channel) = via {
                self.adopt(number, channel, bytes, now);
            }
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.handle_probe(via, bytes, now);
            }
            self.drain_way(number, now);
        } else if let NextHop::Direct(route) = via {
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
                NextHop::Relayed(channel) => {
                    self.send_relayed(number, channel, packets, transmit.segment_size);
                }
                NextHop::Direct(route) => {
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
                *next_part = next_part.wrapping_add(1) % RELAY_IDS;
                for datagram in encapsulation::wrap(channel.number, *next_part, packet, room) {
                    // A connection that cannot take it is a path that lost it.
                    let _ = outer.send_datagram(datagram);
                }
            }
        });
    }

    /// Carries out what a path machine decided.
    pub(super) fn drain_way(&mut self, number: u32, now: Instant) {
        while let Some(way) = self.ways.all.get_mut(&number) {
            let Some(action) = way.paths.poll(now) else { break };
            let connection = way.connection;
            match action {
                path::PathAction::Probe { via, bytes } => {
                    self.send_on(number, via, bytes.to_vec(), None)
                }
                path::PathAction::Packets { via, bytes, segment_size } => {
                    self.send_on(number, via, bytes, segment_size);
                }
                path::PathAction::Candidates(offer) => {
                    let peer = connection.and_then(|c| self.by_connection.get(&c).copied());
                    if let Some(peer) = peer {
                        self.say(peer, &Message::Candidates(told(&offer)), now);
                    }
                }
                path::PathAction::Changed { to, reason, .. } => {
                    let peer = connection.and_then(|c| self.by_connection.get(&c).copied());
                    if let Some(peer) = peer {
                        self.emit(Event::PathChanged { peer, via: to, reason });
                    }
                }
                path::PathAction::Shrink => {
                    if let Some(connection) = connection {
                        self.endpoint.with(connection, now, |c| c.forget_path(now));
                    }
                }
            }
        }
        self.ways.reindex(number);
    }

    fn send_on(&mut self, number: u32, via: NextHop, bytes: Vec<u8>, segment_size: Option<usize>) {
        match via {
            NextHop::Direct(route) => self.ways.push(route, bytes, segment_size),
            NextHop::Relayed(channel) => self.send_relayed(number, channel, &bytes, segment_size),
        }
    }
}
