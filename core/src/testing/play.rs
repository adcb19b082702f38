//! Worlds made of operations: everything that can happen to an agent and a connector, and the
//! invariants that hold throughout.
//!
//! A world has four phases. Faults: operations happen, and safety holds. Heal: every fault is
//! removed, and within a bound the two are connected and all traffic proceeds. Quiesce: an idle
//! connection costs almost no packets. Drop: no state is left. It never decides what happens; the
//! operations and the seed do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::asks::Asks;
use super::climate::{configure, forged, limits, weather};
use super::clock::{EPOCH, origin};
use super::flows::Flows;
use super::host::Power;
use super::link::Conditions;
use super::lives::Lives;
use super::marks::{Mark, Marks};
use super::net::HostId;
use super::op::{Op, Side};
use super::pair::{self, AGENT_ADDRESS, CONNECTOR, CONNECTOR_ADDRESS};
use super::watch::without_errors;
use super::widen;
use super::world::World;
use crate::config::{Builder, Config, Dial, Limits};
use crate::event::Event;
use crate::id::PeerId;
use crate::lifecycle::{State, StateKind};
use crate::node::Input;
use crate::rng::Rng;
use crate::transmit::Route;

/// The result of a world.
#[derive(Debug, Clone)]
pub struct Report {
    /// The fingerprint of every byte sent, and how many packets there were.
    pub fingerprint: (u64, u64),
    /// The rare things that happened.
    pub marks: Marks,
    /// How much time passed.
    pub time: Duration,
}

/// Plays operations in the world of a seed.
///
/// # Panics
/// When an invariant breaks, or something is logged as an error.
#[must_use]
pub fn play(seed: u64, ops: &[Op]) -> Report {
    without_errors(|| play_out(seed, ops))
}

fn play_out(seed: u64, ops: &[Op]) -> Report {
    let mut play = Play::new(seed);
    for &op in ops {
        play.apply(op);
        play.settle();
    }
    play.heal();
    play.quiesce();
    play.drop_all();
    Report {
        fingerprint: (play.world.trace().fingerprint(), play.world.trace().items()),
        marks: play.marks(),
        time: play.world.now() - origin(),
    }
}

/// Plays as many random operations in the world of a seed.
///
/// # Panics
/// When an invariant breaks.
#[must_use]
pub fn play_random(seed: u64, length: usize) -> Report {
    play(seed, &Op::sequence(&mut Rng::new(widen(seed), "ops"), length))
}

pub(super) struct Play {
    pub(super) world: World,
    pub(super) hosts: [HostId; 2],
    pub(super) marks: Marks,
    pub(super) lives: Lives,
    pub(super) flows: Flows,
    pub(super) asks: Asks,
    /// Fetches no datagram until the world is healed.
    pub(super) is_lazy: bool,
    pub(super) is_healing: bool,
    heartbeats: BTreeMap<(u64, PeerId), (u64, Instant)>,
    remotes: BTreeMap<(u64, PeerId), SocketAddr>,
    pub(super) interval: Duration,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(widen(seed), "play");
        let mut world = World::new(widen(seed), Conditions::default());
        let hosts = [world.add_host(AGENT_ADDRESS), world.add_host(CONNECTOR_ADDRESS)];
        let mut one_in = |n: u64| rng.u64().is_multiple_of(n);
        let segments = if one_in(2) { 10 } else { 1 };
        let (few, small, quick) = (one_in(3), one_in(3), one_in(2));
        let (gives_up, is_suspicious, is_lazy) = (one_in(3), one_in(4), one_in(4));
        let interval = Duration::from_secs(if quick { 2 } else { 30 });
        let change = |builder: Builder| configure(builder, few, small, quick, gives_up);
        let agent: Config = change(pair::agent(world.crypto(hosts[0])))
            .build()
            .expect("the configuration of an agent works");
        world.start(hosts[0], agent, segments);
        let mut connector = change(pair::connector(world.crypto(hosts[1])));
        if is_suspicious {
            connector = connector.limits(Limits { handshakes_before_retry: 0, ..limits(small) });
        }
        let connector = connector.build().expect("the configuration of a connector works");
        world.start(hosts[1], connector, segments);
        Self {
            world,
            hosts,
            marks: Marks::new(),
            lives: Lives::new(gives_up),
            flows: Flows::default(),
            asks: Asks::default(),
            is_lazy,
            is_healing: false,
            heartbeats: BTreeMap::new(),
            remotes: BTreeMap::new(),
            interval,
        }
    }

    pub(super) fn host(&self, side: Side) -> HostId {
        self.hosts[side as usize]
    }

    pub(super) fn start(&self, side: Side) -> u64 {
        self.world.starts(self.host(side))
    }

    fn marks(&self) -> Marks {
        let mut marks = self.marks.clone();
        marks.merge(self.world.net().marks());
        marks
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Advance { power } => self.advance(Duration::from_millis(1 << (power % 18))),
            Op::Cut { directions } => self.cut(directions),
            Op::Weather { which } => {
                let [a, c] = self.hosts;
                self.world.net_mut().set_conditions(a, c, &weather(which));
            }
            Op::Move { side, port } => {
                let mut address = self.world.net().address(self.host(side));
                // The connector's address is where the agent dials: it stays.
                if side == Side::Agent {
                    address.set_port(50_000 + u16::from(port));
                    let host = self.host(side);
                    self.world.net_mut().set_address(host, address);
                }
            }
            Op::Crash { side } => self.crash(side),
            Op::Restart { side } => {
                self.crash(side);
                let host = self.host(side);
                self.world.restart(host);
            }
            Op::Pause { side } => self.world.stop(self.host(side), Power::Paused),
            Op::Suspend { side } => self.world.stop(self.host(side), Power::Suspended),
            Op::Resume { side } => self.world.resume(self.host(side)),
            Op::SetWall { side, days } => {
                let off = Duration::from_secs(86_400 * 30 * u64::from(days & 0x7f));
                let unix = if days < 0x80 { EPOCH + off } else { EPOCH.saturating_sub(off) };
                self.world.set_unix(self.host(side), unix);
            }
            Op::Dial
            | Op::Reconnect { .. }
            | Op::Disconnect { .. }
            | Op::Open { .. }
            | Op::Write { .. }
            | Op::Finish { .. }
            | Op::Reset { .. }
            | Op::Stop { .. }
            | Op::Hold { .. }
            | Op::Request { .. }
            | Op::Cancel { .. }
            | Op::Datagram { .. }
            | Op::NetworkChanged { .. }
            | Op::SendFailed { .. }
            | Op::Tick { .. }
            | Op::Forge { .. }
            | Op::Shutdown { .. } => self.apply_to_node(op),
        }
    }

    /// Applies the operations that need a running node.
    fn apply_to_node(&mut self, op: Op) {
        let side = op.side();
        let host = self.host(side);
        if !self.world.is_running(host) {
            return;
        }
        let start = self.start(side);
        let remote = self.world.net().address(self.host(side.other()));
        let (peers, flows) = (self.lives.of(side, start), self.flows.of(side, start));
        let peer = |nth: u8| peers.get(usize::from(nth) % peers.len().max(1)).copied();
        let flow = |nth: u8| flows.get(usize::from(nth) % flows.len().max(1)).copied();
        let (node, now) = self.world.node_mut(host);
        self.lives.on_demand((side, start), op.wanted().and_then(peer), now);
        let marks = &mut self.marks;
        match op {
            Op::Dial if peers.len() < 2 => {
                // Refused only while shutting down.
                let _ = node.dial(Dial::new(CONNECTOR_ADDRESS, CONNECTOR), now);
            }
            Op::Reconnect { nth } => {
                // Refused unless it had failed.
                let _ = peer(nth).map(|id| node.reconnect(id, now));
            }
            Op::Disconnect { nth, .. } => {
                // Refused where its end has come already.
                let _ = peer(nth).map(|id| node.disconnect(id, now));
            }
            Op::Open { nth, service, .. } => {
                if let Some(id) = peer(nth) {
                    self.flows.open((side, start, id), service, node, marks);
                }
            }
            Op::Request { nth, manner, .. } => {
                for id in (0..if manner > 0xf8 { 101 } else { 1 }).filter_map(|_| peer(nth)) {
                    self.asks.ask((side, start, id), manner, (node, now), marks);
                }
            }
            Op::Cancel { nth, .. } => self.asks.cancel(side, start, nth.into(), node),
            Op::Datagram { nth, size, .. } => {
                for id in (0..if size % 2 == 1 { 6 } else { 1 }).filter_map(|_| peer(nth)) {
                    self.asks.send_datagram(id, size, node);
                }
            }
            Op::NetworkChanged { .. } => node.handle(Input::NetworkChanged, now),
            Op::SendFailed { .. } => {
                let detail = "no route".to_owned();
                node.handle(Input::SendFailed { route: Route::to(remote), detail }, now);
            }
            Op::Tick { behind, .. } => {
                node.handle(Input::Tick, now - Duration::from_secs(behind.into()));
            }
            Op::Forge { kind, length, .. } => {
                node.handle(Input::Datagram(forged(remote, kind, length)), now);
            }
            Op::Shutdown { .. } => node.shutdown(now),
            Op::Write { nth, kib, .. } => {
                if let Some(tag) = flow(nth) {
                    self.flows.write(tag, side, 1024 * u64::from(kib), node, marks);
                }
            }
            Op::Finish { nth, .. } => {
                flow(nth).into_iter().for_each(|tag| self.flows.finish(tag, side, node, marks));
            }
            Op::Reset { nth, .. } => {
                flow(nth).into_iter().for_each(|tag| self.flows.reset(tag, side, node));
            }
            Op::Stop { nth, .. } => {
                flow(nth).into_iter().for_each(|tag| self.flows.stop(tag, side, node));
            }
            Op::Hold { nth, .. } => {
                flow(nth).into_iter().for_each(|tag| self.flows.hold(tag, side, node, marks));
            }
            Op::Dial
            | Op::Advance { .. }
            | Op::Cut { .. }
            | Op::Weather { .. }
            | Op::Move { .. }
            | Op::Crash { .. }
            | Op::Restart { .. }
            | Op::Pause { .. }
            | Op::Suspend { .. }
            | Op::Resume { .. }
            | Op::SetWall { .. } => {}
        }
    }

    fn cut(&mut self, directions: u8) {
        let [a, c] = self.hosts;
        self.world.net_mut().set_cut(a, c, directions & 1 != 0);
        self.world.net_mut().set_cut(c, a, directions & 2 != 0);
    }

    pub(super) fn crash(&mut self, side: Side) {
        self.settle();
        let (host, start) = (self.host(side), self.start(side));
        self.world.crash(host);
        self.flows.on_crash(side);
        self.asks.on_crash(side, start);
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.settle();
        let until = self.world.now() + time;
        while self.world.step(until) {
            self.settle();
        }
    }

    /// Fetches the output of the nodes and lets the applications react, until there is no more.
    pub(super) fn settle(&mut self) {
        for rounds in 0.. {
            assert!(rounds < 10_000, "events without end");
            self.world.settle();
            let mut was_quiet = true;
            for side in Side::BOTH {
                let host = self.host(side);
                while let Some(event) = self.world.poll_event(host) {
                    was_quiet = false;
                    self.on_event(side, event);
                }
            }
            if was_quiet {
                break;
            }
        }
        for side in Side::BOTH {
            let host = self.host(side);
            if self.world.is_running(host) {
                self.world.node(host).audit();
                self.asks.check_deadlines(side, self.start(side), self.world.host_now(host));
            }
        }
        self.check_heartbeats();
        self.watch_addresses();
    }

    /// Notes connections that went on from another address.
    fn watch_addresses(&mut self) {
        let host = self.host(Side::Connector);
        if !self.world.is_running(host) {
            return;
        }
        let start = self.start(Side::Connector);
        for peer in self.world.node(host).snapshot().peers {
            let before = self.remotes.insert((start, peer.id), peer.remote);
            if before.is_some_and(|before| before != peer.remote) {
                self.marks.hit(Mark::Migrated);
            }
        }
    }

    /// Checks that a connected agent is never silent for longer than the interval.
    fn check_heartbeats(&mut self) {
        let (host, start) = (self.host(Side::Agent), self.start(Side::Agent));
        if !self.world.is_running(host) {
            self.heartbeats.clear();
            return;
        }
        let now = self.world.host_now(host);
        for peer in self.lives.of(Side::Agent, start) {
            let node = self.world.node(host);
            let is_up = matches!(node.state(peer), Some(State::Connected { .. }));
            let sent = node.peer_snapshot(peer).map_or(0, |p| p.heartbeats.sent);
            match self.heartbeats.get(&(start, peer)) {
                Some(&(before, at)) if is_up && before == sent => {
                    assert!(now - at <= self.interval, "{peer} is overdue with its heartbeat");
                }
                Some(_) if !is_up => {
                    self.heartbeats.remove(&(start, peer));
                }
                Some(_) | None if is_up => {
                    self.heartbeats.insert((start, peer), (sent, now));
                }
                Some(_) | None => {}
            }
        }
    }

    fn on_event(&mut self, side: Side, event: Event) {
        let (host, start) = (self.host(side), self.start(side));
        let (node, now) = self.world.node_mut(host);
        let marks = &mut self.marks;
        match event {
            Event::Transition { peer, transition } => {
                self.lives.on_transition((side, start, peer), &transition, marks);
                if transition.from.kind() == StateKind::Connected {
                    self.flows.on_lost(side, start, peer);
                }
                if self.is_healing && transition.to.kind() == StateKind::Failed {
                    // Refused where its end has come meanwhile.
                    let _ = node.reconnect(peer, now);
                }
            }
            Event::AttemptFailed { peer, failure, attempt, retry_in, .. } => {
                marks.hit(Mark::AttemptFailed);
                let failed = (&failure, attempt, retry_in);
                self.lives.on_attempt_failed((side, start, peer), failed, now);
            }
            Event::Closed { peer, .. } => {
                self.lives.on_closed((side, start, peer));
                assert!(node.state(peer).is_none(), "{peer} is there after its end");
            }
            Event::StreamOffered { stream, service } => {
                self.flows.on_offered((side, start, stream), &service, node, marks);
            }
            Event::StreamReadable { stream } => {
                self.flows.on_readable((side, start, stream), node, marks);
            }
            Event::StreamWritable { stream } => {
                self.flows.on_writable((side, start, stream), node, marks);
            }
            Event::StreamFinished { stream } => self.flows.on_finished((side, start, stream)),
            Event::StreamStopped { stream, .. } => {
                self.flows.on_stopped((side, start, stream), marks);
            }
            Event::RequestOffered { request, .. } => {
                self.asks.on_offered((side, start, request), node, marks);
            }
            Event::RequestProgressed { request } => {
                self.asks.on_progressed((side, start, request), (node, now), marks);
            }
            Event::DatagramReceived { peer } => {
                if !self.is_lazy {
                    self.asks.on_datagrams(peer, node, marks);
                }
            }
            Event::Rejected { .. } => marks.hit(Mark::Rejected),
            Event::GoingAway { .. } => marks.hit(Mark::GoingAway),
            Event::ShutDown => {
                assert!(node.is_shut_down() && node.snapshot().peers.is_empty());
                marks.hit(Mark::ShutDown);
            }
            Event::Accepted { .. } | Event::HeartbeatAcked { .. } => {}
            Event::Observed { .. }
            | Event::Registered { .. }
            | Event::Unregistered { .. }
            | Event::PathChanged { .. }
            | Event::StreamsAvailable { .. } => {}
        }
    }
}
