//! Bytes of one stream that arrived in any order, put into order.
//!
//! The transport hands over what arrives, also behind a gap, so that a lost packet does not stop
//! the credit for what follows it. It decides the order, and copies what would keep much more
//! memory than its own. It never copies anything else, and has no limit of its own: its owner
//! bounds [`Reassembly::size`].

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};

/// A shorter piece is copied: it would keep the packet that it came in, or a batch of them.
const MIN_SHARED: usize = 512;

/// Memory that some pieces take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: usize,
    pub(super) pieces: usize,
}

impl Size {
    /// Counts a part that had one size and has another now.
    pub(super) const fn replace(&mut self, before: Self, now: Self) {
        self.bytes = self.bytes + now.bytes - before.bytes;
        self.pieces = self.pieces + now.pieces - before.pieces;
    }
}

/// The unread bytes of one stream.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// In order, the next bytes to read first.
    ready: VecDeque<Bytes>,
    /// The offset behind them.
    end: u64,
    /// What lies behind the first gap, by offset; no two pieces overlap.
    later: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl Reassembly {
    /// Returns the state of a stream that was read up to `offset` elsewhere.
    pub(super) fn at(offset: u64) -> Self {
        Self { end: offset, ..Self::default() }
    }

    /// Returns the memory that the unread bytes take.
    pub(super) fn size(&self) -> Size {
        Size { bytes: self.bytes, pieces: self.ready.len() + self.later.len() }
    }

    /// Returns true if the next bytes have arrived.
    pub(super) fn is_readable(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Adds bytes that arrived. Bytes that arrived before, or that were read, are discarded.
    pub(super) fn insert(&mut self, mut offset: u64, mut bytes: Bytes) {
        loop {
            let known = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let known = known.min(bytes.len());
            bytes.advance(known);
            offset += known as u64;
            if bytes.is_empty() {
                return;
            }
            let before = self.later.range(..=offset).next_back();
            let covered = before.map_or(0, |(start, piece)| start + piece.len() as u64);
            let next = self.later.range(offset + 1..).next().map_or(u64::MAX, |(start, _)| *start);
            let (is_known, until) = if covered > offset { (true, covered) } else { (false, next) };
            let length = usize::try_from(until - offset).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.split_to(length);
            if !is_known {
                self.store(offset, piece);
            }
            offset += length as u64;
        }
    }

    /// Stores a piece of which nothing is known yet.
    fn store(&mut self, offset: u64, mut piece: Bytes) {
        if piece.len() < MIN_SHARED {
            piece = Bytes::copy_from_slice(&piece);
        }
        self.bytes += piece.len();
        if offset != self.end {
            self.later.insert(offset, piece);
            return;
        }
        self.end += piece.len() as u64;
        self.ready.push_back(piece);
        while let Some(next) = self.later.first_entry().filter(|next| *next.key() == self.end) {
            let piece = next.remove();
            self.end += piece.len() as u64;
            self.ready.push_back(piece);
        }
    }

    /// Returns the next bytes, at most `most`; `None` at a gap.
    pub(super) fn pop(&mut self, most: usize) -> Option<Bytes> {
        let front = self.ready.front_mut()?;
        let bytes =
            if front.len() <= most { self.ready.pop_front()? } else { front.split_to(most) };
        self.bytes -= bytes.len();
        if self.ready.is_empty() && self.later.is_empty() {
            self.ready.shrink_to(0);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    /// Returns the bytes of the stream in a range.
    fn stream(range: std::ops::Range<u64>) -> Bytes {
        range.map(|at| (at ^ (at >> 8).wrapping_mul(167)) as u8).collect()
    }

    proptest! {
        #[test]
        fn any_order_with_duplicates_and_overlaps_gives_the_stream(
            pieces in vec((0u64..3_000, 0u64..900), 1..60),
            most in 1usize..700,
            start in 0u64..100,
        ) {
            let mut here = Reassembly::at(start);
            let mut arrived = vec![false; 4_000];
            let mut read = start as usize;
            for (offset, length) in pieces {
                here.insert(offset, stream(offset..offset + length));
                arrived[offset as usize..(offset + length) as usize].fill(true);
                while let Some(bytes) = here.pop(most) {
                    prop_assert!(!bytes.is_empty() && bytes.len() <= most);
                    prop_assert_eq!(&bytes, &stream(read as u64..(read + bytes.len()) as u64));
                    read += bytes.len();
                }
                // Everything up to the first gap was read, and the rest is held once.
                prop_assert!(!arrived[read]);
                let held = arrived[read..].iter().filter(|it| **it).count();
                prop_assert_eq!(here.size().bytes, held);
                prop_assert!(!here.is_readable());
            }
        }
    }

    #[test]
    fn a_lossy_and_reordered_long_path_is_put_into_order() {
        // 1 Gbit/s over 100 ms: 5 % are sent again a round trip later, 10 % come up to 5 ms late.
        const PACKET: u64 = 1_200;
        let mut rng = Rng::new([7; 32], "arrivals");
        let mut arrivals: Vec<(u64, u64)> = (0..40_000u64)
            .map(|packet| {
                let mut at = packet * 10;
                while rng.u64() % 100 < 5 {
                    at += 110_000;
                }
                let is_late = rng.u64().is_multiple_of(10);
                (at + if is_late { rng.u64() % 5_000 } else { 0 }, packet)
            })
            .collect();
        arrivals.sort_unstable();
        let (mut here, mut read, mut most) = (Reassembly::default(), 0, Size::default());
        for (_, packet) in arrivals {
            here.insert(packet * PACKET, stream(packet * PACKET..(packet + 1) * PACKET));
            most.bytes = most.bytes.max(here.size().bytes);
            most.pieces = most.pieces.max(here.size().pieces);
            while let Some(bytes) = here.pop(64 << 10) {
                read += bytes.len() as u64;
            }
        }
        assert_eq!((read, here.size()), (40_000 * PACKET, Size::default()));
        assert!(most.bytes < 48 << 20 && most.pieces < 40_000, "{most:?}");
    }

    #[test]
    fn a_short_piece_does_not_keep_its_packet() {
        let packet = Bytes::from(vec![7; 1_400]);
        let mut here = Reassembly::default();
        here.insert(0, packet.slice(..MIN_SHARED - 1));
        here.insert(4_000, packet.slice(..MIN_SHARED));
        here.insert(1 << 40, packet.slice(..1));
        let [copied] = [here.ready[0].as_ptr()];
        assert!(!packet.as_ptr_range().contains(&copied));
        assert!(packet.as_ptr_range().contains(&here.later[&4_000].as_ptr()));
        assert!(!packet.as_ptr_range().contains(&here.later[&(1 << 40)].as_ptr()));
    }
}
