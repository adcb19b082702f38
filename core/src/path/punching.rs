//! When both ends send each other their addresses, and punch.
//!
//! It decides the rounds. One end begins a round by sending its addresses with a higher number; the
//! other answers with its own. The dialler punches when it receives the other's, the acceptor when
//! it has sent its own and has the other's: that is within half a round trip of each other, and a
//! probe that arrives before the other's NAT has opened is followed by eight more.

use std::time::{Duration, Instant};

use super::MAX_CANDIDATES;
use super::action::{PathAction, PathRole};
use super::candidate::{CandidateAddress, CandidateOffer};
use super::context::PathContext;
use super::nat::Mapping;
use super::path_set::PathSet;
use super::probe_pacing::between;
use crate::rng::Rng;
use crate::token_bucket::{Bucket, Rate};

/// The times to the next rounds, in seconds: a second round for what was lost by chance, and then
/// ever more slowly, since a path that worked a moment ago most often comes back soon.
const RETRIES: [u64; 5] = [5, 5, 10, 15, 25];
/// The time to each later round, in milliseconds: a minute, spread so that a thousand connections
/// of one relay do not punch together.
const LATER: (u64, u64) = (54_000, 66_000);
/// The time from leaving a direct path to the next round, unless one is asked for.
const UPGRADE: Duration = Duration::from_secs(60);
/// The least time between two rounds that this end begins, unless its addresses have changed.
const ROUND_SPACING: Duration = Duration::from_secs(1);
/// Offers that a peer may send: one a second, and eight in a burst.
const OFFERS: (u32, u32) = (1, 8);
/// Rounds since there was a reason to hope in which even unlikely addresses are punched.
const EARLY: u32 = 2;

/// The punching rounds of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct PunchingRounds {
    candidates: Vec<CandidateAddress>,
    mapping: Mapping,
    /// Whether this end's addresses were ever set.
    is_known: bool,
    /// Whether they were ever sent.
    is_sent: bool,
    number: u32,
    /// The peer's NAT and the number of its latest round.
    theirs: Option<(Mapping, u32)>,
    next: Option<Instant>,
    /// Rounds since there was a reason to hope.
    attempts: u32,
    begun: Option<Instant>,
    offers: Bucket,
}

impl PunchingRounds {
    /// Returns this end's addresses.
    pub(super) fn candidates(&self) -> &[CandidateAddress] {
        &self.candidates
    }

    /// Returns this end's NAT.
    pub(super) const fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Returns the peer's NAT.
    pub(super) fn peer_mapping(&self) -> Mapping {
        self.theirs.map_or(Mapping::Unknown, |(mapping, _)| mapping)
    }

    /// Returns true if both NATs allow that the ends meet at addresses that relays saw.
    pub(super) fn can_meet(&self) -> bool {
        self.mapping.can_meet(self.peer_mapping())
    }

    /// Returns the number of the latest round.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Returns when [`PunchingRounds::on_time`] is due.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes this end's addresses. Returns false if they are the same as before.
    pub(super) fn set_local(&mut self, candidates: &[CandidateAddress], mapping: Mapping) -> bool {
        let is_same = self.candidates == candidates && self.mapping == mapping;
        if self.is_known && is_same {
            return false;
        }
        self.candidates = candidates.to_vec();
        self.candidates.truncate(MAX_CANDIDATES);
        self.mapping = mapping;
        self.is_known = true;
        self.attempts = 0;
        true
    }

    /// This end's addresses have changed, and there are keys: they are sent, in a new round if the
    /// ones before were sent.
    pub(super) fn on_local_changed(
        &mut self,
        paths: &mut PathSet,
        cx: &mut PathContext,
        now: Instant,
    ) {
        if self.is_sent {
            self.number = self.number.saturating_add(1);
        }
        self.send_offer(paths, cx, now);
    }

    /// The connection has keys from now on: addresses that are known are sent.
    pub(super) fn on_keys(&mut self, paths: &mut PathSet, cx: &mut PathContext, now: Instant) {
        if self.is_known {
            self.send_offer(paths, cx, now);
        }
    }

    /// Returns true if an offer of that round counts: it is not older than the latest, and the peer
    /// has not sent too many.
    pub(super) fn accepts(&mut self, round: u32, now: Instant) -> bool {
        let is_old = self.theirs.is_some_and(|(_, latest)| round < latest);
        !is_old && self.offers.take(1, Rate::per_second(OFFERS.0, OFFERS.1), now)
    }

    /// Notes the peer's NAT and round.
    pub(super) const fn set_peer(&mut self, mapping: Mapping, round: u32) {
        self.theirs = Some((mapping, round));
    }

    /// The peer has sent its addresses in that round: this end answers and punches.
    pub(super) fn on_offer(
        &mut self,
        round: u32,
        has_keys: bool,
        paths: &mut PathSet,
        cx: &mut PathContext,
        now: Instant,
    ) {
        let is_newer = round > self.number;
        self.number = self.number.max(round);
        if is_newer && self.is_known {
            // This round is the next: no need to begin one as well.
            self.schedule(&mut cx.rng, now);
            if has_keys {
                self.send_offer(paths, cx, now);
            }
        }
        if cx.role == PathRole::Dialler || self.is_sent {
            self.punch(paths, &mut cx.rng, now);
        }
    }

    /// Begins the next round, if it is time and a direct path is `wanted`.
    pub(super) fn on_time(
        &mut self,
        wanted: bool,
        paths: &mut PathSet,
        cx: &mut PathContext,
        now: Instant,
    ) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        if !wanted {
            self.next = None;
            return;
        }
        self.schedule(&mut cx.rng, now);
        self.begun = Some(now);
        self.number = self.number.saturating_add(1);
        self.send_offer(paths, cx, now);
    }

    /// A direct path is wanted now: the next round begins as soon as it may.
    pub(super) fn restart(&mut self, now: Instant) {
        if !self.is_sent {
            return;
        }
        let soonest = self.begun.map_or(now, |begun| now.max(begun + ROUND_SPACING));
        self.attempts = 0;
        self.next = Some(soonest);
    }

    /// A relayed path, or none, is active: a direct one is sought again in a while.
    pub(super) fn on_relayed(&mut self, now: Instant) {
        if self.theirs.is_some() {
            self.next.get_or_insert(now + UPGRADE);
        }
    }

    /// Sends this end's addresses.
    fn send_offer(&mut self, paths: &mut PathSet, cx: &mut PathContext, now: Instant) {
        if !cx.config.direct {
            return;
        }
        self.is_sent = true;
        let (candidates, mapping, round) = (self.candidates.clone(), self.mapping, self.number);
        let has_full_probes = true;
        let offer = CandidateOffer { candidates, mapping, round, has_full_probes };
        cx.push(PathAction::Candidates(offer));
        if self.next.is_none() {
            self.schedule(&mut cx.rng, now);
        }
        if cx.role == PathRole::Acceptor && self.theirs.is_some() {
            self.punch(paths, &mut cx.rng, now);
        }
    }

    /// Punches at every address of the peer that does not answer.
    fn punch(&mut self, paths: &mut PathSet, rng: &mut Rng, now: Instant) {
        paths.punch(self.attempts <= EARLY, now);
        if self.next.is_none() {
            self.schedule(rng, now);
        }
    }

    /// Schedules the next round: soon after the first, ever more slowly, and then once a minute.
    fn schedule(&mut self, rng: &mut Rng, now: Instant) {
        let (least, most) = LATER;
        let wait = match RETRIES.get(self.attempts as usize) {
            Some(seconds) => Duration::from_secs(*seconds),
            None => between(least, most, rng),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.next = Some(now + wait);
    }
}
