//! Classifies the datagrams on the socket: probes, packets of overlay (end-to-end) connections, and
//! packets of direct connections (docs/protocol.md, "One socket").
//!
//! It reads the first byte and the connection id, and decides nothing else.

use bytes::BytesMut;

use super::overlay::Overlay;
use crate::id::OverlayId;
use crate::probe;
use crate::quic::Endpoint;
use crate::transmit::Datagram;

/// The class of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatagramClass {
    Probe,
    /// A packet of an end-to-end connection.
    Overlay(OverlayId),
    /// A packet of a connection between two addresses, or the start of one.
    Direct,
}

/// Returns the class of the first packet of a batch, and the total length of it and the packets of
/// the same class directly after it: nearly always all of them.
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

/// Splits the first run off a batch.
pub(super) fn split_run(
    datagram: &mut Datagram,
    quic: &Endpoint,
    overlay: &Overlay,
) -> Option<(DatagramClass, BytesMut)> {
    let class = |packet: &[u8]| {
        if packet.first().is_some_and(|first| probe::FIRST_BYTES.contains(first)) {
            return DatagramClass::Probe;
        }
        let connection = quic.overlay_connection(packet);
        let id = connection.and_then(|connection| overlay.by_connection(connection));
        id.map_or(DatagramClass::Direct, DatagramClass::Overlay)
    };
    let (class, length) = first_run(&datagram.payload, segment(datagram), class)?;
    Some((class, datagram.payload.split_to(length)))
}

/// Returns the size of each packet of a batch.
pub(super) fn segment(datagram: &Datagram) -> usize {
    match datagram.segment_size {
        0 => datagram.payload.len(),
        size => size,
    }
}
