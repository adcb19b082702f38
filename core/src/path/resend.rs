//! Copies of packets that may have been lost with a way, to be sent again by another.
//!
//! It decides which packets are kept and for how long. It never decides when they are sent again.
//! Sending one twice is harmless: packet numbers make it so (RFC 9000 §12.3).
//!
//! There are two generations. When something arrives and the younger one began longer ago than an
//! answer takes, the older one is forgotten and the younger one becomes it: so the copies reach
//! back by at least the time in which packets can be unanswered without being lost, and copying
//! stops when half of the most is reached, until the next arrival. Bulk is therefore copied at no
//! more than a generation for each round trip, and once warm nothing is allocated.

use std::time::{Duration, Instant};

use super::reorder::PacketBatch;

/// What an answer takes beyond a round trip: the peer may wait 25 ms with an acknowledgement
/// (RFC 9000 §18.2), and its timers are coarse.
pub(super) const ANSWER_SLACK: Duration = Duration::from_millis(35);

#[derive(Debug, Clone, Default)]
struct Generation {
    began: Option<Instant>,
    bytes: Vec<u8>,
    /// Length and segment size of each dispatch.
    lengths: Vec<(u32, Option<usize>)>,
}

impl Generation {
    fn clear(&mut self) {
        self.began = None;
        self.bytes.clear();
        self.lengths.clear();
    }

    fn drain_into(&mut self, out: &mut Vec<PacketBatch>) {
        let mut rest = &self.bytes[..];
        for &(length, segment_size) in &self.lengths {
            let (bytes, behind) = rest.split_at(length as usize);
            out.push(PacketBatch { bytes: bytes.to_vec(), segment_size });
            rest = behind;
        }
        self.clear();
    }
}

/// The copies.
#[derive(Debug, Clone)]
pub(super) struct ResendBuffer {
    is_on: bool,
    old: Generation,
    young: Generation,
    /// The most bytes of a generation.
    most: usize,
}

impl ResendBuffer {
    /// Nothing, and nothing is kept before [`ResendBuffer::set_on`]. Keeps up to `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            is_on: false,
            old: Generation::default(),
            young: Generation::default(),
            most: max_bytes / 2,
        }
    }

    /// Whether packets are kept: only where there is another way to send them by.
    pub(super) fn set_on(&mut self, is_on: bool) {
        if self.is_on && !is_on {
            self.forget();
        }
        self.is_on = is_on;
    }

    /// Keeps a copy of what has just been sent, if there is room.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], segment_size: Option<usize>, now: Instant) {
        if !self.is_on || self.young.bytes.len() + bytes.len() > self.most {
            return;
        }
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        self.young.began.get_or_insert(now);
        self.young.bytes.extend_from_slice(bytes);
        self.young.lengths.push((length, segment_size));
    }

    /// Something came by the way; `answer` is what an answer on it takes.
    #[inline]
    pub(super) fn on_received(&mut self, answer: Duration, now: Instant) {
        let Some(began) = self.young.began else {
            // Nothing was sent since the last turn: nothing old is missing any more.
            if !self.old.lengths.is_empty() {
                self.old.clear();
            }
            return;
        };
        if now.saturating_duration_since(began) > answer {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
        }
    }

    /// All copies, oldest first; none are kept.
    pub(super) fn take(&mut self) -> Vec<PacketBatch> {
        let mut all = Vec::with_capacity(self.old.lengths.len() + self.young.lengths.len());
        self.old.drain_into(&mut all);
        self.young.drain_into(&mut all);
        all
    }

    /// Forgets all copies, and gives their memory back.
    pub(super) fn forget(&mut self) {
        self.old = Generation::default();
        self.young = Generation::default();
    }

    pub(super) fn bytes(&self) -> usize {
        self.old.bytes.len() + self.young.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);
    const ANSWER: Duration = Duration::from_millis(55);

    fn replay(max_bytes: usize) -> ResendBuffer {
        let mut replay = ResendBuffer::new(max_bytes);
        replay.set_on(true);
        replay
    }

    fn taken(replay: &mut ResendBuffer) -> Vec<u8> {
        replay.take().into_iter().flat_map(|held| held.bytes).collect()
    }

    #[test]
    fn what_was_sent_since_something_came_is_kept_in_order() {
        let now = anchor();
        let mut replay = replay(1000);
        replay.push(&[1], None, now);
        replay.push(&[2, 2, 3], Some(2), now);
        let all = replay.take();
        assert_eq!(all[1], PacketBatch { bytes: vec![2, 2, 3], segment_size: Some(2) });
        assert_eq!((all[0].bytes.clone(), all.len(), replay.bytes()), (vec![1], 2, 0));
    }

    #[test]
    fn a_packet_is_forgotten_after_two_arrivals_that_can_answer_it() {
        let now = anchor();
        let mut replay = replay(1000);
        replay.push(&[1], None, now);
        replay.on_received(ANSWER, now + ANSWER);
        assert_eq!(replay.bytes(), 1, "what came may have been sent before");
        replay.push(&[2], None, now + ANSWER);
        replay.on_received(ANSWER, now + ANSWER + NANO);
        replay.push(&[3], None, now + ANSWER + NANO);
        assert_eq!(replay.clone().take().len(), 3);
        replay.on_received(ANSWER, now + 3 * ANSWER);
        assert_eq!(taken(&mut replay), [3]);
    }

    #[test]
    fn when_nothing_was_sent_since_an_arrival_clears_all() {
        let now = anchor();
        let mut replay = replay(1000);
        replay.push(&[1], None, now);
        replay.on_received(ANSWER, now + 2 * ANSWER);
        assert_eq!(replay.bytes(), 1);
        replay.on_received(ANSWER, now + 3 * ANSWER);
        assert_eq!(replay.bytes(), 0);
    }

    #[test]
    fn a_generation_takes_half_of_the_most_and_not_one_byte_more() {
        let now = anchor();
        let mut replay = replay(1000);
        replay.push(&[0; 500], None, now);
        replay.push(&[0; 1], None, now);
        assert_eq!(replay.bytes(), 500);
        replay.on_received(ANSWER, now + 2 * ANSWER);
        replay.push(&[0; 500], None, now + 2 * ANSWER);
        replay.push(&[0; 1], None, now + 2 * ANSWER);
        assert_eq!(replay.bytes(), 1000);
    }

    #[test]
    fn nothing_is_kept_while_there_is_no_other_way() {
        let now = anchor();
        let mut replay = ResendBuffer::new(1000);
        replay.push(&[1], None, now);
        assert_eq!(replay.bytes(), 0);
        replay.set_on(true);
        replay.push(&[1], None, now);
        replay.set_on(false);
        assert_eq!((replay.bytes(), replay.old.bytes.capacity()), (0, 0));
    }

    #[test]
    fn once_warm_nothing_is_allocated() {
        let mut now = anchor();
        let mut replay = replay(10_000);
        let mut step = |replay: &mut ResendBuffer| {
            for _ in 0..10 {
                replay.push(&[0; 1000], None, now);
            }
            now += 2 * ANSWER;
            replay.on_received(ANSWER, now);
        };
        (0..2).for_each(|_| step(&mut replay));
        let before = (replay.old.bytes.capacity(), replay.young.bytes.capacity());
        (0..2).for_each(|_| step(&mut replay));
        assert_eq!((replay.old.bytes.capacity(), replay.young.bytes.capacity()), before);
        assert!(before.0 <= 8192 && before.1 <= 8192);
    }
}
