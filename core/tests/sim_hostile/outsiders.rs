//! What unauthenticated peers receive, and what a peer may not begin.

use std::time::Duration;

use adit_core::error::Code;
use adit_core::event::Event;
use adit_core::lifecycle::State;
use adit_core::testing::pair::{self, CONNECTOR, Pair};
use adit_core::testing::pki::{Pki, Role};
use quinn_proto::Dir;

use crate::raw::Raw;
use crate::scene::{SECOND, Scene};

/// The size of the one packet that a handshake begins with (RFC 9000 §14.1).
const FIRST_PACKET: usize = 1_200;

#[test]
fn an_address_that_never_answers_gets_three_times_what_it_sent_and_no_more() {
    let mut scene = Scene::new(24);
    let host = scene.add_host();
    drop(Raw::new(&mut scene.world, host, &Pki::new().issue("agent", Role::Agent)));
    scene.run(120 * SECOND);
    let packets = std::iter::from_fn(|| scene.world.receive(host));
    let answered: usize = packets.map(|packet| packet.payload.len()).sum();
    assert!((1..=3 * FIRST_PACKET).contains(&answered), "{answered}");
    scene.end();
}

#[test]
fn a_peer_may_open_no_stream_of_one_direction() {
    let mut scene = Scene::new(25);
    scene.control();
    assert_eq!(scene.raw.connection.streams().open(Dir::Uni), None);
    assert!(scene.raw.open().is_some());
}

#[test]
fn a_process_on_a_connectors_address_cannot_reset_its_connections() {
    for (name, expected) in [(CONNECTOR, Some(Code::Reset)), ("somebody", None)] {
        let mut pair = Pair::new(26);
        let (to_connector, _) = pair.connect();
        let issued = Pki::new().issue(name, Role::Connector);
        pair.world.crash(pair.connector);
        let crypto = pair.world.crypto(pair.connector);
        let config = pair::with_identity(crypto, &issued).listening(true).build().unwrap();
        pair.world.start(pair.connector, config, 1);
        // The keep-alive reaches the process that is there now.
        pair.world.run_for(Duration::from_secs(11));
        let agent = pair.agent;
        let lost = std::iter::from_fn(|| pair.world.poll_event(agent)).find_map(|event| {
            let Event::Transition { peer, transition } = event else { return None };
            let State::Reconnecting { last_error, .. } = transition.to else { return None };
            (peer == to_connector).then(|| last_error.code())
        });
        assert_eq!(lost, expected, "{name}");
    }
}
