//! Any number of nodes behind any NATs, in virtual time: tests of the paths between two peers.
//!
//! It decides which event is next: the earliest of all arrivals, all deadlines and all loads, and
//! it sleeps exactly to that. It never decides what a host does; tests do, by their calls between
//! two steps.
//!
//! | to change | look in |
//! |---|---|
//! | what NATs and links do to datagrams | `internet.rs`, [`crate::testing::nat`], [`crate::testing::link`] |
//! | who the hosts are and how they dial | `cast.rs` |
//! | what is carried and measured | `load.rs` |
//! | what is recorded at a host | `capture.rs` |
//! | what is special about relays | `relays.rs` |

mod capture;
mod cast;
pub mod internet;
pub mod load;
mod relays;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use capture::{Captured, Passage};
pub use cast::{AGENT, CONNECTOR_PORT};
pub use internet::{NatId, Place};
pub use relays::{Answer, RELAY};

use self::internet::Internet;
use self::load::Loads;
use self::relays::Service;
use super::clock::{HostClock, origin};
use super::crypto::SeededCrypto;
use super::host::{Host, Power};
use super::link::Conditions;
use super::net::{HostId, Packet};
use super::trace::Trace;
use super::widen;
use super::world::joins;
use crate::config::Config;
use crate::event::Event;
use crate::node::{Input, Node};
use crate::rng::Rng;
use crate::transmit::{Route, Transmit};

/// One host of a lab.
#[derive(Debug)]
struct Machine {
    host: Host,
    /// All events of its nodes, with the lab's time.
    log: Vec<(Instant, Event)>,
    capture: Option<Vec<Captured>>,
    services: Vec<Service>,
}

/// A simulated internet with its hosts.
///
/// ```
/// use adit_core::testing::lab::{Lab, Place};
/// use adit_core::testing::nat::Rules;
/// use std::time::Duration;
///
/// let mut lab = Lab::new(1);
/// let home = lab.nat(Rules::port_restricted(), Place::Public);
/// let (agent, connector) = (lab.agent(Place::Behind(home)), lab.connector("db", Place::Public));
/// let peer = lab.dial(agent, connector, "db");
/// assert!(lab.run_until(|lab| lab.is_connected(agent, peer), Duration::from_secs(5)));
/// let transfer = lab.start_upload((agent, peer), connector, 100_000);
/// assert!(lab.run_until(|lab| lab.transfer(transfer).is_complete(), Duration::from_secs(5)));
/// ```
#[derive(Debug)]
pub struct Lab {
    seed: [u8; 32],
    internet: Internet,
    machines: Vec<Machine>,
    loads: Loads,
    opened: u64,
    now: Instant,
    trace: Trace,
}

impl Lab {
    /// Returns an internet without hosts; its crossings take 10 ms and have no loss.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Conditions::default())
    }

    /// Returns an internet without hosts; its crossings have `conditions`.
    #[must_use]
    pub fn with(seed: u64, conditions: Conditions) -> Self {
        let bytes = widen(seed);
        Self {
            seed: bytes,
            internet: Internet::new(Rng::new(bytes, "internet").seed(), conditions),
            machines: Vec::new(),
            loads: Loads::default(),
            opened: 0,
            now: origin(),
            trace: Trace::new(),
        }
    }

    /// Adds a host with its addresses that runs no node yet.
    ///
    /// # Panics
    /// If a host in the same network has one of them.
    pub fn add_host(&mut self, place: Place, addresses: Vec<SocketAddr>) -> HostId {
        let id = self.internet.add_host(place, addresses);
        let seed = Rng::new(self.seed, &format!("host {}", id.index())).seed();
        let ahead = Duration::from_secs(1_000_003 * (1 + id.index() as u64));
        let mut host = Host::new(seed, HostClock::new(ahead));
        host.reports_local_ip = true;
        let (log, services) = (Vec::new(), Vec::new());
        self.machines.push(Machine { host, log, capture: None, services });
        id
    }

    /// Starts a node on a host, with batches of up to `segments` datagrams.
    pub fn start(&mut self, host: HostId, config: Config, segments: usize) {
        let now = self.now;
        self.host_mut(host).start(config, segments, now);
    }

    /// Ends the program of a host without a close to its peers.
    pub fn crash(&mut self, host: HostId) {
        self.settle();
        self.host_mut(host).node = None;
    }

    /// Starts the program of a host again, without its earlier state.
    pub fn restart(&mut self, host: HostId) {
        self.settle();
        let now = self.now;
        let host = self.host_mut(host);
        host.inbox.clear();
        host.restart(now);
    }

    /// Stops the program of a host, or puts the whole host to sleep.
    pub fn stop(&mut self, host: HostId, power: Power) {
        self.settle();
        let now = self.now;
        self.host_mut(host).stop(power, now);
    }

    /// Lets a host that was stopped go on.
    pub fn resume(&mut self, host: HostId) {
        let now = self.now;
        self.host_mut(host).resume(now);
        self.settle();
    }

    /// Passes a node an input other than a packet or a deadline.
    pub fn handle(&mut self, host: HostId, input: Input) {
        let now = self.now;
        self.host_mut(host).handle(input, now);
        self.settle();
    }

    /// Returns a host's node and its time. Its output after a call is processed when the lab goes
    /// on.
    ///
    /// # Panics
    /// If the host runs none.
    pub fn node_mut(&mut self, host: HostId) -> (&mut Node, Instant) {
        let now = self.now;
        let host = self.host_mut(host);
        let here = host.clock.monotonic(now);
        (host.node.as_mut().expect("the host runs a node"), here)
    }

    /// Returns a host's node.
    ///
    /// # Panics
    /// If the host runs none.
    #[must_use]
    pub fn node(&self, host: HostId) -> &Node {
        self.machines[host.index()].host.node.as_ref().expect("the host runs a node")
    }

    /// Returns a host's node, if it has one that runs.
    fn running(&mut self, host: HostId) -> Option<&mut Node> {
        let host = self.host_mut(host);
        if host.power == Power::On { host.node.as_mut() } else { None }
    }

    /// Returns all hosts.
    fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.machines.len()).map(HostId::at)
    }

    /// Returns the seeded provider of a host, to make its configuration with.
    #[must_use]
    pub fn crypto(&self, host: HostId) -> &SeededCrypto {
        &self.machines[host.index()].host.crypto
    }

    /// Returns all events of a host's nodes so far, with the lab's time of each.
    #[must_use]
    pub fn log(&self, host: HostId) -> &[(Instant, Event)] {
        &self.machines[host.index()].log
    }

    /// Returns the networks, to inspect them.
    #[must_use]
    pub const fn internet(&self) -> &Internet {
        &self.internet
    }

    /// Returns the networks, to change them.
    pub const fn internet_mut(&mut self) -> &mut Internet {
        &mut self.internet
    }

    /// Returns the time of the lab.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Returns a fingerprint of every byte sent so far, with its time and its path.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns when something happens next, if anything ever does.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let deadlines = self.machines.iter().filter_map(|machine| machine.host.deadline());
        let others = [self.internet.next_at(), self.loads.next_at()];
        deadlines.chain(others.into_iter().flatten()).min().map(|at| at.max(self.now))
    }

    /// Fetches the output of every node, and goes on to the next event unless that is after
    /// `until`. Returns true if there was one.
    pub fn step(&mut self, until: Instant) -> bool {
        self.settle();
        match self.next_at() {
            Some(at) if at <= until => {
                self.now = at;
                self.arrive();
                for machine in &mut self.machines {
                    if machine.host.deadline().is_some_and(|due| due <= at) {
                        machine.host.tick(at);
                    }
                }
                self.settle();
                true
            }
            Some(_) | None => {
                self.now = self.now.max(until);
                false
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Advances time until `is_done` returns true, for `limit` at most. Returns true if it did.
    pub fn run_until(
        &mut self,
        mut is_done: impl FnMut(&mut Self) -> bool,
        limit: Duration,
    ) -> bool {
        let until = self.now + limit;
        self.settle();
        while !is_done(self) {
            if !self.step(until) {
                return is_done(self);
            }
        }
        true
    }

    /// Fetches and sends the output of every node now, and advances the loads.
    pub fn settle(&mut self) {
        self.drain();
        let mut loads = std::mem::take(&mut self.loads);
        loads.advance(self);
        self.loads = loads;
        self.drain();
    }

    fn drain(&mut self) {
        for index in 0..self.machines.len() {
            let from = HostId::at(index);
            // The node is notified of datagrams that the system would not send, and may then send
            // elsewhere.
            for _ in 0..MAX_ROUNDS {
                let sent = self.machines[index].host.drain(self.now);
                let machine = &mut self.machines[index];
                machine.log.extend(machine.host.events.drain(..).map(|event| (self.now, event)));
                if sent.is_empty() {
                    break;
                }
                for (transmit, bytes) in sent {
                    self.transmit(from, &transmit, &bytes);
                }
            }
        }
    }

    fn transmit(&mut self, from: HostId, transmit: &Transmit, bytes: &[u8]) {
        let source = match self.source(from, transmit.route) {
            Ok(source) => source,
            Err(detail) => {
                let (route, detail) = (transmit.route, detail.to_owned());
                let now = self.now;
                return self.host_mut(from).handle(Input::SendFailed { route, detail }, now);
            }
        };
        let size = transmit.segment_size.unwrap_or(bytes.len()).max(1);
        for datagram in bytes.chunks(size) {
            self.trace.add(&(self.now - origin()).as_nanos().to_le_bytes());
            self.trace.add(datagram);
            let (to, ecn, payload) = (transmit.route.remote, transmit.ecn, datagram.to_vec());
            self.put(from, Packet { from: source, to, ecn, payload });
        }
    }

    /// Sends a datagram from a host's first address of that family, with or without a node on it.
    ///
    /// # Panics
    /// If it has none.
    pub fn send(&mut self, from: HostId, to: SocketAddr, payload: &[u8]) {
        let source = self.source(from, Route::to(to)).expect("an address of that family");
        self.put(from, Packet { from: source, to, ecn: None, payload: payload.to_vec() });
    }

    /// Puts a packet on a host's link, and into its capture.
    fn put(&mut self, from: HostId, packet: Packet) {
        self.record(from, Passage::Out, &packet);
        self.internet.send(from, packet, self.now);
    }

    /// Returns the source address of a datagram, or the error of a system that cannot send it.
    fn source(&self, host: HostId, route: Route) -> Result<SocketAddr, &'static str> {
        let services = &self.machines[host.index()].services;
        let is_own = |a: &&SocketAddr| services.iter().all(|service| service.address != **a);
        let mut addresses = self.internet.addresses(host).iter().filter(is_own).copied();
        let is_v4 = route.remote.is_ipv4();
        match route.local_ip {
            Some(ip) => addresses.find(|a| a.ip() == ip).ok_or("cannot assign requested address"),
            None => addresses.find(|a| a.is_ipv4() == is_v4).ok_or("network is unreachable"),
        }
    }

    /// Hands over everything that has arrived, as one batch where a socket would.
    fn arrive(&mut self) {
        let mut batch: Vec<Packet> = Vec::new();
        let mut owner = None;
        while let Some((host, packet)) = self.internet.poll(self.now) {
            self.record(host, Passage::In, &packet);
            if self.serve(host, &packet) {
                continue;
            }
            let segments = self.machines[host.index()].host.segments();
            let is_more = owner == Some(host) && batch.len() < segments && joins(&batch, &packet);
            if !is_more && let Some(owner) = owner {
                self.deliver(owner, std::mem::take(&mut batch));
            }
            owner = Some(host);
            batch.push(packet);
        }
        if let Some(owner) = owner {
            self.deliver(owner, batch);
        }
    }

    fn deliver(&mut self, host: HostId, batch: Vec<Packet>) {
        let now = self.now;
        self.host_mut(host).receive(batch, now);
    }

    fn host_mut(&mut self, host: HostId) -> &mut Host {
        &mut self.machines[host.index()].host
    }
}

/// How often within an instant a node's reaction to an unsendable datagram is processed.
const MAX_ROUNDS: u32 = 8;
