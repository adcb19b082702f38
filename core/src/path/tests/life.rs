//! From the relay to a direct path, and what is shown of it.

use super::super::{Mapping, PathClass, PathReason, PathVerdict};
use super::world::{ACCEPTOR, DIALLER, Link, NONE, World, ms};
use crate::transmit::NextHop;

#[test]
fn the_first_packets_go_by_the_relay_and_nothing_is_probed_before_keys() {
    let mut world = World::new(1);
    world.set_local(DIALLER, Mapping::Independent);
    world.send(DIALLER);
    world.run(ms(5_000));
    assert_eq!(world.ends[ACCEPTOR].got, [1]);
    assert_eq!(world.wire.len(), 2, "a packet and its acknowledgement");
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
}

#[test]
fn both_ends_are_direct_within_a_fifth_of_a_second_of_their_keys() {
    for seed in 1..20 {
        let mut world = World::new(seed).meet();
        world.run(ms(200));
        assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)), "{seed}");
        for end in &world.ends {
            let change = end.changes[0];
            assert_eq!((change.reason, change.planned), (PathReason::DirectProven, true));
            assert!(change.at <= ms(150), "{change:?}");
        }
    }
}

#[test]
fn a_planned_switch_keeps_the_order_and_loses_nothing() {
    let mut world = World::new(2);
    world.keep_sending(DIALLER, ms(1));
    world.run(ms(300));
    world = world.meet();
    world.ends[DIALLER].paths.note_rtt(ms(80));
    world.run(ms(2_000));
    assert_eq!(world.used(DIALLER), Some(1));
    let until = world.elapsed() - ms(100);
    assert_eq!(world.missing(DIALLER, until), NONE);
    let got = &world.ends[ACCEPTOR].got;
    assert!(got.is_sorted(), "packets overtook each other");
    let gap = world.longest_gap(ACCEPTOR, ms(0));
    assert!(gap <= ms(10), "a stall of {gap:?}");
    assert!(world.ends[DIALLER].copied.is_empty());
}

#[test]
fn a_path_that_carries_one_direction_only_is_never_selected() {
    for lossy in [DIALLER, ACCEPTOR] {
        let mut world = World::new(3);
        world.links[1].up[lossy] = false;
        world.links[1].is_filtered = false;
        world.keep_sending(DIALLER, ms(10));
        let mut world = world.meet();
        world.run(ms(90_000));
        for end in &world.ends {
            assert_eq!(end.changes, [], "{lossy}");
        }
    }
}

#[test]
fn no_direct_path_means_the_relay_and_few_probes() {
    let mut world = World::new(4);
    world.cut(1);
    let mut world = world.meet();
    world.run(ms(4_900));
    assert_eq!(world.used(DIALLER), Some(0));
    let view = world.ends[DIALLER].paths.view(world.now);
    let direct = view.paths.iter().find(|path| path.class == PathClass::Direct).unwrap();
    assert_eq!((direct.sent, direct.verdict), (9, PathVerdict::NoAnswer));
    assert_eq!(direct.sentence, "no answer to 9 probes");
    assert_eq!(view.sentence, "the connection was made through this relay");

    let punched = |world: &World| {
        let direct = |via: &NextHop| matches!(via, NextHop::Direct(_));
        world.wire.iter().filter(|it| it.1 == DIALLER && direct(&it.2)).map(|it| it.0).collect()
    };
    world.run(ms(300_000));
    let times: Vec<_> = punched(&world);
    let rounds: Vec<_> = times.chunks(9).map(|round| round[0]).collect();
    assert!((5..=6).contains(&rounds[1].as_secs()), "{rounds:?}");
    for pair in rounds[1..].windows(2) {
        let apart = (pair[1] - pair[0]).as_secs();
        assert!((4..=66).contains(&apart), "{rounds:?}");
    }
    assert!((9..=11).contains(&rounds.len()), "{rounds:?}");
}

#[test]
fn a_path_that_opens_later_is_found_by_the_next_round() {
    let mut world = World::new(5);
    world.cut(1);
    let mut world = world.meet();
    world.run(ms(20_000));
    world.mend(1);
    world.run(ms(66_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
}

#[test]
fn two_nats_that_change_their_ports_are_tried_a_few_times() {
    let mut world = World::new(6);
    world.cut(1);
    for end in [DIALLER, ACCEPTOR] {
        world.set_local(end, Mapping::Dependent);
    }
    let mut world = {
        let now = world.now;
        for end in [DIALLER, ACCEPTOR] {
            let [ours, theirs] =
                [end, 1 - end].map(|it| (it as u64 + 1, super::world::key(it as u8 + 1)));
            world.ends[end].paths.set_keys(ours, theirs, now);
        }
        world.settle();
        world
    };
    world.run(ms(200_000));
    let view = world.ends[DIALLER].paths.view(world.now);
    let direct = view.paths.iter().find(|path| path.class == PathClass::Direct).unwrap();
    assert_eq!(direct.verdict, PathVerdict::CannotWork);
    assert!((3..=9).contains(&direct.sent), "{} probes", direct.sent);
    assert!(direct.sentence.starts_with("cannot work"));
    assert!(world.wire.iter().filter(|it| matches!(it.2, NextHop::Direct(_))).count() <= 18);
}

#[test]
fn one_nat_that_changes_its_port_is_met_at_the_address_it_comes_from() {
    // The acceptor's packets to the dialler come from another port than the relay saw.
    let mut world = World::new(7).meet();
    world.links[1] = Link::direct(10, ["198.51.100.1:4000", "203.0.113.1:7777"]);
    world.links[1].is_filtered = false;
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
}

#[test]
fn both_ends_agree_on_one_of_two_direct_paths() {
    for seed in 0..20 {
        let mut world = World::with(
            seed,
            vec![
                Link::relay(40),
                Link::direct(10, ["198.51.100.1:4000", "203.0.113.1:5000"]),
                Link::direct(11, ["10.0.0.1:4000", "10.0.0.2:5000"]),
            ],
        )
        .meet();
        world.keep_sending(DIALLER, ms(20));
        world.run(ms(15_000));
        assert_eq!(world.used(DIALLER), world.used(ACCEPTOR), "seed {seed}");
        assert!(world.used(DIALLER) > Some(0));
    }
}

#[test]
fn only_a_clearly_quicker_direct_path_is_selected() {
    for (other, expected) in [(10, 2), (17, 1)] {
        let mut world = World::with(
            1,
            vec![
                Link::relay(40),
                Link::direct(20, ["198.51.100.1:4000", "203.0.113.1:5000"]),
                Link::direct(other, ["10.0.0.1:4000", "10.0.0.2:5000"]),
            ],
        );
        world.cut(2);
        let mut world = world.meet();
        world.keep_sending(DIALLER, ms(20));
        world.run(ms(3_000));
        assert_eq!(world.used(DIALLER), Some(1));
        world.mend(2);
        for end in [DIALLER, ACCEPTOR] {
            world.set_local(end, Mapping::None);
        }
        world.run(ms(30_000));
        assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(expected), Some(expected)));
    }
}

#[test]
fn a_lossy_direct_path_is_left_for_the_relay_within_40_ms() {
    let mut world = World::new(8).meet();
    world.keep_sending(DIALLER, ms(2));
    world.run(ms(5_000));
    assert_eq!(world.used(DIALLER), Some(1));
    world.links[1].lose_every = 4;
    world.run(ms(60_000));
    let worse = |change: &&super::world::Change| change.reason == PathReason::DirectWorse;
    let change = *world.ends[DIALLER].changes.iter().find(worse).unwrap();
    assert!(change.planned, "{change:?}");
    let gap = world.longest_gap(ACCEPTOR, change.at - ms(100));
    assert!(gap <= ms(40), "{gap:?}, and the relay alone takes 30 ms longer");
    let sent_about_then = |number: &u64| world.ends[DIALLER].sent_at[number] >= change.at - ms(500);
    let got: Vec<u64> = world.ends[ACCEPTOR].got.iter().copied().filter(sent_about_then).collect();
    assert!(got.is_sorted(), "one overtook another");
}

#[test]
fn probes_are_dense_under_traffic_and_rare_when_idle() {
    let count = |world: &mut World, time| {
        let before = world.ends[DIALLER].probes;
        world.run(time);
        world.ends[DIALLER].probes - before
    };
    let mut world = World::new(9).meet();
    world.keep_sending(DIALLER, ms(20));
    world.run(ms(5_000));
    let busy = count(&mut world, ms(10_000));
    // Ten of its own on the active path, two or three on the relay, and as many answers.
    assert!((20..=32).contains(&busy), "{busy} probes in ten seconds");
    world.traffic.clear();
    world.run(ms(60_000));
    let idle = count(&mut world, ms(100_000));
    assert!((12..=32).contains(&idle), "{idle} probes in a hundred seconds");
}

#[test]
fn without_direct_paths_no_address_is_sent_and_no_ping_answered_directly() {
    let mut world = World::new(10);
    world.ends[ACCEPTOR].paths.cx.config.direct = false;
    let mut world = world.meet();
    world.run(ms(10_000));
    let direct =
        |it: &&(_, usize, NextHop, _)| it.1 == ACCEPTOR && matches!(it.2, NextHop::Direct(_));
    assert_eq!(world.wire.iter().filter(direct).count(), 0);
    assert_eq!(world.used(DIALLER), Some(0));
}

#[test]
fn the_view_is_plain_and_has_what_why_needs() {
    let mut world = World::new(11).meet();
    world.keep_sending(DIALLER, ms(20));
    world.run(ms(3_000));
    let view = world.ends[DIALLER].paths.view(world.now);
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(json["class"], "direct");
    assert_eq!(json["to"], "203.0.113.1:5000");
    assert_eq!(json["reason"], "direct_proven");
    assert_eq!(json["latency_ms"], 20.0);
    assert_eq!(json["peer"]["sends"], "direct");
    assert_eq!(json["candidate_pairs"][0]["verdict"], "answers");
    assert_eq!(json["candidate_pairs"][0]["sentence"], "answers in 20 ms");
    assert_eq!(json["candidate_pairs"][0]["observed"], "198.51.100.1:4000");
    assert_eq!(json["candidate_pairs"][1]["to"], "channel 0 of peer 1");
    assert_eq!(view.loss, 0.0);
}
