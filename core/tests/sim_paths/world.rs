//! A random world: two peers behind any NATs, one relay or two, and what happens to the paths
//! between them while they exchange data.

use std::time::Duration;

use adit_core::rng::Rng;
use adit_core::testing::host::Power;
use adit_core::testing::lab::Place;
use adit_core::testing::lab::load::{DatagramsId, TransferId};
use adit_core::testing::link::Loss;
use adit_core::testing::nat::{Dependence, Ports, Rules};
use adit_core::testing::widen;

use super::scene::{Ground, Scene};
use super::wires::Tap;
use super::{SECOND, ms};

/// Longest time without arrivals while there is another path.
const RECOVERED: Duration = ms(2_000);

/// Longest time without arrivals after the only path is back.
const RETURNED: Duration = ms(15_000);

/// Returns one of several at random.
fn any<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[(rng.u64() % of.len() as u64) as usize]
}

pub(crate) fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
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

/// A running world.
pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) rng: Rng,
    pub(crate) faults: usize,
    /// True if theory allows a direct path.
    pub(crate) may_meet: bool,
    /// What the relays were given to forward.
    pub(crate) tap: Tap,
    /// True if there is a relay that connects the two whatever happens to the direct path.
    is_certain: bool,
}

impl World {
    /// Connected, over any path.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(widen(seed), "world of paths");
        let ground = Ground {
            agent: rules(&mut rng),
            connector: rules(&mut rng),
            relays: any(&mut rng, &[1, 2]),
            leg: between(&mut rng, 3, 60),
            direct: between(&mut rng, 2, 60),
            bandwidth: None,
            mtu: [0; 2].map(|_| any(&mut rng, &[1_200, 1_240, 1_472])),
        };
        let may_meet = match (&ground.agent, &ground.connector) {
            (Some(one), Some(other)) => one.meets(other),
            (None, _) | (_, None) => true,
        };
        let mut scene = Scene::attached(seed, &ground);
        let tap = Tap::default();
        for host in [scene.agent, scene.connector].into_iter().chain(scene.relays.clone()) {
            scene.lab.capture(host);
        }
        for relay in &scene.relays {
            scene.lab.node_mut(*relay).0.take_over(Box::new(tap.clone()));
        }
        if is_lucky(&mut rng, 0.5) {
            scene.lab.advertise_addresses(scene.agent);
            scene.lab.advertise_addresses(scene.connector);
        }
        scene.peer = scene.lab.find(scene.agent, "web", "connector");
        scene.connect();
        Self { scene, rng, faults: 0, may_meet, tap, is_certain: true }
    }

    /// Injects a fault, which ends after a while unless it is permanent. Meanwhile a flow of
    /// datagrams continues over any path that is left.
    pub(crate) fn fault(&mut self, flow: DatagramsId) {
        self.faults += 1;
        let (was_certain, was_direct) = (self.is_certain, self.scene.is_direct());
        let pause = between(&mut self.rng, 100, 8_000);
        self.scene.lab.take_silence(flow);
        let strikes_a_relay = match self.rng.u64() % 9 {
            kind @ 0..3 => {
                self.hurt_the_direct_way(kind, pause);
                false
            }
            kind @ 3..5 => {
                self.move_an_end(kind, pause);
                false
            }
            kind => {
                self.hurt_a_relay(kind, pause);
                true
            }
        };
        self.is_certain &= !strikes_a_relay || self.scene.relays.len() > 1;
        let quiet = between(&mut self.rng, 10, 15_000);
        self.scene.lab.run_for(quiet);
        let silence = self.scene.lab.take_silence(flow);
        let has_another_way = self.is_certain || (was_certain && was_direct);
        let most = if has_another_way { RECOVERED } else { pause + RETURNED };
        assert!(silence <= most, "nothing came for {silence:?} after fault {}", self.faults);
    }

    fn hurt_the_direct_way(&mut self, kind: u64, pause: Duration) {
        let (rng, scene) = (&mut self.rng, &mut self.scene);
        let (agent, connector) = (scene.agent, scene.connector);
        match kind {
            0 => scene.cut(is_lucky(rng, 0.5), true),
            1 => scene.cut_both(true),
            _ => scene.lab.internet_mut().change_between(agent, connector, |way| {
                way.loss = Loss::Bursty { worsen: 0.02, improve: 0.1, loss: 0.9 };
                (way.reorder, way.duplicate) = (0.05, 0.05);
            }),
        }
        scene.lab.run_for(pause);
        scene.cut_both(false);
        scene.lab.internet_mut().change_between(agent, connector, |way| {
            (way.loss, way.reorder, way.duplicate) = (Loss::None, 0.0, 0.0);
        });
    }

    /// Makes the NAT of an end lose its mappings, or moves the end to another network.
    fn move_an_end(&mut self, kind: u64, pause: Duration) {
        let (rng, scene) = (&mut self.rng, &mut self.scene);
        let (host, nat) =
            any(rng, &[(scene.agent, scene.nats[0]), (scene.connector, scene.nats[1])]);
        if kind == 3 {
            if let Some(nat) = nat {
                scene.lab.internet_mut().nat_mut(nat).reboot();
            }
        } else {
            let (is_notified, place) =
                (is_lucky(rng, 0.5), nat.map_or(Place::Public, Place::Behind));
            scene.lab.roam(host, place, is_notified);
            if is_notified {
                scene.lab.advertise_addresses(host);
            }
        }
        scene.lab.run_for(pause);
    }

    fn hurt_a_relay(&mut self, kind: u64, pause: Duration) {
        let relay = any(&mut self.rng, &self.scene.relays);
        let host = any(&mut self.rng, &[self.scene.agent, self.scene.connector]);
        let lab = &mut self.scene.lab;
        match kind {
            5 => {
                lab.crash(relay);
                lab.run_for(pause);
                lab.restart(relay);
                lab.node_mut(relay).0.take_over(Box::new(self.tap.clone()));
            }
            6 => {
                lab.stop(relay, Power::Paused);
                lab.run_for(pause);
                lab.resume(relay);
            }
            7 => {
                for (is_cut, time) in [(true, pause), (false, Duration::ZERO)] {
                    lab.internet_mut().change_between(host, relay, |leg| leg.is_cut = is_cut);
                    lab.run_for(time);
                }
            }
            _ => {
                for (chance, time) in [(0.05, pause), (0.0, Duration::ZERO)] {
                    lab.internet_mut().change_between(host, relay, |leg| {
                        (leg.corrupt, leg.duplicate, leg.reorder) = (chance, chance, chance);
                    });
                    lab.run_for(time);
                }
            }
        }
    }

    /// Starts a transfer in either direction. Returns `None` while there is no connection.
    pub(crate) fn transfer(&mut self, length: u64) -> Option<TransferId> {
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
}
