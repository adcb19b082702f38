//! Tests which client holds a name, for how long, and which may take it over.

use super::*;
use crate::message::RelayMessage;
use crate::relay::MAX_OFFERS;

#[test]
fn a_registration_and_every_refresh_of_it_is_acknowledged() {
    let mut table = Table::new(|it| it.refresh = 20 * SECOND);
    table.attach(1, member(1));
    table.forget();
    table.register(1, "home", &["db"]);
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["1 registered 20000", "1 registered 20000"]);
    table.wait(5 * SECOND);
    let view = table.relay.view(table.now);
    assert_eq!(view.registrations.len(), 1);
    let it = &view.registrations[0];
    assert_eq!((it.client, it.name.as_str(), it.age_ms), (PeerId(1), "home", 5_000));
    assert_eq!((it.mesh, it.key, it.services.len()), (MESH, KeyDigest([1; 32]), 1));
}

#[test]
fn a_registration_ends_exactly_three_intervals_after_its_last_refresh() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.wait(80 * SECOND);
    table.register(1, "home", &["db"]);
    table.forget();
    table.wait(90 * SECOND - TICK);
    assert_eq!(table.heard(), Vec::<String>::new());
    assert_eq!(table.relay.deadline().map(|(at, _)| at), Some(table.now + TICK));
    table.wait(TICK);
    assert_eq!(
        table.heard(),
        [
            format!("1 hangup {there} peer_gone"),
            format!("2 hangup {channel} peer_gone"),
            "1 unregistered timed_out: not registered again within 90s".to_owned(),
        ]
    );
    assert_eq!(table.relay.deadline(), None);
    table.find_nothing(2, "db");
    assert_eq!(table.relay.view(table.now).expired, 1);
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["1 registered 30000"]);
}

#[test]
fn a_name_that_another_key_holds_is_refused_even_with_takeover() {
    let mut table = Table::with_two();
    for takeover in [false, true] {
        let again = Register { takeover, ..registration("home", &["db"]) };
        table.handle(2, &Message::Relay(RelayMessage::Register(again)));
        let heard = table.heard();
        assert_eq!(heard, ["2 unregistered name_taken: another device is registered by this name"]);
    }
    assert_eq!(table.relay.view(table.now).registrations[0].client, PeerId(1));
    table.handle(1, &withdraw());
    table.register(2, "home", &[]);
    assert_eq!(table.heard(), ["2 registered 30000"]);
}

#[test]
fn a_name_belongs_to_a_mesh_and_means_nothing_in_another() {
    let mut table = Table::with_two();
    table.attach(3, Client { mesh: Some(OTHER_MESH), ..member(3) });
    table.forget();
    table.register(3, "home", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000"]);
    assert_eq!(table.channel(2, "db").1, 1);
    table.attach(4, Client { mesh: Some(OTHER_MESH), ..member(4) });
    assert_eq!(table.channel(4, "db").1, 3);
}

#[test]
fn a_new_connection_of_the_same_key_takes_its_name_back() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.attach(3, member(1));
    table.forget();
    let again = Register { takeover: true, ..registration("home", &["db"]) };
    table.handle(3, &Message::Relay(RelayMessage::Register(again)));
    assert_eq!(
        table.heard(),
        [
            format!("1 hangup {there} peer_gone"),
            format!("2 hangup {channel} peer_gone"),
            "1 unregistered replaced: this identity registered again from 192.0.2.3:40003"
                .to_owned(),
            "3 registered 30000".to_owned(),
        ]
    );
    assert_eq!(table.channel(2, "db").1, 3);
    assert_eq!(table.relay.view(table.now).evicted, 1);
    assert_eq!(table.relay.view(table.now).registrations.len(), 1);
}

#[test]
fn the_same_key_does_not_take_its_name_from_itself_unasked() {
    let mut table = Table::with_two();
    table.attach(3, member(1));
    table.forget();
    table.register(3, "home", &["db"]);
    let Some((PeerId(3), Message::Relay(RelayMessage::Unregistered(refusal)))) = table.said.pop()
    else {
        panic!("a refusal")
    };
    let failure = refusal.to_failure();
    assert_eq!(failure.code(), Code::InUse);
    assert_eq!(failure.detail(), "this identity is registered from 192.0.2.1:40001 already");
    assert_eq!(failure.retry_after(), Some(90 * SECOND));
    assert!(table.said.is_empty());
    assert_eq!(table.channel(2, "db").1, 1);
    // After the requested pause, with the earlier connection still silent, it is admitted.
    table.wait(90 * SECOND);
    table.forget();
    table.register(3, "home", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000"]);
}

#[test]
fn a_refused_refresh_leaves_the_earlier_registration_in_place() {
    let mut table = Table::with_two();
    table.register(2, "away", &["web"]);
    table.attach(3, member(3));
    table.channel(3, "web");
    table.wait(80 * SECOND);
    table.register(1, "home", &["db"]);
    table.forget();
    table.register(2, "home", &["web"]);
    let refused = "2 unregistered name_taken: another device is registered by this name";
    assert_eq!(table.heard(), [refused]);
    let view = table.relay.view(table.now);
    assert_eq!((view.registrations.len(), view.channels), (2, 1));
    // It was a sign of life.
    table.wait(89 * SECOND);
    assert_eq!(table.relay.view(table.now).registrations.len(), 2);
    assert_eq!(table.channel(3, "web").1, 2);
}

#[test]
fn a_stranger_that_fills_the_relay_makes_room_for_others() {
    let mut table = Table::new(|it| it.entries = 400);
    table.attach(1, member(1));
    table.register(1, "home", &["db"]);
    let listing = |name: &str, count: u16| {
        let guest = |n: u16| KeyDigest([n.to_be_bytes(); 16].concat().try_into().unwrap());
        Message::Relay(RelayMessage::Register(Register {
            guests: (0..count).map(guest).collect(),
            ..registration(name, &["db"])
        }))
    };
    // One address with as many keys and meshes as it likes.
    for client in 100..150 {
        let (key, mesh) = (client as u8, Some(KeyDigest([client as u8; 32])));
        table.attach_from(client, &Client { mesh, ..member(key) }, "198.51.100.7:9");
        table.handle(client, &listing("home", 20));
    }
    table.forget();
    table.handle(1, &listing("home", 20));
    assert_eq!(table.heard().last().unwrap(), "1 registered 30000", "it has one guest more");
    table.attach(2, member(2));
    table.forget();
    table.register(2, "cabin", &["web"]);
    assert_eq!(table.heard().last().unwrap(), "2 registered 30000");
    // The stranger is refused, and nobody else is moved by it.
    table.handle(149, &listing("home", 20));
    assert!(table.heard().last().unwrap().starts_with("149 unregistered overloaded"));
    let view = table.relay.view(table.now);
    assert!(view.registrations.iter().any(|it| it.client == PeerId(1)));
    assert!(view.registrations.iter().any(|it| it.client == PeerId(2)));
    assert!(view.displaced >= 1, "{}", view.displaced);
}

#[test]
fn another_name_of_the_same_connector_frees_the_one_before() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.register(1, "new", &["db"]);
    assert_eq!(
        table.heard(),
        [
            format!("1 hangup {there} peer_gone"),
            format!("2 hangup {channel} peer_gone"),
            "1 registered 30000".to_owned(),
        ]
    );
    table.register(2, "home", &[]);
    assert_eq!(table.heard(), ["2 registered 30000"]);
}

#[test]
fn a_refresh_with_other_services_keeps_channels_and_changes_what_is_found() {
    let mut table = Table::with_two();
    table.channel(2, "db");
    table.register(1, "home", &["web"]);
    table.connect(2, "db");
    table.connect(2, "web");
    let heard = table.heard();
    assert_eq!(heard[0], "1 registered 30000");
    assert!(heard[1].ends_with(" web") && heard[2].starts_with("2 matched 9 "), "{heard:?}");
    assert_eq!(heard.len(), 3);
    assert_eq!(table.relay.view(table.now).channels, 2);
    table.wait(2 * SECOND);
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
}

#[test]
fn a_withdrawn_service_is_not_found() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.handle(1, &withdraw());
    table.handle(1, &withdraw());
    assert_eq!(
        table.heard(),
        [format!("1 hangup {there} peer_gone"), format!("2 hangup {channel} peer_gone")]
    );
    table.find_nothing(2, "db");
    assert_eq!(table.relay.deadline(), None);
}

#[test]
fn all_registrations_together_hold_so_much_and_not_one_entry_more() {
    let mut table = Table::new(|it| it.entries = 5);
    table.attach(1, member(1));
    table.attach(2, member(2));
    table.forget();
    let listing = |guests: u8, revoked: usize| {
        let guests = (0..guests).map(|key| KeyDigest([key; 32])).collect();
        let revoked = (0..revoked).map(|serial| format!("1{serial:x}0")).collect();
        Message::Relay(RelayMessage::Register(Register {
            guests,
            revoked,
            ..registration("home", &["db"])
        }))
    };
    table.handle(1, &listing(2, 2));
    table.handle(1, &listing(2, 2));
    assert_eq!(table.heard(), ["1 registered 30000", "1 registered 30000"]);
    table.register(2, "cabin", &["db"]);
    let words = "unregistered overloaded: the relay has no room for so large a registration";
    assert_eq!(table.heard(), [format!("2 {words}")]);
    table.register(2, "cabin", &[]);
    assert_eq!(table.heard(), ["2 registered 30000"]);
    table.handle(1, &listing(2, 3));
    assert_eq!(table.heard(), [format!("1 {words}")]);
    table.handle(1, &listing(1, 3));
    assert_eq!(table.heard(), ["1 registered 30000"]);
}

#[test]
fn only_a_connector_registers_and_only_by_a_name_in_its_certificate() {
    let mut table = Table::new(|_| {});
    table.attach(1, Client { may_serve: false, ..member(1) });
    table.attach(2, Client { names: vec!["Cabin".into()], ..member(2) });
    table.forget();
    table.register(1, "home", &["db"]);
    table.register(2, "home", &["db"]);
    table.register(2, "cabin", &["db"]);
    let heard = table.heard();
    assert!(heard[0].starts_with("1 unregistered forbidden: only a connector"), "{heard:?}");
    assert!(heard[1].starts_with("2 unregistered forbidden: the name is not"), "{heard:?}");
    assert_eq!(heard[2], "2 registered 30000");
    table.attach(3, member(3));
    table.forget();
    table.register(3, "home", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000"], "nobody keeps the connector out");
}

#[test]
fn a_revoked_certificate_does_not_register_even_once_the_connector_is_away() {
    let mut table = Table::with_two();
    let revoking = Register { revoked: vec!["03".into()], ..registration("home", &["db"]) };
    table.attach(3, member(3));
    table.register(3, "cabin", &["db"]);
    table.forget();
    table.handle(1, &Message::Relay(RelayMessage::Register(revoking)));
    let words = "3 unregistered forbidden: a connector of this mesh has revoked the certificate";
    assert!(table.heard().contains(&words.to_owned()));
    table.detach(1);
    table.forget();
    table.register(3, "home", &["db"]);
    assert_eq!(table.heard(), [words]);
    // Without the number in its next list, it may register.
    table.attach(4, member(1));
    table.register(4, "home", &["db"]);
    table.forget();
    table.register(3, "cabin", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000"]);
}

#[test]
fn one_key_has_two_places_of_a_service_and_not_one_more() {
    let mut table = Table::new(|_| {});
    for (client, name) in [(1, "home"), (2, "cabin"), (3, "shed")] {
        table.attach(client, member(7));
        table.forget();
        table.register(client, name, &["db"]);
    }
    assert_eq!(table.heard(), ["3 unregistered overloaded: too many connectors offer db already"]);
    table.register(1, "home", &["db"]);
    table.attach(4, member(8));
    table.forget();
    table.register(4, "shed", &["db"]);
    assert_eq!(table.heard(), ["4 registered 30000"]);
}

#[test]
fn lists_of_one_guest_are_limited() {
    let mut table = Table::new(|_| {});
    let guests = vec![KeyDigest([200; 32])];
    for client in 0..=MAX_OFFERS as u64 {
        table.attach(client, member(client as u8));
        let name = format!("c{client}");
        let said = Register { guests: guests.clone(), ..registration(&name, &[]) };
        table.handle(client, &Message::Relay(RelayMessage::Register(said)));
    }
    let view = table.relay.view(table.now);
    let listed: Vec<usize> = view.registrations.iter().map(|it| it.guests).collect();
    assert_eq!(listed.len(), MAX_OFFERS + 1, "listing one more is no reason for a refusal");
    assert_eq!(listed.iter().sum::<usize>(), MAX_OFFERS);
    assert_eq!(listed[MAX_OFFERS], 0);
}

#[test]
fn a_service_has_so_many_connectors_and_not_one_more() {
    let mut table = Table::new(|_| {});
    for client in 0..=MAX_OFFERS as u64 {
        table.attach(client, member(client as u8));
        table.forget();
        table.register(client, &format!("c{client}"), &["db"]);
    }
    let last = MAX_OFFERS as u64;
    let words = format!("{last} unregistered overloaded: too many connectors offer db already");
    assert_eq!(table.heard(), [words]);
    table.register(0, "c0", &["db"]);
    table.register(last, "last", &["web"]);
    assert_eq!(table.heard(), ["0 registered 30000", &format!("{last} registered 30000")]);
    table.handle(0, &withdraw());
    table.register(last, "last", &["web", "db"]);
    assert_eq!(table.heard(), [format!("{last} registered 30000")]);
}
