use super::*;
use crate::testing::clock::origin;
use crate::testing::nat::Dependence;

const MS: Duration = Duration::from_millis(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn internet() -> Internet {
    Internet::new([3; 32], Conditions::default())
}

fn send(net: &mut Internet, host: HostId, from: &str, to: SocketAddr, now: Instant) {
    net.send(host, Packet { from: at(from), to, ecn: None, payload: b"x".to_vec() }, now);
}

/// Returns the next arrival: its time after `now`, the receiving host, and the source address.
fn next(net: &mut Internet, now: Instant) -> Option<(Duration, HostId, SocketAddr)> {
    while let Some(at) = net.next_at() {
        if let Some((host, packet)) = net.poll(at) {
            return Some((at - now, host, packet.from));
        }
    }
    None
}

#[test]
fn a_datagram_takes_both_access_links_and_the_crossing() {
    let mut net = internet();
    let a = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    let b = net.add_host(Place::Public, vec![at("198.51.100.2:1")]);
    net.access_mut(b).1.latency = 5 * MS;
    send(&mut net, a, "198.51.100.1:1", at("198.51.100.2:1"), origin());
    assert_eq!(next(&mut net, origin()), Some((16 * MS, b, at("198.51.100.1:1"))));
}

#[test]
fn neighbours_in_one_network_cross_nothing_and_meet_no_box() {
    let mut net = internet();
    let home = net.add_nat(Rules::blocks_udp(), ip("203.0.113.1"), Place::Public);
    let a = net.add_host(Place::Behind(home), vec![at("192.168.0.1:1")]);
    let b = net.add_host(Place::Behind(home), vec![at("192.168.0.2:1")]);
    send(&mut net, a, "192.168.0.1:1", at("192.168.0.2:1"), origin());
    assert_eq!(next(&mut net, origin()), Some((2 * MS, b, at("192.168.0.1:1"))));
}

#[test]
fn equal_private_addresses_in_two_networks_are_two_hosts() {
    let mut net = internet();
    let homes = ["203.0.113.1", "203.0.113.2"]
        .map(|external| net.add_nat(Rules::full_cone(), ip(external), Place::Public));
    let [a, b] = homes.map(|home| net.add_host(Place::Behind(home), vec![at("192.168.0.1:1")]));
    let server = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    for (host, seen) in [(a, "203.0.113.1:1"), (b, "203.0.113.2:1")] {
        send(&mut net, host, "192.168.0.1:1", at("198.51.100.1:1"), origin());
        assert_eq!(next(&mut net, origin()).unwrap().2, at(seen));
        send(&mut net, server, "198.51.100.1:1", at(seen), origin());
        assert_eq!(next(&mut net, origin()).unwrap().1, host);
    }
    assert_eq!(net.fates(), Fates { sent: 4, delivered: 4, ..Fates::default() });
}

#[test]
fn two_boxes_one_behind_the_other_translate_twice_each_way() {
    let mut net = internet();
    let carrier = net.add_nat(Rules::symmetric(), ip("203.0.113.1"), Place::Public);
    let home = net.add_nat(Rules::full_cone(), ip("100.64.0.1"), Place::Behind(carrier));
    let a = net.add_host(Place::Behind(home), vec![at("192.168.0.1:7")]);
    let server = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    send(&mut net, a, "192.168.0.1:7", at("198.51.100.1:1"), origin());
    let (_, _, seen) = next(&mut net, origin()).unwrap();
    assert_eq!(seen.ip(), ip("203.0.113.1"));
    assert_ne!(seen.port(), 7);
    send(&mut net, server, "198.51.100.1:1", seen, origin());
    assert_eq!(next(&mut net, origin()).map(|(_, host, _)| host), Some(a));
    send(&mut net, server, "198.51.100.1:2", seen, origin());
    assert_eq!((next(&mut net, origin()), net.fates().filtered), (None, 1));
}

#[test]
fn two_homes_behind_one_carrier_connect_by_hairpin_or_outside_address() {
    let mut net = internet();
    let rules = Rules { hairpins: true, ..Rules::full_cone() };
    let carrier = net.add_nat(rules, ip("203.0.113.1"), Place::Public);
    let homes = ["100.64.0.1", "100.64.0.2"]
        .map(|external| net.add_nat(Rules::full_cone(), ip(external), Place::Behind(carrier)));
    let [a, b] = homes.map(|home| net.add_host(Place::Behind(home), vec![at("192.168.0.1:7")]));
    let server = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    let seen = [a, b].map(|host| {
        send(&mut net, host, "192.168.0.1:7", at("198.51.100.1:1"), origin());
        let (_, at_server, seen) = next(&mut net, origin()).unwrap();
        assert_eq!(at_server, server);
        seen
    });
    send(&mut net, a, "192.168.0.1:7", seen[1], origin());
    assert_eq!(next(&mut net, origin()).map(|(_, host, from)| (host, from)), Some((b, seen[0])));
    send(&mut net, a, "192.168.0.1:7", at("100.64.0.2:7"), origin());
    let arrived = next(&mut net, origin()).map(|(_, host, from)| (host, from));
    assert_eq!(arrived, Some((b, at("100.64.0.1:7"))));
    net.nat_mut(carrier).rules_mut().hairpins = false;
    send(&mut net, a, "192.168.0.1:7", seen[1], origin());
    assert_eq!((next(&mut net, origin()), net.fates().filtered), (None, 1));
}

#[test]
fn a_global_address_behind_a_firewall_is_reached_by_answers_alone() {
    let mut net = internet();
    let home = net.add_nat(Rules::port_restricted(), ip("203.0.113.1"), Place::Public);
    let addresses = vec![at("192.168.0.1:7"), at("[2001:db8::1]:7")];
    let a = net.add_host(Place::Behind(home), addresses);
    let server = net.add_host(Place::Public, vec![at("[2001:db8::2]:1")]);
    let (inside, outside) = (at("[2001:db8::1]:7"), at("[2001:db8::2]:1"));
    send(&mut net, server, "[2001:db8::2]:1", inside, origin());
    assert_eq!((next(&mut net, origin()), net.fates().filtered), (None, 1));
    send(&mut net, a, "[2001:db8::1]:7", outside, origin());
    assert_eq!(next(&mut net, origin()).map(|(_, _, from)| from), Some(inside));
    send(&mut net, server, "[2001:db8::2]:1", inside, origin());
    assert_eq!(next(&mut net, origin()).map(|(_, host, _)| host), Some(a));
}

#[test]
fn a_box_is_asked_when_a_datagram_gets_there_and_not_when_it_was_sent() {
    let mut net = internet();
    let home = net.add_nat(Rules::port_restricted(), ip("203.0.113.1"), Place::Public);
    let a = net.add_host(Place::Behind(home), vec![at("192.168.0.1:7")]);
    let server = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    let (seen, lifetime) = (at("203.0.113.1:7"), Rules::port_restricted().lifetime);
    send(&mut net, a, "192.168.0.1:7", at("198.51.100.1:1"), origin());
    next(&mut net, origin());
    // The mapping was made after 1 ms; a datagram to it takes 11 ms to get there.
    let last = origin() + lifetime - 10 * MS;
    for (sent, passes) in [(last - Duration::from_nanos(1), true), (last, false)] {
        send(&mut net, server, "198.51.100.1:1", seen, sent);
        assert_eq!(next(&mut net, origin()).is_some(), passes);
    }
}

#[test]
fn a_crossing_is_cut_one_way_and_only_for_its_pair() {
    let mut net = internet();
    let home = net.add_nat(Rules::full_cone(), ip("203.0.113.1"), Place::Public);
    let a = net.add_host(Place::Behind(home), vec![at("192.168.0.1:7")]);
    let [b, c] = ["198.51.100.1:1", "198.51.100.2:1"]
        .map(|address| net.add_host(Place::Public, vec![at(address)]));
    net.crossing_mut(a, b).is_cut = true;
    send(&mut net, a, "192.168.0.1:7", at("198.51.100.1:1"), origin());
    send(&mut net, b, "198.51.100.1:1", at("203.0.113.1:7"), origin());
    send(&mut net, a, "192.168.0.1:7", at("198.51.100.2:1"), origin());
    let reached: Vec<_> = std::iter::from_fn(|| next(&mut net, origin())).map(|n| n.1).collect();
    assert_eq!(reached, [a, c]);
    assert_eq!(net.fates().lost, 1);
}

#[test]
fn a_moved_host_is_not_reached_where_it_was() {
    let mut net = internet();
    let a = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    let b = net.add_host(Place::Public, vec![at("198.51.100.2:1")]);
    let home = net.add_nat(Rules::full_cone(), ip("203.0.113.1"), Place::Public);
    send(&mut net, a, "198.51.100.1:1", at("198.51.100.2:1"), origin());
    net.move_host(b, Place::Behind(home), vec![at("192.168.0.1:1")]);
    assert_eq!((next(&mut net, origin()), net.fates().unreachable), (None, 1));
    send(&mut net, b, "192.168.0.1:1", at("198.51.100.1:1"), origin());
    assert_eq!(next(&mut net, origin()).unwrap().2, at("203.0.113.1:1"));
}

#[test]
fn unknown_and_own_addresses_are_unreachable() {
    let mut net = internet();
    let a = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    for to in ["198.51.100.9:1", "198.51.100.1:1", "192.168.0.1:1"] {
        send(&mut net, a, "198.51.100.1:1", at(to), origin());
    }
    assert_eq!((next(&mut net, origin()), net.fates().unreachable), (None, 3));
}

#[test]
fn every_datagram_has_exactly_one_fate() {
    let mut net = Internet::new(
        [4; 32],
        Conditions { loss: crate::testing::link::Loss::Random(0.3), ..Conditions::default() },
    );
    let rules = Rules { filtering: Dependence::Address, ..Rules::symmetric() };
    let home = net.add_nat(rules, ip("203.0.113.1"), Place::Public);
    let a = net.add_host(Place::Behind(home), vec![at("192.168.0.1:7")]);
    let b = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    for n in 0..600u32 {
        let now = origin() + n * MS;
        match n % 3 {
            0 => send(&mut net, a, "192.168.0.1:7", at("198.51.100.1:1"), now),
            1 => send(&mut net, b, "198.51.100.1:1", at("203.0.113.1:7"), now),
            _ => send(&mut net, b, "198.51.100.1:1", at("198.51.100.99:1"), now),
        }
        while net.poll(now).is_some() {}
    }
    while next(&mut net, origin()).is_some() {}
    let fates = net.fates();
    assert!(fates.delivered > 0 && fates.lost > 0 && fates.filtered > 0);
    assert_eq!(fates.unreachable, 200);
    let ended = fates.delivered + fates.lost + fates.filtered + fates.unreachable;
    assert_eq!((fates.sent, ended), (600, 600));
}

#[test]
fn two_hosts_connect_exactly_where_their_nats_allow() {
    let mut all = vec![Rules::firewall(), Rules::blocks_udp()];
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            all.push(Rules { mapping, filtering, ..Rules::symmetric() });
        }
    }
    let mut meeting = 0;
    for one in &all {
        for other in &all {
            let meets = one.meets(other);
            assert_eq!(punches([*one, *other]), meets, "{one:?} {other:?}");
            assert_eq!(meets, other.meets(one));
            meeting += usize::from(meets);
        }
    }
    assert!((1..all.len() * all.len()).contains(&meeting), "{meeting}");
}

/// Returns true if two hosts reach each other: each sends to the address that a third host sees,
/// and to the sources of arriving packets.
fn punches(rules: [Rules; 2]) -> bool {
    let mut net = internet();
    let server = net.add_host(Place::Public, vec![at("198.51.100.1:1")]);
    let own = ["198.51.101.2:7", "198.51.102.2:7"];
    let hosts = [0, 1].map(|n| {
        let external = IpAddr::from([203, 0, 113, 1 + n as u8]);
        let home = net.add_nat(rules[n], external, Place::Public);
        net.add_host(Place::Behind(home), vec![at(own[n])])
    });
    let seen = [0, 1].map(|n| {
        send(&mut net, hosts[n], own[n], at("198.51.100.1:1"), origin());
        next(&mut net, origin()).map(|(_, host, from)| {
            assert_eq!(host, server);
            from
        })
    });
    let [Some(one), Some(other)] = seen else { return false };
    let (mut to, mut heard) = ([other, one], [false; 2]);
    for _ in 0..6 {
        for n in [0, 1] {
            send(&mut net, hosts[n], own[n], to[n], origin());
        }
        while let Some((_, host, from)) = next(&mut net, origin()) {
            let n = usize::from(host == hosts[1]);
            (to[n], heard[n]) = (from, true);
        }
    }
    heard == [true; 2]
}
