//! What is said beside the streams: heartbeats and goodbyes on the control stream, and datagrams.
//!
//! The schedule is the heartbeat machine's and the framing is `control.rs`'s; here the bytes move.

use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Node, control};
use crate::error::{Code, Failure, Misuse};
use crate::event::Event;
use crate::heartbeat;
use crate::id::{PeerId, StreamId};
use crate::message::{Heartbeat as Beat, HeartbeatAck, Message, ServerStatus};
use crate::quic::{self, Class, Read, Write};

/// First byte of a datagram that carries a control frame.
const CONTEXT_CONTROL: u8 = 0;
/// First byte of a datagram of the application's.
const CONTEXT_APPLICATION: u8 = 1;

impl Node {
    /// Lets the heartbeat of a dialled peer act.
    pub(super) fn beat(&mut self, id: PeerId, now: Instant) {
        let unix = self.clock.unix();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (Some(dialled), Some(link)) = (&mut peer.dialled, &mut peer.link) else { return };
        if let Some(heard) = self.endpoint.get(link.connection).map(quic::Connection::last_heard) {
            dialled.heartbeat.on_heard(heard);
        }
        match dialled.heartbeat.poll(now) {
            None => {}
            Some(heartbeat::Action::Send { sequence }) => {
                let beat = Message::Heartbeat(Beat {
                    device_id: self.config.device_id.clone(),
                    timestamp: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
                    sequence,
                    vitals: None,
                });
                let pushed = link.control.push(&beat);
                self.after_push(id, pushed, now);
            }
            Some(heartbeat::Action::Dead(verdict)) => {
                let failure = Failure::from(verdict);
                self.break_link(id, failure, now);
            }
        }
    }

    pub(super) fn on_control_message(&mut self, id: PeerId, message: Message, now: Instant) {
        let message =
            if self.is_relay(id) { self.on_relay_message(id, message, now) } else { Some(message) };
        let (Some(message), unix) = (message, self.clock.unix()) else { return self.reindex(id) };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match message {
            Message::Heartbeat(beat) if peer.dialled.is_none() => {
                let latency = peer.latency.smoothed().unwrap_or_default();
                let ack = Message::HeartbeatAck(HeartbeatAck {
                    sequence: beat.sequence,
                    server_time: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
                    latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
                    pending_messages: peer.queue.len() as u64,
                    server_status: if self.shutdown.is_under_way() {
                        ServerStatus::Draining
                    } else {
                        ServerStatus::Ok
                    },
                });
                let pushed = peer.link.as_mut().map_or(Ok(()), |l| l.control.push(&ack));
                self.after_push(id, pushed, now);
            }
            Message::HeartbeatAck(ack) => self.on_acked(id, ack.sequence, now),
            Message::Goaway(goaway) => {
                tracing::info!(peer = %id, reason = %goaway.to_failure(), "the peer shuts down");
                if let Some(link) = &mut peer.link {
                    link.going_away = true;
                    link.back_after = goaway.to_failure().retry_after();
                }
                self.emit(Event::GoingAway { peer: id });
            }
            Message::PrewarmSignal(_) => {}
            Message::Candidates(candidates) => self.on_candidates(id, &candidates, now),
            message @ (Message::Register(_)
            | Message::Withdraw(_)
            | Message::Connect(_)
            | Message::Hangup(_))
                if self.is_client(id) =>
            {
                self.on_client_message(id, &message, now)
            }
            Message::Heartbeat(_)
            | Message::EscalationRequest(_)
            | Message::EscalationResponse(_)
            | Message::StreamChunk(_)
            | Message::StreamEnd(_)
            | Message::Error(_)
            | Message::Open(_)
            | Message::Opened(_)
            | Message::Request(_)
            | Message::Response(_)
            | Message::ResponseChunk(_)
            | Message::Welcome(_)
            | Message::Register(_)
            | Message::Registered(_)
            | Message::Unregistered(_)
            | Message::Withdraw(_)
            | Message::Connect(_)
            | Message::Matched(_)
            | Message::Unmatched(_)
            | Message::Incoming(_)
            | Message::Hangup(_) => {
                let sentence = "a message that does not belong on the control stream";
                self.break_link(id, Failure::new(Code::ProtocolViolation, sentence), now);
            }
        }
        self.reindex(id);
    }

    fn on_acked(&mut self, id: PeerId, sequence: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let sample = peer.dialled.as_mut().and_then(|d| d.heartbeat.on_ack(sequence, now));
        if let Some(latency) = sample {
            peer.latency.record(latency);
            if let Some(smoothed) = peer.latency.smoothed() {
                peer.lifecycle.set_latency(smoothed);
            }
            self.emit(Event::HeartbeatAcked { peer: id, latency });
        }
    }

    /// Writes what the control stream holds, or ends the connection whose control stream is full.
    pub(super) fn after_push(&mut self, id: PeerId, pushed: Result<(), Failure>, now: Instant) {
        match pushed {
            Ok(()) => self.flush_control(id, now),
            Err(failure) => self.break_link(id, failure, now),
        }
    }

    pub(super) fn read_control(&mut self, peer: PeerId, now: Instant) {
        loop {
            let Some(link) = self.peers.get(&peer).and_then(|p| p.link.as_ref()) else { return };
            let Some(index) = link.control.stream else { return };
            let id = StreamId { peer, connection: link.number, index };
            let mut chunk = match self.quic_read(id, control::MAX_CONTROL_PAYLOAD) {
                Read::Chunk(chunk) => chunk,
                Read::Blocked => return,
                Read::End | Read::Reset(_) | Read::Gone => {
                    let sentence = "the peer ended the control stream";
                    self.break_link(peer, Failure::new(Code::ProtocolViolation, sentence), now);
                    return;
                }
            };
            loop {
                let link = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut());
                let Some(link) = link.filter(|l| l.number == id.connection) else { return };
                match link.control.poll_message(&mut chunk, now) {
                    Ok(Some(message)) => self.on_control_message(peer, message, now),
                    Ok(None) => break,
                    Err(failure) => {
                        self.break_link(peer, failure, now);
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn flush_control(&mut self, peer: PeerId, now: Instant) {
        loop {
            let Some(link) = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut()) else {
                return;
            };
            let (connection, Some(index)) = (link.connection, link.control.stream) else { return };
            let Some(front) = link.control.front() else { return };
            let wrote = self
                .endpoint
                .stream(connection, |c| c.write(index, &mut front.bytes, Class::Control))
                .unwrap_or(Write::Gone);
            match wrote {
                Write::Taken(_) => {
                    front.as_datagram = false;
                    if front.bytes.is_empty() {
                        link.control.pop();
                    }
                }
                Write::Blocked if front.as_datagram => {
                    let datagram = framed(CONTEXT_CONTROL, &front.bytes);
                    // A path too narrow for it loses it, as any path may.
                    let _ = self.endpoint.stream(connection, |c| c.send_datagram(datagram));
                    link.control.pop();
                }
                Write::Blocked => return,
                Write::Stopped(_) | Write::Gone => {
                    let sentence = "the peer stopped the control stream";
                    self.break_link(peer, Failure::new(Code::ProtocolViolation, sentence), now);
                    return;
                }
            }
        }
    }

    /// Sends a datagram: it arrives once, or not at all.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] without a connection; [`Misuse::OverLimit`] when it is larger than
    /// [`Node::max_datagram`].
    pub fn send_datagram(&mut self, id: PeerId, data: &[u8]) -> Result<(), Misuse> {
        let peer = self.peers.get(&id).ok_or(Misuse::UnknownPeer)?;
        let link = peer.link.as_ref().ok_or(Misuse::NotConnected)?;
        let framed = framed(CONTEXT_APPLICATION, data);
        self.endpoint
            .stream(link.connection, |c| c.send_datagram(framed))
            .ok_or(Misuse::NotConnected)?
    }

    /// The next datagram received from a peer.
    pub fn recv_datagram(&mut self, id: PeerId) -> Option<Bytes> {
        self.peers.get_mut(&id)?.pop_datagram()
    }

    /// Bytes of the largest datagram that the path to a peer carries now.
    pub fn max_datagram(&mut self, id: PeerId) -> Option<usize> {
        let connection = self.peers.get(&id)?.link.as_ref()?.connection;
        let max = self.endpoint.stream(connection, quic::Connection::max_datagram)??;
        max.checked_sub(1)
    }

    pub(super) fn on_datagrams(&mut self, id: PeerId, now: Instant) {
        let Some(connection) =
            self.peers.get(&id).and_then(|p| p.link.as_ref()).map(|l| l.connection)
        else {
            return;
        };
        // Between a relay and its clients there are packets of others instead of an application's.
        let (is_relay, is_client) = (self.is_relay(id), self.is_client(id));
        let mut fresh = false;
        while let Some(data) =
            self.endpoint.stream(connection, quic::Connection::recv_datagram).flatten()
        {
            let Some(peer) = self.peers.get_mut(&id) else { break };
            match data.first() {
                Some(&CONTEXT_CONTROL) => {
                    let Some(link) = &mut peer.link else { break };
                    match link.control.handle_datagram(data.slice(1..), now) {
                        Ok(Some(message)) => self.on_control_message(id, message, now),
                        Ok(None) => {}
                        Err(failure) => self.break_link(id, failure, now),
                    }
                }
                Some(_) | None if is_client => self.pass_on(id, &data, now),
                Some(_) | None if is_relay => self.on_enveloped(id, data, now),
                Some(&CONTEXT_APPLICATION) => {
                    let limit = self.config.transport.datagram_receive_buffer as usize;
                    peer.push_datagram(&data[1..], limit);
                    fresh = true;
                }
                Some(_) | None => {}
            }
        }
        if fresh && self.peers.contains_key(&id) {
            self.emit(Event::DatagramReceived { peer: id });
        }
    }
}

fn framed(context: u8, data: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(data.len() + 1);
    framed.put_u8(context);
    framed.put_slice(data);
    framed.freeze()
}
