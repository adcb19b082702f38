//! Which datagrams on the socket are whose: probes, packets of end-to-end connections, and those of
//! connections from address to address (docs/protocol.md, "One socket").
//!
//! It looks at the first byte and at the connection id, and decides nothing else.

use std::time::Instant;

use super::Node;
use crate::probe;
use crate::transmit::{self, Datagram, NextHop};

/// Whose a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Probe,
    /// Of an end-to-end connection, by the number of its way.
    Inner(u32),
    /// Of a connection from address to address, or the beginning of one.
    Plain,
}

/// The class of the first packet of a batch, and the length of it and of those of the same class
/// right behind it: nearly always all of them.
pub(crate) fn first_run<C: PartialEq>(
    batch: &[u8],
    size: usize,
    class: impl Fn(&[u8]) -> C,
) -> Option<(C, usize)> {
    let mut packets = batch.chunks(size.max(1));
    let first = packets.next().map(&class)?;
    let run = 1 + packets.take_while(|packet| class(packet) == first).count();
    Some((first, run.saturating_mul(size.max(1)).min(batch.len())))
}

impl Node {
    pub(super) fn on_datagram(&mut self, mut datagram: Datagram, now: Instant) {
        if transmit::is_virtual(&datagram.route.remote) {
            return;
        }
        while !datagram.payload.is_empty() {
            let size = match datagram.segment_size {
                0 => datagram.payload.len(),
                size => size,
            };
            let first = first_run(&datagram.payload, size, |packet| self.class(packet));
            let Some((class, length)) = first else { return };
            let payload = datagram.payload.split_to(length);
            let (route, via) = (datagram.route, NextHop::Direct(datagram.route));
            match class {
                Class::Probe => payload.chunks(size).for_each(|one| self.on_probe(via, one, now)),
                Class::Inner(number) => {
                    let batch = (payload, datagram.segment_size, datagram.ecn);
                    self.on_inner(number, via, batch, now);
                }
                Class::Plain => {
                    let (ecn, segment_size) = (datagram.ecn, datagram.segment_size);
                    let batch = Datagram { route, ecn, segment_size, payload };
                    self.endpoint.handle_datagram(batch, now);
                }
            }
        }
    }

    fn class(&self, packet: &[u8]) -> Class {
        if packet.first().is_some_and(|first| probe::FIRST_BYTES.contains(first)) {
            return Class::Probe;
        }
        self.endpoint
            .inner_of(packet)
            .and_then(|connection| self.ways.by_connection(connection))
            .map_or(Class::Plain, Class::Inner)
    }
}
