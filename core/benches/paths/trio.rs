//! An agent, a connector and a relay joined in memory: batch by batch, each passed on whole.
//!
//! It decides how they are driven and whose time is counted. It never loses, delays or reorders a
//! datagram, except that the direct path does not exist where it is not wanted.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial, Transport};
use adit_core::event::Event;
use adit_core::id::{PeerId, StreamId};
use adit_core::lifecycle::State;
use adit_core::node::{Input, Node, Output, Start};
use adit_core::relay;
use adit_core::relay::Register;
use adit_core::testing::clock::EPOCH;
use adit_core::testing::pki::{Pki, Role};
use adit_core::tls::{KeyDigest, Tls, Trust};
use adit_core::transmit::{Datagram, NextHop, Route};
use bytes::{Bytes, BytesMut};

use super::stream::{self, CHUNK};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a stream that pass before the clock starts.
const WARM_UP: u64 = 64 << 20;
/// Time after which a run without progress has failed.
const STALL: Duration = Duration::from_secs(10);
/// Idle time after which all packets have arrived: longer than any delayed ACK (RFC 9000 §18.2).
const REST: Duration = Duration::from_millis(100);
/// Bytes and datagrams of the largest batch.
const BATCH: usize = 65_000;
const SEGMENTS: usize = 44;

/// The path that the agent's packets are to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// The agent dials the connector's address, without path discovery.
    Plain,
    /// Through the relay alone.
    Relayed,
    /// Discovered through the relay, then direct.
    Direct,
}

const AGENT: usize = 0;
const CONNECTOR: usize = 1;
const RELAY: usize = 2;

/// One node, its address, and what its events reported.
struct Side {
    addr: SocketAddr,
    node: Node,
    buffer: Vec<u8>,
    offered: Option<StreamId>,
    connected: Vec<PeerId>,
    is_registered: bool,
    is_direct: bool,
    /// Time spent in the node.
    time: Duration,
}

/// The three.
pub(crate) struct Trio {
    sides: [Side; 3],
    kind: PathKind,
    to_connector: Option<PeerId>,
    /// The relay's time and count when the clock was started.
    before: (Duration, u64),
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    Instant::now()
}

impl Side {
    fn new(index: usize, config: Config, mtu: u16) -> Result<Self> {
        let start = Start { seed: [index as u8; 32], now: now(), unix: EPOCH };
        let mut node = Node::new(config, start)?;
        node.set_max_segments((BATCH / usize::from(mtu)).clamp(1, SEGMENTS));
        let addr = (Ipv4Addr::new(203, 0, 113, index as u8 + 1), 4433).into();
        Ok(Self {
            addr,
            node,
            buffer: Vec::new(),
            offered: None,
            connected: Vec::new(),
            is_registered: false,
            is_direct: false,
            time: Duration::ZERO,
        })
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::StreamOffered { stream, .. } = event {
            self.offered = Some(*stream);
        }
        self.is_registered |= matches!(event, Event::Registered { .. });
        if let Event::PathChanged { via, .. } = event {
            self.is_direct = matches!(via, NextHop::Direct(_));
        }
        if let Event::Transition { peer, transition } = event
            && matches!(transition.to, State::Connected { .. })
        {
            self.connected.push(*peer);
        }
    }
}

impl Trio {
    /// Joined, connected, and on the path that is wanted.
    pub(crate) fn new(kind: PathKind, mtu: u16) -> Result<Self> {
        let transport = Transport::default()
            .stream_window(2 << 20)
            .connection_window(8 << 20)
            .send_window(8 << 20)
            .max_udp_payload(mtu);
        let relay = Pki::new().issue("relay", Role::Connector);
        let key = KeyDigest::of_certificate(&relay.chain()[0]).ok_or("no certificate")?;
        let free = relay::RelayConfig::default().bytes_per_second(1 << 40).bytes_at_once(1 << 30);
        let tls = Tls::new(relay.identity(), Trust::anyone());
        let config = Config::builder(tls).relay(free).transport(transport.clone()).build()?;
        let third = Side::new(RELAY, config, mtu)?;
        let member = |index, name, role| -> Result<Side> {
            let issued = Pki::new().issue(name, role);
            let tls = Tls::new(issued.identity(), Pki::new().trust());
            let builder = Config::builder(tls).transport(transport.clone());
            let mut side = Side::new(index, builder.listening(index == CONNECTOR).build()?, mtu)?;
            if kind == PathKind::Direct {
                side.node.handle(Input::LocalAddresses(vec![side.addr]), now());
            }
            let identity = issued.identity().presenting(Pki::new().root_pem().as_bytes())?;
            let tls = Tls::new(identity, Trust::pinned_leaf(key));
            side.node.dial(Dial::relay(third.addr, "relay", tls), now())?;
            Ok(side)
        };
        let agent = member(AGENT, "agent", Role::Agent)?;
        let connector = member(CONNECTOR, "connector", Role::Connector)?;
        let mut trio = Self {
            sides: [agent, connector, third],
            kind,
            to_connector: None,
            before: (Duration::ZERO, 0),
        };
        trio.connect()?;
        Ok(trio)
    }

    fn connect(&mut self) -> Result<()> {
        let service: adit_core::ServiceName = "bulk".parse()?;
        let offer = Register {
            name: "connector".into(),
            services: vec![service.clone()],
            guests: Vec::new(),
            revoked: Vec::new(),
            takeover: true,
        };
        self.sides[CONNECTOR].node.register(Some(offer), now());
        self.run_until(|sides| {
            sides[CONNECTOR].is_registered && !sides[AGENT].connected.is_empty()
        })?;
        let dial = match self.kind {
            PathKind::Plain => Dial::new(self.sides[CONNECTOR].addr, "connector"),
            PathKind::Relayed | PathKind::Direct => Dial::service(service, "connector"),
        };
        let peer = self.sides[AGENT].node.dial(dial, now())?;
        self.to_connector = Some(peer);
        let kind = self.kind;
        self.run_until(|sides| {
            let both = sides[AGENT].is_direct && sides[CONNECTOR].is_direct;
            sides[AGENT].connected.contains(&peer) && (kind != PathKind::Direct || both)
        })?;
        self.settle()
    }

    /// Runs until path MTU discovery has ended. It needs turns without data, and acknowledgements
    /// that are delayed.
    fn settle(&mut self) -> Result<()> {
        let (start, mut moved) = (now(), now());
        while now() < moved + REST {
            if self.turn() {
                moved = now();
            }
            if now() > start + STALL {
                return Err("the three did not come to rest".into());
            }
        }
        Ok(())
    }

    fn run_until(&mut self, mut is_done: impl FnMut(&[Side; 3]) -> bool) -> Result<()> {
        let start = now();
        while !is_done(&self.sides) {
            self.turn();
            if now() > start + STALL {
                return Err("the three did not come together".into());
            }
        }
        Ok(())
    }

    /// Lets every node send one batch. Returns true if any did.
    fn turn(&mut self) -> bool {
        [AGENT, RELAY, CONNECTOR, RELAY].map(|from| self.hand_over(from)).contains(&true)
    }

    fn hand_over(&mut self, from: usize) -> bool {
        let began = now();
        let side = &mut self.sides[from];
        if side.node.timer().is_some_and(|(at, _)| at <= began) {
            side.node.handle(Input::Tick, began);
        }
        let mut transmit = None;
        while let Some(output) = side.node.poll_output(&mut side.buffer, began) {
            match output {
                Output::Event(event) => side.on_event(&event),
                Output::Transmit(batch) => {
                    transmit = Some(batch);
                    break;
                }
            }
        }
        side.time += began.elapsed();
        let Some(transmit) = transmit else { return false };
        let (addr, payload) = (side.addr, BytesMut::from(&side.buffer[..transmit.size]));
        let remote = transmit.route.remote;
        let Some(to) = self.sides.iter().position(|side| side.addr == remote) else { return true };
        let is_direct = from != RELAY && to != RELAY;
        if is_direct && self.kind == PathKind::Relayed {
            return true;
        }
        let segment_size = transmit.segment_size.unwrap_or(0);
        let datagram = Datagram { route: Route::to(addr), ecn: None, segment_size, payload };
        let began = now();
        self.sides[to].node.handle(Input::Datagram(datagram), began);
        self.sides[to].time += began.elapsed();
        true
    }

    /// Moves `bytes` over one stream on which others have passed before. Returns the time until the
    /// end of the stream has been read.
    pub(crate) fn bulk(&mut self, bytes: u64) -> Result<Duration> {
        let peer = self.to_connector.ok_or("not connected")?;
        let stream = self.sides[AGENT].node.open(peer, "bulk".parse()?)?;
        let stream = stream.ok_or("no stream to open")?;
        let block = Bytes::from(vec![0x5a; CHUNK]);
        let (mut unsent, mut unread) = (bytes + WARM_UP, bytes + WARM_UP);
        let (mut start, mut progress, mut ended) = (now(), now(), false);
        while !ended {
            unsent = stream::write(&mut self.sides[AGENT].node, stream, &block, unsent)?;
            let moved = self.turn();
            let receiver = &mut self.sides[CONNECTOR];
            if let Some(offered) = receiver.offered {
                // Accepted once; after that it is in use.
                let _ = receiver.node.accept_stream(offered);
                let (read, end) = stream::read(&mut receiver.node, offered)?;
                unread = unread.checked_sub(read).ok_or("more came out than went in")?;
                ended = end;
            }
            if unread >= bytes {
                start = now();
                self.before = (self.sides[RELAY].time, self.forwarded_in_all());
            }
            if moved {
                progress = now();
            } else if now() > progress + STALL {
                return Err("the transfer stalled".into());
            }
        }
        if unread > 0 {
            return Err(format!("{unread} bytes are missing").into());
        }
        Ok(start.elapsed())
    }

    fn forwarded_in_all(&self) -> u64 {
        self.sides[RELAY].node.snapshot().relay.map_or(0, |view| view.forwarded_packets)
    }

    /// Returns the time the relay spent since the clock was started.
    pub(crate) fn relay_time(&self) -> Duration {
        self.sides[RELAY].time - self.before.0
    }

    /// Returns the packets the relay forwarded since then.
    pub(crate) fn forwarded(&self) -> Result<u64> {
        let count = self.forwarded_in_all() - self.before.1;
        if count == 0 { Err("nothing went through the relay".into()) } else { Ok(count) }
    }
}
