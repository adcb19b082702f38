//! What is measured: the cases, how long each takes, and the figures each yields.
//!
//! It decides how a case turns into figures. It never knows which of the two systems it loads.

pub(crate) mod backend;
mod bulk;
mod small;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backend::Backend;
use bulk::Bulk;

use crate::report::{Better, Figure};
use crate::tunnel::Tunnel;

/// How long a stream or a request may make no progress before the measure fails.
const STALL: Duration = Duration::from_secs(5);
/// Pause between requests beside bulk.
const PACE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Case {
    /// Resident memory without traffic.
    Memory,
    /// Streams at full rate.
    Bulk { streams: usize, direction: Direction },
    /// One connection, one message at a time.
    Echo { bytes: usize },
    /// Many connections, one message at a time on each.
    Requests { connections: usize, bytes: usize },
    /// A small request every [`PACE`] while downloads saturate.
    Beside { streams: usize },
    /// Connect, one byte there and back, close.
    Connections { at_once: usize },
}

impl Case {
    /// Returns true if one sample is enough.
    pub(crate) const fn is_steady(self) -> bool {
        matches!(self, Self::Memory)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the service to the client.
    Download,
    /// From the client to the service.
    Upload,
}

impl Direction {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// How long each part of a round takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    /// Load before the clock starts.
    pub(crate) warm_up: Duration,
    /// Bulk under the clock.
    pub(crate) window: Duration,
    /// Small messages beside bulk under the clock.
    pub(crate) beside: Duration,
    /// Small messages alone under the clock.
    pub(crate) small: Duration,
}

impl Length {
    pub(crate) const FULL: Self = Self {
        warm_up: Duration::from_millis(400),
        window: Duration::from_secs(3),
        beside: Duration::from_secs(2),
        small: Duration::from_millis(1500),
    };
    pub(crate) const QUICK: Self = Self {
        warm_up: Duration::from_millis(150),
        window: Duration::from_millis(500),
        beside: Duration::from_millis(500),
        small: Duration::from_millis(400),
    };
}

/// Runs one round of one case through one tunnel.
pub(crate) fn run(
    case: Case,
    tunnel: &Tunnel,
    backend: &Backend,
    length: Length,
) -> Result<Vec<Figure>> {
    match case {
        Case::Memory => {
            let mebibytes = tunnel.resident()? as f64 / f64::from(1 << 20);
            Ok(vec![Figure::new("MiB resident", Better::Lower, mebibytes)])
        }
        Case::Bulk { streams, direction } => {
            throughput(tunnel, backend, streams, direction, length)
        }
        Case::Echo { bytes } => {
            let times = small::echo(tunnel.entry(), bytes, length.small)?;
            percentiles(times, ["p50 µs", "p99 µs"], 1e6)
        }
        Case::Requests { connections, bytes } => {
            let cpu = tunnel.cpu()?;
            let (done, took) = small::requests(tunnel.entry(), connections, bytes, length.small)?;
            rate(tunnel, cpu, done, took)
        }
        Case::Beside { streams } => {
            let bulk = Bulk::start(tunnel.entry(), backend, streams, Direction::Download)?;
            std::thread::sleep(length.warm_up);
            let times = small::paced(tunnel.entry(), PACE, length.beside)?;
            bulk.stop()?;
            percentiles(times, ["p50 ms", "p99 ms"], 1e3)
        }
        Case::Connections { at_once } => {
            let cpu = tunnel.cpu()?;
            let (done, took) = small::connections(tunnel.entry(), at_once, length.small)?;
            rate(tunnel, cpu, done, took)
        }
    }
}

fn throughput(
    tunnel: &Tunnel,
    backend: &Backend,
    streams: usize,
    direction: Direction,
    length: Length,
) -> Result<Vec<Figure>> {
    let bulk = Bulk::start(tunnel.entry(), backend, streams, direction)?;
    std::thread::sleep(length.warm_up);
    let (bytes, cpu, start) = (bulk.received(), tunnel.cpu()?, Instant::now());
    std::thread::sleep(length.window);
    let (bytes, cpu, took) =
        (bulk.received() - bytes, tunnel.cpu()? - cpu, start.elapsed().as_secs_f64());
    bulk.stop()?;
    let gigabytes = bytes as f64 / 1e9;
    Ok(vec![
        Figure::new("Gbit/s", Better::Higher, gigabytes * 8.0 / took),
        Figure::new("CPU s/GB", Better::Lower, cpu.as_secs_f64() / gigabytes),
    ])
}

fn rate(tunnel: &Tunnel, before: Duration, done: u64, took: Duration) -> Result<Vec<Figure>> {
    let cpu = (tunnel.cpu()? - before).as_secs_f64();
    Ok(vec![
        Figure::new("per second", Better::Higher, done as f64 / took.as_secs_f64()),
        Figure::new("CPU µs each", Better::Lower, cpu * 1e6 / done as f64),
    ])
}

/// Returns median and tail, in the unit of which a second has `scale`.
fn percentiles(
    mut times: Vec<Duration>,
    [median, tail]: [&'static str; 2],
    scale: f64,
) -> Result<Vec<Figure>> {
    times.sort_unstable();
    let at = |percent: usize| -> Result<f64> {
        let time = times.get(times.len() * percent / 100).context("nothing came back")?;
        Ok(time.as_secs_f64() * scale)
    };
    Ok(vec![Figure::new(median, Better::Lower, at(50)?), Figure::new(tail, Better::Lower, at(99)?)])
}
