//! `adit bench`: measures a tunnel against the connector itself. It decides what is measured and in
//! which order; it never judges a figure.

mod measure;
mod report;

use std::time::Duration;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::Failure;
use indicatif::ProgressBar;
use serde::Serialize;

pub(crate) use self::measure::{latency, new_streams, throughput};
use self::report::BenchJson;
use crate::base::exit::{Exit, ExitError};
use crate::base::samples::Samples;
use crate::base::{output, signals};
use crate::commands::target::TargetArgs;
use crate::homedir::Home;
use crate::roles::one_shot::OneShotConnection;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit bench web                               everything, in half a minute
  adit bench web --seconds 0.5                 shorter and less precise
  adit bench -c agent.toml --json > now.json   as JSON

The connector itself is the other end; no service behind it is used.")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) to: TargetArgs,

    /// Seconds for each measurement, 0.1 to 30
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// The name and version of the JSON schema.
const SCHEMA: &str = "adit.bench/1";

/// Shortest and longest measurement: a shorter one is not significant, and a connector gives a
/// stream 60 s.
const SECONDS: (f64, f64) = (0.1, 30.0);

/// Pause between two measurements, in which what the first left in flight arrives.
const SETTLE: Duration = Duration::from_millis(100);

/// Streams that are opened, used and closed concurrently.
const CONCURRENT_STREAMS: usize = 16;

/// The direction of bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkDirection {
    /// From the connector to here.
    Down,
    /// From here to the connector.
    Up,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// Bulk at full rate.
    Throughput { direction: BulkDirection, streams: usize },
    /// Small messages there and back, one at a time, beside this many streams of bulk from the
    /// connector.
    Latency { beside: usize },
    /// Streams opened, used for a byte and closed.
    NewStreams { at_once: usize },
}

/// Every measurement, in order.
pub(crate) const CASES: [Case; 7] = [
    Case::Throughput { direction: BulkDirection::Down, streams: 1 },
    Case::Throughput { direction: BulkDirection::Down, streams: 8 },
    Case::Throughput { direction: BulkDirection::Up, streams: 1 },
    Case::Throughput { direction: BulkDirection::Up, streams: 8 },
    Case::Latency { beside: 0 },
    Case::Latency { beside: 1 },
    Case::NewStreams { at_once: CONCURRENT_STREAMS },
];

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BenchFigure {
    /// Bytes that arrived at their end.
    Throughput { direction: BulkDirection, streams: usize, bytes: u64, took: Duration },
    /// Round trips of messages with this many bytes.
    Latency { beside: usize, bytes: usize, times: Samples },
    /// Streams that were closed again.
    NewStreams { at_once: usize, count: u64, took: Duration },
}

/// Measures everything, or stops after the present measurement on a signal.
///
/// # Errors
/// Why there was no connection, or what ended a measurement.
pub(crate) async fn run(
    arguments: &BenchArgs,
    home: Result<Home, ExitError>,
) -> Result<(), ExitError> {
    let target = arguments.to.target(home)?;
    let ended = signals::asked_to_end()?;
    tokio::pin!(ended);
    let by_signal = || ExitError::new(Exit::Degraded, "ended by a signal before all was measured");
    let connection = tokio::select! {
        connection = target.connect(arguments.to.timeout) => connection?,
        () = &mut ended => return Err(by_signal()),
    };
    let result = tokio::select! {
        result = all(&connection, arguments) => result,
        () = &mut ended => Err(by_signal()),
    };
    connection.leave().await;
    result
}

/// Measures and prints: each figure as text when it is known, or all as JSON at the end.
async fn all(connection: &OneShotConnection, arguments: &BenchArgs) -> Result<(), ExitError> {
    // It draws on stderr, and only if that is a terminal.
    let bar = ProgressBar::new_spinner();
    let tell = |line: String| match arguments.json {
        true => Ok(()),
        false => bar.suspend(|| output::text(&line)),
    };
    tell(connection.reached.to_string())?;
    let mut figures = Vec::with_capacity(CASES.len());
    for case in CASES {
        bar.set_message(case.to_string());
        bar.tick();
        let figure = measure(&connection.peer, case, arguments.seconds).await?;
        tell(figure.to_string())?;
        figures.push(figure);
        tokio::time::sleep(SETTLE).await;
    }
    bar.finish_and_clear();
    if arguments.json {
        output::json(SCHEMA, &BenchJson::new(&connection.reached, arguments.seconds, &figures))?;
    }
    Ok(())
}

/// Measures one thing for about as long as `time`.
///
/// # Errors
/// What ended it early.
pub(crate) async fn measure(
    peer: &Peer,
    case: Case,
    time: Duration,
) -> Result<BenchFigure, Failure> {
    match case {
        Case::Throughput { direction, streams } => throughput(peer, direction, streams, time).await,
        Case::Latency { beside } => latency(peer, beside, time).await,
        Case::NewStreams { at_once } => new_streams(peer, at_once, time).await,
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = SECONDS;
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Duration::from_secs_f64(number)),
        Ok(_) | Err(_) => Err(format!("write a number of seconds from {least} to {most}, like 3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_takes_at_least_a_tenth_of_a_second_and_at_most_thirty() {
        assert_eq!(seconds("0.1"), Ok(Duration::from_millis(100)));
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        for text in ["0.09", "30.1", "-1", "NaN", "inf", "3s", ""] {
            assert!(seconds(text).unwrap_err().ends_with("like 3"), "{text}");
        }
    }
}
