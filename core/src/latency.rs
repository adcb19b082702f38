//! The quality of a connection: its latency in figures, and a grade.
//!
//! It decides how the samples are summarised. It never measures, and never acts on a grade.

use std::collections::VecDeque;
use std::time::Duration;

/// How many samples the minimum and the percentiles look back over: two hours of heartbeats, and
/// enough for a 99th percentile that is not simply the worst sample.
pub(crate) const WINDOW: usize = 256;

/// Samples above this are counted as this: an hour, so that no sum can overflow.
pub(crate) const LONGEST_SAMPLE: Duration = Duration::from_secs(60 * 60);

/// Round-trip times: smoothed indefinitely, exact over the last [`WINDOW`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Latency {
    smoothed: Option<Duration>,
    samples: VecDeque<Duration>,
}

/// Figures of a `Latency`; serialised in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Smoothed as in RFC 6298 §2: each sample counts for one eighth.
    #[serde(rename = "smoothed_ms", serialize_with = "as_ms")]
    pub smoothed: Duration,
    /// The least of the window.
    #[serde(rename = "min_ms", serialize_with = "as_ms")]
    pub min: Duration,
    /// The median of the window, by nearest rank.
    #[serde(rename = "p50_ms", serialize_with = "as_ms")]
    pub p50: Duration,
    /// The 99th percentile of the window, by nearest rank.
    #[serde(rename = "p99_ms", serialize_with = "as_ms")]
    pub p99: Duration,
    /// The latest sample.
    #[serde(rename = "last_ms", serialize_with = "as_ms")]
    pub last: Duration,
    /// How many samples the window holds.
    pub samples: usize,
}

fn as_ms<S: serde::Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(time.as_secs_f64() * 1e3)
}

impl Latency {
    /// Returns figures without any sample.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { smoothed: None, samples: VecDeque::new() }
    }

    /// Takes one round trip time.
    pub(crate) fn record(&mut self, sample: Duration) {
        let sample = sample.min(LONGEST_SAMPLE);
        self.smoothed = Some(self.smoothed.map_or(sample, |old| (old * 7 + sample) / 8));
        if self.samples.len() == WINDOW {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Returns the smoothed round trip time.
    #[must_use]
    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns all figures; `None` before the first sample. Sorts the window.
    #[must_use]
    pub(crate) fn summary(&self) -> Option<Summary> {
        let (smoothed, last) = (self.smoothed?, *self.samples.back()?);
        let mut sorted: Vec<_> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        let samples = sorted.len();
        let rank = |percent: usize| sorted[(samples * percent).div_ceil(100) - 1];
        Some(Summary { smoothed, min: sorted[0], p50: rank(50), p99: rank(99), last, samples })
    }
}

/// Grade of a connection, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Below 50 ms and below 1 % loss.
    Excellent,
    /// Below 100 ms and below 3 % loss.
    Good,
    /// Below 200 ms and below 5 % loss.
    Fair,
    /// Anything worse.
    Poor,
}

impl Grade {
    /// Returns the grade of a latency and a loss, the latter as a fraction: 0.01 is 1 %. Both have
    /// to be within the grade's limits; a loss that is not a number is within none.
    ///
    /// ```
    /// use adit_core::latency::Grade;
    /// use std::time::Duration;
    /// assert_eq!(Grade::of(Duration::from_millis(49), 0.009), Grade::Excellent);
    /// assert_eq!(Grade::of(Duration::from_millis(49), 0.01), Grade::Good);
    /// ```
    #[must_use]
    pub fn of(latency: Duration, loss: f64) -> Self {
        let below = |ms, fraction| latency < Duration::from_millis(ms) && loss < fraction;
        if below(50, 0.01) {
            Self::Excellent
        } else if below(100, 0.03) {
            Self::Good
        } else if below(200, 0.05) {
            Self::Fair
        } else {
            Self::Poor
        }
    }

    /// Returns the stable text of the grade, as logs and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
    use proptest::test_runner::FileFailurePersistence::Direct;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_is_every_figure() {
        let mut latency = Latency::default();
        assert_eq!(latency.smoothed(), None);
        latency.record(ms(40));
        let all = ms(40);
        assert_eq!(
            latency.summary(),
            Some(Summary { smoothed: all, min: all, p50: all, p99: all, last: all, samples: 1 })
        );
    }

    #[test]
    fn each_later_sample_counts_for_one_eighth() {
        let mut latency = Latency::new();
        latency.record(ms(80));
        latency.record(ms(160));
        assert_eq!(latency.smoothed(), Some(ms(90)));
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut latency = Latency::new();
        (1..=200).rev().for_each(|i| latency.record(ms(i)));
        let summary = latency.summary().unwrap();
        assert_eq!((summary.min, summary.p50, summary.p99), (ms(1), ms(100), ms(198)));
    }

    #[test]
    fn the_window_keeps_its_size_and_forgets_the_oldest() {
        let mut latency = Latency::new();
        latency.record(ms(1));
        (1..WINDOW).for_each(|_| latency.record(ms(9)));
        assert_eq!(latency.summary().map(|s| (s.samples, s.min)), Some((WINDOW, ms(1))));
        latency.record(ms(9));
        assert_eq!(latency.summary().map(|s| (s.samples, s.min)), Some((WINDOW, ms(9))));
    }

    #[test]
    fn an_absurd_sample_is_cut_to_an_hour() {
        let mut latency = Latency::new();
        latency.record(LONGEST_SAMPLE);
        latency.record(Duration::MAX);
        assert_eq!(latency.smoothed(), Some(LONGEST_SAMPLE));
    }

    #[test]
    fn grades_change_exactly_at_their_marks() {
        let nano = Duration::from_nanos(1);
        for (at, percent, better, worse) in [
            (ms(50), 0.01, Grade::Excellent, Grade::Good),
            (ms(100), 0.03, Grade::Good, Grade::Fair),
            (ms(200), 0.05, Grade::Fair, Grade::Poor),
        ] {
            let just_below: f64 = percent - f64::EPSILON;
            assert_eq!(Grade::of(at - nano, just_below), better);
            assert_eq!(Grade::of(at, just_below), worse);
            assert_eq!(Grade::of(at - nano, percent), worse);
            assert!(better < worse);
        }
        assert_eq!(Grade::of(Duration::ZERO, f64::NAN), Grade::Poor);
    }

    #[test]
    fn grades_and_figures_serialise_by_name_and_in_milliseconds() {
        for grade in [Grade::Excellent, Grade::Good, Grade::Fair, Grade::Poor] {
            assert_eq!(serde_json::to_value(grade).unwrap(), grade.as_str());
        }
        let mut latency = Latency::new();
        latency.record(Duration::from_micros(1_500));
        assert_eq!(
            serde_json::to_string(&latency.summary()).unwrap(),
            r#"{"smoothed_ms":1.5,"min_ms":1.5,"p50_ms":1.5,"p99_ms":1.5,"last_ms":1.5,"samples":1}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(Direct(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/quality.txt"
            )))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn figures_are_ordered_and_within_the_samples(
            samples in prop::collection::vec(0u64..10_000_000_000, 1..600)
        ) {
            let mut latency = Latency::new();
            for &nanos in &samples {
                latency.record(Duration::from_nanos(nanos));
            }
            let summary = latency.summary().expect("there are samples");
            let window = &samples[samples.len().saturating_sub(WINDOW)..];
            prop_assert_eq!(summary.samples, window.len());
            prop_assert_eq!(summary.min.as_nanos() as u64, *window.iter().min().unwrap());
            prop_assert_eq!(summary.last.as_nanos() as u64, *window.last().unwrap());
            prop_assert!(summary.min <= summary.p50 && summary.p50 <= summary.p99);
            let below_p99 = window.iter().filter(|&&n| u128::from(n) <= summary.p99.as_nanos());
            prop_assert!(below_p99.count() * 100 >= window.len() * 99);
            let (least, most) = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
            let smoothed = summary.smoothed.as_nanos() as u64;
            prop_assert!(smoothed + 8 >= *least && smoothed <= *most);
        }
    }

    #[test]
    fn a_summary_of_three_samples() {
        use crate::latency::Latency;
        use std::time::Duration;
        let mut latency = Latency::new();
        assert_eq!(latency.summary(), None);
        for ms in [20, 30, 100] {
            latency.record(Duration::from_millis(ms));
        }
        let summary = latency.summary().unwrap();
        assert_eq!(summary.min, Duration::from_millis(20));
        assert_eq!(summary.p50, Duration::from_millis(30));
        assert_eq!(summary.last, Duration::from_millis(100));
    }
}
