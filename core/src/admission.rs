//! Which handshakes that others begin are taken up, so that no flood of first packets costs more
//! than an answer.
//!
//! It decides for each first packet: accept it, also in place of an older handshake, ask for proof
//! of its address (RFC 9000 §8.1.2), refuse it, or ignore it. It never reads a packet and never ends
//! a handshake, and it keeps no state of unproven addresses: a forged packet cannot fill a table.
//!
//! Source: docs/protocol.md, "Address validation".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::Limits;
pub(crate) use crate::shares::SourceNetwork;
use crate::shares::{MakesRoom, Shares, WIDTHS};
use crate::token_bucket::{Bucket, Rate};

/// Most sources remembered. A source without handshakes in progress is remembered while its bucket
/// fills, two seconds at most; beyond this many the one that would expire first is removed, which
/// only gives it a full bucket. 4,096 take half a megabyte.
pub(crate) const MAX_SOURCES: usize = 4_096;

/// The largest burst, in seconds' worth of handshakes: a network of devices that lost its link
/// comes back together.
const BURST_SECONDS: u32 = 2;

/// The source of handshakes from unproven addresses, which count as one: no address has it.
const UNPROVEN: [SourceNetwork; WIDTHS] = [SourceNetwork::NONE; WIDTHS];

/// The verdict on a first packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AdmissionDecision {
    /// Accept it.
    Accept(Ticket),
    /// Answer with a Retry and keep no state.
    Retry,
    /// Reply that there is no room for another peer.
    Refuse,
    /// End the handshake with the ticket of this number, and ask again.
    Displace(u64),
    /// Do nothing: a genuine client sends again, and there may be room by then.
    Ignore,
}

/// The right to one handshake, until [`Admission::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Ticket(Option<SourceNetwork>, u64);

impl Ticket {
    /// Returns its number, by which [`AdmissionDecision::Displace`] names it.
    pub(crate) const fn number(&self) -> u64 {
        self.1
    }
}

/// Counts of the verdicts on first packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct AdmissionStats {
    /// Handshakes that others began and that are not over.
    pub under_way: usize,
    /// Proven sources of them, and of those of the last seconds.
    pub sources: usize,
    /// First packets taken up.
    pub accepted: u64,
    /// First packets answered with a Retry.
    pub retried: u64,
    /// First packets refused.
    pub refused: u64,
    /// First packets ignored.
    pub ignored: u64,
}

#[derive(Debug, Default)]
struct Entry {
    under_way: usize,
    bucket: Bucket,
}

/// The gate of one socket.
///
/// Unproven addresses count together as one source: they may begin as many handshakes a second as
/// any other source, while few are in progress. Above that each address has to be proven.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    rate: Rate,
    unproven: Bucket,
    sources: BTreeMap<SourceNetwork, Entry>,
    /// Sources without handshakes in progress, by when their buckets are full.
    idle: BTreeSet<(Instant, SourceNetwork)>,
    /// The handshakes in progress, by the numbers of their tickets.
    under_way: Shares<SourceNetwork, WIDTHS, u64>,
    next_number: u64,
    stats: AdmissionStats,
}

impl Admission {
    /// Returns a limiter without any sources.
    #[must_use]
    pub(crate) fn new(limits: &Limits) -> Self {
        let per_second = limits.handshakes_per_second;
        Self {
            limits: limits.clone(),
            rate: Rate::per_second(per_second, per_second.saturating_mul(BURST_SECONDS)),
            unproven: Bucket::new(),
            sources: BTreeMap::new(),
            idle: BTreeSet::new(),
            under_way: Shares::default(),
            next_number: 0,
            stats: AdmissionStats::default(),
        }
    }

    /// Returns the verdict on a first packet, while `connections` connections have passed
    /// admission.
    pub(crate) fn decide(
        &mut self,
        address: IpAddr,
        is_proven: bool,
        connections: usize,
        now: Instant,
    ) -> AdmissionDecision {
        self.forget(now);
        if connections >= self.limits.peers {
            self.stats.refused += 1;
            return AdmissionDecision::Refuse;
        }
        if !is_proven && !self.takes_unproven(now) {
            self.stats.retried += 1;
            return AdmissionDecision::Retry;
        }
        let source = is_proven.then(|| SourceNetwork::of(address));
        if let Some(oldest) = source.and_then(|source| self.displaced_by(source, address, now)) {
            return AdmissionDecision::Displace(oldest);
        }
        if !self.has_room() || !source.is_none_or(|source| self.takes(source, now)) {
            self.stats.ignored += 1;
            return AdmissionDecision::Ignore;
        }
        self.stats.accepted += 1;
        self.stats.under_way += 1;
        self.next_number += 1;
        let holders = if is_proven { SourceNetwork::lineage(address) } else { UNPROVEN };
        self.under_way.set(self.next_number, holders, 1);
        AdmissionDecision::Accept(Ticket(source, self.next_number))
    }

    /// Ends a handshake, regardless of its result.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
    pub(crate) fn release(&mut self, ticket: Ticket, now: Instant) {
        self.stats.under_way -= 1;
        self.under_way.remove(ticket.1);
        let Some(source) = ticket.0 else { return };
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.under_way -= 1;
            if entry.under_way == 0 {
                self.idle.insert((entry.bucket.full_at(now), source));
            }
        }
        self.forget(now);
    }

    /// Returns what came of first packets so far.
    #[must_use]
    pub(crate) fn stats(&self) -> AdmissionStats {
        AdmissionStats { sources: self.sources.len(), ..self.stats }
    }

    /// Returns the handshake that makes room for the first one of a proven source: the oldest of
    /// the source with the most. An honest one is over in two round trips, and one that stalls
    /// grows old.
    fn displaced_by(&self, source: SourceNetwork, address: IpAddr, now: Instant) -> Option<u64> {
        let mut bucket = self.sources.get(&source).map(|it| it.bucket).unwrap_or_default();
        let is_first = self.sources.get(&source).is_none_or(|it| it.under_way == 0);
        if self.has_room() || !is_first || !bucket.take(1, self.rate, now) {
            return None;
        }
        self.under_way.makes_room(&SourceNetwork::lineage(address), 0, MakesRoom::Oldest)
    }

    const fn has_room(&self) -> bool {
        self.stats.under_way < self.limits.handshakes
    }

    fn takes_unproven(&mut self, now: Instant) -> bool {
        self.stats.under_way < self.limits.handshakes_before_retry
            && self.unproven.take(1, self.rate, now)
    }

    /// Returns true if a proven source may begin another handshake; if so, it has.
    fn takes(&mut self, source: SourceNetwork, now: Instant) -> bool {
        let limits = &self.limits;
        let entry = self.sources.entry(source).or_default();
        // A part of the free room, so that many sources that come together never take all of it; at
        // least one while there is room.
        let free = limits.handshakes - (self.stats.under_way - entry.under_way);
        let share = (limits.handshakes_per_source * free).div_ceil(limits.handshakes);
        let full_at = entry.bucket.full_at(now);
        let is_taken = entry.under_way < share && entry.bucket.take(1, self.rate, now);
        if is_taken {
            self.idle.remove(&(full_at, source));
            entry.under_way += 1;
        }
        is_taken
    }

    /// Removes sources without handshakes in progress that have full buckets, and more when there
    /// are too many.
    fn forget(&mut self, now: Instant) {
        while let Some(&(full_at, source)) = self.idle.first() {
            if full_at > now && self.sources.len() < MAX_SOURCES {
                return;
            }
            self.idle.pop_first();
            self.sources.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests;
