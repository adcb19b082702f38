//! A network of hosts in virtual time: datagrams in, datagrams out later, or never.
//!
//! It decides which host has which address, which link a datagram takes and when it arrives. It
//! never reads a payload except to damage it, and does not know the programs of the hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::agenda::Agenda;
use super::link::{Conditions, Link, PacketFate};
use super::marks::{Mark, Marks};
use crate::rng::Rng;
use crate::transmit::Ecn;

/// One host of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

impl HostId {
    pub(super) const fn at(index: usize) -> Self {
        Self(index)
    }

    /// Returns the host's place among the hosts of its net, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// One datagram on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The address its sender had when it was sent.
    pub from: SocketAddr,
    /// Where it was sent.
    pub to: SocketAddr,
    /// The codepoint it carries.
    pub ecn: Option<Ecn>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// How many datagrams met which end. Of all that were sent or duplicated, each was delivered,
/// dropped, or is still in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetCounters {
    /// Given to the network by hosts.
    pub sent: u64,
    /// Bytes of payload of those.
    pub sent_bytes: u64,
    /// Second copies the network made.
    pub duplicated: u64,
    /// Handed to a host.
    pub delivered: u64,
    /// Bytes of payload of those.
    pub delivered_bytes: u64,
    /// Never delivered, for any reason; [`Marks`] distinguishes the reasons.
    pub dropped: u64,
}

/// The network of one world.
///
/// ```
/// use adit_core::testing::clock::origin;
/// use adit_core::testing::link::Conditions;
/// use adit_core::testing::net::Net;
///
/// let mut net = Net::new([7; 32], Conditions::default());
/// let (a, b) = ("10.0.0.1:1000".parse()?, "10.0.0.2:2000".parse()?);
/// let (agent, connector) = (net.add_host(a), net.add_host(b));
/// net.send(agent, b, None, b"hello", origin());
///
/// let at = net.next_at().ok_or("it arrives")?;
/// let (host, packet) = net.poll(at).ok_or("it is due")?;
/// assert_eq!((host, packet.from, &packet.payload[..]), (connector, a, &b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Net {
    seed: [u8; 32],
    conditions: Conditions,
    addresses: Vec<SocketAddr>,
    links: BTreeMap<(HostId, HostId), Link>,
    under_way: Agenda<Packet>,
    counters: NetCounters,
    marks: Marks,
}

impl Net {
    /// Returns a network without hosts; new links have `conditions`.
    #[must_use]
    pub fn new(seed: [u8; 32], conditions: Conditions) -> Self {
        Self {
            seed,
            conditions,
            addresses: Vec::new(),
            links: BTreeMap::new(),
            under_way: Agenda::new(),
            counters: NetCounters::default(),
            marks: Marks::new(),
        }
    }

    /// Adds a host with its address, linked to every other host in both directions.
    ///
    /// # Panics
    ///
    /// If another host has the address.
    pub fn add_host(&mut self, address: SocketAddr) -> HostId {
        assert_eq!(self.owner(address), None, "{address} is taken");
        let host = HostId(self.addresses.len());
        self.addresses.push(address);
        for other in (0..host.0).map(HostId) {
            for (from, to) in [(host, other), (other, host)] {
                let rng = Rng::new(self.seed, &format!("link {} to {}", from.0, to.0));
                self.links.insert((from, to), Link::new(self.conditions.clone(), rng));
            }
        }
        host
    }

    /// Returns the address that a host has now.
    #[must_use]
    pub fn address(&self, host: HostId) -> SocketAddr {
        self.addresses[host.0]
    }

    /// Returns the host that has an address now.
    #[must_use]
    pub fn owner(&self, address: SocketAddr) -> Option<HostId> {
        self.addresses.iter().position(|&taken| taken == address).map(HostId)
    }

    /// Changes the address of a host, like a NAT that lost its mapping or a move to another access
    /// network. Datagrams in transit to the old address are lost.
    ///
    /// # Panics
    ///
    /// If another host has the address.
    pub fn set_address(&mut self, host: HostId, address: SocketAddr) {
        let owner = self.owner(address);
        assert!(owner.is_none() || owner == Some(host), "{address} is taken");
        if owner.is_none() {
            self.marks.hit(Mark::AddressChanged);
            self.addresses[host.0] = address;
        }
    }

    /// Returns the conditions from one host to another, to change them. Datagrams in transit keep
    /// those with which they were sent.
    ///
    /// # Panics
    ///
    /// If the two are one host, or are not both of this net.
    pub fn conditions_mut(&mut self, from: HostId, to: HostId) -> &mut Conditions {
        let link = self.links.get_mut(&(from, to));
        link.expect("two hosts of one net are linked").conditions_mut()
    }

    /// Sets the conditions between two hosts, in both directions.
    ///
    /// # Panics
    ///
    /// If the two are one host, or are not both of this net.
    pub fn set_conditions(&mut self, a: HostId, b: HostId, conditions: &Conditions) {
        conditions.clone_into(self.conditions_mut(a, b));
        conditions.clone_into(self.conditions_mut(b, a));
    }

    /// Cuts or heals the direction from one host to another.
    ///
    /// # Panics
    ///
    /// If the two are one host, or are not both of this net.
    pub fn set_cut(&mut self, from: HostId, to: HostId, is_cut: bool) {
        self.conditions_mut(from, to).is_cut = is_cut;
        if is_cut != self.conditions_mut(to, from).is_cut {
            self.marks.hit(Mark::CutOneWay);
        }
    }

    /// Sends one datagram from a host's present address.
    pub fn send(
        &mut self,
        from: HostId,
        to: SocketAddr,
        ecn: Option<Ecn>,
        payload: &[u8],
        now: Instant,
    ) {
        self.counters.sent += 1;
        self.counters.sent_bytes += payload.len() as u64;
        let mut packet = Packet { from: self.address(from), to, ecn, payload: payload.to_vec() };
        let link = self.owner(to).and_then(|owner| self.links.get_mut(&(from, owner)));
        let Some(link) = link else { return self.drop_for(Mark::NoHost) };
        match link.carry(&mut packet.payload, &mut packet.ecn, &mut self.marks, now) {
            PacketFate::Dropped(mark) => self.drop_for(mark),
            PacketFate::Arrives(at, again) => {
                if let Some(again) = again {
                    self.counters.duplicated += 1;
                    self.under_way.push(packet.clone(), again);
                }
                self.under_way.push(packet, at);
            }
        }
    }

    /// Returns when the next datagram arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.under_way.next_at()
    }

    /// Takes the next datagram that has arrived, with the host that it reaches.
    pub fn poll(&mut self, now: Instant) -> Option<(HostId, Packet)> {
        while let Some(packet) = self.under_way.pop(now) {
            match self.owner(packet.to) {
                None => self.drop_for(Mark::NoHost),
                Some(host) => {
                    self.counters.delivered += 1;
                    self.counters.delivered_bytes += packet.payload.len() as u64;
                    return Some((host, packet));
                }
            }
        }
        None
    }

    /// Returns how many datagrams are in transit.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Returns the datagrams in transit in order of arrival, to tamper with them.
    pub fn under_way_mut(&mut self) -> impl Iterator<Item = &mut Packet> {
        self.under_way.iter_mut()
    }

    /// Returns what became of every datagram so far.
    #[must_use]
    pub const fn counters(&self) -> NetCounters {
        self.counters
    }

    /// Returns the rare things that happened so far.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Returns the rare events so far, to add those that the network cannot see.
    pub const fn marks_mut(&mut self) -> &mut Marks {
        &mut self.marks
    }

    fn drop_for(&mut self, mark: Mark) {
        self.marks.hit(mark);
        self.counters.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::clock::origin;
    use crate::testing::link::Loss;
    use crate::testing::trace::Trace;
    use std::num::NonZeroU64;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 1000))
    }

    fn two(conditions: Conditions) -> (Net, HostId, HostId) {
        let mut net = Net::new([1; 32], conditions);
        let (a, b) = (net.add_host(address(1)), net.add_host(address(2)));
        (net, a, b)
    }

    fn wild() -> Conditions {
        Conditions {
            jitter: 30 * MS,
            loss: Loss::Bursty { worsen: 0.05, improve: 0.3, loss: 0.9 },
            duplicate: 0.1,
            reorder: 0.1,
            corrupt: 0.1,
            bandwidth: NonZeroU64::new(100_000),
            queue: 4_000,
            ..Conditions::default()
        }
    }

    /// Sends in both directions for two seconds, changes all datagrams in transit, and delivers to
    /// the end.
    fn storm(seed: [u8; 32]) -> (Net, Trace) {
        let mut net = Net::new(seed, wild());
        let mut trace = Trace::new();
        let (a, b) = (net.add_host(address(1)), net.add_host(address(2)));
        for n in 0..2000u32 {
            let now = origin() + n * MS;
            match n {
                400 => net.set_cut(a, b, true),
                500 => net.set_cut(a, b, false),
                600 => net.set_address(a, address(3)),
                900 => net.conditions_mut(a, b).loss = Loss::Random(0.3),
                _ => {}
            }
            let payload = n.to_le_bytes().repeat((1 + n as usize % 80) * 5);
            let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
            let to = if n % 100 == 51 { address(1) } else { net.address(to) };
            net.send(from, to, Some(Ecn::Ect0), &payload, now);
            deliver(&mut net, &mut trace, now);
        }
        while let Some(at) = net.next_at() {
            deliver(&mut net, &mut trace, at);
        }
        (net, trace)
    }

    fn deliver(net: &mut Net, trace: &mut Trace, now: Instant) {
        while let Some((host, packet)) = net.poll(now) {
            trace.add(&[host.index() as u8, u8::from(packet.ecn == Some(Ecn::Ce))]);
            trace.add(&(now - origin()).as_nanos().to_le_bytes());
            trace.add(&packet.payload);
        }
    }

    #[test]
    fn a_datagram_arrives_at_its_instant_and_not_before() {
        let (mut net, a, b) = two(Conditions::default());
        net.send(a, address(2), Some(Ecn::Ect0), b"x", origin());
        let at = origin() + 10 * MS;
        assert_eq!(net.next_at(), Some(at));
        assert_eq!(net.poll(at - Duration::from_nanos(1)), None);
        let payload = b"x".to_vec();
        let packet = Packet { from: address(1), to: address(2), ecn: Some(Ecn::Ect0), payload };
        assert_eq!(net.poll(at), Some((b, packet)));
        assert_eq!((net.poll(at), net.next_at(), net.under_way()), (None, None, 0));
    }

    #[test]
    fn a_one_way_cut_stops_one_way() {
        let (mut net, a, b) = two(Conditions::default());
        net.set_cut(a, b, true);
        net.send(a, address(2), None, b"lost", origin());
        net.send(b, address(1), None, b"kept", origin());
        let arrived = net.poll(origin() + 10 * MS).map(|(host, packet)| (host, packet.payload));
        assert_eq!(arrived, Some((a, b"kept".to_vec())));
        assert_eq!((net.marks().count(Mark::Cut), net.marks().count(Mark::CutOneWay)), (1, 1));
        net.set_cut(b, a, true);
        assert_eq!(net.marks().count(Mark::CutOneWay), 1);
    }

    #[test]
    fn a_changed_address_is_seen_by_peers_and_what_was_under_way_is_lost() {
        let (mut net, a, b) = two(Conditions::default());
        net.send(b, address(1), None, b"too late", origin());
        net.set_address(a, address(3));
        net.set_address(a, address(3));
        assert_eq!(net.poll(origin() + 10 * MS), None);
        net.send(a, address(2), None, b"from", origin());
        let (_, packet) = net.poll(origin() + 10 * MS).unwrap();
        assert_eq!(packet.from, address(3));
        net.send(b, packet.from, None, b"to", origin());
        assert!(net.poll(origin() + 10 * MS).is_some_and(|(host, _)| host == a));
        assert_eq!(net.marks().count(Mark::AddressChanged), 1);
        assert_eq!(net.counters().dropped, 1);
    }

    #[test]
    fn unknown_and_own_addresses_are_unreachable() {
        let (mut net, a, _) = two(Conditions::default());
        net.send(a, address(9), None, b"x", origin());
        net.send(a, address(1), None, b"x", origin());
        assert_eq!((net.marks().count(Mark::NoHost), net.under_way()), (2, 0));
    }

    #[test]
    fn traffic_on_one_link_does_not_change_the_luck_of_another() {
        let lost = |chatter: bool| {
            let (mut net, a, b) = two(wild());
            for n in 0..500 {
                if chatter {
                    net.send(b, address(1), None, &[1; 100], origin() + n * MS);
                }
                net.send(a, address(2), None, &[2; 50], origin() + n * MS);
            }
            let arrived = std::iter::from_fn(|| net.poll(origin() + 10_000 * MS));
            arrived.filter(|(host, _)| *host == b).map(|(_, packet)| packet).collect::<Vec<_>>()
        };
        assert_eq!(lost(false), lost(true));
    }

    #[test]
    fn every_datagram_is_delivered_or_dropped_in_the_end() {
        let (net, _) = storm([2; 32]);
        let counted = net.counters();
        assert_eq!(counted.sent, 2000);
        assert_eq!(counted.sent + counted.duplicated, counted.delivered + counted.dropped);
        assert_eq!(net.under_way(), 0);
    }

    #[test]
    fn a_storm_reaches_every_mark_of_the_network() {
        let (net, _) = storm([2; 32]);
        let missing = net.marks().missing();
        assert!(missing.iter().all(|&mark| mark > Mark::AddressChanged), "{missing:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_network_and_another_seed_another() {
        let print = |seed| storm(seed).1.fingerprint();
        assert_eq!(print([3; 32]), print([3; 32]));
        assert_ne!(print([3; 32]), print([4; 32]));
    }
}
