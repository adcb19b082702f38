//! The figures that are promised, with their conditions: a relay at 80 ms, 20 ms direct, 100
//! Mbit/s.

use std::num::NonZeroU64;
use std::time::Duration;

use adit_core::path::PathReason;
use adit_core::testing::lab::load::{DatagramsId, TransferId};
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::nat::Rules;
use adit_core::transmit::NextHop;

use super::scene::{Ground, Scene};
use super::{SECOND, ms, seeds_or};

/// Returns the conditions with 100 Mbit/s.
fn ground() -> Ground {
    Ground { bandwidth: NonZeroU64::new(12_500_000), ..Ground::default() }
}

/// Returns the longest time without progress from now on, within a period.
fn stall_within(scene: &mut Scene, transfer: TransferId, time: Duration) -> Duration {
    let (mut last, mut stall) = ((scene.lab.transfer(transfer).read(), scene.lab.now()), ms(0));
    let until = scene.lab.now() + time;
    while scene.lab.step(until) {
        let read = scene.lab.transfer(transfer).read();
        if read != last.0 {
            stall = stall.max(scene.lab.now() - last.1);
            last = (read, scene.lab.now());
        }
    }
    stall.max(scene.lab.now() - last.1)
}

/// Waits for the agent to change between direct and relayed. Returns the longest stall of the
/// transfer around that, and the packets that were declared lost in it.
fn across_the_switch(scene: &mut Scene, transfer: TransferId) -> (Duration, u64) {
    let was_direct = scene.is_direct();
    let (mut stall, mut waited, mut lost) = (ms(0), ms(0), 0);
    while scene.is_direct() == was_direct {
        // What overflows a queue on the path is lost, whatever happens to the path.
        lost = scene.lost();
        stall = stall_within(scene, transfer, ms(100));
        waited += ms(100);
        assert!(waited < 70 * SECOND, "it never left its way; direct: {was_direct}");
    }
    stall = stall.max(stall_within(scene, transfer, SECOND));
    (stall, scene.lost() - lost)
}

#[test]
fn bulk_moves_to_the_direct_path_within_10_ms_without_loss() {
    let mut scene = Scene::attached(1, &ground());
    scene.cut_both(true);
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    let from = (scene.agent, scene.peer);
    let transfer = scene.lab.start_upload(from, scene.connector, 200_000_000);
    scene.lab.run_for(4 * SECOND);
    scene.cut_both(false);
    let (stall, lost) = across_the_switch(&mut scene, transfer);
    assert!(stall <= ms(10), "{stall:?}");
    assert_eq!(lost, 0, "nothing was lost, and nothing taken for lost");
}

#[test]
fn bulk_moves_to_the_relay_within_40_ms_without_loss() {
    let mut scene = Scene::direct(1, &ground());
    let transfer =
        scene.lab.start_upload((scene.agent, scene.peer), scene.connector, 1_000_000_000);
    // Until its window fills the path: a transfer that does not has pauses of its own. In other phases
    // of its window the queue of the direct path is longer than packets wait at the switch, and those
    // that are overtaken are taken for lost (up to 814 at 10 s).
    scene.lab.run_for(12 * SECOND);
    // Probes alone are lost: the path looks lossy, and the transfer runs at full rate.
    let loss = Loss::Short { most: adit_core::relay::DISCOVERY_LEN, loss: 0.4 };
    scene.lab.internet_mut().crossing_mut(scene.agent, scene.connector).loss = loss;
    let (stall, lost) = across_the_switch(&mut scene, transfer);
    let changes = scene.lab.changes(scene.agent, scene.peer);
    assert_eq!(changes.last().map(|it| it.2), Some(PathReason::DirectWorse));
    assert!(stall <= ms(40), "{stall:?}");
    assert_eq!(lost, 0, "nothing was lost, and nothing taken for lost");
}

#[test]
fn both_ends_leave_a_degrading_direct_path_without_loss() {
    for seed in 0..seeds_or(1) {
        gets_slowly_worse(seed);
    }
}

fn gets_slowly_worse(seed: u64) {
    let mut scene = Scene::direct(seed, &Ground { direct: ms(40), ..ground() });
    let from = (scene.agent, scene.peer);
    scene.lab.start_upload(from, scene.connector, 1_000_000_000);
    scene.lab.run_for(6 * SECOND);
    let (mut lost, mut steps) = (0, 0);
    while scene.is_direct() {
        let slower = |way: &mut Conditions| way.latency += ms(1);
        scene.lab.internet_mut().change_between(scene.agent, scene.connector, slower);
        lost = scene.lost();
        scene.lab.run_for(ms(100));
        steps += 1;
        assert!(steps < 300, "it never left");
    }
    scene.lab.run_for(SECOND);
    let theirs = scene.lab.accepted(scene.connector).unwrap();
    let left = [(scene.agent, scene.peer), (scene.connector, theirs)].map(|(host, peer)| {
        let (at, via, reason) = scene.lab.changes(host, peer).pop().unwrap();
        assert!(
            matches!(via, NextHop::Relayed(_)) && reason == PathReason::DirectWorse,
            "{reason:?}"
        );
        at
    });
    assert!(left[1] - left[0] <= ms(50), "seed {seed}: they left {:?} apart", left[1] - left[0]);
    assert_eq!(scene.lost() - lost, 0, "seed {seed}: nothing was lost, and nothing taken for lost");
}

#[test]
fn traffic_goes_on_within_500_ms_of_a_black_hole_and_loses_no_byte() {
    for seed in 0..seeds_or(2) {
        let mut scene = Scene::direct(seed, &ground());
        let from = (scene.agent, scene.peer);
        let transfer = scene.lab.start_upload(from, scene.connector, 60_000_000);
        scene.lab.run_for(2 * SECOND);
        scene.cut_both(true);
        let stall = stall_within(&mut scene, transfer, SECOND);
        assert!(stall <= ms(500), "seed {seed}: {stall:?}");
        assert!(!scene.is_direct() && scene.reconnections() == 0, "seed {seed}");
    }
}

/// Starts a steady flow, to examine what was sent after a black hole was detected.
fn datagrams(scene: &mut Scene) -> DatagramsId {
    let from = (scene.agent, scene.peer);
    scene.lab.start_datagrams(from, 2_000, 1_000)
}

#[test]
fn no_datagram_is_lost_that_was_sent_after_a_black_hole_was_noticed() {
    for seed in 0..seeds_or(2) {
        let mut scene = Scene::direct(seed, &ground());
        let flow = datagrams(&mut scene);
        scene.lab.run_for(SECOND);
        scene.cut_both(true);
        let (agent, peer) = (scene.agent, scene.peer);
        let noticed = scene.lab.run_until(|lab| !lab.is_direct(agent, peer), 2 * SECOND);
        assert!(noticed, "seed {seed}");
        scene.lab.run_for(ms(200));
        let missing = scene.lab.datagrams(flow).missing();
        scene.lab.run_for(2 * SECOND);
        scene.lab.stop_datagrams(flow);
        scene.lab.run_for(SECOND);
        let flow = scene.lab.datagrams(flow);
        assert!(flow.missing() <= missing, "seed {seed}: {} after {missing}", flow.missing());
        assert!(flow.longest_silence <= ms(500), "seed {seed}: {:?}", flow.longest_silence);
    }
}

/// Returns the time from looking up the service until both directions are direct.
fn first_contact(seed: u64, ground: &Ground) -> Duration {
    let mut scene = Scene::attached(seed, ground);
    let began = scene.lab.now();
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    assert!(scene.goes_direct(10 * SECOND), "seed {seed}: no direct path");
    scene.lab.now() - began
}

#[test]
fn the_direct_path_is_used_within_500_ms() {
    let cone = Rules::port_restricted();
    let ground = Ground::behind(cone, cone);
    let mut times: Vec<Duration> =
        (0..seeds_or(40)).map(|seed| first_contact(seed, &ground)).collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("first contact to direct: median {median:?}, slowest {:?}", times.last());
    assert!(median <= ms(500), "{median:?}");
}

#[test]
fn a_service_is_reached_through_the_relay_within_three_round_trips() {
    let mut scene = Scene::attached(1, &Ground::default());
    let began = scene.lab.now();
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    let took = scene.lab.now() - began;
    // Half a round trip to the connector for the relay alone, and two for the handshake.
    assert!(took <= 3 * ms(80), "{took:?}");
    let path = scene.lab.path(scene.agent, scene.peer);
    assert!(!path.sentence.is_empty());
    let first = scene.lab.changes(scene.agent, scene.peer);
    assert!(
        first.iter().all(|(_, via, _)| matches!(via, NextHop::Relayed(_) | NextHop::Direct(_)))
    );
}
