//! A node under attack: the victim, an honest peer beside the attacker, and the victim's
//! application.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use adit_core::config::{Builder, Dial};
use adit_core::error::{Code, Failure};
use adit_core::event::Event;
use adit_core::frame;
use adit_core::id::{PeerId, StreamId};
use adit_core::message::{ControlMessage, Heartbeat, Message, Request, StreamMessage};
use adit_core::node::PeerSnapshot;
use adit_core::request::Priority;
use adit_core::testing::clock::EPOCH;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{self, CONNECTOR, CONNECTOR_ADDRESS, Flow};
use adit_core::testing::pki::{Pki, Role};
use adit_core::testing::world::World;
use bytes::BytesMut;

use crate::raw::Raw;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A connector, an honest agent, and the attacker.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) victim: HostId,
    bystander: (HostId, PeerId),
    pub(crate) raw: Raw,
    pub(crate) raw_peer: PeerId,
    hosts: u16,
    /// How the connection of the hostile peer ended, at the victim.
    pub(crate) closed: Option<Failure>,
    pub(crate) rejected: Vec<Failure>,
    /// Streams to the service that does not read.
    sinks: Vec<StreamId>,
    /// Streams to the service that writes without end, and how much it wrote.
    sources: Vec<StreamId>,
    pub(crate) written: usize,
    /// Requests that were answered.
    pub(crate) requests: usize,
    /// The stream of the honest peer, once it was offered.
    honest: Option<StreamId>,
}

impl Scene {
    pub(crate) fn new(seed: u8) -> Self {
        Self::with(seed, |builder| builder)
    }

    pub(crate) fn with(seed: u8, change: impl FnOnce(Builder) -> Builder) -> Self {
        let mut world = World::new([seed; 32], Conditions::default());
        let victim = world.add_host(CONNECTOR_ADDRESS);
        let agent = world.add_host(pair::AGENT_ADDRESS);
        let host = world.add_host(SocketAddr::from(([10, 0, 1, 1], 666)));
        let config = change(pair::connector(world.crypto(victim))).build().unwrap();
        world.start(victim, config, 1);
        let config = pair::agent(world.crypto(agent)).build().unwrap();
        world.start(agent, config, 1);
        let (node, now) = world.node_mut(agent);
        let honest = node.dial(Dial::new(CONNECTOR_ADDRESS, CONNECTOR), now).unwrap();
        world.run_for(SECOND);
        while world.poll_event(victim).is_some() {}
        let issued = Pki::new().issue("hostile", Role::Agent);
        let mut raw = Raw::new(&mut world, host, &issued);
        raw.run(&mut world, SECOND);
        let accepted = std::iter::from_fn(|| world.poll_event(victim))
            .find_map(|event| if let Event::Accepted { peer } = event { Some(peer) } else { None });
        Self {
            world,
            victim,
            bystander: (agent, honest),
            raw,
            raw_peer: accepted.unwrap(),
            hosts: 1,
            closed: None,
            rejected: Vec::new(),
            sinks: Vec::new(),
            sources: Vec::new(),
            written: 0,
            requests: 0,
            honest: None,
        }
    }

    pub(crate) fn add_host(&mut self) -> HostId {
        let [a, b] = (0x200 + self.hosts).to_be_bytes();
        self.hosts += 1;
        self.world.add_host(SocketAddr::from(([10, 0, a, b], 666)))
    }

    /// Opens the control stream of the hostile peer.
    pub(crate) fn control(&mut self) -> quinn_proto::StreamId {
        let control = self.raw.open().unwrap();
        self.raw.write(control, &heartbeat(0));
        self.run(SECOND / 10);
        control
    }

    /// Returns the hostile peer as the victim sees it.
    pub(crate) fn peer(&self) -> Option<PeerSnapshot> {
        self.world.node(self.victim).peer_snapshot(self.raw_peer)
    }

    /// Opens this many streams, each beginning with `first`, as the victim allows them.
    pub(crate) fn open_with(&mut self, count: usize, first: &[u8]) -> Vec<quinn_proto::StreamId> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = self.raw.open().unwrap_or_else(|| {
                self.run(Duration::from_millis(50));
                self.raw.open().expect("more are allowed as they are used")
            });
            self.raw.write(stream, first);
            streams.push(stream);
        }
        streams
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.raw.step(&mut self.world, until) {
            self.act();
        }
        self.act();
    }

    /// Lets time pass while the hostile peer is silent.
    pub(crate) fn run_without(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.world.step(until) {
            self.act();
        }
    }

    /// Runs the victim's application.
    pub(crate) fn act(&mut self) {
        self.world.settle();
        while let Some(event) = self.world.poll_event(self.victim) {
            self.on_event(event);
        }
        for &stream in &self.sources {
            let mut bytes = pair::pattern(0, 16 << 10);
            let (node, _) = self.world.node_mut(self.victim);
            while let Poll::Ready(Ok(taken)) = node.stream(stream).write(&mut bytes) {
                self.written += taken;
                bytes = pair::pattern(0, 16 << 10);
            }
        }
        self.world.node(self.victim).audit();
    }

    fn on_event(&mut self, event: Event) {
        let (node, _) = self.world.node_mut(self.victim);
        if let Event::StreamOffered { stream, service } = event {
            // It may have been reset meanwhile.
            let _ = node.accept_stream(stream);
            match service.as_str() {
                "sink" => self.sinks.push(stream),
                "source" => self.sources.push(stream),
                "honest" => self.honest = Some(stream),
                _ => self.read(stream),
            }
        } else if let Event::StreamReadable { stream } = event {
            if !self.sinks.contains(&stream) && self.honest != Some(stream) {
                self.read(stream);
            }
        } else if let Event::RequestOffered { request, .. } = event {
            self.requests += 1;
            // It may have been cancelled meanwhile.
            let _ = node.respond(request, "taken".into());
        } else if let Event::Closed { peer, failure } = event {
            if peer == self.raw_peer {
                assert_eq!(self.closed.replace(failure), None, "closed twice");
            }
        } else if let Event::Rejected { failure, .. } = event {
            self.rejected.push(failure);
        }
    }

    /// Reads all there is. A stream that ends is finished on this side too.
    fn read(&mut self, stream: StreamId) {
        let (node, _) = self.world.node_mut(self.victim);
        let mut stream = node.stream(stream);
        loop {
            match stream.read(1 << 20) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None) | Err(_)) => {
                    return stream.reset(Code::Closed);
                }
                Poll::Pending => return,
            }
        }
    }

    pub(crate) fn read_all(&mut self) {
        self.run(SECOND);
        for stream in std::mem::take(&mut self.sinks) {
            self.read(stream);
        }
    }

    /// Checks that the hostile peer's connection was closed, for this reason, at both ends.
    pub(crate) fn is_closed(&mut self, code: Code) {
        self.run(SECOND);
        let failure = self.closed.clone().unwrap();
        assert_eq!(failure.code(), code, "{failure}");
        assert!(self.peer().is_none());
        assert!(self.raw.end().unwrap().contains(failure.detail()), "{:?}", self.raw.end());
        self.end();
        self.run(10 * SECOND);
        assert_eq!(self.world.node(self.victim).snapshot().connections, 1);
    }

    /// Checks that the hostile peer has only its connection left.
    pub(crate) fn is_idle(&mut self) {
        self.run(15 * SECOND);
        assert_eq!(self.closed, None);
        let peer = self.peer().unwrap();
        assert_eq!((peer.streams, peer.held_bytes), (0, 0), "{peer:?}");
    }

    /// Checks that the honest peer is served as well as before.
    pub(crate) fn end(&mut self) {
        let (agent, honest) = self.bystander;
        let (node, _) = self.world.node_mut(agent);
        let ours = node.open(honest, "honest".parse().unwrap()).unwrap().unwrap();
        self.honest = None;
        self.run(SECOND / 10);
        let (a, v) = ((agent, ours), (self.victim, self.honest.unwrap()));
        let (mut up, mut down) = (Flow::new(a, v, 1 << 20), Flow::new(v, a, 1 << 20));
        let until = self.world.now() + 2 * SECOND;
        while !(up.advance(&mut self.world) & down.advance(&mut self.world)) {
            assert!(self.raw.step(&mut self.world, until), "the honest peer is held up");
            self.act();
        }
    }
}

pub(crate) fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(kind, payload, &mut out).unwrap();
    out.to_vec()
}

pub(crate) fn heartbeat(sequence: u64) -> Vec<u8> {
    let timestamp = EPOCH.as_millis() as u64;
    let beat = Heartbeat { device_id: "hostile".into(), timestamp, sequence, vitals: None };
    let mut out = BytesMut::new();
    Message::Control(ControlMessage::Heartbeat(beat)).encode(&mut out).unwrap();
    out.to_vec()
}

pub(crate) fn request(length: usize) -> Vec<u8> {
    let body = pair::pattern(0, length as u64);
    let (id, priority) = ("1".into(), Priority::Normal);
    let mut out = BytesMut::new();
    Message::Stream(StreamMessage::Request(Request { id, deadline_ms: None, priority, body }))
        .encode(&mut out)
        .unwrap();
    out.to_vec()
}
