//! One host of a world: a node that can be stopped, lost and started again, and what reaches it.
//!
//! It decides how a host that is not running treats its input, and checks a node against the
//! sans-IO contract at every call. It never decides the time of an event.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use super::clock::HostClock;
use super::crypto::SeededCrypto;
use super::net::Packet;
use crate::config::Config;
use crate::event::Event;
use crate::node::{Input, Node, Output, Start};
use crate::rng::Rng;
use crate::timer::Reason;
use crate::transmit::{Datagram, Route, Transmit};

/// Most outputs between two inputs: far above any send window, and still finite.
const MAX_OUTPUTS: usize = 100_000;

/// How often a node may ask to be called at the same instant, while no datagram arrives.
const MAX_TICKS_AT_ONCE: u32 = 64;

/// Datagrams that a socket holds for a program that does not run.
const SOCKET_BUFFER: usize = 256;

/// Whether a host's program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// The program is stopped: clocks go on, and its socket's buffer fills.
    Paused,
    /// The host sleeps: its monotonic clock stands still and no datagram reaches it.
    Suspended,
}

/// A batch that left a host.
pub(super) type Sent = (Transmit, Vec<u8>);

/// One host.
#[derive(Debug)]
pub struct Host {
    /// The node, unless it crashed or never was.
    pub(super) node: Option<Node>,
    pub(super) clock: HostClock,
    pub(super) power: Power,
    pub(super) events: VecDeque<Event>,
    /// Packets that arrived and no node took.
    pub(super) inbox: VecDeque<Packet>,
    config: Option<Config>,
    seed: [u8; 32],
    pub(super) starts: u64,
    segments: usize,
    ticks: Option<(Instant, u32)>,
    out: Vec<u8>,
    /// Whether its socket reports at which of its addresses a datagram arrived.
    pub(super) reports_local_ip: bool,
    /// Last, so that its source is free again when everything made from it is dropped.
    pub(super) crypto: SeededCrypto,
}

impl Host {
    pub(super) fn new(seed: [u8; 32], clock: HostClock) -> Self {
        let crypto = SeededCrypto::new(Rng::new(seed, "crypto").seed());
        Self {
            node: None,
            clock,
            power: Power::On,
            events: VecDeque::new(),
            inbox: VecDeque::new(),
            config: None,
            seed,
            starts: 0,
            segments: 1,
            ticks: None,
            out: Vec::new(),
            reports_local_ip: false,
            crypto,
        }
    }

    /// Starts a node with this configuration, in place of any other.
    pub(super) fn start(&mut self, config: Config, segments: usize, now: Instant) {
        let seed = Rng::new(self.seed, &format!("start {}", self.starts)).seed();
        let (here, unix) = (self.clock.monotonic(now), self.clock.unix(now));
        let node = Node::new(config.clone(), Start { seed, now: here, unix });
        let mut node = node.expect("the identities of a world fit its keys");
        node.set_max_segments(segments);
        (self.node, self.config, self.segments) = (Some(node), Some(config), segments);
        self.starts += 1;
    }

    /// Starts the last node again; no state of it is left.
    pub(super) fn restart(&mut self, now: Instant) {
        if let Some(config) = self.config.clone() {
            self.start(config, self.segments, now);
        }
    }

    /// Returns how many datagrams the node sends and receives in one batch.
    pub(super) const fn segments(&self) -> usize {
        self.segments
    }

    /// Returns the world's instant of the node's deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.power {
            Power::On => self.clock.world(self.node.as_ref()?.deadline()?.0),
            Power::Paused | Power::Suspended => None,
        }
    }

    /// Passes the node one input, if it runs.
    pub(super) fn handle(&mut self, input: Input, now: Instant) {
        let here = self.clock.monotonic(now);
        if let (Power::On, Some(node)) = (self.power, &mut self.node) {
            node.handle(input, here);
        }
    }

    /// Calls the node because its deadline has come.
    pub(super) fn tick(&mut self, now: Instant) {
        let here = self.clock.monotonic(now);
        let count = match self.ticks {
            Some((at, count)) if at == here => count + 1,
            Some(_) | None => 1,
        };
        self.ticks = Some((here, count));
        let deadline = self.node.as_ref().and_then(Node::deadline);
        assert!(count <= MAX_TICKS_AT_ONCE, "the node spins: {deadline:?}");
        self.handle(Input::Tick, now);
    }

    /// Takes datagrams that arrived together from one place.
    pub(super) fn receive(&mut self, batch: Vec<Packet>, now: Instant) {
        match self.power {
            Power::Suspended => return,
            Power::Paused => {
                let room = SOCKET_BUFFER.saturating_sub(self.inbox.len());
                self.inbox.extend(batch.into_iter().take(room));
                return;
            }
            Power::On if self.node.is_none() => {
                self.inbox.extend(batch);
                return;
            }
            Power::On => {}
        }
        let Some(first) = batch.first() else { return };
        self.ticks = None;
        let local_ip = self.reports_local_ip.then(|| first.to.ip());
        let route = Route { remote: first.from, local_ip };
        let (ecn, segment_size) = (first.ecn, first.payload.len());
        let mut payload = BytesMut::new();
        batch.iter().for_each(|packet| payload.extend_from_slice(&packet.payload));
        self.handle(Input::Datagram(Datagram { route, ecn, segment_size, payload }), now);
    }

    /// Stops the program, or puts the whole host to sleep.
    pub(super) fn stop(&mut self, power: Power, now: Instant) {
        if self.power == Power::On {
            self.power = power;
            if power == Power::Suspended {
                self.clock.suspend(now);
            }
        }
    }

    /// Lets a program that was stopped go on: its clocks are read and its socket is emptied.
    pub(super) fn resume(&mut self, now: Instant) {
        let was = std::mem::replace(&mut self.power, Power::On);
        if was == Power::Suspended {
            self.clock.resume(now);
        }
        if was == Power::On {
            return;
        }
        let unix = self.clock.unix(now);
        self.handle(Input::Wall(unix), now);
        if was == Power::Suspended {
            self.handle(Input::NetworkChanged, now);
        }
        for packet in std::mem::take(&mut self.inbox) {
            self.receive(vec![packet], now);
        }
    }

    /// Fetches all output of the node: events are kept, batches are returned.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<Sent> {
        let mut sent = Vec::new();
        let here = self.clock.monotonic(now);
        let (Power::On, Some(node)) = (self.power, &mut self.node) else { return sent };
        for outputs in 0.. {
            assert!(outputs < MAX_OUTPUTS, "the outputs of one input never end");
            match node.poll_output(&mut self.out, here) {
                None => break,
                Some(Output::Event(event)) => self.events.push_back(event),
                Some(Output::Transmit(transmit)) => {
                    assert_eq!(transmit.size, self.out.len(), "a batch is as long as it says");
                    sent.push((transmit, self.out.clone()));
                }
            }
        }
        if let Some((at, reason)) = node.deadline() {
            assert_ne!(reason, Reason::Output, "drained, and still output is waiting");
            assert!(at >= here, "{reason} lies {:?} in the past", here - at);
        }
        sent
    }
}
