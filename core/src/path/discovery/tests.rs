//! What relays see, what follows from it, and whose report does not count.

use super::super::{CandidateAddress, CandidateType, Mapping};
use super::{AddressDiscovery, FORGET, MAX_RELAYS};
use crate::id::PeerId;
use crate::probe::{LEN, Probe, ProbeKey, ProbeKind};
use crate::rng::Rng;
use crate::timer::anchor;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NANO: Duration = Duration::from_nanos(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(relay: u8) -> ProbeKey {
    ProbeKey::new([relay; 32])
}

fn discovery(now: Instant) -> AddressDiscovery {
    let mut discovery = AddressDiscovery::new(Rng::new([1; 32], "discovery"), now);
    discovery.set_local(&[at("10.0.0.1:4000")]);
    discovery
}

fn welcome(
    discovery: &mut AddressDiscovery,
    relay: u8,
    observed: &str,
    asks: &[&str],
    now: Instant,
) {
    let asks: Vec<_> = asks.iter().map(|it| at(it)).collect();
    let id = PeerId(relay.into());
    let observed = (!observed.is_empty()).then(|| at(observed));
    discovery.on_welcome(id, observed, &asks, relay.into(), key(relay), now);
}

/// What the relay answers to `ping`, seeing it come from `observed`.
fn answer(ping: &[u8; LEN], relay: u8, observed: &str) -> [u8; LEN] {
    let ping = Probe::decode(ping, &key(relay)).unwrap();
    let observed = Some(at(observed));
    Probe { kind: ProbeKind::Pong, observed, ..ping }.encode(&key(relay))
}

/// Asks, and answers each relay's address with what it sees.
fn ask(discovery: &mut AddressDiscovery, seen: &[(&str, u8, &str)], now: Instant) {
    while let Some((to, ping)) = discovery.poll(now) {
        if let Some((_, relay, observed)) = seen.iter().find(|it| at(it.0) == to) {
            assert!(discovery.handle_probe(to, &answer(&ping, *relay, observed), now));
        }
    }
}

#[test]
fn a_new_discovery_offers_the_hosts_own_addresses_and_knows_no_mapping() {
    let discovery = discovery(anchor());
    assert_eq!(discovery.candidates()[0].kind, CandidateType::Host);
    assert_eq!(discovery.mapping(), Mapping::Unknown);
}

#[test]
fn what_a_relay_sees_is_a_candidate_beside_the_hosts_own() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &[], now);
    discovery.set_mapped(&[at("198.51.100.1:7000")]);
    let expected = [
        CandidateAddress { kind: CandidateType::Host, address: at("10.0.0.1:4000") },
        CandidateAddress { kind: CandidateType::Mapped, address: at("198.51.100.1:7000") },
        CandidateAddress { kind: CandidateType::Reflexive, address: at("198.51.100.1:4000") },
    ];
    assert_eq!(discovery.candidates(), expected);
    discovery.on_relay_lost(PeerId(1));
    assert_eq!(discovery.candidates(), expected[..2]);
}

#[test]
fn few_and_only_possible_addresses_of_a_gateway_are_offered() {
    let mut discovery = discovery(anchor());
    let wrong =
        ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "224.0.0.1:1", "169.254.0.1:1", "192.0.2.1:0"];
    discovery.set_mapped(&wrong.map(at));
    assert_eq!(discovery.candidates().len(), 1, "{:?}", discovery.candidates());
    let many: Vec<_> = (1..=100).map(|port| at(&format!("198.51.100.1:{port}"))).collect();
    discovery.set_mapped(&many);
    assert_eq!(discovery.candidates().len(), 1 + super::MAX_MAPPED);
    let revision = discovery.revision();
    discovery.set_mapped(&[]);
    assert_eq!(discovery.candidates().len(), 1);
    assert_eq!(discovery.revision(), revision + 1);
}

#[test]
fn over_tcp_what_the_relay_saw_is_no_candidate_and_is_asked_again() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4001")], now);
    assert_eq!(discovery.candidates().len(), 3);
    welcome(&mut discovery, 1, "", &["192.0.2.1:1"], now);
    let own = [CandidateAddress { kind: CandidateType::Host, address: at("10.0.0.1:4000") }];
    assert_eq!(discovery.candidates(), own);
    assert_eq!(discovery.mapping(), Mapping::Unknown);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4002")], now);
    assert_eq!(discovery.candidates()[1].address, at("198.51.100.1:4002"));
    assert_eq!(discovery.candidates().len(), 2);
}

#[test]
fn two_relays_distinguish_independent_from_dependent_mappings() {
    for (second, mapping) in
        [("198.51.100.1:4000", Mapping::Independent), ("198.51.100.1:4001", Mapping::Dependent)]
    {
        let now = anchor();
        let mut discovery = discovery(now);
        welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
        welcome(&mut discovery, 2, "198.51.100.1:4000", &["192.0.2.2:1"], now);
        assert_eq!(discovery.mapping(), Mapping::Unknown);
        let seen = [("192.0.2.1:1", 1, "198.51.100.1:4000"), ("192.0.2.2:1", 2, second)];
        ask(&mut discovery, &seen, now);
        assert_eq!(discovery.mapping(), mapping);
    }
}

#[test]
fn an_address_of_the_host_itself_means_that_there_is_no_nat() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "10.0.0.1:4000", &[], now);
    assert_eq!(discovery.mapping(), Mapping::None);
    assert_eq!(discovery.candidates().len(), 1);
}

#[test]
fn the_worse_mapping_of_both_families_counts() {
    let now = anchor();
    let mut discovery = discovery(now);
    discovery.set_local(&[at("10.0.0.1:4000"), at("[2001:db8::1]:4000")]);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1", "[2001:db8::2]:1"], now);
    welcome(&mut discovery, 2, "198.51.100.1:4000", &["192.0.2.2:1"], now);
    let seen = [
        ("192.0.2.1:1", 1, "198.51.100.1:4000"),
        ("192.0.2.2:1", 2, "198.51.100.1:4001"),
        ("[2001:db8::2]:1", 1, "[2001:db8::1]:4000"),
    ];
    ask(&mut discovery, &seen, now);
    assert_eq!(discovery.mapping(), Mapping::Dependent);
}

#[test]
fn an_answer_is_followed_by_the_next_question_in_about_twenty_seconds() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4000")], now);
    let (next, _) = discovery.deadline().unwrap();
    assert!((18..22).contains(&(next - now).as_secs()));
    assert!(discovery.poll(next - NANO).is_none());
    assert!(discovery.poll(next).is_some());
}

#[test]
fn without_an_answer_the_question_comes_again_and_what_was_seen_is_forgotten_after_six() {
    let start = anchor();
    let mut discovery = discovery(start);
    welcome(&mut discovery, 1, "10.9.9.9:1", &["192.0.2.1:1"], start);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4000")], start);
    assert_eq!(discovery.candidates().len(), 3);
    let mut waits = Vec::new();
    let mut now = discovery.deadline().unwrap().0;
    for _ in 0..FORGET {
        assert!(discovery.poll(now).is_some());
        let (next, _) = discovery.deadline().unwrap();
        waits.push((next - now).as_millis());
        now = next;
    }
    assert_eq!(waits[..5], [500, 1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits[5], 16_000);
    assert_eq!(discovery.candidates().len(), 3);
    assert!(discovery.poll(now).is_some());
    assert_eq!(discovery.candidates().len(), 2);
}

#[test]
fn only_the_answer_to_the_open_question_from_where_it_was_asked_counts() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    let (to, ping) = discovery.poll(now).unwrap();
    let right = answer(&ping, 1, "198.51.100.1:5000");
    let before = discovery.revision();
    let mut flipped = right;
    flipped[30] ^= 1;
    assert!(!discovery.handle_probe(to, &flipped, now), "forged");
    assert!(!discovery.handle_probe(at("192.0.2.1:2"), &right, now), "from elsewhere");
    assert!(!discovery.handle_probe(to, &ping, now), "its own question");
    assert_eq!(discovery.revision(), before);
    assert!(discovery.handle_probe(to, &right, now));
    assert!(!discovery.handle_probe(to, &right, now), "twice");
    assert_eq!(discovery.revision(), before + 1);
}

#[test]
fn the_revision_counts_changes_and_nothing_else() {
    let now = anchor();
    let mut discovery = discovery(now);
    assert_eq!(discovery.revision(), 1);
    discovery.set_local(&[at("10.0.0.1:4000")]);
    assert_eq!(discovery.revision(), 1);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    assert_eq!(discovery.revision(), 2);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4000")], now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    assert_eq!(discovery.revision(), 2);
}

#[test]
fn a_fifth_relay_and_a_fifth_address_of_one_are_not_asked() {
    let now = anchor();
    let mut discovery = discovery(now);
    for relay in 1..=5_u8 {
        let asks: Vec<_> = (1..=5).map(|port| format!("192.0.2.{relay}:{port}")).collect();
        let asks: Vec<_> = asks.iter().map(String::as_str).collect();
        welcome(&mut discovery, relay, "198.51.100.1:4000", &asks, now);
    }
    let asked = std::iter::from_fn(|| discovery.poll(now)).count();
    assert_eq!(asked, MAX_RELAYS * 4);
}

#[test]
fn a_network_change_pings_every_relay_immediately() {
    let now = anchor();
    let mut discovery = discovery(now);
    welcome(&mut discovery, 1, "198.51.100.1:4000", &["192.0.2.1:1"], now);
    ask(&mut discovery, &[("192.0.2.1:1", 1, "198.51.100.1:4000")], now);
    discovery.on_network_changed(now);
    assert!(discovery.poll(now).is_some());
}
