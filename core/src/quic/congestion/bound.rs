//! A bound of the window between close hosts.
//!
//! On a loopback or a local network no packet is lost until a socket buffer of megabytes overflows,
//! so that Cubic alone keeps it full and every small request waits behind it. There the window is
//! bounded by a little more than the amount that was recently delivered in two round trips. On
//! longer paths the bound is off.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Round trips below this are local: a machine, a rack, an office.
pub(super) const LOCAL: Duration = Duration::from_millis(5);

/// Queue that a local path may build on top of two round trips.
const QUEUE: Duration = Duration::from_micros(500);

/// Minimum of the bound: a wireless network of 400 Mbit/s may delay its packets by twenty times its
/// smallest round trip and is still filled.
const FLOOR: u64 = 1 << 20;

/// Shortest time over which a rate is measured: below it a single batch dominates.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

/// Rounds from which the best delivery rate is taken.
const ROUNDS: usize = 10;

/// The amount that the path recently delivered, and the resulting window.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    round_start: Instant,
    delivered: u64,
    /// The smallest round trip of the path.
    min_rtt: Duration,
    /// Bytes a second, of the latest rounds.
    rates: VecDeque<f64>,
    pub(super) window: u64,
}

impl Bound {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            round_start: now,
            delivered: 0,
            min_rtt: Duration::MAX,
            rates: VecDeque::new(),
            window: u64::MAX,
        }
    }

    pub(super) fn on_ack(&mut self, bytes: u64, min_rtt: Duration) {
        self.delivered += bytes;
        self.min_rtt = min_rtt;
    }

    pub(super) fn on_end_acks(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.round_start);
        if elapsed < SHORTEST_ROUND.max(self.min_rtt) {
            return;
        }
        if self.rates.len() == ROUNDS {
            self.rates.pop_front();
        }
        self.rates.push_back(self.delivered as f64 / elapsed.as_secs_f64());
        self.round_start = now;
        self.delivered = 0;
        self.window = if self.min_rtt >= LOCAL {
            u64::MAX
        } else {
            let best = self.rates.iter().copied().fold(0.0, f64::max);
            let room = best * (2 * self.min_rtt + QUEUE).as_secs_f64();
            FLOOR.max(room as u64)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const MS: Duration = Duration::from_millis(1);

    fn after_rounds(rtt: Duration, bytes: u64) -> Bound {
        let start = anchor();
        let mut bound = Bound::new(start);
        for round in 1..=5 {
            bound.on_ack(bytes, rtt);
            bound.on_end_acks(start + round * rtt.max(MS));
        }
        bound
    }

    #[test]
    fn a_local_path_holds_what_it_delivers_in_two_round_trips_and_a_little() {
        // 4 MB each millisecond: 4 GB/s over 400 µs, and 500 µs of queue.
        assert!(after_rounds(MS / 5, 4_000_000).window.abs_diff(3_600_000) < 100);
    }

    #[test]
    fn a_slow_local_path_keeps_the_floor() {
        assert_eq!(after_rounds(MS, 1_000).window, FLOOR);
    }

    #[test]
    fn a_path_of_five_milliseconds_is_not_bounded_and_one_below_is() {
        assert_eq!(after_rounds(LOCAL, 1_000_000).window, u64::MAX);
        assert_ne!(after_rounds(LOCAL - Duration::from_nanos(1), 1_000_000).window, u64::MAX);
    }
}
