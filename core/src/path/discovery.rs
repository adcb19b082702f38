//! The addresses of this node's socket: its own, those that relays see, and those that a router
//! maps.
//!
//! It decides when a relay is asked, what an answer counts for, and what is offered to peers. It
//! never sends, and never decides whether an address is used.
//!
//! Source: docs/protocol.md, "Address discovery". It replaces STUN (RFC 8489): the same question,
//! authenticated with a key that the relay gave over its own connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::{CandidateAddress, CandidateType};
use super::nat::{Mapping, is_reachable, mapping_of, of_both_families};
use super::probe_pacing::between;
use crate::id::PeerId;
use crate::probe::{LEN, Probe, ProbeKey, ProbeKind};
use crate::rng::Rng;
use crate::timer;

/// Relays that are asked: two are enough to find the mapping, and twice that is allowed.
const MAX_RELAYS: usize = 4;
/// Addresses of one relay that are asked: two hosts or ports in two families.
const MAX_TARGETS: usize = 4;
/// Addresses of this host that are offered.
const MAX_OWN: usize = 8;
/// Addresses mapped by a gateway that are offered: one in each family, and as many again for two
/// gateways.
const MAX_MAPPED: usize = 4;
/// The time to the next question after an answer, in milliseconds: shorter than the shortest
/// binding of a NAT that keeps to the rules, which it also keeps alive (RFC 4787 §4.3).
const RECHECK: (u64, u64) = (18_000, 22_000);
/// The time to the next question without an answer, doubled up to the above.
const RETRY: Duration = Duration::from_millis(500);
/// Questions without an answer after which what a relay saw is forgotten.
const FORGET: u32 = 6;

/// One address of a relay that reports where a ping came from.
#[derive(Debug, Clone)]
struct DiscoveryTarget {
    address: SocketAddr,
    next: Instant,
    /// The transaction of the open question.
    asked: Option<u64>,
    unanswered: u32,
    seen: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
struct DiscoveryRelay {
    /// Where the relay sees the connection to it come from; nothing while TCP carries it, which is
    /// no address of this socket.
    observed: Option<SocketAddr>,
    session: u64,
    key: ProbeKey,
    targets: Vec<DiscoveryTarget>,
}

/// What is known of this node's addresses. One for each socket.
#[derive(Debug)]
pub(crate) struct AddressDiscovery {
    rng: Rng,
    epoch: Instant,
    own: Vec<SocketAddr>,
    mapped: Vec<SocketAddr>,
    relays: BTreeMap<PeerId, DiscoveryRelay>,
    transaction: u64,
    revision: u64,
    /// What `revision` counts.
    offered: (Vec<CandidateAddress>, Mapping),
}

impl AddressDiscovery {
    /// Returns a discovery that knows no address.
    #[must_use]
    pub(crate) fn new(rng: Rng, now: Instant) -> Self {
        Self {
            rng,
            epoch: now,
            own: Vec::new(),
            mapped: Vec::new(),
            relays: BTreeMap::new(),
            transaction: 0,
            revision: 0,
            offered: (Vec::new(), Mapping::Unknown),
        }
    }

    /// Sets the host's own addresses, each with the socket's port.
    pub(crate) fn set_local(&mut self, addresses: &[SocketAddr]) {
        self.own = addresses.iter().copied().filter(|&it| is_reachable(it, true)).collect();
        self.own.truncate(MAX_OWN);
        self.update();
    }

    /// Sets the outside addresses that a gateway maps to the socket; an empty list removes them. A
    /// gateway is not trusted: an address that cannot be another host's view of this one is left
    /// out.
    pub(crate) fn set_mapped(&mut self, addresses: &[SocketAddr]) {
        let usable = addresses.iter().copied().filter(|&it| is_reachable(it, false));
        self.mapped = usable.take(MAX_MAPPED).collect();
        self.update();
    }

    /// A relay has reported where it sees this node, and where it may be asked. What its addresses
    /// saw is kept if the report is unchanged; if it sees this node elsewhere, they are asked
    /// immediately. A connection over TCP reports no address. Returns true if the relay saw this
    /// node elsewhere before.
    pub(crate) fn on_welcome(
        &mut self,
        relay: PeerId,
        observed: Option<SocketAddr>,
        discovery: &[SocketAddr],
        session: u64,
        key: ProbeKey,
        now: Instant,
    ) -> bool {
        let old = self.relays.remove(&relay);
        if self.relays.len() >= MAX_RELAYS {
            return false;
        }
        let is_moved = old.as_ref().is_some_and(|old| old.observed != observed);
        let mut targets: Vec<DiscoveryTarget> = Vec::new();
        for &address in discovery.iter().filter(|&&it| is_reachable(it, true)) {
            if targets.len() == MAX_TARGETS || targets.iter().any(|it| it.address == address) {
                continue;
            }
            let known = old.iter().flat_map(|old| &old.targets).find(|it| it.address == address);
            let seen = known.and_then(|known| known.seen).filter(|_| !is_moved);
            targets.push(DiscoveryTarget { address, next: now, asked: None, unanswered: 0, seen });
        }
        self.relays.insert(relay, DiscoveryRelay { observed, session, key, targets });
        self.update();
        is_moved
    }

    /// The connection to that relay is over: what it saw may not hold any more.
    pub(crate) fn on_relay_lost(&mut self, relay: PeerId) {
        self.relays.remove(&relay);
        self.update();
    }

    /// The host is in another network: every relay is asked immediately.
    pub(crate) fn on_network_changed(&mut self, now: Instant) {
        for target in self.relays.values_mut().flat_map(|relay| &mut relay.targets) {
            target.next = now;
            target.unanswered = 0;
        }
    }

    /// Takes bytes that may be a probe and came from `from`. Returns true if they answered one of
    /// ours; if not, they may belong elsewhere.
    pub(crate) fn handle_probe(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        let Some(session) = Probe::session(bytes) else { return false };
        let Some(relay) = self.relays.values_mut().find(|relay| relay.session == session) else {
            return false;
        };
        let Some(target) = relay.targets.iter_mut().find(|it| it.address == from) else {
            return false;
        };
        let Some(pong) = Probe::decode(bytes, &relay.key) else { return false };
        let is_ours = pong.kind == ProbeKind::Pong && target.asked == Some(pong.transaction);
        let Some(observed) = pong.observed.filter(|_| is_ours) else { return false };
        target.asked = None;
        target.unanswered = 0;
        target.seen = Some(observed);
        target.next = now + between(RECHECK.0, RECHECK.1, &mut self.rng);
        self.update();
        true
    }

    /// Returns the next question to send, and where to.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(SocketAddr, [u8; LEN])> {
        let due = |relay: &&mut DiscoveryRelay| relay.targets.iter().any(|it| it.next <= now);
        let relay = self.relays.values_mut().find(due)?;
        let target = relay.targets.iter_mut().find(|it| it.next <= now)?;
        self.transaction += 1;
        let sent = now.saturating_duration_since(self.epoch).as_micros();
        let ping = Probe {
            kind: ProbeKind::Ping,
            session: relay.session,
            transaction: self.transaction,
            sent: u64::try_from(sent).unwrap_or(u64::MAX),
            observed: None,
            state: 0,
        };
        let bytes = ping.encode(&relay.key);
        target.asked = Some(self.transaction);
        target.unanswered = target.unanswered.saturating_add(1);
        if target.unanswered > FORGET {
            target.seen = None;
        }
        let backoff = RETRY * 2u32.saturating_pow(target.unanswered.min(FORGET) - 1);
        target.next = now + backoff.min(between(RECHECK.0, RECHECK.1, &mut self.rng));
        let address = target.address;
        self.update();
        Some((address, bytes))
    }

    /// Returns when [`AddressDiscovery::poll`] is due.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<timer::Deadline> {
        let targets = self.relays.values().flat_map(|relay| &relay.targets);
        targets.map(|it| it.next).min().map(|at| (at, timer::Reason::Path))
    }

    /// Returns what is offered to peers: each address once, as the best kind that it is.
    #[must_use]
    pub(crate) fn candidates(&self) -> Vec<CandidateAddress> {
        self.offered.0.clone()
    }

    /// Returns the mapping of this node's network.
    #[must_use]
    pub(crate) const fn mapping(&self) -> Mapping {
        self.offered.1
    }

    /// Returns the number of changes of [`AddressDiscovery::candidates`] and
    /// [`AddressDiscovery::mapping`].
    #[must_use]
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    fn update(&mut self) {
        let offered = (self.gather(), self.mapping_of_families());
        if offered != self.offered {
            self.offered = offered;
            self.revision += 1;
        }
    }

    fn gather(&self) -> Vec<CandidateAddress> {
        let seen = self.relays.values().flat_map(|relay| {
            let by_targets = relay.targets.iter().filter_map(|it| it.seen);
            relay.observed.into_iter().chain(by_targets)
        });
        let own = self.own.iter().map(|&address| (CandidateType::Host, address));
        let mapped = self.mapped.iter().map(|&address| (CandidateType::Mapped, address));
        let seen = seen.map(|address| (CandidateType::Reflexive, address));
        let mut gathered: Vec<CandidateAddress> = Vec::new();
        for (kind, address) in own.chain(mapped).chain(seen) {
            let is_known = gathered.iter().any(|it| it.address == address);
            if !is_known && is_reachable(address, true) && gathered.len() < super::MAX_CANDIDATES {
                gathered.push(CandidateAddress { kind, address });
            }
        }
        gathered
    }

    fn mapping_of_families(&self) -> Mapping {
        let of_family = |is_v4: bool| {
            let targets = self.relays.values().flat_map(|relay| &relay.targets);
            let seen = targets.filter_map(|it| it.seen.map(|seen| (it.address, seen)));
            let seen: Vec<_> = seen.filter(|(_, seen)| seen.is_ipv4() == is_v4).collect();
            if !seen.is_empty() {
                return mapping_of(&seen, &self.own);
            }
            // What the relay's connection came from can show that there is no NAT, and nothing
            // else: where it went is not compared with where questions go.
            let mut observed = self.relays.values().filter_map(|relay| relay.observed);
            let is_own = observed.any(|it| it.is_ipv4() == is_v4 && self.own.contains(&it));
            if is_own { Mapping::None } else { Mapping::Unknown }
        };
        of_both_families(of_family(true), of_family(false))
    }
}

#[cfg(test)]
mod tests;
