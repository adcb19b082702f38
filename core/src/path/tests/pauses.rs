//! All paths that pause together, NATs that rebind, and ends that get little time: what must not
//! count against a path, and how many probes doubt may cost.

use super::super::PathReason;
use super::world::{ACCEPTOR, DIALLER, Link, NONE, World, ms};
use std::time::Duration;

/// Direct, with traffic in both directions.
fn direct(seed: u8) -> World {
    let mut world = World::new(seed).meet();
    world.keep_sending(DIALLER, ms(10));
    world.keep_sending(ACCEPTOR, ms(10));
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    world
}

fn pause_all(world: &mut World, pause: Duration) {
    (0..world.links.len()).for_each(|link| world.cut(link));
    world.run(pause);
    (0..world.links.len()).for_each(|link| world.mend(link));
}

#[test]
fn when_all_paths_pause_together_none_has_failed() {
    for (seed, pause) in [(1, 300), (2, 700), (3, 1_500), (4, 2_900), (5, 10_000)] {
        let mut world = direct(seed);
        let before = world.ends[DIALLER].changes.len();
        for _ in 0..6 {
            pause_all(&mut world, ms(pause));
            world.run(ms(9_300));
            assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)), "{pause}");
        }
        for end in &world.ends {
            assert_eq!(end.changes.len(), before, "{pause}: {:?}", end.changes);
        }
    }
}

#[test]
fn a_relay_that_comes_back_first_is_taken() {
    let mut world = direct(6);
    world.cut(0);
    world.cut(1);
    world.run(ms(5_000));
    assert_eq!(world.used(DIALLER), Some(1), "none of them is better");
    world.mend(0);
    let back = world.elapsed();
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
    let change = *world.ends[DIALLER].changes.last().unwrap();
    assert!(matches!(change.reason, PathReason::Silent | PathReason::PeerLeft), "{change:?}");
    assert!(change.at - back <= ms(1_500), "after {:?}", change.at - back);
}

#[test]
fn a_pause_with_two_relays_and_no_direct_path_changes_nothing() {
    let mut world = World::with(7, vec![Link::relay(40), Link::relay(45)]).meet();
    for end in [DIALLER, ACCEPTOR] {
        let now = world.now;
        world.ends[end].paths.add_relayed(super::world::channel(1), now);
    }
    world.settle();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    for _ in 0..20 {
        pause_all(&mut world, ms(700));
        world.run(ms(9_300));
    }
    assert_eq!(world.ends[DIALLER].changes, []);
}

#[test]
fn losses_of_a_rebinding_are_not_held_against_the_path() {
    for mover in [DIALLER, ACCEPTOR] {
        let mut world = direct(8);
        world.links[1].is_filtered = false;
        for port in [9_991, 9_992, 9_993] {
            world.cut(1);
            world.run(ms(450));
            let mut addresses = world.links[1].addresses.unwrap();
            addresses[mover].set_port(port);
            world.links[1].addresses = Some(addresses);
            world.mend(1);
            world.run(ms(10_000));
            assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)), "{mover}");
            let loss = world.ends[mover].paths.view(world.now).loss;
            assert!(loss <= 0.05, "{mover}: {loss}");
        }
        let until = world.elapsed() - ms(300);
        assert_eq!(world.missing(DIALLER, until).len() + world.missing(ACCEPTOR, until).len(), 0);
    }
}

#[test]
fn doubt_costs_at_most_eight_probes_a_second_on_each_path() {
    let mut world = direct(9);
    let before = [DIALLER, ACCEPTOR].map(|end| world.ends[end].probes);
    // Answers come late, so that each is a new doubt: a peer that runs for 10 ms of 190.
    let seconds = 60;
    for _ in 0..seconds * 1_000 / 190 {
        pause_all(&mut world, ms(180));
        world.run(ms(10));
    }
    for (end, before) in [DIALLER, ACCEPTOR].into_iter().zip(before) {
        let sent = world.ends[end].probes - before;
        // Two paths, and an answer to each ping of the peer.
        let most = 2 * 2 * (12 + 8 * seconds);
        assert!(sent <= most, "{end}: {sent} probes in {seconds} s");
    }
    world.run(ms(20_000));
    let until = world.elapsed() - ms(300);
    let late = world.elapsed() - ms(10_000);
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let missing = world.missing(DIALLER, until);
    let recent = missing.iter().filter(|number| world.ends[DIALLER].sent_at[number] > late);
    assert_eq!(recent.copied().collect::<Vec<_>>(), NONE);
}
