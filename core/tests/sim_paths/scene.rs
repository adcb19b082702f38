//! One agent and one connector, each where a test wants it, and their relays.

use std::num::NonZeroU64;
use std::time::Duration;

use adit_core::id::PeerId;
use adit_core::testing::lab::{Lab, NatId, Place};
use adit_core::testing::link::Conditions;
use adit_core::testing::nat::Rules;
use adit_core::testing::net::HostId;

use super::SECOND;

/// The name in the connector's certificate, and the service it offers.
const CONNECTOR: &str = "connector";
const SERVICE: &str = "web";

/// The hosts and where they are.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) agent: HostId,
    pub(crate) connector: HostId,
    pub(crate) relays: Vec<HostId>,
    /// The NATs in front of the agent and of the connector.
    pub(crate) nats: [Option<NatId>; 2],
    /// The connector, as a peer of the agent.
    pub(crate) peer: PeerId,
}

/// The conditions of the paths.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) agent: Option<Rules>,
    pub(crate) connector: Option<Rules>,
    pub(crate) relays: usize,
    /// One-way delay of each leg to a relay and of the direct path.
    pub(crate) leg: Duration,
    pub(crate) direct: Duration,
    pub(crate) bandwidth: Option<NonZeroU64>,
    /// The longest datagram between a relay and the agent, and between it and the connector.
    pub(crate) mtu: [usize; 2],
}

impl Default for Ground {
    /// Relay round trip 80 ms, direct 20 ms, no NAT.
    fn default() -> Self {
        Self {
            agent: None,
            connector: None,
            relays: 1,
            leg: Duration::from_millis(20),
            direct: Duration::from_millis(10),
            bandwidth: None,
            mtu: [Conditions::default().mtu; 2],
        }
    }
}

impl Ground {
    /// Returns the same with these NATs in front of the two.
    pub(crate) fn behind(agent: Rules, connector: Rules) -> Self {
        Self { agent: Some(agent), connector: Some(connector), ..Self::default() }
    }
}

impl Scene {
    /// Connected to the relay and registered, and the agent looks up the service.
    pub(crate) fn new(seed: u64, ground: &Ground) -> Self {
        let mut scene = Self::attached(seed, ground);
        scene.peer = scene.lab.find(scene.agent, SERVICE, CONNECTOR);
        scene
    }

    /// Connected to the relay and registered; the agent has not looked up the service yet.
    pub(crate) fn attached(seed: u64, ground: &Ground) -> Self {
        let mut lab = Lab::with(seed, conditions(ground.leg, ground));
        let relays: Vec<HostId> = (0..ground.relays).map(|_| lab.relay()).collect();
        let nats = [ground.agent, ground.connector]
            .map(|rules| rules.map(|rules| lab.nat(rules, Place::Public)));
        let place = |nat: Option<NatId>| nat.map_or(Place::Public, Place::Behind);
        let agent = lab.agent(place(nats[0]));
        let connector = lab.connector(CONNECTOR, place(nats[1]));
        let direct = |way: &mut Conditions| *way = conditions(ground.direct, ground);
        lab.internet_mut().change_between(agent, connector, direct);
        for (host, mtu) in [agent, connector].into_iter().zip(ground.mtu) {
            for relay in &relays {
                lab.internet_mut().change_between(host, *relay, |leg| leg.mtu = mtu);
            }
        }
        let mut attached = Vec::new();
        for relay in &relays {
            attached.push((agent, lab.attach(agent, None, *relay)));
            attached.push((connector, lab.attach(connector, Some(CONNECTOR), *relay)));
        }
        lab.offer(connector, CONNECTOR, SERVICE);
        let is_ready = lab.run_until(
            |lab| {
                attached.iter().all(|(host, relay)| lab.is_connected(*host, *relay))
                    && lab.registrations(connector) >= relays.len()
            },
            10 * SECOND,
        );
        assert!(is_ready, "seed {seed}: nobody is attached");
        lab.run_for(SECOND);
        let peer = attached[0].1;
        Self { lab, agent, connector, relays, nats, peer }
    }

    /// Connected, over any path.
    pub(crate) fn connected(seed: u64, ground: &Ground) -> Self {
        let mut scene = Self::new(seed, ground);
        scene.connect();
        scene
    }

    /// Connected, and direct in both directions.
    pub(crate) fn direct(seed: u64, ground: &Ground) -> Self {
        let mut scene = Self::connected(seed, ground);
        assert!(scene.goes_direct(10 * SECOND), "seed {seed}: no direct path");
        scene.lab.run_for(2 * SECOND);
        scene
    }

    pub(crate) fn connect(&mut self) {
        let (agent, peer) = (self.agent, self.peer);
        let is_up = self.lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND);
        assert!(is_up, "no connection through the relay");
    }

    /// Returns true if both are direct within a time.
    pub(crate) fn goes_direct(&mut self, limit: Duration) -> bool {
        let (agent, connector, peer) = (self.agent, self.connector, self.peer);
        self.lab.run_until(
            |lab| {
                let theirs = lab.accepted(connector);
                lab.is_direct(agent, peer) && theirs.is_some_and(|it| lab.is_direct(connector, it))
            },
            limit,
        )
    }

    /// Returns true if the agent's packets are direct now.
    pub(crate) fn is_direct(&self) -> bool {
        self.lab.is_direct(self.agent, self.peer)
    }

    /// Cuts the direct path, or restores it, in one direction.
    pub(crate) fn cut(&mut self, from_agent: bool, is_cut: bool) {
        let (agent, connector) = (self.agent, self.connector);
        let (from, to) = if from_agent { (agent, connector) } else { (connector, agent) };
        self.lab.internet_mut().crossing_mut(from, to).is_cut = is_cut;
    }

    /// Cuts the direct path, or restores it, in both directions.
    pub(crate) fn cut_both(&mut self, is_cut: bool) {
        self.cut(true, is_cut);
        self.cut(false, is_cut);
    }

    /// Returns how often the agent dialled the connector again.
    pub(crate) fn reconnections(&self) -> u64 {
        self.lab.peer(self.agent, self.peer).reconnections
    }

    /// Returns the packets that the two declared lost.
    pub(crate) fn lost(&self) -> u64 {
        let theirs = self.lab.accepted(self.connector).unwrap();
        self.lab.peer(self.agent, self.peer).transport.packets_lost
            + self.lab.peer(self.connector, theirs).transport.packets_lost
    }
}

fn conditions(latency: Duration, ground: &Ground) -> Conditions {
    let queue = 3 << 20;
    Conditions { latency, bandwidth: ground.bandwidth, queue, ..Conditions::default() }
}
