//! Networks joined by NATs: the path that a datagram takes from one host to another, and its time
//! of arrival.
//!
//! It decides which host has which address in which network, and how each box and each link on the
//! path treats a datagram; it does not know the programs of the hosts. A datagram passes the
//! sender's access link, the boxes above the sender, the link between the two edges of the
//! internet, the boxes above the receiver, each when it arrives there, and the receiver's access
//! link.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::testing::agenda::Agenda;
use crate::testing::link::{Conditions, Link, PacketFate};
use crate::testing::marks::Marks;
use crate::testing::nat::{Nat, Rules};
use crate::testing::net::{HostId, Packet};

/// Latency of each access link, by default.
pub const ACCESS_LATENCY: Duration = Duration::from_millis(1);

/// A NAT or firewall of an [`Internet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatId(usize);

impl NatId {
    /// Returns the box's place among the boxes of its internet, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// A network that hosts are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The internet itself.
    Public,
    /// The network inside a box.
    Behind(NatId),
}

/// The owner of an address in a network: the ends of the links between networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Host(HostId),
    Nat(NatId),
}

/// The link of one host to its network.
#[derive(Debug)]
struct Access {
    place: Place,
    addresses: Vec<SocketAddr>,
    up: Link,
    down: Link,
}

#[derive(Debug)]
struct Boxed {
    nat: Nat,
    outside: Place,
}

/// How far a datagram has come.
#[derive(Debug, Clone)]
enum Hop {
    /// Out of its host's access link.
    Left(HostId, Packet),
    /// Across the internet.
    Crossed(Edge, Packet),
    /// Out of the receiver's access link.
    Arrived(HostId, Packet),
}

/// The fates of the datagrams so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fates {
    /// Given to the network by hosts.
    pub sent: u64,
    /// Handed to a host.
    pub delivered: u64,
    /// Lost on a link; [`Internet::marks`] has the reason.
    pub lost: u64,
    /// Not let through by a box.
    pub filtered: u64,
    /// Sent to an address without a host.
    pub unreachable: u64,
}

/// All networks, boxes and links of a lab.
#[derive(Debug)]
pub struct Internet {
    seed: [u8; 32],
    conditions: Conditions,
    hosts: Vec<Access>,
    boxes: Vec<Boxed>,
    addresses_given: usize,
    crossings: BTreeMap<(Edge, Edge), Link>,
    under_way: Agenda<Hop>,
    fates: Fates,
    marks: Marks,
}

impl Internet {
    /// The internet without other networks; every crossing of it has `conditions` by default.
    #[must_use]
    pub fn new(seed: [u8; 32], conditions: Conditions) -> Self {
        Self {
            seed,
            conditions,
            hosts: Vec::new(),
            boxes: Vec::new(),
            addresses_given: 0,
            crossings: BTreeMap::new(),
            under_way: Agenda::new(),
            fates: Fates::default(),
            marks: Marks::new(),
        }
    }

    /// Adds a box with its external address in the network `outside`.
    ///
    /// # Panics
    /// If a host there has the address.
    pub fn add_nat(&mut self, rules: Rules, external: IpAddr, outside: Place) -> NatId {
        let taken = self.nats_on(outside).any(|(_, boxed)| boxed.nat.external() == external);
        let host = |access: &Access| {
            access.place == outside && access.addresses.iter().any(|a| a.ip() == external)
        };
        assert!(!taken && !self.hosts.iter().any(host), "{external} is taken");
        let id = NatId(self.boxes.len());
        let seed = Rng::new(self.seed, &format!("nat {}", id.0)).seed();
        self.boxes.push(Boxed { nat: Nat::new(rules, external, seed), outside });
        id
    }

    /// Adds a host with its addresses.
    ///
    /// # Panics
    /// If a host in the same network has one of them.
    pub fn add_host(&mut self, place: Place, addresses: Vec<SocketAddr>) -> HostId {
        let host = HostId::at(self.hosts.len());
        let link = |way: &str| {
            let rng = Rng::new(self.seed, &format!("{way} of {}", host.index()));
            Link::new(Conditions { latency: ACCESS_LATENCY, ..Conditions::default() }, rng)
        };
        let (up, down) = (link("up"), link("down"));
        self.hosts.push(Access { place, addresses: Vec::new(), up, down });
        self.move_host(host, place, addresses);
        host
    }

    /// Moves a host to another network, to other addresses, or both. Datagrams in transit to the
    /// old addresses are lost.
    ///
    /// # Panics
    /// If a host in that network has one of the addresses.
    pub fn move_host(&mut self, host: HostId, place: Place, addresses: Vec<SocketAddr>) {
        self.hosts[host.index()].addresses.clear();
        for &address in &addresses {
            assert_eq!(self.neighbour(place, address), None, "{address} is taken");
        }
        self.addresses_given += addresses.len();
        let access = &mut self.hosts[host.index()];
        (access.place, access.addresses) = (place, addresses);
    }

    /// Returns the addresses that a host has now.
    #[must_use]
    pub fn addresses(&self, host: HostId) -> &[SocketAddr] {
        &self.hosts[host.index()].addresses
    }

    /// Returns how many addresses were given to hosts so far.
    #[must_use]
    pub const fn addresses_given(&self) -> usize {
        self.addresses_given
    }

    /// Returns how many boxes there are.
    #[must_use]
    pub fn nats(&self) -> usize {
        self.boxes.len()
    }

    /// Returns the network that a host is in.
    #[must_use]
    pub fn place(&self, host: HostId) -> Place {
        self.hosts[host.index()].place
    }

    /// Returns a box, to change it.
    pub fn nat_mut(&mut self, nat: NatId) -> &mut Nat {
        &mut self.boxes[nat.0].nat
    }

    /// Returns the conditions of a host's access link: out of it, and into it.
    pub fn access_mut(&mut self, host: HostId) -> (&mut Conditions, &mut Conditions) {
        let access = &mut self.hosts[host.index()];
        (access.up.conditions_mut(), access.down.conditions_mut())
    }

    /// Returns the conditions of the crossing from the edge of one host to the edge of another: its
    /// own address, or its outermost box. Hosts inside one box share them.
    ///
    /// # Panics
    /// If both have the same edge.
    pub fn crossing_mut(&mut self, from: HostId, to: HostId) -> &mut Conditions {
        let (from, to) = (self.edge(from), self.edge(to));
        assert_ne!(from, to, "nothing is crossed");
        self.crossing(from, to).conditions_mut()
    }

    /// Changes the conditions of the crossing between two hosts, in both directions.
    ///
    /// # Panics
    /// As [`Internet::crossing_mut`].
    pub fn change_between(
        &mut self,
        one: HostId,
        other: HostId,
        mut change: impl FnMut(&mut Conditions),
    ) {
        change(self.crossing_mut(one, other));
        change(self.crossing_mut(other, one));
    }

    /// Returns what became of every datagram so far.
    #[must_use]
    pub const fn fates(&self) -> Fates {
        self.fates
    }

    /// Returns the rare things that links did so far.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Returns when the next event on a link is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.under_way.next_at()
    }

    /// Sends one datagram; its source must be an address of the host.
    pub fn send(&mut self, host: HostId, mut packet: Packet, now: Instant) {
        self.fates.sent += 1;
        let link = &mut self.hosts[host.index()].up;
        let fate = link.carry(&mut packet.payload, &mut packet.ecn, &mut self.marks, now);
        self.go_on(fate, Hop::Left(host, packet));
    }

    /// Takes the next datagram that has arrived, with the host that it reaches.
    pub fn poll(&mut self, now: Instant) -> Option<(HostId, Packet)> {
        while let Some(hop) = self.under_way.pop(now) {
            match hop {
                Hop::Left(host, packet) => self.climb(host, packet, now),
                Hop::Crossed(edge, packet) => self.enter(edge, packet, now),
                Hop::Arrived(host, packet) => {
                    if self.addresses(host).contains(&packet.to) {
                        self.fates.delivered += 1;
                        return Some((host, packet));
                    }
                    self.fates.unreachable += 1;
                }
            }
        }
        None
    }

    /// Moves a datagram up from a host through the boxes above it until a network contains the
    /// destination.
    fn climb(&mut self, host: HostId, mut packet: Packet, now: Instant) {
        let (mut place, mut edge) = (self.place(host), Edge::Host(host));
        loop {
            if let Some(next) = self.neighbour(place, packet.to) {
                return match place {
                    Place::Public if next != edge => self.cross(edge, next, packet, now),
                    Place::Public => self.fates.unreachable += 1,
                    Place::Behind(_) => self.enter(next, packet, now),
                };
            }
            let Place::Behind(id) = place else { return self.fates.unreachable += 1 };
            let Boxed { nat, outside } = &mut self.boxes[id.0];
            if nat.owns(packet.to) {
                let Some((from, to)) = nat.hairpin(packet.from, packet.to, now) else {
                    return self.fates.filtered += 1;
                };
                (packet.from, packet.to) = (from, to);
                return match self.neighbour(place, to) {
                    Some(next) => self.enter(next, packet, now),
                    None => self.fates.unreachable += 1,
                };
            }
            let Some(from) = nat.outbound(packet.from, packet.to, now) else {
                return self.fates.filtered += 1;
            };
            (packet.from, place, edge) = (from, *outside, Edge::Nat(id));
        }
    }

    fn cross(&mut self, from: Edge, to: Edge, mut packet: Packet, now: Instant) {
        self.crossing(from, to);
        if let Some(link) = self.crossings.get_mut(&(from, to)) {
            let fate = link.carry(&mut packet.payload, &mut packet.ecn, &mut self.marks, now);
            self.go_on(fate, Hop::Crossed(to, packet));
        }
    }

    /// Moves a datagram down from an edge through the boxes below it to a host.
    fn enter(&mut self, mut edge: Edge, mut packet: Packet, now: Instant) {
        loop {
            match edge {
                Edge::Host(host) => {
                    let link = &mut self.hosts[host.index()].down;
                    let (payload, ecn) = (&mut packet.payload, &mut packet.ecn);
                    let fate = link.carry(payload, ecn, &mut self.marks, now);
                    return self.go_on(fate, Hop::Arrived(host, packet));
                }
                Edge::Nat(id) => {
                    let nat = &mut self.boxes[id.0].nat;
                    let Some(to) = nat.inbound(packet.from, packet.to, now) else {
                        return self.fates.filtered += 1;
                    };
                    packet.to = to;
                    let Some(next) = self.neighbour(Place::Behind(id), to) else {
                        return self.fates.unreachable += 1;
                    };
                    edge = next;
                }
            }
        }
    }

    fn go_on(&mut self, fate: PacketFate, hop: Hop) {
        match fate {
            PacketFate::Dropped(mark) => {
                self.marks.hit(mark);
                self.fates.lost += 1;
            }
            PacketFate::Arrives(at, again) => {
                if let Some(again) = again {
                    self.under_way.push(hop.clone(), again);
                }
                self.under_way.push(hop, at);
            }
        }
    }

    fn crossing(&mut self, from: Edge, to: Edge) -> &mut Link {
        let (seed, conditions) = (self.seed, &self.conditions);
        self.crossings.entry((from, to)).or_insert_with(|| {
            Link::new(conditions.clone(), Rng::new(seed, &format!("{from:?} to {to:?}")))
        })
    }

    /// Returns the edge between a host and the internet.
    fn edge(&self, host: HostId) -> Edge {
        let (mut edge, mut place) = (Edge::Host(host), self.place(host));
        while let Place::Behind(id) = place {
            (edge, place) = (Edge::Nat(id), self.boxes[id.0].outside);
        }
        edge
    }

    /// Returns the node in a network that takes datagrams to an address: a host with exactly that,
    /// or a box with a port on it or with addresses behind it that it does not translate.
    fn neighbour(&self, place: Place, address: SocketAddr) -> Option<Edge> {
        let there = |access: &Access| access.place == place && access.addresses.contains(&address);
        if let Some(index) = self.hosts.iter().position(there) {
            return Some(Edge::Host(HostId::at(index)));
        }
        let leads_there = |&(id, boxed): &(NatId, &Boxed)| {
            let is_routed = !boxed.nat.translates(address);
            boxed.nat.owns(address)
                || (is_routed && self.neighbour(Place::Behind(id), address).is_some())
        };
        self.nats_on(place).find(leads_there).map(|(id, _)| Edge::Nat(id))
    }

    fn nats_on(&self, place: Place) -> impl Iterator<Item = (NatId, &Boxed)> {
        let ids = (0..).map(NatId).zip(&self.boxes);
        ids.filter(move |(_, boxed)| boxed.outside == place)
    }
}

#[cfg(test)]
mod tests;
