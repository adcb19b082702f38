//! An agent and a connector joined by a network: the smallest world with a tunnel in it.
//!
//! It decides the two configurations and how a test waits. It never decides the content of a test.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::crypto::SeededCrypto;
use super::link::Conditions;
use super::net::HostId;
use super::pki::{Issued, Pki, Role};
use super::widen;
use super::world::World;
use crate::config::{Builder, Config, Dial};
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::lifecycle::State;
use crate::message::ServiceName;
use crate::node::Node;
use crate::tls::Tls;

/// The name in the connector's certificate.
pub const CONNECTOR: &str = "connector";

/// The address of the agent of a [`Pair`].
pub const AGENT_ADDRESS: std::net::SocketAddr = std::net::SocketAddr::V4(
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 1), 40_001),
);

/// The address of the connector of a [`Pair`].
pub const CONNECTOR_ADDRESS: std::net::SocketAddr = std::net::SocketAddr::V4(
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 2), 4433),
);

/// Returns the configuration of an agent, to change or to build.
pub fn agent(crypto: &SeededCrypto) -> Builder {
    with_identity(crypto, &Pki::new().issue("agent", Role::Agent))
}

/// Returns the configuration of a connector that accepts, to change or to build.
pub fn connector(crypto: &SeededCrypto) -> Builder {
    with_identity(crypto, &Pki::new().issue(CONNECTOR, Role::Connector)).listening(true)
}

/// Returns a configuration with a certificate of the caller's choice.
pub fn with_identity(crypto: &SeededCrypto, issued: &Issued) -> Builder {
    let tls = Tls::with_provider(issued.identity(), Pki::new().trust(), crypto.provider());
    Config::builder(tls)
}

/// A world of two.
///
/// ```
/// use adit_core::testing::pair::Pair;
/// let mut pair = Pair::new(1);
/// let (to_connector, to_agent) = pair.connect();
/// assert!(pair.agent().state(to_connector).is_some());
/// assert!(pair.connector().state(to_agent).is_some());
/// ```
#[derive(Debug)]
pub struct Pair {
    /// The world they live in.
    pub world: World,
    /// Where the agent runs.
    pub agent: HostId,
    /// Where the connector runs.
    pub connector: HostId,
}

impl Pair {
    /// Returns two nodes with their defaults on a plain link.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Conditions::default(), |agent| agent, |connector| connector)
    }

    /// Returns two nodes with changed configurations.
    ///
    /// # Panics
    /// If a configuration cannot work.
    #[must_use]
    pub fn with(
        seed: u64,
        conditions: Conditions,
        change_agent: impl FnOnce(Builder) -> Builder,
        change_connector: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let mut world = World::new(widen(seed), conditions);
        let hosts = (world.add_host(AGENT_ADDRESS), world.add_host(CONNECTOR_ADDRESS));
        let one = change_agent(agent(world.crypto(hosts.0))).build();
        world.start(hosts.0, one.expect("the agent's configuration works"), 1);
        let other = change_connector(connector(world.crypto(hosts.1))).build();
        world.start(hosts.1, other.expect("the connector's configuration works"), 1);
        Self { world, agent: hosts.0, connector: hosts.1 }
    }

    /// Returns the agent's node.
    pub fn agent(&mut self) -> &mut Node {
        self.world.node_mut(self.agent).0
    }

    /// Returns the connector's node.
    pub fn connector(&mut self) -> &mut Node {
        self.world.node_mut(self.connector).0
    }

    /// Lets the agent dial the connector.
    ///
    /// # Panics
    /// If the agent may not.
    pub fn dial(&mut self) -> PeerId {
        let (node, now) = self.world.node_mut(self.agent);
        node.dial(Dial::new(CONNECTOR_ADDRESS, CONNECTOR), now).expect("the agent can dial")
    }

    /// Dials, and waits until both sides are connected: the agent's peer and the connector's.
    ///
    /// # Panics
    /// If that takes a minute.
    pub fn connect(&mut self) -> (PeerId, PeerId) {
        let to_connector = self.dial();
        let (agent, connector, mut accepted) = (self.agent, self.connector, None);
        self.wait("both sides to be connected", |world| {
            while let Some(event) = world.poll_event(connector) {
                if let Event::Accepted { peer } = event {
                    accepted = Some(peer);
                }
            }
            accepted.is_some() && is_connected(world, agent, to_connector)
        });
        (to_connector, accepted.expect("the wait was for it"))
    }

    /// Opens a stream to a service and accepts it: the agent's name of it and the connector's.
    ///
    /// # Panics
    /// If that takes a minute, or the peer allows no more streams.
    pub fn open(&mut self, peer: PeerId, service: &str) -> (StreamId, StreamId) {
        let service: ServiceName = service.parse().expect("a service name");
        let opened = self.agent().open(peer, service.clone());
        let ours = opened.expect("connected").expect("the peer allows a stream");
        let (connector, mut offered) = (self.connector, None);
        self.wait("the stream to be offered", |world| {
            while let Some(event) = world.poll_event(connector) {
                if let Event::StreamOffered { stream, service: asked } = event {
                    assert_eq!(asked, service);
                    offered = Some(stream);
                }
            }
            offered.is_some()
        });
        let theirs = offered.expect("the wait was for it");
        self.connector().accept_stream(theirs).expect("it was offered");
        (ours, theirs)
    }

    /// Lets the world go on until `is_done` returns true.
    ///
    /// # Panics
    /// If that takes more than a minute of the world's time.
    pub fn wait(&mut self, what: &str, mut is_done: impl FnMut(&mut World) -> bool) {
        let until = self.world.now() + Duration::from_secs(60);
        self.world.settle();
        while !is_done(&mut self.world) {
            assert!(self.world.step(until), "waited for {what} in vain");
        }
    }
}

/// Returns true if a peer of a host's node is connected.
#[must_use]
pub fn is_connected(world: &World, host: HostId, peer: PeerId) -> bool {
    matches!(world.node(host).state(peer), Some(State::Connected { .. }))
}

/// One direction of a stream that carries a pattern, which the reader checks byte by byte.
#[derive(Debug)]
pub struct Flow {
    writer: (HostId, StreamId),
    reader: (HostId, StreamId),
    length: u64,
    written: u64,
    read: u64,
    has_finished: bool,
    has_ended: bool,
}

impl Flow {
    /// Returns a flow of `length` bytes from a stream of one host to the same stream at another.
    #[must_use]
    pub const fn new(writer: (HostId, StreamId), reader: (HostId, StreamId), length: u64) -> Self {
        let (has_finished, has_ended) = (false, false);
        Self { writer, reader, length, written: 0, read: 0, has_finished, has_ended }
    }

    /// Returns the bytes that were read.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Moves what can be moved now. Whether the reader has everything and the end.
    ///
    /// # Panics
    /// If a byte is wrong, or the stream breaks.
    pub fn advance(&mut self, world: &mut World) -> bool {
        while self.written < self.length {
            let mut chunk = pattern(self.written, (self.length - self.written).min(64 << 10));
            let (node, _) = world.node_mut(self.writer.0);
            match node.stream(self.writer.1).write(&mut chunk) {
                Poll::Ready(Ok(taken)) => self.written += taken as u64,
                Poll::Ready(Err(error)) => panic!("writing: {error}"),
                Poll::Pending => break,
            }
        }
        if self.written == self.length && !self.has_finished {
            let (node, _) = world.node_mut(self.writer.0);
            node.stream(self.writer.1).finish().expect("it can be finished once");
            self.has_finished = true;
        }
        while !self.has_ended {
            let (node, _) = world.node_mut(self.reader.0);
            match node.stream(self.reader.1).read(64 << 10) {
                Poll::Ready(Ok(Some(bytes))) => {
                    assert_eq!(bytes, pattern(self.read, bytes.len() as u64), "at {}", self.read);
                    self.read += bytes.len() as u64;
                }
                Poll::Ready(Ok(None)) => {
                    assert_eq!(self.read, self.length, "the end came early");
                    self.has_ended = true;
                }
                Poll::Ready(Err(error)) => panic!("reading: {error}"),
                Poll::Pending => break,
            }
        }
        self.has_ended
    }
}

/// Returns `length` bytes of the pattern from `offset` on: a byte identifies its place within 64
/// KiB.
#[must_use]
pub fn pattern(offset: u64, length: u64) -> Bytes {
    (offset..offset + length).map(|at| (at ^ (at >> 8).wrapping_mul(167)) as u8).collect()
}
