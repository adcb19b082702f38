//! Moving from one way to another: because it is better, or because the one in use has failed.
//!
//! It decides when, and what happens to the packets that are under way. What is better is decided
//! in `score`, whether a way answers in `select`.

use std::time::{Duration, Instant};

use super::candidate::CandidateType;
use super::liveness::{SilenceLimits, is_same};
use super::path_set::PathState;
use super::probe_track::{ProbeTrack, RttSample};
use super::reorder;
use super::resend::ANSWER_SLACK;
use super::score::{Agreed, PathClass, PathHealth, PathQuality, Score, is_worse};
use super::{PathAction, PathReason, PathRole, Paths};
use crate::id::Channel;
use crate::transmit::{NextHop, Route};

/// The least time between two changes among ways that all work: six a minute.
const DWELL: Duration = Duration::from_secs(10);
/// The time from leaving a direct way to the next round of knocking, unless one is asked for.
const UPGRADE: Duration = Duration::from_secs(60);
/// Packets from an address that has not answered for which one probe may go there. The least packet
/// of QUIC with an 8-byte id has 29 bytes (RFC 9001 §5.4.2), so that never more goes out than came.
const BATCHES_PER_PROBE: u32 = 3;
/// Answers of a direct way before it may be found worse than a relay.
const GRADED: u32 = 8;

impl Paths {
    /// Another relay leads to the peer as well.
    pub fn add_relayed(&mut self, channel: Channel, now: Instant) {
        let (now, via) = (self.advance(now), NextHop::Relayed(channel));
        if !self.ways.add_relayed(via, now) {
            return;
        }
        if self.keys.is_some()
            && let Some(way) = self.ways.all.last_mut()
        {
            way.track.pull(now);
        }
        if self.select.in_use().is_none() {
            self.switch(via, PathReason::OnlyWay, false, now);
        }
        self.refresh(now);
    }

    /// That relay does not lead to the peer any more. If it was in use, another way is used at
    /// once; if there is none, packets wait for the next.
    pub fn remove_relayed(&mut self, channel: Channel, now: Instant) {
        let (now, via) = (self.advance(now), NextHop::Relayed(channel));
        self.ways.all.retain(|way| !is_same(way.via, via));
        if self.select.is_in_use(via) && !self.fail_over(PathReason::RelayLost, now) {
            self.select.move_to(None, now);
            self.reason = PathReason::NoWay;
            self.hold.close_without_a_way();
        }
        self.refresh(now);
    }

    /// The host is in another network, or its addresses have changed: the direct way in use is
    /// doubted, and new ones are sought at once.
    pub fn on_network_changed(&mut self, now: Instant) {
        let now = self.advance(now);
        self.select.forgive();
        self.ways.direct().for_each(|way| way.track.restart());
        if self.keys.is_some() {
            self.probe_relayed(now);
            if self.select.is_direct() {
                self.select.doubt(now);
                self.ping_in_use(now);
            }
            self.seek(now);
        }
        self.refresh(now);
    }

    /// The system could not send to that address.
    pub fn on_send_failed(&mut self, route: Route, now: Instant) {
        let (now, via) = (self.advance(now), NextHop::Direct(route));
        if self.select.is_in_use(via) {
            self.select.doubt(now);
        } else if let Some(at) = self.ways.find(via) {
            self.ways.all[at].obstacle = Some(super::path_set::Obstacle::Unsendable);
            self.ways.all[at].track.stop();
        }
        self.refresh(now);
    }

    /// Packets of the connection came by a way that is not in use.
    #[cold]
    pub(super) fn on_received_elsewhere(&mut self, via: NextHop, now: Instant) {
        let now = self.advance(now);
        let Some(at) = self.way_of(via, now) else { return };
        let way = &mut self.ways.all[at];
        way.track.heard = Some(now);
        way.moved_here.get_or_insert(now);
        if self.keys.is_some() && way.is_direct() && !way.is_validated() {
            way.batches += 1;
            if way.batches >= BATCHES_PER_PROBE {
                way.batches = 0;
                way.track.pull(now);
            }
        }
        self.consider(now);
        self.refresh(now);
    }

    /// The way by which something authentic came; a new one, if it came from an unknown address.
    pub(super) fn way_of(&mut self, via: NextHop, now: Instant) -> Option<usize> {
        match via {
            NextHop::Relayed(_) => self.ways.find(via),
            NextHop::Direct(_) if !self.config.direct => None,
            NextHop::Direct(Route { remote, .. }) => {
                self.ways.direct_to(remote, CandidateType::PeerReflexive, self.select.in_use(), now)
            }
        }
    }

    /// Moves to a better way, if there is one.
    pub(super) fn consider(&mut self, now: Instant) {
        let (Some(_), Some(present)) = (&self.keys, self.in_use()) else { return };
        let (present_class, present_score) = (present.class(), self.score(present));
        if let Some(to) = self.where_the_peer_moved() {
            for way in &mut self.ways.all {
                way.is_used_by_peer = is_same(way.via, to);
            }
            self.switch(to, PathReason::PeerMoved, false, now);
            return;
        }
        self.grade();
        let choosable = self.ways.all.iter().filter(|way| self.is_choosable(way, now));
        let Some(best) = choosable.min_by_key(|way| self.score(way)) else { return };
        let (to, score) = (best.via, self.score(best));
        let present_score = self.in_use().map_or(present_score, |way| self.score(way));
        if !score.is_worth_leaving(&present_score) {
            return;
        }
        let reason = match (present_score.standing, score.class, score.agreed) {
            (PathHealth::Silent, _, _) => PathReason::Silent,
            (PathHealth::Worse, PathClass::Relayed, _) => PathReason::DirectWorse,
            (_, PathClass::Direct, _) if present_class == PathClass::Relayed => {
                PathReason::DirectProven
            }
            (_, _, Agreement::Yes) => PathReason::Agreed,
            (_, _, Agreement::No) => PathReason::Faster,
        };
        // The dialler dwells, and with it whoever follows.
        let is_urgent =
            matches!(reason, PathReason::Silent | PathReason::DirectProven | PathReason::Agreed);
        if !is_urgent && now.saturating_duration_since(self.select.since()) < DWELL {
            return;
        }
        if reason == PathReason::DirectWorse {
            self.select.on_failure(now);
        } else if reason == PathReason::Silent {
            self.give_up_in_use();
        }
        self.switch(to, reason, reason != PathReason::Silent, now);
    }

    /// What was proven of the way in use says nothing any more.
    fn give_up_in_use(&mut self) {
        if let Some(at) = self.select.in_use().and_then(|via| self.ways.find(via)) {
            self.ways.all[at].has_died = true;
            self.ways.all[at].track.restart();
        }
    }

    /// Whether a way that is not in use may be chosen.
    fn is_choosable(&self, way: &PathState, now: Instant) -> bool {
        if self.select.is_in_use(way.via) || !way.is_proven() {
            return false;
        }
        if let Some(doubted) = self.select.suspect_since() {
            // What was proven before may have failed as well; a relay waits for the verdict, since
            // copies go there already.
            return way.is_direct() && way.track.last_answer.is_some_and(|at| at > doubted);
        }
        let is_held_off = !self.select.is_direct() && self.select.held_off_until(now).is_some();
        // The dialler, which leads, has waited as long as it had to.
        let follows = self.role == PathRole::Acceptor && way.is_used_by_peer;
        !(way.is_direct() && is_held_off && !follows)
    }

    fn score(&self, way: &PathState) -> Score {
        let is_suspect = self.select.is_in_use(way.via) && self.select.suspect_since().is_some();
        let is_agreed = self.role == PathRole::Acceptor && way.is_used_by_peer;
        // What is agreed the dialler leaves first: by two ways at once, each end would miss the other.
        let standing = if is_suspect {
            PathHealth::Silent
        } else if way.is_worse && !is_agreed {
            PathHealth::Worse
        } else {
            PathHealth::Sound
        };
        Score {
            standing,
            class: way.class(),
            agreed: if is_agreed { Agreement::Yes } else { Agreement::No },
            latency: way.track.smoothed().unwrap_or_else(|| self.rtt()),
        }
    }

    /// Says of each direct way whether it is really worse than the best relayed one.
    fn grade(&mut self) {
        let figures = |way: &PathState| {
            way.track.smoothed().map(|latency| PathQuality { latency, loss: way.track.loss() })
        };
        let relayed = self.ways.all.iter().filter(|way| !way.is_direct() && way.is_proven());
        let best = relayed.filter_map(figures).min_by_key(|it| it.latency);
        for way in self.ways.direct() {
            let of = figures(way).filter(|it| it.loss.1 >= GRADED);
            way.is_worse = match (of, best) {
                (Some(direct), Some(relayed)) => is_worse(direct, relayed, way.is_worse),
                (Some(_) | None, _) => way.is_worse && best.is_some(),
            };
        }
    }

    /// Where the peer's packets come from since its address has changed: an address that was unknown
    /// when the way in use was chosen, from which packets come and where it has answered, while
    /// nothing came by the way in use.
    fn where_the_peer_moved(&self) -> Option<NextHop> {
        let Some(NextHop::Direct(_)) = self.select.in_use() else { return None };
        let is_new = |way: &&PathState| {
            way.kind == Some(CandidateType::PeerReflexive)
                && way.created > self.select.since()
                && way.track.streak > 0
        };
        let is_moved = |way: &&PathState| {
            way.moved_here.is_some_and(|at| self.select.heard().is_none_or(|heard| heard < at))
        };
        self.ways.all.iter().filter(is_new).find(is_moved).map(|way| way.via)
    }

    /// The way that would be used without the one in use: a relayed one where there is one, since
    /// what ends one direct way most often ends them all; one that answers first.
    pub(super) fn standby(&self) -> Option<NextHop> {
        let is_usable = |way: &&PathState| {
            !self.select.is_in_use(way.via) && (!way.is_direct() || way.is_proven())
        };
        let rank = |way: &&PathState| {
            let latency = way.track.smoothed().unwrap_or(Duration::MAX);
            (way.is_direct(), !way.track.is_answering(), latency)
        };
        self.ways.all.iter().filter(is_usable).min_by_key(rank).map(|way| way.via)
    }

    /// Leaves the way in use, which has failed. Gives whether there was another.
    pub(super) fn fail_over(&mut self, reason: PathReason, now: Instant) -> bool {
        let Some(to) = self.standby() else { return false };
        // From a relay that is silent to one that was never heard would be no better.
        let is_heard = self.ways.get(to).is_some_and(|way| way.track.is_answering());
        if reason == PathReason::Silent && !self.select.is_direct() && !is_heard {
            return false;
        }
        let was_direct = self.select.is_direct();
        if was_direct {
            if reason == PathReason::Silent {
                self.left = (self.left + 1) % 16;
            }
            self.select.on_failure(now);
            for way in self.ways.direct().filter(|way| !is_same(way.via, to)) {
                way.has_died |= way.track.answered > 0;
                way.track.restart();
                way.track.stop();
            }
        } else {
            self.give_up_in_use();
        }
        self.switch(to, reason, false, now);
        if was_direct {
            self.tell_by_relays(now);
            self.seek(now);
        }
        true
    }

    /// Tells the peer at once, by every relay, that it is not heard directly.
    pub(super) fn tell_by_relays(&mut self, now: Instant) {
        for at in 0..self.ways.all.len() {
            if !self.ways.all[at].is_direct() {
                self.ping(at, now);
            }
        }
    }

    /// Uses `to`. At a planned change, packets wait until those before them have arrived; otherwise
    /// those that may be lost are sent again first.
    pub(super) fn switch(&mut self, to: NextHop, reason: PathReason, planned: bool, now: Instant) {
        let from = self.select.in_use();
        if planned {
            let track = |via| self.ways.get(via).map(|way| &way.track);
            let unknown = RttSample { round_trip: self.rtt(), there: None };
            let old = from.and_then(track).and_then(ProbeTrack::latest).unwrap_or(unknown);
            let new = track(to).and_then(ProbeTrack::quickest).unwrap_or(unknown);
            let smoothed = self.srtt.unwrap_or(old.round_trip);
            let least = from.and_then(track).and_then(ProbeTrack::least).unwrap_or(old.round_trip);
            self.hold.close(reorder::wait(old, new, smoothed, least, self.config.hold), now);
            self.replay.forget();
        } else {
            let lost = self.replay.take();
            self.hold.put_first(lost, now);
        }
        self.select.move_to(Some(to), now);
        self.reason = reason;
        self.counters.switches += 1;
        self.actions.push_back(PathAction::Changed { from, to, reason, planned });
        let was_direct = matches!(from, Some(NextHop::Direct(_)));
        if !planned && was_direct && matches!(to, NextHop::Relayed(_)) {
            self.actions.push_back(PathAction::Shrink);
        }
        if self.meeting.theirs.is_some() && !self.select.is_direct() {
            self.meeting.next.get_or_insert(now + UPGRADE);
        }
        for way in &mut self.ways.all {
            way.moved_here = None;
            if self.keys.is_some() && is_same(way.via, to) {
                way.track.pull(now);
            }
        }
        self.refresh(now);
    }

    /// The way in use is in doubt: what was sent lately goes by another as well. A connection that
    /// waits for an answer may send nothing of its own for a while.
    #[cold]
    fn send_again(&mut self, via: NextHop) {
        for held in self.replay.take() {
            let (bytes, segment_size) = (held.bytes, held.segment_size);
            self.actions.push_back(PathAction::Packets { via, bytes, segment_size });
        }
    }

    /// Brings up to date what is kept for the hot path.
    pub(super) fn refresh(&mut self, now: Instant) {
        let rtt = self.rtt();
        self.answer = rtt + ANSWER_SLACK;
        let (suspect_after, dead_after) = (self.config.suspect_after, self.config.dead_after);
        self.select.set_patience(SilenceLimits::new(rtt, suspect_after, dead_after));
        let standby = self.keys.as_ref().and_then(|_| self.standby());
        self.replay.set_on(standby.is_some());
        let copy = standby.filter(|_| self.select.suspect_since().is_some());
        if let (None, Some(via)) = (self.copy, copy) {
            self.send_again(via);
        }
        self.copy = copy;
        let is_waiting = self.ways.all.iter().any(|way| way.is_direct() && way.is_proven());
        let held_off = self.select.held_off_until(now).filter(|_| is_waiting);
        let probes = self.ways.all.iter().filter_map(|way| way.track.next);
        let probes = self.keys.as_ref().and_then(|_| probes.min());
        let round = self.keys.as_ref().and(self.meeting.next);
        self.wake = [probes, round, held_off].into_iter().flatten().min();
    }
}
