//! Pauses of all paths at once, NATs that rebind again and again, and a peer that gets little time.

use std::time::Duration;

use adit_core::testing::host::Power;
use adit_core::testing::lab::Passage;
use adit_core::testing::nat::Rules;

use super::scene::{Ground, Scene};
use super::{SECOND, ms, wires};

/// Longest time until the direct path is back after its second rebinding in half a minute: two punching
/// rounds, of which the first may come before the NAT's mapping is known.
const REBOUND: Duration = ms(15_000);

fn cones() -> Ground {
    Ground::behind(Rules::port_restricted(), Rules::port_restricted())
}

/// Cuts everything that leads from or to the agent, or restores it.
fn cut_off(scene: &mut Scene, is_cut: bool) {
    let (out, inward) = scene.lab.internet_mut().access_mut(scene.agent);
    (out.is_cut, inward.is_cut) = (is_cut, is_cut);
}

#[test]
fn wifi_that_pauses_every_ten_seconds_stays_direct() {
    let mut scene = Scene::direct(1, &cones());
    let flow = scene.lab.start_datagrams((scene.agent, scene.peer), 50, 200);
    let before = scene.lab.changes(scene.agent, scene.peer).len();
    for _ in 0..12 {
        cut_off(&mut scene, true);
        scene.lab.run_for(ms(700));
        cut_off(&mut scene, false);
        scene.lab.take_silence(flow);
        scene.lab.run_for(ms(9_300));
        assert!(scene.is_direct());
        let silence = scene.lab.take_silence(flow);
        assert!(silence <= SECOND, "{silence:?}");
    }
    let changes = scene.lab.changes(scene.agent, scene.peer);
    assert_eq!(changes.len(), before, "{changes:?}");
}

#[test]
fn two_rebindings_in_half_a_minute_cost_no_direct_path() {
    for which in [0, 1] {
        let mut scene = Scene::direct(1, &cones());
        let flow = scene.lab.start_datagrams((scene.agent, scene.peer), 50, 200);
        scene.lab.run_for(5 * SECOND);
        for _ in 0..2 {
            let nat = scene.nats[which].unwrap();
            scene.lab.internet_mut().nat_mut(nat).reboot();
            scene.lab.run_for(REBOUND);
            let (agent, peer) = (scene.agent, scene.peer);
            assert!(scene.is_direct(), "{which}: {:#?}", scene.lab.path(agent, peer));
        }
        scene.lab.run_for(20 * SECOND);
        assert!(scene.is_direct(), "{which}");
        let path = scene.lab.path(scene.agent, scene.peer);
        assert!(path.loss <= 0.1, "{which}: {}", path.loss);
        scene.lab.stop_datagrams(flow);
    }
}

#[test]
fn a_peer_that_runs_for_10_ms_of_190_is_sent_few_probes() {
    let mut scene = Scene::direct(1, &cones());
    scene.lab.start_datagrams((scene.agent, scene.peer), 50, 200);
    scene.lab.run_for(2 * SECOND);
    let agent = scene.agent;
    scene.lab.capture(agent);
    for _ in 0..100 {
        scene.lab.stop(scene.connector, Power::Paused);
        scene.lab.run_for(ms(180));
        scene.lab.resume(scene.connector);
        scene.lab.run_for(ms(10));
    }
    let sent = scene.lab.take_captured(agent);
    let is_probe = |it: &&adit_core::testing::lab::Captured| {
        it.passage == Passage::Out && wires::is_probe(&it.packet.payload)
    };
    let probes = sent.iter().filter(is_probe).count();
    // 19 s of eight pings a second and as many answers, and the burst.
    assert!(probes <= 19 * 16 + 24, "{probes} probes in 19 s");
    assert_eq!(scene.reconnections(), 0);
}
