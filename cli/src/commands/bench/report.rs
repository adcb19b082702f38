//! The figures as text and as JSON. It takes no measurements.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{BenchFigure, BulkDirection, Case};
use crate::base::units::millis;
use crate::roles::one_shot::Reached;

/// The JSON schema.
#[derive(Debug, Serialize)]
pub(super) struct BenchJson<'a> {
    #[serde(flatten)]
    reached: &'a Reached,
    /// The settings of each measurement.
    seconds: f64,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Measurement {
    Throughput {
        direction: BulkDirection,
        streams: usize,
        bytes: u64,
        seconds: f64,
        bytes_per_second: f64,
        gbit_per_second: f64,
    },
    Latency {
        beside_streams: usize,
        bytes: usize,
        n: usize,
        p50_ms: Option<f64>,
        p99_ms: Option<f64>,
    },
    NewStreams {
        at_once: usize,
        n: u64,
        seconds: f64,
        per_second: f64,
    },
}

impl<'a> BenchJson<'a> {
    pub(super) fn new(reached: &'a Reached, time: Duration, figures: &[BenchFigure]) -> Self {
        let measurements = figures.iter().map(Measurement::from).collect();
        Self { reached, seconds: time.as_secs_f64(), measurements }
    }
}

impl From<&BenchFigure> for Measurement {
    fn from(figure: &BenchFigure) -> Self {
        match figure {
            &BenchFigure::Throughput { direction, streams, bytes, took } => Self::Throughput {
                direction,
                streams,
                bytes,
                seconds: millis(took) / 1e3,
                bytes_per_second: per_second(bytes, took).round(),
                gbit_per_second: round(gbit(bytes, took)),
            },
            BenchFigure::Latency { beside, bytes, times } => Self::Latency {
                beside_streams: *beside,
                bytes: *bytes,
                n: times.len(),
                p50_ms: times.percentile(50).map(millis),
                p99_ms: times.percentile(99).map(millis),
            },
            &BenchFigure::NewStreams { at_once, count, took } => Self::NewStreams {
                at_once,
                n: count,
                seconds: millis(took) / 1e3,
                per_second: round(per_second(count, took)),
            },
        }
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn gbit(bytes: u64, took: Duration) -> f64 {
    per_second(bytes, took) * 8.0 / 1e9
}

/// Rounds to three decimal places.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// The name of a measurement, at the beginning of its line.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = |count| if count == 1 { "stream" } else { "streams" };
        match *self {
            Self::Throughput { direction, streams: count } => {
                let direction = match direction {
                    BulkDirection::Down => "down",
                    BulkDirection::Up => "up",
                };
                write!(f, "{direction}, {count} {}", streams(count))
            }
            Self::Latency { beside: 0 } => f.write_str("latency, idle"),
            Self::Latency { beside } => write!(f, "latency, beside {beside} bulk"),
            Self::NewStreams { at_once } => write!(f, "new streams, {at_once} at once"),
        }
    }
}

/// One line for people.
impl fmt::Display for BenchFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            &Self::Throughput { direction, streams, bytes, took } => {
                let name = Case::Throughput { direction, streams }.to_string();
                let rate = gbit(bytes, took);
                let (megabytes, seconds) = (bytes as f64 / 1e6, took.as_secs_f64());
                let per_second = megabytes / seconds;
                write!(f, "{name:<26}{rate:.2} Gbit/s, {per_second:.1} MB/s")?;
                write!(f, " ({megabytes:.1} MB in {seconds:.2} s)")
            }
            Self::Latency { beside, bytes, times } => {
                let name = Case::Latency { beside: *beside }.to_string();
                let [p50, p99] =
                    [50, 99].map(|percent| times.percentile(percent).map_or(f64::NAN, millis));
                let count = times.len();
                write!(f, "{name:<26}p50 {p50:.3} ms, p99 {p99:.3} ms")?;
                write!(f, " ({count} × {bytes} bytes)")
            }
            &Self::NewStreams { at_once, count, took } => {
                let name = Case::NewStreams { at_once }.to_string();
                let (rate, seconds) = (per_second(count, took), took.as_secs_f64());
                write!(f, "{name:<26}{rate:.0} per second ({count} in {seconds:.2} s)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::layout::{self, tests::assert_fits};

    fn figures() -> [BenchFigure; 3] {
        let times: Vec<_> = (1..=100).map(|n| Duration::from_micros(10 * n)).collect();
        [
            BenchFigure::Throughput {
                direction: BulkDirection::Up,
                streams: 8,
                bytes: 1_500_000_000,
                took: Duration::from_secs(3),
            },
            BenchFigure::Latency { beside: 1, bytes: 64, times: times.into() },
            BenchFigure::NewStreams {
                at_once: 16,
                count: 30_000,
                took: Duration::from_millis(3_001),
            },
        ]
    }

    #[test]
    fn people_see_each_figure_and_its_amount() {
        assert_eq!(
            figures().map(|figure| figure.to_string()),
            [
                "up, 8 streams             4.00 Gbit/s, 500.0 MB/s (1500.0 MB in 3.00 s)",
                "latency, beside 1 bulk    p50 0.500 ms, p99 0.990 ms (100 × 64 bytes)",
                "new streams, 16 at once   9997 per second (30000 in 3.00 s)",
            ]
        );
    }

    #[test]
    fn programs_get_the_same() {
        let (reached, figures) = (Reached::example(), figures());
        let json = BenchJson::new(&reached, Duration::from_secs(3), &figures);
        let expected = json!({
            "connector": "connector",
            "address": "192.0.2.7:4433",
            "connected_ms": 3.25,
            "seconds": 3.0,
            "measurements": [
                {
                    "what": "throughput",
                    "direction": "up",
                    "streams": 8,
                    "bytes": 1_500_000_000,
                    "seconds": 3.0,
                    "bytes_per_second": 500_000_000.0,
                    "gbit_per_second": 4.0,
                },
                {
                    "what": "latency",
                    "beside_streams": 1,
                    "bytes": 64,
                    "n": 100,
                    "p50_ms": 0.5,
                    "p99_ms": 0.99,
                },
                {
                    "what": "new_streams",
                    "at_once": 16,
                    "n": 30_000,
                    "seconds": 3.001,
                    "per_second": 9996.668,
                },
            ],
        });
        assert_eq!(serde_json::to_value(json).unwrap(), expected);
    }

    #[test]
    fn large_figures_fit_80_columns() {
        let [mut bulk, mut latency, mut streams] = figures();
        if let BenchFigure::Throughput { bytes, took, .. } = &mut bulk {
            (*bytes, *took) = (1_500_000_000_000, Duration::from_secs(30));
        }
        if let BenchFigure::Latency { times, .. } = &mut latency {
            *times = vec![Duration::from_millis(12_345); 100_000].into();
        }
        if let BenchFigure::NewStreams { count, .. } = &mut streams {
            *count = 30_000_000;
        }
        for figure in [bulk, latency, streams] {
            assert_fits(&figure.to_string());
        }
        assert_fits(&layout::wrap(&Reached::example().to_string(), layout::WIDTH));
    }

    #[test]
    fn every_measurement_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            super::super::CASES.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), super::super::CASES.len());
        assert!(names.contains("down, 1 stream") && names.contains("latency, idle"), "{names:?}");
    }
}
