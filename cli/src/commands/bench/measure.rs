//! The measurements, each against a built-in service of the connector. They decide when the clock
//! runs and what counts: bytes when they arrive, streams when they are closed.

use std::time::Duration;

use adit_tokio::core::ServiceName;
use adit_tokio::core::drive::{Peer, RecvHalf, SendHalf, Stream, StreamError};
use adit_tokio::core::error::{Code, Failure};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::{BenchFigure, BulkDirection};
use crate::forward::egress::builtin::Builtin;

/// Bytes of one write or read.
const BLOCK: usize = 256 * 1024;

/// Bytes of a message with a timed round trip.
const MESSAGE: usize = 64;

/// Round trips before the first that counts.
const WARM_UP: usize = 10;

/// Maximum number of timed round trips: further ones would not change the 99th percentile.
const MOST: usize = 20_000;

/// How long bulk runs before messages beside it are timed, as a part of the measurement's time.
const RUN_UP: u32 = 5;

/// Time without an answer after which the connection counts as stalled.
const STALL: Duration = Duration::from_secs(10);

/// Measures bulk on this many concurrent streams. Downwards the time counts from the opening of the
/// streams, upwards from when all of them were accepted.
///
/// # Errors
/// What ended a stream early.
pub(crate) async fn throughput(
    peer: &Peer,
    direction: BulkDirection,
    streams: usize,
    time: Duration,
) -> Result<BenchFigure, Failure> {
    let mut running = JoinSet::new();
    let mut sinks = Vec::new();
    if direction == BulkDirection::Up {
        for _ in 0..streams {
            sinks.push(accepted(open(peer, Builtin::Sink).await?).await?);
        }
    }
    let start = Instant::now();
    let until = start + time;
    for sink in sinks {
        running.spawn(fill(sink, until));
    }
    if direction == BulkDirection::Down {
        for _ in 0..streams {
            running.spawn(drain(peer.clone(), until));
        }
    }
    let mut bytes = 0;
    while let Some(count) = running.join_next().await {
        bytes += count.map_err(|_| stalled())??;
    }
    // The data that the sinks counted had arrived when they were reset, half a round trip later.
    let took = match direction {
        BulkDirection::Down => start.elapsed(),
        BulkDirection::Up => time,
    };
    Ok(BenchFigure::Throughput { direction, streams, bytes, took })
}

/// Reads from a source until an instant, or until it ends.
async fn drain(peer: Peer, until: Instant) -> Result<u64, Failure> {
    let mut stream = open(&peer, Builtin::Source).await?;
    let mut count = 0;
    let drained = async {
        while let Some(chunk) = stream.recv().read_chunk(BLOCK).await? {
            count += chunk.len() as u64;
        }
        Ok(())
    };
    match timeout_at(until, drained).await {
        Ok(Err(error)) => Err(failure(error)),
        Ok(Ok(())) | Err(_) => Ok(count),
    }
}

/// Writes to a sink until an instant, and asks it how much has arrived.
async fn fill(sink: (SendHalf, RecvHalf), until: Instant) -> Result<u64, Failure> {
    let (mut send, mut recv) = sink;
    let block = Bytes::from(vec![0x5a; BLOCK]);
    let filled = async {
        loop {
            send.write_all(block.clone()).await?;
        }
    };
    if let Ok::<Result<(), StreamError>, _>(Err(error)) = timeout_at(until, filled).await {
        return Err(failure(error));
    }
    send.reset(Code::Cancelled);
    let mut count = [0; 8];
    in_time(read_exact(&mut recv, &mut count)).await?;
    Ok(u64::from_be_bytes(count))
}

/// Measures messages there and back, one at a time.
///
/// # Errors
/// What ended the stream, or the bulk beside it.
pub(crate) async fn latency(
    peer: &Peer,
    beside: usize,
    time: Duration,
) -> Result<BenchFigure, Failure> {
    let (mut send, mut recv) = accepted(open(peer, Builtin::Echo).await?).await?;
    let mut bulk = JoinSet::new();
    let end = Instant::now() + time + STALL;
    for _ in 0..beside {
        bulk.spawn(drain(peer.clone(), end));
    }
    if beside > 0 {
        tokio::time::sleep(time / RUN_UP).await;
    }
    for _ in 0..WARM_UP {
        in_time(round_trip(&mut send, &mut recv)).await?;
    }
    let until = Instant::now() + time;
    let mut times = Vec::new();
    while times.is_empty() || (times.len() < MOST && Instant::now() < until) {
        times.push(in_time(round_trip(&mut send, &mut recv)).await?);
    }
    if let Some(ended) = bulk.try_join_next() {
        ended.map_err(|_| stalled())??;
        return Err(Failure::new(Code::Unknown, "the bulk ended before its time"));
    }
    Ok(BenchFigure::Latency { beside, bytes: MESSAGE, times: times.into() })
}

async fn round_trip(send: &mut SendHalf, recv: &mut RecvHalf) -> Result<Duration, StreamError> {
    let start = Instant::now();
    send.write_all(Bytes::from_static(&[0x5a; MESSAGE])).await?;
    read_exact(recv, &mut [0; MESSAGE]).await?;
    Ok(start.elapsed())
}

/// Measures streams that are opened, used for one byte there and back, and closed, with this many
/// open at any time.
///
/// # Errors
/// The failure of the first stream that failed.
pub(crate) async fn new_streams(
    peer: &Peer,
    at_once: usize,
    time: Duration,
) -> Result<BenchFigure, Failure> {
    let start = Instant::now();
    let until = start + time;
    let mut running = JoinSet::new();
    for _ in 0..at_once {
        let peer = peer.clone();
        running.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                let stream = open(&peer, Builtin::Echo).await?;
                in_time(use_once(stream)).await?;
                count += 1;
            }
            Ok::<u64, Failure>(count)
        });
    }
    let mut count = 0;
    while let Some(each) = running.join_next().await {
        count += each.map_err(|_| stalled())??;
    }
    Ok(BenchFigure::NewStreams { at_once, count, took: start.elapsed() })
}

async fn use_once(mut stream: Stream) -> Result<(), StreamError> {
    stream.send().write_all(Bytes::from_static(b"?")).await?;
    stream.send().finish()?;
    read_exact(stream.recv(), &mut [0]).await?;
    match stream.recv().read_chunk(1).await? {
        None => Ok(()),
        Some(_) => Err(StreamError::Closed),
    }
}

async fn open(peer: &Peer, builtin: Builtin) -> Result<Stream, Failure> {
    let name: ServiceName = builtin
        .name()
        .parse()
        .map_err(|_| Failure::new(Code::Misconfigured, "no service can have this name"))?;
    timeout(STALL, peer.open(name)).await.map_err(|_| stalled())?
}

/// Returns the two directions, once the connector has accepted.
async fn accepted(stream: Stream) -> Result<(SendHalf, RecvHalf), Failure> {
    let (send, mut recv) = stream.split();
    in_time(recv.accepted()).await?;
    Ok((send, recv))
}

async fn read_exact(recv: &mut RecvHalf, mut out: &mut [u8]) -> Result<(), StreamError> {
    while !out.is_empty() {
        let chunk = recv.read_chunk(out.len()).await?.ok_or(StreamError::Closed)?;
        let (now, rest) = out.split_at_mut(chunk.len());
        now.copy_from_slice(&chunk);
        out = rest;
    }
    Ok(())
}

async fn in_time<T>(step: impl Future<Output = Result<T, StreamError>>) -> Result<T, Failure> {
    match timeout(STALL, step).await {
        Ok(result) => result.map_err(failure),
        Err(_) => Err(stalled()),
    }
}

fn stalled() -> Failure {
    Failure::new(Code::TimedOut, format!("nothing came for {STALL:?}"))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core may add ends of streams, and none of those left says why in its own words"
)]
fn failure(error: StreamError) -> Failure {
    match error {
        StreamError::Refused(failure) | StreamError::ConnectionLost(failure) => failure,
        StreamError::Reset(code) | StreamError::Stopped(code) => {
            Failure::new(code, "the connector ended a stream before its time")
        }
        other => Failure::new(Code::Unknown, other.to_string()),
    }
}

#[cfg(test)]
mod tests;
