//! Coming, moving, leaving.

use crate::message::RelayMessage;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::*;

#[test]
fn welcome_reports_the_observed_address_and_its_changes() {
    let discovery: Vec<SocketAddr> = vec!["198.51.100.1:443".parse().unwrap()];
    let mut table = Table::new(|it| it.discovery = discovery.clone());
    table.attach(1, member(1));
    let Some((_, Message::Relay(RelayMessage::Welcome(first)))) = table.said.pop() else {
        panic!("no welcome")
    };
    assert_eq!(first.observed, "192.0.2.1:40001".parse().unwrap());
    assert_eq!(first.discovery, discovery);
    assert_eq!(first.session, table.relay.discovery().session_for(PeerId(1), &member(1).key));
    assert_eq!(first.key.0, table.relay.discovery().secret_for(first.session));

    table.relay.on_moved(PeerId(1), first.observed);
    table.drain();
    assert_eq!(table.heard(), Vec::<String>::new());
    table.relay.on_moved(PeerId(1), "[::ffff:192.0.2.77]:5".parse().unwrap());
    table.drain();
    assert_eq!(table.heard(), ["1 welcome 192.0.2.77:5"]);
    table.relay.on_moved(PeerId(1), "[fe80::7%3]:5".parse().unwrap());
    table.drain();
    assert_eq!(table.heard(), ["1 welcome [fe80::7]:5"]);
    table.relay.on_moved(PeerId(9), "192.0.2.9:5".parse().unwrap());
    table.drain();
    assert_eq!(table.heard(), Vec::<String>::new());
}

#[test]
fn as_many_clients_as_allowed_are_let_in_and_not_one_more() {
    let mut table = Table::new(|it| it.clients = 2);
    for client in [1, 2, 3] {
        table.attach(client, member(client as u8));
    }
    assert_eq!(table.broken, [(PeerId(3), Code::Overloaded)]);
    assert_eq!(table.heard(), ["1 welcome 192.0.2.1:40001", "2 welcome 192.0.2.2:40002"]);
    table.detach(1);
    table.attach(3, member(3));
    assert_eq!(table.relay.view(table.now).clients, 2);
}

#[test]
fn only_allowed_meshes_and_their_guests_are_admitted() {
    let mut table = Table::new(|it| it.meshes = Some(BTreeSet::from([MESH])));
    let foreign = |key| Client { mesh: Some(OTHER_MESH), ..member(key) };
    table.attach(1, foreign(1));
    assert_eq!(table.broken, [(PeerId(1), Code::Forbidden)]);
    table.attach(2, member(2));
    let listing = Register { guests: vec![KeyDigest([1; 32])], ..registration("home", &["db"]) };
    table.handle(2, &Message::Relay(RelayMessage::Register(listing)));
    table.attach(3, foreign(1));
    assert_eq!(table.broken.len(), 1);
    // It connected as a guest: its mesh is not served, so that it cannot register there.
    table.forget();
    table.register(3, "there", &[]);
    assert!(table.heard()[0].starts_with("3 unregistered forbidden"));
    assert_eq!(table.channel(3, "db").1, 2);
}

#[test]
fn clients_of_no_mesh_have_few_places_and_those_who_are_listed_need_none() {
    let mut table = Table::new(|it| it.guests = 1);
    table.attach(1, stranger(1));
    table.attach(2, stranger(2));
    assert_eq!(table.broken, [(PeerId(2), Code::Overloaded)]);
    table.attach(3, member(3));
    let listing = Register { guests: vec![KeyDigest([2; 32])], ..registration("home", &[]) };
    table.handle(3, &Message::Relay(RelayMessage::Register(listing)));
    table.attach(4, stranger(2));
    table.attach(5, stranger(5));
    assert_eq!(table.broken, [(PeerId(2), Code::Overloaded), (PeerId(5), Code::Overloaded)]);
    assert_eq!(table.relay.view(table.now).guests, 2);
}

#[test]
fn strangers_of_one_address_make_room_for_a_guest_of_another() {
    let mut table = Table::new(|it| it.guests = 3);
    for client in 1..=4 {
        table.attach_from(client, &stranger(client as u8), "198.51.100.7:9");
    }
    assert_eq!(table.broken, [(PeerId(4), Code::Overloaded)], "there is none with more");
    table.attach(5, stranger(5));
    assert_eq!(table.broken[1..], [(PeerId(3), Code::Overloaded)]);
    assert!(table.relay.is_attached(PeerId(5)));
}

#[test]
fn a_device_that_is_allowed_by_its_key_may_register_in_a_mesh_that_is_not() {
    let mut table = Table::new(|it| {
        it.meshes = Some(BTreeSet::from([MESH]));
        it.keys = Some(BTreeSet::from([KeyDigest([1; 32])]));
    });
    let foreign = |key| Client { mesh: Some(OTHER_MESH), ..member(key) };
    table.attach(1, foreign(1));
    table.attach(2, foreign(2));
    table.attach(3, member(3));
    assert_eq!(table.broken, [(PeerId(2), Code::Forbidden)]);
    table.forget();
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["1 registered 30000"]);
}

#[test]
fn a_client_without_a_mesh_and_without_an_invitation_can_do_nothing_but_wait() {
    let mut table = Table::with_two();
    table.attach(3, stranger(3));
    table.forget();
    table.register(3, "home", &["db"]);
    table.connect(3, "db");
    table.connect(3, "nothing");
    table.wait(2 * SECOND);
    let heard = table.heard();
    assert!(heard[0].starts_with("3 unregistered forbidden"), "{heard:?}");
    assert_eq!(heard[1..], ["3 unmatched 9 unknown_service", "3 unmatched 9 unknown_service"]);
    assert!(table.broken.is_empty());
}

#[test]
fn a_message_not_from_clients_ends_the_connection() {
    let mut table = Table::with_two();
    table.handle(1, &Message::Relay(RelayMessage::Registered(Registered { refresh_ms: 1_000 })));
    assert_eq!(table.broken, [(PeerId(1), Code::ProtocolViolation)]);
    // The later messages name no peer.
    table.handle(9, &withdraw());
    assert_eq!(table.broken.len(), 1);
}

#[test]
fn a_leaving_client_frees_its_name_and_notifies_other_ends() {
    let mut table = Table::with_two();
    table.attach(3, member(3));
    let (first, _, _) = table.channel(2, "db");
    let (second, _, _) = table.channel(3, "db");
    table.detach(1);
    assert_eq!(
        table.heard(),
        [format!("2 hangup {first} peer_gone"), format!("3 hangup {second} peer_gone")]
    );
    table.register(3, "home", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000"]);
    let (_, connector, there) = table.channel(2, "db");
    assert_eq!(connector, 3);
    table.detach(2);
    assert_eq!(table.heard(), [format!("3 hangup {there} peer_gone")]);
    table.detach(3);
    assert!(table.relay.is_empty());
}

#[test]
fn a_relay_that_is_about_to_stop_goes_on_with_what_there_is_and_takes_nothing_new() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.relay.drain(2 * SECOND);
    table.connect(2, "db");
    let Some((_, Message::Relay(RelayMessage::Unmatched(answer)))) = table.said.pop() else {
        panic!("an answer")
    };
    assert_eq!(answer.to_failure().code(), Code::ShuttingDown);
    assert_eq!(answer.retry_after_ms, Some(2_000));
    table.register(2, "away", &[]);
    let Some((_, Message::Relay(RelayMessage::Unregistered(answer)))) = table.said.pop() else {
        panic!("an answer")
    };
    assert_eq!(answer.to_failure().code(), Code::ShuttingDown);
    assert_eq!(answer.retry_after_ms, Some(2_000));
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["1 registered 30000"]);
    table.attach(3, member(3));
    assert_eq!(table.broken, [(PeerId(3), Code::ShuttingDown)]);
    table.hang_up(2, channel);
    assert_eq!(table.heard(), [format!("1 hangup {there} closed")]);
    assert!(table.relay.view(table.now).draining);
}

#[test]
fn a_configuration_is_taken_at_its_limits_and_refused_one_past_them() {
    let with = |change: &dyn Fn(&mut RelayConfig)| {
        let mut config = RelayConfig::default();
        change(&mut config);
        config.check().is_ok()
    };
    assert!(with(&|_| {}));
    assert!(with(&|it| it.refresh = SECOND) && with(&|it| it.refresh = 3_600 * SECOND));
    assert!(!with(&|it| it.refresh = SECOND - TICK));
    assert!(!with(&|it| it.refresh = 3_601 * SECOND));
    let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
    assert!(with(&|it| it.discovery = vec![address; 8]));
    assert!(!with(&|it| it.discovery = vec![address; 9]));
    assert!(with(&|it| it.bytes_per_second = 1_500) && !with(&|it| it.bytes_per_second = 1_499));
    assert!(with(&|it| it.bytes_at_once = 65_536) && !with(&|it| it.bytes_at_once = 65_535));
    assert!(with(&|it| it.queue_bytes = it.queue_bytes_of_a_source));
    assert!(!with(&|it| it.queue_bytes = it.queue_bytes_of_a_source - 1));
    assert!(!with(&|it| it.queue_bytes_of_a_source = (16 << 10) - 1));
    assert!(!with(&|it| it.queue_bytes_in_all = it.queue_bytes - 1));
}
