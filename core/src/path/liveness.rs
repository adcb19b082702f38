//! The active path, and whether it still answers.
//!
//! It decides when silence becomes suspicion and suspicion a verdict, and how soon after a failure
//! a direct path may be selected again. It never decides which other path is best, and never sends.
//!
//! ```text
//!            silence for half      the rest of        the rest of
//!            of suspect_after      suspect_after      dead_after, and
//!                                                     a backup answers
//!   Sound ───────────────> Asked ───────────> Suspect ───────────> leave it
//!     ^                      │                   │
//!     └──────────────────────┴───────────────────┘ anything authentic on this path
//! ```
//!
//! Silence is counted from the first packet that nothing has followed. Each step has its time from
//! the moment of the step before, so that a host that slept probes before it leaves a path.

use std::time::{Duration, Instant};

use super::view::PathReason;
use crate::transmit::NextHop;

/// How long a peer may wait with its acknowledgement (RFC 9000 §18.2, max_ack_delay).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// How long a path may be silent while nothing but probes is sent: no packet waits for an answer,
/// and a burst of loss on an idle link is no reason to leave it.
pub(super) const IDLE_DEAD: Duration = Duration::from_secs(3);
/// The least time between two probes of a suspect path: it is also how late a verdict is that waits
/// for the first packet.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The same once the verdict is clear and no other path answers: at first all paths may have paused
/// together, and later they are down.
const ASK_PAUSED_EVERY: Duration = Duration::from_millis(250);
const ASK_HOPELESS_EVERY: Duration = Duration::from_secs(1);
/// How long paths pause.
const PAUSE: Duration = Duration::from_secs(3);

/// How many seconds a direct path may not be selected after it has failed for the first, second …
/// time: the first failure costs nothing. With these a link that comes and goes causes no more than
/// `MAX_SWITCHES` changes in any minute, and two a minute in the long run.
const HOLD_OFF: [u64; 6] = [0, 5, 10, 20, 40, 60];
/// Changes of path in any minute that a link which comes and goes can cause.
#[cfg(test)]
pub(super) const MAX_SWITCHES: u32 = 12;
/// A direct path that has held this long has no past: twice the longest time that it can be held
/// off.
const FLAPPING_CLEARED_AFTER: Duration = Duration::from_secs(120);

/// Whether the active path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It does, or nothing was sent.
    Sound,
    /// A probe went out because a packet was not followed by anything.
    Asked { at: Instant },
    /// Silence has lasted, or there is another reason for suspicion; packets go to a backup as
    /// well.
    Suspect { at: Instant, is_silent: bool },
}

/// What follows from silence, see [`ActivePath::on_time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LivenessStep {
    /// Nothing.
    None,
    /// Probe the active path.
    Ask,
    /// Leave it, if there is a backup.
    Dead,
}

/// How much silence of the active path means what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SilenceLimits {
    pub(super) suspect_after: Duration,
    pub(super) dead_after: Duration,
    pub(super) ask_every: Duration,
}

impl SilenceLimits {
    /// Returns the limits for a path of that round trip; the floors are those of the configuration.
    pub(super) fn new(rtt: Duration, suspect_floor: Duration, dead_floor: Duration) -> Self {
        let suspect_after = (rtt * 3 / 2 + ACK_DELAY).max(suspect_floor);
        let dead_after = (rtt * 5).max(dead_floor).max(suspect_after);
        Self { suspect_after, dead_after, ask_every: rtt.max(ASK_EVERY) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silence {
    since: Instant,
    /// Whether anything but a probe was sent.
    has_data: bool,
}

/// The active path.
#[derive(Debug, Clone)]
pub(super) struct ActivePath {
    hop: Option<NextHop>,
    since: Instant,
    reason: PathReason,
    liveness: Liveness,
    silence: Option<Silence>,
    /// When silence is looked at next. It is not moved by what arrives: that would be a timer for
    /// every packet.
    check: Option<Instant>,
    limits: SilenceLimits,
    heard: Option<Instant>,
    /// When another path answered a probe that was sent during this suspicion.
    outlived: Option<Instant>,
    failures: usize,
    held_off_until: Option<Instant>,
}

impl ActivePath {
    pub(super) const fn new(first: NextHop, limits: SilenceLimits, now: Instant) -> Self {
        Self {
            hop: Some(first),
            since: now,
            reason: PathReason::First,
            liveness: Liveness::Sound,
            silence: None,
            check: None,
            limits,
            heard: None,
            outlived: None,
            failures: 0,
            held_off_until: None,
        }
    }

    /// Returns where packets go; `None` if there is no path at all.
    pub(super) const fn hop(&self) -> Option<NextHop> {
        self.hop
    }

    /// Returns true if `hop` is on the active path.
    pub(super) fn is(&self, hop: NextHop) -> bool {
        self.hop.is_some_and(|active| active.is_same_path(hop))
    }

    pub(super) const fn is_direct(&self) -> bool {
        matches!(self.hop, Some(NextHop::Direct(_)))
    }

    /// Returns since when it is active.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Returns why it is active.
    pub(super) const fn reason(&self) -> PathReason {
        self.reason
    }

    /// Returns when anything authentic last came on the active path.
    pub(super) const fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Returns since when it is suspect.
    pub(super) const fn suspect_since(&self) -> Option<Instant> {
        match self.liveness {
            Liveness::Suspect { at, .. } => Some(at),
            Liveness::Sound | Liveness::Asked { .. } => None,
        }
    }

    /// Returns true if it is suspect.
    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect_since().is_some()
    }

    /// Returns true if it has been active for longer than packets of the path before need to be
    /// acknowledged.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > self.limits.dead_after
    }

    /// Returns true if nothing that was sent waits for longer than usual.
    pub(super) fn is_sound(&self) -> bool {
        self.liveness == Liveness::Sound
    }

    /// Returns true if it is suspect because silence has lasted. A suspicion that the peer has
    /// raised is not sent back to it: two ends would never come to rest.
    pub(super) const fn has_fallen_silent(&self) -> bool {
        matches!(self.liveness, Liveness::Suspect { is_silent: true, .. })
    }

    pub(super) const fn set_limits(&mut self, limits: SilenceLimits) {
        self.limits = limits;
    }

    /// A packet, or a probe, is sent on the active path.
    #[inline]
    pub(super) fn on_sent(&mut self, is_probe: bool, now: Instant) {
        match &mut self.silence {
            Some(silence) => silence.has_data |= !is_probe,
            None => {
                self.silence = Some(Silence { since: now, has_data: !is_probe });
                self.check.get_or_insert(now + self.limits.suspect_after / 2);
            }
        }
    }

    /// Something authentic came on the active path. Returns true if it was awaited or suspect.
    #[inline]
    pub(super) fn on_heard(&mut self, now: Instant) -> bool {
        self.silence = None;
        self.outlived = None;
        self.heard = Some(now);
        let was_awaited = self.liveness != Liveness::Sound;
        self.liveness = Liveness::Sound;
        was_awaited
    }

    /// The active path may no longer work: it is suspect without waiting for silence.
    pub(super) fn suspect(&mut self, now: Instant) {
        if !self.is_suspect() {
            self.liveness = Liveness::Suspect { at: now, is_silent: false };
            self.silence.get_or_insert(Silence { since: now, has_data: false });
            self.check = Some(now + self.limits.ask_every);
        }
    }

    /// Another path has answered a probe that was sent at `sent`. Returns true if the active path is
    /// to be probed now: it has the same time to answer before it is left. When all paths paused
    /// together, the first that answers again is not the only one.
    pub(super) fn on_backup_answered(&mut self, sent: Instant, now: Instant) -> bool {
        let is_since = self.suspect_since().is_some_and(|at| sent >= at);
        if !is_since || self.outlived.is_some() {
            return false;
        }
        self.outlived = Some(now);
        let verdict = now + self.limits.suspect_after;
        self.check = Some(self.check.map_or(verdict, |check| check.min(verdict)));
        true
    }

    /// Returns true if another path has answered during this suspicion, and this one had as much
    /// time to.
    pub(super) fn is_outlived(&self, now: Instant) -> bool {
        self.outlived.is_some_and(|at| now >= at + self.limits.suspect_after)
    }

    /// Returns when [`ActivePath::on_time`] is due.
    pub(super) const fn check(&self) -> Option<Instant> {
        self.check
    }

    /// Checks the silence, if it is due.
    pub(super) fn on_time(&mut self, now: Instant) -> LivenessStep {
        if self.check.is_none_or(|at| at > now) {
            return LivenessStep::None;
        }
        let Some(silence) = self.silence else {
            self.check = None;
            return LivenessStep::None;
        };
        let SilenceLimits { suspect_after, dead_after, ask_every } = self.limits;
        let ask_after = suspect_after / 2;
        match self.liveness {
            Liveness::Sound if now < silence.since + ask_after => {
                self.check = Some(silence.since + ask_after);
                LivenessStep::None
            }
            Liveness::Sound => {
                self.liveness = Liveness::Asked { at: now };
                self.check = Some(now + (suspect_after - ask_after));
                LivenessStep::Ask
            }
            Liveness::Asked { at } if now < at + (suspect_after - ask_after) => {
                self.check = Some(at + (suspect_after - ask_after));
                LivenessStep::None
            }
            Liveness::Asked { .. } => {
                self.liveness = Liveness::Suspect { at: now, is_silent: true };
                self.check = Some(now + ask_every.min(dead_after - suspect_after));
                LivenessStep::Ask
            }
            Liveness::Suspect { at, .. } => {
                let dead_after =
                    if silence.has_data { dead_after } else { IDLE_DEAD.max(dead_after) };
                let dead_at = at + (dead_after - suspect_after);
                if now >= dead_at {
                    let has_paused = now < dead_at + PAUSE;
                    let every = if has_paused { ASK_PAUSED_EVERY } else { ASK_HOPELESS_EVERY };
                    self.check = Some(now + every.max(ask_every));
                    return LivenessStep::Dead;
                }
                self.check = Some(dead_at.min(now + ask_every));
                LivenessStep::Ask
            }
        }
    }

    /// Makes `to` the active path; `None` if there is no path at all.
    pub(super) fn move_to(&mut self, to: Option<NextHop>, reason: PathReason, now: Instant) {
        self.hop = to;
        self.since = now;
        self.reason = reason;
        self.liveness = Liveness::Sound;
        self.silence = None;
        self.check = None;
        self.heard = None;
        self.outlived = None;
    }

    /// The active path, which is direct, has failed.
    pub(super) fn on_failure(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= FLAPPING_CLEARED_AFTER {
            self.failures = 0;
        }
        let seconds = HOLD_OFF[self.failures.min(HOLD_OFF.len() - 1)];
        self.failures += 1;
        self.held_off_until = Some(now + Duration::from_secs(seconds));
    }

    /// The network is another one: failures in the old one show nothing.
    pub(super) const fn forgive(&mut self) {
        self.held_off_until = None;
    }

    /// Returns until when no direct path may be selected.
    pub(super) fn held_off_until(&self, now: Instant) -> Option<Instant> {
        self.held_off_until.filter(|&until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Channel, PeerId};
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn limits(rtt: Duration) -> SilenceLimits {
        SilenceLimits::new(rtt, ms(150), ms(500))
    }

    fn active(now: Instant) -> ActivePath {
        let relayed = NextHop::Relayed(Channel { relay: PeerId(1), number: 1 });
        ActivePath::new(relayed, limits(ms(20)), now)
    }

    #[test]
    fn times_are_multiples_of_the_round_trip_above_their_floors() {
        let times = |rtt| (limits(rtt).suspect_after, limits(rtt).dead_after);
        assert_eq!(times(ms(50)), (ms(150), ms(500)));
        assert_eq!(times(ms(84)), (ms(151), ms(500)));
        assert_eq!(times(ms(100)), (ms(175), ms(500)));
        assert_eq!(times(ms(102)), (ms(178), ms(510)));
    }

    #[test]
    fn silence_is_probed_then_suspect_then_fatal_each_exactly_at_its_time() {
        let start = anchor();
        let mut active = active(start);
        active.on_sent(false, start);
        assert_eq!(active.on_time(start + ms(75) - NANO), LivenessStep::None);
        assert_eq!(active.on_time(start + ms(75)), LivenessStep::Ask);
        assert_eq!(active.on_time(start + ms(150) - NANO), LivenessStep::None);
        assert_eq!(active.suspect_since(), None);
        assert_eq!(active.on_time(start + ms(150)), LivenessStep::Ask);
        assert_eq!(active.suspect_since(), Some(start + ms(150)));
        for at in [250, 350, 450] {
            assert_eq!(active.check(), Some(start + ms(at)));
            assert_eq!(active.on_time(start + ms(at)), LivenessStep::Ask);
        }
        assert_eq!(active.on_time(start + ms(500) - NANO), LivenessStep::None);
        assert_eq!(active.on_time(start + ms(500)), LivenessStep::Dead);
    }

    #[test]
    fn anything_that_arrives_ends_silence_until_the_next_packet() {
        let start = anchor();
        let mut active = active(start);
        active.on_sent(false, start);
        assert!(!active.on_heard(start + ms(74)));
        active.on_sent(false, start + ms(75));
        assert_eq!(active.on_time(start + ms(75)), LivenessStep::None);
        assert_eq!(active.check(), Some(start + ms(150)));
        assert_eq!(active.on_time(start + ms(150)), LivenessStep::Ask);
        assert!(active.on_heard(start + ms(150)));
        assert_eq!(active.on_time(start + ms(225)), LivenessStep::None);
        assert_eq!(active.check(), None);
    }

    #[test]
    fn when_only_probes_go_unanswered_the_verdict_takes_three_seconds() {
        let start = anchor();
        let mut active = active(start);
        active.on_sent(true, start);
        let dead = |active: &mut ActivePath| loop {
            let at = active.check().unwrap();
            if active.on_time(at) == LivenessStep::Dead {
                return at;
            }
        };
        assert_eq!(dead(&mut active.clone()), start + ms(3000));
        active.on_time(start + ms(75));
        active.on_time(start + ms(150));
        active.on_sent(false, start + ms(240));
        assert_eq!(dead(&mut active), start + ms(500));
    }

    #[test]
    fn a_backup_that_answers_gives_the_path_as_much_time_to_answer() {
        let start = anchor();
        let mut active = active(start);
        active.suspect(start);
        assert!(!active.on_backup_answered(start - NANO, start), "asked before the suspicion");
        assert!(active.on_backup_answered(start, start + ms(80)));
        assert!(!active.on_backup_answered(start, start + ms(90)), "once");
        assert!(!active.is_outlived(start + ms(80 + 150) - NANO));
        assert!(active.is_outlived(start + ms(80 + 150)));
        active.on_heard(start + ms(300));
        assert!(!active.is_outlived(start + ms(300)));
    }

    #[test]
    fn a_host_that_slept_probes_before_it_leaves_a_path() {
        let start = anchor();
        let mut active = active(start);
        active.on_sent(false, start);
        let woke = start + Duration::from_secs(3600);
        assert_eq!(active.on_time(woke), LivenessStep::Ask);
        assert_eq!(active.on_time(woke), LivenessStep::None);
        assert_eq!(active.on_time(woke + ms(75)), LivenessStep::Ask);
        assert_eq!(active.on_time(woke + ms(75 + 350) - NANO), LivenessStep::Ask);
        assert_eq!(active.on_time(woke + ms(75 + 350)), LivenessStep::Dead);
    }

    #[test]
    fn a_suspicion_needs_no_silence_and_the_verdict_comes_after_the_rest() {
        let start = anchor();
        let mut active = active(start);
        active.suspect(start);
        active.on_sent(false, start);
        assert_eq!(active.suspect_since(), Some(start));
        assert_eq!(active.on_time(start + ms(350) - NANO), LivenessStep::Ask);
        assert_eq!(active.on_time(start + ms(350)), LivenessStep::Dead);
    }

    #[test]
    fn each_failure_holds_direct_paths_off_for_longer_up_to_a_minute() {
        let mut now = anchor();
        let mut active = active(now);
        for seconds in [0, 5, 10, 20, 40, 60, 60] {
            active.on_failure(now);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(active.held_off_until(now), (seconds > 0).then_some(until));
            assert_eq!(active.held_off_until(until), None);
            now = until + Duration::from_secs(1);
            active.move_to(active.hop(), PathReason::First, now);
        }
        let forgiven = now + FLAPPING_CLEARED_AFTER;
        let mut late = active.clone();
        late.on_failure(forgiven - NANO);
        assert!(late.held_off_until(forgiven).is_some());
        active.on_failure(forgiven);
        assert_eq!(active.held_off_until(forgiven), None);
    }
}
