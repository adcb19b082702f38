//! Tests of a relay: every rule at its threshold, and all of them together against a model.

mod attaching;
mod connecting;
mod forwarding;
mod held;
mod model;
mod registering;

use std::time::{Duration, Instant};

use super::{Client, Relay, RelayAction, RelayConfig};
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::message::{
    CloudMessage, Connect, ControlMessage, Hangup, Incoming, Matched, Message, Register,
    Registered, RelayMessage, StreamMessage, Unmatched, Unregistered, Welcome, Withdraw,
};
use crate::timer::anchor;
use crate::tls::KeyDigest;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);
const MESH: KeyDigest = KeyDigest([0xaa; 32]);
const OTHER_MESH: KeyDigest = KeyDigest([0xbb; 32]);

/// A relay, its clock, and the actions since the last call. Its invariants are checked after every
/// call.
struct Table {
    relay: Relay,
    now: Instant,
    said: Vec<(PeerId, Message)>,
    broken: Vec<(PeerId, Code)>,
}

impl Table {
    fn new(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let mut config = RelayConfig::default();
        change(&mut config);
        let relay = Relay::new(config, [7; 32]);
        Self { relay, now: anchor(), said: Vec::new(), broken: Vec::new() }
    }

    /// Returns a relay with a connector, 1, that offers `db`, and a device of its mesh, 2.
    fn with_two() -> Self {
        let mut table = Self::new(|_| {});
        table.attach(1, member(1));
        table.attach(2, member(2));
        table.register(1, "home", &["db"]);
        table.forget();
        table
    }

    fn attach(&mut self, client: u64, who: Client) {
        let observed = format!("192.0.2.{client}:{}", 40_000 + client);
        self.attach_from(client, &who, &observed);
    }

    fn attach_from(&mut self, client: u64, who: &Client, observed: &str) {
        self.relay.on_attached(PeerId(client), who, observed.parse().unwrap());
        self.drain();
    }

    fn detach(&mut self, client: u64) {
        self.relay.on_detached(PeerId(client));
        self.drain();
    }

    fn handle(&mut self, client: u64, message: &Message) {
        self.relay.handle_message(PeerId(client), message, self.now);
        self.drain();
    }

    fn register(&mut self, client: u64, name: &str, services: &[&str]) {
        self.handle(client, &Message::Relay(RelayMessage::Register(registration(name, services))));
    }

    fn connect(&mut self, client: u64, service: &str) {
        self.connect_without(client, service, &[]);
    }

    fn connect_without(&mut self, client: u64, service: &str, exclude: &[u8]) {
        let exclude = exclude.iter().map(|key| KeyDigest([*key; 32])).collect();
        let connect = Connect { request: 9, service: service.parse().unwrap(), exclude };
        self.handle(client, &Message::Relay(RelayMessage::Connect(connect)));
    }

    /// Connects, and checks that the answer is held for as long as it may be and finds nothing.
    fn find_nothing(&mut self, client: u64, service: &str) {
        self.forget();
        self.connect(client, service);
        self.wait(self.relay.config().lookup_wait - TICK);
        assert_eq!(self.heard(), Vec::<String>::new());
        self.wait(TICK);
        assert_eq!(self.heard(), [format!("{client} unmatched 9 unknown_service")]);
    }

    /// Connects; returns the caller's number for the channel, and the connector with its number.
    fn channel(&mut self, client: u64, service: &str) -> (u32, u64, u32) {
        self.forget();
        self.connect(client, service);
        let [
            (connector, Message::Relay(RelayMessage::Incoming(incoming))),
            (caller, Message::Relay(RelayMessage::Matched(matched))),
        ] = &self.said[..]
        else {
            panic!("{:?}", self.said)
        };
        assert_eq!(*caller, PeerId(client));
        let found = (matched.channel, connector.0, incoming.channel);
        self.forget();
        found
    }

    fn hang_up(&mut self, client: u64, channel: u32) {
        let failure = Failure::new(Code::Closed, "done");
        self.handle(client, &Message::Relay(RelayMessage::Hangup(Hangup::new(channel, &failure))));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.relay.poll(self.now) {
            match action {
                RelayAction::Send { client, message } => {
                    message.encode(&mut bytes::BytesMut::new()).expect("it can be said");
                    self.said.push((client, message));
                }
                RelayAction::Break { client, failure } => {
                    self.broken.push((client, failure.code()))
                }
            }
        }
        self.relay.audit();
    }

    fn forget(&mut self) {
        self.said.clear();
    }

    /// Returns the actions since the last call, one a line.
    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said).iter().map(|(to, said)| line(to.0, said)).collect()
    }
}

fn line(to: u64, message: &Message) -> String {
    let words = match message {
        Message::Relay(RelayMessage::Welcome(Welcome { observed, .. })) => {
            format!("welcome {observed}")
        }
        Message::Relay(RelayMessage::Registered(Registered { refresh_ms })) => {
            format!("registered {refresh_ms}")
        }
        Message::Relay(RelayMessage::Unregistered(Unregistered { code, message, .. })) => {
            format!("unregistered {code}: {message}")
        }
        Message::Relay(RelayMessage::Matched(Matched { request, channel, name, .. })) => {
            format!("matched {request} {channel} {name}")
        }
        Message::Relay(RelayMessage::Unmatched(Unmatched { request, code, .. })) => {
            format!("unmatched {request} {code}")
        }
        Message::Relay(RelayMessage::Incoming(Incoming { channel, service, .. })) => {
            format!("incoming {channel} {service}")
        }
        Message::Relay(RelayMessage::Hangup(Hangup { channel, code, .. })) => {
            format!("hangup {channel} {code}")
        }
        Message::Control(ControlMessage::Heartbeat(_))
        | Message::Control(ControlMessage::HeartbeatAck(_))
        | Message::Cloud(CloudMessage::EscalationRequest(_))
        | Message::Cloud(CloudMessage::EscalationResponse(_))
        | Message::Cloud(CloudMessage::StreamChunk(_))
        | Message::Cloud(CloudMessage::StreamEnd(_))
        | Message::Stream(StreamMessage::Error(_))
        | Message::Control(ControlMessage::PrewarmSignal(_))
        | Message::Stream(StreamMessage::Open(_))
        | Message::Stream(StreamMessage::Opened(_))
        | Message::Stream(StreamMessage::ResetAt(_))
        | Message::Stream(StreamMessage::Request(_))
        | Message::Stream(StreamMessage::Response(_))
        | Message::Stream(StreamMessage::ResponseChunk(_))
        | Message::Control(ControlMessage::Goaway(_))
        | Message::Control(ControlMessage::Credit(_))
        | Message::Relay(RelayMessage::Register(_))
        | Message::Relay(RelayMessage::Withdraw(_))
        | Message::Relay(RelayMessage::Connect(_))
        | Message::Control(ControlMessage::Candidates(_)) => {
            panic!("a relay does not say {:?}", message.kind())
        }
    };
    format!("{to} {words}")
}

/// Returns a member of the mesh with `key` as its key and serial number.
fn member(key: u8) -> Client {
    let fixed = ["home", "cabin", "shed", "away", "new", "there", "last"].map(String::from);
    Client {
        key: KeyDigest([key; 32]),
        mesh: Some(MESH),
        serial: format!("{key:02x}"),
        names: fixed.into_iter().chain([format!("c{key}")]).collect(),
        may_serve: true,
    }
}

fn stranger(key: u8) -> Client {
    Client { mesh: None, serial: String::new(), names: vec![], may_serve: false, ..member(key) }
}

fn registration(name: &str, services: &[&str]) -> Register {
    Register {
        name: name.into(),
        services: services.iter().map(|it| it.parse().unwrap()).collect(),
        guests: Vec::new(),
        revoked: Vec::new(),
        takeover: false,
    }
}

fn withdraw() -> Message {
    Message::Relay(RelayMessage::Withdraw(Withdraw {}))
}
