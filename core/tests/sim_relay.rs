//! An agent, a connector and a relay between them, in virtual time: discovered through the relay,
//! then direct, and relayed again when the direct path is cut.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::config::{Config, Dial};
use adit_core::event::Event;
use adit_core::id::{PeerId, StreamId};
use adit_core::lifecycle::State;
use adit_core::node::Input;
use adit_core::relay;
use adit_core::relay::Register;
use adit_core::testing::lab::{Lab, Place};
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{CONNECTOR, Flow, with_identity};
use adit_core::testing::pki::{Pki, Role};
use adit_core::testing::world::World;
use adit_core::tls::{KeyDigest, Tls, Trust};
use adit_core::transmit::NextHop;

const SECOND: Duration = Duration::from_secs(1);
const RELAY: &str = "relay";

/// Three hosts that all reach each other.
struct Trio {
    world: World,
    agent: HostId,
    connector: HostId,
    to_connector: Option<PeerId>,
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, host], 4433))
}

impl Trio {
    fn new(seed: u8) -> Self {
        let mut world = World::new([seed; 32], Conditions::default());
        let [agent, connector, relay] = [1, 2, 3].map(|host| world.add_host(address(host)));
        let issued = Pki::new().issue(RELAY, Role::Connector);
        let provider = world.crypto(relay).provider();
        let tls = Tls::with_provider(issued.identity(), Trust::anyone(), provider);
        let config = Config::builder(tls).relay(relay::RelayConfig::default()).build().unwrap();
        world.start(relay, config, 1);
        for (host, name, role) in
            [(agent, "agent", Role::Agent), (connector, CONNECTOR, Role::Connector)]
        {
            let issued = Pki::new().issue(name, role);
            let config = with_identity(world.crypto(host), &issued).listening(host == connector);
            world.start(host, config.build().unwrap(), 1);
            let own = world.net().address(host);
            world.handle(host, Input::LocalAddresses(vec![own]));
            let provider = world.crypto(host).provider();
            let identity = issued.identity().presenting(Pki::new().root_pem().as_bytes()).unwrap();
            let relay_key =
                KeyDigest::of_certificate(&Pki::new().issue(RELAY, Role::Connector).chain()[0]);
            let tls =
                Tls::with_provider(identity, Trust::pinned_leaf(relay_key.unwrap()), provider);
            let to_relay = world.net().address(relay);
            let (node, now) = world.node_mut(host);
            node.dial(Dial::relay(to_relay, RELAY, tls), now).unwrap();
        }
        let (node, now) = world.node_mut(connector);
        let offer = Register {
            name: CONNECTOR.into(),
            services: vec!["web".parse().unwrap()],
            guests: Vec::new(),
            revoked: Vec::new(),
            takeover: true,
        };
        node.register(Some(offer), now);
        let mut trio = Self { world, agent, connector, to_connector: None };
        trio.wait("the connector to be registered", |world| {
            std::iter::from_fn(|| world.poll_event(connector))
                .any(|event| matches!(event, Event::Registered { .. }))
        });
        let (node, now) = trio.world.node_mut(agent);
        let dial = Dial::service("web".parse().unwrap(), CONNECTOR);
        trio.to_connector = Some(node.dial(dial, now).unwrap());
        trio
    }

    fn wait(&mut self, what: &str, mut is_done: impl FnMut(&mut World) -> bool) {
        let until = self.world.now() + 60 * SECOND;
        self.world.settle();
        while !is_done(&mut self.world) {
            assert!(self.world.step(until), "waited for {what} in vain");
        }
    }

    fn is_connected(&self) -> bool {
        let state = self.world.node(self.agent).state(self.to_connector.unwrap());
        matches!(state, Some(State::Connected { .. }))
    }

    fn connect(&mut self) {
        let (agent, peer) = (self.agent, self.to_connector.unwrap());
        self.wait("a connection through the relay", |world| {
            matches!(world.node(agent).state(peer), Some(State::Connected { .. }))
        });
    }

    /// The latest path that the agent's packets take.
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&NextHop) -> bool) {
        let agent = self.agent;
        self.wait(what, |world| {
            std::iter::from_fn(|| world.poll_event(agent))
                .any(|event| matches!(event, Event::PathChanged { via, .. } if is_it(&via)))
        });
    }

    fn relay(&self) -> HostId {
        self.world.net().owner(address(3)).unwrap()
    }

    fn cut(&mut self, is_cut: bool) {
        let (agent, connector) = (self.agent, self.connector);
        self.world.net_mut().set_cut(agent, connector, is_cut);
        self.world.net_mut().set_cut(connector, agent, is_cut);
    }

    fn open(&mut self) -> (StreamId, StreamId) {
        let (node, _) = self.world.node_mut(self.agent);
        let ours = node.open(self.to_connector.unwrap(), "web".parse().unwrap()).unwrap().unwrap();
        let (connector, mut offered) = (self.connector, None);
        self.wait("the stream to be offered", |world| {
            while let Some(event) = world.poll_event(connector) {
                if let Event::StreamOffered { stream, .. } = event {
                    offered = Some(stream);
                }
            }
            offered.is_some()
        });
        let theirs = offered.unwrap();
        self.world.node_mut(connector).0.accept_stream(theirs).unwrap();
        (ours, theirs)
    }
}

const fn is_direct(via: &NextHop) -> bool {
    matches!(via, NextHop::Direct(_))
}

#[test]
fn a_first_packet_that_overtakes_the_news_of_its_channel_is_not_waited_for_again() {
    let mut trio = Trio::new(4);
    let (relay, connector) = (trio.relay(), trio.connector);
    let one_way = trio.world.net_mut().conditions_mut(relay, connector).latency;
    trio.world.settle();
    let dialled = trio.world.now();
    // The relay notifies the connector after one one-way delay, and has the first packet after
    // three.
    trio.world.net_mut().set_cut(relay, connector, true);
    trio.world.run_for(2 * one_way);
    trio.world.net_mut().set_cut(relay, connector, false);
    trio.connect();
    let took = trio.world.now() - dialled;
    assert!(took < SECOND / 2, "{took:?}, and the first packet is sent again after a second");
}

#[test]
fn a_service_is_found_through_the_relay_and_then_reached_directly() {
    let mut trio = Trio::new(1);
    trio.connect();
    trio.wait_for("the direct path", is_direct);
    assert!(trio.is_connected());
}

#[test]
fn a_stream_goes_on_while_the_direct_path_is_cut_and_comes_back() {
    let mut trio = Trio::new(2);
    trio.connect();
    trio.wait_for("the direct path", is_direct);
    let (ours, theirs) = trio.open();
    let (agent, connector) = (trio.agent, trio.connector);
    let mut flow = Flow::new((agent, ours), (connector, theirs), 20_000_000);
    flow.advance(&mut trio.world);
    trio.world.run_for(SECOND / 10);
    trio.cut(true);
    let mut has_ended = false;
    for _ in 0..100 {
        has_ended |= flow.advance(&mut trio.world);
        trio.world.run_for(SECOND / 100);
    }
    trio.cut(false);
    trio.wait("the flow to end", |world| has_ended || flow.advance(world));
    assert!(trio.is_connected());
    let peer = trio.world.node(agent).peer_snapshot(trio.to_connector.unwrap()).unwrap();
    assert_eq!(peer.reconnections, 0);
}

#[test]
fn without_a_direct_path_everything_goes_through_the_relay() {
    let mut trio = Trio::new(3);
    trio.cut(true);
    trio.connect();
    let (ours, theirs) = trio.open();
    let mut flow = Flow::new((trio.agent, ours), (trio.connector, theirs), 3_000_000);
    trio.wait("the flow to end", |world| flow.advance(world));
}

#[test]
fn a_node_with_only_a_relay_shuts_down_immediately() {
    let mut trio = Trio::new(90);
    let (agent, start) = (trio.agent, trio.world.now());
    let to_connector = trio.to_connector;
    let (node, now) = trio.world.node_mut(agent);
    node.disconnect(to_connector.unwrap(), now).unwrap();
    node.shutdown(now);
    trio.wait("the agent to be gone", |world| world.node(agent).is_drained());
    assert!(trio.world.now() - start < SECOND);
}

/// Returns the time from the start of a relay, an agent and a connector to the first byte that the
/// connector has read, where the connector starts some time later.
fn first_byte(seed: u64, later: Duration) -> Duration {
    let mut lab = Lab::new(seed);
    let relay = lab.relay();
    let start = lab.now();
    let agent = lab.agent(Place::Public);
    lab.attach(agent, None, relay);
    let peer = lab.find(agent, "web", CONNECTOR);
    lab.run_for(later);
    let connector = lab.connector(CONNECTOR, Place::Public);
    lab.attach(connector, Some(CONNECTOR), relay);
    lab.offer(connector, CONNECTOR, "web");
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 60 * SECOND));
    let upload = lab.start_upload((agent, peer), connector, 1);
    assert!(lab.run_until(|lab| lab.transfer(upload).read() == 1, SECOND));
    lab.now() - start
}

#[test]
fn programs_that_start_together_carry_a_byte_within_a_quarter_of_a_second() {
    // A crossing of the internet takes 10 ms, and one between two clients of a relay twice that.
    let round_trips = 8 * Duration::from_millis(20);
    for seed in 0..20 {
        let took = first_byte(seed, Duration::ZERO);
        assert!(took <= Duration::from_millis(250) + round_trips, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_connector_that_starts_later_is_found_as_soon_as_it_registers() {
    for later in [20, 200, 1_000, 1_900] {
        let later = Duration::from_millis(later);
        let took = first_byte(1, later) - later;
        assert!(took <= Duration::from_millis(410), "{later:?} later: {took:?}");
    }
}

/// Returns the time from the return of a relay, which was away for that long, until both its clients
/// are connected to it again.
fn attached_again(seed: u64, away: Duration) -> Duration {
    let mut lab = Lab::new(seed);
    let relay = lab.relay();
    let agent = lab.agent(Place::Public);
    let connector = lab.connector(CONNECTOR, Place::Public);
    let links = [
        (agent, lab.attach(agent, None, relay)),
        (connector, lab.attach(connector, Some(CONNECTOR), relay)),
    ];
    let are_attached = |lab: &Lab| links.iter().all(|&(host, peer)| lab.is_connected(host, peer));
    assert!(lab.run_until(|lab| are_attached(lab), 10 * SECOND));
    lab.run_for(11 * SECOND);
    lab.crash(relay);
    lab.run_for(away);
    lab.restart(relay);
    let back = lab.now();
    let is_again = |lab: &Lab| {
        let now_up = |&(host, _): &(HostId, PeerId)| {
            let transitions = lab.log(host).iter().filter(|(at, _)| *at >= back);
            let up = |event: &Event| {
                matches!(event, Event::Transition { transition, .. }
                    if matches!(transition.to, State::Connected { .. }))
            };
            transitions.into_iter().any(|(_, event)| up(event))
        };
        links.iter().all(now_up)
    };
    assert!(lab.run_until(|lab| is_again(lab), 60 * SECOND), "seed {seed}: never");
    lab.now() - back
}

#[test]
fn a_relay_that_returns_has_its_clients_back_within_a_steady_pace() {
    // The link is lost 45 s after the relay died; a keep-alive asks an idle one every 10 s before.
    for seed in 0..10 {
        let away = Duration::from_millis(61_000 + 3_700 * seed);
        let took = attached_again(seed, away);
        assert!(took <= Duration::from_millis(2_500), "seed {seed}, away {away:?}: {took:?}");
    }
}
