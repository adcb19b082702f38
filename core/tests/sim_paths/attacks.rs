//! What a relay, a stranger and a peer cannot do.

use adit_core::testing::lab::Passage;
use adit_core::testing::nat::Rules;
use adit_core::testing::pair::pattern;

use super::scene::{Ground, Scene};
use super::wires::{Tap, contains};
use super::{SECOND, seeds_or};

#[test]
fn the_relay_never_sees_plaintext() {
    let hard = Rules::symmetric();
    let mut scene = Scene::attached(1, &Ground::behind(hard, hard));
    let relay = scene.relays[0];
    let tap = Tap::default();
    scene.lab.capture(relay);
    scene.lab.node_mut(relay).0.take_over(Box::new(tap.clone()));
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    let from = (scene.agent, scene.peer);
    let transfer = scene.lab.start_upload(from, scene.connector, 500_000);
    let is_whole = |lab: &mut adit_core::testing::lab::Lab| lab.transfer(transfer).is_complete();
    assert!(scene.lab.run_until(is_whole, 10 * SECOND));
    let captured = scene.lab.captured(relay);
    let bytes: usize = captured.iter().map(|it| it.packet.payload.len()).sum();
    assert!(bytes > 1_000_000, "all of it came by: {bytes}");
    let secret = pattern(4_096, 16);
    for it in captured {
        assert!(!it.contains(&secret), "plaintext {:?} the relay", it.passage);
    }
    let seen = tap.seen();
    let bytes: usize = seen.iter().map(Vec::len).sum();
    assert!(bytes > 500_000, "all of it was passed on: {bytes}");
    for offset in (0..500_000).step_by(4_096) {
        let secret = pattern(offset, 16);
        let is_plain = seen.iter().any(|it| contains(it, &secret));
        assert!(!is_plain, "the relay reads what stands at {offset}");
    }
}

#[test]
fn probes_from_strangers_have_no_effect_and_no_answer() {
    let mut scene = Scene::direct(1, &Ground::default());
    let stranger = scene.lab.agent(adit_core::testing::lab::Place::Public);
    let target = scene.lab.address(scene.agent);
    scene.lab.capture(stranger);
    let path = scene.lab.path(scene.agent, scene.peer);
    for first in 0x20..=0x3f_u8 {
        for length in [1, 63, 64, 65, 1_200] {
            let mut probe = vec![first; length];
            probe[0] = first;
            scene.lab.send(stranger, target, &probe);
        }
    }
    scene.lab.run_for(SECOND);
    let answers =
        scene.lab.captured(stranger).iter().filter(|it| it.passage == Passage::In).count();
    assert_eq!(answers, 0);
    let after = scene.lab.path(scene.agent, scene.peer);
    assert_eq!((path.class, path.paths.len()), (after.class, after.paths.len()));
}

#[test]
fn probes_replayed_from_another_address_change_no_path() {
    let mut scene = Scene::direct(1, &Ground::default());
    scene.lab.capture(scene.agent);
    scene.lab.run_for(30 * SECOND);
    let probes: Vec<Vec<u8>> = scene
        .lab
        .captured(scene.agent)
        .iter()
        .map(|it| it.packet.payload.clone())
        .filter(|bytes| bytes.first().is_some_and(|first| (0x20..=0x3f).contains(first)))
        .collect();
    assert!(probes.len() > 4);
    let stranger = scene.lab.agent(adit_core::testing::lab::Place::Public);
    let before = scene.lab.path(scene.agent, scene.peer);
    scene.lab.capture(stranger);
    for to in [scene.agent, scene.connector] {
        let to = scene.lab.address(to);
        for probe in &probes {
            scene.lab.send(stranger, to, probe);
        }
    }
    scene.lab.run_for(2 * SECOND);
    let answers =
        scene.lab.captured(stranger).iter().filter(|it| it.passage == Passage::In).count();
    assert_eq!(answers, 0, "a probe that was seen before is not answered");
    let after = scene.lab.path(scene.agent, scene.peer);
    assert_eq!(before.to, after.to);
    assert!(after.counters.replayed + after.counters.reflected > 0, "{:?}", after.counters);
}

#[test]
fn a_relay_path_that_damages_and_repeats_and_reorders_is_survived_or_left() {
    for seed in 0..seeds_or(10) {
        survives_a_bad_relay_path(seed);
    }
}

fn survives_a_bad_relay_path(seed: u64) {
    let hard = Rules::symmetric();
    let mut scene = Scene::attached(seed, &Ground::behind(hard, hard));
    for host in [scene.agent, scene.connector] {
        scene.lab.internet_mut().change_between(host, scene.relays[0], |leg| {
            (leg.corrupt, leg.duplicate, leg.reorder) = (0.02, 0.05, 0.05);
        });
    }
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    let from = (scene.agent, scene.peer);
    let transfer = scene.lab.start_upload(from, scene.connector, 1_000_000);
    let is_whole = |lab: &mut adit_core::testing::lab::Lab| lab.transfer(transfer).is_complete();
    assert!(scene.lab.run_until(is_whole, 120 * SECOND), "seed {seed}");
}

#[test]
fn a_transfer_continues_when_the_relay_underestimates_the_mtu() {
    // Seed 167 of the test above, before the relay could split a packet.
    survives_a_bad_relay_path(167);
}

#[test]
fn two_programs_with_one_identity_are_reported_and_coexist() {
    let mut scene = Scene::direct(1, &Ground::default());
    let relay = scene.relays[0];
    let second = scene.lab.connector("connector", adit_core::testing::lab::Place::Public);
    scene.lab.attach(second, Some("connector"), relay);
    scene.lab.offer(second, "connector", "web");
    scene.lab.run_for(600 * SECOND);
    let told = |host| {
        let is_told = |(_, event): &&(_, adit_core::event::Event)| {
            matches!(event, adit_core::event::Event::Unregistered { failure, .. }
                if failure.code() == adit_core::error::Code::Replaced)
        };
        scene.lab.log(host).iter().filter(is_told).count()
    };
    let (first, other) = (told(scene.connector), told(second));
    assert_eq!((first, other), (1, 0), "the one that came first is told once");
    assert!(scene.lab.registrations(second) >= 1);
}
