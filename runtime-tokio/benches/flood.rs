//! Cost of a flood of forged first packets to an honest dialler and the acceptor, over loopback.
//!
//! It decides who floods, how fast, and how often an honest dialler connects. It never judges: it
//! prints quantiles and sizes. The aims are that 99 in 100 connects take at most twice as long as
//! without the flood, and that the acceptor grows by less than 32 MiB.
//!
//! ```text
//! cargo bench -p adit-tokio --bench flood
//! ```

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial};
use adit_core::node::{Node, Output, Start};
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::Tls;
use tokio::runtime::{Builder, Runtime};

/// Handshakes begun per minute, each with its whole first flight.
const FLOOD: u32 = 100_000;

/// Number of different first flights; they repeat every few seconds.
const FLIGHTS: usize = 5_000;

/// Source addresses of the flood: the loopback network has as many as needed.
const SOURCES: u8 = 200;

/// Honest connects of each measure, and the time from one to the next.
const CONNECTS: usize = 400;
const PACE: Duration = Duration::from_millis(50);

fn main() {
    if std::env::args().any(|argument| argument == "acceptor") {
        return acceptor();
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (mut child, address) = start();
    let resident = || resident(&child);
    println!("                packets/s  p50 ms  p99 ms  max ms  acceptor MiB");
    let before = resident();
    let (is_over, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let flights = flights(address);
    let flood = std::thread::spawn({
        let (is_over, sent) = (is_over.clone(), sent.clone());
        move || flood(address, &flights, &is_over, &sent)
    });
    std::thread::sleep(Duration::from_secs(30));
    println!("nobody else: the acceptor grew by {:.1} MiB", resident() - before);
    for _ in 0..2 {
        let (count, began) = (sent.load(Relaxed), Instant::now());
        let found = connects(address);
        let rate = (sent.load(Relaxed) - count) as f64 / began.elapsed().as_secs_f64();
        report("flood", rate, &found, resident());
    }
    is_over.store(true, Relaxed);
    flood.join().expect("the flood does not panic");
    std::thread::sleep(Duration::from_secs(15));
    for _ in 0..2 {
        report("quiet", 0.0, &connects(address), resident());
    }
    drop(child.stdin.take());
    child.wait().expect("the acceptor ends with its input");
}

/// Starts the acceptor in a process of its own, to measure its memory alone.
fn start() -> (Child, SocketAddr) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(program)
        .arg("acceptor")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started");
    let mut line = String::new();
    let out = child.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut line).expect("the acceptor says where it listens");
    (child, line.trim().parse().expect("an address"))
}

fn acceptor() {
    runtime().block_on(async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let port = socket.local_addr().expect("a bound socket").port();
        let (handle, driver) =
            adit_tokio::from_socket(socket, config("acceptor", true)).expect("a usable socket");
        tokio::spawn(driver);
        println!("127.0.0.1:{port}");
        std::io::stdout().flush().expect("the parent reads");
        let (over, until_over) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // It ends when the parent does.
            let _ = std::io::stdin().read(&mut [0]);
            let _ = over.send(());
        });
        tokio::select! {
            _ = until_over => {}
            () = async { while handle.accept().await.is_some() {} } => {}
        }
    });
}

/// Returns how long each of a series of honest connects took, in order.
fn connects(address: SocketAddr) -> Vec<Duration> {
    let mut found = runtime().block_on(async {
        let mut found = Vec::new();
        for _ in 0..CONNECTS {
            let began = Instant::now();
            let dial = Dial::new(address, "acceptor");
            let (handle, peer, driver) =
                adit_tokio::connect(config("dialler", false), dial).expect("a usable socket");
            let driver = tokio::spawn(driver);
            peer.connected().await.expect("loopback answers");
            found.push(began.elapsed());
            handle.shutdown();
            driver.await.expect("no panic").expect("the socket works");
            tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
        }
        found
    });
    found.sort_unstable();
    found
}

/// Returns first flights of handshakes that are never continued.
fn flights(address: SocketAddr) -> Vec<Vec<Vec<u8>>> {
    let start = Start { seed: [7; 32], now: Instant::now(), unix: Duration::from_secs(1) };
    let mut node = Node::new(config("nobody", false), start).expect("a usable identity");
    let mut flights = Vec::new();
    for _ in 0..FLIGHTS {
        let peer = node.dial(Dial::new(address, "acceptor"), start.now).expect("few peers");
        let (mut flight, mut out) = (Vec::new(), Vec::new());
        while let Some(output) = node.poll_output(&mut out, start.now) {
            if let Output::Transmit(_) = output {
                flight.push(out.clone());
            }
        }
        flights.push(flight);
        node.disconnect(peer, start.now).expect("it was dialled");
        while node.poll_output(&mut out, start.now).is_some() {}
    }
    flights
}

fn flood(address: SocketAddr, flights: &[Vec<Vec<u8>>], is_over: &AtomicBool, sent: &AtomicU64) {
    let from = |n| UdpSocket::bind((Ipv4Addr::new(127, 9, 0, n), 0)).expect("a loopback address");
    let sockets: Vec<_> = (1..=SOURCES).map(from).collect();
    let began = Instant::now();
    for n in 0.. {
        if is_over.load(Relaxed) {
            return;
        }
        let due = began + Duration::from_secs(60) * n / FLOOD;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let socket = &sockets[n as usize % sockets.len()];
        for packet in &flights[n as usize % flights.len()] {
            // A full buffer loses some, as any path may.
            let _ = socket.send_to(packet, address);
            sent.fetch_add(1, Relaxed);
        }
    }
}

/// Returns the resident memory of the acceptor in MiB, if the system reports it.
fn resident(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let kib = status.ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("VmRSS"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn report(what: &str, rate: f64, found: &[Duration], resident: f64) {
    let quantile = |percent: usize| {
        let rank = (found.len() * percent).div_ceil(100).max(1);
        found[rank - 1].as_secs_f64() * 1e3
    };
    let (p50, p99, max) = (quantile(50), quantile(99), quantile(100));
    println!("{what:<15} {rate:>9.0}  {p50:>6.2}  {p99:>6.2}  {max:>6.2}  {resident:>12.1}");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the system has an event queue")
}

fn config(name: &str, listening: bool) -> Config {
    let day = Duration::from_secs(86_400);
    let always = Validity { not_before: day, not_after: day * 365 * 100 };
    let pki = Pki::new();
    let identity = pki.issue_valid(name, Role::Connector, always).identity();
    Config::builder(Tls::new(identity, pki.trust()))
        .listening(listening)
        .build()
        .expect("the defaults fit together")
}
