//! Random outages under traffic: all paths of two peers are cut for 0.5 to 60 s, in one direction or
//! both, and the first byte after the end of the outage is awaited at both ends.
//!
//! `ADIT_SEEDS` worlds are played (500 by default), beginning at `ADIT_FIRST_SEED`. A world that
//! fails prints its seed.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use adit_core::rng::Rng;
use adit_core::testing::lab::{Lab, Place};
use adit_core::testing::link::Conditions;
use adit_core::testing::nat::{Dependence, Ports, Rules};
use adit_core::testing::net::HostId;
use adit_core::testing::widen;

use super::scene::{Ground, Scene};
use super::seeds::{setting, sweep};
use super::traffic::{Load, Traffic};
use super::{SECOND, ms};

/// How the two peers are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Without a relay.
    Plain,
    /// Through a relay, since their NATs let them not meet.
    Relayed,
    /// Directly, with a relay as the backup.
    Direct,
    /// Directly, and the relay is gone.
    Alone,
}

/// The directions of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Both,
    FromAgent,
    ToAgent,
}

fn any<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[(rng.u64() % of.len() as u64) as usize]
}

fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
    ms(least + rng.u64() % (most - least))
}

/// One outage and what followed.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    mode: Mode,
    load: Load,
    way: Way,
    outage: Duration,
    has_rebound: bool,
    /// The later of the two first bytes; `None` if the connection was dialled again.
    first: Option<Duration>,
    back: Duration,
    rate: f64,
}

struct World {
    scene: Scene,
    rng: Rng,
    mode: Mode,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(widen(seed), "world of outages");
        let mode = any(&mut rng, &[Mode::Plain, Mode::Relayed, Mode::Direct, Mode::Alone]);
        let latency = between(&mut rng, 2, 60);
        let leg = between(&mut rng, 2, 50);
        let mut scene = match mode {
            Mode::Plain => plain(seed, latency, &mut rng),
            Mode::Relayed => {
                let hard = Rules::symmetric();
                Scene::connected(seed, &Ground { leg, ..Ground::behind(hard, hard) })
            }
            Mode::Direct | Mode::Alone => {
                let cone = Rules::port_restricted();
                let ground = Ground { leg, direct: latency, ..Ground::behind(cone, cone) };
                Scene::direct(seed, &ground)
            }
        };
        if mode == Mode::Alone {
            scene.lab.crash(scene.relays[0]);
            scene.lab.run_for(70 * SECOND);
        }
        let bandwidth = any(&mut rng, &[100_000, 400_000, 1_500_000]);
        let narrow = |way: &mut Conditions| {
            way.bandwidth = NonZeroU64::new(bandwidth);
            way.queue = usize::try_from(bandwidth / 8).unwrap();
        };
        each_path(&scene, |from, to| (from, to)).into_iter().for_each(|(from, to)| {
            narrow(scene.lab.internet_mut().crossing_mut(from, to));
        });
        Self { scene, rng, mode }
    }

    /// Cuts all that leads from or to one of the ends, or both, or restores it.
    fn cut(&mut self, way: Way, at: HostId, is_cut: bool) {
        let scene = &mut self.scene;
        let is_agents = at == scene.agent;
        let (out, inward) = match way {
            Way::Both => (true, true),
            Way::FromAgent => (is_agents, !is_agents),
            Way::ToAgent => (!is_agents, is_agents),
        };
        for (from, to) in each_path(scene, |from, to| (from, to)) {
            if (from == at && out) || (to == at && inward) {
                scene.lab.internet_mut().crossing_mut(from, to).is_cut = is_cut;
            }
        }
    }

    fn outage(&mut self, load: Load) -> Outcome {
        let (rng, mode) = (&mut self.rng, self.mode);
        let way = any(rng, &[Way::Both, Way::Both, Way::FromAgent, Way::ToAgent]);
        let longest: f64 = if mode == Mode::Alone { 40.0 } else { 60.0 };
        let outage = Duration::from_secs_f64(0.5 * (longest / 0.5).powf(rng.unit()));
        let rebinds = mode != Mode::Alone && rng.unit() < 0.2;
        let (agent, peer) = (self.scene.agent, self.scene.peer);
        let at = any(rng, &[agent, self.scene.connector]);
        let warm = between(rng, 500, 4_000);
        let before = self.scene.reconnections();
        let lab = &mut self.scene.lab;
        let mut traffic = Traffic::new(lab, (agent, peer), self.scene.connector, load);
        let until = lab.now() + warm;
        traffic.run(lab, until, |_, _| false);
        self.cut(way, at, true);
        let lab = &mut self.scene.lab;
        let until = lab.now() + outage;
        traffic.run(lab, until, |_, _| false);
        if rebinds && let Some(nat) = self.scene.nats[0] {
            lab.internet_mut().nat_mut(nat).reboot();
        }
        self.cut(way, at, false);
        let lab = &mut self.scene.lab;
        traffic.mark(lab);
        let (ended, until) = (lab.now(), lab.now() + 120 * SECOND);
        traffic.run(lab, until, |it, _| it.has_come());
        if !lab.is_connected(agent, peer) || traffic.is_broken() {
            assert!(baseline() || outage > 40 * SECOND, "it was dialled again after {outage:?}");
            let is_up = lab.run_until(
                |lab| lab.is_connected(agent, peer) && lab.peer(agent, peer).reconnections > before,
                200 * SECOND,
            );
            assert!(is_up, "it never came back");
            let back = lab.now() - ended;
            lab.run_for(2 * SECOND);
            return Outcome { mode, load, way, outage, has_rebound: rebinds, first: None, back, rate: 0.0 };
        }
        assert!(traffic.has_come(), "nothing came for 120 s");
        let first = traffic.firsts().into_iter().flatten().max();
        let (from, read) = (lab.now(), traffic.read());
        traffic.run(lab, from + 3 * SECOND, |_, _| false);
        let bytes: u64 = traffic.read().iter().sum::<u64>() - read.iter().sum::<u64>();
        let rate = bytes as f64 / 3.0;
        Outcome { mode, load, way, outage, has_rebound: rebinds, first, back: first.unwrap(), rate }
    }
}

/// Every direction between the two ends, and between them and the relays.
fn each_path<T>(scene: &Scene, of: impl Fn(HostId, HostId) -> T) -> Vec<T> {
    let (agent, connector) = (scene.agent, scene.connector);
    let legs = scene.relays.iter().flat_map(|&relay| [(agent, relay), (connector, relay)]);
    let both = legs.chain([(agent, connector)]).flat_map(|(one, other)| [(one, other), (other, one)]);
    both.map(|(from, to)| of(from, to)).collect()
}

fn plain(seed: u64, latency: Duration, rng: &mut Rng) -> Scene {
    let mut lab = Lab::with(seed, Conditions { latency, ..Conditions::default() });
    let rules = Rules { mapping: any(rng, &Dependence::ALL), ports: Ports::Random, ..Rules::port_restricted() };
    let nat = lab.nat(rules, Place::Public);
    let agent = lab.agent(Place::Behind(nat));
    let connector = lab.connector("connector", Place::Public);
    let peer = lab.dial(agent, connector, "connector");
    let mut scene =
        Scene { lab, agent, connector, relays: Vec::new(), nats: [Some(nat), None], peer };
    scene.connect();
    scene.lab.run_for(SECOND);
    scene
}

fn play(seed: u64) -> Vec<Outcome> {
    let mut world = World::new(seed);
    let outages = 1 + world.rng.u64() % 2;
    (0..outages)
        .map(|_| {
            let load = any(&mut world.rng, &Load::ALL);
            world.outage(load)
        })
        .collect()
}

fn baseline() -> bool {
    setting("ADIT_BASELINE", 0) > 0
}

fn share(of: &[Duration], part: f64) -> Duration {
    of[((of.len() - 1) as f64 * part) as usize]
}

#[test]
fn outages_under_traffic() {
    let (first, count) = (setting("ADIT_FIRST_SEED", 0), setting("ADIT_SEEDS", 500));
    let verbose = setting("ADIT_VERBOSE", 0) > 0;
    let (held, failed) = sweep((first, count), |seed| (seed, play(seed)));
    let mut all: BTreeMap<(bool, Mode), Vec<Duration>> = BTreeMap::new();
    for (seed, outcomes) in held {
        for it in outcomes {
            all.entry((it.first.is_none(), it.mode)).or_default().push(it.back);
            if verbose {
                println!("{seed} {it:?}");
            }
        }
    }
    for ((is_dialled, mode), mut times) in all {
        times.sort_unstable();
        println!(
            "{mode:?} dialled again: {is_dialled}: {} outages, p50 {:?} p90 {:?} p99 {:?} max {:?}",
            times.len(), share(&times, 0.5), share(&times, 0.9), share(&times, 0.99), share(&times, 1.0)
        );
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
