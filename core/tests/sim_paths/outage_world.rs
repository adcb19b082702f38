//! A world in which all paths of two peers are cut while they exchange data.
//!
//! It decides how the two are connected, what is cut for how long, and what must hold afterwards.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use adit_core::event::Event;
use adit_core::lifecycle::State;
use adit_core::rng::Rng;
use adit_core::testing::lab::{Lab, Place};
use adit_core::testing::link::Conditions;
use adit_core::testing::nat::{Dependence, Ports, Rules};
use adit_core::testing::net::HostId;
use adit_core::testing::widen;

use super::scene::{Ground, Scene};
use super::traffic::{Load, Traffic};
use super::{SECOND, ms};

/// The longest time from the end of an outage to the first byte, at both ends.
const RECOVERED: Duration = ms(1_500);

/// The same where a connection was lost and dialled again. Its attempts take 10 s each, and the wait
/// between two of them is 8 s and a third at most after a minute.
const DIALLED: Duration = ms(30_000);

/// Outages that no connection ends: a peer that was silent for 45 s counts as dead, and so does one
/// that has missed three heartbeats, 30 s apart.
const SURVIVED: Duration = ms(40_000);

/// Packets that an end sends into an outage that has lasted for two seconds: those of a window that
/// starts over, and a few each second.
const PACKETS: u64 = 50;
const PACKETS_A_SECOND: u64 = 8;

/// How the two peers are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Without a relay.
    Plain,
    /// Through a relay, since their NATs let them not meet.
    Relayed,
    /// Directly, with a relay as the backup.
    Direct,
    /// Directly, and the relay is gone.
    Alone,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Relayed, Self::Direct, Self::Alone];
}

/// The direction in which nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutDirection {
    Both,
    FromAgent,
    ToAgent,
}

/// An outage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) load: Load,
    pub(crate) direction: CutDirection,
    pub(crate) length: Duration,
    /// Whether the agent's network is cut off, or else the connector's.
    pub(crate) is_agents: bool,
    /// Whether the agent's NAT loses its mappings meanwhile.
    pub(crate) rebinds: bool,
    /// Time with traffic before it.
    pub(crate) warm: Duration,
}

/// What followed an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connections went on, and both ends had a byte after this time.
    Survived(Duration),
    /// A connection to a relay was lost; the one between the two went on.
    Reattached(Duration),
    /// The connection was dialled again.
    Dialled(Duration),
}

fn any<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[(rng.u64() % of.len() as u64) as usize]
}

fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
    ms(least + rng.u64() % (most - least))
}

impl Outage {
    fn random(mode: Mode, rng: &mut Rng) -> Self {
        let longest: f64 = if mode == Mode::Alone { 40.0 } else { 60.0 };
        // The order is that of the stored seeds.
        Self {
            load: any(rng, &Load::ALL),
            direction: any(
                rng,
                &[
                    CutDirection::Both,
                    CutDirection::Both,
                    CutDirection::FromAgent,
                    CutDirection::ToAgent,
                ],
            ),
            length: Duration::from_secs_f64(0.5 * (longest / 0.5).powf(rng.unit())),
            rebinds: mode != Mode::Alone && rng.unit() < 0.2,
            is_agents: any(rng, &[true, false]),
            warm: between(rng, 500, 4_000),
        }
    }
}

/// Two connected peers.
pub(crate) struct OutageWorld {
    scene: Scene,
    mode: Mode,
    rng: Rng,
}

impl OutageWorld {
    /// Returns a random world.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = Rng::new(widen(seed), "world of outages");
        let mode = any(&mut rng, &Mode::ALL);
        let (direct, leg) = (between(&mut rng, 2, 60), between(&mut rng, 2, 50));
        let bandwidths = [100_000, 400_000, 1_500_000];
        Self::new(seed, mode, (direct, leg), &bandwidths, rng)
    }

    /// Returns a world with 20 ms round trip directly, 80 ms through the relay, and 4 Mbit/s.
    pub(crate) fn usual(mode: Mode) -> Self {
        Self::new(1, mode, (ms(10), ms(20)), &[500_000], Rng::new(widen(1), "usual outages"))
    }

    fn new(
        seed: u64,
        mode: Mode,
        (direct, leg): (Duration, Duration),
        bandwidths: &[u64],
        mut rng: Rng,
    ) -> Self {
        let behind = |rules| Ground { leg, direct, ..Ground::behind(rules, rules) };
        let mut scene = match mode {
            Mode::Plain => plain(seed, direct, &mut rng),
            Mode::Relayed => Scene::connected(seed, &behind(Rules::symmetric())),
            Mode::Direct | Mode::Alone => Scene::direct(seed, &behind(Rules::port_restricted())),
        };
        if mode == Mode::Alone {
            scene.lab.crash(scene.relays[0]);
            scene.lab.run_for(70 * SECOND);
        }
        let bandwidth = any(&mut rng, bandwidths);
        for (from, to) in every_crossing(&scene) {
            let way = scene.lab.internet_mut().crossing_mut(from, to);
            way.bandwidth = NonZeroU64::new(bandwidth);
            way.queue = usize::try_from(bandwidth / 8).unwrap();
        }
        Self { scene, mode, rng }
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Plays one random outage or two.
    pub(crate) fn random_outages(&mut self) -> Vec<(Outage, Outcome)> {
        let count = 1 + self.rng.u64() % 2;
        let mut played = Vec::new();
        for _ in 0..count {
            let outage = Outage::random(self.mode, &mut self.rng);
            played.push((outage, self.outage(outage)));
        }
        played
    }

    /// Plays an outage, and checks what must hold after it.
    pub(crate) fn outage(&mut self, outage: Outage) -> Outcome {
        let Outage { load, length, .. } = outage;
        let Scene { lab, agent, connector, peer, .. } = &mut self.scene;
        let (agent, connector, peer) = (*agent, *connector, *peer);
        let mut traffic = Traffic::new(lab, (agent, peer), connector, load);
        let began = lab.now() + outage.warm;
        traffic.run(lab, began, |_| false);
        self.cut(outage, true);
        let lab = &mut self.scene.lab;
        let quiet = length.min(2 * SECOND);
        traffic.run(lab, began + quiet, |_| false);
        let before = self.sent();
        traffic.run(&mut self.scene.lab, began + length, |_| false);
        if outage.direction == CutDirection::Both && load != Load::Typing {
            self.check_flood(before, length - quiet);
        }
        if outage.rebinds
            && let Some(nat) = self.scene.nats[0]
        {
            self.scene.lab.internet_mut().nat_mut(nat).reboot();
        }
        self.cut(outage, false);
        let lab = &mut self.scene.lab;
        let ended = lab.now();
        traffic.mark(lab);
        traffic.run(lab, ended + DIALLED + SECOND, Traffic::has_come);
        let outcome = self.judge(outage, &traffic, (began, ended));
        let lab = &mut self.scene.lab;
        traffic.mark(lab);
        traffic.run(lab, lab.now() + 3 * SECOND, |_| false);
        assert!(traffic.has_come(), "it stopped again: {:?} {outage:?}", self.mode);
        traffic.end(lab);
        lab.run_for(SECOND);
        outcome
    }

    fn judge(
        &mut self,
        outage: Outage,
        traffic: &Traffic,
        (began, ended): (Instant, Instant),
    ) -> Outcome {
        let (agent, peer) = (self.scene.agent, self.scene.peer);
        let what = format!("{:?} {outage:?}", self.mode);
        if traffic.is_broken() {
            let may_be_lost = outage.length > SURVIVED || self.has_lost_a_link(began);
            assert!(may_be_lost, "it was dialled again: {what}");
            let lab = &mut self.scene.lab;
            let left = (ended + DIALLED).saturating_duration_since(lab.now());
            assert!(lab.run_until(|lab| lab.is_connected(agent, peer), left), "{what}");
            return Outcome::Dialled(lab.now() - ended);
        }
        assert!(traffic.has_come(), "nothing came: {what}");
        let first = traffic.firsts().into_iter().flatten().max().unwrap_or_default();
        if self.has_lost_a_link(began) {
            assert!(first <= DIALLED, "the first byte came after {first:?}: {what}");
            return Outcome::Reattached(first);
        }
        assert!(first <= RECOVERED, "the first byte came after {first:?}: {what}");
        Outcome::Survived(first)
    }

    /// Returns true if either end lost a connection, to a relay as well, since then or shortly before.
    fn has_lost_a_link(&self, since: Instant) -> bool {
        let is_loss = |(at, event): &(Instant, Event)| {
            let Event::Transition { transition, .. } = event else { return false };
            *at + 60 * SECOND >= since && matches!(transition.to, State::Reconnecting { .. })
        };
        let Scene { lab, agent, connector, .. } = &self.scene;
        self.mode != Mode::Alone
            && [agent, connector].into_iter().any(|host| lab.log(*host).iter().any(is_loss))
    }

    /// Returns the packets that each end has sent to the other on their connection.
    fn sent(&self) -> [u64; 2] {
        let Scene { lab, agent, connector, peer, .. } = &self.scene;
        let theirs = lab.accepted(*connector).unwrap();
        let sent = |host: &HostId, peer| {
            let snapshot = lab.node(*host).peer_snapshot(peer);
            snapshot.map_or(0, |it| it.transport.packets_sent)
        };
        [sent(agent, *peer), sent(connector, theirs)]
    }

    /// Checks that little was sent to a peer that does not answer.
    fn check_flood(&self, before: [u64; 2], time: Duration) {
        let most = PACKETS + PACKETS_A_SECOND * time.as_secs();
        for (sent, before) in self.sent().into_iter().zip(before) {
            let sent = sent.saturating_sub(before);
            assert!(sent <= most, "{sent} packets in {time:?} of silence");
        }
    }

    /// Cuts all that leads from or to one of the ends, or restores it.
    fn cut(&mut self, outage: Outage, is_cut: bool) {
        let scene = &mut self.scene;
        let at = if outage.is_agents { scene.agent } else { scene.connector };
        let (out, inward) = match (outage.direction, outage.is_agents) {
            (CutDirection::Both, _) => (true, true),
            (CutDirection::FromAgent, true) | (CutDirection::ToAgent, false) => (true, false),
            (CutDirection::FromAgent, false) | (CutDirection::ToAgent, true) => (false, true),
        };
        for (from, to) in every_crossing(scene) {
            if (from == at && out) || (to == at && inward) {
                scene.lab.internet_mut().crossing_mut(from, to).is_cut = is_cut;
            }
        }
    }
}

/// Every direction between the two ends, and between them and the relays.
fn every_crossing(scene: &Scene) -> Vec<(HostId, HostId)> {
    let (agent, connector) = (scene.agent, scene.connector);
    let legs = scene.relays.iter().flat_map(|&relay| [(agent, relay), (connector, relay)]);
    let pairs = legs.chain([(agent, connector)]);
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

fn plain(seed: u64, latency: Duration, rng: &mut Rng) -> Scene {
    let mut lab = Lab::with(seed, Conditions { latency, ..Conditions::default() });
    let mapping = any(rng, &Dependence::ALL);
    let rules = Rules { mapping, ports: Ports::Random, ..Rules::port_restricted() };
    let nat = lab.nat(rules, Place::Public);
    let agent = lab.agent(Place::Behind(nat));
    let connector = lab.connector("connector", Place::Public);
    let peer = lab.dial(agent, connector, "connector");
    let nats = [Some(nat), None];
    let mut scene = Scene { lab, agent, connector, relays: Vec::new(), nats, peer };
    scene.connect();
    scene.lab.run_for(SECOND);
    scene
}
