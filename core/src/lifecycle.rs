//! The lifecycle of one peer: five states and the edges between them.
//!
//! It decides which transitions are legal and refuses all others without changing anything. It
//! never decides when to make one: no timer, no retry policy, no transport is known here.
//!
//! Source: docs/protocol.md, "Lifecycle".

use crate::error::Failure;
use std::fmt;
use std::time::{Duration, Instant};

/// A connected peer is healthy while its smoothed latency is below this: above it a person at a
/// prompt waits for every key, however well the connection holds.
pub(crate) const HEALTHY_BELOW: Duration = Duration::from_millis(500);

//                      connect                       fail
//   ┌──────────────┐ ───────────> ┌────────────┐ ───────────> ┌────────┐
//   │ Disconnected │              │ Connecting │ <─────────── │ Failed │
//   └──────────────┘              └────────────┘   connect    └────────┘
//          ^                             │                         ^
//          │ disconnect,                 │ connected               │
//          │ from every                  v                         │ fail
//          │ other state          ┌────────────┐                   │
//          │                      │ Connected  │                   │
//          │                      └────────────┘                   │
//          │                        │        ^                     │
//          │                   lost │        │ connected           │
//          │                        v        │                     │
//          │                      ┌──────────────┐                 │
//          └───────────────────── │ Reconnecting │ ────────────────┘
//                                 └──────────────┘
//                                   │          ^
//                                   └──────────┘ attempt_failed: attempt + 1

/// The state of a peer's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No connection, and none wanted.
    Disconnected,
    /// The first connection is being made.
    Connecting {
        /// When that began.
        since: Instant,
    },
    /// The connection is up.
    Connected {
        /// When it came up.
        since: Instant,
        /// The smoothed round trip time; `None` until one has been measured.
        latency: Option<Duration>,
    },
    /// The connection was lost and is to be made again.
    Reconnecting {
        /// The number of the current or next attempt, counted from 1.
        attempt: u32,
        /// Why the connection was lost, or why the latest attempt failed.
        last_error: Failure,
        /// When the connection was lost; later attempts do not change it.
        since: Instant,
    },
    /// Given up until the application asks to connect again.
    Failed {
        /// Why.
        error: Failure,
        /// When.
        at: Instant,
    },
}

/// A [`State`] without its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// See [`State::Disconnected`].
    Disconnected,
    /// See [`State::Connecting`].
    Connecting,
    /// See [`State::Connected`].
    Connected,
    /// See [`State::Reconnecting`].
    Reconnecting,
    /// See [`State::Failed`].
    Failed,
}

impl StateKind {
    /// Returns the stable text of the kind, as logs and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl State {
    /// Returns which state it is.
    #[must_use]
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Disconnected => StateKind::Disconnected,
            Self::Connecting { .. } => StateKind::Connecting,
            Self::Connected { .. } => StateKind::Connected,
            Self::Reconnecting { .. } => StateKind::Reconnecting,
            Self::Failed { .. } => StateKind::Failed,
        }
    }

    /// Returns the state as plain data, with ages in place of instants.
    #[must_use]
    pub fn view(&self, now: Instant) -> StateView {
        match self {
            Self::Disconnected => StateView::Disconnected,
            Self::Connecting { since } => StateView::Connecting { age_ms: age_ms(*since, now) },
            Self::Connected { since, latency } => StateView::Connected {
                age_ms: age_ms(*since, now),
                latency_ms: latency.map(|latency| latency.as_secs_f64() * 1e3),
            },
            Self::Reconnecting { attempt, last_error, since } => StateView::Reconnecting {
                age_ms: age_ms(*since, now),
                attempt: *attempt,
                last_error: last_error.clone(),
            },
            Self::Failed { error, at } => {
                StateView::Failed { age_ms: age_ms(*at, now), error: error.clone() }
            }
        }
    }
}

/// A [`State`] that can be serialised: instants have become ages in milliseconds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StateView {
    /// See [`State::Disconnected`].
    Disconnected,
    /// See [`State::Connecting`].
    Connecting {
        /// Time since it began.
        age_ms: u64,
    },
    /// See [`State::Connected`].
    Connected {
        /// Time since it came up.
        age_ms: u64,
        /// The smoothed round trip time.
        latency_ms: Option<f64>,
    },
    /// See [`State::Reconnecting`].
    Reconnecting {
        /// Time since the connection was lost.
        age_ms: u64,
        /// The number of the attempt.
        attempt: u32,
        /// The latest failure.
        last_error: Failure,
    },
    /// See [`State::Failed`].
    Failed {
        /// Time since it was given up.
        age_ms: u64,
        /// Why.
        error: Failure,
    },
}

fn age_ms(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

/// An event of a [`Lifecycle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LifecycleEvent {
    /// See [`Lifecycle::connect`].
    Connect,
    /// See [`Lifecycle::connected`].
    Connected,
    /// See [`Lifecycle::lost`].
    Lost,
    /// See [`Lifecycle::attempt_failed`].
    AttemptFailed,
    /// See [`Lifecycle::fail`].
    Fail,
    /// See [`Lifecycle::disconnect`].
    Disconnect,
}

impl LifecycleEvent {
    /// Returns the stable text of the event.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::AttemptFailed => "attempt_failed",
            Self::Fail => "fail",
            Self::Disconnect => "disconnect",
        }
    }
}

impl fmt::Display for LifecycleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transition that is not legal; the state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible while {state}")]
pub(crate) struct Refused {
    /// The refused event.
    pub event: LifecycleEvent,
    /// The state that does not allow it.
    pub state: StateKind,
}

/// A transition that has been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// When it was made.
    pub at: Instant,
}

impl Transition {
    /// Returns the transition as plain data that can be serialised.
    #[must_use]
    pub fn view(&self, now: Instant) -> TransitionView {
        TransitionView {
            from: self.from.kind(),
            to: self.to.view(now),
            age_ms: age_ms(self.at, now),
        }
    }
}

/// A [`Transition`] that can be serialised.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TransitionView {
    /// The state before.
    pub from: StateKind,
    /// The state since.
    pub to: StateView,
    /// Time since it was made.
    pub age_ms: u64,
}

/// The lifecycle of one peer. Its state changes only by these methods.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    state: State,
}

impl Lifecycle {
    /// Returns a peer that is disconnected.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { state: State::Disconnected }
    }

    /// Returns the present state.
    #[must_use]
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Returns true if the connection is up.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// Returns true if the connection is up and its smoothed latency is known and below
    /// [`HEALTHY_BELOW`].
    #[must_use]
    pub(crate) fn is_healthy(&self) -> bool {
        matches!(self.state, State::Connected { latency: Some(latency), .. } if latency < HEALTHY_BELOW)
    }

    /// Notes the smoothed round trip time. No transition; without effect unless connected.
    pub(crate) const fn set_latency(&mut self, smoothed: Duration) {
        if let State::Connected { latency, .. } = &mut self.state {
            *latency = Some(smoothed);
        }
    }

    /// Handles a request to connect: from Disconnected and Failed to Connecting.
    ///
    /// # Errors
    /// Returned in every other state.
    pub(crate) fn connect(&mut self, now: Instant) -> Result<Transition, Refused> {
        match self.state {
            State::Disconnected | State::Failed { .. } => {
                Ok(self.go(State::Connecting { since: now }, now))
            }
            State::Connecting { .. } | State::Connected { .. } | State::Reconnecting { .. } => {
                Err(self.refuse(LifecycleEvent::Connect))
            }
        }
    }

    /// Handles an established connection: from Connecting and Reconnecting to Connected.
    ///
    /// # Errors
    /// Returned in every other state.
    pub(crate) fn connected(&mut self, now: Instant) -> Result<Transition, Refused> {
        match self.state {
            State::Connecting { .. } | State::Reconnecting { .. } => {
                Ok(self.go(State::Connected { since: now, latency: None }, now))
            }
            State::Disconnected | State::Connected { .. } | State::Failed { .. } => {
                Err(self.refuse(LifecycleEvent::Connected))
            }
        }
    }

    /// Handles a lost connection, which attempt number `attempt` (from 1; 0 is taken as 1) is to
    /// restore: from Connected to Reconnecting. A loss that is not to be repaired is this and then
    /// [`Lifecycle::fail`].
    ///
    /// # Errors
    /// Returned in every other state.
    pub(crate) fn lost(
        &mut self,
        failure: Failure,
        attempt: u32,
        now: Instant,
    ) -> Result<Transition, Refused> {
        match self.state {
            State::Connected { .. } => {
                let attempt = attempt.max(1);
                Ok(self.go(State::Reconnecting { attempt, last_error: failure, since: now }, now))
            }
            State::Disconnected
            | State::Connecting { .. }
            | State::Reconnecting { .. }
            | State::Failed { .. } => Err(self.refuse(LifecycleEvent::Lost)),
        }
    }

    /// Handles a failed attempt that another one follows: from Reconnecting to Reconnecting.
    ///
    /// # Errors
    /// Returned in every other state.
    pub(crate) fn attempt_failed(
        &mut self,
        failure: Failure,
        now: Instant,
    ) -> Result<Transition, Refused> {
        match self.state {
            State::Reconnecting { attempt, since, .. } => {
                let attempt = attempt.saturating_add(1);
                Ok(self.go(State::Reconnecting { attempt, last_error: failure, since }, now))
            }
            State::Disconnected
            | State::Connecting { .. }
            | State::Connected { .. }
            | State::Failed { .. } => Err(self.refuse(LifecycleEvent::AttemptFailed)),
        }
    }

    /// Handles the end of all attempts: from Connecting and Reconnecting to Failed.
    ///
    /// # Errors
    /// Returned in every other state.
    pub(crate) fn fail(&mut self, failure: Failure, now: Instant) -> Result<Transition, Refused> {
        match self.state {
            State::Connecting { .. } | State::Reconnecting { .. } => {
                Ok(self.go(State::Failed { error: failure, at: now }, now))
            }
            State::Disconnected | State::Connected { .. } | State::Failed { .. } => {
                Err(self.refuse(LifecycleEvent::Fail))
            }
        }
    }

    /// Handles a disconnect, since the connection is no longer wanted: from every other state to
    /// Disconnected.
    ///
    /// # Errors
    /// When already Disconnected.
    pub(crate) fn disconnect(&mut self, now: Instant) -> Result<Transition, Refused> {
        match self.state {
            State::Connecting { .. }
            | State::Connected { .. }
            | State::Reconnecting { .. }
            | State::Failed { .. } => Ok(self.go(State::Disconnected, now)),
            State::Disconnected => Err(self.refuse(LifecycleEvent::Disconnect)),
        }
    }

    fn go(&mut self, to: State, at: Instant) -> Transition {
        let from = std::mem::replace(&mut self.state, to.clone());
        Transition { from, to, at }
    }

    const fn refuse(&self, event: LifecycleEvent) -> Refused {
        Refused { event, state: self.state.kind() }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
