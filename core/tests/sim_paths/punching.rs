//! Every pair of the NATs of RFC 4787: direct where theory allows it, otherwise on the relay from
//! the start.

use std::net::SocketAddr;

use adit_core::node::Input;
use adit_core::path::{CandidateType, Mapping};
use adit_core::testing::nat::{Dependence, Ports, Rules};

use super::scene::{Ground, Scene};
use super::{SECOND, ms, seeds_or};

/// Returns all kinds, by mapping, filtering and choice of port.
fn kinds() -> Vec<Rules> {
    let mut kinds = vec![Rules::firewall()];
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            for ports in [Ports::Preserving, Ports::Random] {
                kinds.push(Rules { mapping, filtering, ports, ..Rules::full_cone() });
            }
        }
    }
    kinds
}

/// Returns true for a NAT with another port for every destination. Two of them behind
/// endpoint-independent filters could exchange packets, but neither would ever be answered from the
/// address that it probed, and such an answer validates no path.
fn is_strict(rules: &Rules) -> bool {
    rules.translates && rules.mapping == Dependence::AddressAndPort
}

#[test]
fn every_pair_of_nats_goes_direct_that_can_and_stays_on_the_relay_otherwise() {
    let kinds = kinds();
    let (mut direct, mut relayed, mut wrong) = (0, 0, Vec::new());
    for (index, agent) in kinds.iter().enumerate() {
        for (other, connector) in kinds.iter().enumerate() {
            let seed = (index * kinds.len() + other) as u64;
            let mut scene = Scene::new(seed, &Ground::behind(*agent, *connector));
            scene.connect();
            let expected = agent.meets(connector) && !(is_strict(agent) && is_strict(connector));
            let is_direct = scene.goes_direct(8 * SECOND);
            if is_direct != expected {
                let name =
                    |it: &Rules| format!("{:?} {:?} {:?}", it.mapping, it.filtering, it.ports);
                wrong.push(format!("{} and {}: {is_direct}", name(agent), name(connector)));
            }
            if is_direct { direct += 1 } else { relayed += 1 }
        }
    }
    println!("{direct} pairs direct, {relayed} on the relay");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(direct > 0 && relayed > 0);
}

#[test]
fn incompatible_nats_are_relayed_within_a_second_with_the_reason() {
    let hard = Rules::symmetric();
    let mut scene = Scene::attached(1, &Ground::behind(hard, hard));
    let began = scene.lab.now();
    scene.peer = scene.lab.find(scene.agent, "web", "connector");
    scene.connect();
    assert!(scene.lab.now() - began <= SECOND);
    scene.lab.run_for(5 * SECOND);
    let path = scene.lab.path(scene.agent, scene.peer);
    assert_eq!((path.mapping, path.peer.mapping), (Mapping::Dependent, Mapping::Dependent));
    let knocked: u64 =
        path.paths.iter().filter(|way| way.address.is_some()).map(|way| way.sent).sum();
    assert!(knocked <= 40, "{knocked} probes to where nobody can be");
    assert!(path.paths.iter().any(|way| way.sentence.contains("cannot work")), "{path:?}");
}

#[test]
fn the_kind_of_mapping_is_found_out_by_two_addresses_of_a_relay() {
    for (rules, mapping) in [
        (Rules::full_cone(), Mapping::Independent),
        (Rules::port_restricted(), Mapping::Independent),
        (Rules::symmetric(), Mapping::Dependent),
        (Rules::address_dependent(), Mapping::Dependent),
        (Rules::firewall(), Mapping::None),
    ] {
        let ground = Ground { agent: Some(rules), ..Ground::default() };
        let scene = Scene::attached(1, &ground);
        let snapshot = scene.lab.node(scene.agent).snapshot();
        assert_eq!(snapshot.mapping, mapping, "{rules:?}");
        assert_eq!(scene.lab.node(scene.connector).snapshot().mapping, Mapping::None);
    }
}

#[test]
fn a_pair_behind_one_nat_meets_at_its_own_addresses() {
    let mut scene =
        Scene::connected(1, &Ground::behind(Rules::port_restricted(), Rules::full_cone()));
    assert!(scene.goes_direct(ms(2_000)));
}

#[test]
fn incompatible_nats_go_direct_only_with_a_port_mapping() {
    let hard = Rules::symmetric();
    for seed in 1..=seeds_or(4) {
        let mut scene = Scene::connected(seed, &Ground::behind(hard, hard));
        assert!(!scene.goes_direct(8 * SECOND), "seed {seed}");
        let (connector, nat) = (scene.connector, scene.nats[1].unwrap());
        let inside = scene.lab.address(connector);
        let now = scene.lab.now();
        let external = scene.lab.internet_mut().nat_mut(nat).forward(7_000, inside);
        scene.lab.handle(connector, Input::MappedAddresses(vec![external]));
        assert!(scene.goes_direct(8 * SECOND), "seed {seed}: no direct path");
        println!("seed {seed}: direct after {:?}", scene.lab.now() - now);
        let path = scene.lab.path(scene.agent, scene.peer);
        let used = path.paths.iter().find(|way| way.in_use).unwrap();
        assert_eq!((used.address, used.kind), (Some(external), Some(CandidateType::Mapped)));

        scene.lab.internet_mut().nat_mut(nat).end_forward(external);
        scene.lab.handle(connector, Input::MappedAddresses(Vec::new()));
        let (agent, peer) = (scene.agent, scene.peer);
        assert!(scene.lab.run_until(|lab| !lab.is_direct(agent, peer), 5 * SECOND));
        assert!(!scene.goes_direct(20 * SECOND), "seed {seed}");
        assert!(scene.lab.is_connected(agent, peer));
        assert_eq!(scene.reconnections(), 0, "seed {seed}");
    }
}

#[test]
fn an_unmapped_gateway_address_gets_few_probes_and_no_use() {
    let hard = Rules::symmetric();
    let mut scene = Scene::connected(1, &Ground::behind(hard, hard));
    let lie = SocketAddr::from(([203, 0, 113, 250], 7_000));
    scene.lab.handle(scene.connector, Input::MappedAddresses(vec![lie]));
    assert!(!scene.goes_direct(20 * SECOND));
    let path = scene.lab.path(scene.agent, scene.peer);
    let way = path.paths.iter().find(|way| way.address == Some(lie)).unwrap();
    assert!(way.sent > 0 && way.sent <= 40 && way.answered == 0, "{way:?}");
}
