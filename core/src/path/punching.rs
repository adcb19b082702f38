//! When both ends tell each other their addresses, and knock.
//!
//! It decides the rounds. One end begins one by telling its addresses with a higher number; the
//! other answers with its own. The dialler knocks when it hears the other's, the acceptor when it
//! has told its own and knows the other's: that is within half a round trip of each other, and a
//! probe that comes before the other's NAT has opened is followed by eight more.

use std::time::{Duration, Instant};

use super::candidate::{CandidateAddress, CandidateOffer, CandidateType};
use super::nat::Mapping;
use super::path_set::Obstacle;
use super::probe_pacing::between;
use super::{PathAction, PathRole, Paths};
use crate::probe::ProbeKey;
use crate::token_bucket::{Bucket, Rate};

/// The times to the next rounds, in seconds: a second knock at what was lost by chance, and then ever
/// more slowly, since what was there a moment ago most often comes back soon.
const RETRIES: [u64; 5] = [5, 5, 10, 15, 25];
/// The time to each later one, in milliseconds: a minute, spread so that a thousand connections of
/// one relay do not knock together.
const UPGRADE: (u64, u64) = (54_000, 66_000);
/// The least time between two rounds at one address, whatever the peer asks for.
const KNOCK_SPACING: Duration = Duration::from_secs(2);
/// The least time between two rounds that this end begins, unless its addresses have changed.
const SEEK_SPACING: Duration = Duration::from_secs(1);
/// What a peer may tell: once a second, and eight times at once.
const OFFERS: (u32, u32) = (1, 8);

/// The rounds of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct PunchingRounds {
    pub(super) candidates: Vec<CandidateAddress>,
    pub(super) mapping: Mapping,
    /// Whether this end's addresses were ever given.
    is_known: bool,
    is_told: bool,
    pub(super) round: u32,
    pub(super) theirs: Option<(Mapping, u32)>,
    /// When the next round begins.
    pub(super) next: Option<Instant>,
    /// Rounds since there was a reason to hope.
    attempts: u32,
    begun: Option<Instant>,
    offers: Bucket,
}

impl Paths {
    /// The connection's handshake is complete: from here ways are probed, and addresses told. Each
    /// side is the tag and the key of one direction, from the connection's own exporter.
    pub fn set_keys(&mut self, ours: (u64, ProbeKey), theirs: (u64, ProbeKey), now: Instant) {
        let now = self.advance(now);
        self.keys = Some(super::ProbeKeys { ours, theirs });
        self.probe_relayed(now);
        if self.meeting.is_known {
            self.tell(now);
        }
        self.refresh(now);
    }

    /// Where this end may be reached. Without a call, nothing is told and no way is direct.
    pub fn set_local(&mut self, candidates: &[CandidateAddress], mapping: Mapping, now: Instant) {
        let now = self.advance(now);
        if !self.config.direct {
            return;
        }
        let meeting = &mut self.meeting;
        let is_same = meeting.candidates == candidates && meeting.mapping == mapping;
        if meeting.is_known && is_same {
            return;
        }
        meeting.candidates = candidates.to_vec();
        meeting.candidates.truncate(super::MAX_CANDIDATES);
        meeting.mapping = mapping;
        meeting.is_known = true;
        meeting.attempts = 0;
        self.judge();
        if self.keys.is_some() {
            if self.meeting.is_told {
                self.meeting.round = self.meeting.round.saturating_add(1);
            }
            self.tell(now);
        }
        self.refresh(now);
    }

    /// The peer has told its addresses.
    pub fn handle_candidates(&mut self, offer: &CandidateOffer, now: Instant) {
        let now = self.advance(now);
        let is_old = self.meeting.theirs.is_some_and(|(_, round)| offer.round < round);
        let rate = Rate::per_second(OFFERS.0, OFFERS.1);
        if !self.config.direct || is_old || !self.meeting.offers.take(1, rate, now) {
            return;
        }
        let in_use = self.select.in_use();
        self.ways.direct().for_each(|way| way.is_offered = false);
        for candidate in offer.usable(&self.meeting.candidates) {
            let CandidateAddress { kind, address } = candidate;
            if let Some(at) = self.ways.direct_to(address, kind, in_use, now) {
                self.ways.all[at].is_offered = true;
                self.ways.all[at].kind = Some(kind);
            }
        }
        self.ways.forget_untold(in_use, now);
        self.meeting.theirs = Some((offer.mapping, offer.round));
        self.judge();
        let is_newer = offer.round > self.meeting.round;
        self.meeting.round = self.meeting.round.max(offer.round);
        if is_newer && self.meeting.is_known {
            // This round is the next: no need to begin one as well.
            self.schedule(now);
            self.tell(now);
        }
        if self.role == PathRole::Dialler || self.meeting.is_told {
            self.knock(now);
        }
        self.refresh(now);
    }

    /// Tells this end's addresses.
    fn tell(&mut self, now: Instant) {
        if self.keys.is_none() || !self.config.direct {
            return;
        }
        self.meeting.is_told = true;
        let PunchingRounds { candidates, mapping, round, .. } = self.meeting.clone();
        self.actions.push_back(PathAction::Candidates(CandidateOffer {
            candidates,
            mapping,
            round,
        }));
        if self.meeting.next.is_none() {
            self.schedule(now);
        }
        if self.role == PathRole::Acceptor && self.meeting.theirs.is_some() {
            self.knock(now);
        }
    }

    /// The next round: soon after the first, ever more slowly, and then once a minute.
    fn schedule(&mut self, now: Instant) {
        let (least, most) = UPGRADE;
        let wait = match RETRIES.get(self.meeting.attempts as usize) {
            Some(seconds) => Duration::from_secs(*seconds),
            None => between(least, most, &mut self.rng),
        };
        self.meeting.attempts = self.meeting.attempts.saturating_add(1);
        self.meeting.next = Some(now + wait);
    }

    /// Knocks at every address of the peer that does not answer.
    fn knock(&mut self, now: Instant) {
        let is_early = self.meeting.attempts <= 2;
        for way in self.ways.direct() {
            let is_recent =
                way.knocked.is_some_and(|at| now.saturating_duration_since(at) < KNOCK_SPACING);
            if way.obstacle == Some(Obstacle::Unsendable) {
                way.obstacle = None;
            }
            let is_told = way.is_offered || way.is_validated();
            if !is_told || is_recent || way.track.is_answering() {
                continue;
            }
            match way.obstacle {
                None => way.track.knock(now),
                // A NAT that maps so and lets in everybody is rare; it costs three probes, twice.
                Some(Obstacle::CannotMeet) if is_early => way.track.knock_briefly(now),
                Some(Obstacle::CannotMeet | Obstacle::Unsendable) => continue,
            }
            way.knocked = Some(now);
        }
        if self.meeting.next.is_none() {
            self.schedule(now);
        }
    }

    /// A direct way is wanted now.
    pub(super) fn seek(&mut self, now: Instant) {
        if !self.meeting.is_told {
            return;
        }
        let soonest = self.meeting.begun.map_or(now, |begun| now.max(begun + SEEK_SPACING));
        self.meeting.attempts = 0;
        self.meeting.next = Some(soonest);
    }

    /// Begins the next round, if it is time and a direct way is missing.
    pub(super) fn meet_on_time(&mut self, now: Instant) {
        if self.meeting.next.is_none_or(|at| at > now) {
            return;
        }
        if self.select.is_direct() && self.select.suspect_since().is_none() {
            self.meeting.next = None;
            return;
        }
        self.schedule(now);
        self.meeting.begun = Some(now);
        self.meeting.round = self.meeting.round.saturating_add(1);
        self.tell(now);
    }

    /// Says which addresses cannot work.
    fn judge(&mut self) {
        let theirs = self.meeting.theirs.map_or(Mapping::Unknown, |(mapping, _)| mapping);
        let can_meet = self.meeting.mapping.can_meet(theirs);
        for way in self.ways.direct().filter(|way| way.kind == Some(CandidateType::Reflexive)) {
            if !can_meet && !way.track.is_answering() {
                way.obstacle = Some(Obstacle::CannotMeet);
                way.track.shorten();
            } else if way.obstacle == Some(Obstacle::CannotMeet) {
                way.obstacle = None;
            }
        }
    }
}
