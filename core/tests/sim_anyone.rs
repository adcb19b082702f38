//! A node that accepts anyone, in virtual time: how it identifies its diallers, and for how long.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use adit_core::config::{Builder, Config, Dial};
use adit_core::error::{Code, Misuse};
use adit_core::lifecycle::State;
use adit_core::testing::clock::EPOCH;
use adit_core::testing::crypto::SeededCrypto;
use adit_core::testing::link::Conditions;
use adit_core::testing::pair::{self, Pair};
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::{Identity, KeyDigest, Standing, Tls, Trust};

fn builder(identity: Identity, trust: Trust) -> Builder {
    Config::builder(Tls::with_provider(identity, trust, SeededCrypto::new([7; 32]).provider()))
}

/// Returns a relay's identity: a self-signed certificate.
fn own() -> Identity {
    Pki::stranger().issue(pair::CONNECTOR, Role::Connector).identity()
}

fn key_of_own() -> KeyDigest {
    KeyDigest::of_certificate(&own().chain()[0]).unwrap()
}

/// Returns a dialler that knows the relay by its key, and a relay that knows no peer.
fn meeting(seed: u64, dialler: Identity) -> Pair {
    let change = |_| builder(dialler, Trust::pinned_leaf(key_of_own()));
    let serve = |_| builder(own(), Trust::anyone()).listening(true);
    Pair::with(seed, Conditions::default(), change, serve)
}

#[test]
fn a_member_and_a_guest_are_let_in_each_as_what_it_is() {
    let mesh = KeyDigest::of_certificate(&Pki::new().root()).unwrap();
    let issued = Pki::new().issue("agent", Role::Agent);
    let member = issued.identity().presenting(Pki::new().root_pem().as_bytes()).unwrap();
    for (identity, standing, mesh) in
        [(member, Standing::Member, Some(mesh)), (issued.identity(), Standing::Guest, None)]
    {
        let mut pair = meeting(1, identity);
        let (to_relay, to_dialler) = pair.connect();
        let found = pair.connector().peer_snapshot(to_dialler).unwrap().credential.unwrap();
        assert_eq!((found.standing, found.mesh), (standing, mesh));
        assert_eq!(found.key, KeyDigest::of_certificate(&issued.chain()[0]).unwrap());
        let relay = pair.agent().peer_snapshot(to_relay).unwrap().credential.unwrap();
        assert_eq!((relay.key, relay.mesh), (key_of_own(), None));
    }
}

#[test]
fn a_member_whose_certificate_ends_while_connected_does_not_stay_as_a_guest() {
    let year = Duration::from_secs(365 * 86_400);
    let validity =
        Validity { not_before: EPOCH - year, not_after: EPOCH + Duration::from_secs(60) };
    let issued = Pki::new().issue_valid("agent", Role::Agent, validity);
    let member = issued.identity().presenting(Pki::new().root_pem().as_bytes()).unwrap();
    let mut pair = meeting(2, member);
    let (to_relay, to_dialler) = pair.connect();
    pair.world.run_for(Duration::from_secs(59));
    assert!(pair.connector().peer_snapshot(to_dialler).is_some(), "it ended early");
    pair.world.run_for(Duration::from_secs(2));
    assert!(pair.connector().peer_snapshot(to_dialler).is_none());
    let state = pair.agent().state(to_relay).cloned();
    let Some(State::Failed { error, .. }) = state else { panic!("{state:?}") };
    assert_eq!(
        (error.code(), error.detail()),
        (Code::Unauthenticated, "the certificate has expired")
    );
}

#[test]
fn a_node_without_trust_anchors_cannot_dial() {
    let mut pair = meeting(3, own());
    let (node, now) = pair.world.node_mut(pair.connector);
    let to = "127.0.0.1:1".parse().unwrap();
    let refused = node.dial(Dial::new(to, "anybody"), now);
    assert_eq!(refused, Err(Misuse::NotDialling));
}
