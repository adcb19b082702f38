//! The packets of end-to-end connections: they are taken from relayed datagrams and from the
//! socket, and sent on either. [`crate::path`] decides which path a packet takes.

use bytes::{Bytes, BytesMut};

use super::Overlay;
use super::candidates::advertised;
use crate::encapsulation::{self, Content, Head, RELAY_IDS, RelayDatagram};
use crate::event::Event;
use crate::id::{Channel, OverlayId, PeerId};
use crate::message::{ControlMessage, Message};
use crate::node::io::Io;
use crate::path::{self, Dispatch};
use crate::probe::{self, Probe};
use crate::quic::{self, TransmitBatch};
use crate::transmit::{Datagram, Ecn, NextHop, Route, Transmit, overlay_address};

impl Overlay {
    /// Handles a relayed datagram that carries a packet of another client. While this node is
    /// registered there, packets of channels that are not announced yet are kept briefly.
    pub(in crate::node) fn on_encapsulated(
        &mut self,
        relay: PeerId,
        datagram: Bytes,
        is_registered: bool,
        io: &mut Io,
    ) {
        let Some(Head { channel, .. }) = Head::parse(&datagram) else { return };
        let channel = Channel { relay, number: channel };
        let Some(id) = self.by_channel.get(&channel).copied() else {
            if is_registered {
                self.early.push(channel, &datagram, io.now());
            }
            return;
        };
        let Some(overlaid) = self.all.get_mut(&id) else { return };
        let Some(RelayDatagram { content, .. }) = RelayDatagram::parse(datagram) else { return };
        let packet = match content {
            Content::Whole(packet) => BytesMut::from(&packet[..]),
            Content::Part(part) => match overlaid.reassembly.push(part) {
                Some(packet) => packet,
                None => return,
            },
        };
        let via = NextHop::Relayed(channel);
        if packet.first().is_some_and(|first| probe::FIRST_BYTES.contains(first)) {
            self.on_probe(via, &packet, io);
        } else {
            self.on_packets(id, via, (packet, 0, None), io);
        }
    }

    /// Handles packets of an end-to-end connection, received on any path.
    pub(in crate::node) fn on_packets(
        &mut self,
        id: OverlayId,
        via: NextHop,
        (payload, segment_size, ecn): (BytesMut, usize, Option<Ecn>),
        io: &mut Io,
    ) {
        let route = Route::to(overlay_address(id));
        let (datagram, now) = (Datagram { route, ecn, segment_size, payload }, io.now());
        let Some(received) = io.quic.handle_datagram(datagram, now) else { return };
        // A packet with the id of another connection is dropped: that connection is not reached at
        // this address.
        let is_known_by = |c: &&quic::Connection| c.remote() == route.remote;
        let connection = io.quic.get(received.connection).filter(is_known_by);
        let progress = connection.map(|connection| (connection.rtt(), connection.progress()));
        let Some((rtt, progress)) = progress else { return };
        let Some(overlaid) = self.all.get_mut(&id) else { return };
        if overlaid.connection.is_none() {
            // The awaited handshake has begun: from here on its connection has its own deadline.
            overlaid.connection = Some(received.connection);
            self.by_connection.insert(received.connection, id);
        }
        if received.is_authentic {
            overlaid.paths.note_rtt(rtt);
            overlaid.paths.on_received(via, now);
            overlaid.paths.note_transport(progress, now);
            self.drain(id, io);
        }
    }

    /// A probe, by whichever path it came. Returns false if it is no peer's and no relay's answer.
    pub(in crate::node) fn on_probe(&mut self, via: NextHop, bytes: &[u8], io: &mut Io) -> bool {
        let Some(session) = Probe::session(bytes) else { return true };
        if let Some(id) = self.by_session.get(&session).copied() {
            if let NextHop::Relayed(channel) = via {
                self.adopt(id, channel, bytes, io);
            }
            if let Some(overlaid) = self.all.get_mut(&id) {
                let connection = overlaid.connection.and_then(|it| io.quic.get(it));
                if let Some(progress) = connection.map(quic::Connection::progress) {
                    overlaid.paths.note_transport(progress, io.now());
                }
                overlaid.paths.handle_probe(via, bytes, io.now());
            }
            self.drain(id, io);
            return true;
        }
        let NextHop::Direct(route) = via else { return true };
        let is_answer = self.discovery.handle_probe(route.remote, bytes, io.now());
        if is_answer {
            self.on_discovered(io);
        }
        is_answer
    }

    /// Assigns a channel to the known peer that its probes authenticate: the peer reached this node
    /// through another relay.
    fn adopt(&mut self, id: OverlayId, channel: Channel, bytes: &[u8], io: &mut Io) {
        let other = self.by_channel.get(&channel).copied().filter(|other| *other != id);
        let Some(other) = other else { return };
        let is_unused = self.all.get(&other).is_some_and(|it| it.connection.is_none());
        let theirs = self.all.get(&id).and_then(|it| it.theirs.as_ref());
        let is_genuine = theirs.is_some_and(|(_, key)| Probe::decode(bytes, key).is_some());
        if is_unused && is_genuine {
            if let Some(overlaid) = self.all.get_mut(&other) {
                overlaid.channels.remove(&channel);
            }
            self.forget(other, io);
            self.add_channel(id, channel, io);
        }
    }

    /// Sends a batch of an end-to-end connection on its present path. A batch for a direct path is
    /// returned; one for a relay is queued on that relay's connection.
    pub(in crate::node) fn dispatch(
        &mut self,
        id: OverlayId,
        batch: TransmitBatch,
        bytes: &[u8],
        io: &mut Io,
    ) -> Option<Transmit> {
        let TransmitBatch { mut transmit, is_mtu_probe } = batch;
        let overlaid = self.all.get_mut(&id)?;
        if is_mtu_probe {
            transmit.route = overlaid.paths.dispatch_mtu_probe()?;
            return Some(transmit);
        }
        let packets = &bytes[..transmit.size];
        let dispatch = overlaid.paths.dispatch(packets, transmit.segment_size, io.now());
        self.reindex(id);
        let (via, copy) = match dispatch {
            Dispatch::Held => return None,
            Dispatch::Send(via) => (via, None),
            Dispatch::Both { first, copy } => (first, Some(copy)),
        };
        for via in copy.into_iter().chain(Some(via)) {
            match via {
                NextHop::Relayed(channel) => {
                    self.send_relayed(id, channel, packets, transmit.segment_size, io);
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
        id: OverlayId,
        channel: Channel,
        packets: &[u8],
        segment_size: Option<usize>,
        io: &mut Io,
    ) {
        let Some(relay) = self.relays.get(&channel.relay).copied() else { return };
        let Some(overlaid) = self.all.get_mut(&id) else { return };
        let next_part = &mut overlaid.next_part;
        io.on(relay, |relay| {
            let Some(room) = relay.max_datagram() else { return };
            for packet in packets.chunks(segment_size.unwrap_or(packets.len()).max(1)) {
                *next_part = next_part.wrapping_add(1) % RELAY_IDS;
                for datagram in encapsulation::wrap(channel.number, *next_part, packet, room) {
                    // A full connection counts as a path that lost the packet.
                    let _ = relay.send_datagram(datagram);
                }
            }
        });
    }

    /// Carries out the decisions of a path machine.
    pub(super) fn drain(&mut self, id: OverlayId, io: &mut Io) {
        let now = io.now();
        while let Some(overlaid) = self.all.get_mut(&id) {
            let Some(action) = overlaid.paths.poll(now) else { break };
            match action {
                path::PathAction::Probe { via, bytes } => {
                    self.send_on(id, via, probe::datagram(&bytes), None, io);
                }
                path::PathAction::Packets { via, bytes, segment_size } => {
                    self.send_on(id, via, bytes, segment_size, io);
                }
                path::PathAction::Candidates(offer) => {
                    if let Some(peer) = overlaid.peer {
                        io.send(
                            peer,
                            Message::Control(ControlMessage::Candidates(advertised(&offer))),
                        );
                    }
                }
                path::PathAction::Changed { to, reason, round_trip, .. } => {
                    if let Some(connection) = overlaid.connection {
                        io.quic.with(connection, now, |c| c.on_path_changed(round_trip));
                    }
                    if let Some(peer) = overlaid.peer {
                        io.emit(Event::PathChanged { peer, via: to, reason });
                    }
                }
                path::PathAction::Shrink => {
                    if let Some(connection) = overlaid.connection {
                        io.quic.with(connection, now, |c| c.forget_path(now));
                    }
                }
            }
        }
        self.reindex(id);
    }

    fn send_on(
        &mut self,
        id: OverlayId,
        via: NextHop,
        bytes: Vec<u8>,
        segment_size: Option<usize>,
        io: &mut Io,
    ) {
        match via {
            NextHop::Direct(route) => self.push(route, bytes, segment_size),
            NextHop::Relayed(channel) => self.send_relayed(id, channel, &bytes, segment_size, io),
        }
    }
}
