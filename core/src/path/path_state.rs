//! What is known of one path: where it leads, how its address became known, and what its probes
//! showed.
//!
//! It decides whether the path is proven, whether it may be punched, and when it is left out. It
//! never compares itself with another path, and never sends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::CandidateType;
use super::packet_size::PacketSize;
use super::probe_track::{PROVEN, PROVEN_AGAIN, ProbePurpose, ProbeTrack};
use super::score::{PathClass, PathQuality, is_worse};
use crate::token_bucket::{Bucket, Rate};
use crate::transmit::NextHop;

/// How long a path is new: as long as one punching round.
const NEW: Duration = Duration::from_secs(4);
/// The least time between two punching rounds at one address, whatever the peer asks for.
const PUNCH_SPACING: Duration = Duration::from_secs(2);
/// The least time between two pings that a path which has not answered yet gets in place of
/// answers: the peer pings again, and both ends have proven the path by then.
const ASK_BACK: Duration = Duration::from_millis(100);
/// Packets from an address that has not answered for which one probe may go there. The least packet
/// of QUIC with an 8-byte id has 29 bytes (RFC 9001 §5.4.2), so that never more goes out than came.
const BATCHES_PER_PROBE: u32 = 3;
/// Probes of one path, whatever the doubt: so many a second, and so many in a burst. A punching
/// round has nine in four seconds, a suspicion five in half a second.
const PROBES: (u32, u32) = (4, 12);
/// Answers of a direct path before it may be found worse than a relay.
const GRADED: u32 = 8;

/// Why a path is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The NATs of both ends use a new port for every destination.
    CannotMeet,
    /// The system cannot send there.
    Unsendable,
}

/// One path.
#[derive(Debug, Clone)]
pub(super) struct PathState {
    hop: NextHop,
    /// How a direct path's address became known; `None` for a relayed path.
    kind: Option<CandidateType>,
    track: ProbeTrack,
    size: PacketSize,
    probes: Bucket,
    /// Whether the peer's latest offer has its address.
    is_offered: bool,
    /// Whether the peer last advertised that it sends its packets here.
    is_used_by_peer: bool,
    is_worse: bool,
    has_failed: bool,
    obstacle: Option<Obstacle>,
    created: Instant,
    punched: Option<Instant>,
    /// Since when the peer sends its packets here, though this is not the active path.
    moved_here: Option<Instant>,
    /// Batches of packets from an address that has not answered yet, since it was last probed.
    batches: u32,
    /// Where the peer sees this end.
    observed: Option<SocketAddr>,
}

impl PathState {
    pub(super) fn new(hop: NextHop, kind: Option<CandidateType>, now: Instant) -> Self {
        Self {
            hop,
            kind,
            track: ProbeTrack::default(),
            size: PacketSize::new(hop.is_direct()),
            probes: Bucket::new(),
            is_offered: false,
            is_used_by_peer: false,
            is_worse: false,
            has_failed: false,
            obstacle: None,
            created: now,
            punched: None,
            moved_here: None,
            batches: 0,
            observed: None,
        }
    }

    pub(super) const fn hop(&self) -> NextHop {
        self.hop
    }

    pub(super) const fn kind(&self) -> Option<CandidateType> {
        self.kind
    }

    pub(super) const fn class(&self) -> PathClass {
        match self.hop {
            NextHop::Direct(_) => PathClass::Direct,
            NextHop::Relayed(_) => PathClass::Relayed,
        }
    }

    pub(super) const fn is_direct(&self) -> bool {
        self.hop.is_direct()
    }

    /// Returns what its probes measured.
    pub(super) const fn track(&self) -> &ProbeTrack {
        &self.track
    }

    /// Returns what is known of its packet sizes.
    pub(super) const fn size(&self) -> &PacketSize {
        &self.size
    }

    /// Returns what is known of its packet sizes, to add to it.
    pub(super) const fn size_mut(&mut self) -> &mut PacketSize {
        &mut self.size
    }

    pub(super) const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    pub(super) const fn created(&self) -> Instant {
        self.created
    }

    pub(super) const fn moved_here(&self) -> Option<Instant> {
        self.moved_here
    }

    /// Returns where the peer sees this end.
    pub(super) const fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    pub(super) const fn is_used_by_peer(&self) -> bool {
        self.is_used_by_peer
    }

    /// Returns true if it was graded as really worse than a relay.
    pub(super) const fn is_worse(&self) -> bool {
        self.is_worse
    }

    /// Returns true if the peer has ever answered there: other addresses are sent no more than they
    /// send (RFC 9000 §8).
    pub(super) const fn is_validated(&self) -> bool {
        self.track.answered() > 0 || !self.is_direct()
    }

    /// Returns true if it has been proven in both directions: an answer shows that the peer
    /// receives from this end there and that this end receives from the peer. One of them had the
    /// size of a packet.
    pub(super) fn is_proven(&self) -> bool {
        let needed = if self.has_failed { PROVEN_AGAIN } else { PROVEN };
        let is_answering = self.track.streak() >= needed && self.size.is_proven();
        self.obstacle != Some(Obstacle::Unsendable) && is_answering
    }

    /// Returns true if a newly learnt path may take its place.
    pub(super) const fn is_spare(&self) -> bool {
        self.is_direct() && !self.is_offered && !self.track.is_answering()
    }

    /// Returns true if it was learnt within one punching round of `now`: the peer may come from
    /// there.
    pub(super) fn is_new(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.created) < NEW
    }

    /// Returns its latency and loss, once a round trip is known.
    pub(super) fn quality(&self) -> Option<PathQuality> {
        let loss = self.track.loss();
        self.track.smoothed().map(|latency| PathQuality { latency, loss })
    }

    /// Returns the least of its latest round trips.
    pub(super) fn least_round_trip(&self) -> Option<Duration> {
        self.track.least()
    }

    /// The peer's latest offer has its address as one of that type.
    pub(super) const fn offer(&mut self, kind: CandidateType) {
        self.is_offered = true;
        self.kind = Some(kind);
    }

    /// A new offer of the peer replaces the one before.
    pub(super) const fn withdraw_offer(&mut self) {
        self.is_offered = false;
    }

    /// Begins a punching round unless it answers, was punched lately or has no hope. `is_early`
    /// holds for the first rounds since there was a reason to hope.
    pub(super) fn punch(&mut self, is_early: bool, now: Instant) {
        let is_recent =
            self.punched.is_some_and(|at| now.saturating_duration_since(at) < PUNCH_SPACING);
        if self.obstacle == Some(Obstacle::Unsendable) {
            self.obstacle = None;
        }
        let is_wanted = self.is_offered || self.is_validated();
        if !is_wanted || is_recent || self.track.is_answering() {
            return;
        }
        match self.obstacle {
            None => self.track.punch(now),
            // A NAT that maps so and filters nothing is rare; it costs three probes, twice.
            Some(Obstacle::CannotMeet) if is_early => self.track.punch_briefly(now),
            Some(Obstacle::CannotMeet | Obstacle::Unsendable) => return,
        }
        self.punched = Some(now);
    }

    /// Notes whether two ends with these NATs can meet at addresses that relays saw.
    pub(super) fn set_can_meet(&mut self, can_meet: bool) {
        if self.kind != Some(CandidateType::Reflexive) {
            return;
        }
        if !can_meet && !self.track.is_answering() {
            self.obstacle = Some(Obstacle::CannotMeet);
            self.track.shorten();
        } else if self.obstacle == Some(Obstacle::CannotMeet) {
            self.obstacle = None;
        }
    }

    /// The system could not send there.
    pub(super) const fn on_unsendable(&mut self) {
        self.obstacle = Some(Obstacle::Unsendable);
        self.track.stop();
    }

    /// Makes the next probe due at `at`, or earlier if it was.
    pub(super) fn pull_probe(&mut self, at: Instant) {
        self.track.pull(at);
    }

    /// Returns true if one more probe is within the rate of the path; otherwise the next is due
    /// when it is.
    pub(super) fn take_probe(&mut self, now: Instant) -> bool {
        let is_within = self.probes.take(1, Rate::per_second(PROBES.0, PROBES.1), now);
        if !is_within {
            self.postpone_probe(now);
        }
        is_within
    }

    /// The next probe, if it is due, waits for as long as one of the rate takes.
    pub(super) fn postpone_probe(&mut self, now: Instant) {
        if self.track.next().is_some_and(|at| at <= now) {
            self.track.set_next(Some(now + Duration::from_secs(1) / PROBES.0));
        }
    }

    /// Returns true if the next probe should have full size: the peer has answered smaller ones.
    pub(super) fn is_full_probe_due(&self, now: Instant) -> bool {
        self.track.is_answering() && self.size.is_due(now)
    }

    pub(super) fn on_probe_sent(
        &mut self,
        transaction: u64,
        purpose: ProbePurpose,
        pace: Option<Duration>,
        now: Instant,
    ) {
        self.track.on_sent(transaction, purpose, pace, now);
        if purpose == ProbePurpose::Size {
            self.size.on_sent(now);
        }
    }

    /// Returns when a probe, or the verdict on one, is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let verdict = self.size.deadline(self.track.answer_within());
        [self.track.next(), verdict].into_iter().flatten().min()
    }

    /// Does what is due. Returns true if a probe is.
    pub(super) fn on_time(&mut self, now: Instant) -> bool {
        if self.size.on_time(self.track.answer_within(), now) {
            self.track.pull(now);
        }
        self.track.next().is_some_and(|at| at <= now)
    }

    /// The connection lost packets while this was the active path.
    pub(super) fn on_loss(&mut self, now: Instant) {
        if self.size.on_loss(now) {
            self.track.pull(now);
        }
    }

    /// Returns true if a ping of the peer is better met by a ping than by an answer.
    pub(super) fn is_asked_back(&self, now: Instant) -> bool {
        let is_asked = self
            .track
            .last_sent()
            .is_some_and(|sent| now.saturating_duration_since(sent) < ASK_BACK);
        self.is_direct() && !self.track.is_answering() && !is_asked && self.obstacle.is_none()
    }

    /// Counts an answer, see [`ProbeTrack::on_answer`].
    pub(super) fn on_answer(
        &mut self,
        transaction: u64,
        is_full: bool,
        now: Instant,
    ) -> Option<Duration> {
        let took = self.track.on_answer(transaction, now)?;
        if is_full {
            self.size.on_carried(now);
        } else {
            self.size.on_small_answer(now.checked_sub(took).unwrap_or(now));
        }
        Some(took)
    }

    /// Notes what the latest answer carried: what the two clocks measured, and where the peer sees
    /// this end. Returns true if that has changed.
    pub(super) fn note_answer(&mut self, there: i64, observed: Option<SocketAddr>) -> bool {
        self.track.note_there(there);
        let is_moved = self.observed.is_some_and(|before| observed.is_some_and(|it| it != before));
        self.observed = observed.or(self.observed);
        if is_moved {
            // What was lost meanwhile shows nothing of the path.
            self.track.forgive();
        }
        is_moved
    }

    /// Sets when the next probe is due: immediately while the path is being proven, else after
    /// `pace`.
    pub(super) fn schedule_probe(&mut self, pace: Option<Duration>, now: Instant) {
        let is_proving = self.track.streak() < PROVEN_AGAIN;
        self.track.set_next(if is_proving { Some(now) } else { pace.map(|pace| now + pace) });
    }

    /// No path was better meanwhile: what was lost so far shows nothing of this one.
    pub(super) const fn forgive(&mut self) {
        self.track.forgive();
    }

    /// Packets of the connection came by this path, which is not the active one. An address that
    /// has not answered is probed once for every few batches, if `may_probe`.
    pub(super) fn on_packets(&mut self, may_probe: bool, now: Instant) {
        self.moved_here.get_or_insert(now);
        if may_probe && self.is_direct() && !self.is_validated() {
            self.batches += 1;
            if self.batches >= BATCHES_PER_PROBE {
                self.batches = 0;
                self.track.pull(now);
            }
        }
    }

    /// The peer advertised whether it sends its packets here.
    pub(super) const fn set_used_by_peer(&mut self, is_used: bool) {
        self.is_used_by_peer = is_used;
    }

    /// The peer sends its packets here, and this is not the active path.
    pub(super) fn on_peer_moved_here(&mut self, now: Instant) {
        self.moved_here.get_or_insert(now);
    }

    /// Another path became active, or this one did.
    pub(super) const fn on_switched(&mut self) {
        self.moved_here = None;
    }

    /// Grades a direct path against the best relayed one.
    pub(super) fn grade(&mut self, relayed: Option<PathQuality>) {
        let own = self.quality().filter(|it| it.loss.1 >= GRADED);
        self.is_worse = match (own, relayed) {
            (Some(direct), Some(relayed)) => is_worse(direct, relayed, self.is_worse),
            (Some(_) | None, _) => self.is_worse && relayed.is_some(),
        };
    }

    /// The peer left it for a relay: its grade holds for both ends.
    pub(super) const fn grade_as_worse(&mut self) {
        self.is_worse = true;
    }

    /// Its probes start over: the network is another one.
    pub(super) fn restart(&mut self) {
        self.track.restart();
        self.size.restart();
    }

    /// It fell silent while active: earlier proofs show nothing any more.
    pub(super) fn fail(&mut self) {
        self.has_failed = true;
        self.restart();
    }

    /// A direct path failed, and this one most likely with it.
    pub(super) fn fail_with_others(&mut self) {
        self.has_failed |= self.track.answered() > 0;
        self.restart();
        self.track.stop();
    }
}
