//! A NAT or firewall for UDP, in the terms of RFC 4787: mapping and filtering.
//!
//! It decides the external address of every datagram that leaves and whether one that arrives is
//! admitted. It holds no datagram, knows no link and reads no clock: time is a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rng::Rng;

#[cfg(test)]
mod tests;

/// The lowest port that is assigned where the inside port is not kept.
pub const FIRST_PORT: u16 = 1_024;

/// How many there are from there on.
const PORTS: u64 = (1 << 16) - FIRST_PORT as u64;

/// The part of the remote end on which a mapping (RFC 4787 §4.1) or a filter (§5) depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Endpoint-independent: on no part of it.
    Independent,
    /// Address-dependent: on its IP address.
    Address,
    /// Address- and port-dependent.
    AddressAndPort,
}

/// The part of a remote end that a [`Dependence`] uses.
type Seen = Option<(IpAddr, Option<u16>)>;

impl Dependence {
    /// All of them, from the most open to the strictest.
    pub const ALL: [Self; 3] = [Self::Independent, Self::Address, Self::AddressAndPort];

    fn of(self, remote: SocketAddr) -> Seen {
        match self {
            Self::Independent => None,
            Self::Address => Some((remote.ip(), None)),
            Self::AddressAndPort => Some((remote.ip(), Some(remote.port()))),
        }
    }
}

/// Which external port a new mapping gets (RFC 4787 §4.2). Two mappings never share one: no port
/// overloading (REQ-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// The inside port if it is free, else the next free one above it (§4.2.1).
    Preserving,
    /// One above the last, for any destination.
    Sequential,
    /// Any that is free, by the NAT's own seed.
    Random,
}

impl Ports {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Preserving, Self::Sequential, Self::Random];
}

/// How a box behaves.
///
/// ```
/// use adit_core::testing::nat::{Dependence, Rules};
/// let strict = Rules { hairpins: true, ..Rules::symmetric() };
/// assert_eq!(strict.mapping, Dependence::AddressAndPort);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether UDP passes at all.
    pub passes_udp: bool,
    /// Whether addresses are translated; a firewall does not, and has no use for the next two.
    pub translates: bool,
    /// When one inside socket keeps its external port (§4.1, REQ-1).
    pub mapping: Dependence,
    /// Which port that is (§4.2).
    pub ports: Ports,
    /// Which senders are admitted (§5, REQ-8).
    pub filtering: Dependence,
    /// How long a mapping and a permission last without a datagram that refreshes them (§4.3,
    /// REQ-5).
    pub lifetime: Duration,
    /// Whether datagrams that come in refresh as well as those that go out (§4.3, REQ-6).
    pub inbound_refreshes: bool,
    /// Whether inside hosts reach each other by their external addresses (§6, REQ-9).
    pub hairpins: bool,
}

impl Rules {
    /// Returns endpoint-independent mapping and filtering ("full cone"): ports kept, five minutes,
    /// as §4.3 recommends.
    #[must_use]
    pub const fn full_cone() -> Self {
        Self {
            passes_udp: true,
            translates: true,
            mapping: Dependence::Independent,
            ports: Ports::Preserving,
            filtering: Dependence::Independent,
            lifetime: Duration::from_secs(300),
            inbound_refreshes: false,
            hairpins: false,
        }
    }

    /// Filters by address ("restricted cone").
    #[must_use]
    pub const fn address_restricted() -> Self {
        Self { filtering: Dependence::Address, ..Self::full_cone() }
    }

    /// Filters by address and port ("port-restricted cone").
    #[must_use]
    pub const fn port_restricted() -> Self {
        Self { filtering: Dependence::AddressAndPort, ..Self::full_cone() }
    }

    /// Returns a mapping to another random port towards every address.
    #[must_use]
    pub const fn address_dependent() -> Self {
        let ports = Ports::Random;
        Self { mapping: Dependence::Address, ports, ..Self::port_restricted() }
    }

    /// Returns a mapping to another random port towards every address and port ("symmetric").
    #[must_use]
    pub const fn symmetric() -> Self {
        Self { mapping: Dependence::AddressAndPort, ..Self::address_dependent() }
    }

    /// Returns rules without translation that only admit answers.
    #[must_use]
    pub const fn firewall() -> Self {
        Self { translates: false, ..Self::port_restricted() }
    }

    /// Returns rules that drop all UDP.
    #[must_use]
    pub const fn blocks_udp() -> Self {
        Self { passes_udp: false, ..Self::port_restricted() }
    }

    /// Returns true if two hosts, each behind a box with one of these rules, can reach each other
    /// when a third one sends each the address at which it sees the other, both punch repeatedly,
    /// and each answers to the source of the packets that arrive. Neither guesses a port.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let begins = |a: &Self, b: &Self| a.punch_reaches(b) && b.answers(a);
        self.passes_udp && other.passes_udp && (begins(self, other) || begins(other, self))
    }

    /// Returns true if a punch from behind this box reaches the port that was advertised for the
    /// other.
    fn punch_reaches(&self, other: &Self) -> bool {
        if other.keeps_its_port() {
            // It has sent to this address, and to the port that was advertised for this one.
            other.filtering <= Dependence::Address || self.keeps_its_port()
        } else {
            // That port is for the third host alone.
            other.filtering == Dependence::Independent
        }
    }

    /// Returns true if an answer from behind this box reaches the other, which punched at the port
    /// that was advertised for this one.
    fn answers(&self, other: &Self) -> bool {
        other.filtering <= Dependence::Address || self.keeps_its_port()
    }

    fn keeps_its_port(&self) -> bool {
        !self.translates || self.mapping == Dependence::Independent
    }
}

/// An inside socket towards as much of the remote ends as the mapping depends on.
type Key = (SocketAddr, Seen);

#[derive(Debug)]
struct NatMapping {
    external: SocketAddr,
    refreshed: Instant,
    /// The destinations it was used for, and when each permission was refreshed.
    permitted: BTreeMap<SocketAddr, Instant>,
}

/// A box between an inside and an outside.
///
/// ```
/// use adit_core::testing::clock::origin;
/// use adit_core::testing::nat::{Nat, Rules};
///
/// let mut nat = Nat::new(Rules::port_restricted(), "203.0.113.1".parse()?, [1; 32]);
/// let (host, far) = ("192.168.0.2:5000".parse()?, "198.51.100.1:4433".parse()?);
/// let seen = nat.outbound(host, far, origin()).ok_or("it leaves")?;
/// assert_eq!(seen, "203.0.113.1:5000".parse()?);
/// assert_eq!(nat.inbound(far, seen, origin()), Some(host));
/// assert_eq!(nat.inbound("198.51.100.1:4434".parse()?, seen, origin()), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Nat {
    rules: Rules,
    external: IpAddr,
    rng: Rng,
    next_port: u16,
    mappings: BTreeMap<Key, NatMapping>,
    /// External addresses that always lead to one inside socket, for any sender.
    forwards: BTreeMap<SocketAddr, SocketAddr>,
    /// Senders admitted by a forward, as (inside, remote): answers leave from the same external
    /// address.
    forwarded: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Instant)>,
}

impl Nat {
    /// Returns an unused box with its external address. Where it translates, only addresses of that
    /// family are translated: the others are filtered as by a firewall.
    #[must_use]
    pub fn new(rules: Rules, external: IpAddr, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed, "nat");
        let next_port = FIRST_PORT + (rng.u64() % PORTS) as u16;
        let (mappings, forwards, forwarded) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { rules, external, rng, next_port, mappings, forwards, forwarded }
    }

    /// Returns its rules.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns its rules, to change them; existing mappings stay.
    pub const fn rules_mut(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Returns its address outside.
    #[must_use]
    pub const fn external(&self) -> IpAddr {
        self.external
    }

    /// Returns true if an address is one that it hands out to the outside.
    #[must_use]
    pub fn owns(&self, address: SocketAddr) -> bool {
        self.translates(address) && address.ip() == self.external
    }

    /// Returns true if addresses of this address's family are translated.
    #[must_use]
    pub fn translates(&self, address: SocketAddr) -> bool {
        self.rules.translates && address.is_ipv4() == self.external.is_ipv4()
    }

    /// Removes all mappings, as after a power failure: open connections get other ports, unless
    /// they keep theirs.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.forwards.clear();
        self.forwarded.clear();
    }

    /// Makes an external port always lead to an inside socket, like a mapping on request (RFC
    /// 6887). Returns the external address.
    pub fn forward(&mut self, port: u16, inside: SocketAddr) -> SocketAddr {
        let external = SocketAddr::new(self.external, port);
        self.forwards.insert(external, inside);
        external
    }

    /// Ends a forward, also for the connections that use it.
    pub fn end_forward(&mut self, external: SocketAddr) {
        self.forwards.remove(&external);
        self.forwarded.retain(|_, (by, _)| *by != external);
    }

    /// Changes the external address, and removes all mappings.
    pub fn set_external(&mut self, external: IpAddr) {
        self.external = external;
        self.reboot();
    }

    /// Returns how many mappings there are.
    pub fn mappings(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.mappings.len()
    }

    /// Returns the external source of a datagram from `src` inside to `dst` outside; `None` if it
    /// is dropped, or if no port is left.
    pub fn outbound(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        if !self.rules.passes_udp {
            return None;
        }
        self.expire(now);
        if let Some((external, used)) = self.forwarded.get_mut(&(src, dst)) {
            *used = now;
            return Some(*external);
        }
        let key = self.key(src, dst);
        if !self.mappings.contains_key(&key) {
            let external = self.allocate(src)?;
            let permitted = BTreeMap::new();
            self.mappings.insert(key, NatMapping { external, refreshed: now, permitted });
        }
        let mapping = self.mappings.get_mut(&key)?;
        mapping.refreshed = now;
        mapping.permitted.insert(dst, now);
        Some(mapping.external)
    }

    /// Returns the inside receiver of a datagram from `src` outside to `dst`, one of this box's
    /// mappings; `None` if it is filtered.
    pub fn inbound(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        if !self.rules.passes_udp {
            return None;
        }
        self.expire(now);
        if let Some(&inside) = self.forwards.get(&dst) {
            self.forwarded.insert((inside, src), (dst, now));
            return Some(inside);
        }
        let filtering = self.rules.filtering;
        let (&(inside, _), mapping) =
            self.mappings.iter_mut().find(|(_, mapping)| mapping.external == dst)?;
        let is_let_in = filtering == Dependence::Independent
            || mapping.permitted.keys().any(|&known| filtering.of(known) == filtering.of(src));
        if !is_let_in {
            return None;
        }
        if self.rules.inbound_refreshes {
            mapping.refreshed = now;
            if let Some(permission) = mapping.permitted.get_mut(&src) {
                *permission = now;
            }
        }
        Some(inside)
    }

    /// Returns how a datagram from one inside socket to the external address of another comes back
    /// in: its source, translated to be external (REQ-9a), and its destination inside.
    pub fn hairpin(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        now: Instant,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if !self.rules.hairpins {
            return None;
        }
        let src = self.outbound(src, dst, now)?;
        Some((src, self.inbound(src, dst, now)?))
    }

    fn key(&self, src: SocketAddr, dst: SocketAddr) -> Key {
        let is_translated = self.translates(src);
        (src, if is_translated { self.rules.mapping.of(dst) } else { None })
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.rules.lifetime;
        let is_alive = |since: Instant| now.saturating_duration_since(since) < lifetime;
        self.mappings.retain(|_, mapping| is_alive(mapping.refreshed));
        self.forwarded.retain(|_, (_, used)| is_alive(*used));
        for mapping in self.mappings.values_mut() {
            mapping.permitted.retain(|_, since| is_alive(*since));
        }
    }

    fn allocate(&mut self, src: SocketAddr) -> Option<SocketAddr> {
        if !self.translates(src) {
            return Some(src);
        }
        let first = match self.rules.ports {
            Ports::Preserving => src.port(),
            Ports::Sequential => self.next_port,
            Ports::Random => FIRST_PORT + (self.rng.u64() % PORTS) as u16,
        };
        let port = self.free_from(first)?;
        if self.rules.ports == Ports::Sequential {
            self.next_port = following(port);
        }
        Some(SocketAddr::new(self.external, port))
    }

    /// Returns the first port from `first` on, and round from the end to [`FIRST_PORT`], that no
    /// mapping has.
    fn free_from(&self, first: u16) -> Option<u16> {
        let here = self.mappings.values().filter(|m| m.external.ip() == self.external);
        let here = here.map(|mapping| mapping.external).chain(self.forwards.keys().copied());
        let taken: BTreeSet<u16> = here.map(|external| external.port()).collect();
        let round = std::iter::successors(Some(first), |&port| Some(following(port)));
        round.take(1 << 16).find(|port| !taken.contains(port))
    }
}

const fn following(port: u16) -> u16 {
    if port == u16::MAX { FIRST_PORT } else { port + 1 }
}
