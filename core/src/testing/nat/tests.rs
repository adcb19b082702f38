use super::*;
use crate::testing::clock::origin;
use std::collections::BTreeSet;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

fn outside() -> IpAddr {
    IpAddr::from([203, 0, 113, 1])
}

fn inside(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 168, 0, host], port))
}

fn far(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

fn nat(rules: Rules) -> Nat {
    Nat::new(rules, outside(), [7; 32])
}

/// Returns the external sockets of one inside socket towards: a peer, another port of it, another
/// peer.
fn towards_three(nat: &mut Nat) -> [SocketAddr; 3] {
    [far(1, 10), far(1, 11), far(2, 10)]
        .map(|to| nat.outbound(inside(2, 5000), to, origin()).unwrap())
}

#[test]
fn a_mapping_depends_on_what_it_is_named_for() {
    // RFC 4787 §4.1, with every filter and every choice of ports.
    for (filtering, ports) in every_other_rule() {
        let seen = Dependence::ALL.map(|mapping| {
            towards_three(&mut nat(Rules { mapping, filtering, ports, ..Rules::full_cone() }))
        });
        let [independent, address, both] = seen;
        assert!(independent[0] == independent[1] && independent[1] == independent[2]);
        assert!(address[0] == address[1] && address[1] != address[2]);
        assert_eq!(BTreeSet::from(both).len(), 3, "{both:?}");
    }
}

#[test]
fn a_filter_lets_in_what_it_is_named_for() {
    // RFC 4787 §5: a peer that was sent to, another port of it, another peer.
    for (mapping, ports) in every_other_rule() {
        let let_in = Dependence::ALL.map(|filtering| {
            let mut nat = nat(Rules { mapping, filtering, ports, ..Rules::full_cone() });
            let seen = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
            [far(1, 10), far(1, 11), far(2, 10)].map(|from| {
                let to = nat.inbound(from, seen, origin());
                assert!(to.is_none_or(|to| to == inside(2, 5000)));
                to.is_some()
            })
        });
        assert_eq!(let_in, [[true, true, true], [true, true, false], [true, false, false]]);
    }
}

#[test]
fn nothing_comes_in_where_nothing_went_out() {
    for rules in [Rules::full_cone(), Rules::symmetric(), Rules::firewall()] {
        let mut nat = nat(rules);
        assert_eq!(nat.inbound(far(1, 10), SocketAddr::new(outside(), 5000), origin()), None);
        assert_eq!(nat.inbound(far(1, 10), inside(2, 5000), origin()), None);
        assert_eq!(nat.mappings(origin()), 0);
    }
}

#[test]
fn filters_of_two_mappings_are_independent() {
    let mut nat = nat(Rules::symmetric());
    let [one, other, _] = towards_three(&mut nat);
    assert_eq!(nat.inbound(far(1, 10), one, origin()), Some(inside(2, 5000)));
    assert_eq!(nat.inbound(far(1, 11), one, origin()), None);
    assert_eq!(nat.inbound(far(1, 11), other, origin()), Some(inside(2, 5000)));
}

#[test]
fn a_kept_port_is_the_inside_one_and_the_next_free_one_where_that_is_taken() {
    // RFC 4787 §4.2.1; REQ-3: never the same port for two.
    let mut nat = nat(Rules::full_cone());
    let ports = [1, 2, 3]
        .map(|host| nat.outbound(inside(host, 65_535), far(1, 10), origin()).unwrap().port());
    assert_eq!(ports, [65_535, FIRST_PORT, FIRST_PORT + 1]);
    let low = nat.outbound(inside(1, 80), far(1, 10), origin()).unwrap().port();
    assert_eq!(low, 80);
}

#[test]
fn sequential_ports_follow_one_another_over_all_hosts() {
    let mut nat = nat(Rules { ports: Ports::Sequential, ..Rules::symmetric() });
    let ports =
        [1, 2, 3, 4].map(|n| nat.outbound(inside(n, 9), far(n, 9), origin()).unwrap().port());
    assert!(ports.windows(2).all(|pair| pair[1] == following(pair[0])), "{ports:?}");
}

#[test]
fn random_ports_follow_the_seed_and_nothing_else() {
    let ports = |seed: u8| {
        let mut nat = Nat::new(Rules::symmetric(), outside(), [seed; 32]);
        (0..20).map(|n| nat.outbound(inside(2, 9), far(1, n), origin()).unwrap().port()).collect()
    };
    let (one, again, other): (Vec<u16>, Vec<u16>, Vec<u16>) = (ports(1), ports(1), ports(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert!(one.windows(2).filter(|pair| pair[1] == pair[0] + 1).count() < 2, "{one:?}");
}

#[test]
fn no_port_is_given_out_twice_and_when_none_is_left_nothing_passes() {
    for ports in Ports::ALL {
        let mut nat = nat(Rules { ports, ..Rules::full_cone() });
        // The highest ports are taken first, so that the search has to go round.
        nat.next_port = 65_000;
        for port in FIRST_PORT..=65_535 {
            nat.mappings.insert(
                (inside(2, port), None),
                NatMapping {
                    external: SocketAddr::new(outside(), port),
                    refreshed: origin(),
                    permitted: BTreeMap::new(),
                },
            );
        }
        assert_eq!(nat.outbound(inside(9, 2_000), far(1, 10), origin()), None);
        nat.mappings.remove(&(inside(2, 1_500), None));
        let last = nat.outbound(inside(9, 2_000), far(1, 10), origin());
        assert_eq!(last, Some(SocketAddr::new(outside(), 1_500)));
    }
}

#[test]
fn a_mapping_ends_exactly_at_its_lifetime_and_outbound_refreshes_it() {
    // RFC 4787 §4.3, REQ-6.
    let rules = Rules { ports: Ports::Random, ..Rules::port_restricted() };
    let mut nat = nat(rules);
    let first = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
    let refreshed = origin() + 200 * SECOND;
    assert_eq!(nat.outbound(inside(2, 5000), far(1, 10), refreshed), Some(first));
    let end = refreshed + rules.lifetime;
    assert_eq!(nat.inbound(far(1, 10), first, end - TICK), Some(inside(2, 5000)));
    assert_eq!(nat.inbound(far(1, 10), first, end), None);
    assert_ne!(nat.outbound(inside(2, 5000), far(1, 10), end), Some(first));
}

#[test]
fn inbound_refreshes_only_where_the_rules_allow() {
    for inbound_refreshes in [false, true] {
        let rules = Rules { inbound_refreshes, ..Rules::port_restricted() };
        let mut nat = nat(rules);
        let seen = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
        let half = origin() + rules.lifetime / 2;
        assert_eq!(nat.inbound(far(1, 10), seen, half), Some(inside(2, 5000)));
        let is_open = nat.inbound(far(1, 10), seen, origin() + rules.lifetime).is_some();
        assert_eq!(is_open, inbound_refreshes);
    }
}

#[test]
fn a_stranger_that_is_let_in_gives_no_permission_and_one_that_is_not_refreshes_nothing() {
    let rules = Rules { inbound_refreshes: true, ..Rules::port_restricted() };
    let mut nat = nat(rules);
    let seen = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
    let half = origin() + rules.lifetime / 2;
    assert_eq!(nat.inbound(far(2, 10), seen, half), None);
    assert_eq!(nat.mappings(origin() + rules.lifetime), 0);
    nat.rules_mut().filtering = Dependence::Independent;
    nat.outbound(inside(2, 5000), far(1, 10), origin());
    assert!(nat.inbound(far(2, 10), seen, half).is_some());
    nat.rules_mut().filtering = Dependence::AddressAndPort;
    assert!(nat.inbound(far(2, 10), seen, half).is_none());
}

#[test]
fn a_permission_ends_alone_while_its_mapping_is_used_for_others() {
    let rules = Rules::port_restricted();
    let mut nat = nat(rules);
    let seen = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
    nat.outbound(inside(2, 5000), far(2, 10), origin() + 200 * SECOND);
    let end = origin() + rules.lifetime;
    assert!(nat.inbound(far(1, 10), seen, end - TICK).is_some());
    assert_eq!(nat.inbound(far(1, 10), seen, end), None);
    assert!(nat.inbound(far(2, 10), seen, end).is_some());
}

#[test]
fn hairpinned_datagrams_come_from_an_external_address_or_not_at_all() {
    // RFC 4787 §6, REQ-9a.
    for hairpins in [false, true] {
        let mut nat = nat(Rules { hairpins, ..Rules::full_cone() });
        let other = nat.outbound(inside(3, 6000), far(1, 10), origin()).unwrap();
        let came = nat.hairpin(inside(2, 5000), other, origin());
        let external = SocketAddr::new(outside(), 5000);
        assert_eq!(came, hairpins.then_some((external, inside(3, 6000))));
    }
}

#[test]
fn a_hairpinned_datagram_meets_the_filter_like_any_other() {
    let mut nat = nat(Rules { hairpins: true, ..Rules::port_restricted() });
    let [one, other] =
        [2, 3].map(|host| nat.outbound(inside(host, 5000), far(1, 10), origin()).unwrap());
    assert_eq!(nat.hairpin(inside(2, 5000), other, origin()), None);
    assert_eq!(nat.hairpin(inside(3, 5000), one, origin()), Some((other, inside(2, 5000))));
    assert_eq!(nat.hairpin(inside(2, 5000), other, origin()), Some((one, inside(3, 5000))));
}

#[test]
fn a_firewall_translates_nothing_and_lets_in_answers() {
    let mut wall = nat(Rules::firewall());
    assert_eq!(wall.outbound(inside(2, 5000), far(1, 10), origin()), Some(inside(2, 5000)));
    assert_eq!(wall.inbound(far(1, 10), inside(2, 5000), origin()), Some(inside(2, 5000)));
    assert_eq!(wall.inbound(far(1, 11), inside(2, 5000), origin()), None);
    assert!(!wall.owns(SocketAddr::new(outside(), 5000)));
}

#[test]
fn a_translator_of_ipv4_is_a_firewall_for_ipv6() {
    let v6 = |n: u16, port| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], port));
    let mut nat = nat(Rules::symmetric());
    for port in [10, 11] {
        assert_eq!(nat.outbound(v6(1, 5000), v6(2, port), origin()), Some(v6(1, 5000)));
    }
    assert_eq!(nat.inbound(v6(2, 11), v6(1, 5000), origin()), Some(v6(1, 5000)));
    assert_eq!(nat.inbound(v6(2, 12), v6(1, 5000), origin()), None);
}

#[test]
fn where_udp_is_blocked_nothing_passes_either_way_and_what_was_there_is_dead() {
    let mut nat = nat(Rules::port_restricted());
    let seen = nat.outbound(inside(2, 5000), far(1, 10), origin()).unwrap();
    *nat.rules_mut() = Rules::blocks_udp();
    assert_eq!(nat.outbound(inside(2, 5000), far(1, 10), origin()), None);
    assert_eq!(nat.inbound(far(1, 10), seen, origin()), None);
}

#[test]
fn a_port_forward_admits_all_sources_until_it_ends() {
    let mut nat = nat(Rules::symmetric());
    let host = inside(2, 5000);
    let before = nat.outbound(host, far(1, 10), origin()).unwrap();
    let external = nat.forward(7_000, host);
    assert_eq!(nat.inbound(far(2, 20), external, origin()), Some(host));
    assert_eq!(nat.outbound(host, far(2, 20), origin()), Some(external));
    assert_eq!(nat.outbound(host, far(1, 10), origin()), Some(before));
    nat.end_forward(external);
    assert_eq!(nat.inbound(far(2, 20), external, origin()), None);
    assert_ne!(nat.outbound(host, far(2, 20), origin()), Some(external));
}

#[test]
fn a_reboot_and_a_new_address_forget_everything() {
    let mut nat = nat(Rules::symmetric());
    let before = towards_three(&mut nat);
    nat.reboot();
    assert_eq!(nat.inbound(far(1, 10), before[0], origin()), None);
    assert_ne!(towards_three(&mut nat), before);
    nat.set_external(IpAddr::from([203, 0, 113, 9]));
    assert_eq!(nat.mappings(origin()), 0);
    let after = towards_three(&mut nat);
    assert!(nat.owns(after[0]));
    assert!(!nat.owns(before[0]));
}

fn every_other_rule() -> impl Iterator<Item = (Dependence, Ports)> {
    Dependence::ALL.into_iter().flat_map(|one| Ports::ALL.map(|ports| (one, ports)))
}
