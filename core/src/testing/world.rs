//! Hosts, their clocks and the network between them, in virtual time.
//!
//! It decides which event is next: the earliest of all arrivals and all deadlines. It sleeps
//! exactly to a deadline, since constant ticking would hide outputs that no deadline announces. It
//! never decides what a host does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::clock::{HostClock, origin};
use super::crypto::SeededCrypto;
use super::host::{Host, Power};
use super::link::Conditions;
use super::net::{HostId, Net, Packet};
use super::trace::Trace;
use crate::config::Config;
use crate::event::Event;
use crate::node::{Input, Node};
use crate::rng::Rng;

/// A simulated world.
///
/// ```
/// use adit_core::testing::link::Conditions;
/// use adit_core::testing::pair;
/// use adit_core::testing::world::World;
/// use std::time::Duration;
///
/// let mut world = World::new([7; 32], Conditions::default());
/// let host = world.add_host("10.0.0.1:4433".parse()?);
/// let config = pair::agent(world.crypto(host)).build()?;
/// world.start(host, config, 1);
/// world.run_for(Duration::from_secs(3600));
/// assert_eq!(world.node(host).deadline(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct World {
    seed: [u8; 32],
    net: Net,
    hosts: Vec<Host>,
    now: Instant,
    trace: Trace,
}

impl World {
    /// Returns a world without hosts; its links have `conditions`.
    #[must_use]
    pub fn new(seed: [u8; 32], conditions: Conditions) -> Self {
        let net = Net::new(Rng::new(seed, "net").seed(), conditions);
        Self { seed, net, hosts: Vec::new(), now: origin(), trace: Trace::new() }
    }

    /// Adds a host without a node: datagrams that reach it are kept for [`World::receive`].
    pub fn add_host(&mut self, address: SocketAddr) -> HostId {
        let id = self.net.add_host(address);
        let seed = Rng::new(self.seed, &format!("host {}", id.index())).seed();
        let ahead = Duration::from_secs(1_000_003 * (1 + id.index() as u64));
        self.hosts.push(Host::new(seed, HostClock::new(ahead)));
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
        let now = self.now;
        self.settle();
        let host = self.host_mut(host);
        host.inbox.clear();
        host.events.clear();
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

    /// Sets a host's wall clock, and notifies its node.
    pub fn set_unix(&mut self, host: HostId, unix: Duration) {
        let now = self.now;
        let host = self.host_mut(host);
        host.clock.set_unix(unix, now);
        host.handle(Input::Wall(unix), now);
        self.settle();
    }

    /// Passes a node an input other than a packet or a deadline.
    pub fn handle(&mut self, host: HostId, input: Input) {
        let now = self.now;
        self.host_mut(host).handle(input, now);
        self.settle();
    }

    /// Returns true if a host has a node that runs.
    #[must_use]
    pub fn is_running(&self, host: HostId) -> bool {
        let host = &self.hosts[host.index()];
        host.node.is_some() && host.power == Power::On
    }

    /// Returns how often a node was started on a host.
    #[must_use]
    pub fn starts(&self, host: HostId) -> u64 {
        self.hosts[host.index()].starts
    }

    /// Returns a host's node and its time. Its output after a call is processed when the world goes
    /// on.
    ///
    /// # Panics
    /// If the host runs none.
    pub fn node_mut(&mut self, host: HostId) -> (&mut Node, Instant) {
        let host = &mut self.hosts[host.index()];
        let here = host.clock.monotonic(self.now);
        (host.node.as_mut().expect("the host runs a node"), here)
    }

    /// Returns a host's node.
    ///
    /// # Panics
    /// If the host runs none.
    #[must_use]
    pub fn node(&self, host: HostId) -> &Node {
        self.hosts[host.index()].node.as_ref().expect("the host runs a node")
    }

    /// Returns the seeded provider of a host, to make its configuration with.
    #[must_use]
    pub fn crypto(&self, host: HostId) -> &SeededCrypto {
        &self.hosts[host.index()].crypto
    }

    /// Returns the next event of a host's node.
    pub fn poll_event(&mut self, host: HostId) -> Option<Event> {
        self.host_mut(host).events.pop_front()
    }

    /// Returns the next datagram that reached a host which runs no node.
    pub fn receive(&mut self, host: HostId) -> Option<Packet> {
        self.host_mut(host).inbox.pop_front()
    }

    /// Sends a datagram from a host, with or without a node on it.
    pub fn send(&mut self, from: HostId, to: SocketAddr, payload: &[u8]) {
        self.net.send(from, to, None, payload, self.now);
    }

    /// Returns the network, to inspect it.
    #[must_use]
    pub const fn net(&self) -> &Net {
        &self.net
    }

    /// Returns the network, to change it.
    pub const fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }

    /// Returns the time of the world.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Returns the time of a host's monotonic clock.
    #[must_use]
    pub fn host_now(&self, host: HostId) -> Instant {
        self.hosts[host.index()].clock.monotonic(self.now)
    }

    /// Returns a fingerprint of every byte sent so far, with its time and its path.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns when something happens next, if anything ever does.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let deadlines = self.hosts.iter().filter_map(Host::deadline);
        deadlines.chain(self.net.next_at()).min().map(|at| at.max(self.now))
    }

    /// Fetches the output of every node, and goes on to the next event unless that is after
    /// `until`. Returns true if there was one.
    pub fn step(&mut self, until: Instant) -> bool {
        self.settle();
        match self.next_at() {
            Some(at) if at <= until => {
                self.now = at;
                self.arrive();
                self.settle();
                for index in 0..self.hosts.len() {
                    if self.hosts[index].deadline().is_some_and(|due| due <= at) {
                        self.hosts[index].tick(at);
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

    /// Fetches and sends the output of every node now.
    pub fn settle(&mut self) {
        for index in 0..self.hosts.len() {
            let from = HostId::at(index);
            for (transmit, bytes) in self.hosts[index].drain(self.now) {
                let size = transmit.segment_size.unwrap_or(bytes.len()).max(1);
                for datagram in bytes.chunks(size) {
                    self.trace.add(&(self.now - origin()).as_nanos().to_le_bytes());
                    self.trace.add(datagram);
                    let to = transmit.route.remote;
                    self.net.send(from, to, transmit.ecn, datagram, self.now);
                }
            }
        }
    }

    /// Hands over everything that has arrived, as one batch where a socket would.
    fn arrive(&mut self) {
        let mut batch: Vec<Packet> = Vec::new();
        let mut owner = None;
        while let Some((host, packet)) = self.net.poll(self.now) {
            let segments = self.hosts[host.index()].segments();
            let joins = owner == Some(host) && batch.len() < segments && joins(&batch, &packet);
            if !joins && let Some(owner) = owner {
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
        &mut self.hosts[host.index()]
    }
}

/// Returns true if a packet continues a batch: only the last one of a batch may be shorter.
pub(super) fn joins(batch: &[Packet], packet: &Packet) -> bool {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return true };
    let size = first.payload.len();
    (first.from, first.to, first.ecn) == (packet.from, packet.to, packet.ecn)
        && last.payload.len() == size
        && packet.payload.len() <= size
        && size > 0
}
