use super::scene::{Ground, Scene};
use super::{SECOND, ms};
use adit_core::testing::nat::{Dependence, Ports, Rules};
use std::num::NonZeroU64;

#[test]
fn debug_pair() {
    let kind = |mapping| Rules {
        mapping,
        filtering: Dependence::Independent,
        ports: Ports::Preserving,
        ..Rules::full_cone()
    };
    let mut scene =
        Scene::new(1, &Ground::behind(kind(Dependence::Address), kind(Dependence::AddressAndPort)));
    scene.connect();
    println!("direct {}", scene.goes_direct(6 * SECOND));
    println!("{:#?}", scene.lab.path(scene.agent, scene.peer));
    let theirs = scene.lab.accepted(scene.connector).unwrap();
    println!("{:#?}", scene.lab.path(scene.connector, theirs));
}

#[test]
fn debug_cut() {
    let cones = Ground::behind(Rules::port_restricted(), Rules::port_restricted());
    let mut scene = Scene::direct(1, &cones);
    for round in 0..3 {
        scene.cut_both(true);
        scene.lab.run_for(3 * SECOND);
        scene.cut_both(false);
        let began = scene.lab.now();
        let ok = scene.goes_direct(90 * SECOND);
        println!("round {round}: {ok} after {:?}", scene.lab.now() - began);
        if round == 2 {
            println!("{:#?}", scene.lab.path(scene.agent, scene.peer));
            let theirs = scene.lab.accepted(scene.connector).unwrap();
            println!("{:#?}", scene.lab.path(scene.connector, theirs));
            for (at, via, reason) in scene.lab.changes(scene.agent, scene.peer) {
                println!("A {:?} {via:?} {reason:?}", at - began);
            }
            for (at, via, reason) in scene.lab.changes(scene.connector, theirs) {
                println!("C {:?} {via:?} {reason:?}", at - began);
            }
        }
    }
}

#[test]
fn debug_hole() {
    let ground = Ground { bandwidth: NonZeroU64::new(12_500_000), ..Ground::default() };
    let mut scene = Scene::direct(2, &ground);
    let from = (scene.agent, scene.peer);
    let transfer = scene.lab.start_upload(from, scene.connector, 100_000_000);
    scene.lab.run_for(2 * SECOND);
    let before = scene.lab.peer(scene.agent, scene.peer);
    println!("rtt {:?} {:?}", before.rtt_ms, before.transport);
    scene.cut_both(true);
    let began = scene.lab.now();
    let mut last = scene.lab.transfer(transfer).read();
    let mut at = began;
    let (mut suspect, mut theirs_suspect) = (false, false);
    let theirs = scene.lab.accepted(scene.connector).unwrap();
    while scene.lab.step(began + SECOND) {
        let read = scene.lab.transfer(transfer).read();
        if read != last {
            if scene.lab.now() - at > ms(20) {
                println!(
                    "progress at {:?} after {:?}",
                    scene.lab.now() - began,
                    scene.lab.now() - at
                );
            }
            last = read;
            at = scene.lab.now();
        }
        let s = scene.lab.path(scene.agent, scene.peer).suspect;
        if s != suspect {
            suspect = s;
            println!("agent suspect {s} at {:?}", scene.lab.now() - began);
        }
        let s = scene.lab.path(scene.connector, theirs).suspect;
        if s != theirs_suspect {
            theirs_suspect = s;
            println!("connector suspect {s} at {:?}", scene.lab.now() - began);
        }
    }
    for (at, via, reason) in scene.lab.changes(scene.agent, scene.peer) {
        if at >= began {
            println!("A {:?} {via:?} {reason:?}", at - began);
        }
    }
    for (at, via, reason) in scene.lab.changes(scene.connector, theirs) {
        if at >= began {
            println!("C {:?} {via:?} {reason:?}", at - began);
        }
    }
}
