//! Tests of the lab itself: every kind of NAT maps and filters as its name requires, links delay
//! and lose as configured, and all is removed afterwards.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::nat::Dependence;

use super::namespace::Namespace;
use super::nat::Kind;
use super::net::{Net, Public};
use super::probe::{Observers, punches, socket};

const MS: Duration = Duration::from_millis(1);

fn server(net: &mut Net) -> (Public, Observers) {
    let server = net.public("server", &[10, 11]);
    let observers = Observers::of(&server);
    (server, observers)
}

#[test]
fn every_kind_maps_and_filters_as_it_is_named() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    for kind in Kind::ALL {
        let site = net.site(0, kind);
        let found = (observers.mapping(&site.host, 5_000), observers.filtering(&site.host, 5_001));
        let rules = kind.rules();
        assert_eq!(found, (Some(rules.mapping), Some(rules.filtering)), "{kind:?}");
        let host = socket(&site.host, Ipv4Addr::UNSPECIFIED, 5_002);
        let seen = observers.see(&host)[0].unwrap();
        let expected = if rules.translates { site.external } else { site.address() };
        assert_eq!(seen.ip(), expected, "{kind:?}");
    }
}

#[test]
fn two_routers_in_a_row_are_as_strict_as_the_stricter_one() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    for (home, carrier, mapping, filtering) in [
        (Kind::FullCone, Kind::PortRestricted, Dependence::Independent, Dependence::AddressAndPort),
        (
            Kind::PortRestricted,
            Kind::Symmetric,
            Dependence::AddressAndPort,
            Dependence::AddressAndPort,
        ),
        (Kind::AddressRestricted, Kind::FullCone, Dependence::Independent, Dependence::Address),
    ] {
        let site = net.site_behind(0, home, carrier);
        let found = (observers.mapping(&site.host, 5_000), observers.filtering(&site.host, 5_001));
        assert_eq!(found, (Some(mapping), Some(filtering)), "{home:?} behind {carrier:?}");
    }
}

#[test]
fn two_hosts_connect_exactly_where_their_routers_allow() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    for (n, one) in Kind::ALL.into_iter().enumerate() {
        let a = net.site(0, one);
        for other in Kind::ALL.into_iter().skip(n) {
            let b = net.site(1, other);
            let port = 6_000 + 10 * n as u16 + other as u16;
            assert_eq!(punches(&observers, (&a, &b), port), one.meets(other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn where_udp_is_blocked_no_datagram_passes_and_tcp_does() {
    let Some(mut net) = Net::new() else { return };
    let (server, observers) = server(&mut net);
    let site = net.site(0, Kind::PortRestricted);
    let host = socket(&site.host, Ipv4Addr::UNSPECIFIED, 5_000);
    let address = (server.addresses[0], 443);
    let _listener = server.inside.enter(|| std::net::TcpListener::bind(address).unwrap());
    let reaches = || site.host.enter(|| std::net::TcpStream::connect(address).is_ok());
    site.block_udp();
    assert_eq!((observers.see(&host)[0], reaches()), (None, true));
    site.allow_udp();
    assert!(observers.see(&host)[0].is_some());
}

#[test]
fn a_cut_stops_only_two_sites_until_it_is_restored() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    let (a, b) = (net.site(0, Kind::FullCone), net.site(1, Kind::FullCone));
    assert!(punches(&observers, (&a, &b), 5_000));
    a.cut(&b);
    assert!(!punches(&observers, (&a, &b), 5_001));
    a.mend();
    assert!(punches(&observers, (&a, &b), 5_002));
}

#[test]
fn a_host_is_reached_again_after_another_address_and_after_its_cable_was_out() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    let mut site = net.site(0, Kind::PortRestricted);
    let sees = |site: &super::net::Site, port| {
        let host = socket(&site.host, Ipv4Addr::UNSPECIFIED, port);
        observers.see(&host)[0].is_some()
    };
    let before = site.address();
    site.change_address();
    assert_ne!(site.address(), before);
    assert!(sees(&site, 5_000));
    site.unplug();
    assert!(!sees(&site, 5_001));
    site.replug();
    assert!(sees(&site, 5_002));
}

#[test]
fn a_wire_delays_and_loses_as_configured_and_changed() {
    let Some(mut net) = Net::new() else { return };
    let (_server, observers) = server(&mut net);
    let link = Conditions { latency: 20 * MS, ..Conditions::default() };
    let site = net.site_by(0, Kind::PortRestricted, Some(&link));
    let echo = net.public("echo", &[12]);
    let far = socket(&echo.inside, echo.addresses[0], 7);
    let near = socket(&site.host, Ipv4Addr::UNSPECIFIED, 5_000);
    // The first one waits for address resolution on the links.
    assert!(observers.see(&near)[0].is_some());
    let took = shortest_round_trip(&near, &far, 80 * MS);
    assert!((40 * MS..80 * MS).contains(&took), "{took:?}");
    let wire = site.wire.as_ref().unwrap();
    wire.change(|conditions| conditions.latency = 5 * MS);
    let took = shortest_round_trip(&near, &far, 38 * MS);
    assert!((10 * MS..38 * MS).contains(&took), "{took:?}");
    wire.change(|conditions| conditions.loss = Loss::Random(1.0));
    assert_eq!(round_trip(&near, &far, 0), None);
}

/// Returns the shortest of many round trips, or the first one below a limit: a busy machine makes
/// some longer, and none shorter.
fn shortest_round_trip(near: &UdpSocket, far: &UdpSocket, limit: Duration) -> Duration {
    let mut shortest = Duration::MAX;
    for took in (0..100).filter_map(|number| round_trip(near, far, number)) {
        shortest = shortest.min(took);
        if shortest < limit {
            break;
        }
    }
    shortest
}

/// Returns the time of a round trip. Returns `None` if it takes too long, or if what arrives
/// belongs to an earlier one that did.
fn round_trip(near: &UdpSocket, far: &UdpSocket, number: u8) -> Option<Duration> {
    let (began, mut there, mut back) = (Instant::now(), [0], [0]);
    near.send_to(&[number], far.local_addr().unwrap()).unwrap();
    let (_, from) = far.recv_from(&mut there).ok()?;
    far.send_to(&there, from).unwrap();
    near.recv_from(&mut back).ok()?;
    (there == [number] && back == [number]).then(|| began.elapsed())
}

#[test]
fn a_namespace_is_gone_with_its_owner() {
    if Net::new().is_none() {
        return;
    }
    let exists = || {
        let names = std::fs::read_dir("/run/netns").unwrap().map(|e| e.unwrap().file_name());
        names.into_iter().any(|name| name.to_str().unwrap().ends_with("-fleeting"))
    };
    let namespace = Namespace::new("fleeting");
    assert!(exists());
    drop(namespace);
    assert!(!exists());
}
