//! Clients of small messages.
//!
//! It decides how each is timed: a round trip from just before its write to the end of its read.
//! One connection is a blocking thread, many are tasks of one event loop.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::STALL;
use super::backend::{ECHO, REQUEST, REQUEST_BYTES, RESPONSE_BYTES};

/// Maximum number of round trips of one echo.
const ECHOES: usize = 5_000;
/// Round trips before the clock starts.
const WARM_UP: usize = 100;

/// Returns the round trips on one connection, until there are [`ECHOES`] or `within` is over.
pub(super) fn echo(entry: SocketAddr, bytes: usize, within: Duration) -> Result<Vec<Duration>> {
    let mut stream = connect(entry)?;
    let message = vec![ECHO; bytes];
    let mut answer = vec![0; bytes];
    for _ in 0..WARM_UP {
        round_trip(&mut stream, &message, &mut answer)?;
    }
    let start = Instant::now();
    let mut times = Vec::with_capacity(ECHOES);
    while times.len() < ECHOES && start.elapsed() < within {
        times.push(round_trip(&mut stream, &message, &mut answer)?);
    }
    Ok(times)
}

/// Sends a request at every beat of `pace`, timed from when it is sent. A beat at which the last
/// one is unanswered is left out.
pub(super) fn paced(entry: SocketAddr, pace: Duration, within: Duration) -> Result<Vec<Duration>> {
    let mut stream = connect(entry)?;
    let message = [REQUEST; REQUEST_BYTES];
    let mut answer = [0; RESPONSE_BYTES];
    round_trip(&mut stream, &message, &mut answer)?;
    let start = Instant::now();
    let mut next = start;
    let mut times = Vec::new();
    while next < start + within {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        times.push(round_trip(&mut stream, &message, &mut answer)?);
        let now = Instant::now();
        while next <= now {
            next += pace;
        }
    }
    Ok(times)
}

/// Returns the messages echoed on all of `connections` in about `within`, and how long it took.
pub(super) fn requests(
    entry: SocketAddr,
    connections: usize,
    bytes: usize,
    within: Duration,
) -> Result<(u64, Duration)> {
    many(connections, within, move |done, until| async move {
        let mut stream = tokio::net::TcpStream::connect(entry).await?;
        stream.set_nodelay(true)?;
        let message = vec![ECHO; bytes];
        let mut answer = vec![0; bytes];
        while Instant::now() < until {
            stream.write_all(&message).await?;
            stream.read_exact(&mut answer).await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Returns the connections opened, used for one byte and closed in about `within`, `at_once` at any
/// time, and how long it took.
pub(super) fn connections(
    entry: SocketAddr,
    at_once: usize,
    within: Duration,
) -> Result<(u64, Duration)> {
    many(at_once, within, move |done, until| async move {
        while Instant::now() < until {
            let mut stream = tokio::net::TcpStream::connect(entry).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&[ECHO]).await?;
            stream.read_exact(&mut [0]).await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Runs `clients` of a kind on this thread until the instant that each is given. Any error of one
/// is the error of all.
fn many<F>(
    clients: usize,
    within: Duration,
    client: impl Fn(Arc<AtomicU64>, Instant) -> F,
) -> Result<(u64, Duration)>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    runtime
        .block_on(async {
            let mut running: JoinSet<_> =
                (0..clients).map(|_| client(done.clone(), start + within)).collect();
            let all = async {
                while let Some(ended) = running.join_next().await {
                    ended??;
                }
                Ok(())
            };
            tokio::time::timeout(within + STALL, all).await.context("a client stalled")?
        })
        .map(|()| (done.load(Ordering::Relaxed), start.elapsed()))
}

fn connect(entry: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(entry)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(stream)
}

fn round_trip(stream: &mut TcpStream, message: &[u8], answer: &mut [u8]) -> Result<Duration> {
    let start = Instant::now();
    stream.write_all(message)?;
    stream.read_exact(answer).context("no answer")?;
    Ok(start.elapsed())
}
