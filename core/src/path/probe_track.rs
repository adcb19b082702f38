//! The probes of one path: when the next is due, which are unanswered, and what the answers
//! measure.
//!
//! It decides the schedule of a punching round, what counts as a miss, and the figures of a path:
//! latency and loss. It never decides which path is active, and never builds a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When the probes of one punching round are sent, in milliseconds from its beginning: dense at
/// first, since both ends begin within half a round trip of each other, and over in four seconds,
/// when no NAT is still setting up its mapping.
pub(super) const PUNCHES: [u64; 9] = [0, 33, 66, 133, 266, 533, 1066, 2133, 4000];

/// How many of them are sent where success is unlikely.
const UNLIKELY_PUNCHES: usize = 3;

/// Good answers in a row before a path may be selected: the second shows that the first was no
/// chance.
pub(super) const PROVEN: u32 = 2;
/// The same after the path had failed.
pub(super) const PROVEN_AGAIN: u32 = 3;
/// Misses in a row after which a path that is not active counts as silent.
const SILENT: u32 = 3;

/// Unanswered probes that are remembered: eight at the densest schedule are half a second, and an
/// answer after that is no good answer.
const PENDING: usize = 8;
/// Round trips of which the least is taken.
const SAMPLES: usize = 16;
/// Round trips of which the quickest is taken where clocks are compared: 20 s under traffic, in
/// which two clocks that differ by fifty parts in a million drift apart by 1 ms.
const QUICKEST_OF: usize = 4;
/// Probes of which the lost share is taken.
const LOSS_WINDOW: u32 = 32;
/// The least time for an answer, and the time for it while no round trip is known.
const ANSWER_FLOOR: Duration = Duration::from_millis(150);
const ANSWER_UNKNOWN: Duration = Duration::from_secs(1);

/// Why a probe is sent, and so what its loss shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbePurpose {
    /// It is due by the pace of its path: its loss counts for the share that is lost.
    Paced,
    /// Something made the path doubtful. Such probes come in bursts at the worst moments, so that
    /// they would exaggerate the share that is lost.
    Doubt,
    /// A verdict waits for it, or it reports one. These are few, and never held back.
    Verdict,
    /// It asks for the packet size. Its loss does not show that the path is silent.
    Size,
}

#[derive(Debug, Clone, Copy)]
struct PendingProbe {
    transaction: u64,
    sent: Instant,
    purpose: ProbePurpose,
    is_missed: bool,
}

/// What an answer measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RttSample {
    pub(super) round_trip: Duration,
    /// When the peer answered minus when the probe was sent, in microseconds, each by its own
    /// clock: the one-way delay plus the offset between the clocks. The offset is the same on every
    /// path, so that two paths compare.
    pub(super) there: Option<i64>,
}

/// The probes of one path.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeTrack {
    pending: VecDeque<PendingProbe>,
    /// The punching round that is under way: its beginning, and the step last sent.
    round: Option<(Instant, usize)>,
    /// How many probes a round has.
    punches: usize,
    /// Whether it has answered since it was new.
    is_open: bool,
    next: Option<Instant>,
    sent: u64,
    answered: u64,
    streak: u32,
    misses: u32,
    last_sent: Option<Instant>,
    last_answer: Option<Instant>,
    /// When the latest of the answered probes was sent.
    answered_sent: Option<Instant>,
    smoothed: Option<Duration>,
    samples: VecDeque<RttSample>,
    /// One bit for each probe that was answered in time or missed, the latest lowest: 1 is a miss.
    history: u32,
    counted: u32,
}

impl ProbeTrack {
    /// Begins a punching round.
    pub(super) const fn punch(&mut self, now: Instant) {
        self.round = Some((now, 0));
        self.punches = PUNCHES.len();
        self.next = Some(now);
    }

    /// Begins a round where success is unlikely: three probes, in case one is lost.
    pub(super) const fn punch_briefly(&mut self, now: Instant) {
        self.punch(now);
        self.shorten();
    }

    /// Shortens the rest of the round: success has become unlikely.
    pub(super) const fn shorten(&mut self) {
        self.punches = UNLIKELY_PUNCHES;
    }

    /// Ends the round, and sends no further probe.
    pub(super) const fn stop(&mut self) {
        self.round = None;
        self.next = None;
    }

    pub(super) const fn is_punching(&self) -> bool {
        self.round.is_some()
    }

    /// Returns when the next probe is due.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Sets when the next probe is due.
    pub(super) const fn set_next(&mut self, at: Option<Instant>) {
        self.next = at;
    }

    /// Makes the next probe due at `at`, or earlier if it was.
    pub(super) fn pull(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Counts a sent probe. Without a punching round the next follows after `pace`, if there is
    /// one.
    pub(super) fn on_sent(
        &mut self,
        transaction: u64,
        purpose: ProbePurpose,
        pace: Option<Duration>,
        now: Instant,
    ) {
        self.expire(now);
        if self.pending.len() == PENDING
            && let Some(oldest) = self.pending.pop_front()
            && !oldest.is_missed
        {
            self.miss(oldest.purpose);
        }
        let is_missed = false;
        self.pending.push_back(PendingProbe { transaction, sent: now, purpose, is_missed });
        self.sent += 1;
        self.last_sent = Some(now);
        self.next = self.next_punch(now).or_else(|| pace.map(|pace| now + pace));
    }

    /// Returns the next punch after `now`: those that a late caller missed are left out.
    fn next_punch(&mut self, now: Instant) -> Option<Instant> {
        let (began, done) = self.round?;
        let later = PUNCHES.iter().enumerate().take(self.punches).skip(done + 1);
        let mut later = later.map(|(step, &ms)| (step, began + Duration::from_millis(ms)));
        let next = later.find(|&(_, at)| at > now);
        self.round = next.map(|(step, _)| (began, step));
        next.map(|(_, at)| at)
    }

    /// Counts the answer to the probe of that transaction. Returns its round trip if the probe was
    /// sent on this path and not answered before.
    pub(super) fn on_answer(&mut self, transaction: u64, now: Instant) -> Option<Duration> {
        let at = self.pending.iter().position(|it| it.transaction == transaction)?;
        let answered = self.pending.remove(at)?;
        let took = now.saturating_duration_since(answered.sent);
        let is_good = !answered.is_missed && took <= self.answer_within();
        if self.streak == 0 {
            // Probes sent before the path was open show nothing about it.
            self.pending.retain(|it| it.transaction > transaction);
        }
        self.answered += 1;
        self.last_answer = Some(now);
        self.answered_sent = self.answered_sent.max(Some(answered.sent));
        self.record(took);
        if is_good {
            self.streak = self.streak.saturating_add(1);
            self.count(answered.purpose, false);
        } else if !answered.is_missed {
            self.miss(answered.purpose);
        }
        self.misses = 0;
        self.round = None;
        Some(took)
    }

    fn record(&mut self, took: Duration) {
        if !self.is_open {
            self.is_open = true;
            self.smoothed = None;
            self.samples.clear();
        }
        self.smoothed = Some(self.smoothed.map_or(took, |old| (old * 7 + took) / 8));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(RttSample { round_trip: took, there: None });
    }

    /// Adds to the latest answer what the two clocks measured, see [`RttSample`].
    pub(super) fn note_there(&mut self, there: i64) {
        if let Some(latest) = self.samples.back_mut() {
            latest.there = Some(there);
        }
    }

    /// Counts the probes whose time for an answer is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let within = self.answer_within();
        for at in 0..self.pending.len() {
            let Some(it) = self.pending.get_mut(at) else { break };
            if !it.is_missed && now.saturating_duration_since(it.sent) > within {
                it.is_missed = true;
                let purpose = it.purpose;
                self.miss(purpose);
            }
        }
    }

    fn miss(&mut self, purpose: ProbePurpose) {
        if purpose == ProbePurpose::Size {
            return;
        }
        self.streak = 0;
        self.misses = self.misses.saturating_add(1);
        // Before the path is open, or open again, its silence shows nothing of its quality.
        if self.is_open {
            self.count(purpose, true);
        }
    }

    fn count(&mut self, purpose: ProbePurpose, is_miss: bool) {
        if purpose != ProbePurpose::Paced {
            return;
        }
        self.history = (self.history << 1) | u32::from(is_miss);
        self.counted = (self.counted + 1).min(LOSS_WINDOW);
    }

    /// The losses so far had a cause that is over, such as a NAT that lost its mapping.
    pub(super) const fn forgive(&mut self) {
        (self.history, self.counted) = (0, 0);
    }

    /// Starts over: earlier counts show nothing of what follows. Its round trips stay until there
    /// is another.
    pub(super) fn restart(&mut self) {
        self.pending.clear();
        self.is_open = false;
        (self.streak, self.misses) = (0, 0);
        (self.history, self.counted) = (0, 0);
    }

    /// Returns the time within which an answer is good: three round trips.
    pub(super) fn answer_within(&self) -> Duration {
        self.smoothed.map_or(ANSWER_UNKNOWN, |rtt| (rtt * 3).max(ANSWER_FLOOR))
    }

    /// Returns how many probes were sent.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns how many answers came.
    pub(super) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Returns how many good answers came in a row.
    pub(super) const fn streak(&self) -> u32 {
        self.streak
    }

    /// Returns how many probes in a row were missed.
    pub(super) const fn misses(&self) -> u32 {
        self.misses
    }

    pub(super) const fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    /// Returns when the latest of the answered probes was sent.
    pub(super) const fn answered_sent(&self) -> Option<Instant> {
        self.answered_sent
    }

    pub(super) const fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    /// Returns the smoothed round trip (RFC 6298 §2).
    pub(super) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns the least of the latest round trips.
    pub(super) fn least(&self) -> Option<Duration> {
        self.samples.iter().map(|it| it.round_trip).min()
    }

    /// Returns what the latest answer measured.
    pub(super) fn latest(&self) -> Option<RttSample> {
        self.samples.back().copied()
    }

    /// Returns the quickest of the latest few: what the path takes when nothing queues there. Of
    /// few, since two clocks drift apart.
    pub(super) fn quickest(&self) -> Option<RttSample> {
        self.samples.iter().rev().take(QUICKEST_OF).min_by_key(|it| it.round_trip).copied()
    }

    /// Returns the share of the latest probes that was not answered in time, 0 to 1, and of how
    /// many.
    pub(super) fn loss(&self) -> (f64, u32) {
        if self.counted == 0 {
            return (0.0, 0);
        }
        (f64::from(self.history.count_ones()) / f64::from(self.counted), self.counted)
    }

    /// Returns how many probes are remembered as unanswered.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns true if it has answered since it was new, and has not fallen silent since.
    pub(super) const fn is_answering(&self) -> bool {
        self.is_open && self.misses < SILENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends all that is due until `end`, answering nothing; returns the times since `start`.
    fn punch_until(track: &mut ProbeTrack, start: Instant, end: Instant) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(at) = track.next.filter(|&at| at <= end) {
            track.on_sent(sent.len() as u64, ProbePurpose::Paced, None, at);
            sent.push(u64::try_from((at - start).as_millis()).unwrap());
        }
        sent
    }

    #[test]
    fn a_punching_round_has_nine_probes_within_four_seconds() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        track.punch(start);
        assert_eq!(punch_until(&mut track, start, start + ms(60_000)), PUNCHES);
        assert_eq!((track.next, track.is_punching()), (None, false));
    }

    #[test]
    fn punches_missed_while_asleep_are_not_made_up_for() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        track.punch(start);
        track.on_sent(1, ProbePurpose::Paced, None, start + ms(1066));
        assert_eq!(track.next, Some(start + ms(2133)));
    }

    #[test]
    fn probes_lost_before_the_path_opened_do_not_count() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        (0..3).for_each(|i| track.on_sent(i, ProbePurpose::Paced, None, start + ms(33 * i)));
        assert_eq!(track.on_answer(2, start + ms(86)), Some(ms(20)));
        track.expire(start + ms(10_000));
        assert_eq!((track.streak, track.misses, track.loss()), (1, 0, (0.0, 1)));
    }

    #[test]
    fn an_answer_is_good_exactly_at_its_limit_and_late_past_it() {
        for (took, streak) in [(ms(1000), 1), (ms(1000) + NANO, 0)] {
            let start = anchor();
            let mut track = ProbeTrack::default();
            track.on_sent(1, ProbePurpose::Paced, None, start);
            assert_eq!(track.on_answer(1, start + took), Some(took));
            assert_eq!((track.streak, track.answered), (streak, 1));
        }
    }

    #[test]
    fn an_answer_counts_once_and_only_if_it_was_asked_for() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        track.on_sent(1, ProbePurpose::Paced, None, start);
        assert_eq!(track.on_answer(2, start), None);
        assert!(track.on_answer(1, start).is_some());
        assert_eq!(track.on_answer(1, start), None);
    }

    #[test]
    fn one_miss_ends_the_streak_and_three_are_silence() {
        let mut now = anchor();
        let mut track = ProbeTrack::default();
        for i in 0..2 {
            track.on_sent(i, ProbePurpose::Paced, None, now);
            track.on_answer(i, now + ms(20)).unwrap();
        }
        assert_eq!(track.streak, 2);
        for i in 2..5 {
            assert!(track.is_answering());
            track.on_sent(i, ProbePurpose::Paced, None, now);
            now += ms(150) + NANO;
            track.expire(now);
        }
        assert_eq!((track.streak, track.misses, track.is_answering()), (0, 3, false));
        assert_eq!(track.loss(), (0.6, 5));
    }

    #[test]
    fn a_probe_is_missed_past_three_round_trips_and_not_at_them() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        track.on_sent(1, ProbePurpose::Paced, None, start);
        track.on_answer(1, start + ms(100)).unwrap();
        track.on_sent(2, ProbePurpose::Paced, None, start);
        track.expire(start + ms(300));
        assert_eq!(track.misses, 0);
        track.expire(start + ms(300) + NANO);
        track.expire(start + ms(300) + NANO);
        assert_eq!(track.misses, 1);
    }

    #[test]
    fn eight_probes_are_remembered_and_the_ninth_forgets_the_first() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        (0..9).for_each(|i| track.on_sent(i, ProbePurpose::Paced, None, start));
        assert_eq!((track.pending(), track.misses), (8, 1));
        assert_eq!(track.on_answer(0, start), None);
        assert!(track.on_answer(8, start).is_some());
    }

    #[test]
    fn a_restarted_path_is_proven_and_measured_again() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        track.on_sent(1, ProbePurpose::Paced, None, start);
        track.on_answer(1, start + ms(20)).unwrap();
        track.on_sent(2, ProbePurpose::Paced, None, start);
        track.restart();
        assert_eq!((track.is_answering(), track.streak, track.pending()), (false, 0, 0));
        assert_eq!(track.smoothed(), Some(ms(20)));
        assert_eq!(track.on_answer(2, start), None);
        track.on_sent(3, ProbePurpose::Paced, None, start);
        track.on_answer(3, start + ms(80)).unwrap();
        assert_eq!((track.smoothed(), track.least()), (Some(ms(80)), Some(ms(80))));
    }

    #[test]
    fn figures_look_back_over_the_latest_probes_only() {
        let start = anchor();
        let mut track = ProbeTrack::default();
        for i in 0..40 {
            track.on_sent(i, ProbePurpose::Paced, None, start);
            track.on_answer(i, start + if i == 0 { ms(1) } else { ms(20) }).unwrap();
        }
        assert_eq!((track.least(), track.loss()), (Some(ms(20)), (0.0, 32)));
    }
}
