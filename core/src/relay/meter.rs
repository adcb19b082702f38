//! Limits how many bytes a client may have forwarded: a token bucket whose tokens are bytes.
//!
//! It decides whether one more packet is within the rate. It never reads a clock and never waits.

use std::time::{Duration, Instant};

/// A bucket of bytes, full at first. It is one instant, so that thousands of them cost little.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    /// When it is full again; `None` while no bytes were ever taken.
    full_at: Option<Instant>,
}

impl Meter {
    /// Takes `bytes` if there are as many; takes none otherwise.
    pub(super) fn take(&mut self, bytes: usize, per_second: u64, burst: u64, now: Instant) -> bool {
        let cost = time(bytes as u64, per_second);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + cost;
        let is_within = full_at.duration_since(now) <= time(burst, per_second);
        if is_within {
            self.full_at = Some(full_at);
        }
        is_within
    }
}

/// Returns the time in which `bytes` bytes are refilled. At the rates in question a byte takes a
/// few nanoseconds, so the time is rounded once for a packet and not once for each byte.
fn time(bytes: u64, per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn a_full_meter_gives_its_burst_and_not_one_byte_more() {
        let (now, mut meter) = (anchor(), Meter::default());
        assert!(!meter.take(3_001, 1_000, 3_000, now));
        assert!(meter.take(3_000, 1_000, 3_000, now));
        assert!(!meter.take(1, 1_000, 3_000, now));
    }

    #[test]
    fn bytes_are_back_exactly_when_their_time_has_passed() {
        let (now, mut meter) = (anchor(), Meter::default());
        assert!(meter.take(3_000, 1_000, 3_000, now));
        let back = now + Duration::from_millis(500);
        assert!(!meter.take(500, 1_000, 3_000, back - TICK));
        assert!(meter.take(500, 1_000, 3_000, back));
        assert!(!meter.take(1, 1_000, 3_000, back));
    }

    #[test]
    fn an_idle_meter_saves_no_more_than_its_burst() {
        let (now, mut meter) = (anchor(), Meter::default());
        assert!(meter.take(1_000, 1_000, 3_000, now));
        let later = now + Duration::from_secs(3_600);
        assert!(!meter.take(3_001, 1_000, 3_000, later));
        assert!(meter.take(3_000, 1_000, 3_000, later));
    }

    #[test]
    fn a_rate_beyond_a_byte_a_nanosecond_is_held_as_well() {
        let (mut now, mut meter, mut taken) = (anchor(), Meter::default(), 0u64);
        let (rate, burst, start) = (3_000_000_000, 65_536, now);
        while now < start + Duration::from_millis(1) {
            taken += if meter.take(1_200, rate, burst, now) { 1_200 } else { 0 };
            now += Duration::from_nanos(100);
        }
        assert!((2_900_000..=3_000_000 + burst + 10_000).contains(&taken), "{taken}");
    }
}
