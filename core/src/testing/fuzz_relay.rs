//! The invariants of a relay for any behaviour of its clients: the body of the fuzz target `relay`.
//!
//! Decides how bytes become the actions of clients, and fails by panicking. Never makes up input:
//! that comes from the fuzzer, or from the corpus that the tests replay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::clock::origin;
use crate::encapsulation;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::message::{Connect, Hangup, Message, Register, RelayMessage, ServiceName, Withdraw};
use crate::probe::LEN;
use crate::relay::{Client, Relay, RelayAction, RelayConfig};
use crate::tls::KeyDigest;

/// Most actions in one run: more make it slower, not more varied.
const MAX_DEEDS: usize = 400;

/// Clients there are, by the low bits of a byte.
const CLIENTS: u8 = 8;

/// A relay and the messages that its clients received.
struct Table {
    relay: Relay,
    now: Instant,
    /// Each client's channels, by its own numbers: the number at the other end.
    channels: BTreeMap<(PeerId, u32), (PeerId, u32)>,
    /// The last channel that a connector was offered while its caller has not been notified.
    incoming: Option<(PeerId, u32)>,
}

/// A relay: for any messages and packets of its clients, every channel has two ends that may have
/// it, a packet only reaches the other end of its channel, limits are kept, every message can be
/// encoded, and no state of departed clients is left.
///
/// Every four bytes of `data` are one action; payloads take their bytes from the rest.
pub fn relay(data: &[u8]) {
    let config = RelayConfig {
        clients: 7,
        guests: 2,
        channels: 5,
        channels_of_a_connector: 6,
        channels_of_a_pair: 2,
        connects_at_once: 20,
        incoming_at_once: 30,
        bytes_per_second: 100_000,
        bytes_at_once: 65_536,
        queue_bytes: 32 << 10,
        queue_bytes_of_a_source: 16 << 10,
        queue_bytes_in_all: 64 << 10,
        ..RelayConfig::default()
    };
    config.check().expect("it can work");
    let relay = Relay::new(config, [3; 32]);
    let mut table = Table { relay, now: origin(), channels: BTreeMap::new(), incoming: None };
    let mut rest = data;
    for _ in 0..MAX_DEEDS {
        let Some((&deed, after)) = rest.split_first_chunk() else { break };
        rest = table.act(deed, after);
        table.drain();
    }
    for client in 0..CLIENTS {
        table.relay.on_detached(PeerId(client.into()));
        table.drain();
    }
    assert!(table.relay.is_empty(), "something is left");
}

impl Table {
    fn act<'a>(&mut self, [what, who, a, b]: [u8; 4], rest: &'a [u8]) -> &'a [u8] {
        let client = PeerId((who % CLIENTS).into());
        match what % 12 {
            0 | 1 => self.attach(client, a, b),
            2 => self.relay.on_detached(client),
            3 | 4 => self.register(client, a, b),
            5 | 6 => {
                let exclude = (0..4).filter(|bit| b >> bit & 1 == 1).map(key).collect();
                let connect = Connect { request: b.into(), service: service(a), exclude };
                self.send(client, &Message::Relay(RelayMessage::Connect(connect)));
            }
            7 => {
                let failure = Failure::new(Code::Closed, "done");
                self.forget(client, a.into());
                self.send(
                    client,
                    &Message::Relay(RelayMessage::Hangup(Hangup::new(a.into(), &failure))),
                );
            }
            8 => self.forward(client, a, usize::from(b) * 64),
            9 => self.fetch(client, usize::from(a)),
            10 => self.now += Duration::from_millis(500 * u64::from(a)),
            _ => return self.inject_fault(client, a, b, rest),
        }
        rest
    }

    fn attach(&mut self, client: PeerId, a: u8, b: u8) {
        let mesh = (!a.is_multiple_of(4)).then_some(KeyDigest([a % 4; 32]));
        let who = Client {
            key: key(b % 4),
            mesh,
            serial: format!("{:02x}", b % 4),
            names: (0..3).map(|name| format!("c{name}")).collect(),
            may_serve: b & 0x80 == 0,
        };
        self.channels.retain(|(id, _), _| *id != client);
        self.relay.on_attached(client, &who, ([192, 0, 2, a], 1 + u16::from(b)).into());
    }

    fn register(&mut self, client: PeerId, a: u8, b: u8) {
        let bits = |from: u8| (0..4).filter(move |bit| from >> bit & 1 == 1);
        let register = Register {
            name: format!("c{}", a & 3),
            services: bits(a >> 2).map(service).collect(),
            guests: bits(b).map(key).collect(),
            revoked: bits(b >> 4).map(|it| format!("{it:02x}")).collect(),
            takeover: a & 0x80 != 0,
        };
        self.send(client, &Message::Relay(RelayMessage::Register(register)));
    }

    fn inject_fault<'a>(&mut self, client: PeerId, a: u8, b: u8, rest: &'a [u8]) -> &'a [u8] {
        match a % 5 {
            0 => self.send(client, &Message::Relay(RelayMessage::Withdraw(Withdraw {}))),
            1 => self.relay.on_moved(client, ([192, 0, 2, b], 1).into()),
            2 => self.relay.drain(Duration::from_secs(b.into())),
            3 => {
                let (datagram, after) = rest.split_at(rest.len().min(b.into()));
                self.relay.forward(client, datagram, self.now);
                // This table does not know the receiver of such a datagram.
                (0..CLIENTS).for_each(|id| while self.take(PeerId(id.into())).is_some() {});
                return after;
            }
            _ => {
                let (datagram, after) = rest.split_at(rest.len().min(LEN));
                let source = ([192, 0, 2, b], 9).into();
                let answer = self.relay.discovery().answer(datagram, source);
                assert!(answer.is_none(), "nobody made a probe");
                return after;
            }
        }
        rest
    }

    fn send(&mut self, client: PeerId, message: &Message) {
        self.relay.handle_message(client, message, self.now);
    }

    /// Sends a packet that names its sender and the number of the channel there.
    fn forward(&mut self, client: PeerId, channel: u8, length: usize) {
        let mut packet = vec![encapsulation::WHOLE, 0, 0, 0, channel];
        packet.push(u8::try_from(client.0).expect("few clients"));
        packet.push(channel);
        packet.resize(packet.len() + length, 0);
        self.relay.forward(client, &packet, self.now);
    }

    fn fetch(&mut self, client: PeerId, most: usize) {
        while self.relay.poll_ready().is_some() {}
        for _ in 0..most {
            let Some(packet) = self.take(client) else { break };
            let number = u32::from_be_bytes(packet[1..5].try_into().expect("four bytes"));
            let [from, channel] = [packet[5], packet[6]];
            // It may be of a channel that ended after it was sent, and then belongs to none.
            if let Some((partner, there)) = self.channels.get(&(client, number)) {
                let sender = (PeerId(from.into()), u32::from(channel));
                assert_eq!((*partner, *there), sender, "a packet of another channel");
            }
        }
    }

    fn take(&mut self, client: PeerId) -> Option<bytes::Bytes> {
        let length = self.relay.peek_packet(client);
        let packet = self.relay.poll_packet(client, usize::MAX).and_then(|mut it| it.next());
        assert_eq!(packet.as_ref().map(bytes::Bytes::len), length);
        packet
    }

    fn drain(&mut self) {
        while let Some(action) = self.relay.poll(self.now) {
            match action {
                RelayAction::Send { client, message } => self.on_sent(client, &message),
                // The program would end its connection; here it goes on, which is worse.
                RelayAction::Break { client, failure } => drop((client, failure)),
            }
        }
        assert!(self.relay.deadline().is_none_or(|(at, _)| at > self.now), "something is due");
        self.relay.audit();
        let relay = &self.relay;
        self.channels.retain(|(id, _), _| relay.is_attached(*id));
        for (end, partner) in &self.channels {
            assert_eq!(self.channels.get(partner), Some(end), "an end was not told");
        }
        assert_eq!(self.channels.len(), 2 * self.relay.view(self.now).channels);
    }

    fn on_sent(&mut self, client: PeerId, message: &Message) {
        message.encode(&mut BytesMut::new()).expect("it can be encoded");
        if let Message::Relay(RelayMessage::Incoming(incoming)) = message {
            self.incoming = Some((client, incoming.channel));
        } else if let Message::Relay(RelayMessage::Matched(matched)) = message {
            let connector = self.incoming.take().expect("the connector is told first");
            self.channels.insert((client, matched.channel), connector);
            self.channels.insert(connector, (client, matched.channel));
        } else if let Message::Relay(RelayMessage::Hangup(hangup)) = message {
            self.forget(client, hangup.channel);
        }
    }

    fn forget(&mut self, client: PeerId, channel: u32) {
        self.channels.remove(&(client, channel));
    }
}

fn key(number: u8) -> KeyDigest {
    KeyDigest([number; 32])
}

fn service(number: u8) -> ServiceName {
    format!("s{}", number % 4).parse().expect("a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members of a mesh: the first offers a service and the second asks for it.
    const MATCHED: [[u8; 4]; 4] = [[0, 1, 1, 1], [0, 2, 1, 2], [3, 1, 1 << 2, 0], [5, 2, 0, 0]];

    #[test]
    fn the_fuzz_target_matches_clients() {
        relay(MATCHED.as_flattened());
        let relay = Relay::new(RelayConfig::default(), [3; 32]);
        let mut table = Table { relay, now: origin(), channels: BTreeMap::new(), incoming: None };
        for deed in MATCHED.into_iter().chain([[8, 2, 1, 1], [8, 1, 1, 1]]) {
            table.act(deed, &[]);
            table.drain();
        }
        let ends: Vec<_> = table.channels.keys().copied().collect();
        assert_eq!(ends, [(PeerId(1), 1), (PeerId(2), 1)]);
        assert!(table.take(PeerId(1)).is_some() && table.take(PeerId(2)).is_some());
    }

    #[test]
    #[should_panic(expected = "a packet of another channel")]
    fn a_packet_of_another_channel_is_noticed() {
        let relay = Relay::new(RelayConfig::default(), [3; 32]);
        let mut table = Table { relay, now: origin(), channels: BTreeMap::new(), incoming: None };
        for deed in MATCHED.into_iter().chain([[8, 2, 1, 1]]) {
            table.act(deed, &[]);
            table.drain();
        }
        table.channels.insert((PeerId(1), 1), (PeerId(3), 1));
        table.fetch(PeerId(1), 1);
    }
}
