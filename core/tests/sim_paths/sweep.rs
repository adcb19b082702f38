//! Random worlds: two peers behind any NATs, one relay or two, and everything that can happen to
//! the paths between them while they exchange data.
//!
//! `ADIT_SEEDS` worlds are played (60 by default), beginning at `ADIT_FIRST_SEED`. A world that
//! fails prints its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adit_core::testing::link::Conditions;
use adit_core::transmit::NextHop;

use super::scene::Scene;
use super::seeds::{replay, setting, sweep};
use super::world::{World, between};
use super::{SECOND, wires};

/// Time after the last fault within which everything works again: mappings of 60 s have expired by
/// then, and a punching round comes every 54 to 66 s.
const HEALED: Duration = Duration::from_secs(150);

/// Path changes beyond those that faults cause: six a minute between paths that work.
const CHANGES_A_MINUTE: u64 = 6;

/// Path changes that one fault may cause at one end: away, to another relay, and back.
const CHANGES_OF_A_FAULT: usize = 4;

/// The outcomes of worlds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// Every outcome that some world is to have.
    const ALL: [&'static str; 7] = [
        "went direct",
        "stayed on the relay",
        "left the direct path",
        "came back",
        "used the other relay",
        "a transfer outlived a fault",
        "theory allows no direct path",
    ];

    fn mark(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

impl World {
    /// Checks that after the faults the two carry data again, without a notification.
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

    /// Checks how often each end changed its path, and between which.
    fn check_changes(&self, seen: &mut Seen) {
        let scene = &self.scene;
        let changes = scene.lab.changes(scene.agent, scene.peer);
        let vias: Vec<NextHop> = changes.iter().map(|(_, via, _)| *via).collect();
        let is_direct: Vec<bool> =
            vias.iter().map(|via| matches!(via, NextHop::Direct(_))).collect();
        let relays: BTreeSet<_> = vias
            .iter()
            .filter_map(|via| match via {
                NextHop::Relayed(channel) => Some(channel.relay),
                NextHop::Direct(_) => None,
            })
            .collect();
        let minutes = changes
            .first()
            .map_or(0, |(first, _, _)| (scene.lab.now() - *first).as_secs().div_ceil(60));
        let most = self.faults * CHANGES_OF_A_FAULT + (minutes * CHANGES_A_MINUTE) as usize;
        assert!(changes.len() <= most + 2, "{} changes in {minutes} minutes", changes.len());
        match is_direct.contains(&true) {
            true => seen.mark("went direct"),
            false => seen.mark("stayed on the relay"),
        }
        if is_direct.windows(2).any(|two| two == [true, false]) {
            seen.mark("left the direct path");
        }
        if is_direct.windows(3).any(|three| three == [true, false, true]) {
            seen.mark("came back");
        }
        if relays.len() > 1 {
            seen.mark("used the other relay");
        }
    }

    /// Checks that no peer overestimates the MTU of a path.
    fn check_sizes(&self) {
        let Scene { lab, agent, connector, peer, .. } = &self.scene;
        let theirs = lab.accepted(*connector).expect("it is connected");
        for (host, peer) in [(*agent, *peer), (*connector, theirs)] {
            let mtu = lab.peer(host, peer).transport.mtu;
            assert!(usize::from(mtu) <= Conditions::default().mtu, "packets of {mtu} bytes");
        }
    }

    /// Checks what the two sent to which addresses, and what the relays could read.
    fn check_wires(&mut self) {
        let Scene { lab, agent, connector, relays, .. } = &mut self.scene;
        for relay in relays.iter() {
            let all = lab.take_captured(*relay);
            let all: Vec<_> = all.into_iter().map(|it| it.packet.payload).collect();
            assert!(!all.is_empty() && !wires::is_plain(&all), "a relay saw what was carried");
        }
        let passed = self.tap.seen();
        assert!(!passed.is_empty() && !wires::is_plain(&passed), "a relay reads what is carried");
        let trusted = relays.iter().map(|relay| lab.address(*relay)).collect();
        for host in [*agent, *connector] {
            wires::check(&lab.take_captured(host), &trusted);
        }
    }
}

/// Plays a world. Returns its outcomes, and a fingerprint of every byte of it.
fn play(seed: u64) -> (Seen, u64) {
    let mut world = World::new(seed);
    let mut seen = Seen::default();
    if !world.may_meet {
        seen.mark("theory allows no direct path");
    }
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
        world.fault(flow);
        if let Some(transfer) = during
            && world.scene.lab.transfer(transfer).is_complete()
        {
            seen.mark("a transfer outlived a fault");
        }
    }
    world.scene.lab.stop_datagrams(flow);
    world.heals();
    assert_eq!(world.scene.reconnections(), 0, "the connection outlives what befalls its paths");
    world.check_sizes();
    let found = world.scene.lab.transfer(early);
    assert!(found.is_complete(), "{} bytes, {:?}", found.read(), found.broken());
    world.check_changes(&mut seen);
    world.check_wires();
    (seen, world.scene.lab.trace().fingerprint())
}

#[test]
fn path_faults_neither_stop_nor_misdirect_traffic() {
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
    let failed = replay("sim_paths.seeds", 1, play);
    assert!(failed.is_empty(), "seeds that failed again: {failed:?}");
}

#[test]
fn a_world_of_paths_is_the_same_byte_for_byte() {
    for seed in 0..3 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}
