//! Which way is in use, and whether it still answers.
//!
//! It decides when silence becomes suspicion and suspicion a verdict, and how soon after a failure a
//! direct way may be chosen again. It never decides which other way is best, and never sends.
//!
//! ```text
//!            silence for half      the rest of        the rest of
//!            of suspect_after      suspect_after      dead_after
//!   Sound ───────────────> Asked ───────────> Suspect ───────────> leave it
//!     ^                      │                   │
//!     └──────────────────────┴───────────────────┘ anything authentic by this way
//! ```
//!
//! Silence is counted from the first packet that nothing has followed. Each step has its time from
//! the moment at which the last was made, so that a host that slept asks before it judges.

use std::time::{Duration, Instant};

use crate::transmit::NextHop;

/// How long a peer may wait with its acknowledgement (RFC 9000 §18.2, max_ack_delay).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// How long a way may be silent while nothing but probes is sent: nobody waits for an answer, and a
/// burst of loss on an idle link is no reason to leave it.
pub(super) const IDLE_DEAD: Duration = Duration::from_secs(3);
/// The least time between two probes of a way that is suspected: it is also how late a verdict is
/// that waits for the first packet.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The same once the verdict is clear and there is no other way.
const ASK_HOPELESS_EVERY: Duration = Duration::from_secs(1);

/// How long a direct way may not be chosen after it has failed for the second, third … time: the
/// first failure costs nothing. With these a link that comes and goes causes no more than
/// [`MAX_SWITCHES`] changes in any minute, and two a minute in the long run.
const HOLD_OFF: [u64; 6] = [0, 5, 10, 20, 40, 60];
/// Changes of way in any minute that a link which comes and goes can cause.
pub const MAX_SWITCHES: u32 = 12;
/// A direct way that has held this long has no past: twice the longest time that it can be held off.
const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

/// Whether the way in use answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It does, or nothing was asked.
    Sound,
    /// A probe went out because a packet was not followed by anything.
    Asked { at: Instant },
    /// Silence has lasted, or there is another reason for doubt; packets go by another way as well.
    Suspect { at: Instant, is_silent: bool },
}

/// What follows from silence, see [`ActivePath::on_time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LivenessStep {
    /// Nothing.
    None,
    /// Probe the way in use.
    Ask,
    /// Leave it, if there is another.
    Dead,
}

/// The times of the way in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SilenceLimits {
    pub(super) suspect_after: Duration,
    pub(super) dead_after: Duration,
    pub(super) ask_every: Duration,
}

impl SilenceLimits {
    /// For a way of that round trip; the floors are those of the configuration.
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
    is_missed_by_somebody: bool,
}

/// The way in use.
#[derive(Debug, Clone)]
pub(super) struct ActivePath {
    in_use: Option<NextHop>,
    since: Instant,
    liveness: Liveness,
    silence: Option<Silence>,
    /// When silence is looked at next. It is not moved by what arrives: that would be a timer for
    /// every packet.
    check: Option<Instant>,
    patience: SilenceLimits,
    heard: Option<Instant>,
    failures: usize,
    held_off_until: Option<Instant>,
}

/// Whether two ways are one: a direct way is where it goes, whichever address it leaves from.
pub(super) fn is_same(a: NextHop, b: NextHop) -> bool {
    match (a, b) {
        (NextHop::Direct(a), NextHop::Direct(b)) => a.remote == b.remote,
        (NextHop::Relayed(a), NextHop::Relayed(b)) => a == b,
        (NextHop::Direct(_), NextHop::Relayed(_)) | (NextHop::Relayed(_), NextHop::Direct(_)) => {
            false
        }
    }
}

impl ActivePath {
    pub(super) const fn new(first: NextHop, patience: SilenceLimits, now: Instant) -> Self {
        Self {
            in_use: Some(first),
            since: now,
            liveness: Liveness::Sound,
            silence: None,
            check: None,
            patience,
            heard: None,
            failures: 0,
            held_off_until: None,
        }
    }

    pub(super) const fn in_use(&self) -> Option<NextHop> {
        self.in_use
    }

    pub(super) fn is_in_use(&self, via: NextHop) -> bool {
        self.in_use.is_some_and(|used| is_same(used, via))
    }

    pub(super) const fn is_direct(&self) -> bool {
        matches!(self.in_use, Some(NextHop::Direct(_)))
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// When anything authentic last came by the way in use.
    pub(super) const fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Since when it is suspected.
    pub(super) const fn suspect_since(&self) -> Option<Instant> {
        match self.liveness {
            Liveness::Suspect { at, .. } => Some(at),
            Liveness::Sound | Liveness::Asked { .. } => None,
        }
    }

    /// Whether it is suspected since silence has lasted. A doubt that the peer has raised is not told
    /// back to it: two would never come to rest.
    pub(super) const fn has_fallen_silent(&self) -> bool {
        matches!(self.liveness, Liveness::Suspect { is_silent: true, .. })
    }

    pub(super) const fn set_patience(&mut self, patience: SilenceLimits) {
        self.patience = patience;
    }

    /// A packet, or a probe, goes by the way in use.
    #[inline]
    pub(super) fn on_sent(&mut self, is_probe: bool, now: Instant) {
        match &mut self.silence {
            Some(silence) => silence.is_missed_by_somebody |= !is_probe,
            None => {
                self.silence = Some(Silence { since: now, is_missed_by_somebody: !is_probe });
                self.check.get_or_insert(now + self.patience.suspect_after / 2);
            }
        }
    }

    /// Something authentic came by the way in use. Gives whether it was asked for or suspected.
    #[inline]
    pub(super) fn on_heard(&mut self, now: Instant) -> bool {
        self.silence = None;
        self.heard = Some(now);
        let was_in_doubt = self.liveness != Liveness::Sound;
        self.liveness = Liveness::Sound;
        was_in_doubt
    }

    /// The way in use may no longer work: it is suspected without waiting for silence.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.suspect_since().is_none() {
            self.liveness = Liveness::Suspect { at: now, is_silent: false };
            self.silence.get_or_insert(Silence { since: now, is_missed_by_somebody: false });
            self.check = Some(now + self.patience.ask_every);
        }
    }

    pub(super) const fn check(&self) -> Option<Instant> {
        self.check
    }

    /// Looks at the silence, if it is time.
    pub(super) fn on_time(&mut self, now: Instant) -> LivenessStep {
        if self.check.is_none_or(|at| at > now) {
            return LivenessStep::None;
        }
        let Some(silence) = self.silence else {
            self.check = None;
            return LivenessStep::None;
        };
        let SilenceLimits { suspect_after, dead_after, ask_every } = self.patience;
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
                let dead_after = if silence.is_missed_by_somebody {
                    dead_after
                } else {
                    IDLE_DEAD.max(dead_after)
                };
                let dead_at = at + (dead_after - suspect_after);
                if now >= dead_at {
                    self.check = Some(now + ASK_HOPELESS_EVERY.max(ask_every));
                    return LivenessStep::Dead;
                }
                self.check = Some(dead_at.min(now + ask_every));
                LivenessStep::Ask
            }
        }
    }

    /// Uses `to` from now on; `None` if there is no way at all.
    pub(super) fn move_to(&mut self, to: Option<NextHop>, now: Instant) {
        self.in_use = to;
        self.since = now;
        self.liveness = Liveness::Sound;
        self.silence = None;
        self.check = None;
        self.heard = None;
    }

    /// A direct way that was in use since `self.since` has failed.
    pub(super) fn on_failure(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        let seconds = HOLD_OFF[self.failures.min(HOLD_OFF.len() - 1)];
        self.failures += 1;
        self.held_off_until = Some(now + Duration::from_secs(seconds));
    }

    /// The network is another one: what failed in the old one says nothing.
    pub(super) const fn forgive(&mut self) {
        self.held_off_until = None;
    }

    /// Until when no direct way may be chosen.
    pub(super) fn held_off_until(&self, now: Instant) -> Option<Instant> {
        self.held_off_until.filter(|&until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Channel, PeerId};
    use crate::timer::anchor;
    use crate::transmit::Route;

    const NANO: Duration = Duration::from_nanos(1);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn patience(rtt: Duration) -> SilenceLimits {
        SilenceLimits::new(rtt, ms(150), ms(500))
    }

    fn select(now: Instant) -> ActivePath {
        let relayed = NextHop::Relayed(Channel { relay: PeerId(1), number: 1 });
        ActivePath::new(relayed, patience(ms(20)), now)
    }

    #[test]
    fn times_are_multiples_of_the_round_trip_above_their_floors() {
        let times = |rtt| (patience(rtt).suspect_after, patience(rtt).dead_after);
        assert_eq!(times(ms(50)), (ms(150), ms(500)));
        assert_eq!(times(ms(84)), (ms(151), ms(500)));
        assert_eq!(times(ms(100)), (ms(175), ms(500)));
        assert_eq!(times(ms(102)), (ms(178), ms(510)));
    }

    #[test]
    fn silence_is_asked_about_then_suspected_then_fatal_each_exactly_at_its_time() {
        let start = anchor();
        let mut select = select(start);
        select.on_sent(false, start);
        assert_eq!(select.on_time(start + ms(75) - NANO), LivenessStep::None);
        assert_eq!(select.on_time(start + ms(75)), LivenessStep::Ask);
        assert_eq!(select.on_time(start + ms(150) - NANO), LivenessStep::None);
        assert_eq!(select.suspect_since(), None);
        assert_eq!(select.on_time(start + ms(150)), LivenessStep::Ask);
        assert_eq!(select.suspect_since(), Some(start + ms(150)));
        for at in [250, 350, 450] {
            assert_eq!(select.check(), Some(start + ms(at)));
            assert_eq!(select.on_time(start + ms(at)), LivenessStep::Ask);
        }
        assert_eq!(select.on_time(start + ms(500) - NANO), LivenessStep::None);
        assert_eq!(select.on_time(start + ms(500)), LivenessStep::Dead);
    }

    #[test]
    fn anything_that_comes_ends_silence_and_the_next_packet_begins_it_anew() {
        let start = anchor();
        let mut select = select(start);
        select.on_sent(false, start);
        assert!(!select.on_heard(start + ms(74)));
        select.on_sent(false, start + ms(75));
        assert_eq!(select.on_time(start + ms(75)), LivenessStep::None);
        assert_eq!(select.check(), Some(start + ms(150)));
        assert_eq!(select.on_time(start + ms(150)), LivenessStep::Ask);
        assert!(select.on_heard(start + ms(150)));
        assert_eq!(select.on_time(start + ms(225)), LivenessStep::None);
        assert_eq!(select.check(), None);
    }

    #[test]
    fn when_only_probes_go_unanswered_the_verdict_takes_three_seconds() {
        let start = anchor();
        let mut select = select(start);
        select.on_sent(true, start);
        let dead = |select: &mut ActivePath| loop {
            let at = select.check().unwrap();
            if select.on_time(at) == LivenessStep::Dead {
                return at;
            }
        };
        assert_eq!(dead(&mut select.clone()), start + ms(3000));
        select.on_time(start + ms(75));
        select.on_time(start + ms(150));
        select.on_sent(false, start + ms(240));
        assert_eq!(dead(&mut select), start + ms(500));
    }

    #[test]
    fn a_host_that_slept_asks_before_it_judges() {
        let start = anchor();
        let mut select = select(start);
        select.on_sent(false, start);
        let woke = start + Duration::from_secs(3600);
        assert_eq!(select.on_time(woke), LivenessStep::Ask);
        assert_eq!(select.on_time(woke), LivenessStep::None);
        assert_eq!(select.on_time(woke + ms(75)), LivenessStep::Ask);
        assert_eq!(select.on_time(woke + ms(75 + 350) - NANO), LivenessStep::Ask);
        assert_eq!(select.on_time(woke + ms(75 + 350)), LivenessStep::Dead);
    }

    #[test]
    fn doubt_is_suspicion_at_once_and_a_verdict_after_the_rest() {
        let start = anchor();
        let mut select = select(start);
        select.doubt(start);
        select.on_sent(false, start);
        assert_eq!(select.suspect_since(), Some(start));
        assert_eq!(select.on_time(start + ms(350) - NANO), LivenessStep::Ask);
        assert_eq!(select.on_time(start + ms(350)), LivenessStep::Dead);
    }

    #[test]
    fn each_failure_holds_direct_ways_off_for_longer_up_to_a_minute() {
        let mut now = anchor();
        let mut select = select(now);
        for seconds in [0, 5, 10, 20, 40, 60, 60] {
            select.on_failure(now);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(select.held_off_until(now), (seconds > 0).then_some(until));
            assert_eq!(select.held_off_until(until), None);
            now = until + Duration::from_secs(1);
            select.move_to(select.in_use(), now);
        }
        let forgiven = now + FORGIVEN_AFTER;
        let mut late = select.clone();
        late.on_failure(forgiven - NANO);
        assert!(late.held_off_until(forgiven).is_some());
        select.on_failure(forgiven);
        assert_eq!(select.held_off_until(forgiven), None);
    }

    #[test]
    fn a_direct_way_is_where_it_goes() {
        let route = Route::to("192.0.2.1:1".parse().unwrap());
        let from = Route { local_ip: Some("10.0.0.1".parse().unwrap()), ..route };
        assert!(is_same(NextHop::Direct(route), NextHop::Direct(from)));
        let relayed = |number| NextHop::Relayed(Channel { relay: PeerId(1), number });
        assert!(is_same(relayed(1), relayed(1)) && !is_same(relayed(1), relayed(2)));
        assert!(!is_same(relayed(1), NextHop::Direct(route)));
    }
}
