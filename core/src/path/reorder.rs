//! The reorder buffer: packets that wait until those sent before them on a slower path have
//! arrived, or until there is any path at all.
//!
//! It decides how long and how many. It never decides which path they take.

use std::time::{Duration, Instant};

use super::probe_track::RttSample;

/// Bytes that wait while there is no path at all: a flight of a connection that has just lost its
/// relay. Later packets are dropped; QUIC sends what matters again.
pub(super) const WITHOUT_PATH: usize = 64 << 10;

/// The part of a queue by which it may have grown since an answer measured it, a round trip ago:
/// a sender that probes for more rate lets it grow by a quarter of a round trip. And the most of
/// that in microseconds.
const GROWTH: i64 = 4;
const MOST_GROWTH: i64 = 20_000;

/// One call of dispatch: packets back to back, all but the last of `segment_size` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PacketBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) segment_size: Option<usize>,
}

/// How long everything waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReleaseTime {
    /// Nothing waits.
    Open,
    /// Everything waits until then.
    Instant(Instant),
    /// Everything waits for a path.
    Path,
}

/// The packets that wait, in their order.
#[derive(Debug, Clone)]
pub(super) struct ReorderBuffer {
    until: ReleaseTime,
    queue: Vec<PacketBatch>,
    bytes: usize,
    max_bytes: usize,
    dropped: u64,
}

/// Returns how long packets wait at a planned switch, so that none overtakes those on the path
/// before: what the one-way delay gets shorter, and what the queue on the path before has grown by
/// since it was measured.
///
/// `old` and `new` are what probes measured of the two paths, `smoothed` is the connection's
/// present round trip, `least` the least that the old path took lately. Where no clock of the peer
/// helps, half of a round trip stands for the one-way delay.
pub(super) fn wait(
    old: RttSample,
    new: RttSample,
    smoothed: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    // Signed: a slower path is behind by as much as a faster one is ahead, and a queue can make up
    // for that.
    let by_half = (micros(old.round_trip) - micros(new.round_trip)) / 2;
    let by_clock = old.there.zip(new.there).map(|(old, new)| old.wrapping_sub(new));
    // No two paths differ by more than a whole round trip: a clock that shows more has leapt.
    let possible = -micros(new.round_trip)..=micros(old.round_trip);
    let shorter = by_clock.filter(|it| possible.contains(it)).unwrap_or(by_half);
    let grown = micros(smoothed) - micros(old.round_trip);
    let queued = micros(smoothed.max(old.round_trip).saturating_sub(least));
    let growth = (queued / GROWTH).min(MOST_GROWTH);
    let wait = shorter.saturating_add(grown).saturating_add(growth);
    Duration::from_micros(u64::try_from(wait).unwrap_or(0)).min(most)
}

/// Signed microseconds; what does not fit is far beyond every limit here.
fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

impl ReorderBuffer {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self { until: ReleaseTime::Open, queue: Vec::new(), bytes: 0, max_bytes, dropped: 0 }
    }

    /// Returns true if packets have to wait in [`ReorderBuffer::push`].
    pub(super) const fn is_closed(&self) -> bool {
        !matches!(self.until, ReleaseTime::Open)
    }

    /// Lets packets wait for `time` from `now`, and for no less than they already have to.
    pub(super) fn close(&mut self, time: Duration, now: Instant) {
        let until = now + time;
        self.until = match self.until {
            ReleaseTime::Instant(earlier) => ReleaseTime::Instant(earlier.max(until)),
            ReleaseTime::Open if time.is_zero() => ReleaseTime::Open,
            ReleaseTime::Open | ReleaseTime::Path => ReleaseTime::Instant(until),
        };
    }

    /// Lets packets wait for a path.
    pub(super) const fn close_without_path(&mut self) {
        self.until = ReleaseTime::Path;
    }

    /// Lets all go now.
    pub(super) const fn release(&mut self, now: Instant) {
        if self.is_closed() {
            self.until = ReleaseTime::Instant(now);
        }
    }

    /// Returns when they go.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.until {
            ReleaseTime::Open | ReleaseTime::Path => None,
            ReleaseTime::Instant(at) => Some(at),
        }
    }

    /// Buffers a copy of packets. When the most that may wait is reached, all go now; packets that
    /// come before they are taken are dropped beyond twice that.
    pub(super) fn push(&mut self, bytes: &[u8], segment_size: Option<usize>, now: Instant) {
        let is_stranded = matches!(self.until, ReleaseTime::Path);
        let most = if is_stranded { WITHOUT_PATH } else { self.max_bytes.saturating_mul(2) };
        if self.bytes.saturating_add(bytes.len()) > most {
            self.dropped += 1;
            return;
        }
        self.bytes += bytes.len();
        self.queue.push(PacketBatch { bytes: bytes.to_vec(), segment_size });
        if !is_stranded && self.bytes >= self.max_bytes {
            self.release(now);
        }
    }

    /// Packets that go before all that wait, and before all that come: they and those go now.
    pub(super) fn put_first(&mut self, packets: Vec<PacketBatch>, now: Instant) {
        if !packets.is_empty() {
            self.bytes += packets.iter().map(|held| held.bytes.len()).sum::<usize>();
            self.queue.splice(0..0, packets);
            self.until = ReleaseTime::Instant(now);
        }
        self.release(now);
    }

    /// Returns all that waited, if their time has come. Later packets wait for the next call, which
    /// opens the buffer once it is empty: no packet overtakes those that are about to be sent.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PacketBatch> {
        if self.deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.queue.is_empty() {
            self.until = ReleaseTime::Open;
        }
        self.bytes = 0;
        std::mem::take(&mut self.queue)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many dispatches were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn sample(rtt: u64, there: Option<i64>) -> RttSample {
        RttSample { round_trip: ms(rtt), there }
    }

    #[test]
    fn without_a_clock_the_wait_is_half_the_difference_and_the_queue() {
        let wait = |old: u64, new, now: u64| {
            let least = ms(old.max(now));
            wait(sample(old, None), sample(new, Some(0)), ms(now), least, ms(300))
        };
        assert_eq!(wait(80, 20, 80), ms(30));
        assert_eq!(wait(80, 20, 130), ms(80));
        assert_eq!(wait(80, 20, 350), ms(300));
        assert_eq!(wait(80, 20, 351), ms(300));
        assert_eq!(wait(20, 80, 20), ms(0));
        assert_eq!(wait(20, 80, 50), ms(0));
        assert_eq!(wait(20, 80, 51), ms(1));
        assert_eq!(wait(80, 20, 70), ms(20), "the queue has shrunk");
        let (old, new) = (RttSample { round_trip: Duration::MAX, there: None }, sample(0, None));
        assert_eq!(super::wait(old, new, Duration::MAX, ms(0), ms(300)), ms(300));
    }

    #[test]
    fn one_way_delays_separate_queues_by_direction() {
        let wait = |there| {
            wait(sample(280, Some(there)), sample(80, Some(40_000)), ms(280), ms(280), ms(300))
        };
        assert_eq!(wait(270_000), ms(230), "all of it there");
        assert_eq!(wait(140_000), ms(100), "half of it");
        assert_eq!(wait(10_000), ms(0), "all of it back");
    }

    #[test]
    fn a_quarter_of_the_queue_and_at_most_20_ms_are_added() {
        let wait =
            |now, least| wait(sample(80, None), sample(80, None), ms(now), ms(least), ms(300));
        assert_eq!((wait(80, 80), wait(80, 40), wait(80, 100)), (ms(0), ms(10), ms(0)));
        assert_eq!((wait(80, 16), wait(80, 0)), (ms(16), ms(20)));
    }

    #[test]
    fn a_leapt_clock_counts_exactly_up_to_a_possible_difference() {
        let wait =
            |there| wait(sample(80, Some(there)), sample(20, Some(0)), ms(80), ms(80), ms(300));
        assert_eq!((wait(80_000), wait(80_001)), (ms(80), ms(30)));
        assert_eq!((wait(-20_000), wait(-20_001)), (ms(0), ms(30)));
        assert_eq!((wait(i64::MAX), wait(i64::MIN)), (ms(30), ms(30)));
    }

    #[test]
    fn packets_go_exactly_at_their_time_and_in_their_order() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1000);
        buffer.close(ms(30), now);
        buffer.push(&[1], None, now);
        buffer.push(&[2, 2, 3], Some(2), now);
        assert_eq!(buffer.take_due(now + ms(30) - NANO), []);
        let taken = buffer.take_due(now + ms(30));
        assert_eq!(taken[0], PacketBatch { bytes: vec![1], segment_size: None });
        assert_eq!(taken[1], PacketBatch { bytes: vec![2, 2, 3], segment_size: Some(2) });
        assert_eq!((taken.len(), buffer.bytes(), buffer.is_closed()), (2, 0, true));
        buffer.push(&[4], None, now);
        assert_eq!(buffer.take_due(now + ms(30)).len(), 1);
        assert_eq!((buffer.take_due(now + ms(30)), buffer.is_closed()), (vec![], false));
    }

    #[test]
    fn packets_put_first_precede_those_that_wait_and_all_go_now() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1000);
        buffer.put_first(Vec::new(), now);
        assert!(!buffer.is_closed());
        buffer.close(ms(30), now);
        buffer.push(&[2], None, now);
        buffer.put_first(vec![PacketBatch { bytes: vec![1], segment_size: None }], now);
        let taken: Vec<_> = buffer.take_due(now).into_iter().map(|held| held.bytes).collect();
        assert_eq!(taken, [[1], [2]]);
    }

    #[test]
    fn a_second_switch_lets_them_wait_for_the_later_of_both_times() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1000);
        buffer.close(ms(30), now);
        buffer.close(ms(10), now);
        assert_eq!(buffer.deadline(), Some(now + ms(30)));
        buffer.close(ms(40), now);
        assert_eq!(buffer.deadline(), Some(now + ms(40)));
    }

    #[test]
    fn no_time_to_wait_leaves_the_buffer_open() {
        let mut buffer = ReorderBuffer::new(1000);
        buffer.close(ms(0), anchor());
        assert!(!buffer.is_closed());
    }

    #[test]
    fn at_the_most_bytes_all_go_and_not_one_byte_before() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1000);
        buffer.close(ms(30), now);
        buffer.push(&[0; 999], None, now);
        assert_eq!(buffer.take_due(now), []);
        buffer.push(&[0; 1], None, now);
        assert_eq!(buffer.take_due(now).len(), 2);
    }

    #[test]
    fn more_than_twice_the_most_is_dropped() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1000);
        buffer.close(ms(30), now);
        buffer.push(&[0; 2000], None, now);
        buffer.push(&[0; 1], None, now);
        assert_eq!((buffer.bytes(), buffer.dropped()), (2000, 1));
        assert_eq!(buffer.take_due(now).len(), 1);
    }

    #[test]
    fn without_a_path_a_flight_waits_and_no_more() {
        let now = anchor();
        let mut buffer = ReorderBuffer::new(1 << 20);
        buffer.close_without_path();
        buffer.push(&[0; WITHOUT_PATH], None, now);
        buffer.push(&[0; 1], None, now);
        assert_eq!((buffer.deadline(), buffer.bytes(), buffer.dropped()), (None, WITHOUT_PATH, 1));
        buffer.release(now);
        assert_eq!(buffer.take_due(now).len(), 1);
    }
}
