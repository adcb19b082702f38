//! Tests of lookups that wait for their connector.

use super::*;
use crate::timer::Reason;

/// Returns a relay with two devices of a mesh, 1 and 2, of which none offers a service.
fn without_services(change: impl FnOnce(&mut RelayConfig)) -> Table {
    let mut table = Table::new(change);
    table.attach(1, member(1));
    table.attach(2, member(2));
    table.forget();
    table
}

#[test]
fn a_lookup_is_answered_when_its_connector_registers() {
    let mut table = without_services(|_| {});
    table.connect(2, "db");
    assert_eq!(table.heard(), Vec::<String>::new());
    let due = table.now + 2 * SECOND;
    assert_eq!(table.relay.deadline(), Some((due, Reason::HeldLookup)));
    table.wait(2 * SECOND - TICK);
    table.register(1, "home", &["web"]);
    assert_eq!(table.heard(), ["1 registered 30000"]);
    table.register(1, "home", &["web", "db"]);
    assert_eq!(table.heard(), ["1 registered 30000", "1 incoming 1 db", "2 matched 9 1 home"]);
    assert_eq!(table.relay.deadline().map(|(_, why)| why), Some(Reason::Registration));
    assert_eq!(table.relay.view(table.now).matched, 1);
}

#[test]
fn a_lookup_is_answered_after_the_wait_and_not_before() {
    let mut table = without_services(|_| {});
    table.find_nothing(2, "db");
    assert_eq!(table.relay.deadline(), None);
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["1 registered 30000"]);
}

#[test]
fn a_wait_of_zero_answers_immediately() {
    let mut table = without_services(|it| it.lookup_wait = Duration::ZERO);
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
}

#[test]
fn a_lookup_waits_on_while_a_connector_registers_that_does_not_admit_its_client() {
    let mut table = without_services(|_| {});
    table.attach(3, Client { mesh: Some(OTHER_MESH), ..member(3) });
    table.attach(4, stranger(4));
    table.forget();
    table.connect(4, "db");
    table.connect_without(2, "db", &[1]);
    table.register(3, "cabin", &["db"]);
    table.register(1, "home", &["db"]);
    assert_eq!(table.heard(), ["3 registered 30000", "1 registered 30000"]);
    let listing = Register { guests: vec![KeyDigest([4; 32])], ..registration("home", &["db"]) };
    table.handle(1, &Message::Relay(RelayMessage::Register(listing)));
    assert_eq!(table.heard(), ["1 registered 30000", "1 incoming 1 db", "4 matched 9 1 home"]);
    table.wait(2 * SECOND);
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
}

#[test]
fn a_client_may_hold_so_many_lookups_and_not_one_more() {
    let mut table = without_services(|_| {});
    for service in ["a", "b", "c", "d"] {
        table.connect(2, service);
    }
    assert_eq!(table.heard(), Vec::<String>::new());
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
    table.connect(1, "db");
    assert_eq!(table.heard(), Vec::<String>::new());
    table.wait(2 * SECOND);
    assert_eq!(table.heard().len(), 5);
}

#[test]
fn all_clients_may_hold_so_many_lookups_and_not_one_more() {
    let mut table = without_services(|it| it.held_lookups = 2);
    table.connect(1, "db");
    table.connect(2, "db");
    assert_eq!(table.heard(), Vec::<String>::new());
    table.connect(2, "web");
    assert_eq!(table.heard(), ["2 unmatched 9 unknown_service"]);
    // A client that leaves makes room.
    table.detach(1);
    table.connect(2, "web");
    assert_eq!(table.heard(), Vec::<String>::new());
}

#[test]
fn a_held_lookup_counts_against_the_rate_of_its_client() {
    let mut table = without_services(|it| it.connects_at_once = 2);
    for _ in 0..2 {
        table.connect(2, "db");
    }
    table.connect(2, "db");
    assert_eq!(table.heard(), ["2 unmatched 9 overloaded"]);
}

#[test]
fn a_held_lookup_of_a_relay_that_shuts_down_is_answered_with_it() {
    let mut table = without_services(|_| {});
    table.connect(2, "db");
    table.relay.drain(3 * SECOND);
    table.wait(2 * SECOND);
    assert_eq!(table.heard(), ["2 unmatched 9 shutting_down"]);
}

#[test]
fn all_lookups_of_a_service_are_answered_in_their_order() {
    let mut table = without_services(|_| {});
    table.attach(3, member(3));
    table.forget();
    table.connect(3, "db");
    table.connect(2, "db");
    table.register(1, "home", &["db"]);
    let heard = table.heard();
    assert_eq!(
        heard,
        [
            "1 registered 30000",
            "1 incoming 1 db",
            "3 matched 9 1 home",
            "1 incoming 2 db",
            "2 matched 9 1 home",
        ]
    );
}
