//! Passes each datagram, effect, transport event and message to the owner that it concerns, and
//! each owner's result to the next.
//!
//! It decides which owner gets a value and in which order the due work is done. It holds no state,
//! and decides nothing that depends on time, counts or scores.

use std::time::Instant;

use super::Node;
use super::demux::{self, DatagramClass};
use super::io::{Effect, Io};
use super::overlay;
use super::peers::{CONTEXT_APPLICATION, CONTEXT_CONTROL};
use super::relay_client;
use super::relay_server::RelayServer;
use super::shutdown::Shutdown;
use super::streams;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::id::{Channel, PeerId};
use crate::message::{ControlMessage, Matched, Message, RelayMessage};
use crate::quic::{self, ConnectionEvent, ConnectionId};
use crate::transmit::{self, Datagram, NextHop, Route};

impl Node {
    /// Passes each packet of a batch to its owner.
    pub(super) fn on_datagram(&mut self, mut datagram: Datagram) {
        if transmit::overlay_id(&datagram.route.remote).is_some() {
            return;
        }
        let (route, ecn, segment_size) = (datagram.route, datagram.ecn, datagram.segment_size);
        let (via, size) = (NextHop::Direct(route), demux::segment(&datagram));
        while let Some((class, payload)) =
            demux::split_run(&mut datagram, &self.io.quic, &self.overlay)
        {
            match class {
                DatagramClass::Probe => {
                    payload.chunks(size).for_each(|one| self.on_probe(route, one))
                }
                DatagramClass::Overlay(id) => {
                    self.overlay.on_packets(id, via, (payload, segment_size, ecn), &mut self.io);
                }
                DatagramClass::Direct => {
                    let (batch, now) =
                        (Datagram { route, ecn, segment_size, payload }, self.io.now());
                    self.io.quic.handle_datagram(batch, now);
                }
            }
        }
    }

    /// Handles a probe on the socket: a peer's, a relay's, or a question to this node as a relay.
    fn on_probe(&mut self, route: Route, bytes: &[u8]) {
        let is_known = self.overlay.on_probe(NextHop::Direct(route), bytes, &mut self.io);
        if let (false, Some(relay)) = (is_known, &self.relay_server)
            && let Some(answer) = relay.answer_discovery(route, bytes)
        {
            self.overlay.push(route, answer, None);
        }
    }

    /// Does all work that is due, and its consequences.
    pub(super) fn advance(&mut self) {
        let now = self.io.now();
        self.io.quic.handle_timeout(now);
        self.settle();
        while let Some(peer) = self.peers.pop_due(now) {
            self.peers.on_due(peer, &mut self.io);
            self.settle();
        }
        while let Some(peer) = self.streams.pop_due(now) {
            self.streams.on_due(peer, &mut self.io);
        }
        while let Some(peer) = self.streams.pop_report_due(now) {
            let is_clear = self.peers.flush_control(peer, &mut self.io);
            if let Some(report) = self.streams.report(peer, is_clear, &self.io) {
                self.io.send(peer, report);
            }
        }
        self.requests.on_due(now, &mut self.streams, &mut self.io);
        self.overlay.advance(&mut self.io);
        self.relay_client.advance(now, &self.overlay, &mut self.io);
        if let Some(relay) = &mut self.relay_server {
            relay.advance(&mut self.io);
        }
        self.peers.advance_certificates(&mut self.io);
        self.settle();
        self.advance_shutdown(now);
    }

    pub(super) fn has_output(&self) -> bool {
        self.io.has_events()
            || self.io.has_effects()
            || self.io.quic.is_sending()
            || self.overlay.is_sending()
    }

    /// Carries out every effect and routes every event of the transport, in order.
    pub(super) fn settle(&mut self) {
        loop {
            self.settle_effects();
            let Some((connection, event)) = self.io.quic.poll_event() else { return };
            self.on_transport_event(connection, event);
        }
    }

    /// Carries out every effect. No effect calls this method again.
    pub(super) fn settle_effects(&mut self) {
        while let Some(effect) = self.io.poll_effect() {
            self.apply(effect);
        }
    }

    /// Passes an effect to the owners that it concerns.
    fn apply(&mut self, effect: Effect) {
        let (streams, io) = (&mut self.streams, &mut self.io);
        match effect {
            Effect::Send { peer, message } => self.peers.send(peer, &message, io),
            Effect::Close { peer, failure } => {
                if let Some(connection) = self.peers.close(peer, &failure, io) {
                    self.overlay.leave(connection, io);
                    self.peers.on_lost(peer, connection, failure, io);
                }
            }
            Effect::AttemptStarted { peer } => {
                if let Some(service) = self.peers.service(peer) {
                    self.relay_client.look_up(peer, service, &self.overlay, io);
                }
            }
            Effect::AttemptFailed { peer } => self.relay_client.on_peer_down(peer),
            Effect::LookupOverdue { peer } => {
                if let Some(failure) = self.relay_client.verdict(peer) {
                    self.peers.on_not_found(peer, failure, io);
                }
            }
            Effect::Up { peer } => self.on_up(peer),
            Effect::Down { peer, connection, failure } => self.on_down(peer, connection, failure),
            Effect::Redial { peer, failure } => self.peers.on_link_lost(peer, failure, io),
            Effect::GaveUp { peer, failure } => {
                self.requests.fail_queued(peer, &failure, streams, io);
                self.peers.on_gave_up(peer, failure, io);
            }
            Effect::Remove { peer, failure } => {
                self.requests.fail_queued(peer, &failure, streams, io);
                self.requests.forget(peer);
                streams.forget(peer);
                self.relay_client.forget(peer);
                self.peers.remove(peer, failure, io);
            }
            Effect::Refused { connection } => self.overlay.on_gone(connection, io),
            Effect::RequestArrived { stream, request } => {
                self.requests.on_arrived(stream, request, streams, io);
            }
            Effect::BodyReleased { peer } => streams.on_body_released(peer, io),
            Effect::AddressChanged { relay } => {
                let now = io.now();
                let others = self.relay_client.others(relay);
                for connection in others.into_iter().filter_map(|id| self.peers.link(id)) {
                    io.quic.with(connection, now, quic::Connection::ping);
                }
            }
        }
    }

    /// Passes an event of the transport to the owner that it concerns. A connection has no owner
    /// before its handshake is confirmed, and after this side closed it.
    fn on_transport_event(&mut self, connection: ConnectionId, event: ConnectionEvent) {
        let io = &mut self.io;
        let Some(peer) = self.peers.on(connection) else {
            match event {
                ConnectionEvent::Connected => self.peers.on_accepted(connection, io),
                ConnectionEvent::Rejected(remote, failure) => {
                    self.overlay.on_rejected(connection, remote, failure, io)
                }
                ConnectionEvent::Lost(_) => self.overlay.on_gone(connection, io),
                ConnectionEvent::Opened
                | ConnectionEvent::Available
                | ConnectionEvent::Readable(_)
                | ConnectionEvent::Writable(_)
                | ConnectionEvent::Finished(_)
                | ConnectionEvent::Stopped(..)
                | ConnectionEvent::Moved(_)
                | ConnectionEvent::Datagrams => {}
            }
            return;
        };
        match event {
            ConnectionEvent::Connected => self.peers.on_dialled(peer, connection, io),
            ConnectionEvent::Rejected(remote, failure) => {
                self.overlay.on_rejected(connection, remote, failure, io)
            }
            ConnectionEvent::Lost(failure) => {
                self.peers.on_gone(connection);
                self.peers.on_lost(peer, connection, failure, io);
                self.overlay.on_gone(connection, io);
            }
            ConnectionEvent::Moved(remote) => {
                self.peers.on_moved(peer, remote);
                if let Some(relay) = &mut self.relay_server {
                    relay.on_moved(peer, remote);
                }
            }
            ConnectionEvent::Opened => self.on_streams_opened(peer),
            ConnectionEvent::Available => {
                self.streams.announce_resets(peer, io);
                self.flush_requests(peer);
                self.io.emit(Event::StreamsAvailable { peer });
            }
            ConnectionEvent::Readable(index) if self.peers.is_control(peer, index) => {
                self.read_control(peer);
            }
            ConnectionEvent::Readable(index) => self.streams.on_readable(peer, index, io),
            ConnectionEvent::Writable(index) if self.peers.is_control(peer, index) => {
                self.peers.flush_control(peer, io);
            }
            ConnectionEvent::Writable(index) => {
                self.requests.on_writable(peer, index, &mut self.streams, io)
            }
            ConnectionEvent::Finished(index) => self.streams.on_finished(peer, index, io),
            ConnectionEvent::Stopped(index, code) => {
                if let Some(request) = self.streams.on_stopped(peer, index, code, io) {
                    self.requests.on_stopped(request, &mut self.streams, io);
                }
            }
            ConnectionEvent::Datagrams => self.on_datagrams(peer),
        }
    }

    fn on_up(&mut self, peer: PeerId) {
        let Some(connection) = self.peers.link(peer) else { return };
        let client = self.relay_server.as_mut().filter(|_| !self.peers.is_dialled(peer));
        let has_streams = client.is_none() && !self.peers.is_relay(peer);
        let credential = self.peers.credential(peer);
        self.streams.on_up(peer, connection, client.is_none(), credential, &self.io);
        if has_streams {
            self.io.send(peer, streams::greeting(&self.io));
        }
        let remote = self.io.quic.get(connection).map(quic::Connection::remote);
        if let (Some(relay), Some(credential), Some(remote)) =
            (client, self.peers.credential(peer), remote)
        {
            relay.on_up(peer, connection, credential, remote);
        }
        if let Some(credential) = self.peers.credential(peer) {
            self.relay_client.on_found(peer, credential.key);
        }
        self.overlay.on_up(connection, peer, &mut self.io);
        if self.peers.is_relay(peer) {
            self.overlay.on_relay_up(peer, connection);
            self.relay_client.on_relay_up(peer, &self.overlay, &mut self.io);
        }
        self.flush_requests(peer);
        self.on_streams_opened(peer);
        self.on_datagrams(peer);
    }

    fn on_down(&mut self, peer: PeerId, connection: ConnectionId, failure: Failure) {
        let io = &mut self.io;
        self.overlay.on_gone(connection, io);
        self.relay_client.on_peer_down(peer);
        if let Some(relay) = &mut self.relay_server {
            relay.on_down(peer);
        }
        if self.peers.is_relay(peer) {
            self.relay_client.on_relay_down(peer, io);
            self.overlay.on_relay_down(peer, io);
        }
        self.streams.on_down(peer, failure.clone());
        self.requests.on_down(peer, &failure, &mut self.streams, io);
    }

    pub(super) fn flush_requests(&mut self, peer: PeerId) {
        if self.peers.takes_requests(peer) {
            self.requests.flush(peer, &mut self.streams, &mut self.io);
        }
    }

    fn on_streams_opened(&mut self, peer: PeerId) {
        while let Some(connection) = self.peers.link(peer) {
            let accepted = self.io.on(connection, quic::Connection::accept).flatten();
            let Some(index) = accepted else { return };
            if self.peers.is_control(peer, index) {
                self.read_control(peer);
            } else {
                self.streams.on_opened(peer, index, &mut self.io);
            }
        }
    }

    fn read_control(&mut self, peer: PeerId) {
        while let Some(message) = self.peers.poll_control(peer, &mut self.io) {
            self.on_message(peer, message);
        }
    }

    /// Passes each datagram of a connection to the owner that its first byte names. Between a relay
    /// and its clients, datagrams carry packets of other peers instead of an application's data.
    fn on_datagrams(&mut self, peer: PeerId) {
        let Some(connection) = self.peers.link(peer) else { return };
        let (is_relay, mut is_news) = (self.peers.is_relay(peer), false);
        let is_registered = self.relay_client.is_registered(peer);
        let is_client = self.relay_server.is_some() && !self.peers.is_dialled(peer);
        let now = self.io.now();
        while let Some(data) = self.io.on(connection, quic::Connection::recv_datagram).flatten() {
            match (data.first(), &mut self.relay_server) {
                (Some(&CONTEXT_CONTROL), _) => {
                    let data = data.slice(1..);
                    if let Some(message) = self.peers.on_control_datagram(peer, data, &mut self.io)
                    {
                        self.on_message(peer, message);
                    }
                }
                (_, Some(relay)) if is_client => relay.forward(peer, &data, now),
                (_, _) if is_relay => {
                    self.overlay.on_encapsulated(peer, data, is_registered, &mut self.io);
                }
                (Some(&CONTEXT_APPLICATION), _) => {
                    self.peers.push_datagram(peer, &data[1..], &self.io);
                    is_news = true;
                }
                (Some(_) | None, _) => {}
            }
        }
        if is_news {
            self.io.emit(Event::DatagramReceived { peer });
        }
    }

    /// Passes a control message to the owner that it concerns.
    fn on_message(&mut self, peer: PeerId, message: Message) {
        let (is_dialled, io) = (self.peers.is_dialled(peer), &mut self.io);
        match (message, &mut self.relay_server) {
            (Message::Control(message), _) => self.on_control_message(peer, message),
            (Message::Relay(message), _) if self.peers.is_relay(peer) => {
                self.on_relay_message(peer, message);
            }
            (message @ Message::Relay(_), Some(relay)) if !is_dialled => {
                relay.on_message(peer, &message, io.now());
            }
            (Message::Relay(_) | Message::Stream(_) | Message::Cloud(_), _) => misplaced(peer, io),
        }
    }

    fn on_control_message(&mut self, peer: PeerId, message: ControlMessage) {
        for index in self.streams.on_control_message(peer, &message, &self.io) {
            self.requests.on_writable(peer, index, &mut self.streams, &mut self.io);
        }
        let io = &mut self.io;
        match message {
            ControlMessage::Heartbeat(_) if self.peers.is_dialled(peer) => misplaced(peer, io),
            ControlMessage::Heartbeat(beat) => {
                self.peers.on_heartbeat(peer, &beat, self.requests.queued(peer), io);
            }
            ControlMessage::HeartbeatAck(ack) => {
                self.peers.on_heartbeat_ack(peer, ack.sequence, io);
            }
            ControlMessage::Goaway(goaway) => self.peers.on_goaway(peer, &goaway, io),
            ControlMessage::Credit(_) | ControlMessage::PrewarmSignal(_) => {}
            ControlMessage::Candidates(candidates) => {
                if let Some(connection) = self.peers.link(peer) {
                    self.overlay.on_candidates(connection, &candidates, io);
                }
            }
        }
    }

    /// Passes a message of a relay that this node uses to the owner that it concerns.
    fn on_relay_message(&mut self, relay: PeerId, message: RelayMessage) {
        let io = &mut self.io;
        match message {
            RelayMessage::Welcome(welcome) => self.overlay.on_welcome(relay, &welcome, io),
            RelayMessage::Registered(it) => self.relay_client.on_registered(relay, &it, io),
            RelayMessage::Unregistered(it) => self.relay_client.on_unregistered(relay, &it, io),
            RelayMessage::Matched(matched) => self.on_matched(relay, &matched),
            RelayMessage::Unmatched(unmatched) => {
                let verdict = self.relay_client.on_unmatched(relay, &unmatched, io);
                if let Some((peer, failure)) = verdict {
                    self.peers.on_not_found(peer, failure, io);
                }
            }
            RelayMessage::Incoming(it) => self.overlay.on_incoming(relay, &it, io),
            RelayMessage::Hangup(hangup) => {
                let channel = Channel { relay, number: hangup.channel };
                tracing::debug!(%channel, why = %hangup.to_failure(), "a channel is over");
                if let Some(peer) = self.overlay.drop_channel(channel, io) {
                    self.relay_client.on_channel_lost(peer, relay, io);
                }
            }
            RelayMessage::Register(_) | RelayMessage::Withdraw(_) | RelayMessage::Connect(_) => {
                misplaced(relay, io);
            }
        }
    }

    /// Handles a service that a relay found: the channel goes to the peer that it was looked up
    /// for.
    fn on_matched(&mut self, relay: PeerId, matched: &Matched) {
        let (channel, io) = (Channel { relay, number: matched.channel }, &mut self.io);
        let Some(peer) = self.relay_client.on_matched(relay, matched, io) else {
            return overlay::hang_up(channel, &relay_client::unwanted(), io);
        };
        let connection = self.peers.connection(peer);
        if let Some(id) = connection.and_then(|connection| self.overlay.by_connection(connection)) {
            return self.overlay.add_channel(id, channel, io);
        }
        let Some(name) = self.peers.awaited_name(peer) else {
            return overlay::hang_up(channel, &relay_client::unwanted(), io);
        };
        match self.overlay.dial(peer, channel, &name, io) {
            Ok(connection) => {
                self.peers.set_attempt(peer, connection);
                self.relay_client.set_connection(peer, connection);
            }
            Err(misuse) => {
                let failure = Failure::new(Code::Misconfigured, misuse.to_string());
                self.peers.on_not_found(peer, failure, io);
            }
        }
    }

    /// Ends the peers without work in progress, once a shutdown has begun.
    fn advance_shutdown(&mut self, now: Instant) {
        let Some(is_over) = self.io.shutdown.poll(now) else { return };
        let (relays, others): (Vec<_>, Vec<_>) =
            self.peers.ids().partition(|id| self.peers.is_relay(*id));
        // A relay carries the closing messages of the others: its connection is closed last.
        let are_alone = others.is_empty() && !relays.is_empty() && !self.is_sending_to_relays();
        let mut ended: Vec<_> =
            others.into_iter().filter(|id| is_over || self.is_quiet(*id)).collect();
        if is_over || are_alone {
            ended.extend(relays);
        }
        for id in ended {
            let failure = Failure::new(Code::ShuttingDown, "shutting down");
            // It is in the list that was just made.
            let _ = self.end(id, failure);
        }
        self.settle();
        if self.peers.ids().next().is_none() {
            self.io.shutdown = Shutdown::Done;
            self.io.emit(Event::ShutDown);
        }
    }

    /// Returns true if a closed connection still has packets to send through a relay.
    fn is_sending_to_relays(&mut self) -> bool {
        let waits = |id| {
            let connection = self.peers.link(id);
            connection.is_some_and(|it| self.io.quic.datagrams_waiting(it) > 0)
        };
        self.peers.ids().any(waits) || self.io.quic.is_closing()
    }

    pub(super) fn is_quiet(&self, peer: PeerId) -> bool {
        let is_forwarded = |relay: &RelayServer| relay.has_channels(peer);
        self.requests.queued(peer) == 0
            && self.streams.count(peer) == 0
            && !self.relay_server.as_ref().is_some_and(is_forwarded)
    }
}

/// Closes the connection of a peer that sent a message which is not for its control stream.
fn misplaced(peer: PeerId, io: &mut Io) {
    let sentence = "a message that does not belong on the control stream";
    let failure = Failure::new(Code::ProtocolViolation, sentence);
    io.effect(Effect::Close { peer, failure });
}
