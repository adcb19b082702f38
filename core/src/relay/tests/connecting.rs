//! Tests which client gets a channel to which connector, and how it ends.

use super::*;
use crate::message::RelayMessage;

#[test]
fn both_ends_learn_of_a_channel_and_who_is_at_the_other() {
    let mut table = Table::with_two();
    table.connect(2, "db");
    let [
        (to, Message::Relay(RelayMessage::Incoming(incoming))),
        (back, Message::Relay(RelayMessage::Matched(matched))),
    ] = &table.said[..]
    else {
        panic!("{:?}", table.said)
    };
    assert_eq!((*to, incoming.key, incoming.service.as_str()), (PeerId(1), member(2).key, "db"));
    assert_eq!((*back, matched.key, matched.name.as_str()), (PeerId(2), member(1).key, "home"));
    assert_eq!(matched.request, 9);
    assert_eq!(table.relay.view(table.now).channels, 1);
}

#[test]
fn the_connector_with_the_fewest_channels_is_chosen_and_none_that_was_excluded() {
    let mut table = Table::with_two();
    table.attach(3, member(3));
    table.attach(4, member(4));
    table.register(3, "cabin", &["db"]);
    table.register(4, "shed", &["web"]);
    let order: Vec<u64> = (0..5).map(|_| table.channel(2, "db").1).collect();
    assert_eq!(order, [1, 3, 1, 3, 1]);
    table.connect_without(2, "db", &[3]);
    assert!(matches!(
        table.said[..],
        [(PeerId(1), _), (PeerId(2), Message::Relay(RelayMessage::Matched(_)))]
    ));
    table.forget();
    table.connect_without(2, "db", &[3, 1]);
    table.wait(2 * SECOND);
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
}

#[test]
fn a_forbidden_service_is_reported_as_unknown() {
    let mut table = Table::with_two();
    table.attach(3, Client { mesh: Some(OTHER_MESH), ..member(3) });
    table.attach(4, stranger(4));
    table.forget();
    for client in [3, 4] {
        for service in ["db", "nothing"] {
            table.connect(client, service);
        }
        table.wait(2 * SECOND - TICK);
        assert_eq!(table.said, []);
        table.wait(TICK);
        let answers: Vec<_> = table.said.drain(..).collect();
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers.len(), 2, "the connector was told");
        assert_eq!(line(client, &answers[0].1), format!("{client} unmatched 9 unknown_service"));
    }
}

#[test]
fn a_guest_reaches_the_connector_that_lists_its_key_and_no_other() {
    let mut table = Table::with_two();
    table.attach(3, member(3));
    table.attach(4, stranger(4));
    let listing = Register { guests: vec![KeyDigest([4; 32])], ..registration("cabin", &["db"]) };
    table.handle(3, &Message::Relay(RelayMessage::Register(listing)));
    assert_eq!(table.channel(4, "db").1, 3);
    assert_eq!(table.channel(4, "db").1, 3);
    table.find_nothing(4, "web");
}

#[test]
fn only_an_unlisted_guest_is_disconnected() {
    let mut table = Table::with_two();
    table.attach(4, stranger(4));
    let listing = Register { guests: vec![KeyDigest([4; 32])], ..registration("home", &["db"]) };
    table.handle(1, &Message::Relay(RelayMessage::Register(listing)));
    let (guest, _, to_guest) = table.channel(4, "db");
    table.channel(2, "db");
    table.register(1, "home", &["db"]);
    assert_eq!(
        table.heard(),
        [
            format!("1 hangup {to_guest} forbidden"),
            format!("4 hangup {guest} forbidden"),
            "1 registered 30000".to_owned(),
        ]
    );
    table.find_nothing(4, "db");
    assert_eq!(table.relay.view(table.now).channels, 1);
}

#[test]
fn a_revoked_certificate_finds_nothing_and_loses_what_it_had() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    let revoking = Register { revoked: vec!["02".into()], ..registration("home", &["db"]) };
    table.handle(1, &Message::Relay(RelayMessage::Register(revoking)));
    assert_eq!(
        table.heard(),
        [
            format!("1 hangup {there} forbidden"),
            format!("2 hangup {channel} forbidden"),
            "1 registered 30000".to_owned(),
        ]
    );
    table.find_nothing(2, "db");
    // The same number with the leading zero of DER.
    table.attach(3, Client { serial: "0002".into(), ..member(3) });
    table.attach(4, Client { serial: "0020".into(), ..member(4) });
    table.find_nothing(3, "db");
    table.channel(4, "db");
}

#[test]
fn a_client_is_not_matched_with_itself() {
    let mut table = Table::with_two();
    table.find_nothing(1, "db");
    table.register(2, "cabin", &["db"]);
    assert_eq!(table.channel(1, "db").1, 2);
    assert_eq!(table.channel(2, "db").1, 1);
}

#[test]
fn only_the_first_hangup_is_forwarded() {
    let mut table = Table::with_two();
    let (channel, _, there) = table.channel(2, "db");
    table.hang_up(2, channel + 1);
    assert_eq!(table.heard(), Vec::<String>::new());
    table.hang_up(2, channel);
    let [(PeerId(1), Message::Relay(RelayMessage::Hangup(hangup)))] = &table.said[..] else {
        panic!("{:?}", table.said)
    };
    assert_eq!((hangup.channel, &*hangup.code, &*hangup.message), (there, "closed", "done"));
    table.forget();
    table.hang_up(2, channel);
    table.hang_up(1, there);
    assert_eq!(table.heard(), Vec::<String>::new());
    let (channel, _, there) = table.channel(2, "db");
    table.hang_up(1, there);
    assert_eq!(table.heard(), [format!("2 hangup {channel} closed")]);
}

#[test]
fn a_client_may_have_so_many_channels_and_not_one_more() {
    let mut table = Table::new(|it| {
        it.channels = 3;
        it.channels_of_a_pair = 2;
    });
    for client in [1, 2, 3] {
        table.attach(client, member(client as u8));
    }
    table.register(1, "home", &["db"]);
    table.register(3, "cabin", &["web"]);
    let (first, _, _) = table.channel(2, "db");
    table.channel(2, "db");
    table.forget();
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    table.channel(2, "web");
    table.connect(2, "web");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    table.hang_up(2, first);
    table.channel(2, "web");
    // Channels of other clients to it do not count.
    table.register(2, "shed", &["x"]);
    table.channel(1, "x");
    table.channel(1, "x");
}

#[test]
fn a_connector_may_have_so_many_channels_and_not_one_more() {
    let mut table = Table::new(|it| it.channels_of_a_connector = 2);
    for client in 1..=4 {
        table.attach(client, member(client as u8));
    }
    table.register(1, "home", &["db"]);
    table.channel(2, "db");
    table.channel(3, "db");
    table.connect(4, "db");
    let Some((_, Message::Relay(RelayMessage::Unmatched(refusal)))) = table.said.pop() else {
        panic!("a refusal")
    };
    assert_eq!(refusal.to_failure().code(), Code::Overloaded);
    assert_eq!(refusal.retry_after_ms, Some(1_000));
    table.detach(3);
    table.channel(4, "db");
}

#[test]
fn a_client_may_look_so_often_and_not_once_more() {
    let mut table = Table::new(|it| it.held_lookups_of_a_client = 0);
    table.attach(1, member(1));
    table.attach(2, member(2));
    table.register(1, "home", &["db"]);
    table.forget();
    let allowed = table.relay.config().connects_at_once;
    for _ in 0..allowed {
        table.connect(2, "nothing");
    }
    assert!(table.heard().iter().all(|it| it == "2 unmatched 9 unknown_service"));
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    let interval = SECOND / table.relay.config().connects_per_second;
    table.wait(interval - TICK);
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    table.wait(TICK);
    table.channel(2, "db");
}

#[test]
fn incoming_channels_are_limited_per_connector() {
    let mut table = Table::new(|it| it.incoming_at_once = 3);
    for client in 1..=3 {
        table.attach(client, member(client as u8));
    }
    table.register(1, "home", &["db"]);
    for _ in 0..3 {
        let (channel, _, _) = table.channel(2, "db");
        table.hang_up(2, channel);
    }
    table.forget();
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    // A refresh does not lift the limit; another connector does.
    table.register(1, "home", &["db"]);
    table.forget();
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
    table.register(3, "cabin", &["db"]);
    assert_eq!(table.channel(2, "db").1, 3);
    table.wait(SECOND / table.relay.config().incoming_per_second);
    assert_eq!(table.channel(2, "db").1, 1);
}
