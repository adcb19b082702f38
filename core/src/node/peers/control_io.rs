//! Sends and receives control messages: heartbeats, the notice of a shutdown, and what they carry.
//!
//! The heartbeat machine has the schedule and `control` the framing; this module moves the bytes.

use std::time::Duration;

use bytes::Bytes;

use super::Peers;
use super::control;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::heartbeat;
use crate::id::PeerId;
use crate::message::{ControlMessage, Goaway, Heartbeat, HeartbeatAck, Message, ServerStatus};
use crate::node::framed;
use crate::node::io::{Effect, Io};
use crate::quic::{self, Read, Write, WriteClass};

/// First byte of a datagram that carries a control frame.
pub(in crate::node) const CONTEXT_CONTROL: u8 = 0;
/// First byte of a datagram of the application.
pub(in crate::node) const CONTEXT_APPLICATION: u8 = 1;

impl Peers {
    /// Puts a message on a peer's control stream, if the peer is connected.
    pub(in crate::node) fn send(&mut self, id: PeerId, message: &Message, io: &mut Io) {
        let Some(link) = self.link_mut(id).filter(|link| !link.is_closing) else { return };
        match link.control.push(message) {
            Ok(()) => {
                self.flush_control(id, io);
            }
            Err(failure) => self.violate(id, failure, io),
        }
    }

    /// Carries out the due actions of a dialled peer's heartbeat.
    pub(super) fn beat(&mut self, id: PeerId, io: &mut Io) {
        let now = io.now();
        let Some(peer) = self.all.get_mut(&id) else { return };
        let (Some(dialled), Some(link)) = (&mut peer.dialled, &mut peer.link) else { return };
        if let Some(heard) = io.quic.get(link.connection).map(quic::Connection::last_heard) {
            dialled.heartbeat.on_heard(heard);
        }
        match dialled.heartbeat.poll(now) {
            None => {}
            Some(heartbeat::HeartbeatAction::Send { sequence }) => {
                let beat = Heartbeat {
                    device_id: io.config.device_id.clone(),
                    timestamp: millis(io.unix()),
                    sequence,
                    vitals: None,
                };
                io.send(id, Message::Control(ControlMessage::Heartbeat(beat)));
            }
            Some(heartbeat::HeartbeatAction::Dead(verdict)) => {
                io.effect(Effect::Close { peer: id, failure: Failure::from(verdict) });
            }
        }
    }

    /// Answers the heartbeat of a peer that dialled this node; `pending` requests wait for that
    /// peer.
    pub(in crate::node) fn on_heartbeat(
        &mut self,
        id: PeerId,
        beat: &Heartbeat,
        pending: usize,
        io: &mut Io,
    ) {
        let Some(peer) = self.all.get(&id) else { return };
        let ack = HeartbeatAck {
            sequence: beat.sequence,
            server_time: millis(io.unix()),
            latency_ms: millis(peer.latency.smoothed().unwrap_or_default()),
            pending_messages: pending as u64,
            server_status: if io.shutdown.is_under_way() {
                ServerStatus::Draining
            } else {
                ServerStatus::Ok
            },
        };
        io.send(id, Message::Control(ControlMessage::HeartbeatAck(ack)));
    }

    pub(in crate::node) fn on_heartbeat_ack(&mut self, id: PeerId, sequence: u64, io: &mut Io) {
        let now = io.now();
        let Some(peer) = self.all.get_mut(&id) else { return };
        let sample = peer.dialled.as_mut().and_then(|d| d.heartbeat.on_ack(sequence, now));
        if let Some(latency) = sample {
            peer.latency.record(latency);
            if let Some(smoothed) = peer.latency.smoothed() {
                peer.lifecycle.set_latency(smoothed);
            }
            io.emit(Event::HeartbeatAcked { peer: id, latency });
        }
        self.reindex(id);
    }

    pub(in crate::node) fn on_goaway(&mut self, id: PeerId, goaway: &Goaway, io: &mut Io) {
        let failure = goaway.to_failure();
        tracing::info!(peer = %id, reason = %failure, "the peer shuts down");
        if let Some(link) = self.link_mut(id) {
            link.going_away = true;
            link.back_after = failure.retry_after();
        }
        io.emit(Event::GoingAway { peer: id });
    }

    /// Uses a stream as the control stream, if the peer dialled this node and it is the first.
    pub(in crate::node) fn is_control(&mut self, id: PeerId, index: u64) -> bool {
        let Some(peer) = self.all.get_mut(&id) else { return false };
        let Some(link) = &mut peer.link else { return false };
        if peer.dialled.is_none() {
            link.control.stream.get_or_insert(index);
        }
        link.control.stream == Some(index)
    }

    /// Returns the next message on a peer's control stream.
    pub(in crate::node) fn poll_control(&mut self, id: PeerId, io: &mut Io) -> Option<Message> {
        let now = io.now();
        loop {
            let link = self.link_mut(id).filter(|link| !link.is_closing)?;
            match link.control.poll_message(now) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(failure) => {
                    self.violate(id, failure, io);
                    return None;
                }
            }
            let (connection, index) = (link.connection, link.control.stream?);
            let read = io.on(connection, |c| c.read(index, control::MAX_CONTROL_PAYLOAD));
            match read.unwrap_or(Read::Gone) {
                Read::Chunk(chunk) => link.control.feed(chunk),
                Read::Blocked => return None,
                Read::End | Read::Reset(_) | Read::Gone => {
                    let sentence = "the peer ended the control stream";
                    self.violate(id, Failure::new(Code::ProtocolViolation, sentence), io);
                    return None;
                }
            }
        }
    }

    /// Returns the message of a control frame that came in a datagram.
    pub(in crate::node) fn on_control_datagram(
        &mut self,
        id: PeerId,
        data: Bytes,
        io: &mut Io,
    ) -> Option<Message> {
        let now = io.now();
        let link = self.link_mut(id).filter(|link| !link.is_closing)?;
        match link.control.handle_datagram(data, now) {
            Ok(message) => message,
            Err(failure) => {
                self.violate(id, failure, io);
                None
            }
        }
    }

    /// Writes the waiting frames of a peer's control stream, as far as the peer's flow control
    /// allows. Returns true if none is left.
    pub(in crate::node) fn flush_control(&mut self, id: PeerId, io: &mut Io) -> bool {
        loop {
            let Some(link) = self.link_mut(id).filter(|link| !link.is_closing) else {
                return false;
            };
            let (connection, Some(index)) = (link.connection, link.control.stream) else {
                return false;
            };
            let Some(front) = link.control.front() else { return true };
            let wrote =
                io.on(connection, |c| c.write(index, &mut front.bytes, WriteClass::Control));
            match wrote.unwrap_or(Write::Gone) {
                Write::Taken(_) => {
                    front.as_datagram = false;
                    if front.bytes.is_empty() {
                        link.control.pop();
                    }
                }
                Write::Blocked if front.as_datagram => {
                    let datagram = framed(CONTEXT_CONTROL, &front.bytes);
                    // A datagram that is too large for the path is lost, as on any path.
                    let _ = io.on(connection, |c| c.send_datagram(datagram));
                    link.control.pop();
                }
                Write::Blocked => return false,
                Write::Stopped(_) | Write::Gone => {
                    let sentence = "the peer stopped the control stream";
                    self.violate(id, Failure::new(Code::ProtocolViolation, sentence), io);
                    return false;
                }
            }
        }
    }

    /// Closes the connection of a peer that violated the protocol; no more is read from it.
    fn violate(&mut self, id: PeerId, failure: Failure, io: &mut Io) {
        if let Some(link) = self.link_mut(id) {
            link.is_closing = true;
        }
        io.effect(Effect::Close { peer: id, failure });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
