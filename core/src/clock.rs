//! Time as the node sees it: monotonic time that never goes back, and wall time derived from it.
//!
//! Callers pass `now` with every call. A caller's clock that goes back is clamped here, once, so
//! that the machines need not handle it. Wall time is an input too: it is set at the start and
//! whenever the caller has a better value, and between those it advances with monotonic time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Both times of a node.
#[derive(Debug)]
pub struct ClampedClock {
    now: Instant,
    wall: WallClock,
    wall_from: (Instant, Duration),
}

/// The wall time of a node, shared with the certificate checks of its TLS sessions.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicU64>);

impl WallClock {
    /// Returns the time since the Unix epoch, in whole milliseconds.
    #[must_use]
    pub fn unix(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, unix: Duration) {
        self.0.store(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl ClampedClock {
    pub(crate) fn new(now: Instant, unix: Duration) -> Self {
        let wall = WallClock::default();
        wall.set(unix);
        Self { now, wall, wall_from: (now, unix) }
    }

    /// Moves on to `now`, unless it lies behind; returns the resulting time.
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        if now > self.now {
            self.now = now;
            let (since, unix) = self.wall_from;
            self.wall.set(unix.saturating_add(now.saturating_duration_since(since)));
        }
        self.now
    }

    /// Sets the wall time as of the latest monotonic time.
    pub(crate) fn set_unix(&mut self, unix: Duration) {
        self.wall_from = (self.now, unix);
        self.wall.set(unix);
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn unix(&self) -> Duration {
        self.wall.unix()
    }

    pub(crate) const fn wall(&self) -> &WallClock {
        &self.wall
    }
}
