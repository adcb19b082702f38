//! Handshakes that others begin: admitted or refused, limited until the peer is authenticated, and
//! removed when that takes too long or too many bytes. Also the answers to packets that belong to
//! no connection.
//!
//! [`crate::admission`] decides which handshakes may begin; here its verdicts are carried out.

use std::sync::Arc;
use std::time::Instant;

use quinn_proto::{EndpointEvent, Incoming};

use super::{Connection, ConnectionEvent, ConnectionId, Endpoint, Layer, TransmitBatch, ours};
use crate::admission::{AdmissionDecision, Ticket};
use crate::error::{Code, Failure};
use crate::transmit;

/// Stateless answers (version negotiation, reset, retry) waiting to be sent; more than this many
/// are dropped, since the sender of the question asks again.
const MAX_RESPONSES: usize = 256;

/// Limits of a connection that a peer began, until the peer is authenticated.
#[derive(Debug)]
pub(super) struct Unproven {
    pub(super) ticket: Ticket,
    due: Instant,
    /// Bytes the peer may still send.
    allowance: usize,
    /// Bytes received and sent, while its address is not validated; none afterwards.
    amplification: Option<(usize, usize)>,
}

/// How many times the bytes of an address that is not validated may be answered (RFC 9000 §8.1).
const AMPLIFICATION: usize = 3;

impl Unproven {
    /// Returns true if a datagram of this size may be sent. The transport sends a whole one while
    /// any byte is left of what it may send.
    pub(super) fn may_send(&self, size: usize) -> bool {
        self.amplification
            .is_none_or(|(received, sent)| sent + size <= AMPLIFICATION.saturating_mul(received))
    }

    pub(super) const fn note_sent(&mut self, size: usize) {
        if let Some((_, sent)) = &mut self.amplification {
            *sent += size;
        }
    }

    const fn note_received(&mut self, size: usize) {
        if let Some((received, _)) = &mut self.amplification {
            *received += size;
        }
    }

    /// Notes that the peer has sent a packet with the keys of the handshake, which it has only if it
    /// receives what is sent to its address.
    pub(super) const fn note_validated(&mut self) {
        self.amplification = None;
    }
}

/// Returns true if a datagram is one packet of QUIC version 1 with the keys of the handshake, and no
/// other (RFC 9000 §17.2.4).
pub(super) fn is_handshake_packet(datagram: &[u8]) -> bool {
    let parsed = || {
        let [first, _, _, _, _, rest @ ..] = datagram else { return None };
        let (length, rest) = rest.split_first()?;
        let (length, rest) = rest.get(usize::from(*length)..)?.split_first()?;
        let rest = rest.get(usize::from(*length)..)?;
        let width = 1 << (rest.first()? >> 6);
        let number = rest.get(..width)?.iter().enumerate().fold(0, |number, (at, byte)| {
            let byte = if at == 0 { byte & 0x3f } else { *byte };
            number << 8 | u64::from(byte)
        });
        let is_all = usize::try_from(number).ok()? == rest.len() - width;
        Some(first & 0xf0 == 0xe0 && is_all)
    };
    parsed().unwrap_or(false)
}

impl Connection {
    /// Returns when the handshake must be over, if a peer began it and it is not.
    pub(super) fn handshake_due(&self) -> Option<Instant> {
        self.unproven.as_ref().filter(|_| self.establishing).map(|unproven| unproven.due)
    }
}

impl Endpoint {
    /// Returns the number of connections that hold a ticket of the admission.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn tickets(&self) -> usize {
        self.connections.values().filter(|connection| connection.unproven.is_some()).count()
    }

    /// Decides about a first packet of `size` bytes, and answers it or begins the handshake.
    pub(super) fn admit(
        &mut self,
        incoming: Incoming,
        size: usize,
        now: Instant,
    ) -> Option<ConnectionId> {
        let (address, mut answer) = (incoming.remote_address().ip(), Vec::new());
        let passed = self.connections.len() - self.admission.stats().under_way;
        let is_proven = incoming.remote_address_validated();
        let mut decision = self.admission.decide(address, is_proven, passed, now);
        if let AdmissionDecision::Displace(number) = decision {
            self.displace(number, now);
            decision = self.admission.decide(address, is_proven, passed, now);
        }
        match decision {
            AdmissionDecision::Accept(ticket) => self.accept(incoming, ticket, size, now),
            AdmissionDecision::Retry => {
                // Err would mean that it already carries a token.
                if let Ok(transmit) = self.inner.retry(incoming, &mut answer) {
                    self.respond(&transmit, answer);
                }
                // The id in it belongs to no connection.
                drop(self.issued.take());
                None
            }
            AdmissionDecision::Refuse => {
                let transmit = self.inner.refuse(incoming, &mut answer);
                self.respond(&transmit, answer);
                None
            }
            AdmissionDecision::Ignore | AdmissionDecision::Displace(_) => {
                self.inner.ignore(incoming);
                None
            }
        }
    }

    fn accept(
        &mut self,
        incoming: Incoming,
        ticket: Ticket,
        size: usize,
        now: Instant,
    ) -> Option<ConnectionId> {
        let (mut answer, is_validated) = (Vec::new(), incoming.remote_address_validated());
        let (layer, server) = if transmit::overlay_id(&incoming.remote_address()).is_some() {
            (Layer::Overlay, &self.overlay_server)
        } else if self.config.relay.is_some() {
            (Layer::Underlay, &self.server)
        } else {
            (Layer::Direct, &self.server)
        };
        let flight = Arc::default();
        let transport = self.setup.transport(layer, &flight, self.next_id);
        let server = server.as_deref().cloned().map(|mut server| {
            server.transport_config(transport);
            Arc::new(server)
        });
        match self.inner.accept(incoming, now, &mut answer, server) {
            Ok((handle, connection)) => {
                let limits = &self.config.limits;
                let due = now + limits.handshake_timeout;
                let allowance = limits.handshake_bytes.saturating_sub(size);
                self.by_ticket.insert(ticket.number(), ConnectionId(self.next_id));
                let amplification = (!is_validated).then_some((size, 0));
                let unproven = Unproven { ticket, due, allowance, amplification };
                Some(self.insert((handle, connection), layer, flight, Some(unproven), now))
            }
            Err(error) => {
                self.admission.release(ticket, now);
                if let Some(transmit) = error.response {
                    self.respond(&transmit, answer);
                }
                None
            }
        }
    }

    /// Ends the oldest handshake of a source, for that of another.
    fn displace(&mut self, number: u64, now: Instant) {
        if let Some(id) = self.by_ticket.get(&number).copied() {
            let sentence = "the handshake took long, and made room for another";
            self.forget(id, Failure::new(Code::Overloaded, sentence), now);
        }
    }

    /// Frees what a handshake held.
    pub(super) fn release(&mut self, unproven: Unproven, now: Instant) {
        self.by_ticket.remove(&unproven.ticket.number());
        self.admission.release(unproven.ticket, now);
    }

    /// Returns true if a connection may take another datagram of this size; if not, it is over.
    pub(super) fn is_within_allowance(
        &mut self,
        id: ConnectionId,
        size: usize,
        now: Instant,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.is_confirmed() {
            return true;
        }
        let Some(unproven) = &mut connection.unproven else { return true };
        if let Some(left) = unproven.allowance.checked_sub(size) {
            unproven.allowance = left;
            unproven.note_received(size);
            return true;
        }
        let sentence = "more bytes than a handshake takes, and the peer is still not known";
        self.forget(id, Failure::new(Code::ProtocolViolation, sentence), now);
        false
    }

    /// Keeps an answer until it is sent.
    pub(super) fn respond(&mut self, transmit: &quinn_proto::Transmit, mut bytes: Vec<u8>) {
        if self.responses.len() < MAX_RESPONSES {
            bytes.truncate(transmit.size);
            self.responses.push_back((ours(transmit), bytes));
        }
    }

    /// Returns the next answer.
    pub(super) fn poll_response(&mut self, out: &mut Vec<u8>) -> Option<TransmitBatch> {
        let (transmit, bytes) = self.responses.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(TransmitBatch { transmit, is_mtu_probe: false })
    }

    /// Ends a handshake that a peer began and did not finish in time.
    pub(super) fn end_if_overdue(&mut self, id: ConnectionId, now: Instant) {
        let due = self.connections.get(&id).and_then(Connection::handshake_due);
        if due.is_some_and(|due| due <= now) {
            let sentence = "the peer did not finish its handshake in time";
            self.forget(id, Failure::new(Code::TimedOut, sentence), now);
        }
    }

    /// Reports a failed handshake once and keeps no state of it: a stranger is not owed the time in
    /// which a close is repeated (RFC 9000 §10.2.1).
    fn forget(&mut self, id: ConnectionId, failure: Failure, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (handle, remote) = (connection.handle, connection.remote());
        let is_news = connection.establishing;
        connection.close(&failure, now);
        let mut bytes = Vec::new();
        let transmit = connection.inner.poll_transmit(now, 1, &mut bytes);
        if let Some(transmit) = transmit {
            self.respond(&transmit, bytes);
        }
        // No answer to it is expected.
        let _ = self.inner.handle_event(handle, EndpointEvent::drained());
        if is_news {
            self.events.push_back((id, ConnectionEvent::Rejected(remote, failure)));
        }
        self.remove(id, now);
    }
}
