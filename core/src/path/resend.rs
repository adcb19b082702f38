//! The resend buffer: copies of packets that may have been lost with a path, to be sent again on
//! another.
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

/// How long an answer takes beyond a round trip: the peer may wait 25 ms with an acknowledgement
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
    /// Returns an empty buffer of up to `max_bytes`. It keeps no packet before
    /// [`ResendBuffer::set_on`].
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            is_on: false,
            old: Generation::default(),
            young: Generation::default(),
            most: max_bytes / 2,
        }
    }

    /// Sets whether packets are kept: only where there is a backup to send them on.
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

    /// Something came on the active path; `answer` is how long an answer takes there.
    #[inline]
    pub(super) fn on_received(&mut self, answer: Duration, now: Instant) {
        let Some(began) = self.young.began else {
            // No packet was sent since the last turn: no old one is missing any more.
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

    /// Takes all copies, oldest first.
    pub(super) fn take(&mut self) -> Vec<PacketBatch> {
        let mut all = Vec::with_capacity(self.old.lengths.len() + self.young.lengths.len());
        self.old.drain_into(&mut all);
        self.young.drain_into(&mut all);
        all
    }

    /// Forgets all copies, and frees their memory.
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

    fn resend(max_bytes: usize) -> ResendBuffer {
        let mut resend = ResendBuffer::new(max_bytes);
        resend.set_on(true);
        resend
    }

    fn taken(resend: &mut ResendBuffer) -> Vec<u8> {
        resend.take().into_iter().flat_map(|held| held.bytes).collect()
    }

    #[test]
    fn what_was_sent_since_something_came_is_kept_in_order() {
        let now = anchor();
        let mut resend = resend(1000);
        resend.push(&[1], None, now);
        resend.push(&[2, 2, 3], Some(2), now);
        let all = resend.take();
        assert_eq!(all[1], PacketBatch { bytes: vec![2, 2, 3], segment_size: Some(2) });
        assert_eq!((all[0].bytes.clone(), all.len(), resend.bytes()), (vec![1], 2, 0));
    }

    #[test]
    fn a_packet_is_forgotten_after_two_arrivals_that_can_answer_it() {
        let now = anchor();
        let mut resend = resend(1000);
        resend.push(&[1], None, now);
        resend.on_received(ANSWER, now + ANSWER);
        assert_eq!(resend.bytes(), 1, "what came may have been sent before");
        resend.push(&[2], None, now + ANSWER);
        resend.on_received(ANSWER, now + ANSWER + NANO);
        resend.push(&[3], None, now + ANSWER + NANO);
        assert_eq!(resend.clone().take().len(), 3);
        resend.on_received(ANSWER, now + 3 * ANSWER);
        assert_eq!(taken(&mut resend), [3]);
    }

    #[test]
    fn when_nothing_was_sent_since_an_arrival_clears_all() {
        let now = anchor();
        let mut resend = resend(1000);
        resend.push(&[1], None, now);
        resend.on_received(ANSWER, now + 2 * ANSWER);
        assert_eq!(resend.bytes(), 1);
        resend.on_received(ANSWER, now + 3 * ANSWER);
        assert_eq!(resend.bytes(), 0);
    }

    #[test]
    fn a_generation_takes_half_of_the_most_and_not_one_byte_more() {
        let now = anchor();
        let mut resend = resend(1000);
        resend.push(&[0; 500], None, now);
        resend.push(&[0; 1], None, now);
        assert_eq!(resend.bytes(), 500);
        resend.on_received(ANSWER, now + 2 * ANSWER);
        resend.push(&[0; 500], None, now + 2 * ANSWER);
        resend.push(&[0; 1], None, now + 2 * ANSWER);
        assert_eq!(resend.bytes(), 1000);
    }

    #[test]
    fn no_packet_is_kept_without_a_backup() {
        let now = anchor();
        let mut resend = ResendBuffer::new(1000);
        resend.push(&[1], None, now);
        assert_eq!(resend.bytes(), 0);
        resend.set_on(true);
        resend.push(&[1], None, now);
        resend.set_on(false);
        assert_eq!((resend.bytes(), resend.old.bytes.capacity()), (0, 0));
    }

    #[test]
    fn once_warm_nothing_is_allocated() {
        let mut now = anchor();
        let mut resend = resend(10_000);
        let mut step = |resend: &mut ResendBuffer| {
            for _ in 0..10 {
                resend.push(&[0; 1000], None, now);
            }
            now += 2 * ANSWER;
            resend.on_received(ANSWER, now);
        };
        (0..2).for_each(|_| step(&mut resend));
        let before = (resend.old.bytes.capacity(), resend.young.bytes.capacity());
        (0..2).for_each(|_| step(&mut resend));
        assert_eq!((resend.old.bytes.capacity(), resend.young.bytes.capacity()), before);
        assert!(before.0 <= 8192 && before.1 <= 8192);
    }
}
