//! The steps of the demonstration, in order. Each verifies one fact and measures one figure; a step
//! that fails does not prevent the later ones.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::event::Event;
use adit_tokio::core::request::Request;
use anyhow::ensure;
use bytes::Bytes;

use super::fetch::{self, Fetched};
use super::path::SimulatedPath;
use super::report::{DemoReport, StepFigure};
use super::service::{LARGE, PAGE, large_hash};
use super::world::{self, DemoAgent, DemoWorld};
use crate::net::event_log;

/// Time limit of a step.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a fetch may take while the tunnel recovers, before it is tried again.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed fetch.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// How long the path drops everything.
const BLOCKED: Duration = Duration::from_secs(3);

/// Requests echoed.
const ECHOES: u32 = 200;

/// Heartbeats waited for.
const HEARTBEATS: u32 = 4;

/// Runs all steps.
pub(super) async fn all(world: &mut DemoWorld, report: &mut DemoReport) {
    let agent = &mut world.agent;
    let connected = limited(connect(agent)).await;
    note_for(&mut agent.events, "agent", report, Duration::ZERO).await;
    report.on_check("connect", "mutual TLS handshake", connected);
    report.on_check("page", "a page through the tunnel", limited(page(agent.local())).await);
    let fetched = limited(large(agent.local(), report)).await;
    report.on_check("large", "256 MiB through the tunnel", fetched);
    report.on_check("echo", "requests answered", limited(echo(&agent.peer)).await);
    report.on_check("stream", "a streamed answer", limited(stream(&agent.peer)).await);
    note_for(&mut agent.events, "agent", report, Duration::ZERO).await;
    report.on_check("heartbeat", "heartbeats", limited(heartbeats(&mut agent.events)).await);
    let restarted = restart(world, report).await;
    report.on_check("restart", "connector killed and restarted", restarted);
    let blocked = blackout(world, report).await;
    report.on_check("blackout", "path blocked for 3 s", blocked);
    report.on_check("shutdown", "graceful end", limited(shut_down(world)).await);
}

async fn limited<T>(step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LIMIT, step)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("nothing within {LIMIT:?}")))
}

async fn connect(agent: &DemoAgent) -> anyhow::Result<StepFigure> {
    let start = Instant::now();
    agent.peer.connected().await?;
    let took = start.elapsed();
    let names = agent.peer.names();
    ensure!(names == [world::CONNECTOR], "the connector is called {names:?}");
    Ok(StepFigure::millis(took, format!("{}, verified name {}", shown(took), world::CONNECTOR)))
}

async fn page(local: SocketAddr) -> anyhow::Result<StepFigure> {
    let fetched = fetch_page(local).await?;
    Ok(StepFigure::millis(
        fetched.first_byte,
        format!("first byte after {}", shown(fetched.first_byte)),
    ))
}

async fn fetch_page(local: SocketAddr) -> anyhow::Result<Fetched> {
    let fetched = fetch::get(local, "/", |_| ()).await?;
    ensure!(fetched.hash == blake3::hash(PAGE.as_bytes()), "another page arrived");
    Ok(fetched)
}

async fn large(local: SocketAddr, report: &DemoReport) -> anyhow::Result<StepFigure> {
    let expected = large_hash();
    let bar = report.bar("256 MiB", LARGE);
    let fetched = fetch::get(local, "/large", |bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let fetched = fetched?;
    ensure!(fetched.bytes == LARGE, "{} bytes of {LARGE} arrived", fetched.bytes);
    ensure!(fetched.hash == expected, "other bytes arrived: hash {}", fetched.hash);
    let rate = LARGE as f64 / fetched.total.as_secs_f64() / 1e6;
    let text = format!("{rate:.0} MB/s, hash {}…", &expected.to_hex()[..16]);
    Ok(StepFigure { text, value: rate, unit: "MB/s" })
}

async fn echo(peer: &Peer) -> anyhow::Result<StepFigure> {
    let mut times = Vec::with_capacity(ECHOES as usize);
    for index in 0..ECHOES {
        let body = Bytes::from(format!("request {index}"));
        let start = Instant::now();
        let answer = peer.request(Request::new(body.clone())).await?.collect().await?;
        times.push(start.elapsed());
        ensure!(answer == body, "request {index} was answered with something else");
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    Ok(StepFigure::millis(median, format!("{ECHOES} of {ECHOES} echoed, median {}", shown(median))))
}

async fn stream(peer: &Peer) -> anyhow::Result<StepFigure> {
    let mut response = peer.request(Request::new(world::STREAM)).await?;
    let (mut arrived, mut bytes) = (blake3::Hasher::new(), 0);
    while let Some(piece) = response.next().await? {
        bytes += piece.len();
        arrived.update(&piece);
    }
    let mut expected = blake3::Hasher::new();
    for index in 0..world::CHUNKS {
        expected.update(&world::chunk(index));
    }
    ensure!(arrived.finalize() == expected.finalize(), "other bytes arrived");
    let text = format!("{} chunks, {} KiB, hash verified", world::CHUNKS, bytes / 1024);
    Ok(StepFigure { text, value: world::CHUNKS as f64, unit: "chunks" })
}

async fn heartbeats(events: &mut Events) -> anyhow::Result<StepFigure> {
    let mut times = Vec::new();
    while times.len() < HEARTBEATS as usize {
        match events.next().await {
            Some(Event::HeartbeatAcked { latency, .. }) => times.push(latency),
            Some(_) => {}
            None => anyhow::bail!("the agent has ended"),
        }
    }
    let least = times.into_iter().min().unwrap_or_default();
    Ok(StepFigure::millis(least, format!("{HEARTBEATS} acknowledged, latency {}", shown(least))))
}

/// Kills the connector in the middle of a transfer, restarts it immediately, and measures how long
/// it takes until a page arrives again.
async fn restart(world: &mut DemoWorld, report: &mut DemoReport) -> anyhow::Result<StepFigure> {
    let local = world.agent.local();
    let mut arrived = 0;
    let cut = tokio::select! {
        fetched = fetch::get(local, "/large", |bytes| arrived = bytes) => Some(fetched),
        () = tokio::time::sleep(Duration::from_millis(100)) => None,
    };
    ensure!(cut.is_none(), "256 MiB arrived before the connector could be killed");
    report.print_line("killing the connector under load, and starting another on its port");
    let start = Instant::now();
    world.kill_connector().await;
    world.restart_connector()?;
    let back = first_page(&mut world.agent, "agent", report, start);
    let took = limited(back).await?;
    let text = format!("first byte again after {} (cut at {arrived} bytes)", shown(took));
    Ok(StepFigure::millis(took, text))
}

/// Drops everything between an agent and the connector for a while, and measures how long it
/// takes from the end of that until a page arrives again.
async fn blackout(world: &DemoWorld, report: &mut DemoReport) -> anyhow::Result<StepFigure> {
    let path = SimulatedPath::to(world.connector.address).await?;
    let mut agent = world.another_agent(path.near())?;
    limited(async { Ok(agent.peer.connected().await?) }).await?;
    limited(fetch_page(agent.local())).await?;
    report.print_line("dropping everything between a second agent and the connector for 3 s");
    path.block(true);
    note_for(&mut agent.events, "second agent", report, BLOCKED).await;
    report.print_line("the path is open again");
    path.block(false);
    let start = Instant::now();
    let took = limited(first_page(&mut agent, "second agent", report, start)).await?;
    agent.handle.shutdown();
    Ok(StepFigure::millis(took, format!("first byte again after {}", shown(took))))
}

/// Fetches the page until it arrives, and reports every transition meanwhile.
async fn first_page(
    agent: &mut DemoAgent,
    who: &'static str,
    report: &mut DemoReport,
    start: Instant,
) -> anyhow::Result<Duration> {
    let local = agent.local();
    let fetched = async {
        loop {
            let sent = start.elapsed();
            match tokio::time::timeout(FETCH_TIMEOUT, fetch_page(local)).await {
                Ok(Ok(fetched)) => return sent + fetched.first_byte,
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    };
    tokio::pin!(fetched);
    loop {
        tokio::select! {
            biased;
            Some(event) = agent.events.next() => note(&event, who, report),
            took = &mut fetched => return Ok(took),
        }
    }
}

async fn shut_down(world: &DemoWorld) -> anyhow::Result<StepFigure> {
    let start = Instant::now();
    // The agent lives for `--keep`; a connection of another one ends here.
    let agent = world.another_agent(world.connector.address)?;
    agent.peer.connected().await?;
    agent.handle.shutdown();
    agent.handle.closed().await;
    let took = start.elapsed();
    Ok(StepFigure::millis(took, format!("connected, closed and gone in {}", shown(took))))
}

/// Reports the transitions so far and those within `time`.
async fn note_for(events: &mut Events, who: &'static str, report: &mut DemoReport, time: Duration) {
    let notes = async {
        while let Some(event) = events.next().await {
            note(&event, who, report);
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(time, notes).await;
}

/// Reports a transition, or another path.
pub(super) fn note(event: &Event, who: &'static str, report: &mut DemoReport) {
    if let Event::Transition { transition, .. } = event {
        report.on_transition(who, event_log::describe(transition));
    }
    if let Event::PathChanged { via, reason, .. } = event {
        report.on_transition(who, event_log::describe_path(*via, *reason));
    }
}

pub(super) fn shown(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        millis if millis < 10.0 => format!("{millis:.2} ms"),
        millis if millis < 1e3 => format!("{millis:.0} ms"),
        millis => format!("{:.2} s", millis / 1e3),
    }
}
