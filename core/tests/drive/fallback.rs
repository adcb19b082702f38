//! The TCP fallback of driven nodes in virtual time: cases that have names, and random worlds in
//! which UDP is lost, streams stall, and strangers hold connections half open.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_core::drive::io::Clock as _;
use adit_core::drive::{Handle, Peer, Stream, StreamError};
use adit_core::error::{Code, Failure};
use adit_core::fallback::{
    FallbackState, FallbackTarget, ListenerLimits, ListenerStats, is_tcp_client_address,
};
use adit_core::lifecycle::State;
use adit_core::retry::Policy;
use adit_core::rng::Rng;
use adit_core::testing::pair;
use adit_core::testing::pki::{Pki, Role};
use adit_core::tls::KeyDigest;

use super::lan::{Lan, Tasks, Udp, address};
use super::tcp::{End, Weather};
use super::{SECOND, db, dial, start};

const AGENT: u8 = 1;
const RELAY: u8 = 2;

/// Worlds that are played; `ADIT_FALLBACK_WORLDS` and `ADIT_FALLBACK_FIRST` set others.
const WORLDS: u64 = 48;

#[test]
fn a_connection_begins_by_tcp_and_returns_once_udp_is_open() {
    let mut world = World::new(Udp::BLOCKED, ListenerLimits::default());
    let peer = world.peer.clone();
    let start = world.lan.now();
    world.run(peer.connected()).expect("TCP is open");
    assert!(world.lan.now() - start < 4 * SECOND);
    world.exchange(1_000_000);
    assert_eq!(world.state(), FallbackState::Tcp);
    assert!(is_tcp_client_address(world.remote_of_agent()));
    let real = world.relay.tcp_fallback().real_address(world.remote_of_agent());
    assert!(real.is_some_and(|real| !is_tcp_client_address(real)));

    world.lan.set_udp(Udp::OPEN);
    world.until(FallbackState::Udp, 30 * SECOND);
    world.exchange(1_000_000);
    assert!(!is_tcp_client_address(world.remote_of_agent()));
    assert_eq!((world.stats().open, world.stats().opened), (0, 1));
    assert_eq!(world.reconnections(), 0);
}

#[test]
fn a_download_survives_the_loss_of_udp_on_one_connection() {
    let mut world = World::new(Udp::OPEN, ListenerLimits::default());
    world.exchange(10_000);
    let peer = world.peer.clone();
    let is_over = world.tasks.spawn(async move { exchange(&peer, 20_000_000).await.unwrap() });
    world.pass(SECOND / 20);
    assert!(!is_over.get(), "it is under way");
    world.lan.set_udp(Udp::BLOCKED);
    world.until(FallbackState::Tcp, 15 * SECOND);
    while !is_over.get() {
        world.pass(SECOND / 10);
    }
    assert_eq!(world.reconnections(), 0, "the connection was never lost");
    assert_eq!(world.relay.snapshot().peers.len(), 1);
}

#[test]
fn while_udp_is_open_nothing_is_connected() {
    let mut world = World::new(Udp::OPEN, ListenerLimits::default());
    for _ in 0..20 {
        world.exchange(50_000);
        world.pass(10 * SECOND);
    }
    assert_eq!(world.state(), FallbackState::Udp);
    assert_eq!(world.stats(), ListenerStats::default());
}

#[test]
fn half_open_connections_leave_room_for_an_honest_client() {
    let limits = ListenerLimits::default().per_source(10_000).opening(64);
    let mut world = World::new(Udp::BLOCKED, limits);
    let strangers: Vec<End> = (0..3_000_u32).map(|n| stranger(&world.lan, n)).collect();
    let peer = world.peer.clone();
    world.run(peer.connected()).expect("there is room");
    world.exchange(100_000);
    // They are closed after the time for a handshake.
    world.pass(11 * SECOND);
    let stats = world.stats();
    assert_eq!((stats.open, stats.opened), (1, 1), "{stats:?}");
    assert!(stats.failed >= 2_900, "{stats:?}");
    strangers.into_iter().for_each(|end| world.lan.hang_up(end));
    world.exchange(100_000);
}

#[test]
fn a_stream_that_stalls_is_outlived_by_its_connection() {
    let mut world = World::new(Udp::BLOCKED, ListenerLimits::default());
    world.exchange(100_000);
    let peer = world.peer.clone();
    let is_over = world.tasks.spawn(async move { exchange(&peer, 5_000_000).await.unwrap() });
    world.pass(SECOND / 10);
    world.lan.set_tcp(Weather { stalls: true, ..Weather::FINE });
    world.pass(4 * SECOND);
    world.lan.set_tcp(Weather::FINE);
    while !is_over.get() {
        world.pass(SECOND / 10);
    }
    assert_eq!(world.reconnections(), 0);
}

#[test]
fn reads_and_writes_of_one_byte_carry_all() {
    let mut world = World::new(Udp::BLOCKED, ListenerLimits::default());
    world.lan.set_tcp(Weather { grain: 1, ..Weather::FINE });
    world.exchange(5_000);
    world.lan.set_tcp(Weather { grain: 100, ..Weather::FINE });
    world.exchange(200_000);
}

#[test]
fn a_shutdown_notifies_the_peer_by_tcp() {
    let mut world = World::new(Udp::BLOCKED, ListenerLimits::default());
    world.exchange(1_000);
    world.relay.shutdown();
    let (relay, start) = (world.relay.clone(), world.lan.now());
    world.run(relay.closed());
    assert!(world.lan.now() - start < 3 * SECOND, "the driver ends");
    world.pass(SECOND / 10);
    assert!(!matches!(world.peer.state(), State::Connected { .. }));
    assert_eq!(world.lan.connections(), 0);
}

#[test]
fn a_relay_that_is_removed_is_reached_by_udp_alone() {
    let mut world = World::new(Udp::BLOCKED, ListenerLimits::default());
    world.exchange(1_000);
    world.agent.tcp_fallback().remove(address(RELAY));
    world.pass(3 * SECOND);
    assert_eq!((world.lan.connections(), world.stats().open), (0, 0));
    assert!(world.agent.tcp_fallback().statuses().is_empty());
}

#[test]
fn random_worlds_find_the_relay_again_and_leave_nothing_behind() {
    let count = setting("ADIT_FALLBACK_WORLDS", WORLDS);
    let first = setting("ADIT_FALLBACK_FIRST", 0);
    let mut total = [0; 6];
    for seed in first..first + count {
        println!("world {seed}");
        let seen = play(seed);
        total = std::array::from_fn(|at| total[at] + seen[at]);
    }
    println!("tcp, udp again, refused, failed, dropped, exchanges: {total:?}");
    if count >= WORLDS {
        assert!(total.iter().all(|seen| *seen > 0), "something never happened: {total:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a sweep is as long as its caller wants")]
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
}

/// Plays one world: some minutes of weather, then it heals. Returns what was seen.
fn play(seed: u64) -> [u64; 6] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = Rng::new(bytes, "weather");
    let queue = if rng.unit() < 0.5 { 8 * 1024 } else { 256 * 1024 };
    let limits = ListenerLimits::default().streams(24).per_source(6).opening(8).queue(queue);
    let mut world = World::new(udp(&mut rng), limits);
    let exchanges = Rc::new(Cell::new(0));
    let traffic = traffic(world.peer.clone(), world.lan.clone(), exchanges.clone());
    world.tasks.spawn(traffic);
    let (mut strangers, mut seen) = (Vec::new(), [0; 6]);
    for _ in 0..12 {
        let before = world.state();
        let (udp, tcp) = (udp(&mut rng), tcp(&mut rng));
        world.lan.set_udp(udp);
        world.lan.set_tcp(tcp);
        for _ in 0..rng.u64() % 24 {
            strangers.push(stranger(&world.lan, rng.u64() as u32));
        }
        while strangers.len() > 40 {
            world.lan.hang_up(strangers.remove(0));
        }
        world.pass(SECOND.mul_f64(30.0 * rng.unit()));
        assert!(world.stats().open <= limits.streams);
        seen[0] += u64::from(world.state() == FallbackState::Tcp);
        seen[1] += u64::from(before == FallbackState::Tcp && world.state() == FallbackState::Udp);
    }
    strangers.into_iter().for_each(|end| world.lan.hang_up(end));
    world.lan.set_udp(if rng.unit() < 0.5 { Udp::OPEN } else { Udp::BLOCKED });
    world.lan.set_tcp(Weather::FINE);
    // The longest: an idle timeout of the connection, a wait until it is dialled again, and one
    // until TCP is tried again.
    let (healed, done) = (world.lan.now(), exchanges.get());
    while exchanges.get() < done + 3 {
        assert!(world.lan.now() < healed + 200 * SECOND, "not found again: {:?}", world.state());
        world.pass(SECOND);
    }
    let stats = world.stats();
    [seen[2], seen[3], seen[4], seen[5]] =
        [stats.refused, stats.failed, stats.dropped, exchanges.get()];
    end(world);
    seen
}

/// Both nodes leave; nothing stays open.
fn end(mut world: World) {
    for node in [world.agent.clone(), world.relay.clone()] {
        node.shutdown();
        world.run(node.closed());
    }
    assert_eq!(world.lan.connections(), 0);
    assert_eq!(world.stats().open, 0);
}

fn udp(rng: &mut Rng) -> Udp {
    let word = rng.u64();
    Udp {
        is_up_blocked: word & 1 != 0,
        is_down_blocked: word & 6 == 0 || word & 1 != 0 && word & 8 != 0,
        loss: if word & 48 == 0 { 0.5 * rng.unit() } else { 0.0 },
    }
}

fn tcp(rng: &mut Rng) -> Weather {
    let word = rng.u64();
    let grain = [usize::MAX, 1_000, 97, 7][(word >> 8) as usize & 3];
    Weather { refuses: word & 7 == 0, swallows: word & 56 == 0, stalls: word & 448 == 0, grain }
}

/// Somebody who connects and says nothing, half a ClientHello, or no TLS at all.
fn stranger(lan: &Lan, number: u32) -> End {
    match number % 3 {
        0 => lan.knock(RELAY, &[]),
        1 => lan.knock(RELAY, &[0x16, 3, 1, 2, 0, 1, 0]),
        _ => lan.knock(RELAY, &number.to_be_bytes().repeat(64)),
    }
}

/// An agent whose relay takes TCP, and sends back what streams carry.
struct World {
    lan: Lan,
    tasks: Tasks,
    agent: Handle,
    relay: Handle,
    /// The relay, as the agent sees it.
    peer: Peer,
}

impl World {
    fn new(udp: Udp, limits: ListenerLimits) -> Self {
        let lan = Lan::new();
        lan.set_udp(udp);
        lan.listen(RELAY);
        let mut tasks = Tasks::new(&lan);
        let agent = start(&lan, &mut tasks, AGENT, |crypto| {
            pair::agent(crypto).retry(Policy::persistent())
        });
        let relay = start(&lan, &mut tasks, RELAY, pair::connector);
        let issued = Pki::new().issue(pair::CONNECTOR, Role::Connector);
        relay.tcp_fallback().listen(&issued.identity(), limits).unwrap();
        let target = FallbackTarget::new(address(RELAY), address(RELAY), "relay");
        let pin = KeyDigest::of_certificate(&issued.chain()[0]);
        agent.tcp_fallback().add(target.pin(pin));
        tasks.spawn(serve(relay.clone()));
        let peer = dial(&agent, RELAY);
        Self { lan, tasks, agent, relay, peer }
    }

    fn run<T>(&mut self, main: impl Future<Output = T>) -> T {
        self.tasks.run(main)
    }

    fn pass(&mut self, time: Duration) {
        self.run(self.lan.sleep(time));
    }

    fn state(&self) -> FallbackState {
        self.agent.tcp_fallback().statuses()[&address(RELAY)].state
    }

    /// Where the relay's node sees the agent.
    fn remote_of_agent(&self) -> SocketAddr {
        self.relay.snapshot().peers.first().expect("the agent is connected").remote
    }

    fn reconnections(&self) -> u64 {
        self.peer.snapshot().expect("it is not closed").reconnections
    }

    fn stats(&self) -> ListenerStats {
        self.relay.tcp_fallback().stats()
    }

    /// Sends and gets back so many bytes.
    fn exchange(&mut self, length: usize) {
        let peer = self.peer.clone();
        self.run(peer.connected()).expect("the relay is reached");
        self.run(exchange(&peer, length)).expect("the connection lives");
    }

    /// Waits until the fallback is in this state.
    fn until(&mut self, state: FallbackState, limit: Duration) {
        let start = self.lan.now();
        while self.state() != state {
            assert!(self.lan.now() < start + limit, "{:?} after {limit:?}", self.state());
            self.pass(SECOND / 20);
        }
    }
}

/// Sends back what each stream of each peer carries.
async fn serve(node: Handle) {
    let mut peers: Vec<Job> = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(Some(peer)) = node.poll_accept(cx) {
            peers.push(Box::pin(serve_peer(peer)));
        }
        poll_all(&mut peers, cx);
        Poll::<()>::Pending
    })
    .await;
}

async fn serve_peer(peer: Peer) {
    let mut streams: Vec<Job> = Vec::new();
    loop {
        let mut next = pin!(peer.accept_stream());
        let incoming = poll_fn(|cx| {
            poll_all(&mut streams, cx);
            next.as_mut().poll(cx)
        });
        let Some(incoming) = incoming.await else { return };
        streams.push(Box::pin(echo(incoming.accept())));
    }
}

type Job = Pin<Box<dyn Future<Output = ()>>>;

fn poll_all(jobs: &mut Vec<Job>, cx: &mut Context<'_>) {
    jobs.retain_mut(|job| job.as_mut().poll(cx).is_pending());
}

async fn echo(mut stream: Stream) {
    while let Ok(Some(chunk)) = stream.recv().read_chunk(usize::MAX).await {
        if stream.send().write_all(chunk).await.is_err() {
            return;
        }
    }
    // The client may be gone by now: nobody is left to tell.
    let _ = stream.send().finish();
}

/// Exchanges something all the time, and counts what worked.
async fn traffic(peer: Peer, lan: Lan, exchanges: Rc<Cell<u64>>) {
    loop {
        if exchange(&peer, 20_000).await.is_ok() {
            exchanges.set(exchanges.get() + 1);
        }
        lan.sleep(SECOND / 2).await;
    }
}

/// Sends and gets back so many bytes.
async fn exchange(peer: &Peer, length: usize) -> Result<(), Failure> {
    let (mut send, mut recv) = peer.open(db()).await?.split();
    let bytes: Vec<u8> = (0..length).map(|at| (at / 7 + at % 251) as u8).collect();
    let sent = bytes.clone();
    let write = async move {
        send.write_all(sent).await?;
        send.finish()?;
        Ok(send)
    };
    let read = async {
        let mut answer = Vec::new();
        while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    };
    let (mut write, mut read) = (pin!(write), pin!(read));
    let (mut sent, mut answer) = (None, None);
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(done) = write.as_mut().poll(cx)
        {
            sent = Some(done);
        }
        if answer.is_none()
            && let Poll::Ready(done) = read.as_mut().poll(cx)
        {
            answer = Some(done);
        }
        if sent.is_some() && answer.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    sent.transpose().map_err(lost)?;
    let answer: Option<Vec<u8>> = answer.transpose().map_err(lost)?;
    assert!(answer.is_some_and(|answer| answer == bytes), "what comes back is what was sent");
    Ok(())
}

fn lost(error: StreamError) -> Failure {
    Failure::new(Code::Reset, error.to_string())
}
