//! Probes of one connection: which are sent and answered, what they advertise, and which of the
//! peer's count.
//!
//! It decides whether a probe is genuine and new, and how soon each path is probed again. Without
//! the keys a sender causes nothing but a counter that grows; a peer is sent no more bytes than it
//! sends, at a bounded rate. It never selects a path.

use std::time::{Duration, Instant};

use super::action::PathAction;
use super::context::PathContext;
use super::liveness::ActivePath;
use super::path_state::PathState;
use super::probe_flags::ProbeFlags;
use super::probe_pacing::ProbePacing;
use super::probe_track::{PROVEN_AGAIN, ProbePurpose};
use super::replay_window::{Freshness, ReplayWindow};
use crate::probe::{Probe, ProbeKey, ProbeKind};
use crate::rng::Rng;
use crate::token_bucket::{Bucket, Rate};
use crate::transmit::NextHop;

/// Probes that are answered: so many a second, and twice as many in a burst. Two ends that punch at
/// sixteen addresses of each other send 64 within a tenth of a second.
const ANSWERS: u32 = 64;

/// Probes of all paths but the active one: so many a second, and so many in a burst. A punching
/// round at sixteen addresses has 144 in four seconds.
const PROBES: (u32, u32) = (16, 128);

/// The pace at which a path is proven: three of these are less than a person notices.
const PROVING: Duration = Duration::from_millis(200);
/// Probes at that pace that a relayed path gets before it is left to its ordinary pace.
const PROVING_RELAYED: u64 = 8;
/// The pace of a path that has missed one.
const MISSED: Duration = Duration::from_secs(1);

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeOutcome {
    /// A new ping of the peer.
    Ping,
    /// An answer to a ping that was open, from where it was sent to.
    Pong,
    /// This end has no keys yet.
    TooEarly,
    /// No probe, or not the peer's.
    Forged,
    /// One of this end's own.
    Reflected,
    /// The peer's, seen before or too old to decide.
    Replayed,
    /// The peer's, but it came otherwise than it was sent: directly where it was relayed, or the
    /// reverse.
    Displaced,
    /// The peer's: an answer to no open ping or from an unprobed address, a ping from where nothing
    /// may come, or one beyond the rate.
    Stray,
}

/// The tag and the key of each direction.
#[derive(Debug, Clone)]
struct ProbeKeys {
    ours: (u64, ProbeKey),
    theirs: (u64, ProbeKey),
}

/// The probes of one connection.
#[derive(Debug)]
pub(super) struct Prober {
    keys: Option<ProbeKeys>,
    epoch: Instant,
    /// That of our last ping.
    transaction: u64,
    window: ReplayWindow,
    pacing: ProbePacing,
    /// How often this end left a direct path that fell silent.
    left: u8,
    /// What the peer last advertised.
    peer: ProbeFlags,
    answers: Bucket,
    answer_rate: Rate,
    probes: Bucket,
    probe_rate: Rate,
}

impl Prober {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            keys: None,
            epoch: now,
            transaction: 0,
            window: ReplayWindow::default(),
            pacing: ProbePacing::new(now),
            left: 0,
            peer: ProbeFlags::default(),
            answers: Bucket::new(),
            answer_rate: Rate::per_second(ANSWERS, 2 * ANSWERS),
            probes: Bucket::new(),
            probe_rate: Rate::per_second(PROBES.0, PROBES.1),
        }
    }

    pub(super) fn set_keys(&mut self, ours: (u64, ProbeKey), theirs: (u64, ProbeKey)) {
        self.keys = Some(ProbeKeys { ours, theirs });
    }

    /// Returns true once probes can be sent.
    pub(super) const fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Returns what the peer last advertised.
    pub(super) const fn peer(&self) -> ProbeFlags {
        self.peer
    }

    /// Takes what the peer advertises now. Returns true if it has left a direct path since.
    pub(super) const fn set_peer(&mut self, flags: ProbeFlags) -> bool {
        let has_left = flags.left != self.peer.left;
        self.peer = flags;
        has_left
    }

    /// This end leaves a direct path that fell silent, and advertises it.
    pub(super) const fn on_left(&mut self) {
        self.left = (self.left + 1) % 16;
    }

    /// A packet is sent. Returns true if that makes the connection busy: once between two probes.
    #[inline]
    pub(super) const fn on_dispatch(&mut self) -> bool {
        self.pacing.on_dispatch()
    }

    /// The connection has become busy: a probe that waits at a quiet connection's pace is due
    /// sooner.
    pub(super) fn on_busy(&mut self, active: Option<&mut PathState>, rng: &mut Rng, now: Instant) {
        self.pacing.on_busy(now);
        if let Some(path) = active.filter(|_| self.keys.is_some()) {
            let pace = self.pacing.active(rng, now);
            path.pull_probe(now + pace);
        }
    }

    /// Sends a ping on that path, once there are keys and within the rate of probes. If a full-size
    /// probe is due, it goes first, and a small one shows whether the path is silent for both.
    pub(super) fn ping(
        &mut self,
        path: &mut PathState,
        purpose: ProbePurpose,
        active: &mut ActivePath,
        cx: &mut PathContext,
        now: Instant,
    ) {
        let is_doubted = active.is(path.hop()) && !active.is_sound();
        if path.is_full_probe_due(now) && !is_doubted {
            self.ping_once(path, ProbePurpose::Size, active, cx, now);
        }
        self.ping_once(path, purpose, active, cx, now);
    }

    fn ping_once(
        &mut self,
        path: &mut PathState,
        purpose: ProbePurpose,
        active: &mut ActivePath,
        cx: &mut PathContext,
        now: Instant,
    ) {
        let flags = self.flags(path, active).to_byte();
        let sent = self.clock(now);
        let is_held_back = purpose != ProbePurpose::Verdict && !self.may_ping(path, active, now);
        let Some(keys) = self.keys.as_ref().filter(|_| !is_held_back) else { return };
        self.transaction += 1;
        let kind = match purpose {
            ProbePurpose::Size => ProbeKind::FullPing,
            ProbePurpose::Paced | ProbePurpose::Doubt | ProbePurpose::Verdict => ProbeKind::Ping,
        };
        let ping = Probe {
            kind,
            session: keys.ours.0,
            transaction: self.transaction,
            sent,
            observed: None,
            state: flags,
        };
        let via = path.hop();
        cx.push(PathAction::Probe { via, bytes: ping.encode(&keys.ours.1) });
        if active.is(via) {
            active.on_sent(true, now);
            self.pacing.on_probe(now);
        }
        let pace = self.pace(path, active, &mut cx.rng, now);
        path.on_probe_sent(self.transaction, purpose, pace, now);
    }

    /// Returns true if one more ping is within the rates. Otherwise the next is due when it is.
    fn may_ping(&mut self, path: &mut PathState, active: &ActivePath, now: Instant) -> bool {
        if !path.take_probe(now) {
            return false;
        }
        let is_within = active.is(path.hop()) || self.probes.take(1, self.probe_rate, now);
        if !is_within {
            path.postpone_probe(now);
        }
        is_within
    }

    /// Returns the probe that came from `via`, if it is genuine and came as it was sent.
    ///
    /// # Errors
    /// Otherwise, what became of it.
    pub(super) fn open(&self, via: NextHop, bytes: &[u8]) -> Result<Probe, ProbeOutcome> {
        let Some(keys) = &self.keys else { return Err(ProbeOutcome::TooEarly) };
        let session = Probe::session(bytes);
        if session == Some(keys.ours.0) {
            return Err(ProbeOutcome::Reflected);
        }
        if session != Some(keys.theirs.0) {
            return Err(ProbeOutcome::Forged);
        }
        let probe = Probe::decode(bytes, &keys.theirs.1).ok_or(ProbeOutcome::Forged)?;
        if ProbeFlags::from_byte(probe.state).is_direct != via.is_direct() {
            return Err(ProbeOutcome::Displaced);
        }
        Ok(probe)
    }

    /// Returns whether a ping of the peer is new, and counts it as seen.
    pub(super) fn take(&mut self, ping: &Probe) -> Freshness {
        self.window.take(ping.transaction)
    }

    /// Answers a ping on the path by which it came from `via`, or pings back where that is worth
    /// more. Returns false if the peer has had its share of answers.
    pub(super) fn answer(
        &mut self,
        (path, via): (&mut PathState, NextHop),
        ping: &Probe,
        active: &mut ActivePath,
        cx: &mut PathContext,
        now: Instant,
    ) -> bool {
        if cx.is_full() || !self.answers.take(1, self.answer_rate, now) {
            return false;
        }
        if path.is_asked_back(now) {
            self.ping(path, ProbePurpose::Doubt, active, cx, now);
            return true;
        }
        let Some(keys) = &self.keys else { return false };
        let observed = match via {
            NextHop::Direct(route) => Some(route.remote),
            NextHop::Relayed(_) => None,
        };
        let pong = Probe {
            kind: ping.kind.answer(),
            session: keys.ours.0,
            sent: self.clock(now),
            observed,
            state: self.flags(path, active).to_byte(),
            ..*ping
        };
        cx.push(PathAction::Probe { via, bytes: pong.encode(&keys.ours.1) });
        true
    }

    /// Takes the peer's answer on a path. Returns whether the peer sees this end elsewhere than
    /// before, or `None` if the answer is to no open ping.
    pub(super) fn on_pong(
        &mut self,
        path: &mut PathState,
        pong: &Probe,
        active: &ActivePath,
        cx: &mut PathContext,
        now: Instant,
    ) -> Option<bool> {
        let took = path.on_answer(pong.transaction, pong.kind.is_full(), now)?;
        let asked = self.clock(now.checked_sub(took).unwrap_or(now));
        // The two clocks have arbitrary origins: their difference wraps, and differences of it are
        // right.
        let there = pong.sent.wrapping_sub(asked).cast_signed();
        let is_moved = path.note_answer(there, pong.observed);
        if active.is(path.hop()) {
            // The peer has received the ping.
            self.peer.has_one_way_loss = false;
        }
        let pace = self.pace(path, active, &mut cx.rng, now);
        path.schedule_probe(pace, now);
        Some(is_moved)
    }

    /// Returns that time by the clock which probes carry: microseconds since this connection began.
    fn clock(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Returns the time to the next probe of a path; `None` if it is probed in punching rounds
    /// only.
    fn pace(
        &self,
        path: &PathState,
        active: &ActivePath,
        rng: &mut Rng,
        now: Instant,
    ) -> Option<Duration> {
        if active.is(path.hop()) {
            return Some(self.pacing.active(rng, now));
        }
        let track = path.track();
        let is_unproven = track.streak() < PROVEN_AGAIN;
        if !path.is_direct() {
            let is_proving = is_unproven && track.sent() < PROVING_RELAYED;
            let backup = self.pacing.backup(rng, now);
            return Some(if is_proving { PROVING } else { backup });
        }
        match (track.is_answering(), is_unproven, track.misses()) {
            (false, _, _) => None,
            (true, true, 0) => Some(PROVING),
            (true, true, _) => Some(MISSED),
            (true, false, _) => Some(self.pacing.backup(rng, now)),
        }
    }

    /// Returns what a probe on that path advertises of this end.
    fn flags(&self, path: &PathState, active: &ActivePath) -> ProbeFlags {
        ProbeFlags {
            is_direct: path.is_direct(),
            sends_direct: active.is_direct(),
            sends_here: active.is(path.hop()),
            has_one_way_loss: active.is_direct() && active.is_suspect(),
            left: self.left,
        }
    }
}
