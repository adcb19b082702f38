//! How busy a connection is, and how often its paths are therefore probed.
//!
//! It decides the pace. It never counts bytes, and never sends.

use std::time::{Duration, Instant};

use crate::rng::Rng;

/// Dispatches between two probes of the active path that are traffic; QUIC's own keep-alives and
/// their acknowledgements are fewer.
const TRAFFIC: u32 = 4;
/// A connection is under traffic for this long after it was.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// And quiet, not yet idle, for this long.
const QUIET_FOR: Duration = Duration::from_secs(30);

/// What the pace follows from.
#[derive(Debug, Clone)]
pub(super) struct ProbePacing {
    dispatches: u32,
    busy: Instant,
}

impl ProbePacing {
    pub(super) const fn new(now: Instant) -> Self {
        Self { dispatches: 0, busy: now }
    }

    /// Counts a dispatch. Returns true if it makes the connection busy: once between two probes.
    #[inline]
    pub(super) const fn on_dispatch(&mut self) -> bool {
        self.dispatches = self.dispatches.saturating_add(1);
        self.dispatches == TRAFFIC
    }

    /// The connection is busy.
    pub(super) fn on_busy(&mut self, now: Instant) {
        self.busy = self.busy.max(now);
    }

    /// The active path is probed: counting of traffic starts over.
    pub(super) fn on_probe(&mut self, now: Instant) {
        if self.dispatches >= TRAFFIC {
            self.on_busy(now);
        }
        self.dispatches = 0;
    }

    /// Returns the time to the next probe of the active path: 1 s under traffic, 3 to 5 s for half
    /// a minute after it, 15 to 25 s when idle. All but the first keep a NAT's binding (RFC 4787
    /// §4.3).
    pub(super) fn active(&self, rng: &mut Rng, now: Instant) -> Duration {
        let quiet = now.saturating_duration_since(self.busy);
        if quiet < BUSY_FOR {
            between(900, 1_100, rng)
        } else if quiet < QUIET_FOR {
            between(3_000, 5_000, rng)
        } else {
            between(15_000, 25_000, rng)
        }
    }

    /// Returns the same for a path that is kept ready: it may be needed soon only while there is
    /// traffic.
    pub(super) fn backup(&self, rng: &mut Rng, now: Instant) -> Duration {
        let quiet = now.saturating_duration_since(self.busy);
        if quiet < QUIET_FOR { between(3_000, 5_000, rng) } else { between(15_000, 25_000, rng) }
    }
}

/// Returns a random time between two numbers of milliseconds.
pub(super) fn between(least: u64, most: u64, rng: &mut Rng) -> Duration {
    let span = Duration::from_millis(most.saturating_sub(least));
    Duration::from_millis(least) + span.mul_f64(rng.unit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    #[test]
    fn the_pace_follows_the_traffic_exactly_at_its_marks() {
        let start = anchor();
        let mut rng = Rng::new([1; 32], "pulse");
        let mut pacing = ProbePacing::new(start);
        let mut pace = |pacing: &ProbePacing, at: Duration| {
            let paces = |rng: &mut Rng| {
                (
                    pacing.active(rng, start + at).as_millis(),
                    pacing.backup(rng, start + at).as_millis(),
                )
            };
            let all: Vec<_> = (0..200).map(|_| paces(&mut rng)).collect();
            let least = (all.iter().map(|it| it.0).min(), all.iter().map(|it| it.1).min());
            let most = (all.iter().map(|it| it.0).max(), all.iter().map(|it| it.1).max());
            (
                least.0.unwrap() / 100,
                most.0.unwrap() / 100,
                least.1.unwrap() / 1000,
                most.1.unwrap() / 1000,
            )
        };
        assert_eq!(pace(&pacing, BUSY_FOR - NANO), (9, 10, 3, 4));
        assert_eq!(pace(&pacing, BUSY_FOR), (30, 49, 3, 4));
        assert_eq!(pace(&pacing, QUIET_FOR - NANO), (30, 49, 3, 4));
        assert_eq!(pace(&pacing, QUIET_FOR), (150, 249, 15, 24));
        pacing.on_busy(start + QUIET_FOR);
        assert_eq!(pace(&pacing, QUIET_FOR), (9, 10, 3, 4));
    }

    #[test]
    fn four_dispatches_between_two_probes_are_traffic_and_three_are_not() {
        let start = anchor();
        let later = start + Duration::from_secs(60);
        let mut pacing = ProbePacing::new(start);
        assert!((0..3).all(|_| !pacing.on_dispatch()));
        pacing.on_probe(later);
        assert_eq!(pacing.busy, start);
        assert!((0..3).all(|_| !pacing.on_dispatch()));
        assert!(pacing.on_dispatch() && !pacing.on_dispatch());
        pacing.on_probe(later);
        assert_eq!(pacing.busy, later);
    }
}
