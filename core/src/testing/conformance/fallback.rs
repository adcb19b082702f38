//! The TCP fallback with real sockets: UDP is blocked by an `Io` that drops, and the connection
//! goes on by TCP and comes back.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{LIMIT, Runtime, both, loopback, pattern, serve_echo, until, within};
use crate::config::{Config, Dial};
use crate::drive::io::{Clock, Io};
use crate::drive::{Handle, Peer, drive};
use crate::fallback::{
    ByteStreamId, FallbackState, FallbackTarget, ListenerLimits, ListenerStats,
    is_tcp_client_address,
};
use crate::lifecycle::State;
use crate::testing::pki::{Issued, Pki, Role, Validity};
use crate::tls::{KeyDigest, Tls};
use crate::transmit::{Datagram, Transmit};

/// The longest case: UDP is silent for 5 s, or tried again every 10 s, several times in a row.
const LONG: Duration = Duration::from_secs(150);

/// An adapter whose UDP somebody blocks, in both directions.
struct Filter<I>(I, Arc<AtomicBool>);

impl<I> Filter<I> {
    fn is_blocked(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

impl<I: Io> Io for Filter<I> {
    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
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
    ) -> Poll<io::Result<()>> {
        match self.is_blocked() {
            true => Poll::Ready(Ok(())),
            false => self.0.poll_send(cx, transmit, payload),
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: std::time::Instant) -> Poll<()> {
        self.0.poll_sleep(cx, until)
    }

    fn max_segments(&self) -> usize {
        self.0.max_segments()
    }

    fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        self.0.poll_connect(cx, id, to)
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
    ) -> Poll<io::Result<SocketAddr>> {
        self.0.poll_accept(cx, id)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, id, buffer)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, id, bytes)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, id: ByteStreamId) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx, id)
    }

    fn close(&mut self, id: ByteStreamId) {
        self.0.close(id);
    }
}

/// A node that accepts by UDP and by TCP, and echoes; and a client that knows both.
struct FallbackWorld<R: Runtime> {
    relay: Handle,
    client: Handle,
    /// The relay, as the client sees it.
    peer: Peer,
    udp: SocketAddr,
    tcp: SocketAddr,
    is_blocked: Arc<AtomicBool>,
    tasks: Vec<R::Task>,
}

impl<R: Runtime> FallbackWorld<R> {
    fn new(limits: ListenerLimits, is_blocked: bool, pin: Option<KeyDigest>) -> Self {
        let is_blocked = Arc::new(AtomicBool::new(is_blocked));
        let (mut io, udp) = R::io(loopback()).expect("a loopback port is free");
        let listener = TcpListener::bind(loopback()).expect("a loopback port is free");
        let tcp = listener.local_addr().expect("it is bound");
        R::listen_tcp(&mut io, listener).expect("the runtime takes a listener");
        let certificate = issue("connector");
        let config = config(&certificate).accepting();
        let (relay, driver) =
            drive(Filter(io, is_blocked.clone()), config, [2; 32]).expect("the identity is good");
        let listening = relay.tcp_fallback().listen(&certificate.identity(), limits);
        listening.expect("the identity is good");
        let served = relay.clone();
        let mut tasks = vec![
            R::spawn(async move { driver.await.expect("the sockets are in order") }),
            R::spawn(async move {
                let mut peers = Vec::new();
                while let Some(peer) = served.accept().await {
                    peers.push(R::spawn(serve_echo::<R>(peer)));
                }
            }),
        ];

        let (io, _) = R::io(loopback()).expect("a loopback port is free");
        let (client, driver) =
            drive(io, config_of_client(), [1; 32]).expect("the identity is good");
        tasks.push(R::spawn(async move { driver.await.expect("the sockets are in order") }));
        let pin = pin.or_else(|| KeyDigest::of_certificate(&certificate.chain()[0]));
        let target = FallbackTarget::new(udp, tcp, "relay.example").pin(pin);
        client.tcp_fallback().add(target);
        let peer = client.dial(Dial::new(udp, "connector")).expect("it can be dialled");
        Self { relay, client, peer, udp, tcp, is_blocked, tasks }
    }

    fn block(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Ordering::Relaxed);
    }

    fn state(&self) -> FallbackState {
        self.client.tcp_fallback().statuses()[&self.udp].state
    }

    fn stats(&self) -> ListenerStats {
        self.relay.tcp_fallback().stats()
    }

    async fn reaches(&self, state: FallbackState) {
        until::<R, _>(|| (self.state() == state).then_some(())).await;
    }

    /// The address at which the relay's node sees its only client.
    fn seen(&self) -> SocketAddr {
        let peers = self.relay.snapshot().peers;
        assert_eq!(peers.len(), 1, "it is one connection");
        peers[0].remote
    }

    /// Sends and gets back so many bytes; `midway` happens once the first are back.
    async fn exchange(&self, length: usize, midway: impl FnOnce()) {
        let opened = self.peer.open("echo".parse().expect("a service name")).await;
        let (mut send, mut recv) = opened.expect("the connection lives").split();
        let write = async {
            send.write_all(pattern(length)).await.expect("the connection lives");
            send.finish().expect("it was not reset");
        };
        let read = async {
            let (mut answer, mut midway) = (Vec::new(), Some(midway));
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.expect("it lives") {
                answer.extend_from_slice(&chunk);
                midway.take().into_iter().for_each(|midway| midway());
            }
            answer
        };
        let (_, answer) = both(write, read).await;
        assert!(answer == pattern(length), "{} of {length} bytes", answer.len());
    }

    /// Ends the case: nothing of it outlives this.
    fn end(self) {
        drop(self.tasks);
    }
}

fn issue(name: &str) -> Issued {
    let validity = Validity {
        not_before: Duration::from_secs(1_700_000_000),
        not_after: Duration::from_secs(2_500_000_000),
    };
    Pki::new().issue_valid(name, Role::Connector, validity)
}

fn config(issued: &Issued) -> Config {
    let config = Config::builder(Tls::new(issued.identity(), Pki::new().trust()));
    config.build().expect("the defaults can work")
}

fn config_of_client() -> Config {
    config(&issue("agent"))
}

fn run<R: Runtime>(case: impl Future<Output = ()>) {
    R::block_on(within::<R, _>(LONG, case));
}

/// Blocked UDP is found out and TCP carries; once it is open, UDP does; and again under load, all
/// on one connection.
pub fn a_connection_moves_to_tcp_and_back_as_udp_is_blocked_and_opened<R: Runtime>() {
    run::<R>(async {
        let world = FallbackWorld::<R>::new(ListenerLimits::default(), true, None);
        within::<R, _>(LIMIT, world.peer.connected()).await.expect("TCP is open");
        world.exchange(1_000_000, || {}).await;
        assert_eq!(world.state(), FallbackState::Tcp);
        let address = world.seen();
        assert!(is_tcp_client_address(address), "{address}");
        let real = world.relay.tcp_fallback().real_address(address).expect("its stream lives");
        assert!(real.ip().is_loopback());

        world.block(false);
        world.reaches(FallbackState::Udp).await;
        until::<R, _>(|| (world.stats().open == 0).then_some(())).await;
        world.exchange(4_000_000, || {}).await;
        assert!(!is_tcp_client_address(world.seen()));

        world.exchange(16_000_000, || world.block(true)).await;
        world.reaches(FallbackState::Tcp).await;
        assert!(is_tcp_client_address(world.seen()));
        assert_eq!(world.stats().opened, 2);
        let lost = world.peer.snapshot().expect("it is not closed").reconnections;
        assert_eq!(lost, 0, "the connection was never lost");
        world.end();
    });
}

/// A stream that ends at another machine is given up, and nothing is sent into it.
pub fn a_relay_that_shows_another_key_on_tcp_is_not_used<R: Runtime>() {
    run::<R>(async {
        let pin = Some(KeyDigest([7; 32]));
        let world = FallbackWorld::<R>::new(ListenerLimits::default(), true, pin);
        let opened = || world.client.tcp_fallback().statuses()[&world.udp].opened;
        until::<R, _>(|| (opened() >= 2).then_some(())).await;
        assert_eq!(world.stats().opened, 0);
        assert!(world.relay.snapshot().peers.is_empty());
        world.end();
    });
}

/// Silent connections, half a ClientHello, and no TLS at all.
#[expect(clippy::disallowed_methods, reason = "a stranger is no part of the node")]
fn flood(tcp: SocketAddr) -> std::thread::JoinHandle<Vec<TcpStream>> {
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for number in 0..3_000_u32 {
            let Ok(mut stream) = TcpStream::connect(tcp) else { continue };
            // The relay may have closed it already.
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]),
                _ => stream.write_all(&number.to_be_bytes().repeat(64)),
            };
            held.push(stream);
            if held.len() > 500 {
                held.remove(0);
            }
        }
        held
    })
}

/// A client gets in beside thousands of connections that are never more than half open.
pub fn thousands_of_half_open_connections_keep_nobody_out<R: Runtime>() {
    run::<R>(async {
        // All come from one address here, which would otherwise be at its limit.
        let open_within = Duration::from_secs(3);
        let limits = ListenerLimits {
            per_source: 10_000,
            opening: 64,
            open_within,
            ..ListenerLimits::default()
        };
        let world = FallbackWorld::<R>::new(limits, true, None);
        let flood = flood(world.tcp);
        within::<R, _>(LIMIT, world.peer.connected()).await.expect("there is room");
        world.exchange(500_000, || {}).await;
        until::<R, _>(|| flood.is_finished().then_some(())).await;
        let held = flood.join().expect("it does not panic");
        world.exchange(500_000, || {}).await;
        // Even those that stay are closed after the time for a handshake.
        until::<R, _>(|| (world.stats().open == 1).then_some(())).await;
        drop(held);
        let stats = world.stats();
        assert!(stats.failed >= 2_900, "{stats:?}");
        assert_eq!((stats.opened, world.relay.snapshot().peers.len()), (1, 1), "{stats:?}");
        world.end();
    });
}

/// UDP that works is all that is used.
pub fn with_udp_open_no_stream_is_opened<R: Runtime>() {
    run::<R>(async {
        let world = FallbackWorld::<R>::new(ListenerLimits::default(), false, None);
        world.peer.connected().await.expect("UDP is open");
        world.exchange(1_000_000, || {}).await;
        R::sleep(Duration::from_secs(3)).await;
        assert_eq!(world.state(), FallbackState::Udp);
        assert_eq!(world.stats(), ListenerStats::default());
        world.end();
    });
}

/// What a node says when it leaves arrives by TCP as well.
pub fn a_shutdown_reaches_the_peer_by_tcp<R: Runtime>() {
    run::<R>(async {
        let world = FallbackWorld::<R>::new(ListenerLimits::default(), true, None);
        world.peer.connected().await.expect("TCP is open");
        world.relay.shutdown();
        within::<R, _>(LIMIT, world.relay.closed()).await;
        let has_left = || !matches!(world.peer.state(), State::Connected { .. });
        within::<R, _>(LIMIT / 10, until::<R, _>(|| has_left().then_some(()))).await;
        world.end();
    });
}
