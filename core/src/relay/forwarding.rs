//! Forwarding of packets from one end of a channel to the other; others are dropped and counted.

use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Relay;
use crate::encapsulation::{self, Head};
use crate::id::PeerId;

impl Relay {
    /// Forwards a datagram of a client to the other end of one of its channels (docs/protocol.md,
    /// "Relayed packets"). It is queued with the number that the channel has there, or dropped and
    /// counted; the payload is not inspected.
    pub(crate) fn forward(&mut self, client: PeerId, datagram: &[u8], now: Instant) {
        let Some(Head { context, channel, rest }) = Head::parse(datagram) else {
            self.counters.drops.malformed += 1;
            return;
        };
        let Some(attached) = self.clients.get_mut(&client) else { return };
        let Some(end) = attached.channels.get(&channel).copied() else {
            self.counters.drops.unknown_channel += 1;
            return;
        };
        let (rate, burst) = (self.config.bytes_per_second, self.config.bytes_at_once);
        let in_all = self.config.bytes_per_second_in_all;
        let is_within = attached.bytes.take(datagram.len(), rate, burst, now)
            && in_all.is_none_or(|rate| self.bytes.take(datagram.len(), rate, rate, now));
        if !is_within {
            self.counters.drops.over_rate += 1;
            return;
        }
        // A copy: a packet that waits here must not keep alive the larger buffer that it arrived
        // in.
        let mut packet = BytesMut::with_capacity(datagram.len());
        packet.put_u8(context);
        packet.put_u32(end.number);
        packet.put_slice(rest);
        self.counters.drops.queue_full += self.queues.push(end.partner, client, packet.freeze());
    }

    /// Returns a client that was given packets since this last returned it. The caller fetches them
    /// with [`Relay::poll_packet`] while its connection has room; the caller remembers the clients
    /// without room and continues with them when they have it.
    pub(crate) fn poll_ready(&mut self) -> Option<PeerId> {
        self.queues.poll_ready()
    }

    /// Returns the length of the datagram that [`Relay::poll_packet`] would return.
    pub(crate) fn peek_packet(&mut self, client: PeerId) -> Option<usize> {
        self.queues.peek(client)
    }

    /// Returns the next packet for a client, in as many datagrams as needed so that none is larger
    /// than `room`: its path may carry less than the sender's. Returns none if it still does not
    /// fit.
    pub(crate) fn poll_packet(
        &mut self,
        client: PeerId,
        room: usize,
    ) -> Option<impl Iterator<Item = Bytes> + use<>> {
        let packet = self.queues.poll(client)?;
        let length = packet.len() as u64;
        let last_part = &mut self.clients.get_mut(&client)?.last_part;
        let mut datagrams = encapsulation::refit(packet, room, last_part).peekable();
        if datagrams.peek().is_some() {
            self.counters.packets += 1;
            self.counters.bytes += length;
        } else {
            self.counters.drops.too_large += 1;
        }
        Some(datagrams)
    }
}
