//! Probes of the peer, and answers to ours.
//!
//! It decides whether a probe counts and what is sent back. Whoever holds no key causes nothing but
//! a number that grows; whoever does is sent no more bytes than it sends, at a bounded rate.

use std::time::{Duration, Instant};

use super::probe_flags::ProbeFlags;
use super::probe_track::PROVEN_AGAIN;
use super::replay_window::Freshness;
use super::{MAX_ACTIONS, PathAction, PathReason, PathRole, Paths};
use crate::probe::{Probe, ProbeKind};
use crate::transmit::NextHop;

/// The least time between two questions that a way which has not answered yet gets in place of
/// answers: the peer asks again, and both are proven by then.
const ASK_BACK: Duration = Duration::from_millis(100);

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeOutcome {
    /// A new question of the peer.
    Ping,
    /// An answer to a question that was open, from where it was asked.
    Pong,
    /// This end has no keys yet.
    TooEarly,
    /// No probe, or not the peer's.
    Forged,
    /// One of this end's own.
    Reflected,
    /// The peer's, seen before or too old to know.
    Replayed,
    /// The peer's, but it came otherwise than it was sent: bare what was relayed, or the reverse.
    Displaced,
    /// The peer's: an answer that nothing waits for or from where nothing was asked, a question from
    /// where nothing may come, or one too many.
    Stray,
}

impl Paths {
    /// Bytes that may be a probe of this connection came by `via`.
    pub fn handle_probe(&mut self, via: NextHop, bytes: &[u8], now: Instant) -> ProbeOutcome {
        let now = self.advance(now);
        let heard = self.heard(via, bytes, now);
        self.counters.count(heard);
        if matches!(heard, ProbeOutcome::Ping | ProbeOutcome::Pong) {
            self.consider(now);
            self.refresh(now);
        }
        heard
    }

    fn heard(&mut self, via: NextHop, bytes: &[u8], now: Instant) -> ProbeOutcome {
        let Some(keys) = &self.keys else { return ProbeOutcome::TooEarly };
        let session = Probe::session(bytes);
        if session == Some(keys.ours.0) {
            return ProbeOutcome::Reflected;
        }
        if session != Some(keys.theirs.0) {
            return ProbeOutcome::Forged;
        }
        let Some(probe) = Probe::decode(bytes, &keys.theirs.1) else { return ProbeOutcome::Forged };
        if ProbeFlags::from_byte(probe.state).is_bare != matches!(via, NextHop::Direct(_)) {
            return ProbeOutcome::Displaced;
        }
        match probe.kind {
            ProbeKind::Ping => self.on_ping(via, &probe, now),
            ProbeKind::Pong => self.on_pong(via, &probe, now),
        }
    }

    fn on_ping(&mut self, via: NextHop, ping: &Probe, now: Instant) -> ProbeOutcome {
        let freshness = self.window.take(ping.transaction);
        if freshness == Freshness::Old {
            return ProbeOutcome::Replayed;
        }
        let Some(at) = self.way_of(via, now) else { return ProbeOutcome::Stray };
        self.ways.all[at].track.heard = Some(now);
        // It is no answer to what this end sends: the peer may hear nothing, and ask for that reason.
        // Answered before anything follows from it: a failover has its own to send.
        let is_answered = self.answer(via, at, ping, now);
        if freshness == Freshness::Newest {
            self.on_state(at, ProbeFlags::from_byte(ping.state), now);
        }
        if is_answered { ProbeOutcome::Ping } else { ProbeOutcome::Stray }
    }

    /// Answers a ping by the way it came, or asks back where that is worth more.
    fn answer(&mut self, via: NextHop, at: usize, ping: &Probe, now: Instant) -> bool {
        if self.actions.len() >= MAX_ACTIONS || !self.answers.take(1, self.answer_rate, now) {
            return false;
        }
        let way = &self.ways.all[at];
        let is_asked =
            way.track.last_sent.is_some_and(|sent| now.saturating_duration_since(sent) < ASK_BACK);
        if way.is_direct() && !way.track.is_answering() && !is_asked && way.obstacle.is_none() {
            self.ping(at, now);
            return true;
        }
        let state = self.state(at).to_byte();
        let Some(keys) = &self.keys else { return false };
        let observed = match via {
            NextHop::Direct(route) => Some(route.remote),
            NextHop::Relayed(_) => None,
        };
        let kind = ProbeKind::Pong;
        let (session, sent) = (keys.ours.0, self.clock(now));
        let pong = Probe { kind, session, sent, observed, state, ..*ping };
        let bytes = pong.encode(&keys.ours.1);
        self.actions.push_back(PathAction::Probe { via, bytes });
        true
    }

    /// What the peer says of itself; `at` is the way by which it does.
    fn on_state(&mut self, at: usize, state: ProbeFlags, now: Instant) {
        let has_left = state.left != self.peer.left;
        self.peer = state;
        if state.sends_here {
            if !has_left && self.role == PathRole::Acceptor && !self.ways.all[at].is_direct() {
                // The dialler has chosen a relay, and its word on the direct way counts for both.
                self.ways.direct().for_each(|way| way.is_worse |= way.is_used_by_peer);
            }
            self.ways.all.iter_mut().for_each(|way| way.is_used_by_peer = false);
            let via = self.ways.all[at].via;
            let is_in_use = self.select.is_in_use(via);
            let way = &mut self.ways.all[at];
            way.is_used_by_peer = true;
            if !is_in_use {
                way.moved_here.get_or_insert(now);
            }
        } else {
            self.ways.all[at].is_used_by_peer = false;
        }
        if !self.select.is_direct() {
            return;
        }
        if has_left {
            self.fail_over(PathReason::PeerLeft, now);
        } else if state.is_deaf && self.select.suspect_since().is_none() {
            self.select.doubt(now);
            self.ping_in_use(now);
        }
    }

    fn on_pong(&mut self, via: NextHop, pong: &Probe, now: Instant) -> ProbeOutcome {
        let Some(at) = self.ways.find(via) else { return ProbeOutcome::Stray };
        let way = &mut self.ways.all[at];
        let Some(took) = way.track.on_answer(pong.transaction, now) else {
            return ProbeOutcome::Stray;
        };
        let asked = self.clock(now.checked_sub(took).unwrap_or(now));
        let way = &mut self.ways.all[at];
        // Of two clocks that say anything: their difference wraps, and differences of it are right.
        way.track.note_there(pong.sent.wrapping_sub(asked).cast_signed());
        let is_moved =
            way.observed.is_some_and(|before| pong.observed.is_some_and(|it| it != before));
        way.observed = pong.observed.or(way.observed);
        let is_proving = way.track.streak < PROVEN_AGAIN;
        if self.select.is_in_use(via) {
            // The peer has heard the question.
            self.peer.is_deaf = false;
            self.select.on_heard(now);
            self.replay.on_received(self.answer, now);
        }
        let pace = self.pace(at, now).map(|pace| now + pace);
        let way = &mut self.ways.all[at];
        way.track.next = if is_proving { Some(now) } else { pace };
        if is_moved {
            // A NAT may have forgotten this end: until the relays hear it, what they send does not arrive.
            self.probe_relayed(now);
        }
        ProbeOutcome::Pong
    }
}
