//! Random lives of clients against a reference that keeps lists and scans them.

use crate::message::{RelayMessage, ServiceName};
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;

use super::*;

const CLIENTS: u64 = 6;
const NAMES: [&str; 3] = ["home", "cabin", "shed"];
const SERVICES: [&str; 3] = ["db", "web", "ssh"];

#[derive(Debug, Clone)]
enum Op {
    Attach {
        client: u64,
        key: u8,
        mesh: u8,
    },
    Detach {
        client: u64,
    },
    Register {
        client: u64,
        name: usize,
        services: u8,
        guests: Vec<u8>,
        revoked: Vec<u8>,
        takeover: bool,
    },
    Withdraw {
        client: u64,
    },
    Connect {
        client: u64,
        service: usize,
        exclude: Vec<u8>,
    },
    Hangup {
        client: u64,
        channel: u32,
    },
    Packet {
        client: u64,
        channel: u32,
    },
    Wait {
        seconds: u64,
    },
}

/// The model's state of a client.
#[derive(Debug, Clone)]
struct Known {
    key: u8,
    mesh: u8,
    registration: Option<(usize, Register, Instant)>,
}

/// A channel in the model: its caller with the caller's number, and its connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Channel {
    caller: (u64, u32),
    connector: (u64, u32),
}

struct Model {
    clients: BTreeMap<u64, Known>,
    channels: Vec<Channel>,
    /// The latest list of revoked keys of every connector, by its mesh and key.
    revoked: BTreeMap<(u8, u8), Vec<String>>,
    /// Lookups that wait, with the time of their answer.
    held: Vec<(Lookup, Instant)>,
    now: Instant,
}

/// A client that looks up a service, without these connectors.
#[derive(Debug, Clone)]
struct Lookup {
    client: u64,
    service: String,
    exclude: Vec<u8>,
}

impl Model {
    /// Returns the connectors that a lookup may be matched with, and the one that is chosen.
    fn offers(&self, lookup: &Lookup) -> (Vec<u64>, Option<u64>) {
        let Lookup { client, service, exclude } = lookup;
        let offers = self.clients.iter().filter(|(id, it)| {
            let registered = it.registration.as_ref();
            *id != client
                && registered
                    .is_some_and(|(_, it, _)| it.services.iter().any(|s| s.as_str() == service))
                && !exclude.contains(&it.key)
                && self.admits(**id, *client)
        });
        let offers: Vec<u64> = offers.map(|(id, _)| *id).collect();
        let between = |id: &u64| {
            let is_pair = |it: &&Channel| it.caller.0 == *client && it.connector.0 == *id;
            self.channels.iter().filter(is_pair).count()
        };
        let limit = RelayConfig::default().channels_of_a_pair;
        let free = offers.iter().filter(|id| between(id) < limit);
        let best = free.min_by_key(|id| (self.served(**id), **id)).copied();
        (offers, best)
    }

    /// Takes the lookups that are answered by now, and checks their answers.
    fn answer_held(&mut self, said: &[(PeerId, Message)]) {
        let mut incoming = None;
        for (to, message) in said {
            match message {
                Message::Relay(RelayMessage::Incoming(it)) => incoming = Some((to.0, it)),
                Message::Relay(RelayMessage::Matched(it)) => {
                    let (connector, incoming) = incoming.take().expect("the connector is notified");
                    let at = self.position(to.0, Some(incoming.service.as_str()));
                    let (lookup, _) = self.held.remove(at);
                    assert_eq!(self.offers(&lookup).1, Some(connector));
                    let (caller, connector) = ((to.0, it.channel), (connector, incoming.channel));
                    self.channels.push(Channel { caller, connector });
                }
                Message::Relay(RelayMessage::Unmatched(it)) if it.code == "overloaded" => {
                    let at = self.position(to.0, None);
                    self.held.remove(at);
                }
                Message::Control(_)
                | Message::Stream(_)
                | Message::Relay(_)
                | Message::Cloud(_) => {}
            }
        }
        for (lookup, _) in &self.held {
            assert!(self.offers(lookup).0.is_empty(), "{lookup:?} still waits");
        }
    }

    /// Returns the first lookup of a client that has an offer.
    fn position(&self, client: u64, service: Option<&str>) -> usize {
        let is_it = |(it, _): &(Lookup, Instant)| {
            it.client == client
                && service.is_none_or(|service| it.service == service)
                && !self.offers(it).0.is_empty()
        };
        self.held.iter().position(is_it).expect("a lookup that waits")
    }

    fn admits(&self, connector: u64, caller: u64) -> bool {
        let (Some(to), Some(from)) = (self.clients.get(&connector), self.clients.get(&caller))
        else {
            return false;
        };
        let Some((_, register, _)) = &to.registration else { return false };
        let revoked = register.revoked.contains(&format!("{:02x}", from.key));
        let is_guest = register.guests.contains(&KeyDigest([from.key; 32]));
        (from.mesh == to.mesh && from.mesh != 0 && !revoked) || is_guest
    }

    /// Returns true if another connector of the mesh has revoked a key.
    fn is_revoked(&self, mesh: u8, key: u8) -> bool {
        let serial = format!("{key:02x}");
        self.revoked
            .iter()
            .any(|((of, by), list)| *of == mesh && *by != key && list.contains(&serial))
    }

    /// Returns true if two other clients of its key offer a service.
    fn offers_it(&self, known: &Known, client: u64, service: &ServiceName) -> bool {
        let own = self.clients.get(&client).and_then(|it| it.registration.as_ref());
        let has_own = own.is_some_and(|(_, it, _)| it.services.contains(service));
        let same = self.clients.iter().filter(|(id, it)| {
            let registered = it.registration.as_ref();
            **id != client
                && (it.mesh, it.key) == (known.mesh, known.key)
                && registered.is_some_and(|(_, it, _)| it.services.contains(service))
        });
        !has_own && same.count() >= 2
    }

    fn holder(&self, mesh: u8, name: usize) -> Option<u64> {
        self.clients.iter().find_map(|(id, it)| {
            let (held, _, _) = it.registration.as_ref()?;
            (it.mesh == mesh && *held == name).then_some(*id)
        })
    }

    /// Ends every channel that is not allowed any more; only a hangup ends one otherwise.
    fn settle(&mut self) {
        let all = std::mem::take(&mut self.channels);
        self.channels =
            all.into_iter().filter(|it| self.admits(it.connector.0, it.caller.0)).collect();
    }

    fn unregister(&mut self, client: u64) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.registration = None;
        }
        self.settle();
    }

    fn expire(&mut self) {
        let now = self.now;
        let over = self.clients.iter().filter(|(_, it)| {
            it.registration.as_ref().is_some_and(|(_, _, at)| now >= *at + 90 * SECOND)
        });
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.unregister(id));
    }

    fn served(&self, client: u64) -> usize {
        self.channels.iter().filter(|it| it.connector.0 == client).count()
    }

    fn partner(&self, client: u64, number: u32) -> Option<(u64, u32)> {
        self.channels.iter().find_map(|it| {
            if it.caller == (client, number) {
                Some(it.connector)
            } else {
                (it.connector == (client, number)).then_some(it.caller)
            }
        })
    }
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let keys = || prop::collection::vec(0u8..4, 0..2);
    prop_oneof![
        3 => (client(), 0u8..4, 0u8..3).prop_map(|(client, key, mesh)| Op::Attach { client, key, mesh }),
        1 => client().prop_map(|client| Op::Detach { client }),
        6 => (client(), 0usize..3, 0u8..8, keys(), keys(), any::<bool>()).prop_map(
            |(client, name, services, guests, revoked, takeover)| Op::Register {
                client, name, services, guests, revoked, takeover
            }
        ),
        1 => client().prop_map(|client| Op::Withdraw { client }),
        8 => (client(), 0usize..3, keys())
            .prop_map(|(client, service, exclude)| Op::Connect { client, service, exclude }),
        2 => (client(), 1u32..6).prop_map(|(client, channel)| Op::Hangup { client, channel }),
        4 => (client(), 1u32..6).prop_map(|(client, channel)| Op::Packet { client, channel }),
        2 => (0u64..60).prop_map(|seconds| Op::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/relay.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_relay_does_what_the_reference_does_and_nothing_is_left_in_the_end(
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let mut table = Table::new(|_| {});
        let mut model =
            Model {
                clients: BTreeMap::new(),
                channels: Vec::new(),
                revoked: BTreeMap::new(),
                held: Vec::new(),
                now: table.now,
            };
        for op in ops {
            step(&mut table, &mut model, op);
            let view = table.relay.view(table.now);
            prop_assert_eq!(view.clients, model.clients.len());
            prop_assert_eq!(view.channels, model.channels.len());
            let held = |it: &&Known| it.registration.is_some();
            prop_assert_eq!(view.registrations.len(), model.clients.values().filter(held).count());
            for it in view.registrations {
                prop_assert_eq!(it.channels, model.served(it.client.0));
            }
        }
        (0..CLIENTS).for_each(|client| table.detach(client));
        prop_assert!(table.relay.is_empty());
        while table.relay.poll_ready().is_some() {}
    }
}

fn step(table: &mut Table, model: &mut Model, op: Op) {
    table.forget();
    match op {
        Op::Attach { client, key, mesh } => {
            let mesh_key = (mesh != 0).then_some(KeyDigest([mesh; 32]));
            model.clients.remove(&client);
            model.held.retain(|(it, _)| it.client != client);
            model.settle();
            table.attach(client, Client { mesh: mesh_key, ..member(key) });
            model.clients.insert(client, Known { key, mesh, registration: None });
        }
        Op::Detach { client } => {
            table.detach(client);
            model.clients.remove(&client);
            model.held.retain(|(it, _)| it.client != client);
            model.settle();
        }
        Op::Register { client, name, services, guests, revoked, takeover } => {
            let services: Vec<&str> =
                (0..3).filter(|bit| services >> bit & 1 == 1).map(|bit| SERVICES[bit]).collect();
            let register = Register {
                guests: guests.into_iter().map(|key| KeyDigest([key; 32])).collect(),
                revoked: revoked.into_iter().map(|key| format!("{key:02x}")).collect(),
                takeover,
                ..registration(NAMES[name], &services)
            };
            table.handle(client, &Message::Relay(RelayMessage::Register(register.clone())));
            on_register(table, model, client, name, register);
            model.answer_held(&table.said);
        }
        Op::Withdraw { client } => {
            table.handle(client, &withdraw());
            model.unregister(client);
        }
        Op::Connect { client, service, exclude } => {
            table.connect_without(client, SERVICES[service], &exclude);
            let service = SERVICES[service].to_owned();
            on_connect(table, model, &Lookup { client, service, exclude });
        }
        Op::Hangup { client, channel } => {
            table.hang_up(client, channel);
            let partner = model.partner(client, channel);
            model
                .channels
                .retain(|it| it.caller != (client, channel) && it.connector != (client, channel));
            let expected = partner.map(|(to, number)| format!("{to} hangup {number} closed"));
            assert_eq!(table.heard(), Vec::from_iter(expected));
        }
        Op::Packet { client, channel } => {
            let packet = [&[2][..], &channel.to_be_bytes(), b"p"].concat();
            table.relay.forward(PeerId(client), &packet, table.now);
            match model.partner(client, channel) {
                Some((to, number)) => {
                    let expected = [&[2][..], &number.to_be_bytes(), b"p"].concat();
                    assert_eq!(table.relay.poll_ready(), Some(PeerId(to)));
                    let mut packet = table.relay.poll_packet(PeerId(to), 100).unwrap();
                    assert_eq!(packet.next().as_deref(), Some(&expected[..]));
                }
                None => assert_eq!(table.relay.poll_ready(), None),
            }
        }
        Op::Wait { seconds } => {
            model.now += SECOND * seconds as u32;
            model.expire();
            table.wait(SECOND * seconds as u32);
            let before = model.held.len();
            model.held.retain(|(_, due)| *due > model.now);
            let is_answer = |(_, it): &&(PeerId, Message)| matches!(it, Message::Relay(RelayMessage::Unmatched(it)) if it.code == "unknown_service");
            let answered = table.said.iter().filter(is_answer).count();
            assert_eq!(answered, before - model.held.len());
        }
    }
}

fn on_register(table: &mut Table, model: &mut Model, client: u64, name: usize, said: Register) {
    let Some(known) = model.clients.get(&client).cloned() else {
        assert!(table.said.is_empty());
        return;
    };
    let holder = model.holder(known.mesh, name).filter(|holder| *holder != client);
    let is_ghost = holder.is_some_and(|holder| model.clients[&holder].key == known.key);
    let is_free = holder.is_none() || (is_ghost && said.takeover);
    let is_crowded = said.services.iter().any(|service| model.offers_it(&known, client, service));
    let is_revoked = model.is_revoked(known.mesh, known.key);
    let is_taken = known.mesh != 0 && is_free && !is_revoked && !is_crowded;
    let answers: Vec<_> = table.said.iter().filter(|(to, _)| to.0 == client).collect();
    let is_registered =
        answers.iter().any(|(_, it)| matches!(it, Message::Relay(RelayMessage::Registered(_))));
    assert_eq!(is_registered, is_taken, "{answers:?}");
    if let Some(ghost) = holder.filter(|_| is_taken) {
        let is_told = |(to, it): &(PeerId, Message)| {
            to.0 == ghost
                && matches!(it, Message::Relay(RelayMessage::Unregistered(it)) if it.code == "replaced")
        };
        assert!(table.said.iter().any(is_told));
        model.unregister(ghost);
    }
    let is_renamed = known.registration.is_some_and(|(held, _, _)| held != name);
    if is_taken && is_renamed {
        model.unregister(client);
    }
    let now = model.now;
    let held = model.clients.get_mut(&client).and_then(|it| it.registration.as_mut());
    if let Some((_, _, refreshed)) = held {
        *refreshed = now;
    }
    if is_taken {
        model.revoked.insert((known.mesh, known.key), said.revoked.clone());
        let registration = Some((name, said, model.now));
        model
            .clients
            .insert(client, Known { registration, ..known_without(known.key, known.mesh) });
        let others = model.clients.iter();
        let over: Vec<u64> = others
            .filter(|(_, it)| it.mesh == known.mesh && model.is_revoked(it.mesh, it.key))
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().for_each(|id| model.unregister(id));
    }
    model.settle();
}

fn known_without(key: u8, mesh: u8) -> Known {
    Known { key, mesh, registration: None }
}

fn on_connect(table: &mut Table, model: &mut Model, lookup: &Lookup) {
    let client = lookup.client;
    if !model.clients.contains_key(&client) {
        assert!(table.said.is_empty());
        return;
    }
    let (offers, best) = model.offers(lookup);
    let (answer, told) = match &table.said[..] {
        [] => {
            assert!(offers.is_empty(), "{offers:?}");
            let due = model.now + RelayConfig::default().lookup_wait;
            return model.held.push((lookup.clone(), due));
        }
        [(to, answer)] => ((to.0, answer), None),
        [(connector, Message::Relay(RelayMessage::Incoming(told))), (to, answer)] => {
            ((to.0, answer), Some((connector.0, told)))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answer.0, client);
    if let Message::Relay(RelayMessage::Matched(matched)) = answer.1 {
        let (connector, incoming) = told.expect("the connector is notified");
        assert_eq!(Some(connector), best);
        let caller = (client, matched.channel);
        model.channels.push(Channel { caller, connector: (connector, incoming.channel) });
    } else if let Message::Relay(RelayMessage::Unmatched(unmatched)) = answer.1 {
        let held = model.held.iter().filter(|(it, _)| it.client == client).count();
        if unmatched.code == "unknown_service" {
            assert!(offers.is_empty(), "{offers:?}");
            assert_eq!(held, RelayConfig::default().held_lookups_of_a_client);
        } else {
            // The model does not cover rates.
            assert_eq!(unmatched.code, "overloaded");
        }
    } else {
        panic!("{:?}", answer.1);
    }
}
