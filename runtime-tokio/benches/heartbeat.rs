//! How late heartbeats are answered while bulk saturates the connection, over loopback.
//!
//! It decides what is sent, how long, and how often a heartbeat asks. It never judges: it prints
//! quantiles and rates. The aim is that 99 in 100 are answered within 50 ms.
//!
//! ```text
//! cargo bench -p adit-tokio --bench heartbeat
//! ```

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial};
use adit_core::drive::Stream;
use adit_core::event::Event;
use adit_core::heartbeat;
use adit_core::node::PeerSnapshot;
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::Tls;
use adit_tokio::{Handle, Peer};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Interval of heartbeats, and the time within which an answer counts: a later one is a miss, which
/// the quantiles treat as slower than any answer.
const BEAT: Duration = Duration::from_millis(60);

/// Saturation before the clock starts: the window and the path's MTU settle.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long each measure lasts.
const LASTING: Duration = Duration::from_secs(5);

/// Bytes offered to a stream in one call.
const CHUNK: usize = 256 * 1024;

/// The direction of the bulk, as the dialler sees it. Heartbeats are the dialler's, their answers
/// the acceptor's: one of the two shares its direction with the bulk.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("bulk  streams   GB/s  beats  missed  p50 ms  p99 ms  max ms");
    for direction in [Direction::Up, Direction::Down] {
        for streams in [1, 8] {
            measure(direction, streams);
        }
    }
}

/// Measures one connection between two threads, and prints one line.
fn measure(direction: Direction, streams: usize) {
    let received = Arc::<AtomicU64>::default();
    let (address, listens) = mpsc::channel();
    let (over, until_over) = tokio::sync::oneshot::channel::<()>();
    let acceptor = std::thread::spawn({
        let received = received.clone();
        move || {
            runtime().block_on(async {
                let (handle, here) = listen();
                address.send(here).expect("the dialler waits for it");
                let peer = handle.accept().await.expect("the dialler comes");
                let _flows = accept(&peer, direction, streams, &received).await;
                until_over.await.expect("the dialler says when it has measured");
            });
        }
    });
    let here = listens.recv().expect("the acceptor listens");
    let figures = runtime().block_on(async {
        let dial = Dial::new(here, "acceptor");
        let (handle, peer, driver) =
            adit_tokio::connect(config("dialler", false), dial).expect("a usable socket");
        tokio::spawn(driver);
        peer.connected().await.expect("loopback answers");
        let _flows = open(&peer, direction, streams, &received).await;
        tokio::time::sleep(WARM_UP).await;
        watch(&handle, &peer, &received).await
    });
    over.send(()).expect("the acceptor waits for it");
    acceptor.join().expect("the acceptor does not panic");
    figures.print(direction, streams);
}

fn listen() -> (Handle, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let here = socket.local_addr().expect("a bound socket");
    let (handle, driver) =
        adit_tokio::from_socket(socket, config("acceptor", true)).expect("a usable socket");
    tokio::spawn(driver);
    (handle, here)
}

async fn accept(
    peer: &Peer,
    direction: Direction,
    streams: usize,
    received: &Arc<AtomicU64>,
) -> JoinSet<()> {
    let mut flows = JoinSet::new();
    for _ in 0..streams {
        let stream = peer.accept_stream().await.expect("the dialler opens them all").accept();
        match direction {
            Direction::Up => flows.spawn(drain(stream, received.clone())),
            Direction::Down => flows.spawn(fill(stream)),
        };
    }
    flows
}

async fn open(
    peer: &Peer,
    direction: Direction,
    streams: usize,
    received: &Arc<AtomicU64>,
) -> JoinSet<()> {
    let mut flows = JoinSet::new();
    for _ in 0..streams {
        let service = "bulk".parse().expect("a service name");
        let stream = peer.open(service).await.expect("the acceptor allows so many");
        match direction {
            Direction::Up => flows.spawn(fill(stream)),
            Direction::Down => flows.spawn(drain(stream, received.clone())),
        };
    }
    flows
}

async fn fill(mut stream: Stream) {
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    while stream.send().write_all(chunk.clone()).await.is_ok() {}
}

async fn drain(mut stream: Stream, received: Arc<AtomicU64>) {
    while let Ok(Some(chunk)) = stream.recv().read_chunk(CHUNK).await {
        received.fetch_add(chunk.len() as u64, Relaxed);
    }
}

async fn watch(handle: &Handle, peer: &Peer, received: &AtomicU64) -> Figures {
    let mut events = handle.events();
    let (bytes, missed) = (received.load(Relaxed), snapshot(peer).heartbeats.missed);
    let start = Instant::now();
    let mut latencies = Vec::new();
    let acks = async {
        while let Some(event) = events.next().await {
            if let Event::HeartbeatAcked { latency, .. } = event {
                latencies.push(latency);
            }
        }
    };
    let cut_off = tokio::time::timeout(LASTING, acks).await;
    assert!(cut_off.is_err(), "the node ended while it was measured");
    latencies.sort_unstable();
    Figures {
        rate: (received.load(Relaxed) - bytes) as f64 / start.elapsed().as_secs_f64() / 1e9,
        missed: usize::try_from(snapshot(peer).heartbeats.missed - missed).expect("a few"),
        latencies,
    }
}

fn snapshot(peer: &Peer) -> PeerSnapshot {
    peer.snapshot().expect("the peer is not closed")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the system has an event queue")
}

fn config(name: &str, listening: bool) -> Config {
    let day = Duration::from_secs(86_400);
    let always = Validity { not_before: day, not_after: day * 365 * 100 };
    let (pki, beat) =
        (Pki::new(), heartbeat::HeartbeatConfig::builder().interval(BEAT).ack_within(BEAT));
    let identity = pki.issue_valid(name, Role::Connector, always).identity();
    Config::builder(Tls::new(identity, pki.trust()))
        .listening(listening)
        .heartbeat(beat.build().expect("an answer is due before the next question"))
        .build()
        .expect("the defaults fit together")
}

/// The results of one measure.
struct Figures {
    rate: f64,
    missed: usize,
    /// Latencies of the heartbeats that were answered in time, in order.
    latencies: Vec<Duration>,
}

impl Figures {
    fn print(&self, direction: Direction, streams: usize) {
        let beats = self.latencies.len() + self.missed;
        let quantile = |percent: usize| {
            let rank = (beats * percent).div_ceil(100).max(1);
            self.latencies.get(rank - 1).map_or_else(
                || format!(">{}", BEAT.as_millis()),
                |latency| format!("{:.2}", latency.as_secs_f64() * 1e3),
            )
        };
        println!(
            "{:<5} {streams:>7} {:>6.2} {beats:>6} {:>7} {:>7} {:>7} {:>7}",
            format!("{direction:?}").to_lowercase(),
            self.rate,
            self.missed,
            quantile(50),
            quantile(99),
            quantile(100),
        );
    }
}
