//! Cost of idle clients to a relay: memory for each, and time, over loopback.
//!
//! It decides how many there are and what each of them offers. It never judges: it prints sizes.
//! The aim is at most 40 KiB for each of 10,000.
//!
//! ```text
//! cargo bench -p adit-tokio --bench attached
//! ```

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial};
use adit_core::drive::{Handle, Peer};
use adit_core::relay;
use adit_core::relay::Register;
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::{Identity, KeyDigest, Tls, Trust};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Number of clients at the end.
const CLIENTS: usize = 10_000;
/// Clients that connect concurrently, and after which the relay is measured.
const BATCH: usize = 100;
const ROW: usize = 2_500;
/// How long they are idle: every one of them registers again within it.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "relay") {
        return relay();
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let (mut child, address) = start()?;
    let before = resident(&child)?;
    println!("clients   seconds   KiB each   the relay alone: {before:.0} KiB");
    runtime()?.block_on(async {
        let (began, mut clients) = (Instant::now(), Vec::new());
        while clients.len() < CLIENTS {
            attach(address, &mut clients).await?;
            if clients.len().is_multiple_of(ROW) {
                let each = (resident(&child)? - before) / clients.len() as f64;
                let took = began.elapsed().as_secs_f64();
                println!("{:>7} {took:>9.1} {each:>10.1}", clients.len());
            }
        }
        let used = cpu(&child)?;
        sleep(IDLE).await;
        let share = (cpu(&child)? - used) / IDLE.as_secs_f64();
        let each = (resident(&child)? - before) / clients.len() as f64;
        let held = clients.iter().filter(|(_, peer)| is_registered(peer)).count();
        println!(
            "{held} registered after {IDLE:?}: {each:.1} KiB each, {:.1} % of a core",
            share * 1e2
        );
        Result::Ok(())
    })?;
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

/// Starts the relay in a process of its own, to measure its memory alone.
fn start() -> Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("relay").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().ok_or("it is piped")?;
    BufReader::new(out).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

fn relay() -> Result<()> {
    runtime()?.block_on(async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = socket.local_addr()?.port();
        let tls = Tls::new(identity("relay", Role::Connector), Trust::anyone());
        let config = Config::builder(tls).relay(relay::RelayConfig::default()).build()?;
        let (_handle, driver) = adit_tokio::from_socket(socket, config)?;
        tokio::spawn(driver);
        println!("127.0.0.1:{port}");
        std::io::stdout().flush()?;
        // It ends when the parent does.
        tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
        Ok(())
    })
}

/// Connects a batch of clients, each a connector with a service of its own, and waits for them.
async fn attach(relay: SocketAddr, clients: &mut Vec<(Handle, Peer)>) -> Result<()> {
    let known = clients.len();
    for index in known..known + BATCH {
        let name = format!("client-{index}");
        let identity = identity(&name, Role::Connector);
        let pki = Pki::new();
        let config = Config::builder(Tls::new(identity.clone(), pki.trust())).listening(true);
        // An address may have as many concurrent handshakes as one client, and no more.
        let host = Ipv4Addr::new(127, 9, 0, u8::try_from(index % BATCH + 1)?);
        let (handle, driver) = adit_tokio::bind((host, 0).into(), config.build()?)?;
        tokio::spawn(driver);
        handle.register(Some(Register {
            services: vec![name.parse()?],
            name,
            guests: Vec::new(),
            revoked: Vec::new(),
            takeover: true,
        }));
        let shown = identity.presenting(pki.root_pem().as_bytes())?;
        let key = self::identity("relay", Role::Connector);
        let key = KeyDigest::of_certificate(&key.chain()[0]).ok_or("no certificate")?;
        let peer =
            handle.dial(Dial::relay(relay, "relay", Tls::new(shown, Trust::pinned_leaf(key))))?;
        clients.push((handle, peer));
    }
    for (_, peer) in &clients[known..] {
        peer.connected().await?;
        while !is_registered(peer) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

fn is_registered(peer: &Peer) -> bool {
    peer.snapshot().is_some_and(|snapshot| snapshot.is_registered)
}

fn identity(name: &str, role: Role) -> Identity {
    let day = Duration::from_secs(86_400);
    let always = Validity { not_before: day, not_after: day * 365 * 100 };
    Pki::new().issue_valid(name, role, always).identity()
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Returns the resident memory in KiB.
fn resident(child: &Child) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("VmRSS is empty")?.parse()?)
}

/// Returns the seconds of processor time, user and system, which Linux counts in hundredths.
fn cpu(child: &Child) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / 100.0)
}
