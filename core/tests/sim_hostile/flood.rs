//! Handshakes begun by the thousand: with forged addresses, from one true address, and stalled.

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::config::{Dial, Limits};
use adit_core::error::Code;
use adit_core::node::{Input, Output};
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{self, CONNECTOR, CONNECTOR_ADDRESS, is_connected};
use adit_core::testing::pki::{Pki, Role};
use adit_core::transmit::{Datagram, Route};
use bytes::BytesMut;

use crate::raw::{FirstPackets, Raw};
use crate::scene::{SECOND, Scene};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A host that sends from any source address.
struct Forger {
    host: HostId,
    packets: Vec<Vec<u8>>,
    sent: u32,
}

impl Forger {
    fn new(scene: &mut Scene) -> Self {
        let host = scene.add_host();
        let issued = Pki::new().issue("nobody", Role::Agent);
        let mut first = FirstPackets::new(&scene.world, host, &issued);
        let now = scene.world.now();
        Self { host, packets: (0..1_000).map(|_| first.make(now)).collect(), sent: 0 }
    }

    /// Sends one more first packet, from an address that has not sent before.
    fn send(&mut self, scene: &mut Scene) {
        let [a, b, c, d] = (0x0b00_0000 + self.sent).to_be_bytes();
        scene.world.net_mut().set_address(self.host, SocketAddr::from(([a, b, c, d], 7)));
        let packet = &self.packets[self.sent as usize % self.packets.len()];
        scene.world.send(self.host, CONNECTOR_ADDRESS, packet);
        self.sent += 1;
    }

    /// Sends one packet each `interval` while time passes.
    fn run(&mut self, scene: &mut Scene, interval: Duration, time: Duration) {
        let until = scene.world.now() + time;
        while scene.world.now() < until {
            self.send(scene);
            scene.run_without(interval);
        }
    }
}

/// Lets an honest agent at `address` dial. Returns the time until both sides are connected.
fn connect(scene: &mut Scene, address: [u8; 4], mut meanwhile: impl FnMut(&mut Scene)) -> Duration {
    let host = scene.world.add_host(SocketAddr::from((address, 4_001)));
    let config = pair::agent(scene.world.crypto(host)).build().unwrap();
    scene.world.start(host, config, 1);
    let (node, now) = scene.world.node_mut(host);
    let peer = node.dial(Dial::new(CONNECTOR_ADDRESS, CONNECTOR), now).unwrap();
    let began = scene.world.now();
    while !is_connected(&scene.world, host, peer) {
        assert!(scene.world.now() < began + 10 * SECOND, "an honest agent is locked out");
        meanwhile(scene);
    }
    scene.world.now() - began
}

/// Starts a handshake from `address` that answers a Retry and stops there.
fn stall(scene: &mut Scene, address: SocketAddr) -> Raw {
    let host = scene.world.add_host(address);
    let issued = Pki::new().issue("staller", Role::Agent);
    let mut raw = Raw::new(&mut scene.world, host, &issued);
    scene.run_without(20 * MILLISECOND);
    raw.pump(&mut scene.world);
    scene.run_without(15 * MILLISECOND);
    raw
}

#[test]
fn a_hundred_thousand_forged_first_packets_a_minute_cost_an_honest_peer_one_round_trip() {
    let mut scene = Scene::new(24);
    let quiet = connect(&mut scene, [10, 3, 0, 1], |scene| scene.run_without(MILLISECOND));
    let mut forger = Forger::new(&mut scene);
    let interval = 60 * SECOND / 100_000;
    for n in 0..60 {
        forger.run(&mut scene, interval, SECOND);
        let stats = scene.world.node(scene.victim).snapshot().handshakes;
        assert!(stats.under_way <= 128, "{stats:?}");
        if n % 10 == 5 {
            let busy = connect(&mut scene, [10, 3, 1, n], |scene| {
                forger.run(scene, interval, MILLISECOND);
            });
            assert!(busy <= 2 * quiet, "{busy:?}, and {quiet:?} without the flood");
            let stats = scene.world.node(scene.victim).snapshot().handshakes;
            assert!(stats.sources <= 1, "{stats:?}");
        }
    }
    let stats = scene.world.node(scene.victim).snapshot().handshakes;
    assert!(forger.sent >= 100_000, "{}", forger.sent);
    // The others repeat packets of handshakes in progress.
    assert!(stats.retried > 80_000 && stats.accepted < 1_000, "{stats:?}");
    scene.run(30 * SECOND);
    let after = scene.world.node(scene.victim).snapshot();
    assert_eq!(
        (after.connections, after.handshakes.under_way, after.handshakes.sources),
        (9, 0, 0)
    );
    assert!(scene.rejected.iter().all(|failure| failure.code() == Code::TimedOut));
    scene.end();
}

#[test]
fn forged_handshakes_occupy_no_peers_place() {
    let mut scene = Scene::with(25, |builder| builder.limits(Limits::default().peers(3)));
    let mut forger = Forger::new(&mut scene);
    forger.run(&mut scene, MILLISECOND, SECOND / 5);
    assert!(scene.world.node(scene.victim).snapshot().handshakes.under_way > 100);
    connect(&mut scene, [10, 3, 0, 1], |scene| scene.run_without(MILLISECOND));
    assert_eq!(scene.world.node(scene.victim).snapshot().peers.len(), 3);
}

#[test]
fn a_source_that_stalls_its_handshakes_has_its_share_and_another_gets_in() {
    let mut scene = Scene::with(26, |builder| {
        builder.limits(
            Limits::default()
                .handshakes_before_retry(0)
                .handshakes_per_source(5)
                .handshake_timeout(60 * SECOND),
        )
    });
    for port in 1..=10 {
        stall(&mut scene, SocketAddr::from(([10, 4, 0, 1], port)));
    }
    let stats = scene.world.node(scene.victim).snapshot().handshakes;
    assert_eq!((stats.under_way, stats.sources, stats.ignored), (5, 1, 5), "{stats:?}");
    connect(&mut scene, [10, 4, 0, 2], |scene| scene.run_without(MILLISECOND));
    // The idle timeout would end it; here the time is over before that.
    scene.run(70 * SECOND);
    assert_eq!(scene.world.node(scene.victim).snapshot().handshakes.under_way, 0);
    connect(&mut scene, [10, 4, 0, 3], |scene| scene.run_without(MILLISECOND));
    scene.end();
}

#[test]
fn stalled_handshakes_of_many_hosts_do_not_delay_an_honest_agent() {
    let mut scene = Scene::with(35, |builder| {
        builder.limits(Limits::default().handshakes_before_retry(0).handshakes(16))
    });
    for host in 1..=24 {
        stall(&mut scene, SocketAddr::from(([10, 4, 1, host], 1)));
    }
    let stats = scene.world.node(scene.victim).snapshot().handshakes;
    assert_eq!(stats.under_way, 16, "{stats:?}");
    let honest = connect(&mut scene, [10, 4, 0, 2], |scene| scene.run_without(MILLISECOND));
    assert!(honest < SECOND / 2, "{honest:?}");
    scene.end();
}

#[test]
fn one_address_that_takes_all_places_makes_room_for_another() {
    let mut scene = Scene::with(37, |builder| builder.limits(Limits::default().peers(6)));
    let take = |scene: &mut Scene, n: u16| {
        let host = scene.world.add_host(SocketAddr::from(([10, 4, 0, 1], n)));
        let issued = Pki::new().issue(&format!("taker-{n}"), Role::Agent);
        let mut raw = Raw::new(&mut scene.world, host, &issued);
        raw.run(&mut scene.world, SECOND / 10);
        scene.act();
        raw
    };
    let _held: Vec<_> = (1..=6).map(|n| take(&mut scene, n)).collect();
    assert_eq!(scene.world.node(scene.victim).snapshot().peers.len(), 6);
    let honest = connect(&mut scene, [10, 4, 0, 2], |scene| scene.run_without(MILLISECOND));
    assert!(honest < SECOND / 2, "{honest:?}");
    // The stranger gets none of them back.
    take(&mut scene, 7);
    let peers = scene.world.node(scene.victim).snapshot().peers;
    let of_the_stranger = peers.iter().filter(|it| it.remote.ip().to_string() == "10.4.0.1");
    assert_eq!((peers.len(), of_the_stranger.count()), (6, 3));
}

#[test]
fn a_device_that_comes_back_gets_in_beside_eight_connections_that_are_silent() {
    let mut scene = Scene::new(38);
    let issued = Pki::new().issue("laptop", Role::Agent);
    let connect = |scene: &mut Scene, n| {
        let host = scene.world.add_host(SocketAddr::from(([10, 4, 0, n], 1)));
        let mut raw = Raw::new(&mut scene.world, host, &issued);
        raw.run(&mut scene.world, SECOND / 10);
        scene.act();
    };
    (1..=8).for_each(|n| connect(&mut scene, n));
    let of_the_device = |scene: &Scene| {
        let peers = scene.world.node(scene.victim).snapshot().peers;
        let is_of_it = |names: &[String]| names == ["laptop"];
        let all =
            peers.iter().filter(|it| it.credential.as_ref().is_some_and(|it| is_of_it(&it.names)));
        all.map(|it| it.remote.ip().to_string()).collect::<Vec<_>>()
    };
    let address = |n: u8| format!("10.4.0.{n}");
    // The eight were heard a moment ago: they stay.
    connect(&mut scene, 11);
    assert_eq!(of_the_device(&scene), (1..=8).map(address).collect::<Vec<_>>());
    scene.run_without(12 * SECOND);
    (9..=10).for_each(|n| connect(&mut scene, n));
    let left = of_the_device(&scene);
    assert!([9, 10].map(address).iter().all(|it| left.contains(it)), "{left:?}");
    assert!(left.len() <= 8, "{left:?}");
}

#[test]
fn an_address_that_is_not_validated_gets_three_times_its_bytes_and_not_more() {
    let mut scene = Scene::new(36);
    let mut forger = Forger::new(&mut scene);
    let packet = forger.packets.remove(0);
    let address = SocketAddr::from(([11, 0, 0, 1], 7));
    scene.world.net_mut().set_address(forger.host, address);
    scene.world.send(forger.host, CONNECTOR_ADDRESS, &packet);
    let (mut sent, mut received) = (packet.len(), 0);
    // Its destination id, which names the connection, in packets too short to be any.
    let id = &packet[6..6 + usize::from(packet[5])];
    let junk = [&packet[..5], &[packet[5]], id, &[0; 20]].concat();
    for _ in 0..90 {
        scene.run_without(SECOND / 10);
        while let Some(answer) = scene.world.receive(forger.host) {
            received += answer.payload.len();
        }
        assert!(received <= 3 * sent, "{received} bytes for {sent}");
        scene.world.send(forger.host, CONNECTOR_ADDRESS, &junk);
        sent += junk.len();
    }
    assert!(received > 2 * packet.len(), "{received}");
}

#[test]
fn a_source_that_begins_too_many_handshakes_a_second_waits_and_another_does_not() {
    let mut scene = Scene::with(27, |builder| {
        builder.limits(Limits::default().handshakes_before_retry(0).handshakes_per_second(1))
    });
    for port in 1..=4 {
        stall(&mut scene, SocketAddr::from(([10, 4, 0, 1], port)));
    }
    let stats = scene.world.node(scene.victim).snapshot().handshakes;
    assert_eq!((stats.under_way, stats.ignored), (2, 2), "{stats:?}");
    let other = connect(&mut scene, [10, 4, 0, 2], |scene| scene.run_without(MILLISECOND));
    assert!(other < SECOND / 2, "{other:?}");
    // An honest agent of the same address is not refused: it retries until there is room.
    let same = connect(&mut scene, [10, 4, 0, 1], |scene| scene.run_without(MILLISECOND));
    assert!((SECOND / 2..8 * SECOND).contains(&same), "{same:?}");
    scene.end();
}

#[test]
fn a_handshake_that_stalls_is_forgotten_at_its_limit_and_not_before() {
    let mut scene = Scene::new(28);
    let mut forger = Forger::new(&mut scene);
    forger.send(&mut scene);
    // The packet takes 10 ms.
    scene.run_without(10 * MILLISECOND + 10 * SECOND - Duration::from_nanos(1));
    assert_eq!(scene.world.node(scene.victim).snapshot().connections, 3);
    assert!(scene.rejected.is_empty());
    scene.run_without(Duration::from_nanos(1));
    let after = scene.world.node(scene.victim).snapshot();
    assert_eq!((after.connections, after.handshakes.under_way), (2, 0));
    assert_eq!(scene.rejected.len(), 1);
    assert_eq!(scene.rejected[0].code(), Code::TimedOut);
    scene.end();
}

#[test]
fn bytes_without_end_before_anybody_is_known_are_cut_at_their_limit() {
    let mut scene = Scene::new(29);
    let mut forger = Forger::new(&mut scene);
    let packet = forger.packets.remove(0);
    let most = (64 << 10) / packet.len();
    for n in 1..=most {
        scene.world.send(forger.host, CONNECTOR_ADDRESS, &packet);
        scene.run_without(MILLISECOND);
        assert!(scene.rejected.is_empty(), "after {n} packets");
    }
    scene.run_without(20 * MILLISECOND);
    assert_eq!(scene.world.node(scene.victim).snapshot().connections, 3);
    scene.world.send(forger.host, CONNECTOR_ADDRESS, &packet);
    scene.run_without(20 * MILLISECOND);
    assert_eq!(scene.world.node(scene.victim).snapshot().connections, 2);
    let codes: Vec<_> = scene.rejected.iter().map(|failure| failure.code()).collect();
    assert_eq!(codes, [Code::ProtocolViolation]);
    scene.end();
}

#[test]
fn answers_to_strangers_and_packets_to_peers_take_turns() {
    let mut scene =
        Scene::with(30, |builder| builder.limits(Limits::default().handshakes_before_retry(0)));
    let mut forger = Forger::new(&mut scene);
    scene.run(SECOND);
    let peer = scene.peer().unwrap().remote;
    let stranger = SocketAddr::from(([11, 0, 0, 1], 7));
    let (node, now) = scene.world.node_mut(scene.victim);
    for packet in forger.packets.drain(..100) {
        let (segment_size, payload) = (packet.len(), BytesMut::from(&packet[..]));
        let route = Route::to(stranger);
        node.handle(Input::Datagram(Datagram { route, ecn: None, segment_size, payload }), now);
    }
    node.send_datagram(scene.raw_peer, b"data").unwrap();
    let mut to = Vec::new();
    while let Some(output) = node.poll_output(&mut Vec::new(), now) {
        if let Output::Transmit(transmit) = output {
            to.push(transmit.route.remote);
        }
    }
    assert_eq!((to.len(), to[0], to[1]), (101, stranger, peer));
}
