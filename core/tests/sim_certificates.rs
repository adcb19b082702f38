//! Certificates in virtual time: which are trusted, for how long, and what a new identity or new
//! trust anchors do to connections that exist.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use adit_core::config::Builder;
use adit_core::error::{Category, Code, Failure};
use adit_core::event::Event;
use adit_core::id::PeerId;
use adit_core::lifecycle::State;
use adit_core::testing::clock::EPOCH;
use adit_core::testing::crypto::SeededCrypto;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{self, Pair, is_connected};
use adit_core::testing::pki::{Issued, Pki, Role, Validity};
use adit_core::tls::{Identity, KeyDigest, Standing, Tls, Trust};

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Returns a configuration with another identity and other trust anchors.
fn with(identity: Identity, trust: Trust) -> impl FnOnce(Builder) -> Builder {
    move |_| builder(identity, trust)
}

fn builder(identity: Identity, trust: Trust) -> Builder {
    adit_core::config::Config::builder(tls(identity, trust))
}

fn tls(identity: Identity, trust: Trust) -> Tls {
    Tls::with_provider(identity, trust, SeededCrypto::new([7; 32]).provider())
}

fn issued(name: &str, role: Role) -> Issued {
    Pki::new().issue(name, role)
}

/// Returns a certificate that expires this long after the world began.
fn ending(name: &str, role: Role, after: Duration) -> Issued {
    let validity = Validity { not_before: EPOCH - YEAR, not_after: EPOCH + after };
    Pki::new().issue_valid(name, role, validity)
}

/// Returns the connector's identity with the CA's certificate behind its own.
fn presenting_the_ca() -> Identity {
    let own = issued(pair::CONNECTOR, Role::Connector);
    Identity::new([own.chain(), vec![Pki::new().root()]].concat(), own.key())
}

fn ca_key() -> KeyDigest {
    KeyDigest::of_certificate(&Pki::new().root()).unwrap()
}

fn guests(of: &Issued, until: Duration) -> BTreeMap<KeyDigest, Duration> {
    BTreeMap::from([(KeyDigest::of_certificate(&of.chain()[0]).unwrap(), until)])
}

fn failure_of(pair: &mut Pair, peer: PeerId) -> Failure {
    let (agent, mut found) = (pair.agent, None);
    pair.wait("the agent to fail", |world| {
        if let Some(State::Failed { error, .. }) = world.node(agent).state(peer) {
            found = Some(error.clone());
        }
        found.is_some()
    });
    found.unwrap()
}

/// Waits until a host's peer is closed. Returns the failure and how long that took.
fn closed(pair: &mut Pair, host: HostId, peer: PeerId) -> (Failure, Duration) {
    let (start, mut found) = (pair.world.now(), None);
    pair.wait("the peer to be closed", |world| {
        while let Some(event) = world.poll_event(host) {
            if let Event::Closed { peer: closed, failure } = event
                && closed == peer
            {
                found = Some(failure);
            }
        }
        found.is_some()
    });
    (found.unwrap(), pair.world.now() - start)
}

#[test]
fn a_peers_identity_is_the_leaf_of_its_chain() {
    let (leaf, other) = (issued("agent", Role::Agent), issued("admin", Role::Agent));
    let chain = [leaf.chain(), other.chain(), vec![Pki::new().root()]].concat();
    let identity = Identity::new(chain, leaf.key());
    let change = with(identity, Pki::new().trust());
    let mut pair = Pair::with(1, Conditions::default(), change, |c| c);
    let (_, to_agent) = pair.connect();
    let credential = pair.connector().peer_snapshot(to_agent).unwrap().credential.unwrap();
    assert_eq!((credential.names, credential.standing), (vec!["agent".into()], Standing::Member));
    assert_eq!(credential.key, KeyDigest::of_certificate(&leaf.chain()[0]).unwrap());
    assert_eq!(credential.not_after, Some(Validity::CURRENT.not_after));
}

#[test]
fn a_strangers_leaf_is_refused_with_any_chain() {
    let leaf = Pki::stranger().issue("agent", Role::Agent);
    let chain = [leaf.chain(), issued("agent", Role::Agent).chain()].concat();
    let change = with(Identity::new(chain, leaf.key()), Pki::new().trust());
    let mut pair = Pair::with(2, Conditions::default(), change, |c| c);
    let peer = pair.dial();
    assert_eq!(failure_of(&mut pair, peer).code(), Code::Unauthenticated);
    assert!(pair.connector().snapshot().peers.is_empty());
}

#[test]
fn a_revoked_device_is_refused_and_another_of_the_same_list_is_not() {
    for (revoked, is_refused) in [(&["agent"][..], true), (&["someone", "else"], false)] {
        let list = Pki::new().revoked_pem(revoked);
        let trust = Pki::new().trust().with_revoked_pem(list.as_bytes()).unwrap();
        let own = issued(pair::CONNECTOR, Role::Connector).identity();
        let change = move |_| builder(own, trust).listening(true);
        let mut pair = Pair::with(3, Conditions::default(), |a| a, change);
        let peer = pair.dial();
        if is_refused {
            let failure = failure_of(&mut pair, peer);
            assert_eq!(failure.category(), Category::Authentication, "{failure}");
            assert!(failure.detail().contains("revoked"), "{failure}");
        } else {
            let agent = pair.agent;
            pair.wait("the agent to be up", |world| is_connected(world, agent, peer));
        }
    }
}

#[test]
fn revoking_a_connected_device_ends_it_immediately_and_permanently() {
    let mut pair = Pair::new(4);
    let (to_connector, to_agent) = pair.connect();
    let list = Pki::new().revoked_pem(&["agent"]);
    let trust = Pki::new().trust().with_revoked_pem(list.as_bytes()).unwrap();
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let (node, now) = pair.world.node_mut(pair.connector);
    node.set_tls(tls(own, trust), now).unwrap();
    let connector = pair.connector;
    let (failure, took) = closed(&mut pair, connector, to_agent);
    assert_eq!((failure.code(), took), (Code::Unauthenticated, Duration::ZERO));
    let told = failure_of(&mut pair, to_connector);
    assert_eq!(
        (told.code(), told.detail()),
        (Code::Unauthenticated, "the certificate was revoked")
    );
    pair.connector().audit();
}

#[test]
fn a_new_identity_leaves_connections_alone_and_serves_the_next() {
    let mut pair = Pair::new(5);
    let (to_connector, to_agent) = pair.connect();
    let longer = ending(pair::CONNECTOR, Role::Connector, 10 * YEAR);
    let (node, now) = pair.world.node_mut(pair.connector);
    node.set_tls(tls(longer.identity(), Pki::new().trust()), now).unwrap();
    pair.world.run_for(SECOND);
    assert!(pair.connector().peer_snapshot(to_agent).is_some());
    let first = pair.agent().peer_snapshot(to_connector).unwrap().credential.unwrap();
    pair.agent().disconnect(to_connector, now).ok();
    let (to_connector, _) = pair.connect();
    let second = pair.agent().peer_snapshot(to_connector).unwrap().credential.unwrap();
    assert_eq!(first.not_after, Some(Validity::CURRENT.not_after));
    assert_eq!(second.not_after, Some(EPOCH + 10 * YEAR));
}

#[test]
fn a_certificate_that_ends_while_connected_ends_the_connection_in_that_second() {
    let life = Duration::from_secs(3_600);
    let agent = ending("agent", Role::Agent, life).identity();
    let change = with(agent, Pki::new().trust());
    let mut pair = Pair::with(6, Conditions::default(), change, |c| c);
    let (to_connector, to_agent) = pair.connect();
    pair.world.run_for(life - SECOND);
    assert!(pair.connector().peer_snapshot(to_agent).is_some(), "it ended early");
    let (start, connector) = (pair.world.now(), pair.connector);
    let (failure, took) = closed(&mut pair, connector, to_agent);
    assert_eq!(failure.code(), Code::Unauthenticated);
    assert!(took <= 2 * SECOND, "{took:?} after {start:?}");
    assert_eq!(failure_of(&mut pair, to_connector).detail(), "the certificate has expired");
}

#[test]
fn an_expired_acceptor_is_dialled_again_with_its_next_certificate() {
    let own = ending(pair::CONNECTOR, Role::Connector, Duration::from_secs(60)).identity();
    let change = |_| builder(own, Pki::new().trust()).listening(true);
    let mut pair = Pair::with(7, Conditions::default(), |a| a, change);
    let (to_connector, _) = pair.connect();
    // A renewal in time: a connection that exists does not show it.
    let next = tls(issued(pair::CONNECTOR, Role::Connector).identity(), Pki::new().trust());
    let (node, now) = pair.world.node_mut(pair.connector);
    node.set_tls(next, now).unwrap();
    pair.world.run_for(Duration::from_secs(65));
    let again = pair.agent().peer_snapshot(to_connector).unwrap();
    assert_eq!(again.reconnections, 1);
    assert_eq!(again.credential.unwrap().not_after, Some(Validity::CURRENT.not_after));
}

#[test]
fn an_expired_acceptor_is_retried_until_it_has_a_new_certificate() {
    let own = ending(pair::CONNECTOR, Role::Connector, Duration::from_secs(60)).identity();
    let change = |_| builder(own, Pki::new().trust()).listening(true);
    let mut pair = Pair::with(13, Conditions::default(), |a| a, change);
    let (to_connector, _) = pair.connect();
    pair.world.run_for(Duration::from_secs(70));
    let state = pair.agent().state(to_connector).cloned();
    let Some(State::Reconnecting { last_error, .. }) = state else { panic!("{state:?}") };
    assert!(last_error.detail().contains("not valid at the time of this clock"), "{last_error}");
}

#[test]
fn a_device_that_renews_keeps_its_connection_past_the_end_of_its_first_certificate() {
    let agent = ending("agent", Role::Agent, Duration::from_secs(60)).identity();
    let change = with(agent, Pki::new().trust());
    let mut pair = Pair::with(14, Conditions::default(), change, |c| c);
    let (to_connector, to_agent) = pair.connect();
    let next = ending("agent", Role::Agent, Duration::from_secs(120)).chain();
    let other = issued("another", Role::Agent).chain();
    let foreign = Pki::stranger().issue("agent", Role::Agent).chain();
    let (node, now) = pair.world.node_mut(pair.connector);
    assert!(node.renew_credential(to_agent, other, now).is_err());
    assert!(node.renew_credential(to_agent, foreign, now).is_err());
    assert!(node.renew_credential(to_agent, Vec::new(), now).is_err());
    node.renew_credential(to_agent, next, now).unwrap();
    pair.world.run_for(Duration::from_secs(119));
    assert!(pair.connector().peer_snapshot(to_agent).is_some(), "it was not kept");
    pair.world.run_for(Duration::from_secs(5));
    assert!(pair.connector().peer_snapshot(to_agent).is_none());
    assert_eq!(failure_of(&mut pair, to_connector).detail(), "the certificate has expired");
}

#[test]
fn a_guest_does_not_become_a_member_by_a_certificate() {
    let guest = Pki::stranger().issue("guest", Role::Agent);
    let trust = Pki::new().trust().with_guests(guests(&guest, EPOCH + YEAR));
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let change = with(guest.identity(), Pki::new().trust());
    let serve = |_| builder(own, trust).listening(true);
    let mut pair = Pair::with(15, Conditions::default(), change, serve);
    let (_, to_agent) = pair.connect();
    let (node, now) = pair.world.node_mut(pair.connector);
    let chain = issued("agent", Role::Agent).chain();
    assert!(node.renew_credential(to_agent, chain, now).is_err());
    assert!(node.peer_snapshot(to_agent).unwrap().credential.unwrap().is_guest());
}

#[test]
fn a_forged_refusal_does_not_end_a_link_that_had_been_up() {
    let mut pair = Pair::new(16);
    let (to_connector, _) = pair.connect();
    // An attacker on the path takes the connector's address and answers with its own identity.
    pair.world.crash(pair.connector);
    let stranger = Pki::stranger().issue(pair::CONNECTOR, Role::Connector).identity();
    let forger = builder(stranger, Pki::new().trust()).listening(true).build().unwrap();
    pair.world.start(pair.connector, forger, 1);
    pair.world.run_for(Duration::from_secs(120));
    let state = pair.agent().state(to_connector).cloned();
    let Some(State::Reconnecting { last_error, .. }) = state else { panic!("{state:?}") };
    assert_eq!(last_error.category(), Category::Authentication);
    // The attacker leaves.
    pair.world.crash(pair.connector);
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let real = builder(own, Pki::new().trust()).listening(true).build().unwrap();
    pair.world.start(pair.connector, real, 1);
    let agent = pair.agent;
    pair.wait("the agent to be up again", |world| is_connected(world, agent, to_connector));
}

#[test]
fn only_a_wall_clock_set_ahead_expires_certificates() {
    let mut pair = Pair::new(8);
    let (_, to_agent) = pair.connect();
    pair.world.set_unix(pair.connector, EPOCH - 20 * SECOND);
    pair.world.run_for(60 * SECOND);
    assert!(pair.connector().peer_snapshot(to_agent).is_some());
    pair.world.set_unix(pair.connector, EPOCH + 3 * YEAR);
    let connector = pair.connector;
    let (failure, _) = closed(&mut pair, connector, to_agent);
    assert_eq!(failure.detail(), "the certificate has expired");
}

#[test]
fn only_a_pinned_ca_that_is_presented_is_trusted() {
    let own = issued("agent", Role::Agent);
    for (pin, chain, is_good) in [
        (ca_key(), presenting_the_ca(), true),
        (KeyDigest([9; 32]), presenting_the_ca(), false),
        (ca_key(), issued(pair::CONNECTOR, Role::Connector).identity(), false),
    ] {
        let change = with(own.identity(), Trust::pinned(pin));
        let serve = |_| builder(chain, Pki::new().trust()).listening(true);
        let mut pair = Pair::with(9, Conditions::default(), change, serve);
        let peer = pair.dial();
        if is_good {
            let agent = pair.agent;
            pair.wait("the agent to be up", |world| is_connected(world, agent, peer));
        } else {
            assert_eq!(failure_of(&mut pair, peer).code(), Code::Unauthenticated);
        }
    }
}

#[test]
fn a_pinned_ca_vouches_for_its_own_certificates_alone() {
    // The stranger knows the CA's certificate, which is no secret, and has none that it issued.
    let own = Pki::stranger().issue(pair::CONNECTOR, Role::Connector);
    let chain = Identity::new([own.chain(), vec![Pki::new().root()]].concat(), own.key());
    let change = with(issued("agent", Role::Agent).identity(), Trust::pinned(ca_key()));
    let serve = |_| builder(chain, Pki::new().trust()).listening(true);
    let mut pair = Pair::with(10, Conditions::default(), change, serve);
    let peer = pair.dial();
    assert_eq!(failure_of(&mut pair, peer).code(), Code::Unauthenticated);
}

#[test]
fn a_node_that_pins_a_ca_cannot_accept() {
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let config = builder(own, Trust::pinned(ca_key())).listening(true).build().unwrap();
    let start = adit_core::node::Start {
        seed: [0; 32],
        now: adit_core::testing::clock::origin(),
        unix: EPOCH,
    };
    let error = adit_core::node::Node::new(config, start).unwrap_err();
    assert!(error.to_string().contains("for dialling alone"), "{error}");
}

#[test]
fn a_guest_is_let_in_by_its_key_without_a_name_and_until_its_time_is_over() {
    // A guest chooses the contents of its own certificate: here a member's name.
    let guest = Pki::stranger().issue("agent", Role::Agent);
    let until = EPOCH + Duration::from_secs(30);
    let trust = Pki::new().trust().with_guests(guests(&guest, until));
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let change = with(guest.identity(), Pki::new().trust());
    let serve = |_| builder(own, trust).listening(true);
    let mut pair = Pair::with(11, Conditions::default(), change, serve);
    let (to_connector, to_agent) = pair.connect();
    let credential = pair.connector().peer_snapshot(to_agent).unwrap().credential.unwrap();
    assert!(credential.is_guest() && credential.names.is_empty() && credential.uris.is_empty());
    assert_eq!(credential.key, KeyDigest::of_certificate(&guest.chain()[0]).unwrap());
    pair.world.run_for(29 * SECOND);
    assert!(pair.connector().peer_snapshot(to_agent).is_some());
    pair.world.run_for(3 * SECOND);
    assert!(pair.connector().peer_snapshot(to_agent).is_none());
    assert_eq!(failure_of(&mut pair, to_connector).code(), Code::Unauthenticated);
}

#[test]
fn a_guest_who_is_not_invited_any_more_is_cut_off() {
    let guest = Pki::stranger().issue("agent", Role::Agent);
    let trust = Pki::new().trust().with_guests(guests(&guest, EPOCH + YEAR));
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let change = with(guest.identity(), Pki::new().trust());
    let serve = |_| builder(own.clone(), trust).listening(true);
    let mut pair = Pair::with(12, Conditions::default(), change, serve);
    let (_, to_agent) = pair.connect();
    let own = issued(pair::CONNECTOR, Role::Connector).identity();
    let (node, now) = pair.world.node_mut(pair.connector);
    node.set_tls(tls(own, Pki::new().trust()), now).unwrap();
    let connector = pair.connector;
    assert_eq!(closed(&mut pair, connector, to_agent).0.code(), Code::Unauthenticated);
}

#[test]
fn a_guests_certificate_without_its_key_is_refused() {
    // Mallory presents the guest's certificate, which was observed, with a key of her own.
    let guest = Pki::stranger().issue("agent", Role::Agent);
    let mallory = Identity::new(guest.chain(), Pki::stranger().issue("mallory", Role::Agent).key());
    let trust = Pki::new().trust().with_guests(guests(&guest, EPOCH + YEAR));
    let config = builder(mallory, trust);
    let start = adit_core::node::Start {
        seed: [0; 32],
        now: adit_core::testing::clock::origin(),
        unix: EPOCH,
    };
    // rustls does not present a certificate with a key that is not its own.
    let made = adit_core::node::Node::new(config.build().unwrap(), start);
    assert!(made.unwrap_err().to_string().contains("certificate and key"));
}
