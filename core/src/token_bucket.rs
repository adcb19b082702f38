//! Token buckets: how often something may happen, with a burst.
//!
//! It decides whether one more is within the rate. It never reads a clock, never waits, and does
//! not know what it counts.

use std::time::{Duration, Instant};

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one token comes back.
    interval: Duration,
    /// Tokens of a full bucket.
    burst: u32,
}

impl Rate {
    /// Returns a rate of this many tokens a second, with a burst of `burst`; at least one of each.
    #[must_use]
    pub fn per_second(tokens: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / tokens.max(1);
        Self { interval, burst: burst.max(1) }
    }
}

/// A bucket, full at first. It is one instant, so that thousands of them cost little.
///
/// ```
/// use adit_core::token_bucket::{Bucket, Rate};
/// use std::time::{Duration, Instant};
/// let (now, rate) = (Instant::now(), Rate::per_second(10, 2));
/// let mut bucket = Bucket::new();
/// assert!(bucket.take(1, rate, now) && bucket.take(1, rate, now));
/// assert!(!bucket.take(1, rate, now));
/// assert!(bucket.take(1, rate, now + Duration::from_millis(100)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it is full again; `None` while no tokens were ever taken.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Returns a full bucket.
    #[must_use]
    pub const fn new() -> Self {
        Self { full_at: None }
    }

    /// Takes `tokens` if there are as many; takes none otherwise. All buckets of one purpose have
    /// one rate, which is therefore not stored in them.
    pub fn take(&mut self, tokens: u32, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at(now) + rate.interval * tokens;
        let is_within = full_at.duration_since(now) <= rate.interval * rate.burst;
        if is_within {
            self.full_at = Some(full_at);
        }
        is_within
    }

    /// Returns when it is full again: `now`, if it is.
    #[must_use]
    pub fn full_at(&self, now: Instant) -> Instant {
        self.full_at.map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence::Direct;

    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn a_full_bucket_gives_its_burst_and_not_one_token_more() {
        let (now, rate) = (anchor(), Rate::per_second(10, 3));
        let mut bucket = Bucket::new();
        assert!((0..3).all(|_| bucket.take(1, rate, now)));
        assert!(!bucket.take(1, rate, now));
        assert_eq!(bucket.full_at(now), now + Duration::from_millis(300));
    }

    #[test]
    fn a_token_is_back_exactly_after_its_interval_and_not_before() {
        let (now, rate) = (anchor(), Rate::per_second(10, 1));
        let mut bucket = Bucket::new();
        assert!(bucket.take(1, rate, now));
        let back = now + Duration::from_millis(100);
        assert!(!bucket.take(1, rate, back - TICK));
        assert!(bucket.take(1, rate, back));
    }

    #[test]
    fn a_burst_takes_all_tokens_and_no_more() {
        let (now, rate) = (anchor(), Rate::per_second(10, 5));
        let mut bucket = Bucket::new();
        assert!(!bucket.take(6, rate, now));
        assert!(bucket.take(5, rate, now));
        assert!(!bucket.take(1, rate, now));
    }

    #[test]
    fn an_idle_bucket_saves_no_more_than_its_burst() {
        let (now, rate) = (anchor(), Rate::per_second(10, 2));
        let mut bucket = Bucket::new();
        assert!(bucket.take(2, rate, now));
        let later = now + Duration::from_secs(3_600);
        assert_eq!(bucket.full_at(later), later);
        assert!(!bucket.take(3, rate, later));
        assert!(bucket.take(2, rate, later));
    }

    #[test]
    fn a_rate_of_nothing_is_one() {
        assert_eq!(Rate::per_second(0, 0), Rate::per_second(1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(Direct(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/bucket.txt"
            )))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn in_any_span_of_time_no_more_is_taken_than_the_burst_and_the_rate_allow(
            takes in prop::collection::vec((0u64..500, 1u32..4), 1..100),
        ) {
            let (start, rate) = (anchor(), Rate::per_second(10, 7));
            let (mut bucket, mut now, mut taken) = (Bucket::new(), start, Vec::new());
            for (wait, tokens) in takes {
                now += Duration::from_millis(wait);
                if bucket.take(tokens, rate, now) {
                    taken.push((now, tokens));
                }
            }
            for (first, &(from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for &(to, tokens) in &taken[first..] {
                    sum += tokens;
                    let most = 7.0 + to.duration_since(from).as_secs_f64() * 10.0;
                    prop_assert!(f64::from(sum) <= most + 1e-6, "{sum} of {most}");
                }
            }
        }
    }
}
