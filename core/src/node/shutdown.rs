//! The progress of a shutdown: the peers are notified, work in progress may finish, then every
//! connection is closed.

use std::time::{Duration, Instant};

use crate::timer::{Deadline, Reason, earliest};

/// Time between two checks of the work in progress: each check costs a pass over all peers.
const INTERVAL: Duration = Duration::from_millis(20);

/// The progress of a shutdown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// None was requested.
    #[default]
    None,
    /// Work in progress may finish by `until`; `check` is when to test for that next.
    Draining { until: Instant, check: Instant },
    /// Every peer is closed.
    Done,
}

impl Shutdown {
    pub(super) const fn is_under_way(self) -> bool {
        !matches!(self, Self::None)
    }

    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Begins the drain; work in progress may finish by `until`.
    pub(super) const fn begin(&mut self, until: Instant, now: Instant) {
        *self = Self::Draining { until, check: now };
    }

    /// Ends the drain time, if there is one.
    pub(super) const fn end_drain(&mut self, now: Instant) {
        if let Self::Draining { until, .. } = self {
            *until = now;
        }
    }

    /// Returns whether the work in progress is due for a check, and if so whether the drain time is
    /// over.
    pub(super) fn poll(&mut self, now: Instant) -> Option<bool> {
        let Self::Draining { until, check } = self else { return None };
        if *check > now && *until > now {
            return None;
        }
        *check = now + INTERVAL;
        Some(*until <= now)
    }

    pub(super) fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Draining { until, check } => {
                earliest([Some((until, Reason::Drain)), Some((check, Reason::Drain))])
            }
            Self::None | Self::Done => None,
        }
    }
}
