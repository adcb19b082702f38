//! Decides whether, and when, a lost connection is tried again.
//!
//! It decides between waiting and giving up, and keeps the wait. It never dials, never changes a
//! lifecycle state, and uses only the code of a failure and the peer's requested delay.

use crate::backoff::{self, Backoff};
use crate::error::{Category, Code, Failure};
use crate::rng::Rng;
use crate::timer::{Deadline, Reason};
use std::time::{Duration, Instant};

/// The longest "retry after" of a peer that is honoured: a longer one, wrong or hostile, would
/// disable the service.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The wait after a peer reported that it is at its limit, without a time.
pub(crate) const OVERLOADED_WAIT: Duration = Duration::from_secs(60);

/// The least time between two attempts brought forward by network changes: an interface that
/// flaps reports a change every second, and each would otherwise become an attempt.
pub(crate) const NETWORK_CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// The span over which attempts are spread after a network change: all clients behind an access
/// point that returns see the change together, and the new address may need a moment to work.
pub(crate) const NETWORK_CHANGE_SPREAD: Duration = Duration::from_millis(250);

/// How long a demand for a connection lasts: as long as a caller that waits for one is expected to.
/// An attempt that fails in that time is followed by another after [`DEMAND_INTERVAL`].
pub(crate) const DEMAND_LASTS: Duration = Duration::from_secs(10);

/// The least time between two attempts that demand brings forward: longer than a handshake takes,
/// shorter than a person waits.
pub(crate) const DEMAND_INTERVAL: Duration = Duration::from_secs(2);

/// The waits after a relay that knows no connector for the service: one that restarts is back
/// within a second or two. Later failures back off as any other.
pub(crate) const ABSENT_DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// The span over which clients return after a reset, when the link was stable before: the peer is
/// up, since it answered, and only lost its state. A thousand clients that are reset together
/// spread over it.
pub(crate) const RESET_SPREAD: Duration = Duration::from_millis(100);

/// How long each of the first attempts of a steady policy may take: two flights of a handshake,
/// which repeats its first after 1 s. The third would come after 3 s (RFC 9002 §6.2.2); the first of
/// another attempt comes sooner.
pub(crate) const STEADY_TIMEOUT: Duration = Duration::from_secs(2);

/// How many attempts of a steady policy are that short: those of the first minute. A path that is
/// slower than [`STEADY_TIMEOUT`] gets the usual time after them.
pub(crate) const STEADY_ATTEMPTS: u32 = 24;

/// An error in a [`Policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A link that counts as stable immediately would restart every wait: one that comes up and
    /// drops without end would be retried without back-off.
    #[error("the time after which a link counts as stable must be longer than zero")]
    StableAfterZero,
    /// The time to become stable is longer than `backoff::LONGEST`.
    #[error("the time after which a link counts as stable, {0:?}, is longer than a day")]
    StableAfterTooLong(Duration),
}

/// How long to keep trying; every value of this type is usable. The default never gives up on a
/// peer that cannot be reached: a library that stops by itself leaves a program without a
/// connection long after the outage is over. A limit is for a caller that can report it to a
/// person.
///
/// ```
/// use adit_core::retry::Policy;
/// use std::time::Duration;
/// assert_eq!(Policy::default().max_attempts(), None);
/// let policy = Policy::builder().max_attempts(Some(20)).build()?;
/// assert_eq!(policy.max_attempts(), Some(20));
/// assert_eq!(policy.stable_after(), Duration::from_secs(10));
/// assert_eq!(Policy::interactive().max_attempts(), Some(10));
/// # Ok::<(), adit_core::retry::PolicyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    max_attempts: Option<u32>,
    max_unavailable: Option<u32>,
    stable_after: Duration,
    backoff: backoff::BackoffConfig,
    /// The first attempts are short.
    is_steady: bool,
}

impl Policy {
    /// Returns a builder that holds the defaults, which are those of [`Policy::persistent`].
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder(Self::persistent())
    }

    /// Returns the policy of an agent that a person watches: 10 attempts, about 5 minutes, or 5
    /// that the peer answers without being able to serve. It is never the default.
    #[must_use]
    pub fn interactive() -> Self {
        Self { max_attempts: Some(10), max_unavailable: Some(5), ..Self::persistent() }
    }

    /// Returns the policy without an end, which is the default: for every link that no person
    /// watches, such as those of connectors and relays.
    #[must_use]
    pub fn persistent() -> Self {
        Self {
            max_attempts: None,
            max_unavailable: None,
            stable_after: Duration::from_secs(10),
            backoff: backoff::BackoffConfig::default(),
            is_steady: false,
        }
    }

    /// Returns the policy of a link that others wait for, such as one to a relay: without an end, and
    /// at a steady pace in the first minute, in which one packet or two are sent each second. A relay
    /// that was restarted is found again within about a second. Later attempts become as rare as
    /// those of any other policy.
    #[must_use]
    pub fn steady() -> Self {
        let backoff = backoff::BackoffConfig::steady();
        Self { backoff, is_steady: true, ..Self::persistent() }
    }

    /// Returns how many attempts one outage may take; `None` is without end.
    #[must_use]
    pub const fn max_attempts(&self) -> Option<u32> {
        self.max_attempts
    }

    /// Returns how many attempts may follow answers that the peer is there and cannot serve; `None`
    /// is without end.
    #[must_use]
    pub const fn max_unavailable(&self) -> Option<u32> {
        self.max_unavailable
    }

    /// Returns how long a link has to stay up before its outages count from the start again.
    #[must_use]
    pub const fn stable_after(&self) -> Duration {
        self.stable_after
    }

    /// Returns the delays between attempts.
    #[must_use]
    pub const fn backoff(&self) -> &backoff::BackoffConfig {
        &self.backoff
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::persistent()
    }
}

/// Collects the parameters of a [`Policy`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct PolicyBuilder(Policy);

impl PolicyBuilder {
    /// Sets how many attempts one outage may take; `None` is unlimited, `Some(0)` never tries
    /// again. Default `None`: an outage may last longer than any number of attempts. 10 take about
    /// 5 minutes, after which a person prefers an error to more waiting.
    pub const fn max_attempts(mut self, max: Option<u32>) -> Self {
        self.0.max_attempts = max;
        self
    }

    /// Sets how many attempts may follow answers that the peer is up but cannot serve: shutting
    /// down, backend gone, queue full. Default `None`, as for the attempts. 5 take about half a
    /// minute: a restart takes less, and a peer that is still unavailable then is unavailable for
    /// longer.
    pub const fn max_unavailable(mut self, max: Option<u32>) -> Self {
        self.0.max_unavailable = max;
        self
    }

    /// Sets how long a link has to stay up before its outages count from the start again. Default
    /// 10 s: longer than a connection survives that a peer accepts and then drops over its own
    /// limits, shorter than the pause between two independent outages.
    pub const fn stable_after(mut self, after: Duration) -> Self {
        self.0.stable_after = after;
        self
    }

    /// Sets the delays between attempts. Default: those of [`backoff::BackoffConfig`].
    pub const fn backoff(mut self, backoff: backoff::BackoffConfig) -> Self {
        self.0.backoff = backoff;
        self
    }

    /// Returns the policy.
    ///
    /// # Errors
    /// When the time to become stable is zero or longer than a day.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if self.0.stable_after.is_zero() {
            return Err(PolicyError::StableAfterZero);
        }
        if self.0.stable_after > backoff::LONGEST {
            return Err(PolicyError::StableAfterTooLong(self.0.stable_after));
        }
        Ok(self.0)
    }
}

/// The reaction to a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again, not before `until`.
    Wait {
        /// The number of the coming attempt, from 1 within one outage.
        attempt: u32,
        /// When [`Retry::poll`] will yield it.
        until: Instant,
    },
    /// Do not try again; the failure has the reason.
    GiveUp(Failure),
}

/// A wait that is over: make one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1 within one outage.
    pub number: u32,
}

//            on_up             poll, after stable_after
//   ┌──────┐ ───────> ┌───────┐ ──────> (count = 0, still Up)
//   │ Idle │          │  Up   │
//   └──────┘ <──┐     └───────┘
//       │       │ give up, or  │ on_down
//       │       │ cancel       v            poll
//       │       └───────── ┌─────────┐ ─────────> ┌────────────┐
//       └────────────────> │ Waiting │            │ Attempting │ ──> Up (on_up)
//         on_attempt_failed└─────────┘ <───────── └────────────┘
//                                  on_attempt_failed
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryPhase {
    Idle,
    Up { stable_at: Option<Instant> },
    Waiting { until: Instant, not_before: Option<Instant> },
    Attempting,
}

/// The reconnect policy of one peer.
///
/// Attempts are counted per outage: a link that does not stay up for
/// [`Policy::stable_after`] continues the count. A first dial is the caller's own; when it fails,
/// [`Retry::on_attempt_failed`] starts the count. Each node has one for each peer that it dials. A
/// program that dials by itself, such as at several addresses, uses one with the same policy.
///
/// ```
/// use adit_core::error::{Code, Failure};
/// use adit_core::retry::{Policy, Retry, RetryDecision};
/// use adit_core::rng::Rng;
///
/// let now = std::time::Instant::now();
/// let mut retry = Retry::new(Policy::default(), Rng::new([7; 32], "retry"));
/// let silence = Failure::new(Code::TimedOut, "no answer");
/// let RetryDecision::Wait { until, .. } = retry.on_attempt_failed(&silence, now) else {
///     panic!("the default never gives up on the network")
/// };
/// assert!(retry.poll(until).is_some());
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    policy: Policy,
    backoff: Backoff,
    phase: RetryPhase,
    attempts: u32,
    unavailable: u32,
    hurried: Option<Instant>,
    /// How many failures in a row were the absence of the connector at its relays.
    absent: usize,
    /// When the latest attempt was made.
    attempted: Option<Instant>,
    /// Until when somebody waits for the connection.
    wanted_until: Option<Instant>,
    /// The peer has proven its identity at least once.
    was_up: bool,
}

impl Retry {
    /// Returns a policy at rest.
    #[must_use]
    pub fn new(policy: Policy, rng: Rng) -> Self {
        let backoff = Backoff::new(policy.backoff, rng);
        Self {
            policy,
            backoff,
            phase: RetryPhase::Idle,
            attempts: 0,
            unavailable: 0,
            hurried: None,
            absent: 0,
            attempted: None,
            wanted_until: None,
            was_up: false,
        }
    }

    /// Handles an established connection.
    pub fn on_up(&mut self, now: Instant) {
        self.was_up = true;
        self.absent = 0;
        match self.phase {
            RetryPhase::Up { .. } => {}
            RetryPhase::Idle | RetryPhase::Waiting { .. } | RetryPhase::Attempting => {
                self.phase = RetryPhase::Up { stable_at: Some(now + self.policy.stable_after) };
            }
        }
    }

    /// Handles the loss of the connection. During a wait, this leaves the wait as it is and returns
    /// it again.
    pub fn on_down(&mut self, failure: &Failure, now: Instant) -> RetryDecision {
        self.on_failure(failure, now)
    }

    /// Handles a failed attempt, or a failed first dial. During a wait, this leaves the wait as it
    /// is and returns it again: the failure belongs to an attempt that is over.
    pub fn on_attempt_failed(&mut self, failure: &Failure, now: Instant) -> RetryDecision {
        self.on_failure(failure, now)
    }

    /// Handles a change of the local network, or a wake-up of the host: what failed before may work
    /// now. Moves the wait forward and returns its new end, or `None` when it is unchanged. A time
    /// that the peer asked for is kept, and attempts that were moved forward are 5 s apart.
    pub fn on_network_change(&mut self, now: Instant) -> Option<Instant> {
        let RetryPhase::Waiting { until, not_before } = self.phase else { return None };
        let allowed = self.hurried.map_or(now, |last| now.max(last + NETWORK_CHANGE_INTERVAL));
        let sooner = allowed + self.backoff.within(NETWORK_CHANGE_SPREAD);
        let sooner = not_before.map_or(sooner, |least| sooner.max(least));
        if sooner >= until {
            return None;
        }
        self.hurried = Some(sooner);
        self.phase = RetryPhase::Waiting { until: sooner, not_before };
        Some(sooner)
    }

    /// Handles a caller that waits for the connection. For 10 s every wait is over 2 s after the
    /// attempt before it, unless the peer asked for a longer one. Moves the present wait forward and
    /// returns its new end, or `None` when it is unchanged.
    pub fn on_demand(&mut self, now: Instant) -> Option<Instant> {
        self.wanted_until = Some(now + DEMAND_LASTS);
        let RetryPhase::Waiting { until, not_before } = self.phase else { return None };
        let sooner = self.hurry(until, not_before, now);
        self.phase = RetryPhase::Waiting { until: sooner, not_before };
        (sooner < until).then_some(sooner)
    }

    /// Returns the end of a wait, sooner if somebody waits. Those who wait together are spread as
    /// after a reset.
    fn hurry(&mut self, until: Instant, not_before: Option<Instant>, now: Instant) -> Instant {
        if self.wanted_until.is_none_or(|wanted| wanted <= now) {
            return until;
        }
        let allowed = self.attempted.map_or(now, |last| now.max(last + DEMAND_INTERVAL));
        let sooner = allowed + self.backoff.within(RESET_SPREAD);
        until.min(not_before.map_or(sooner, |least| sooner.max(least)))
    }

    /// Returns the attempt with an expired wait: one for each wait.
    pub fn poll(&mut self, now: Instant) -> Option<Attempt> {
        self.settle(now);
        match self.phase {
            RetryPhase::Waiting { until, .. } if until <= now => {
                self.phase = RetryPhase::Attempting;
                self.attempted = Some(now);
                Some(Attempt { number: self.attempts })
            }
            RetryPhase::Idle
            | RetryPhase::Up { .. }
            | RetryPhase::Waiting { .. }
            | RetryPhase::Attempting => None,
        }
    }

    /// Returns how long the present attempt may take, where `usual` is the time of any other.
    pub(crate) fn attempt_timeout(&self, usual: Duration) -> Duration {
        match self.policy.is_steady && self.attempts < STEADY_ATTEMPTS {
            true => usual.min(STEADY_TIMEOUT),
            false => usual,
        }
    }

    /// Discards the outage and any wait: the connection is no longer wanted.
    pub fn cancel(&mut self) {
        self.phase = RetryPhase::Idle;
        self.attempts = 0;
        self.unavailable = 0;
        self.absent = 0;
        self.was_up = false;
    }

    /// Returns when [`Retry::poll`] is to be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Deadline> {
        match self.phase {
            RetryPhase::Waiting { until, .. } => Some((until, Reason::Reconnect)),
            RetryPhase::Up { stable_at: Some(at) } => Some((at, Reason::Stable)),
            RetryPhase::Idle | RetryPhase::Up { stable_at: None } | RetryPhase::Attempting => None,
        }
    }

    /// Returns how many attempts the present outage has taken; 0 once the link is stable.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns true if a wait is on.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.phase, RetryPhase::Waiting { .. })
    }

    fn settle(&mut self, now: Instant) {
        if let RetryPhase::Up { stable_at: Some(at) } = self.phase
            && at <= now
        {
            self.phase = RetryPhase::Up { stable_at: None };
            self.attempts = 0;
            self.unavailable = 0;
        }
    }

    /// Returns true if the next attempt would end in the same failure. A failure that an attacker
    /// on the path can forge proves nothing about a peer that was up before.
    const fn is_final(&self, failure: &Failure) -> bool {
        match failure.category() {
            Category::Authentication | Category::Configuration => {
                failure.is_proven() || !self.was_up
            }
            Category::Network | Category::Server | Category::Protocol | Category::Unknown => false,
        }
    }

    fn on_failure(&mut self, failure: &Failure, now: Instant) -> RetryDecision {
        self.settle(now);
        if let RetryPhase::Waiting { until, .. } = self.phase {
            return RetryDecision::Wait { attempt: self.attempts, until };
        }
        if is_unavailable(failure.code()) {
            self.unavailable = self.unavailable.saturating_add(1);
        }
        let used_up = |count: u32, max: Option<u32>| max.is_some_and(|max| count > max);
        let absence = self.absence(failure);
        // A connector that was there is coming back, and the attempt did not fail because of it.
        if absence.is_none() || !self.was_up || self.attempts == 0 {
            self.attempts = self.attempts.saturating_add(1);
        }
        if self.is_final(failure)
            || used_up(self.attempts, self.policy.max_attempts)
            || used_up(self.unavailable, self.policy.max_unavailable)
        {
            self.cancel();
            return RetryDecision::GiveUp(failure.clone());
        }
        let delay = if self.attempts == 1 && is_repaired_at_once(failure) {
            self.backoff.within(RESET_SPREAD)
        } else if let Some(delay) = absence {
            self.backoff.at_least(delay)
        } else {
            self.backoff.delay(self.attempts)
        };
        let requested = requested_delay(failure).map(|delay| self.backoff.at_least(delay));
        let until = now + requested.map_or(delay, |requested| requested.max(delay));
        let not_before = requested.map(|delay| now + delay);
        let until = self.hurry(until, not_before, now);
        self.phase = RetryPhase::Waiting { until, not_before };
        RetryDecision::Wait { attempt: self.attempts, until }
    }

    /// Counts the failures that are the absence of the connector at its relays, and returns the wait
    /// after this one; `None` after any other, and when it is away for longer.
    fn absence(&mut self, failure: &Failure) -> Option<Duration> {
        if failure.code() != Code::UnknownService {
            self.absent = 0;
            return None;
        }
        let delay = ABSENT_DELAYS.get(self.absent).copied();
        self.absent = self.absent.saturating_add(1);
        delay
    }
}

/// Returns true after a failure that may be repaired by now: a peer that restarted is there, and
/// one with an expired certificate may have the next.
fn is_repaired_at_once(failure: &Failure) -> bool {
    failure.code() == Code::Reset
        || (!failure.is_proven() && failure.category() == Category::Authentication)
}

fn is_unavailable(code: Code) -> bool {
    code.category() == Category::Server && code != Code::Overloaded
}

fn requested_delay(failure: &Failure) -> Option<Duration> {
    match failure.retry_after() {
        Some(delay) => Some(delay.min(LONGEST_RETRY_AFTER)),
        None => (failure.code() == Code::Overloaded).then_some(OVERLOADED_WAIT),
    }
}

#[cfg(test)]
mod tests;
