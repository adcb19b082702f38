//! Random worlds: two peers behind any boxes, one relay or two, and everything that can happen to
//! the ways between them while they talk.
//!
//! `ADIT_SEEDS` worlds are played (60 unless told otherwise), beginning at `ADIT_FIRST_SEED`. A world
//! that fails names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use adit_core::rng::Rng;
use adit_core::testing::host::Power;
use adit_core::testing::lab::load::TransferId;
use adit_core::testing::lab::{Captured, Passage, Place};
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::nat::{Dependence, Ports, Rules};
use adit_core::testing::pair::pattern;
use adit_core::transmit::Via;

use super::scene::{Ground, Scene};
use super::seeds::{replay, setting, sweep};
use super::{SECOND, ms};

/// Time after the last fault within which everything works again: mappings of 60 s have gone by
/// then, and a round of knocking comes every 54 to 66 s.
const HEALED: Duration = Duration::from_secs(150);

/// Changes of a way beyond those that faults bring: six a minute among ways that work.
const CHANGES_A_MINUTE: u64 = 6;

/// Changes that one fault may bring to one end: away, to another relay, and back.
const CHANGES_OF_A_FAULT: usize = 4;

/// Bit of the first byte of every QUIC packet (RFC 9000 §17), and of no probe.
const FIXED_BIT: u8 = 0x40;

/// What worlds came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// Everything that some world is to come to.
    const ALL: [&'static str; 7] = [
        "went direct",
        "stayed on the relay",
        "left the direct way",
        "came back",
        "used the other relay",
        "a transfer outlived a fault",
        "theory allows no direct way",
    ];

    fn mark(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

/// One of several, by luck.
fn any<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[(rng.u64() % of.len() as u64) as usize]
}

fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
    ms(least + rng.u64() % (most - least))
}

fn is_lucky(rng: &mut Rng, chance: f64) -> bool {
    rng.unit() < chance
}

fn rules(rng: &mut Rng) -> Option<Rules> {
    if is_lucky(rng, 0.15) {
        return None;
    }
    let usual = any(rng, &[Rules::full_cone(), Rules::firewall(), Rules::port_restricted()]);
    Some(Rules {
        mapping: any(rng, &Dependence::ALL),
        filtering: any(rng, &Dependence::ALL),
        ports: any(rng, &Ports::ALL),
        lifetime: any(rng, &[60 * SECOND, 120 * SECOND, 300 * SECOND]),
        inbound_refreshes: is_lucky(rng, 0.5),
        hairpins: is_lucky(rng, 0.5),
        ..usual
    })
}

/// A world under way.
struct World {
    scene: Scene,
    rng: Rng,
    faults: usize,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(bytes, "world of paths");
        let ground = Ground {
            agent: rules(&mut rng),
            connector: rules(&mut rng),
            relays: any(&mut rng, &[1, 2]),
            leg: between(&mut rng, 3, 60),
            direct: between(&mut rng, 2, 60),
            bandwidth: None,
            mtu: [0; 2].map(|_| any(&mut rng, &[1_200, 1_240, 1_472])),
        };
        let mut seen = Seen::default();
        if let (Some(one), Some(other)) = (&ground.agent, &ground.connector)
            && !one.meets(other)
        {
            seen.mark("theory allows no direct way");
        }
        let mut scene = Scene::attached(seed, &ground);
        for host in [scene.agent, scene.connector].into_iter().chain(scene.relays.clone()) {
            scene.lab.capture(host);
        }
        if is_lucky(&mut rng, 0.5) {
            scene.lab.tell_addresses(scene.agent);
            scene.lab.tell_addresses(scene.connector);
        }
        scene.peer = scene.lab.find(scene.agent, "web", "connector");
        scene.connect();
        Self { scene, rng, faults: 0, seen }
    }

    /// Something happens, and after a while it is over, unless it is for good.
    fn fault(&mut self) {
        let (rng, scene) = (&mut self.rng, &mut self.scene);
        self.faults += 1;
        let pause = between(rng, 100, 8_000);
        let relay = any(rng, &scene.relays);
        let (host, nat) =
            any(rng, &[(scene.agent, scene.nats[0]), (scene.connector, scene.nats[1])]);
        let both = [(scene.agent, scene.connector), (scene.connector, scene.agent)];
        match rng.u64() % 8 {
            0 => {
                let from_agent = is_lucky(rng, 0.5);
                scene.cut(from_agent, true);
                scene.lab.run_for(pause);
            }
            1 => {
                scene.cut_both(true);
                scene.lab.run_for(pause);
            }
            2 => {
                scene.lab.crash(relay);
                scene.lab.run_for(pause);
                scene.lab.restart(relay);
            }
            3 => {
                scene.lab.stop(relay, Power::Paused);
                scene.lab.run_for(pause);
                scene.lab.resume(relay);
            }
            4 => {
                if let Some(nat) = nat {
                    scene.lab.internet_mut().nat_mut(nat).reboot();
                }
                scene.lab.run_for(pause);
            }
            5 => {
                let (is_told, place) =
                    (is_lucky(rng, 0.5), nat.map_or(Place::Public, Place::Behind));
                scene.lab.roam(host, place, is_told);
                if is_told {
                    scene.lab.tell_addresses(host);
                }
                scene.lab.run_for(pause);
            }
            6 => {
                for (from, to) in both {
                    let way = scene.lab.internet_mut().crossing_mut(from, to);
                    way.loss = Loss::Bursty { worsen: 0.02, improve: 0.1, loss: 0.9 };
                    (way.reorder, way.duplicate) = (0.05, 0.05);
                }
                scene.lab.run_for(pause);
            }
            _ => {
                for (from, to) in [(host, relay), (relay, host)] {
                    scene.lab.internet_mut().crossing_mut(from, to).is_cut = true;
                }
                scene.lab.run_for(pause);
                for (from, to) in [(host, relay), (relay, host)] {
                    scene.lab.internet_mut().crossing_mut(from, to).is_cut = false;
                }
            }
        }
        scene.cut_both(false);
        for (from, to) in both {
            let way = scene.lab.internet_mut().crossing_mut(from, to);
            (way.loss, way.reorder, way.duplicate) = (Loss::None, 0.0, 0.0);
        }
        let quiet = between(&mut self.rng, 10, 15_000);
        self.scene.lab.run_for(quiet);
    }

    /// A transfer, whichever of the two writes; `None` while there is no connection.
    fn transfer(&mut self, length: u64) -> Option<TransferId> {
        let scene = &mut self.scene;
        let from = (scene.agent, scene.peer);
        if !scene.lab.is_connected(scene.agent, scene.peer) {
            return None;
        }
        Some(match is_lucky(&mut self.rng, 0.5) {
            true => scene.lab.start_upload(from, scene.connector, length),
            false => scene.lab.start_download(from, scene.connector, length),
        })
    }

    /// The faults are over: without being told, the two carry data again.
    fn heals(&mut self) {
        let (agent, peer) = (self.scene.agent, self.scene.peer);
        let is_up = self.scene.lab.run_until(|lab| lab.is_connected(agent, peer), HEALED);
        assert!(is_up, "it never came back");
        self.scene.lab.run_for(20 * SECOND);
        let transfer = self.transfer(300_000).expect("it is connected");
        let is_whole =
            |lab: &mut adit_core::testing::lab::Lab| lab.transfer(transfer).is_complete();
        let came = self.scene.lab.run_until(is_whole, HEALED);
        let found = self.scene.lab.transfer(transfer);
        assert!(came, "{} bytes came, {:?}", found.read(), found.broken());
    }

    /// Who changed its way how often, and between what.
    fn check_changes(&mut self) {
        let scene = &self.scene;
        let changes = scene.lab.changes(scene.agent, scene.peer);
        let vias: Vec<Via> = changes.iter().map(|(_, via, _)| *via).collect();
        let is_direct: Vec<bool> = vias.iter().map(|via| matches!(via, Via::Direct(_))).collect();
        let relays: BTreeSet<_> = vias
            .iter()
            .filter_map(|via| match via {
                Via::Relayed(channel) => Some(channel.relay),
                Via::Direct(_) => None,
            })
            .collect();
        let minutes = changes
            .first()
            .map_or(0, |(first, _, _)| (scene.lab.now() - *first).as_secs().div_ceil(60));
        let most = self.faults * CHANGES_OF_A_FAULT + (minutes * CHANGES_A_MINUTE) as usize;
        assert!(changes.len() <= most + 2, "{} changes in {minutes} minutes", changes.len());
        match is_direct.contains(&true) {
            true => self.seen.mark("went direct"),
            false => self.seen.mark("stayed on the relay"),
        }
        if is_direct.windows(2).any(|two| two == [true, false]) {
            self.seen.mark("left the direct way");
        }
        if is_direct.windows(3).any(|three| three == [true, false, true]) {
            self.seen.mark("came back");
        }
        if relays.len() > 1 {
            self.seen.mark("used the other relay");
        }
    }

    /// Nobody takes a path for wider than any link is.
    fn check_sizes(&self) {
        let Scene { lab, agent, connector, peer, .. } = &self.scene;
        let theirs = lab.accepted(*connector).expect("it is connected");
        for (host, peer) in [(*agent, *peer), (*connector, theirs)] {
            let mtu = lab.peer(host, peer).transport.mtu;
            assert!(usize::from(mtu) <= Conditions::default().mtu, "packets of {mtu} bytes");
        }
    }

    /// What passed on the wires: packets go to nobody who has not been heard, and no relay sees
    /// what they carry.
    fn check_wires(&mut self) {
        let canaries = [pattern(0, 48), pattern(1_013, 48), pattern(2 * 1_013, 48)];
        for relay in self.scene.relays.clone() {
            let all = self.scene.lab.take_captured(relay);
            let is_plain = |packet: &Captured| canaries.iter().any(|c| packet.contains(c));
            assert!(!all.is_empty() && !all.iter().any(is_plain), "a relay saw what was carried");
        }
        let relays: BTreeSet<SocketAddr> =
            self.scene.relays.iter().map(|relay| self.scene.lab.address(*relay)).collect();
        for host in [self.scene.agent, self.scene.connector] {
            let mut heard = relays.clone();
            for Captured { passage, packet, .. } in self.scene.lab.take_captured(host) {
                match passage {
                    Passage::In => drop(heard.insert(packet.from)),
                    Passage::Out if packet.payload[0] & FIXED_BIT != 0 => {
                        assert!(heard.contains(&packet.to), "data to {}, never heard", packet.to);
                    }
                    Passage::Out => {}
                }
            }
        }
    }
}

/// Plays a world; what it came to, and a fingerprint of every byte of it.
fn play(seed: u64) -> (Seen, u64) {
    let mut world = World::new(seed);
    let early = world.transfer(2_000_000).expect("it is connected");
    let flow = {
        let from = (world.scene.agent, world.scene.peer);
        world.scene.lab.start_datagrams(from, 50, 200)
    };
    let faults = 1 + world.rng.u64() % 5;
    let wait = between(&mut world.rng, 10, 3_000);
    world.scene.lab.run_for(wait);
    for _ in 0..faults {
        let during = world.transfer(400_000);
        world.fault();
        if let Some(transfer) = during
            && world.scene.lab.transfer(transfer).is_complete()
        {
            world.seen.mark("a transfer outlived a fault");
        }
    }
    world.scene.lab.stop_datagrams(flow);
    world.heals();
    assert_eq!(world.scene.reconnections(), 0, "the connection outlives what befalls its ways");
    world.check_sizes();
    let found = world.scene.lab.transfer(early);
    assert!(found.is_complete(), "{} bytes, {:?}", found.read(), found.broken());
    world.check_changes();
    world.check_wires();
    (world.seen, world.scene.lab.trace().fingerprint())
}

#[test]
fn whatever_happens_to_the_ways_traffic_goes_on_and_nobody_else_gets_it() {
    let (first, count) = (setting("ADIT_FIRST_SEED", 0), setting("ADIT_SEEDS", 60));
    let (held, failed) = sweep((first, count), |seed| play(seed).0);
    let mut all = Seen::default();
    for (what, count) in held.into_iter().flat_map(|seen| seen.0) {
        *all.0.entry(what).or_default() += count;
    }
    println!("{count} worlds of paths: {:?}", all.0);
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    if count >= 60 {
        for what in Seen::ALL {
            assert!(all.0.contains_key(what), "no world came to this: {what}; {:?}", all.0);
        }
    }
}

#[test]
fn worlds_of_paths_that_failed_once_hold() {
    let failed = replay(include_str!("../../../proptest-regressions/sim_paths.seeds"), play);
    assert!(failed.is_empty(), "seeds that failed again: {failed:?}");
}

#[test]
fn a_world_of_paths_is_the_same_byte_for_byte() {
    for seed in 0..3 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}
