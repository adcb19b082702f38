//! How packets of end-to-end connections travel in datagrams to and from a relay: whole, or in parts
//! where the path to the relay is too narrow (docs/protocol.md, "Relayed packets").
//!
//! It decides how they are wrapped, split and put together again, and how many halves are kept. It
//! never looks at what they say.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};

/// First byte of a datagram that carries a whole packet.
pub(crate) const WHOLE: u8 = 2;
/// First byte of a datagram that carries a part of one.
pub(crate) const PART: u8 = 3;
/// Bytes before a whole packet.
pub(crate) const WHOLE_HEADER: usize = 5;
/// Bytes before a part.
const PART_HEADER: usize = 9;
/// Parts that one packet may have: the largest packets, of 16 KiB, over the narrowest path.
const MAX_PARTS: usize = 16;
/// Packets of which some parts are here and some are not: those of a burst that was reordered.
const MAX_UNFINISHED: usize = 32;

/// Wraps a packet for a channel, in as many datagrams as it takes if none is larger than `room`.
/// There is none of a packet that does not fit even so. `id` tells its parts from those of others.
pub(crate) fn wrap(
    channel: u32,
    id: u16,
    packet: &[u8],
    room: usize,
) -> impl Iterator<Item = Bytes> {
    let fits = packet.len().saturating_add(WHOLE_HEADER) <= room;
    let most = room.saturating_sub(PART_HEADER).max(1);
    let count = if fits { 1 } else { packet.len().div_ceil(most) };
    let size = packet.len().div_ceil(count.max(1)).max(1);
    let is_possible = fits || (room > PART_HEADER && count <= MAX_PARTS);
    let parts = if is_possible { packet } else { &[] };
    parts.chunks(size).enumerate().map(move |(index, part)| {
        let mut out = BytesMut::with_capacity(part.len().saturating_add(PART_HEADER));
        out.put_u8(if fits { WHOLE } else { PART });
        out.put_u32(channel);
        if !fits {
            out.put_u16(id);
            out.put_u8(u8::try_from(index).unwrap_or(u8::MAX));
            out.put_u8(u8::try_from(count).unwrap_or(u8::MAX));
        }
        out.put_slice(part);
        out.freeze()
    })
}

/// A datagram from a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// Which channel it came by.
    pub(crate) channel: u32,
    /// What is in it.
    pub(crate) content: Content,
}

/// What a datagram from a relay carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A packet.
    Whole(Bytes),
    /// A part of one.
    Part(Part),
}

/// A part of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    id: u16,
    index: u8,
    count: u8,
    bytes: Bytes,
}

/// What stands before every packet and every part, and what follows it. It is all that a relay looks
/// at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// [`WHOLE`] or [`PART`].
    pub(crate) context: u8,
    pub(crate) channel: u32,
    pub(crate) rest: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads it; `None` if there is none, or nothing to carry behind it.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, rest) = datagram.split_first_chunk::<WHOLE_HEADER>()?;
        let [context, channel @ ..] = *header;
        let header = match context {
            WHOLE => WHOLE_HEADER,
            PART => PART_HEADER,
            _ => return None,
        };
        let channel = u32::from_be_bytes(channel);
        (datagram.len() > header).then_some(Self { context, channel, rest })
    }
}

impl Envelope {
    /// Reads a datagram; `None` if it is none of these, or broken.
    pub(crate) fn parse(mut datagram: Bytes) -> Option<Self> {
        let Head { context, channel, .. } = Head::parse(&datagram)?;
        match context {
            WHOLE => {
                let packet = datagram.split_off(WHOLE_HEADER);
                Some(Self { channel, content: Content::Whole(packet) })
            }
            PART => {
                let &[high, low, index, count] = datagram.get(WHOLE_HEADER..PART_HEADER)? else {
                    return None;
                };
                let bytes = datagram.split_off(PART_HEADER);
                let is_sound = index < count && (2..=MAX_PARTS).contains(&usize::from(count));
                let part = Part { id: u16::from_be_bytes([high, low]), index, count, bytes };
                is_sound.then_some(Self { channel, content: Content::Part(part) })
            }
            _ => None,
        }
    }
}

/// The parts of packets that are not whole yet. The oldest packet goes when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    unfinished: VecDeque<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    id: u16,
    parts: Vec<Option<Bytes>>,
}

impl Reassembly {
    /// Takes a part; gives the packet that it completes. A part of another shape than those before
    /// it starts its packet anew: ids come around.
    pub(crate) fn push(&mut self, part: Part) -> Option<BytesMut> {
        let count = usize::from(part.count);
        let known = self.unfinished.iter().position(|u| u.id == part.id);
        let mut packet = known
            .and_then(|at| self.unfinished.remove(at))
            .filter(|u| u.parts.len() == count)
            .unwrap_or_else(|| Unfinished { id: part.id, parts: vec![None; count] });
        *packet.parts.get_mut(usize::from(part.index))? = Some(part.bytes);
        if packet.parts.iter().all(Option::is_some) {
            let mut whole = BytesMut::new();
            packet.parts.iter().flatten().for_each(|part| whole.extend_from_slice(part));
            return Some(whole);
        }
        if self.unfinished.len() >= MAX_UNFINISHED {
            self.unfinished.pop_front();
        }
        self.unfinished.push_back(packet);
        None
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "tests may panic"
    )]

    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence::Direct;

    use super::*;

    const ROOM: usize = 1_162;

    fn parse(datagrams: impl Iterator<Item = Bytes>) -> Vec<Envelope> {
        datagrams.map(|d| Envelope::parse(d).expect("it was wrapped here")).collect()
    }

    fn part(id: u16, index: u8, count: u8) -> Part {
        Part { id, index, count, bytes: Bytes::from(vec![index]) }
    }

    #[test]
    fn a_packet_that_fits_goes_whole_and_one_byte_more_goes_in_two() {
        let fits = vec![7; ROOM - WHOLE_HEADER];
        let whole = parse(wrap(9, 1, &fits, ROOM));
        assert_eq!(whole, [Envelope { channel: 9, content: Content::Whole(fits.into()) }]);
        let more = vec![7; ROOM - WHOLE_HEADER + 1];
        let parts: Vec<_> = wrap(9, 1, &more, ROOM).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(&parts[1][..PART_HEADER], [PART, 0, 0, 0, 9, 0, 1, 1, 2]);
    }

    #[test]
    fn a_packet_of_more_than_the_most_parts_does_not_go_at_all() {
        let most = (ROOM - PART_HEADER) * MAX_PARTS;
        assert_eq!(wrap(1, 1, &vec![0; most], ROOM).count(), MAX_PARTS);
        assert_eq!(wrap(1, 1, &vec![0; most + 1], ROOM).count(), 0);
        assert_eq!(wrap(1, 1, &[0; 100], PART_HEADER).count(), 0);
        assert_eq!(wrap(1, 1, &[0; 100], 0).count(), 0);
    }

    #[test]
    fn what_is_no_envelope_is_none() {
        for bytes in [
            &b""[..],
            b"\x02\0\0\0",
            b"\x02\0\0\0\x01",
            b"\x03\0\0\0\x01\0\x01\x02\x02x",
            b"\x03\0\0\0\x01\0\x01\0\x01x",
            b"\x03\0\0\0\x01\0\x01\0\x11x",
            b"\x03\0\0\0\x01\0\x01\0\x02",
            b"\x04\0\0\0\x01x",
        ] {
            assert_eq!(Envelope::parse(Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_oldest_unfinished_packet_goes_one_past_the_limit() {
        let mut reassembly = Reassembly::default();
        for id in 0..=u16::try_from(MAX_UNFINISHED).unwrap() {
            assert_eq!(reassembly.push(part(id, 0, 2)), None);
        }
        assert_eq!(reassembly.unfinished.len(), MAX_UNFINISHED);
        assert_eq!(reassembly.push(part(0, 1, 2)), None, "its other half was let go");
        assert!(reassembly.push(part(2, 1, 2)).is_some());
    }

    #[test]
    fn a_part_of_another_shape_starts_its_packet_anew() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.push(part(1, 0, 3)), None);
        assert_eq!(reassembly.push(part(1, 1, 2)), None);
        assert_eq!(reassembly.push(part(1, 0, 2)).as_deref(), Some(&[0, 1][..]));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(Direct("../proptest-regressions/envelope.txt"))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn packets_come_out_as_they_went_in_whatever_the_order(
            packet in proptest::collection::vec(any::<u8>(), 1..16_000),
            room in 1_100..1_400_usize,
            seed in any::<u64>(),
        ) {
            let mut parts = parse(wrap(3, 5, &packet, room));
            let turn = usize::try_from(seed).unwrap_or(0) % parts.len();
            parts.rotate_left(turn);
            let mut reassembly = Reassembly::default();
            let mut whole = Vec::new();
            for envelope in parts {
                match envelope.content {
                    Content::Whole(bytes) => whole.push(bytes.to_vec()),
                    Content::Part(part) => whole.extend(reassembly.push(part).map(|b| b.to_vec())),
                }
            }
            prop_assert_eq!(whole, vec![packet]);
            prop_assert!(reassembly.unfinished.is_empty());
        }
    }
}
