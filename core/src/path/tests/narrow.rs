//! Paths that answer probes and do not carry the connection's packets.

use super::super::progress::TransportProgress;
use super::super::{PathReason, PathVerdict};
use super::world::{ACCEPTOR, DIALLER, Link, NONE, World, ms};
use crate::probe::FULL_LEN;

fn limited(seed: u8, most: [usize; 2]) -> World {
    let mut world = World::new(seed);
    world.links[1].most = most;
    world.links[1].is_filtered = false;
    let mut world = world.meet();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    world
}

/// Direct, with traffic from the dialler every 5 ms.
fn direct(seed: u8) -> World {
    let world = limited(seed, [usize::MAX; 2]);
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    world
}

fn verdict(world: &World, end: usize) -> PathVerdict {
    let view = world.ends[end].paths.view(world.now);
    view.paths.iter().find(|path| path.address.is_some()).unwrap().verdict
}

#[test]
fn a_path_is_used_if_it_carries_1200_bytes_and_not_if_it_carries_1199() {
    for most in [[FULL_LEN - 1, usize::MAX], [usize::MAX, FULL_LEN - 1], [FULL_LEN - 1; 2]] {
        let world = limited(1, most);
        assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)), "{most:?}");
        for end in [DIALLER, ACCEPTOR] {
            assert_eq!(verdict(&world, end), PathVerdict::Narrow, "{most:?}");
            assert_eq!(world.ends[end].changes, [], "{most:?}");
        }
    }
    let world = limited(1, [FULL_LEN; 2]);
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
}

#[test]
fn a_narrow_path_costs_few_full_probes() {
    let mut world = limited(2, [FULL_LEN - 1; 2]);
    let before = world.wire.len();
    world.run(ms(300_000));
    let is_full = |body: &super::world::Body| matches!(body, super::world::Body::Probe(bytes) if bytes[0] >= 0x22);
    let full = world.wire[before..].iter().filter(|it| it.1 == DIALLER && is_full(&it.3)).count();
    assert!((5..=12).contains(&full), "{full} in five minutes");
}

#[test]
fn a_loss_shows_that_a_path_became_narrow_within_a_second() {
    let mut world = direct(3);
    world.run(ms(5_000));
    world.links[1].most = [FULL_LEN - 1, usize::MAX];
    let cut = world.elapsed();
    let report = TransportProgress { lost: 1, ..TransportProgress::default() };
    let now = world.now;
    world.ends[DIALLER].paths.note_transport(report, now);
    world.run(ms(1_000));
    let change = *world.ends[DIALLER].changes.last().unwrap();
    assert_eq!((change.reason, change.planned), (PathReason::TooNarrow, false));
    assert!(change.at - cut <= ms(700), "left after {:?}", change.at - cut);
    assert_eq!(world.ends[ACCEPTOR].changes.last().unwrap().reason, PathReason::PeerLeft);
    assert_eq!(world.ends[DIALLER].shrinks, 1);
    world.run(ms(120_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
    world.links[1].most = [usize::MAX; 2];
    world.run(ms(65_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let until = world.elapsed() - ms(200);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn an_idle_path_that_becomes_narrow_is_noticed_without_a_loss() {
    let mut world = direct(4);
    world.links[1].most = [FULL_LEN - 1; 2];
    world.run(ms(12_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
}

#[test]
fn a_path_that_answers_probes_and_acknowledges_nothing_is_left_within_two_seconds() {
    let mut world = direct(5);
    let (since, stalled) = (world.now, world.elapsed());
    let report = TransportProgress { unacknowledged: Some(since), ..TransportProgress::default() };
    while world.used(DIALLER) == Some(1) {
        let now = world.now;
        world.ends[DIALLER].paths.note_transport(report, now);
        world.settle();
        world.run(ms(10));
        assert!(world.elapsed() - stalled <= ms(2_000), "it was not left");
    }
    let change = *world.ends[DIALLER].changes.last().unwrap();
    assert_eq!(change.reason, PathReason::Unacknowledged);
    assert!(change.at - stalled >= ms(1_500), "left after {:?}", change.at - stalled);
    let view = world.ends[DIALLER].paths.view(world.now);
    assert!(view.held_off_ms.is_some(), "it waits before it is taken again");
}

#[test]
fn a_path_whose_packets_are_acknowledged_needs_no_full_probe() {
    let mut world = direct(6);
    world.run(ms(5_000));
    let before = world.wire.len();
    for full in 1..=100 {
        let report = TransportProgress { full, ..TransportProgress::default() };
        let now = world.now;
        world.ends[DIALLER].paths.note_transport(report, now);
        world.run(ms(500));
    }
    let is_full_ping = |body: &super::world::Body| matches!(body, super::world::Body::Probe(bytes) if bytes[0] == 0x22);
    let all = world.wire[before..].iter();
    assert_eq!(all.filter(|it| it.1 == DIALLER && is_full_ping(&it.3)).count(), 0);
}

#[test]
fn a_peer_of_an_earlier_version_is_proven_by_small_probes() {
    let mut world = World::new(7);
    world.is_earlier = true;
    let mut world = world.meet();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let is_full = |body: &super::world::Body| matches!(body, super::world::Body::Probe(bytes) if bytes[0] >= 0x22);
    assert!(!world.wire.iter().any(|it| is_full(&it.3)));
}

#[test]
fn a_switch_to_a_path_of_unknown_size_starts_over_with_the_least_size() {
    for (size, shrinks) in [(1_200, 0), (1_201, 1)] {
        let links = vec![
            Link::relay(40),
            Link::direct(20, ["198.51.100.1:4000", "203.0.113.1:5000"]),
            Link::direct(5, ["10.0.0.1:4000", "10.0.0.2:5000"]),
        ];
        let mut world = World::with(1, links);
        world.cut(2);
        let mut world = world.meet();
        world.keep_sending(DIALLER, ms(20));
        world.run(ms(3_000));
        assert_eq!(world.used(DIALLER), Some(1));
        let report = TransportProgress { size, ..TransportProgress::default() };
        let now = world.now;
        world.ends[DIALLER].paths.note_transport(report, now);
        world.mend(2);
        for end in [DIALLER, ACCEPTOR] {
            world.set_local(end, super::super::Mapping::None);
        }
        world.run(ms(30_000));
        assert_eq!((world.used(DIALLER), world.ends[DIALLER].shrinks), (Some(2), shrinks));
    }
}
