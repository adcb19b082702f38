//! How packets of end-to-end connections travel in datagrams to and from a relay: whole, or in
//! parts where the path to the relay is too narrow (docs/protocol.md, "Relayed packets").
//!
//! It decides how they are wrapped, split and reassembled, and how many partial packets are kept.
//! It never inspects their content.

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
/// Bytes of a packet that one part carries at most: what follows the header on the narrowest path
/// of QUIC, of 1,200 bytes (RFC 9000 §14), and that to the other client may be one.
const MAX_PART: usize = 1_100;
/// Parts that one packet may have: the largest packets are of 16 KiB.
const MAX_PARTS: usize = 16;
/// Ids from here on are those of packets that a relay split.
pub(crate) const RELAY_IDS: u16 = 1 << 15;
/// Bytes that a packet takes more in parts than whole.
pub(crate) const COST_OF_PARTS: usize = MAX_PARTS * (PART_HEADER + size_of::<Bytes>());
/// Most packets that have arrived in part: those of a reordered burst.
const MAX_UNFINISHED: usize = 32;

/// Wraps a packet for a channel, in as many datagrams as needed so that none is larger than `room`.
/// Returns none for a packet that still does not fit. `id` distinguishes its parts from those of
/// others.
pub(crate) fn wrap(
    channel: u32,
    id: u16,
    packet: &[u8],
    room: usize,
) -> impl Iterator<Item = Bytes> {
    let fits = packet.len().saturating_add(WHOLE_HEADER) <= room;
    let most = room.saturating_sub(PART_HEADER).clamp(1, MAX_PART);
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

/// Makes a datagram fit into `room` for the next hop: one that is too large and carries a whole
/// packet is split, with the id after `last_id`. Returns none for one that still does not fit.
pub(crate) fn refit(
    datagram: Bytes,
    room: usize,
    last_id: &mut u16,
) -> impl Iterator<Item = Bytes> + use<> {
    let fits = datagram.len() <= room;
    let parts = match Head::parse(&datagram) {
        Some(Head { context: WHOLE, channel, rest }) if !fits => {
            *last_id = last_id.wrapping_add(1) | RELAY_IDS;
            wrap(channel, *last_id, rest, room).collect()
        }
        Some(_) | None => Vec::new(),
    };
    fits.then_some(datagram).into_iter().chain(parts)
}

/// A datagram from a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayDatagram {
    /// Which channel it came by.
    pub(crate) channel: u32,
    /// Its content.
    pub(crate) content: Content,
}

/// The content of a datagram from a relay.
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

/// The header before every packet and every part, and the payload after it. A relay reads only the
/// header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// [`WHOLE`] or [`PART`].
    pub(crate) context: u8,
    pub(crate) channel: u32,
    pub(crate) rest: &'a [u8],
}

impl<'a> Head<'a> {
    /// Parses it; `None` if the header is invalid or no payload follows it.
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

impl RelayDatagram {
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
    /// Takes a part; returns the packet that it completes. A part of another shape than those
    /// before it starts its packet again: ids are reused.
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

    fn parse(datagrams: impl Iterator<Item = Bytes>) -> Vec<RelayDatagram> {
        datagrams.map(|d| RelayDatagram::parse(d).expect("it was wrapped here")).collect()
    }

    fn part(id: u16, index: u8, count: u8) -> Part {
        Part { id, index, count, bytes: Bytes::from(vec![index]) }
    }

    #[test]
    fn a_packet_that_fits_goes_whole_and_one_byte_more_goes_in_two() {
        let fits = vec![7; ROOM - WHOLE_HEADER];
        let whole = parse(wrap(9, 1, &fits, ROOM));
        assert_eq!(whole, [RelayDatagram { channel: 9, content: Content::Whole(fits.into()) }]);
        let more = vec![7; ROOM - WHOLE_HEADER + 1];
        let parts: Vec<_> = wrap(9, 1, &more, ROOM).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(&parts[1][..PART_HEADER], [PART, 0, 0, 0, 9, 0, 1, 1, 2]);
    }

    #[test]
    fn a_packet_of_more_than_the_most_parts_does_not_go_at_all() {
        let most = MAX_PART * MAX_PARTS;
        assert_eq!(wrap(1, 1, &vec![0; most], ROOM).count(), MAX_PARTS);
        assert_eq!(wrap(1, 1, &vec![0; most + 1], ROOM).count(), 0);
        assert_eq!(wrap(1, 1, &[0; 100], PART_HEADER).count(), 0);
        assert_eq!(wrap(1, 1, &[0; 100], 0).count(), 0);
    }

    #[test]
    fn no_part_is_too_large_for_the_narrowest_path_whatever_the_one_here_carries() {
        for length in [2_000, 2_201, 9_000, 16_384] {
            let packet = vec![7; length];
            let longest = wrap(1, 1, &packet, 1_400).map(|part| part.len()).max().unwrap();
            assert!(longest <= MAX_PART + PART_HEADER, "{length}: {longest}");
        }
    }

    #[test]
    fn a_whole_packet_is_refitted_where_the_next_path_is_narrower_and_a_part_is_not() {
        let packet: Vec<u8> = (0..1_200).map(|it| it as u8).collect();
        let whole = wrap(9, 1, &packet, 1_300).next().unwrap();
        let room = whole.len();
        let mut last_id = u16::MAX;
        let same: Vec<_> = refit(whole.clone(), room, &mut last_id).collect();
        assert_eq!((same, last_id), (vec![whole.clone()], u16::MAX));
        let parts = parse(refit(whole.clone(), room - 1, &mut last_id));
        let mut reassembly = Reassembly::default();
        let rebuilt: Vec<_> = parts
            .into_iter()
            .filter_map(|envelope| match envelope.content {
                Content::Part(part) if envelope.channel == 9 && part.id == RELAY_IDS => {
                    reassembly.push(part)
                }
                Content::Part(_) | Content::Whole(_) => panic!("a part of this channel"),
            })
            .collect();
        assert_eq!(rebuilt, [&packet[..]]);
        let part = wrap(9, 1, &packet, room - 1).next().unwrap();
        assert_eq!(refit(part.clone(), part.len() - 1, &mut last_id).count(), 0);
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
            assert_eq!(RelayDatagram::parse(Bytes::from_static(bytes)), None, "{bytes:?}");
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
    fn a_part_of_another_shape_restarts_its_packet() {
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
