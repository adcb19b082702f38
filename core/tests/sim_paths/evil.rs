//! A malicious relay: whatever it does with the packets it forwards, and whatever it claims about
//! addresses, traffic continues or stops, and never reaches the wrong peer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_core::event::Event;
use adit_core::id::PeerId;
use adit_core::message::{Message, RelayMessage};
use adit_core::node::FaultInjector;
use adit_core::rng::Rng;
use adit_core::testing::host::Power;
use adit_core::testing::lab::{Lab, Passage, Place};
use adit_core::testing::nat::Rules;
use adit_core::testing::net::HostId;
use adit_core::testing::pki::Role;
use adit_core::testing::widen;

use super::scene::{Ground, Scene};
use super::{SECOND, seeds_or, wires};

/// A channel as one client knows it.
type End = (PeerId, u32);

/// What a relay does with one packet in ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Drop,
    Repeat,
    KeepBack,
    Alter,
    Cut,
    /// To another channel, of any client.
    Swap,
}

#[derive(Debug)]
struct Evil {
    rng: Rng,
    deed: Deed,
    is_armed: Arc<AtomicBool>,
    ends: Vec<End>,
    kept: Vec<(PeerId, Vec<u8>)>,
}

impl Evil {
    fn new(seed: u64, deed: Deed, is_armed: &Arc<AtomicBool>) -> Box<Self> {
        let (rng, is_armed) = (Rng::new(widen(seed), "evil"), is_armed.clone());
        Box::new(Self { rng, deed, is_armed, ends: Vec::new(), kept: Vec::new() })
    }
}

fn note_end(ends: &mut Vec<End>, to: PeerId, message: &Message) {
    if let Message::Relay(RelayMessage::Matched(matched)) = message {
        ends.push((to, matched.channel));
    } else if let Message::Relay(RelayMessage::Incoming(incoming)) = message {
        ends.push((to, incoming.channel));
    }
}

impl FaultInjector for Evil {
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        let mut bytes = datagram.to_vec();
        if self.rng.unit() >= 0.1 || !self.is_armed.load(Ordering::Relaxed) {
            let mut all = vec![(from, bytes)];
            if self.kept.len() > 3 {
                all.append(&mut self.kept);
            }
            return all;
        }
        let any = self.rng.u64() as usize;
        match self.deed {
            Deed::Drop => Vec::new(),
            Deed::Repeat => vec![(from, bytes.clone()), (from, bytes)],
            Deed::KeepBack => {
                self.kept.push((from, bytes));
                Vec::new()
            }
            Deed::Alter => {
                let at = 5 + any % (bytes.len() - 5);
                bytes[at] ^= 1 << (any % 8);
                vec![(from, bytes)]
            }
            Deed::Cut => {
                bytes.truncate(6 + any % (bytes.len() - 5));
                vec![(from, bytes)]
            }
            Deed::Swap => {
                let (as_whom, channel) = self.ends[any % self.ends.len()];
                bytes[1..5].copy_from_slice(&channel.to_be_bytes());
                vec![(as_whom, bytes)]
            }
        }
    }

    fn on_message(&mut self, to: PeerId, message: &mut Message) {
        note_end(&mut self.ends, to, message);
    }
}

/// Adds another agent and another connector at the same relay.
fn second_pair(scene: &mut Scene) -> (HostId, HostId, PeerId) {
    let relay = scene.relays[0];
    let hard = [0; 2].map(|_| scene.lab.nat(Rules::symmetric(), Place::Public));
    let agent = scene.lab.agent_as("second", Place::Behind(hard[0]), |builder| builder);
    let connector = scene.lab.connector("other", Place::Behind(hard[1]));
    scene.lab.attach_as(agent, ("second", Role::Agent), relay);
    scene.lab.attach(connector, Some("other"), relay);
    scene.lab.offer(connector, "other", "web");
    assert!(scene.lab.run_until(|lab| lab.registrations(connector) == 1, 10 * SECOND));
    scene.lab.run_for(SECOND);
    let peer = scene.lab.find(agent, "web", "other");
    (agent, connector, peer)
}

#[test]
fn whatever_a_relay_does_with_packets_each_transfer_arrives_whole_and_at_its_own_peer() {
    let deeds = [Deed::Drop, Deed::Repeat, Deed::KeepBack, Deed::Alter, Deed::Cut, Deed::Swap];
    for (seed, deed) in (0..seeds_or(2)).flat_map(|seed| deeds.map(|deed| (seed, deed))) {
        let hard = Rules::symmetric();
        let mut scene = Scene::attached(seed, &Ground::behind(hard, hard));
        let relay = scene.relays[0];
        // A first packet that is misdirected to a stranger ends a first dial with an error, as it
        // should.
        let is_armed = Arc::new(AtomicBool::new(deed != Deed::Swap));
        scene.lab.node_mut(relay).0.take_over(Evil::new(seed, deed, &is_armed));
        let (agent, connector, peer) = second_pair(&mut scene);
        scene.peer = scene.lab.find(scene.agent, "web", "connector");
        let pairs = [(scene.agent, scene.peer, scene.connector), (agent, peer, connector)];
        let mut transfers = Vec::new();
        for (agent, peer, _) in pairs {
            let is_up = scene.lab.run_until(|lab| lab.is_connected(agent, peer), 60 * SECOND);
            assert!(is_up, "seed {seed}, {deed:?}: not connected");
        }
        is_armed.store(true, Ordering::Relaxed);
        for (agent, peer, connector) in pairs {
            transfers.push(scene.lab.start_upload((agent, peer), connector, 300_000));
            transfers.push(scene.lab.start_download((agent, peer), connector, 300_000));
        }
        // Each carries other bytes, and a wrong one fails immediately.
        let is_done = |lab: &mut Lab| transfers.iter().all(|it| lab.transfer(*it).is_complete());
        assert!(scene.lab.run_until(is_done, 120 * SECOND), "seed {seed}, {deed:?}");
    }
}

/// Forwards each of two pairs' agents to the other's connector.
#[derive(Debug, Default)]
struct Crossed {
    ends: Vec<End>,
}

impl FaultInjector for Crossed {
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        let channel = u32::from_be_bytes(datagram[1..5].try_into().unwrap());
        // The ends of a channel are notified in order, the connector first.
        let Some(at) = self.ends.iter().position(|end| *end == (from, channel)) else {
            return vec![(from, datagram.to_vec())];
        };
        // The packet of one pair's end is sent as that of the same end of the other pair.
        let Some((as_whom, channel)) = self.ends.get(at ^ 2).copied() else { return Vec::new() };
        let mut bytes = datagram.to_vec();
        bytes[1..5].copy_from_slice(&channel.to_be_bytes());
        vec![(as_whom, bytes)]
    }

    fn on_message(&mut self, to: PeerId, message: &mut Message) {
        note_end(&mut self.ends, to, message);
    }
}

#[test]
fn a_relay_that_crosses_channels_connects_no_peers() {
    let hard = Rules::symmetric();
    let mut scene = Scene::attached(1, &Ground::behind(hard, hard));
    let relay = scene.relays[0];
    scene.lab.node_mut(relay).0.take_over(Box::new(Crossed::default()));
    let (agent, connector, peer) = second_pair(&mut scene);
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.lab.run_for(25 * SECOND);
    for (agent, peer) in [(scene.agent, scene.peer), (agent, peer)] {
        assert!(!scene.lab.is_connected(agent, peer), "it took a stranger for its peer");
    }
    for host in [scene.connector, connector] {
        let accepted = scene
            .lab
            .log(host)
            .iter()
            .any(|(_, event)| matches!(event, Event::StreamOffered { .. }));
        assert!(!accepted, "a stranger was served");
    }
}

/// Claims to all clients that they come from another client's address.
#[derive(Debug)]
struct Liar(SocketAddr);

impl FaultInjector for Liar {
    fn on_message(&mut self, _: PeerId, message: &mut Message) {
        if let Message::Relay(RelayMessage::Welcome(welcome)) = message {
            welcome.observed = self.0;
            welcome.discovery = vec![self.0];
        }
    }
}

#[test]
fn false_addresses_from_a_relay_get_few_probes_only() {
    let cone = Rules::port_restricted();
    let mut scene = Scene::attached(1, &Ground::behind(cone, cone));
    let relay = scene.relays[0];
    let victim = scene.lab.agent(Place::Public);
    let lie = scene.lab.address(victim);
    scene.lab.capture(victim);
    scene.lab.node_mut(relay).0.take_over(Box::new(Liar(lie)));
    // Their connections to the relay start again, and it lies from the first message on.
    scene.lab.stop(relay, Power::Paused);
    scene.lab.run_for(90 * SECOND);
    scene.lab.resume(relay);
    let connector = scene.connector;
    let is_back = |lab: &mut Lab| lab.registrations(connector) > 0;
    assert!(scene.lab.run_until(is_back, 120 * SECOND));
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    let transfer = scene.lab.start_upload((scene.agent, scene.peer), scene.connector, 2_000_000);
    scene.lab.run_for(120 * SECOND);
    assert!(scene.lab.transfer(transfer).is_complete());
    let mut by_sender: BTreeMap<_, usize> = BTreeMap::new();
    for it in scene.lab.captured(victim).iter().filter(|it| it.passage == Passage::In) {
        assert!(wires::is_probe(&it.packet.payload), "more than a probe came");
        *by_sender.entry(it.packet.from.ip()).or_default() += it.packet.payload.len();
    }
    assert!(!by_sender.is_empty(), "nobody believed the lie, and nothing was shown");
    for (from, bytes) in by_sender {
        assert!(bytes <= 4 * wires::UNHEARD_A_MINUTE, "{bytes} bytes from {from}");
    }
}
