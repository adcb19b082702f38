//! Driven nodes in virtual time: what a task that waits on a handle observes, whether it is woken,
//! and whether the driver neither stalls nor spins.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod fallback;
mod lan;
mod tcp;

use std::task::Poll;
use std::time::Duration;

use adit_core::ServiceName;
use adit_core::config::{Builder, Dial};
use adit_core::drive::io::Clock as _;
use adit_core::drive::{Driver, Handle, Peer, drive};
use adit_core::error::{Code, Failure};
use adit_core::lifecycle::State;
use adit_core::node::StreamError;
use adit_core::testing::crypto::SeededCrypto;
use adit_core::testing::pair;
use lan::{FOREVER, Lan, Socket, Tasks, address};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_driver_whose_socket_was_full_sends_all_that_waits_once_it_is_not() {
    let lan = Lan::new();
    let mut tasks = Tasks::new(&lan);
    let agent = start(&lan, &mut tasks, 1, pair::agent);
    lan.block(1, 1);
    let peers: Vec<Peer> = (10..20).map(|host| dial(&agent, host)).collect();
    tasks.run(lan.sleep(SECOND / 100));
    assert!(lan.sent() >= peers.len(), "only {} of the handshakes began", lan.sent());
}

#[test]
fn a_handle_knows_where_its_socket_is_bound() {
    let lan = Lan::new();
    let (handle, driver) = node(&lan, 1, pair::agent);
    assert_eq!(handle.local_addr().unwrap(), address(1));
    drop(driver);
    assert_eq!(handle.local_addr().unwrap(), address(1));
}

#[test]
fn a_refused_stream_is_freed_once_its_refusal_is_read() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    let (mut stream, incoming) = world.run(async {
        let opened = dialled.open(db()).await.unwrap();
        (opened, accepted.accept_stream().await.unwrap())
    });
    incoming.refuse(&Failure::new(Code::NoSuchService, "no"));
    let read = world.run(async { stream.recv().read_chunk(100).await });
    assert!(matches!(read, Err(StreamError::Refused(_))), "{read:?}");
    drop(stream);
    world.run(world.lan.sleep(SECOND));
    assert_eq!(dialled.snapshot().unwrap().streams, 0);
    assert_eq!(accepted.snapshot().unwrap().streams, 0);
}

#[test]
fn a_finished_stream_whose_connection_is_lost_does_not_claim_to_have_arrived() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    let mut stream = world.run(dialled.open(db())).unwrap();
    world.lan.cut(1);
    let finished = world.run(async {
        stream.send().write_all("lost").await.unwrap();
        stream.send().finish().unwrap();
        std::future::poll_fn(|cx| stream.send().poll_finished(cx)).await
    });
    assert!(matches!(finished, Err(StreamError::ConnectionLost(_))), "{finished:?}");
    drop(accepted);
}

#[test]
fn a_reader_without_room_learns_that_its_connection_is_gone() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    let mut stream = world.run(dialled.open(db())).unwrap();
    world.lan.cut(2);
    let lost = world.run(std::future::poll_fn(|cx| stream.recv().poll_lost(cx)));
    assert!(matches!(lost, StreamError::ConnectionLost(_)), "{lost:?}");
    drop(accepted);
}

#[test]
fn a_flood_does_not_keep_a_driver_from_ending() {
    let lan = Lan::new();
    let mut tasks = Tasks::new(&lan);
    let agent = start(&lan, &mut tasks, 1, pair::agent);
    let (handle, driver) = node(&lan, 2, pair::connector);
    lan.flood();
    handle.shutdown();
    tasks.run(driver).unwrap();
    drop(agent);
}

#[test]
fn a_full_socket_does_not_keep_a_driver_from_receiving() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    world.lan.block(1, FOREVER);
    dialled.send_datagram(b"blocked").unwrap();
    world.run(world.lan.sleep(SECOND / 100));
    for _ in 0..2 {
        accepted.send_datagram(&[7; 1000]).unwrap();
    }
    world.run(world.lan.sleep(SECOND / 100));
    let ready = world.run(async {
        let mut count = 0;
        while ready(dialled.recv_datagram()).await.is_some() {
            count += 1;
        }
        count
    });
    assert_eq!(ready, 2);
}

#[test]
fn a_node_that_has_shut_down_has_notified_its_peers() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    world.connector.shutdown();
    let connector = world.connector.clone();
    world.run(connector.closed());
    world.lan.cut(2);
    world.run(world.lan.sleep(SECOND / 10));
    let state = dialled.state();
    assert!(!matches!(state, State::Connected { .. }), "{state:?}");
    drop(accepted);
}

#[test]
fn a_pending_open_fails_immediately_on_shutdown() {
    let mut world = World::new();
    let (dialled, accepted) = world.connect();
    let (agent, lan) = (world.agent.clone(), world.lan.clone());
    // The peer raises the limit as streams are used, up to its maximum.
    let all: Vec<_> = world.run(async {
        let mut all = Vec::new();
        for _ in 0..8 {
            while let Some(stream) = ready(async { dialled.open(db()).await.ok() }).await {
                all.push(stream);
            }
            lan.sleep(SECOND / 10).await;
        }
        all
    });
    assert_eq!(all.len(), 1_023);
    let before = lan.now();
    world.tasks.spawn(async move {
        lan.sleep(SECOND).await;
        agent.shutdown();
    });
    let refused = world.run(dialled.open(db())).unwrap_err();
    assert_eq!(refused.code(), Code::ShuttingDown);
    assert_eq!(world.lan.now() - before, SECOND);
    drop(accepted);
}

/// Returns the output of a future that is ready on its first poll.
async fn ready<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(value),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// An agent and a connector.
struct World {
    lan: Lan,
    tasks: Tasks,
    agent: Handle,
    connector: Handle,
}

impl World {
    fn new() -> Self {
        let lan = Lan::new();
        let mut tasks = Tasks::new(&lan);
        let agent = start(&lan, &mut tasks, 1, pair::agent);
        let connector = start(&lan, &mut tasks, 2, pair::connector);
        Self { lan, tasks, agent, connector }
    }

    fn run<T>(&mut self, main: impl Future<Output = T>) -> T {
        self.tasks.run(main)
    }

    /// Returns the connector as the agent's peer, and the agent as the connector's.
    fn connect(&mut self) -> (Peer, Peer) {
        let dialled = dial(&self.agent, 2);
        let connector = self.connector.clone();
        let accepted = self.run(async {
            dialled.connected().await.unwrap();
            connector.accept().await.unwrap()
        });
        (dialled, accepted)
    }
}

fn db() -> ServiceName {
    "db".parse().unwrap()
}

fn start(
    lan: &Lan,
    tasks: &mut Tasks,
    host: u8,
    builder: impl FnOnce(&SeededCrypto) -> Builder,
) -> Handle {
    let (handle, driver) = node(lan, host, builder);
    tasks.spawn(async move { driver.await.unwrap() });
    handle
}

fn node(
    lan: &Lan,
    host: u8,
    builder: impl FnOnce(&SeededCrypto) -> Builder,
) -> (Handle, Driver<Socket>) {
    // It must have no other user while the node lives.
    let crypto = Box::leak(Box::new(SeededCrypto::new([host; 32])));
    let config = builder(crypto).build().unwrap();
    drive(lan.socket(host), config, [host; 32]).unwrap()
}

fn dial(handle: &Handle, host: u8) -> Peer {
    handle.dial(Dial::new(address(host), pair::CONNECTOR)).unwrap()
}
