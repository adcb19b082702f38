//! Packets that wait: until those sent before them by a slower way have arrived, or until there is
//! any way at all.
//!
//! It decides how long and how many. It never decides by which way they go.

use std::time::{Duration, Instant};

use super::probe_track::RttSample;

/// Bytes that wait while there is no way at all: a flight of a connection that has just lost its
/// relay. Later packets are dropped; QUIC sends what matters again.
pub(super) const WITHOUT_A_WAY: usize = 64 << 10;

/// The part of a queue by which it may have grown since an answer told of it, a round trip ago, and
/// the most of that in microseconds: a pause of 10 ms goes unnoticed.
const GROWTH: i64 = 8;
const MOST_GROWTH: i64 = 8_000;

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
    /// Everything waits for a way.
    Way,
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

/// How long packets wait at a planned switch, so that none overtakes those on the way it leaves: what
/// the way there gets shorter, and what the queue on the way that is left has grown by since it was
/// measured.
///
/// `old` and `new` are what probes measured of the two ways, `smoothed` is the connection's present
/// round trip, `least` the least that the old way took lately. Where no clock of the peer helps,
/// half of a round trip is the way there.
pub(super) fn wait(
    old: RttSample,
    new: RttSample,
    smoothed: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    // Signed: a slower way is behind by as much as a faster one is ahead, and a queue can make up
    // for that.
    let by_half = (micros(old.round_trip) - micros(new.round_trip)) / 2;
    let by_clock = old.there.zip(new.there).map(|(old, new)| old.wrapping_sub(new));
    // No two ways differ by more than a whole round trip: a clock that says so has leapt.
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

    /// Whether packets are to be given to [`ReorderBuffer::push`].
    pub(super) const fn is_closed(&self) -> bool {
        !matches!(self.until, ReleaseTime::Open)
    }

    /// Lets packets wait for `time` from `now`, and for no less than they already have to.
    pub(super) fn close(&mut self, time: Duration, now: Instant) {
        let until = now + time;
        self.until = match self.until {
            ReleaseTime::Instant(earlier) => ReleaseTime::Instant(earlier.max(until)),
            ReleaseTime::Open if time.is_zero() => ReleaseTime::Open,
            ReleaseTime::Open | ReleaseTime::Way => ReleaseTime::Instant(until),
        };
    }

    /// Lets packets wait for a way.
    pub(super) const fn close_without_a_way(&mut self) {
        self.until = ReleaseTime::Way;
    }

    /// Lets all go now.
    pub(super) const fn release(&mut self, now: Instant) {
        if self.is_closed() {
            self.until = ReleaseTime::Instant(now);
        }
    }

    /// When they go.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.until {
            ReleaseTime::Open | ReleaseTime::Way => None,
            ReleaseTime::Instant(at) => Some(at),
        }
    }

    /// Takes a copy of packets that must wait. When the most that may wait is reached, all go at
    /// once; what comes before they are taken is dropped beyond twice that.
    pub(super) fn push(&mut self, bytes: &[u8], segment_size: Option<usize>, now: Instant) {
        let is_stranded = matches!(self.until, ReleaseTime::Way);
        let most = if is_stranded { WITHOUT_A_WAY } else { self.max_bytes.saturating_mul(2) };
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

    /// All that waited, if their time has come. What comes after them waits for the next call, which
    /// opens the hold once there is nothing: nothing overtakes those that are on their way out.
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

    /// How many dispatches were dropped.
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
    fn without_a_clock_the_wait_is_half_the_difference_and_what_queues_and_at_most_its_limit() {
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
    fn the_clocks_tell_a_queue_on_the_way_there_from_one_on_the_way_back() {
        let wait = |there| {
            wait(sample(280, Some(there)), sample(80, Some(40_000)), ms(280), ms(280), ms(300))
        };
        assert_eq!(wait(270_000), ms(230), "all of it there");
        assert_eq!(wait(140_000), ms(100), "half of it");
        assert_eq!(wait(10_000), ms(0), "all of it back");
    }

    #[test]
    fn an_eighth_of_what_queues_and_at_most_8_ms_is_waited_for_beside() {
        let wait =
            |now, least| wait(sample(80, None), sample(80, None), ms(now), ms(least), ms(300));
        assert_eq!((wait(80, 80), wait(80, 40), wait(80, 100)), (ms(0), ms(5), ms(0)));
        assert_eq!((wait(80, 16), wait(80, 15)), (ms(8), ms(8)));
    }

    #[test]
    fn a_clock_that_leapt_counts_exactly_from_what_no_two_ways_can_differ_by() {
        let wait =
            |there| wait(sample(80, Some(there)), sample(20, Some(0)), ms(80), ms(80), ms(300));
        assert_eq!((wait(80_000), wait(80_001)), (ms(80), ms(30)));
        assert_eq!((wait(-20_000), wait(-20_001)), (ms(0), ms(30)));
        assert_eq!((wait(i64::MAX), wait(i64::MIN)), (ms(30), ms(30)));
    }

    #[test]
    fn packets_go_exactly_at_their_time_and_in_their_order() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1000);
        hold.close(ms(30), now);
        hold.push(&[1], None, now);
        hold.push(&[2, 2, 3], Some(2), now);
        assert_eq!(hold.take_due(now + ms(30) - NANO), []);
        let taken = hold.take_due(now + ms(30));
        assert_eq!(taken[0], PacketBatch { bytes: vec![1], segment_size: None });
        assert_eq!(taken[1], PacketBatch { bytes: vec![2, 2, 3], segment_size: Some(2) });
        assert_eq!((taken.len(), hold.bytes(), hold.is_closed()), (2, 0, true));
        hold.push(&[4], None, now);
        assert_eq!(hold.take_due(now + ms(30)).len(), 1);
        assert_eq!((hold.take_due(now + ms(30)), hold.is_closed()), (vec![], false));
    }

    #[test]
    fn packets_that_go_first_go_before_those_that_wait_and_all_go_at_once() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1000);
        hold.put_first(Vec::new(), now);
        assert!(!hold.is_closed());
        hold.close(ms(30), now);
        hold.push(&[2], None, now);
        hold.put_first(vec![PacketBatch { bytes: vec![1], segment_size: None }], now);
        let taken: Vec<_> = hold.take_due(now).into_iter().map(|held| held.bytes).collect();
        assert_eq!(taken, [[1], [2]]);
    }

    #[test]
    fn a_second_switch_lets_them_wait_for_the_later_of_both_times() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1000);
        hold.close(ms(30), now);
        hold.close(ms(10), now);
        assert_eq!(hold.deadline(), Some(now + ms(30)));
        hold.close(ms(40), now);
        assert_eq!(hold.deadline(), Some(now + ms(40)));
    }

    #[test]
    fn no_time_to_wait_is_no_hold() {
        let mut hold = ReorderBuffer::new(1000);
        hold.close(ms(0), anchor());
        assert!(!hold.is_closed());
    }

    #[test]
    fn at_the_most_bytes_all_go_at_once_and_not_one_byte_before() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1000);
        hold.close(ms(30), now);
        hold.push(&[0; 999], None, now);
        assert_eq!(hold.take_due(now), []);
        hold.push(&[0; 1], None, now);
        assert_eq!(hold.take_due(now).len(), 2);
    }

    #[test]
    fn more_than_twice_the_most_is_dropped() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1000);
        hold.close(ms(30), now);
        hold.push(&[0; 2000], None, now);
        hold.push(&[0; 1], None, now);
        assert_eq!((hold.bytes(), hold.dropped()), (2000, 1));
        assert_eq!(hold.take_due(now).len(), 1);
    }

    #[test]
    fn without_a_way_a_flight_waits_and_no_more() {
        let now = anchor();
        let mut hold = ReorderBuffer::new(1 << 20);
        hold.close_without_a_way();
        hold.push(&[0; WITHOUT_A_WAY], None, now);
        hold.push(&[0; 1], None, now);
        assert_eq!((hold.deadline(), hold.bytes(), hold.dropped()), (None, WITHOUT_A_WAY, 1));
        hold.release(now);
        assert_eq!(hold.take_due(now).len(), 1);
    }
}
