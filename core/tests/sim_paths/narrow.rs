//! Direct paths that pass packets up to a size only, in one direction or both, from the start or from
//! some instant on: none that QUIC cannot use is taken, and one that becomes such is left.

use std::num::NonZeroU64;
use std::time::Duration;

use adit_core::path::{PathReason, PathVerdict, PathView};
use adit_core::testing::lab::load::TransferId;
use adit_core::testing::nat::Rules;
use adit_core::transmit::NextHop;

use super::scene::{Ground, Scene};
use super::{SECOND, ms};

/// Longest time without progress when a path becomes narrow: two probe timeouts until the loss shows,
/// three full-size probes, and what was lost is sent again.
const LEFT: Duration = ms(2_000);

/// The least packet size of QUIC, in bytes of UDP payload.
const LEAST: usize = 1_200;

/// Whether packets from the agent, and packets from the connector, meet the limit.
const DIRECTIONS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

fn cones() -> Ground {
    Ground::behind(Rules::port_restricted(), Rules::port_restricted())
}

/// Connected directly, over links of 0.8 Mbit/s.
fn direct() -> Scene {
    let mut scene = Scene::direct(1, &cones());
    let (agent, connector, relay) = (scene.agent, scene.connector, scene.relays[0]);
    for (one, other) in [(agent, connector), (agent, relay), (connector, relay)] {
        scene.lab.internet_mut().change_between(one, other, |way| {
            (way.bandwidth, way.queue) = (NonZeroU64::new(100_000), 12_500);
        });
    }
    scene
}

/// Lets the direct path pass packets up to a size in these directions.
fn limit(scene: &mut Scene, [from_agent, from_connector]: [bool; 2], size: usize) {
    let (agent, connector) = (scene.agent, scene.connector);
    let internet = scene.lab.internet_mut();
    if from_agent {
        internet.crossing_mut(agent, connector).mtu = size;
    }
    if from_connector {
        internet.crossing_mut(connector, agent).mtu = size;
    }
}

/// Returns the direct paths as each end sees them.
fn direct_paths(scene: &Scene) -> Vec<PathView> {
    let theirs = scene.lab.accepted(scene.connector).unwrap();
    let ends = [(scene.agent, scene.peer), (scene.connector, theirs)];
    let all = ends.into_iter().flat_map(|(host, peer)| scene.lab.path(host, peer).paths);
    all.filter(|path| path.address.is_some()).collect()
}

/// Moves a megabyte in a direction, and fails unless it arrives within a time.
fn carries(scene: &mut Scene, is_upload: bool, time: Duration) {
    let transfer = start(scene, is_upload, 1_000_000);
    let is_whole = scene.lab.run_until(|lab| lab.transfer(transfer).is_complete(), time);
    assert!(is_whole, "{} bytes arrived", scene.lab.transfer(transfer).read());
}

fn start(scene: &mut Scene, is_upload: bool, length: u64) -> TransferId {
    let (from, connector) = ((scene.agent, scene.peer), scene.connector);
    match is_upload {
        true => scene.lab.start_upload(from, connector, length),
        false => scene.lab.start_download(from, connector, length),
    }
}

/// Returns the longest time without a byte of a transfer, from now on and for a while.
fn stall(scene: &mut Scene, transfer: TransferId, time: Duration) -> Duration {
    let until = scene.lab.now() + time;
    let (mut last, mut longest) = ((scene.lab.transfer(transfer).read(), scene.lab.now()), ms(0));
    while scene.lab.step(until) {
        let read = scene.lab.transfer(transfer).read();
        if read != last.0 {
            longest = longest.max(scene.lab.now() - last.1);
            last = (read, scene.lab.now());
        }
    }
    longest.max(scene.lab.now() - last.1)
}

#[test]
fn a_path_of_one_byte_less_than_quic_needs_is_never_used() {
    for directions in DIRECTIONS {
        let mut scene = Scene::attached(1, &cones());
        limit(&mut scene, directions, LEAST - 1);
        scene.peer = scene.lab.find(scene.agent, "web", "connector");
        scene.connect();
        for is_upload in [true, false] {
            carries(&mut scene, is_upload, 5 * SECOND);
        }
        scene.lab.run_for(60 * SECOND);
        let changes = scene.lab.changes(scene.agent, scene.peer);
        let is_direct = |(_, via, _): &(_, NextHop, _)| matches!(via, NextHop::Direct(_));
        assert!(!changes.iter().any(is_direct), "{directions:?}: {changes:?}");
        let paths = direct_paths(&scene);
        let narrow = paths.iter().filter(|path| path.verdict == PathVerdict::Narrow);
        for path in narrow.clone() {
            assert_eq!((path.loss, path.packet_size), (1.0, None), "{path:?}");
            assert!(path.sentence.starts_with("carries small packets only"), "{path:?}");
        }
        assert!(narrow.count() >= 2, "{directions:?}: {paths:?}");
        assert_eq!(scene.reconnections(), 0);
    }
}

#[test]
fn a_path_as_wide_as_quic_needs_is_used() {
    let mut scene = Scene::attached(1, &cones());
    limit(&mut scene, [true, true], LEAST);
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    assert!(scene.goes_direct(10 * SECOND));
    carries(&mut scene, true, 5 * SECOND);
    assert!(scene.is_direct());
}

#[test]
fn a_path_that_becomes_narrow_under_a_transfer_is_left_within_two_seconds() {
    for (directions, is_upload) in [([true, false], true), ([true, false], false)] {
        let mut scene = direct();
        let transfer = start(&mut scene, is_upload, 100_000_000);
        scene.lab.run_for(2 * SECOND);
        limit(&mut scene, directions, LEAST - 1);
        let longest = stall(&mut scene, transfer, 6 * SECOND);
        assert!(longest <= LEFT, "{directions:?} {is_upload}: {longest:?}");
        // A path whose full-size packets are acknowledged carries what this direction needs.
        assert_eq!(scene.is_direct(), !is_upload, "{directions:?}");
        assert_eq!(scene.reconnections(), 0);
    }
}

#[test]
fn a_narrow_path_is_taken_again_once_it_is_wide_and_not_before() {
    let mut scene = Scene::direct(1, &cones());
    limit(&mut scene, [true, false], LEAST - 1);
    let left = scene.lab.now();
    scene.lab.run_for(120 * SECOND);
    assert!(!scene.is_direct());
    let changes = scene.lab.changes(scene.agent, scene.peer);
    let since: Vec<_> = changes.iter().filter(|it| it.0 > left).collect();
    assert!(
        matches!(since[..], [(_, _, PathReason::TooNarrow | PathReason::PeerLeft)]),
        "{since:?}"
    );
    limit(&mut scene, [true, false], 1_472);
    assert!(scene.goes_direct(70 * SECOND));
}

#[test]
fn a_path_that_becomes_narrower_than_its_packets_stays_in_use() {
    for directions in DIRECTIONS {
        let mut scene = direct();
        let transfer = start(&mut scene, true, 100_000_000);
        scene.lab.run_for(4 * SECOND);
        limit(&mut scene, directions, LEAST);
        let longest = stall(&mut scene, transfer, 6 * SECOND);
        assert!(longest <= LEFT, "{directions:?}: {longest:?}");
        assert_eq!(scene.reconnections(), 0);
    }
}
