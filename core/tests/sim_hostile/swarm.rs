//! Thousands of clients of one relay that all misbehave in the same instant.
//!
//! Each test runs on a thread with a small stack: call depth must not depend on the number of
//! clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::config::{Config, Limits};
use adit_core::message::{Connect, Message, Register, RelayMessage, Withdraw};
use adit_core::relay;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pki::{Pki, Role};
use adit_core::testing::world::World;
use adit_core::tls::{Tls, Trust};
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, StreamId, TransportConfig, VarInt,
};

use crate::raw::client;
use crate::scene::SECOND;

const RELAY: &str = "relay";

/// Stack size: a quarter of that of a tokio worker thread, and an eighth of a main thread's.
const STACK: usize = 256 << 10;

#[test]
fn five_thousand_clients_that_stop_their_control_streams_leave_a_relay_up() {
    on_a_small_stack(|| {
        let mut swarm = Swarm::new(41);
        let connector = swarm.register();
        let clients = swarm.connect(5_000);
        for &(handle, control) in &clients {
            swarm.stop(handle, control);
        }
        swarm.run(SECOND);
        assert_eq!(swarm.peers(), 5_001);
        swarm.say(connector, &Message::Relay(RelayMessage::Withdraw(Withdraw {})));
        swarm.run(SECOND);
        assert_eq!(swarm.peers(), 1, "each of them was to be told, and could not be");
        assert_eq!(swarm.connect(1).len(), 1, "the relay takes another client");
    });
}

#[test]
fn five_thousand_clients_whose_connector_vanishes_leave_a_relay_up() {
    on_a_small_stack(|| {
        let mut swarm = Swarm::new(42);
        let (connector, _) = swarm.register();
        let clients = swarm.connect(5_000);
        for &(handle, control) in &clients {
            swarm.stop(handle, control);
        }
        swarm.run(SECOND);
        swarm.close(connector);
        swarm.run(SECOND);
        assert_eq!(swarm.peers(), 0);
        assert_eq!(swarm.connect(1).len(), 1, "the relay takes another client");
    });
}

#[test]
fn five_thousand_clients_that_leave_together_leave_a_relay_up() {
    on_a_small_stack(|| {
        let mut swarm = Swarm::new(43);
        swarm.register();
        let clients = swarm.connect(5_000);
        for (handle, _) in clients {
            swarm.close(handle);
        }
        swarm.run(SECOND);
        assert_eq!(swarm.peers(), 1);
    });
}

#[test]
fn a_relay_with_five_thousand_clients_that_stopped_listening_shuts_down() {
    on_a_small_stack(|| {
        let mut swarm = Swarm::new(44);
        swarm.register();
        for (handle, control) in swarm.connect(5_000) {
            swarm.stop(handle, control);
        }
        swarm.run(SECOND);
        let (node, now) = swarm.world.node_mut(swarm.relay);
        node.shutdown(now);
        swarm.run(60 * SECOND);
        assert!(swarm.world.node(swarm.relay).is_shut_down());
    });
}

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap();
    thread.join().unwrap();
}

/// Bare QUIC clients on one socket, and the relay that they use.
struct Swarm {
    world: World,
    relay: HostId,
    host: HostId,
    config: ClientConfig,
    endpoint: Endpoint,
    connections: BTreeMap<ConnectionHandle, Client>,
    timers: BTreeSet<(Instant, ConnectionHandle)>,
    next_request: u64,
}

struct Client {
    connection: Connection,
    control: Option<StreamId>,
    timeout: Option<Instant>,
    is_up: bool,
}

impl Client {
    /// Reads what the relay sent on the control stream, and discards it.
    fn read(&mut self) {
        let Some(control) = self.control else { return };
        let mut stream = self.connection.recv_stream(control);
        // It does not exist once this side has stopped it.
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(_)) = chunks.next(usize::MAX) {}
        let _ = chunks.finalize();
    }
}

impl Swarm {
    fn new(seed: u8) -> Self {
        let mut world = World::new([seed; 32], Conditions::default());
        let relay = world.add_host(SocketAddr::from(([203, 0, 113, 1], 4433)));
        let host = world.add_host(SocketAddr::from(([10, 0, 1, 1], 666)));
        let issued = Pki::new().issue(RELAY, Role::Connector);
        let provider = world.crypto(relay).provider();
        let tls = Tls::with_provider(issued.identity(), Trust::anyone(), provider);
        // The limits on the number of clients are not tested here.
        let limits = Limits::default()
            .connections_of_a_key(65_536)
            .handshakes_per_source(1_000)
            .handshakes_per_second(65_536)
            .handshakes_before_retry(500);
        let allowed = relay::RelayConfig::default()
            .channels_of_a_connector(8_192)
            .incoming_per_second(65_536)
            .incoming_at_once(65_536)
            .refresh(Duration::from_secs(3_600));
        let config = Config::builder(tls).relay(allowed).limits(limits).build().unwrap();
        world.start(relay, config, 1);
        let issued = Pki::new().issue("connector", Role::Connector);
        let mut chain = issued.chain();
        chain.push(Pki::new().root());
        let mut config = client(&world, host, chain, issued.key());
        // The connector has the limits of an honest one.
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(None);
        config.transport_config(Arc::new(transport));
        let endpoint = Arc::new(EndpointConfig::default());
        let endpoint = Endpoint::new(endpoint, None, true, Some([9; 32]));
        let (connections, timers) = (BTreeMap::new(), BTreeSet::new());
        Self { world, relay, host, config, endpoint, connections, timers, next_request: 0 }
    }

    /// Returns the number of clients of the relay.
    fn peers(&self) -> usize {
        let node = self.world.node(self.relay);
        node.audit();
        node.snapshot().peers.len()
    }

    /// Connects a client that registers a service and continues to read.
    fn register(&mut self) -> (ConnectionHandle, StreamId) {
        let connector = self.open();
        self.say(
            connector,
            &Message::Relay(RelayMessage::Register(Register {
                name: "connector".into(),
                services: vec!["web".parse().unwrap()],
                guests: Vec::new(),
                revoked: Vec::new(),
                takeover: true,
            })),
        );
        self.run(SECOND / 10);
        connector
    }

    /// Connects clients that have a channel to the connector.
    fn connect(&mut self, count: usize) -> Vec<(ConnectionHandle, StreamId)> {
        let mut clients = Vec::new();
        for n in 0..count {
            clients.push(self.open());
            if n % 256 == 255 {
                self.run(SECOND / 10);
            }
        }
        self.run(SECOND / 10);
        for (n, &client) in clients.iter().enumerate() {
            if n % 32 == 31 {
                // The connector must read what the relay announces to it.
                self.run(SECOND / 20);
            }
            let request = self.next_request;
            self.next_request += 1;
            let service = "web".parse().unwrap();
            self.say(
                client,
                &Message::Relay(RelayMessage::Connect(Connect {
                    request,
                    service,
                    exclude: vec![],
                })),
            );
        }
        self.run(SECOND / 2);
        clients
    }

    /// Opens a connection with its control stream.
    fn open(&mut self) -> (ConnectionHandle, StreamId) {
        let now = self.world.now();
        let remote = self.world.net().address(self.relay);
        let (handle, connection) =
            self.endpoint.connect(now, self.config.clone(), remote, RELAY).unwrap();
        let client = Client { connection, control: None, timeout: None, is_up: false };
        self.connections.insert(handle, client);
        self.pump(handle);
        let until = now + SECOND;
        while self.connections[&handle].control.is_none() {
            assert!(self.step(until), "the relay lets nobody in");
        }
        (handle, self.connections[&handle].control.unwrap())
    }

    fn say(&mut self, (handle, control): (ConnectionHandle, StreamId), message: &Message) {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes).unwrap();
        let client = self.connections.get_mut(&handle).unwrap();
        client.connection.send_stream(control).write(&bytes).unwrap();
        self.pump(handle);
    }

    /// Sends STOP_SENDING to the relay on a control stream.
    fn stop(&mut self, handle: ConnectionHandle, control: StreamId) {
        let client = self.connections.get_mut(&handle).unwrap();
        client.connection.recv_stream(control).stop(VarInt::from_u32(0)).unwrap();
        self.pump(handle);
    }

    fn close(&mut self, handle: ConnectionHandle) {
        let now = self.world.now();
        let client = self.connections.get_mut(&handle).unwrap();
        client.connection.close(now, VarInt::from_u32(0), bytes::Bytes::new());
        self.pump(handle);
    }

    fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.step(until) {}
    }

    fn step(&mut self, until: Instant) -> bool {
        let due = self.timers.first().map_or(until, |(at, _)| (*at).max(self.world.now()));
        let happened = self.world.step(due.min(until));
        let now = self.world.now();
        let (mut touched, mut answer) = (BTreeSet::new(), Vec::new());
        while let Some(packet) = self.world.receive(self.host) {
            let data = BytesMut::from(&packet.payload[..]);
            let event = self.endpoint.handle(now, packet.from, None, None, data, &mut answer);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
                && let Some(client) = self.connections.get_mut(&handle)
            {
                client.connection.handle_event(event);
                touched.insert(handle);
            }
        }
        while let Some(&(at, handle)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, handle));
            if let Some(client) = self.connections.get_mut(&handle) {
                client.timeout = None;
                client.connection.handle_timeout(now);
                touched.insert(handle);
            }
        }
        let acted = !touched.is_empty();
        for handle in touched {
            self.pump(handle);
        }
        happened || acted || due < until
    }

    fn pump(&mut self, handle: ConnectionHandle) {
        let now = self.world.now();
        let Some(client) = self.connections.get_mut(&handle) else { return };
        let mut out = Vec::new();
        loop {
            while let Some(event) = client.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    client.connection.handle_event(event);
                }
            }
            while let Some(event) = client.connection.poll() {
                client.is_up |= matches!(event, Event::Connected);
            }
            client.read();
            if client.is_up && client.control.is_none() {
                client.control = client.connection.streams().open(Dir::Bi);
                let control = client.control.expect("the relay allows a control stream");
                let beat = crate::scene::heartbeat(0);
                client.connection.send_stream(control).write(&beat).unwrap();
            }
            out.clear();
            let Some(transmit) = client.connection.poll_transmit(now, 1, &mut out) else { break };
            self.world.send(self.host, transmit.destination, &out[..transmit.size]);
        }
        let timeout = client.connection.poll_timeout();
        if let Some(at) = std::mem::replace(&mut client.timeout, timeout) {
            self.timers.remove(&(at, handle));
        }
        self.timers.extend(timeout.map(|at| (at, handle)));
        if client.connection.is_drained() {
            self.connections.remove(&handle);
        }
    }
}
