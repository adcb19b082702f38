//! Nodes behind NATs that dial public ones, in virtual time: what a user sees when addresses
//! change.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::config::{Dial, Transport};
use adit_core::error::Misuse;
use adit_core::event::Event;
use adit_core::id::PeerId;
use adit_core::lifecycle::State;
use adit_core::testing::lab::{Lab, NatId, Passage, Place};
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::nat::{Dependence, Ports, Rules};
use adit_core::testing::net::HostId;
use adit_core::testing::pair::pattern;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An agent behind a NAT, connected to a public connector.
struct Home {
    lab: Lab,
    nat: NatId,
    agent: HostId,
    connector: HostId,
    peer: PeerId,
}

impl Home {
    fn with(seed: u64, rules: Rules, conditions: Conditions) -> Self {
        let mut lab = Lab::with(seed, conditions);
        let nat = lab.nat(rules, Place::Public);
        let agent = lab.agent(Place::Behind(nat));
        let connector = lab.connector("db", Place::Public);
        let peer = lab.dial(agent, connector, "db");
        assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
        lab.run_for(SECOND);
        Self { lab, nat, agent, connector, peer }
    }

    fn new(seed: u64, rules: Rules) -> Self {
        Self::with(seed, rules, Conditions::default())
    }

    /// Returns the agent's address as the connector sees it.
    fn seen(&self) -> SocketAddr {
        let peer = self.lab.accepted(self.connector).unwrap();
        self.lab.peer(self.connector, peer).remote
    }

    /// Returns true if that is an address of this NAT.
    fn is_seen_at(&mut self, nat: NatId) -> bool {
        let seen = self.seen();
        self.lab.internet_mut().nat_mut(nat).owns(seen)
    }

    /// Uploads while `change` happens after the first megabyte. Returns the longest stall.
    fn upload_through(&mut self, change: impl FnOnce(&mut Self)) -> Duration {
        let length = 3 << 20;
        let transfer = self.lab.start_upload((self.agent, self.peer), self.connector, length);
        let has_megabyte = |lab: &mut Lab| lab.transfer(transfer).read() > 1 << 20;
        assert!(self.lab.run_until(has_megabyte, MINUTE));
        change(self);
        let is_complete = self.lab.run_until(|lab| lab.transfer(transfer).is_complete(), MINUTE);
        let now = self.lab.now();
        let transfer = self.lab.transfer(transfer);
        assert!(is_complete, "{} of {length}: {:?}", transfer.read(), transfer.broken());
        transfer.longest_stall(now)
    }
}

/// Returns the rules of a NAT with new ports for each new mapping.
fn restless() -> Rules {
    Rules { ports: Ports::Random, ..Rules::port_restricted() }
}

#[test]
fn a_public_connector_is_reached_from_behind_every_kind_of_nat() {
    for mapping in Dependence::ALL {
        for (filtering, ports) in Dependence::ALL.into_iter().zip(Ports::ALL) {
            let rules = Rules { mapping, filtering, ports, ..Rules::full_cone() };
            let mut home = Home::new(1, rules);
            assert!(home.is_seen_at(home.nat));
            assert!(home.upload_through(|_| ()) < SECOND);
        }
    }
}

#[test]
fn a_connector_behind_a_nat_that_it_sent_nothing_through_is_not_reached() {
    for rules in [Rules::full_cone(), Rules::firewall()] {
        let mut lab = Lab::new(2);
        let nat = lab.nat(rules, Place::Public);
        let connector = lab.connector("db", Place::Behind(nat));
        let agent = lab.agent(Place::Public);
        let to = if rules.translates {
            SocketAddr::new(lab.internet_mut().nat_mut(nat).external(), 4_433)
        } else {
            lab.address(connector)
        };
        let peer = lab.dial_with(agent, Dial::new(to, "db"));
        assert!(!lab.run_until(|lab| lab.is_connected(agent, peer), MINUTE));
        assert!(lab.internet().fates().filtered > 0);
    }
}

#[test]
fn blocked_udp_lets_no_packet_out() {
    let mut lab = Lab::new(3);
    let nat = lab.nat(Rules::blocks_udp(), Place::Public);
    let (agent, connector) = (lab.agent(Place::Behind(nat)), lab.connector("db", Place::Public));
    let peer = lab.dial(agent, connector, "db");
    lab.run_for(MINUTE);
    let state = lab.node(agent).state(peer).unwrap();
    assert!(matches!(state, State::Reconnecting { .. } | State::Connecting { .. }), "{state:?}");
    assert_eq!(lab.internet().fates().delivered, 0);
}

#[test]
fn two_nats_in_a_row_are_passed_like_one() {
    let mut lab = Lab::new(4);
    let carrier = lab.nat(Rules::symmetric(), Place::Public);
    let home = lab.nat(Rules::port_restricted(), Place::Behind(carrier));
    let (agent, connector) = (lab.agent(Place::Behind(home)), lab.connector("db", Place::Public));
    let peer = lab.dial(agent, connector, "db");
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
    let transfer = lab.start_download((agent, peer), connector, 1 << 20);
    assert!(lab.run_until(|lab| lab.transfer(transfer).is_complete(), 10 * SECOND));
    assert!(lab.transfer(transfer).took().unwrap() < 5 * SECOND);
}

#[test]
fn an_expired_mapping_moves_the_connection_without_loss() {
    let rules = Rules { lifetime: 5 * SECOND, ..restless() };
    let mut home = Home::new(5, rules);
    let before = home.seen();
    home.lab.run_for(3 * MINUTE);
    assert!(home.lab.is_connected(home.agent, home.peer));
    assert_ne!(home.seen(), before);
    assert!(home.upload_through(|_| ()) < SECOND);
    assert_eq!(home.lab.peer(home.agent, home.peer).reconnections, 0);
}

#[test]
fn a_nat_that_forgets_everything_during_an_upload_costs_a_moment() {
    let mut home = Home::new(6, restless());
    let before = home.seen();
    let stall = home.upload_through(|home| home.lab.internet_mut().nat_mut(home.nat).reboot());
    assert_ne!(home.seen(), before);
    assert!(stall < 2 * SECOND, "{stall:?}");
    assert_eq!(home.lab.peer(home.agent, home.peer).reconnections, 0);
}

#[test]
fn a_nat_that_gets_another_address_during_an_upload_costs_a_moment() {
    let mut home = Home::new(7, Rules::port_restricted());
    let stall = home.upload_through(|home| {
        home.lab.internet_mut().nat_mut(home.nat).set_external([203, 0, 113, 200].into());
    });
    assert_eq!(
        home.seen(),
        SocketAddr::from(([203, 0, 113, 200], home.lab.address(home.agent).port()))
    );
    assert!(stall < 2 * SECOND, "{stall:?}");
}

#[test]
fn a_host_that_changes_networks_continues_with_or_without_notice() {
    for is_notified in [true, false] {
        let mut home = Home::new(8, Rules::port_restricted());
        let mobile = home.lab.nat(Rules::symmetric(), Place::Public);
        let stall = home.upload_through(|home| {
            home.lab.roam(home.agent, Place::Behind(mobile), is_notified);
        });
        assert!(home.is_seen_at(mobile));
        assert!(stall < 2 * SECOND, "notified {is_notified}: {stall:?}");
    }
}

#[test]
fn datagrams_are_counted_as_lost_late_and_doubled() {
    let rough = Conditions {
        loss: Loss::Bursty { worsen: 0.02, improve: 0.5, loss: 0.8 },
        reorder: 0.02,
        duplicate: 0.5,
        ..Conditions::default()
    };
    let mut home = Home::with(9, Rules::symmetric(), rough);
    let flow = home.lab.start_datagrams((home.agent, home.peer), 200, 300);
    home.lab.run_for(10 * SECOND);
    home.lab.stop_datagrams(flow);
    home.lab.run_for(SECOND);
    let flow = home.lab.datagrams(flow);
    assert_eq!(flow.sent + flow.refused, 2_001);
    let lost = flow.missing() as f64 / flow.sent as f64;
    assert!((0.01..0.15).contains(&lost), "expected about 0.8 * 0.02 / 0.52: {flow:?}");
    assert!(flow.reordered > 0, "{flow:?}");
    // QUIC never processes a packet twice (RFC 9000 §12.3).
    assert_eq!(flow.duplicated, 0, "{flow:?}");
    assert!(flow.longest_silence < SECOND, "{flow:?}");
}

#[test]
fn a_cut_in_one_direction_is_detected_and_healed() {
    let mut home = Home::new(10, Rules::port_restricted());
    let (agent, connector, peer) = (home.agent, home.connector, home.peer);
    home.lab.internet_mut().crossing_mut(connector, agent).is_cut = true;
    let has_noticed = |lab: &mut Lab| !lab.is_connected(agent, peer);
    assert!(home.lab.run_until(has_noticed, 2 * MINUTE));
    home.lab.internet_mut().crossing_mut(connector, agent).is_cut = false;
    assert!(home.lab.run_until(|lab| lab.is_connected(agent, peer), MINUTE));
}

#[test]
fn a_global_address_behind_a_firewall_dials_by_ipv6() {
    let mut lab = Lab::new(11);
    let nat = lab.nat(Rules::symmetric(), Place::Public);
    let (agent, connector) = (lab.agent(Place::Behind(nat)), lab.connector("db", Place::Public));
    for host in [agent, connector] {
        let address = lab.global_address(host);
        lab.add_address(host, address);
    }
    let to = lab.global_address(connector);
    let peer = lab.dial_with(agent, Dial::new(to, "db"));
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
    let accepted = lab.accepted(connector).unwrap();
    assert_eq!(lab.peer(connector, accepted).remote, lab.global_address(agent));
}

#[test]
fn a_destination_of_a_missing_address_family_fails_immediately() {
    let mut lab = Lab::new(12);
    let agent = lab.agent(Place::Public);
    lab.dial_with(agent, Dial::new("[2001:db8::9]:4433".parse().unwrap(), "db"));
    let has_failed = |lab: &mut Lab| {
        let is_failure = |event: &Event| matches!(event, Event::AttemptFailed { .. });
        lab.log(agent).iter().any(|(_, event)| is_failure(event))
    };
    assert!(lab.run_until(has_failed, SECOND));
}

#[test]
fn a_restarted_connector_is_found_again() {
    let mut home = Home::new(13, Rules::symmetric());
    let (agent, connector, peer) = (home.agent, home.connector, home.peer);
    home.lab.crash(connector);
    home.lab.run_for(5 * SECOND);
    home.lab.restart(connector);
    let is_back = |lab: &mut Lab| lab.peer(agent, peer).reconnections == 1;
    assert!(home.lab.run_until(is_back, 3 * MINUTE));
    assert!(home.lab.run_until(|lab| lab.is_connected(agent, peer), MINUTE));
}

#[test]
fn captured_packets_in_both_directions_show_no_content() {
    let mut home = Home::new(14, Rules::port_restricted());
    home.lab.capture(home.connector);
    home.upload_through(|_| ());
    let captured = home.lab.take_captured(home.connector);
    for passage in [Passage::In, Passage::Out] {
        assert!(captured.iter().filter(|c| c.passage == passage).count() > 100);
    }
    assert!(captured.iter().all(|c| !c.contains(&pattern(5_000, 16))));
    let known = captured[0].packet.payload.clone();
    assert!(captured[0].contains(&known[known.len() - 9..]));
    assert!(home.lab.take_captured(home.connector).is_empty());
}

#[test]
fn a_second_address_of_a_host_is_answered_beside_its_node() {
    let mut lab = Lab::new(15);
    let (relay, first, second) = lab.relay_host();
    let home = lab.nat(Rules::symmetric(), Place::Public);
    let stranger = lab.add_host(Place::Behind(home), vec!["192.168.0.77:9".parse().unwrap()]);
    lab.answer_at(
        relay,
        second,
        Box::new(|bytes, from, _| Some([bytes, from.to_string().as_bytes()].concat())),
    );
    lab.capture(stranger);
    for to in [second, first] {
        lab.send(stranger, to, b"who am I: ");
    }
    lab.run_for(SECOND);
    let captured = lab.take_captured(stranger);
    let answers: Vec<_> = captured.iter().filter(|c| c.passage == Passage::In).collect();
    assert_eq!((answers.len(), answers[0].packet.from), (1, second));
    assert!(answers[0].contains(b"who am I: 203.0.113.1:"));
}

#[test]
fn the_same_seed_gives_the_same_lab_and_another_seed_another() {
    let print = |seed| {
        let rough =
            Conditions { loss: Loss::Random(0.02), jitter: SECOND / 50, ..Conditions::default() };
        let mut home = Home::with(seed, restless(), rough);
        home.upload_through(|home| home.lab.internet_mut().nat_mut(home.nat).reboot());
        (home.lab.trace().fingerprint(), home.lab.trace().items())
    };
    assert_eq!(print(16), print(16));
    assert_ne!(print(16), print(17));
}

/// Returns the time from the return of a connector that was away for two minutes to the agent's
/// connection, where a caller waits for it from then on or none does.
fn found_again(seed: u64, away: Duration, is_wanted: bool) -> Duration {
    let mut lab = Lab::new(seed);
    let connector = lab.connector("db", Place::Public);
    let transport = Transport::default().connect_timeout(10 * SECOND);
    let agent = lab.agent_with(Place::Public, |builder| builder.transport(transport));
    let peer = lab.dial(agent, connector, "db");
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
    lab.crash(connector);
    lab.run_for(away);
    assert!(!lab.is_connected(agent, peer));
    lab.restart(connector);
    let back = lab.now();
    while !lab.is_connected(agent, peer) {
        if is_wanted {
            let (node, now) = lab.node_mut(agent);
            node.dial_now(peer, now);
        }
        lab.run_until(|lab| lab.is_connected(agent, peer), SECOND / 4);
        assert!(lab.now() < back + MINUTE, "seed {seed}: not found again");
    }
    lab.now() - back
}

#[test]
fn a_connector_that_returns_is_found_within_the_longest_wait_without_demand() {
    for seed in 0..20 {
        // The last packet of an attempt is sent 3 s before its end; then comes the longest wait.
        let took = found_again(seed, 2 * MINUTE + seed as u32 * SECOND, false);
        assert!(took <= 23 * SECOND, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_connector_that_is_waited_for_is_found_within_seconds() {
    for seed in 0..20 {
        // An attempt that began before the return sends its first packet again after 1, 2 and 4 s.
        let took = found_again(seed, 2 * MINUTE + seed as u32 * SECOND, true);
        assert!(took <= 6 * SECOND, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_stream_that_cannot_be_opened_has_the_peer_dialled() {
    let mut lab = Lab::new(1);
    let connector = lab.connector("db", Place::Public);
    let transport = Transport::default().connect_timeout(SECOND);
    let agent = lab.agent_with(Place::Public, |builder| builder.transport(transport));
    let peer = lab.dial(agent, connector, "db");
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
    lab.crash(connector);
    lab.run_for(5 * MINUTE);
    // The next wait is of ten seconds or more.
    let failures = |lab: &Lab| {
        let failed = |(_, event): &&(_, Event)| matches!(event, Event::AttemptFailed { .. });
        lab.log(agent).iter().filter(failed).count()
    };
    let before = failures(&lab);
    assert!(lab.run_until(|lab| failures(lab) > before, MINUTE));
    lab.run_for(2 * SECOND);
    lab.restart(connector);
    let (node, _) = lab.node_mut(agent);
    assert_eq!(node.open(peer, "web".parse().unwrap()), Err(Misuse::NotConnected));
    assert!(lab.run_until(|lab| lab.is_connected(agent, peer), SECOND));
}

#[test]
fn a_connector_that_changes_its_address_is_followed_and_found_there_again() {
    for is_notified in [true, false] {
        let mut lab = Lab::new(21);
        let (agent, connector) = (lab.agent(Place::Public), lab.connector("db", Place::Public));
        let peer = lab.dial(agent, connector, "db");
        assert!(lab.run_until(|lab| lab.is_connected(agent, peer), 10 * SECOND));
        lab.run_for(SECOND);
        let upload = lab.start_upload((agent, peer), connector, 3 << 20);
        assert!(lab.run_until(|lab| lab.transfer(upload).read() > 1 << 20, MINUTE));
        let before = lab.address(connector);
        lab.roam(connector, Place::Public, is_notified);
        let now_at = lab.address(connector);
        assert_ne!(now_at, before);
        assert!(lab.run_until(|lab| lab.transfer(upload).is_complete(), MINUTE));
        let stall = lab.transfer(upload).longest_stall(lab.now());
        assert!(stall < 2 * SECOND, "notified {is_notified}: {stall:?}");
        assert_eq!(lab.peer(agent, peer).remote, now_at);
        lab.crash(connector);
        lab.run_for(2 * MINUTE);
        assert!(!lab.is_connected(agent, peer));
        lab.restart(connector);
        assert!(lab.run_until(|lab| lab.is_connected(agent, peer), MINUTE), "not found again");
        assert_eq!(lab.peer(agent, peer).remote, now_at);
    }
}
