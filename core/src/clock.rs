//! Time as the node sees it: monotonic time that never goes back, and wall time derived from it.
//!
//! Callers pass `now` with every call. A caller's clock that goes back is clamped here, once, so
//! that no machine behind it has to think of it. Wall time is an input too: it is set at the start
//! and whenever the caller learns better, and between those it advances with monotonic time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Both times of a node.
#[derive(Debug)]
pub struct Clock {
    now: Instant,
    wall: WallClock,
}

/// The wall time of a node, shared with the certificate checks of its TLS sessions.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicU64>);

impl WallClock {
    /// Time since the Unix epoch, in whole milliseconds.
    #[must_use]
    pub fn unix(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, unix: Duration) {
        self.0.store(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
