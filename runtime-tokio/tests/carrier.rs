//! The TCP fallback with real sockets: an `Io` that drops datagrams blocks UDP, and the connection
//! continues by TCP and returns to UDP.

use std::error::Error;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial};
use adit_core::drive::io::{Clock, Io};
use adit_core::fallback::{State, is_carried};
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::{KeyDigest, Tls};
use adit_core::transmit::{Datagram, Transmit};
use adit_tokio::carrier::{self, Identity, Limits, Relays, Streams, Target};
use adit_tokio::core::drive::Peer;
use adit_tokio::{Handle, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Outcome = Result<(), Box<dyn Error>>;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// UDP that can be blocked, in both directions.
struct Filter(TokioIo, Arc<AtomicBool>);

impl Filter {
    fn is_blocked(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

impl Io for Filter {
    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<std::io::Result<()>> {
        let is_blocked = self.is_blocked();
        self.0.poll_recv(cx, &mut |datagram| {
            if !is_blocked {
                sink(datagram);
            }
        })
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<std::io::Result<()>> {
        match self.is_blocked() {
            true => Poll::Ready(Ok(())),
            false => self.0.poll_send(cx, transmit, payload),
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        self.0.poll_sleep(cx, until)
    }

    fn max_segments(&self) -> usize {
        self.0.max_segments()
    }
}

fn validity() -> Validity {
    Validity {
        not_before: Duration::from_secs(1_700_000_000),
        not_after: Duration::from_secs(2_500_000_000),
    }
}

fn config(name: &str) -> Result<Config, Box<dyn Error>> {
    let issued = Pki::new().issue_valid(name, Role::Connector, validity());
    Ok(Config::builder(Tls::new(issued.identity(), Pki::new().trust())).build()?)
}

/// A node that accepts by UDP and by TCP, and echoes.
struct Relay {
    handle: Handle,
    streams: Streams,
    udp: SocketAddr,
    tcp: SocketAddr,
    pin: KeyDigest,
    is_blocked: Arc<AtomicBool>,
}

fn relay(limits: Limits, is_blocked: bool) -> Result<Relay, Box<dyn Error>> {
    let socket = UdpSocket::bind(LOOPBACK)?;
    let udp = socket.local_addr()?;
    let listener = TcpListener::bind(LOOPBACK)?;
    let tcp = listener.local_addr()?;
    let issued = Pki::new().issue_valid("connector", Role::Connector, validity());
    let pin = KeyDigest::of_certificate(&issued.chain()[0]).ok_or("no certificate")?;
    let identity = Identity::from_pem(issued.chain_pem().as_bytes(), issued.key_pem().as_bytes())?;
    let is_blocked = Arc::new(AtomicBool::new(is_blocked));
    let io = Filter(TokioIo::new(socket)?, is_blocked.clone());
    let (io, streams) = carrier::server(io, [listener], &identity, limits)?;
    let (handle, driver) = adit_tokio::with_io(io, config("connector")?.accepting())?;
    tokio::spawn(driver);
    tokio::spawn(echo(handle.clone()));
    Ok(Relay { handle, streams, udp, tcp, pin, is_blocked })
}

async fn echo(handle: Handle) {
    while let Some(peer) = handle.accept().await {
        tokio::spawn(async move {
            while let Some(incoming) = peer.accept_stream().await {
                let (mut send, mut recv) = adit_tokio::Stream::from(incoming.accept()).split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut recv, &mut send).await;
                    let _ = send.shutdown().await;
                });
            }
        });
    }
}

struct Client {
    handle: Handle,
    relays: Relays,
    peer: Peer,
}

fn client(relay: &Relay, pin: KeyDigest) -> Result<Client, Box<dyn Error>> {
    let (io, relays) = carrier::client(TokioIo::bind(LOOPBACK)?)?;
    let (udp, tcp) = (relay.udp, relay.tcp);
    relays.add(Target { relay: udp, tcp, name: "relay.example".into(), pin: Some(pin) });
    let (handle, driver) = adit_tokio::with_io(io, config("agent")?)?;
    tokio::spawn(driver);
    let peer = handle.dial(Dial::new(udp, "connector"))?;
    Ok(Client { handle, relays, peer })
}

impl Client {
    fn state(&self, relay: &Relay) -> Option<State> {
        self.relays.views().get(&relay.udp).map(|view| view.state)
    }

    /// Sends and gets back `length` bytes of a pattern.
    async fn exchange(&self, length: usize) -> Outcome {
        let stream = adit_tokio::Stream::from(self.peer.open("echo".parse()?).await?);
        let (mut send, mut recv) = stream.split();
        let bytes: Vec<u8> = (0..length).map(|at| (at / 7 + at % 251) as u8).collect();
        let write = async {
            send.write_all(&bytes).await?;
            send.shutdown().await
        };
        let mut answer = Vec::new();
        tokio::try_join!(write, recv.read_to_end(&mut answer))?;
        assert!(answer == bytes, "{} of {length} bytes", answer.len());
        Ok(())
    }
}

/// Longest wait for an expected event.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits for a condition, and returns how long that took.
async fn until(mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_moves_to_tcp_and_back_as_udp_is_blocked_and_opened() -> Outcome {
    let relay = relay(Limits::default(), true)?;
    let client = client(&relay, relay.pin)?;
    let start = Instant::now();
    tokio::time::timeout(LIMIT, client.peer.connected()).await??;
    println!("connected by TCP after {:?}", start.elapsed());
    client.exchange(1_000_000).await?;
    assert_eq!(client.state(&relay), Some(State::Tcp));
    let accepted = relay.handle.snapshot().peers.into_iter().next().ok_or("nobody is there")?;
    assert!(is_carried(accepted.remote), "{}", accepted.remote);
    let real = relay.streams.real(accepted.remote).ok_or("no stream")?;
    assert!(real.ip().is_loopback());

    relay.is_blocked.store(false, Ordering::Relaxed);
    let left = until(|| client.state(&relay) == Some(State::Udp)).await;
    println!("left after {left:?}");
    until(|| relay.streams.stats().open == 0).await;
    client.exchange(4_000_000).await?;
    let accepted = relay.handle.snapshot().peers.into_iter().next().ok_or("nobody is there")?;
    assert!(!is_carried(accepted.remote), "{}", accepted.remote);

    let under_load = client.exchange(60_000_000);
    let block = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        relay.is_blocked.store(true, Ordering::Relaxed);
        until(|| client.state(&relay) == Some(State::Tcp)).await
    };
    let (exchanged, back) =
        tokio::time::timeout(LIMIT, async { tokio::join!(under_load, block) }).await?;
    exchanged?;
    println!("back on TCP after {back:?}");
    assert_eq!(relay.handle.snapshot().peers.len(), 1, "it is the same connection");
    assert_eq!(relay.streams.stats().opened, 2);
    let lost = client.peer.snapshot().ok_or("closed")?.reconnections;
    assert_eq!(lost, 0, "the connection was never lost");
    drop(client.handle);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_another_key_on_tcp_is_not_talked_to() -> Outcome {
    let relay = relay(Limits::default(), true)?;
    let client = client(&relay, KeyDigest([7; 32]))?;
    let views = || client.relays.views().get(&relay.udp).copied();
    until(|| views().is_some_and(|view| view.opened >= 2)).await;
    assert_eq!(relay.streams.stats().open, 0);
    assert!(relay.handle.snapshot().peers.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_garbage_connections_keep_nobody_out() -> Outcome {
    let open_within = Duration::from_secs(3);
    // All come from one address here, which would otherwise be at its limit.
    let limits = Limits { per_source: 10_000, opening: 64, open_within, ..Limits::default() };
    let relay = relay(limits, true)?;
    let tcp = relay.tcp;
    let garbage = tokio::task::spawn_blocking(move || {
        let mut held = std::collections::VecDeque::new();
        for number in 0..3_000_u32 {
            let Ok(mut stream) = std::net::TcpStream::connect(tcp) else { continue };
            // Silent connections, half a ClientHello, and no TLS at all.
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]),
                _ => stream.write_all(&number.to_be_bytes().repeat(64)),
            };
            held.push_back(stream);
            if held.len() > 500 {
                held.pop_front();
            }
        }
        held
    });
    let client = client(&relay, relay.pin)?;
    tokio::time::timeout(LIMIT, client.peer.connected()).await??;
    client.exchange(500_000).await?;
    let held = garbage.await?;
    client.exchange(500_000).await?;
    // Those that stay open are closed after the time for a handshake.
    until(|| relay.streams.stats().open == 1).await;
    drop(held);
    let stats = relay.streams.stats();
    assert!(stats.failed >= 2_900, "{stats:?}");
    assert_eq!((stats.opened, relay.handle.snapshot().peers.len()), (1, 1), "{stats:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_udp_open_no_stream_is_ever_opened() -> Outcome {
    let relay = relay(Limits::default(), false)?;
    let client = client(&relay, relay.pin)?;
    client.peer.connected().await?;
    client.exchange(1_000_000).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.state(&relay), Some(State::Udp));
    assert_eq!(relay.streams.stats(), carrier::Stats::default());
    Ok(())
}
