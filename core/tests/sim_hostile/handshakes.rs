//! Handshakes that must fail, and handshakes that are never finished.

use adit_core::config::Limits;
use adit_core::error::Code;
use adit_core::testing::pki::{Pki, Role};

use crate::raw::Raw;
use crate::scene::{SECOND, Scene};

#[test]
fn no_certificate_that_is_wrong_gets_in_however_often_it_tries() {
    let pki = Pki::new();
    let mut scene = Scene::new(21);
    for n in 0..200 {
        let issued = match n % 3 {
            0 => Pki::stranger().issue("agent", Role::Agent),
            1 => pki.issue_expired("agent", Role::Agent),
            _ => pki.issue_not_yet_valid("agent", Role::Agent),
        };
        let host = scene.add_host();
        let mut raw = Raw::new(&mut scene.world, host, &issued);
        raw.run(&mut scene.world, SECOND / 10);
        scene.act();
        assert!(raw.end().is_some_and(|end| end.contains("aborted by peer")), "{:?}", raw.end());
    }
    scene.run(SECOND);
    assert_eq!(scene.rejected.len(), 200);
    assert!(scene.rejected.iter().all(|failure| failure.code() == Code::Unauthenticated));
    scene.end();
    assert_eq!(scene.world.node(scene.victim).snapshot().connections, 2);
}

#[test]
fn abandoned_handshakes_are_freed_and_block_no_other_peer() {
    let mut scene =
        Scene::with(22, |builder| builder.limits(Limits::default().handshakes_before_retry(20)));
    let agent = Pki::new().issue("agent", Role::Agent);
    for _ in 0..300 {
        let host = scene.add_host();
        Raw::new(&mut scene.world, host, &agent);
    }
    scene.run(SECOND);
    // Beyond the threshold an address must be validated before it uses any memory.
    let connections = scene.world.node(scene.victim).snapshot().connections;
    assert!(connections <= 2 + 20, "{connections}");
    let host = scene.add_host();
    let mut honest = Raw::new(&mut scene.world, host, &agent);
    honest.run(&mut scene.world, SECOND);
    assert_eq!(honest.end(), None);
    assert!(!honest.connection.is_handshaking());
    scene.run(70 * SECOND);
    assert!(scene.world.node(scene.victim).snapshot().connections <= 3);
    scene.end();
}

#[test]
fn a_stranger_may_open_eight_streams_and_a_known_peer_as_many_as_it_may_and_not_one_more() {
    let mut scene = Scene::new(34);
    let host = scene.add_host();
    let issued = Pki::new().issue("agent", Role::Agent);
    let mut raw = Raw::new(&mut scene.world, host, &issued);
    scene.run_without(SECOND / 50);
    // The dialler has finished its part of the handshake, and the acceptor has not received it.
    raw.pump(&mut scene.world);
    assert_eq!(std::iter::from_fn(|| raw.open()).count(), 8);
    // From then on it has room for twice what it has open, up to the maximum.
    let mut open = 8;
    for allowed in [128, 256, 512, 1_024, 1_024] {
        raw.run(&mut scene.world, SECOND / 10);
        let opened: Vec<_> = std::iter::from_fn(|| raw.open()).collect();
        open += opened.len();
        assert_eq!(open, allowed);
        for stream in opened {
            raw.write(stream, b"?");
        }
    }
    scene.end();
}
