//! Whoever forges, repeats, reflects, displaces and floods.

use super::super::ProbeOutcome;
use super::super::probe_flags::ProbeFlags;
use super::world::{ACCEPTOR, Body, DIALLER, World, key, ms};
use crate::probe::{LEN, Probe, ProbeKey, ProbeKind};
use crate::transmit::{NextHop, Route};

fn at(text: &str) -> NextHop {
    NextHop::Direct(Route::to(text.parse().unwrap()))
}

/// A ping or pong of the dialler.
fn probe(kind: ProbeKind, transaction: u64, is_direct: bool, key: &ProbeKey) -> [u8; LEN] {
    let state = ProbeFlags { is_direct, ..ProbeFlags::default() }.to_byte();
    Probe { kind, session: 1, transaction, sent: 0, observed: None, state }.encode(key)
}

fn direct(seed: u8) -> World {
    let mut world = World::new(seed).meet();
    world.keep_sending(DIALLER, ms(20));
    world.run(ms(3_000));
    assert_eq!(world.used(ACCEPTOR), Some(1));
    world
}

/// Everything that probes can change, but for the counters.
fn shape(world: &World) -> String {
    let mut view = world.ends[ACCEPTOR].paths.view(world.now);
    view.counters = Default::default();
    serde_json::to_string(&view).unwrap()
}

#[test]
fn forged_repeated_reflected_and_displaced_probes_change_nothing() {
    let mut world = direct(1);
    let from = |world: &World, by: usize, bare: bool| {
        let is_probe = |it: &&(_, usize, NextHop, Body)| {
            it.1 == by
                && matches!(it.3, Body::Probe(bytes) if bytes[0] < 0x22)
                && matches!(it.2, NextHop::Direct(_)) == bare
        };
        match world.wire.iter().rev().find(is_probe) {
            Some((_, _, _, Body::Probe(bytes))) => *bytes,
            other => panic!("{other:?}"),
        }
    };
    let here = world.via(1, ACCEPTOR);
    let relay = world.via(0, ACCEPTOR);
    let bare = from(&world, DIALLER, true);
    let relayed = from(&world, DIALLER, false);
    let own = from(&world, ACCEPTOR, true);
    let fresh = 1 << 40;
    let before = shape(&world);
    let sent = world.wire.len();
    let cases: &[(NextHop, Vec<u8>, ProbeOutcome)] = &[
        (here, probe(ProbeKind::Ping, fresh, true, &key(9)).to_vec(), ProbeOutcome::Forged),
        (here, probe(ProbeKind::Ping, fresh, true, &key(2)).to_vec(), ProbeOutcome::Forged),
        (here, vec![0x20; LEN], ProbeOutcome::Forged),
        (here, vec![0x20; 3], ProbeOutcome::Forged),
        (here, own.to_vec(), ProbeOutcome::Reflected),
        (relay, own.to_vec(), ProbeOutcome::Reflected),
        (relay, bare.to_vec(), ProbeOutcome::Displaced),
        (here, relayed.to_vec(), ProbeOutcome::Displaced),
        (at("192.0.2.66:6"), relayed.to_vec(), ProbeOutcome::Displaced),
        (here, probe(ProbeKind::Pong, fresh, true, &key(1)).to_vec(), ProbeOutcome::Stray),
    ];
    for (via, bytes, expected) in cases {
        assert_eq!(world.inject(ACCEPTOR, *via, bytes), *expected, "{via:?}");
    }
    let pings = world.wire.iter().filter_map(|it| match &it.3 {
        Body::Probe(bytes) if it.1 == DIALLER && bytes[0] == 0x20 => Some((it.2, *bytes)),
        Body::Probe(_) | Body::Data { .. } | Body::Offer(_) => None,
    });
    let pings: Vec<_> = pings.collect();
    for (_, bytes) in &pings[..pings.len() - 2] {
        let bare = ProbeFlags::from_byte(bytes[44]).is_direct;
        let via = if bare { at("192.0.2.66:6") } else { relay };
        assert_eq!(world.inject(ACCEPTOR, via, bytes), ProbeOutcome::Replayed);
    }
    assert_eq!(shape(&world), before);
    assert_eq!(world.wire.len(), sent, "something was sent");
    let counters = world.ends[ACCEPTOR].paths.view(world.now).counters;
    assert_eq!((counters.forged, counters.reflected, counters.displaced), (4, 2, 3));
    assert_eq!((counters.stray, counters.replayed), (1, pings.len() as u64 - 2));
}

#[test]
fn an_answer_from_an_address_that_was_not_asked_does_not_count() {
    let mut world = World::new(2);
    world.cut(1);
    let mut world = world.meet();
    world.run(ms(45));
    let asked = world.wire.iter().find_map(|it| match &it.3 {
        Body::Probe(bytes) if it.1 == ACCEPTOR && matches!(it.2, NextHop::Direct(_)) => {
            Some(*bytes)
        }
        Body::Probe(_) | Body::Data { .. } | Body::Offer(_) => None,
    });
    let ping = Probe::decode(&asked.unwrap(), &key(2)).unwrap();
    let answer = |ping: Probe| {
        let state = ProbeFlags { is_direct: true, ..ProbeFlags::default() }.to_byte();
        Probe { kind: ProbeKind::Pong, session: 1, state, ..ping }.encode(&key(1))
    };
    let here = world.via(1, ACCEPTOR);
    assert_eq!(world.inject(ACCEPTOR, at("192.0.2.66:6"), &answer(ping)), ProbeOutcome::Stray);
    let other_port = at("198.51.100.1:4001");
    assert_eq!(world.inject(ACCEPTOR, other_port, &answer(ping)), ProbeOutcome::Stray);
    assert_eq!(world.ends[ACCEPTOR].paths.view(world.now).counters.pongs, 0);
    assert_eq!(world.inject(ACCEPTOR, here, &answer(ping)), ProbeOutcome::Pong);
    assert_eq!(world.inject(ACCEPTOR, here, &answer(ping)), ProbeOutcome::Stray, "twice");
}

#[test]
fn a_flood_of_pings_is_answered_with_no_more_bytes_and_at_the_stated_rate() {
    for from in ["192.0.2.66:6", "198.51.100.1:4000"] {
        let mut world = World::new(3);
        world.cut(1);
        let mut world = world.meet();
        world.run(ms(30_000));
        let (mut came, mut went) = (0_u64, 0_u64);
        let begin = world.elapsed();
        for i in 0..5_000 {
            world.now += ms(1);
            world.settle();
            let mark = world.wire.len();
            let before = world.ends[ACCEPTOR].probes;
            world.inject(ACCEPTOR, at(from), &probe(ProbeKind::Ping, 1 << 40 | i, true, &key(1)));
            came += 1;
            went += world.ends[ACCEPTOR].probes - before;
            assert!(world.wire.len() - mark <= 1 && went <= came, "{from}: {went} for {came}");
        }
        let seconds = (world.elapsed() - begin).as_secs();
        assert!(went <= 64 * seconds + 128, "{from}: {went} answers in {seconds} s");
        assert!(went >= 64 * seconds, "{from}: {went} answers in {seconds} s");
        assert_eq!(world.used(ACCEPTOR), Some(0));
    }
}

#[test]
fn pings_from_ever_new_addresses_fill_a_table_of_bounded_size() {
    let mut world = direct(4);
    for i in 0..1_000_u64 {
        world.run(ms(20));
        let from = at(&format!("192.0.2.66:{}", i + 1));
        world.inject(ACCEPTOR, from, &probe(ProbeKind::Ping, 1 << 40 | i, true, &key(1)));
    }
    assert_eq!(world.ends[ACCEPTOR].paths.paths.iter().count(), 25);
    assert!(world.used(ACCEPTOR).is_some(), "packets go to none of those");
}

#[test]
fn packets_from_an_unknown_address_cause_no_more_bytes_than_they_have() {
    let mut world = direct(5);
    let before = world.ends[ACCEPTOR].probes;
    world.traffic.clear();
    for batches in 1..=30 {
        let now = world.now;
        world.ends[ACCEPTOR].paths.on_received(at("192.0.2.66:6"), now);
        world.settle();
        let asked = world.ends[ACCEPTOR].probes - before;
        assert!(asked * LEN as u64 <= batches * 29, "{asked} probes for {batches} packets");
    }
    world.run(ms(1_000));
    assert_eq!(world.used(ACCEPTOR), Some(1), "an address that does not answer is not used");
}

#[test]
fn a_relay_that_sends_a_copy_from_elsewhere_does_not_move_the_peer() {
    let mut world = direct(6);
    // The copier answers nothing, so that nothing more follows from its copies.
    for _ in 0..200 {
        world.run(ms(20));
        let now = world.now;
        world.ends[ACCEPTOR].paths.on_received(at("192.0.2.66:6"), now);
        world.settle();
    }
    assert_eq!(world.used(ACCEPTOR), Some(1));
    assert_eq!(world.ends[ACCEPTOR].changes.len(), 1);
}

#[test]
fn a_peer_that_keeps_sending_addresses_gets_eight_rounds_and_one_a_second() {
    use super::super::{CandidateAddress, CandidateOffer, CandidateType};
    let mut world = World::new(7).meet();
    world.run(ms(10_000));
    let mut tried = 0;
    for round in 1..=50_u32 {
        let address = format!("192.0.2.66:{}", 1_000 + round).parse().unwrap();
        let candidates = vec![CandidateAddress { kind: CandidateType::Host, address }];
        let offer = CandidateOffer { candidates, round: 100 + round, ..CandidateOffer::default() };
        let now = world.now;
        world.ends[DIALLER].paths.handle_candidates(&offer, now);
        world.settle();
        let paths = &world.ends[DIALLER].paths.paths;
        tried += usize::from(paths.get(NextHop::Direct(Route::to(address))).is_some());
    }
    assert_eq!(tried, 8);
}
