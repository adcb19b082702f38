//! Two nodes joined in memory, driven as [`super::bare`] drives two bare endpoints.
//!
//! Sizes, windows and warm-up are those of the bare run; it chooses none of them.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::config::{Config, Dial, Transport};
use adit_core::event::Event;
use adit_core::id::StreamId;
use adit_core::lifecycle::State;
use adit_core::node::{Input, Node, Output, Start};
use adit_core::testing::clock::EPOCH;
use adit_core::testing::pki::{Pki, Role};
use adit_core::tls::Tls;
use adit_core::transmit::{Datagram, Route};
use bytes::{Bytes, BytesMut};

use super::bare;
use super::stream::{self, CHUNK};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One node, its address, and what its events reported.
struct Side {
    addr: SocketAddr,
    node: Node,
    buffer: Vec<u8>,
    offered: Option<StreamId>,
    connected: bool,
}

impl Side {
    fn new(port: u16, name: &str, listening: bool, config: &bare::Config) -> Result<Self> {
        let issued = Pki::new().issue(name, Role::Connector);
        let tls = Tls::new(issued.identity(), Pki::new().trust());
        let transport = Transport::default()
            .stream_window(config.stream_window)
            .connection_window(config.window)
            .send_window(config.window)
            .max_udp_payload(config.mtu);
        let built = Config::builder(tls).transport(transport).listening(listening).build()?;
        let start = Start { seed: [port.to_be_bytes()[1]; 32], now: bare::now(), unix: EPOCH };
        let mut node = Node::new(built, start)?;
        node.set_max_segments(config.segments);
        let addr = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { addr, node, buffer: Vec::new(), offered: None, connected: false })
    }

    /// Passes the node's output to `peer`, after any timers that are due.
    fn hand_over(&mut self, peer: &mut Self, now: Instant) -> bool {
        if self.node.timer().is_some_and(|(at, _)| at <= now) {
            self.node.handle(Input::Tick, now);
        }
        while let Some(output) = self.node.poll_output(&mut self.buffer, now) {
            match output {
                Output::Event(event) => self.on_event(&event),
                Output::Transmit(transmit) => {
                    let datagram = Datagram {
                        route: Route::to(self.addr),
                        ecn: None,
                        segment_size: transmit.segment_size.unwrap_or(0),
                        payload: BytesMut::from(&self.buffer[..transmit.size]),
                    };
                    peer.node.handle(Input::Datagram(datagram), now);
                    return true;
                }
            }
        }
        false
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::StreamOffered { stream, .. } = event {
            self.offered = Some(*stream);
        }
        if let Event::Transition { transition, .. } = event {
            self.connected = matches!(transition.to, State::Connected { .. });
        }
    }
}

/// Moves bytes as [`bare::bulk`] does, between two nodes.
pub(crate) fn bulk(bytes: u64, config: &bare::Config) -> Result<Duration> {
    let mut sender = Side::new(1, "bench-agent", false, config)?;
    let mut receiver = Side::new(2, "bench", true, config)?;
    let start = bare::now();
    let peer = sender.node.dial(Dial::new(receiver.addr, "bench"), start)?;
    loop {
        let now = bare::now();
        let moved = sender.hand_over(&mut receiver, now);
        // As in the bare run, path discovery ends before the transfer begins.
        if !(receiver.hand_over(&mut sender, now) || moved) && sender.connected {
            break;
        }
        if now > start + bare::STALL {
            return Err("the handshake stalled".into());
        }
    }
    let stream = sender.node.open(peer, "bulk".parse()?)?.ok_or("no stream to open")?;
    let block = Bytes::from(vec![0x5a; CHUNK]);
    let total = bytes + bare::WARM_UP;
    let (mut unsent, mut unread) = (total, total);
    let (mut start, mut progress) = (bare::now(), bare::now());
    let mut ended = false;
    while !ended {
        let now = bare::now();
        unsent = stream::write(&mut sender.node, stream, &block, unsent)?;
        let mut moved = sender.hand_over(&mut receiver, now);
        if let Some(offered) = receiver.offered {
            // Accepted once; after that it is in use.
            let _ = receiver.node.accept_stream(offered);
            let (read, end) = stream::read(&mut receiver.node, offered)?;
            unread = unread.checked_sub(read).ok_or("more came out than went in")?;
            ended = end;
        }
        if unread >= bytes {
            start = now;
        }
        moved |= receiver.hand_over(&mut sender, now);
        if moved {
            progress = now;
        } else if now > progress + bare::STALL {
            return Err("the transfer stalled".into());
        }
    }
    match unread {
        0 => Ok(start.elapsed()),
        missing => Err(format!("{missing} bytes are missing").into()),
    }
}
