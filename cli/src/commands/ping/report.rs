//! The results of pings as text and as JSON. It takes no measurements.

use std::fmt;
use std::time::Duration;

use adit_tokio::core::error::Failure;
use serde::Serialize;

use super::Ping;
use crate::base::samples::Samples;
use crate::base::units::millis;
use crate::roles::one_shot::Reached;

/// The pings so far.
#[derive(Debug)]
pub(super) struct PingReport {
    reached: Reached,
    pings: Vec<Ping>,
}

/// The JSON schema. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct PingJson<'a> {
    #[serde(flatten)]
    reached: &'a Reached,
    sent: usize,
    answered: usize,
    lost: usize,
    /// `null` without an answer.
    round_trip_ms: Option<RoundTrip>,
    pings: Vec<JsonPing<'a>>,
}

#[derive(Debug, Serialize)]
struct RoundTrip {
    min: f64,
    avg: f64,
    p50: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct JsonPing<'a> {
    sequence: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<JsonFailure<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonFailure<'a> {
    code: &'static str,
    detail: &'a str,
}

impl PingReport {
    pub(super) const fn new(reached: Reached) -> Self {
        Self { reached, pings: Vec::new() }
    }

    pub(super) fn on_ping(&mut self, ping: Ping) {
        self.pings.push(ping);
    }

    /// Returns one line for people.
    pub(super) fn summary(&self) -> String {
        let (sent, samples) = (self.pings.len(), self.samples());
        let lost = sent - samples.len();
        let percent = if sent == 0 { 0.0 } else { 100.0 * lost as f64 / sent as f64 };
        let counts = format!("{sent} sent, {} answered, {percent:.0} % lost", samples.len());
        match RoundTrip::of(&samples) {
            Some(RoundTrip { min, avg, p50, max }) => {
                format!("{counts}; RTT min {min:.2}, avg {avg:.2}, p50 {p50:.2}, max {max:.2} ms")
            }
            None => counts,
        }
    }

    pub(super) fn to_json(&self) -> PingJson<'_> {
        let samples = self.samples();
        PingJson {
            reached: &self.reached,
            sent: self.pings.len(),
            answered: samples.len(),
            lost: self.pings.len() - samples.len(),
            round_trip_ms: RoundTrip::of(&samples),
            pings: self.pings.iter().map(JsonPing::from).collect(),
        }
    }

    /// Returns the last failure, if pings were sent and none was answered.
    pub(super) fn into_verdict(mut self) -> Option<Failure> {
        if self.pings.iter().any(|ping| ping.result.is_ok()) {
            return None;
        }
        self.pings.pop().and_then(|ping| ping.result.err())
    }

    fn samples(&self) -> Samples {
        let times = self.pings.iter().filter_map(|ping| ping.result.as_ref().ok());
        times.copied().collect::<Vec<Duration>>().into()
    }
}

impl RoundTrip {
    fn of(samples: &Samples) -> Option<Self> {
        Some(Self {
            min: millis(samples.min()?),
            avg: millis(samples.mean()?),
            p50: millis(samples.percentile(50)?),
            max: millis(samples.max()?),
        })
    }
}

impl<'a> From<&'a Ping> for JsonPing<'a> {
    fn from(ping: &'a Ping) -> Self {
        let failure = ping.result.as_ref().err();
        Self {
            sequence: ping.sequence,
            round_trip_ms: ping.result.as_ref().ok().copied().map(millis),
            failure: failure.map(|failure| JsonFailure {
                code: failure.code().as_str(),
                detail: failure.detail(),
            }),
        }
    }
}

/// One line for people.
impl fmt::Display for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(time) => write!(f, "{}: {:.2} ms", self.sequence, millis(*time)),
            Err(failure) => write!(f, "{}: no answer: {failure}", self.sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_tokio::core::error::Code;
    use serde_json::json;

    use super::*;
    use crate::base::layout::{self, tests::assert_fits};

    fn report(results: impl IntoIterator<Item = Option<u64>>) -> PingReport {
        let mut report = PingReport::new(Reached::example());
        for (sequence, result) in (1..).zip(results) {
            let lost = || Failure::new(Code::DeadlineExceeded, "no answer within 5 s");
            let result = result.map(Duration::from_micros).ok_or_else(lost);
            report.on_ping(Ping { sequence, result });
        }
        report
    }

    #[test]
    fn long_times_and_failures_fit_80_columns() {
        let mut slow = report([Some(4_999_999_999), None, Some(1)]);
        let failure = Failure::new(Code::BackendUnavailable, "no answer ".repeat(20));
        slow.on_ping(Ping { sequence: 100_000, result: Err(failure) });
        let lines = slow.pings.iter().map(ToString::to_string).chain([slow.summary()]);
        lines.for_each(|line| assert_fits(&layout::wrap(&line, layout::WIDTH)));
    }

    #[test]
    fn people_see_each_ping_and_a_summary() {
        let report = report([Some(400), None, Some(1_000), Some(700)]);
        let lines: Vec<_> = report.pings.iter().map(ToString::to_string).collect();
        assert_eq!(lines[0], "1: 0.40 ms");
        assert_eq!(lines[1], "2: no answer: deadline_exceeded: no answer within 5 s");
        assert_eq!(
            report.summary(),
            "4 sent, 3 answered, 25 % lost; RTT min 0.40, avg 0.70, p50 0.70, max 1.00 ms"
        );
    }

    #[test]
    fn programs_get_the_same() {
        let report = report([Some(400), None]);
        let json = serde_json::to_value(report.to_json()).unwrap();
        let expected = json!({
            "connector": "connector",
            "address": "192.0.2.7:4433",
            "connected_ms": 3.25,
            "sent": 2,
            "answered": 1,
            "lost": 1,
            "round_trip_ms": { "min": 0.4, "avg": 0.4, "p50": 0.4, "max": 0.4 },
            "pings": [
                { "sequence": 1, "round_trip_ms": 0.4 },
                {
                    "sequence": 2,
                    "failure": { "code": "deadline_exceeded", "detail": "no answer within 5 s" },
                },
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn without_an_answer_there_is_no_round_trip() {
        let report = report([None, None]);
        assert_eq!(report.summary(), "2 sent, 0 answered, 100 % lost");
        let json = serde_json::to_value(report.to_json()).unwrap();
        assert_eq!(json["round_trip_ms"], json!(null));
    }

    #[test]
    fn one_answer_is_enough() {
        assert_eq!(report([None, Some(1)]).into_verdict(), None);
        assert_eq!(report([None, None]).into_verdict().unwrap().code(), Code::DeadlineExceeded);
    }

    #[test]
    fn an_interrupted_report_without_answers_is_named() {
        assert_eq!(report([]).summary(), "0 sent, 0 answered, 0 % lost");
        assert_eq!(report([]).into_verdict(), None);
    }
}
