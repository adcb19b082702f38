//! Decides when to send a heartbeat, and when a peer counts as dead.
//!
//! It decides the schedule, the misses and the verdict. It never builds a message, never closes a
//! connection, and does not trust its own absence: after a suspend it sends a heartbeat before any
//! verdict.
//!
//! Source: docs/protocol.md, "Heartbeats".

use crate::error::{Code, Failure};
use crate::timer::{Deadline, Reason};
use std::time::{Duration, Instant};

/// A call that comes later than this after its deadline means that the host slept or starved:
/// the answers that did not arrive may be waiting in a buffer, or were sent to a sleeper.
pub(crate) const LEAP: Duration = Duration::from_secs(1);

/// How often in a row, without a sign of the peer, a verdict is put off because of a leap. A host
/// that is always late would otherwise never notice a dead peer.
pub(crate) const MAX_GRACES: u32 = 3;

/// The least time between a heartbeat and a probe requested by [`HeartbeatMonitor::on_resume`],
/// unless the interval is shorter: a host that wakes ten times a second sends one, not ten.
pub(crate) const PROBE_SPACING: Duration = Duration::from_secs(1);

/// The longest time that can be configured.
pub(crate) const LONGEST: Duration = Duration::from_secs(60 * 60);

/// An error in a [`HeartbeatConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatConfigError {
    /// A heartbeat needs time to be answered.
    #[error("the time for an answer must be longer than zero")]
    AckWithinZero,
    /// An answer would be due after the next heartbeat: two heartbeats would overlap.
    #[error("an answer is due after {ack_within:?}, later than the interval of {interval:?}")]
    AckWithinAboveInterval {
        /// The requested time for an answer.
        ack_within: Duration,
        /// The requested interval.
        interval: Duration,
    },
    /// No heartbeat may be missed: the verdict would come without a question.
    #[error("at least one missed heartbeat must be allowed for")]
    MaxMissedZero,
    /// A quiet and healthy peer would be declared dead between two heartbeats.
    #[error(
        "silence of {dead_after:?} proves nothing: it must reach the interval and the time for an answer, {least:?}"
    )]
    DeadAfterTooShort {
        /// The requested silence.
        dead_after: Duration,
        /// The shortest that works.
        least: Duration,
    },
    /// A time is longer than an hour.
    #[error("{0:?} is longer than an hour")]
    TooLong(Duration),
}

/// Parameters of the heartbeats; every value of this type is usable.
///
/// ```
/// use adit_core::heartbeat::HeartbeatConfig;
/// use std::time::Duration;
/// let config = HeartbeatConfig::builder()
///     .interval(Duration::from_secs(5))
///     .ack_within(Duration::from_secs(2))
///     .build()?;
/// assert_eq!(config.dead_after(), Duration::from_secs(45));
/// assert!(HeartbeatConfig::builder().dead_after(Duration::from_secs(39)).build().is_err());
/// # Ok::<(), adit_core::heartbeat::HeartbeatConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    interval: Duration,
    ack_within: Duration,
    max_missed: u32,
    dead_after: Duration,
}

impl HeartbeatConfig {
    /// Returns a builder that holds the defaults.
    pub const fn builder() -> HeartbeatConfigBuilder {
        HeartbeatConfigBuilder(Self {
            interval: Duration::from_secs(30),
            ack_within: Duration::from_secs(10),
            max_missed: 3,
            dead_after: Duration::from_secs(45),
        })
    }

    /// Returns the time from one heartbeat to the next.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Returns the time within which an answer counts.
    #[must_use]
    pub const fn ack_within(&self) -> Duration {
        self.ack_within
    }

    /// Returns how many misses in a row mean death.
    #[must_use]
    pub const fn max_missed(&self) -> u32 {
        self.max_missed
    }

    /// Returns how much silence means death.
    #[must_use]
    pub const fn dead_after(&self) -> Duration {
        self.dead_after
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self::builder().0
    }
}

/// Collects the parameters of a [`HeartbeatConfig`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct HeartbeatConfigBuilder(HeartbeatConfig);

impl HeartbeatConfigBuilder {
    /// Sets the time from one heartbeat to the next. Default 30 s: QUIC's own keep-alive holds NAT
    /// bindings; this asks whether the peer's program still answers, which costs both sides work.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.0.interval = interval;
        self
    }

    /// Sets the time within which an answer counts. Default 10 s: several retransmissions on a bad
    /// mobile link, and still a third of the interval.
    pub const fn ack_within(mut self, within: Duration) -> Self {
        self.0.ack_within = within;
        self
    }

    /// Sets how many misses in a row mean death. Default 3: one may be a burst of loss, two a
    /// change of network. At the default interval, silence decides first.
    pub const fn max_missed(mut self, misses: u32) -> Self {
        self.0.max_missed = misses;
        self
    }

    /// Sets how much silence means death. Default 45 s: one whole question left unanswered, and
    /// sooner than QUIC's idle timeout of 60 s, so that the cause has a name.
    pub const fn dead_after(mut self, silence: Duration) -> Self {
        self.0.dead_after = silence;
        self
    }

    /// Returns the configuration.
    ///
    /// # Errors
    /// When an answer may come after the next heartbeat, no miss is allowed for, silence would
    /// mean death before a question was left unanswered, or a time is out of its range.
    pub fn build(self) -> Result<HeartbeatConfig, HeartbeatConfigError> {
        let HeartbeatConfig { interval, ack_within, max_missed, dead_after } = self.0;
        if let Some(long) = [interval, ack_within, dead_after].into_iter().find(|&t| t > LONGEST) {
            return Err(HeartbeatConfigError::TooLong(long));
        }
        if ack_within.is_zero() {
            return Err(HeartbeatConfigError::AckWithinZero);
        }
        if ack_within > interval {
            return Err(HeartbeatConfigError::AckWithinAboveInterval { ack_within, interval });
        }
        if max_missed == 0 {
            return Err(HeartbeatConfigError::MaxMissedZero);
        }
        let least = interval + ack_within;
        if dead_after < least {
            return Err(HeartbeatConfigError::DeadAfterTooShort { dead_after, least });
        }
        Ok(self.0)
    }
}

/// An action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatAction {
    /// Send a heartbeat with this sequence number.
    Send {
        /// From 1, rising by 1, never reused, also across [`HeartbeatMonitor::stop`].
        sequence: u64,
    },
    /// The peer is dead. Comes once, and the heartbeats have stopped.
    Dead(DeathCause),
}

/// Why a peer counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeathCause {
    /// This many heartbeats in a row were unanswered.
    Missed(u32),
    /// No packet arrived for this long.
    Silent(Duration),
}

impl From<DeathCause> for Failure {
    fn from(verdict: DeathCause) -> Self {
        let detail = match verdict {
            DeathCause::Missed(1) => "a heartbeat went unanswered".to_owned(),
            DeathCause::Missed(count) => format!("{count} heartbeats in a row went unanswered"),
            DeathCause::Silent(time) => format!("nothing heard for {:.1} s", time.as_secs_f64()),
        };
        Self::new(Code::HeartbeatLost, detail)
    }
}

/// Counts since the machine was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct HeartbeatStats {
    /// Heartbeats sent.
    pub sent: u64,
    /// Heartbeats answered in time.
    pub acked: u64,
    /// Heartbeats not answered in time. One abandoned by a stop or a suspend is in neither.
    pub missed: u64,
    /// Answers that matched no outstanding heartbeat: late, repeated, or unsolicited.
    pub ignored: u64,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    last_heard: Instant,
    next_send: Instant,
    last_sent: Option<Instant>,
    outstanding: Option<(u64, Instant)>,
    missed_in_a_row: u32,
    probing: bool,
    graces: u32,
}

/// The heartbeats of one connection.
///
/// At most one is outstanding. While the driver calls at the deadlines, no more than the interval
/// passes without one, and a peer that falls silent is declared dead between `t` and `t + interval`
/// after its last sign, where `t` is the smaller of `dead_after` and `(max_missed - 1) * interval +
/// ack_within`.
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatMonitor {
    config: HeartbeatConfig,
    running: Option<Running>,
    stats: HeartbeatStats,
}

impl HeartbeatMonitor {
    /// Returns a machine at rest.
    #[must_use]
    pub(crate) const fn new(config: HeartbeatConfig) -> Self {
        let stats = HeartbeatStats { sent: 0, acked: 0, missed: 0, ignored: 0 };
        Self { config, running: None, stats }
    }

    /// Starts watching: the connection is up, which is a first sign of the peer. The first
    /// heartbeat is due immediately. Starts again when already running.
    pub(crate) const fn start(&mut self, now: Instant) {
        self.running = Some(Running {
            last_heard: now,
            next_send: now,
            last_sent: None,
            outstanding: None,
            missed_in_a_row: 0,
            probing: false,
            graces: 0,
        });
    }

    /// Stops the heartbeats: the connection is lost, or no longer watched.
    pub(crate) const fn stop(&mut self) {
        self.running = None;
    }

    /// Returns the due action. Call it until `None`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<HeartbeatAction> {
        let run = self.running.as_mut()?;
        if now.saturating_duration_since(run.due(&self.config).0) > LEAP && run.graces < MAX_GRACES
        {
            run.probe(now);
        }
        if let Some((_, sent)) = run.outstanding {
            if now < sent + self.config.ack_within {
                return None;
            }
            run.outstanding = None;
            self.stats.missed += 1;
            if run.last_heard <= sent {
                run.missed_in_a_row += 1;
            }
            if run.missed_in_a_row >= self.config.max_missed {
                let missed = run.missed_in_a_row;
                return Some(self.declare_dead(DeathCause::Missed(missed)));
            }
        }
        let silence = now.saturating_duration_since(run.last_heard);
        if silence >= self.config.dead_after && !run.probing {
            return Some(self.declare_dead(DeathCause::Silent(silence)));
        }
        (now >= run.next_send).then(|| self.send(now))
    }

    /// Handles an answer. Returns the round-trip time when it answers the outstanding heartbeat, in
    /// time; any other answer is counted and only shows that the peer is alive.
    pub(crate) fn on_ack(&mut self, sequence: u64, now: Instant) -> Option<Duration> {
        self.on_heard(now);
        let under_way = self.running.as_mut().and_then(|run| {
            let (_, sent) = run.outstanding.take_if(|&mut (number, _)| number == sequence)?;
            Some(now.saturating_duration_since(sent))
        });
        match under_way {
            Some(latency) if latency <= self.config.ack_within => {
                self.stats.acked += 1;
                Some(latency)
            }
            Some(_) => {
                self.stats.missed += 1;
                self.stats.ignored += 1;
                None
            }
            None => {
                self.stats.ignored += 1;
                None
            }
        }
    }

    /// Handles an authenticated packet from the peer: it is alive, even if it leaves heartbeats
    /// unanswered.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        if let Some(run) = &mut self.running {
            run.last_heard = now;
            run.missed_in_a_row = 0;
            run.graces = 0;
        }
    }

    /// Handles a change of the network, or a wake-up of the host. Sends a heartbeat before any
    /// verdict, and allows the peer the full time to answer it. Happens at most once every
    /// [`PROBE_SPACING`], and [`MAX_GRACES`] times without a sign of the peer.
    pub(crate) fn on_resume(&mut self, now: Instant) {
        let spacing = PROBE_SPACING.min(self.config.interval);
        if let Some(run) = &mut self.running
            && run.graces < MAX_GRACES
            && !run.probing
        {
            let spaced = run.last_sent.map_or(now, |sent| now.max(sent + spacing));
            run.probe(spaced);
        }
    }

    /// Returns when [`HeartbeatMonitor::poll`] is to be called.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.running.as_ref().map(|run| run.due(&self.config))
    }

    /// Returns the counts so far.
    #[must_use]
    pub(crate) const fn stats(&self) -> HeartbeatStats {
        self.stats
    }

    /// Returns true if the peer is being watched.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn send(&mut self, now: Instant) -> HeartbeatAction {
        self.stats.sent += 1;
        let sequence = self.stats.sent;
        if let Some(run) = &mut self.running {
            run.outstanding = Some((sequence, now));
            run.last_sent = Some(now);
            run.next_send = now + self.config.interval;
            run.probing = false;
        }
        HeartbeatAction::Send { sequence }
    }

    const fn declare_dead(&mut self, verdict: DeathCause) -> HeartbeatAction {
        self.running = None;
        HeartbeatAction::Dead(verdict)
    }
}

impl Running {
    fn probe(&mut self, at: Instant) {
        self.outstanding = None;
        self.next_send = at;
        self.probing = true;
        self.graces += 1;
    }

    fn due(&self, config: &HeartbeatConfig) -> Deadline {
        if let Some((_, sent)) = self.outstanding {
            return (sent + config.ack_within, Reason::HeartbeatAck);
        }
        let send = (self.next_send, Reason::Heartbeat);
        if self.probing {
            return send;
        }
        send.min((self.last_heard + config.dead_after, Reason::HeartbeatAck))
    }
}

#[cfg(test)]
mod tests;
