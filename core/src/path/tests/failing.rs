//! Paths that fail, come back, move; and relays that go.

use super::super::liveness::MAX_SWITCHES;
use super::super::{Mapping, PathReason};
use super::world::{ACCEPTOR, DIALLER, Link, NONE, World, channel, ms};
use crate::transmit::{NextHop, Route};
use std::time::Duration;

/// Direct, with traffic from the dialler every 5 ms.
fn direct(seed: u8) -> World {
    let mut world = World::new(seed).meet();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    world
}

#[test]
fn a_black_hole_is_suspected_by_150_ms_and_left_by_500_and_nothing_is_lost() {
    let mut world = direct(1);
    let cut = world.elapsed();
    world.cut(1);
    world.run(ms(2_000));
    let (_, first_copy) = world.ends[DIALLER].copied[0];
    // The last answer came up to one round trip after the cut.
    assert!(first_copy - cut <= ms(150 + 25), "copies began after {:?}", first_copy - cut);
    let change = *world.ends[DIALLER].changes.last().unwrap();
    assert_eq!((change.reason, change.planned), (PathReason::Silent, false));
    assert!(change.at - cut <= ms(500 + 25), "left after {:?}", change.at - cut);
    assert_eq!(world.ends[DIALLER].shrinks, 1);
    let until = world.elapsed() - ms(200);
    assert_eq!(world.missing(DIALLER, until), NONE);
    let gap = world.longest_gap(ACCEPTOR, cut);
    assert!(gap <= ms(250), "a gap of {gap:?}");
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
}

#[test]
fn a_black_hole_of_one_direction_moves_both_ends() {
    for lossy in [DIALLER, ACCEPTOR] {
        let mut world = direct(2);
        let cut = world.elapsed();
        world.links[1].up[lossy] = false;
        world.run(ms(800));
        for end in &world.ends {
            let change = end.changes.last().unwrap();
            assert!(change.at - cut <= ms(650), "{lossy}: {change:?} after {cut:?}");
            assert!(
                matches!(change.reason, PathReason::Silent | PathReason::PeerLeft),
                "{change:?}"
            );
        }
        let until = world.elapsed() - ms(300);
        assert_eq!(world.missing(DIALLER, until), NONE);
    }
}

#[test]
fn an_end_that_learns_of_one_way_loss_copies_and_follows() {
    for lossy in [DIALLER, ACCEPTOR] {
        let mut world = direct(17);
        world.keep_sending(ACCEPTOR, ms(5));
        world.run(ms(3_000));
        let cut = world.elapsed();
        world.links[1].up[lossy] = false;
        world.run(ms(2_000));
        assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
        let (_, first_copy) = world.ends[lossy].copied[0];
        assert!(first_copy - cut <= ms(200), "{lossy}: copies began after {:?}", first_copy - cut);
        // What came hid the failure at first: what was sent then is gone, and nothing else.
        let until = world.elapsed() - ms(300);
        assert_eq!(world.missing(1 - lossy, until), NONE, "{lossy}");
        let hidden = world.missing(lossy, cut + ms(100)).len();
        assert_eq!(world.missing(lossy, until).len(), hidden, "{lossy}");
    }
}

#[test]
fn an_end_that_hears_of_the_failure_follows_without_waiting() {
    let mut world = direct(3);
    world.cut(1);
    world.run(ms(1_000));
    let left: Vec<_> = world.ends.iter().map(|end| *end.changes.last().unwrap()).collect();
    let first = left.iter().map(|it| it.at).min().unwrap();
    assert!(left.iter().all(|it| it.at - first <= ms(45)), "{left:?}");
}

#[test]
fn of_two_thousand_packets_a_second_none_is_lost_to_a_black_hole() {
    let mut world = direct(18);
    world.traffic.clear();
    world.keep_sending(DIALLER, Duration::from_micros(500));
    world.run(ms(1_000));
    let cut = world.elapsed();
    world.cut(1);
    world.run(ms(2_000));
    let until = world.elapsed() - ms(100);
    assert_eq!(world.missing(DIALLER, until), NONE);
    assert!(world.longest_gap(ACCEPTOR, cut) <= ms(250));
}

#[test]
fn a_silence_shorter_than_half_a_second_changes_nothing_but_copies_packets() {
    let mut world = direct(4);
    let before = world.ends[DIALLER].changes.len();
    world.cut(1);
    world.run(ms(400));
    world.mend(1);
    world.run(ms(3_000));
    assert_eq!(world.ends[DIALLER].changes.len(), before);
    assert!(!world.ends[DIALLER].copied.is_empty());
    let copied = world.ends[DIALLER].copied.len();
    world.run(ms(3_000));
    assert_eq!(world.ends[DIALLER].copied.len(), copied, "copies end with the suspicion");
}

#[test]
fn a_direct_path_that_comes_back_is_selected_again() {
    let mut world = direct(5);
    world.cut(1);
    world.run(ms(1_000));
    assert_eq!(world.used(DIALLER), Some(0));
    world.mend(1);
    world.run(ms(6_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let until = world.elapsed() - ms(200);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn a_flapping_link_changes_paths_no_more_often_than_is_stated() {
    for (seed, up, down) in [(1, 1_000, 1_000), (2, 3_000, 700), (3, 300, 600), (4, 5_000, 5_000)] {
        let mut world = direct(seed);
        for _ in 0..(600_000 / (up + down)) {
            world.cut(1);
            world.run(ms(down));
            world.mend(1);
            world.run(ms(up));
        }
        for end in &world.ends {
            let times: Vec<_> = end.changes.iter().map(|it| it.at).collect();
            for (first, &from) in times.iter().enumerate() {
                let minute = times[first..].iter().filter(|&&at| at - from < ms(60_000)).count();
                assert!(minute <= MAX_SWITCHES as usize, "{minute} changes after {from:?}");
            }
            let late = times.iter().filter(|&&at| at > ms(300_000)).count();
            assert!(late <= 5 * 3, "{late} changes in the last five minutes");
        }
    }
}

#[test]
fn on_another_network_the_path_is_suspect_and_the_new_one_is_found() {
    let mut world = direct(6);
    let change = world.elapsed();
    let moved = ["198.51.100.77:1234", "203.0.113.99:4321"].map(|it| it.parse().unwrap());
    world.links[1].addresses = Some(moved);
    for end in [DIALLER, ACCEPTOR] {
        let now = world.now;
        world.ends[end].paths.on_network_changed(now);
        world.set_local(end, Mapping::Independent);
    }
    world.settle();
    world.run(ms(2_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let back = world.ends[DIALLER].changes.last().unwrap().at - change;
    assert!(back <= ms(1_000), "direct again after {back:?}");
    let until = world.elapsed() - ms(200);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn both_addresses_change_and_discovery_finds_out_later() {
    let mut world = direct(7);
    let cut = world.elapsed();
    let moved = ["198.51.100.77:1234", "203.0.113.99:4321"].map(|it| it.parse().unwrap());
    world.links[1].addresses = Some(moved);
    world.run(ms(20_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
    assert!(world.longest_gap(ACCEPTOR, cut) <= ms(250));
    for end in [DIALLER, ACCEPTOR] {
        world.set_local(end, Mapping::Independent);
    }
    world.settle();
    world.run(ms(1_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let until = world.elapsed() - ms(200);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn a_rebound_nat_of_the_peer_moves_the_path_within_a_round_trip() {
    for mover in [DIALLER, ACCEPTOR] {
        let mut world = direct(8);
        let moved_at = world.elapsed();
        let mut addresses = world.links[1].addresses.unwrap();
        addresses[mover].set_port(9_999);
        world.links[1].addresses = Some(addresses);
        world.links[1].is_filtered = false;
        world.run(ms(3_000));
        assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)), "{mover}");
        let stayer = &world.ends[1 - mover];
        let change = stayer.changes.last().unwrap();
        assert_eq!(change.reason, PathReason::PeerMoved, "{mover}");
        assert_eq!(change.to, NextHop::Direct(Route::to(addresses[mover])));
        assert!(change.at - moved_at <= ms(180), "{mover}: {:?}", change.at - moved_at);
        assert_eq!(stayer.shrinks, 0);
        assert_eq!(world.ends[mover].changes.len(), 1, "the mover notices nothing: {mover}");
        let until = world.elapsed() - ms(200);
        assert_eq!(world.missing(DIALLER, until), NONE, "{mover}");
    }
}

#[test]
fn a_silent_path_is_not_reselected_by_the_peers_last_use() {
    // Found by the sweep, seed 660: the acceptor left the silent path for one that answered, and
    // went back in the same instant.
    let direct = |delay, host| {
        Link::direct(delay, [format!("198.51.100.{host}:4000"), format!("203.0.113.{host}:5000")])
    };
    let links = vec![Link::relay(40), direct(10, 1), direct(11, 2)];
    let mut world = World::with(3, links).meet();
    world.keep_sending(ACCEPTOR, ms(5));
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let cut = world.elapsed();
    world.links[1].up[DIALLER] = false;
    while world.ends[ACCEPTOR].paths.active.suspect_since().is_none() {
        world.run(ms(1));
    }
    let (now, other) = (world.now, world.via(2, ACCEPTOR));
    let paths = &mut world.ends[ACCEPTOR].paths;
    paths.paths.get_mut(other).unwrap().pull_probe(now);
    paths.refresh(now);
    world.run(ms(3_000));
    let silent = world.via(1, ACCEPTOR);
    let late = world.ends[ACCEPTOR].changes.iter().filter(|it| it.at > cut);
    let late: Vec<_> = late.map(|it| it.to).collect();
    assert!(late.first() == Some(&other) && !late.contains(&silent), "{late:?}");
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(2), Some(2)));
}

#[test]
fn losing_the_relay_leaves_a_direct_path_unchanged() {
    let mut world = direct(9);
    let now = world.now;
    let before = world.ends[DIALLER].changes.len();
    world.ends[DIALLER].paths.remove_relayed(channel(0), now);
    world.run(ms(5_000));
    assert_eq!(world.used(DIALLER), Some(1));
    assert_eq!(world.ends[DIALLER].changes.len(), before);
}

#[test]
fn without_any_path_packets_wait_for_the_next_and_the_view_shows_it() {
    let mut world = World::new(10);
    world.cut(1);
    let mut world = world.meet();
    world.run(ms(1_000));
    let now = world.now;
    world.ends[DIALLER].paths.remove_relayed(channel(0), now);
    let number = world.send(DIALLER);
    world.run(ms(1_000));
    let view = world.ends[DIALLER].paths.view(world.now);
    assert_eq!((view.class, view.reason, view.kept_bytes), (None, PathReason::NoPath, 200));
    let now = world.now;
    world.ends[DIALLER].paths.add_relayed(channel(0), now);
    world.settle();
    world.run(ms(1_000));
    assert!(world.ends[ACCEPTOR].got.contains(&number));
    let change = world.ends[DIALLER].changes.last().unwrap();
    assert_eq!((change.reason, change.planned), (PathReason::OnlyPath, false));
}

/// Two relays, of 40 and 60 ms, and no direct path.
fn two_relays(seed: u8) -> World {
    let mut world = World::with(seed, vec![Link::relay(40), Link::relay(60)]).meet();
    for end in [DIALLER, ACCEPTOR] {
        let now = world.now;
        world.ends[end].paths.add_relayed(channel(1), now);
    }
    world.settle();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
    world
}

#[test]
fn a_frozen_relay_is_left_for_the_other() {
    let mut world = two_relays(11);
    let cut = world.elapsed();
    world.cut(0);
    world.run(ms(3_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    let gap = world.longest_gap(ACCEPTOR, cut);
    assert!(gap <= ms(500), "a gap of {gap:?}");
    assert_eq!(world.ends[DIALLER].shrinks, 0);
    let until = world.elapsed() - ms(300);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn losing_the_relay_in_use_resends_packets_immediately() {
    let mut world = two_relays(12);
    world.cut(0);
    for end in [DIALLER, ACCEPTOR] {
        let now = world.now;
        world.ends[end].paths.remove_relayed(channel(0), now);
    }
    world.settle();
    let left = world.elapsed();
    world.run(ms(1_000));
    assert_eq!(world.used(DIALLER), Some(1));
    let change = *world.ends[DIALLER].changes.last().unwrap();
    assert_eq!((change.reason, change.at), (PathReason::RelayLost, left));
    let until = world.elapsed() - ms(300);
    assert_eq!(world.missing(DIALLER, until), NONE);
}

#[test]
fn a_clearly_quicker_relay_is_taken_once() {
    let mut world = World::with(13, vec![Link::relay(60), Link::relay(20)]).meet();
    for end in [DIALLER, ACCEPTOR] {
        let now = world.now;
        world.ends[end].paths.add_relayed(channel(1), now);
    }
    world.settle();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(60_000));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    for end in &world.ends {
        assert_eq!(end.changes.len(), 1, "{:?}", end.changes);
        assert!(end.changes[0].planned);
    }
    assert!(world.ends[ACCEPTOR].got.is_sorted());
}

#[test]
fn an_idle_path_survives_three_seconds_of_silence() {
    let mut world = World::new(14).meet();
    world.run(ms(120_000));
    world.cut(1);
    let is_asking = |world: &World| world.ends.iter().any(|it| it.paths.active.check().is_some());
    while !is_asking(&world) {
        world.run(ms(10));
    }
    world.run(ms(2_980));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(1), Some(1)));
    world.run(ms(20 + 45));
    assert_eq!((world.used(DIALLER), world.used(ACCEPTOR)), (Some(0), Some(0)));
}

#[test]
fn an_unsendable_address_is_suspect_if_active_and_dropped_otherwise() {
    let mut world = direct(15);
    let NextHop::Direct(route) = world.via(1, DIALLER) else { panic!("a direct path") };
    let now = world.now;
    world.ends[DIALLER].paths.on_send_failed(route, now);
    assert!(world.ends[DIALLER].paths.view(now).suspect);
    world.run(ms(100));
    assert!(!world.ends[DIALLER].paths.view(world.now).suspect, "it answered");
}

#[test]
fn a_host_that_sleeps_for_an_hour_probes_before_it_leaves_a_path() {
    let mut world = direct(16);
    world.traffic.clear();
    let before = world.ends[DIALLER].changes.len();
    world.now += Duration::from_secs(3_600);
    world.settle();
    world.run(ms(2_000));
    assert_eq!(world.ends[DIALLER].changes.len(), before);
}

#[test]
fn what_asks_for_larger_packets_goes_directly_or_is_lost() {
    let mut world = World::new(24);
    let asks = |world: &World| world.ends[DIALLER].paths.dispatch_mtu_probe();
    assert_eq!(asks(&world), None, "a relay splits what is too large, and would answer");
    world = world.meet();
    world.keep_sending(DIALLER, ms(5));
    world.run(ms(3_000));
    let NextHop::Direct(route) = world.via(1, DIALLER) else { panic!("link 1 is direct") };
    assert_eq!(asks(&world), Some(route));
    world.cut(1);
    let until = world.elapsed() + ms(400);
    while world.ends[DIALLER].copied.is_empty() {
        assert!(world.elapsed() < until, "it was never suspect");
        world.run(ms(5));
    }
    assert_eq!(world.used(DIALLER), Some(1));
    assert_eq!(asks(&world), None, "the path is suspect");
    world.run(ms(1_000));
    assert_eq!((world.used(DIALLER), asks(&world)), (Some(0), None));
}
