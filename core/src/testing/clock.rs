//! Virtual time, and the two clocks that each host makes of it.
//!
//! It decides the time on a host's clocks at an instant of the world. A host's monotonic clock
//! stands still while the host is suspended and never goes back; its wall clock goes on, and can be
//! set in either direction. No method waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The wall time at which every world begins, since the Unix epoch: 15 January 2027.
pub const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The instant at which every world begins.
///
/// It is the same for the life of the process, and has no meaning beyond that: worlds only ever
/// measure from it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from a number; the simulation anchors one and adds durations"
)]
pub fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The clocks of one host.
///
/// ```
/// use adit_core::testing::clock::{EPOCH, HostClock, origin};
/// use std::time::Duration;
/// let (mut clock, hour) = (HostClock::new(Duration::ZERO), Duration::from_secs(3600));
/// let (start, noon) = (origin(), origin() + hour);
/// let before = clock.monotonic(start);
/// clock.suspend(start);
/// clock.resume(noon);
/// assert_eq!(clock.monotonic(noon), before);
/// assert_eq!(clock.unix(noon), EPOCH + hour);
/// ```
#[derive(Debug, Clone)]
pub struct HostClock {
    /// Monotonic time runs ahead of the world by this much from the start.
    ahead: Duration,
    /// How long the host was suspended, up to the last resume.
    slept: Duration,
    suspended_at: Option<Instant>,
    /// The time of the wall clock at the start.
    wall: Wall,
}

#[derive(Debug, Clone, Copy)]
struct Wall {
    shown: Duration,
    at: Instant,
}

impl HostClock {
    /// Clocks of a host that was started `ahead` before the world began, so that the monotonic
    /// clocks of two hosts cannot be mistaken for one another.
    #[must_use]
    pub fn new(ahead: Duration) -> Self {
        Self {
            ahead,
            slept: Duration::ZERO,
            suspended_at: None,
            wall: Wall { shown: EPOCH, at: origin() },
        }
    }

    /// Returns the time of the monotonic clock at the world's instant `now`.
    #[must_use]
    pub fn monotonic(&self, now: Instant) -> Instant {
        self.suspended_at.unwrap_or(now) + self.ahead - self.slept
    }

    /// Returns the world's instant at which the monotonic clock will show `shown`, or did; `None`
    /// while the host is suspended.
    #[must_use]
    pub fn world(&self, shown: Instant) -> Option<Instant> {
        match self.suspended_at {
            Some(_) => None,
            None => (shown + self.slept).checked_sub(self.ahead),
        }
    }

    /// Returns the time of the wall clock at the world's instant `now`, since the Unix epoch.
    #[must_use]
    pub fn unix(&self, now: Instant) -> Duration {
        self.wall.shown + now.saturating_duration_since(self.wall.at)
    }

    /// Sets the wall clock; the monotonic clock does not notice.
    pub fn set_unix(&mut self, unix: Duration, now: Instant) {
        self.wall = Wall { shown: unix, at: now };
    }

    /// Returns true if the host is suspended.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.suspended_at.is_some()
    }

    /// Stops the monotonic clock. A host that is suspended already stays as it is.
    pub fn suspend(&mut self, now: Instant) {
        self.suspended_at.get_or_insert(now);
    }

    /// Lets the monotonic clock go on from where it stopped.
    pub fn resume(&mut self, now: Instant) {
        if let Some(since) = self.suspended_at.take() {
            self.slept += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn monotonic_time_stands_still_in_suspend_and_goes_on_from_there() {
        let mut clock = HostClock::new(5 * SECOND);
        let at = |s| origin() + s * SECOND;
        assert_eq!(clock.monotonic(at(10)), at(15));
        clock.suspend(at(10));
        clock.suspend(at(11));
        assert_eq!(clock.monotonic(at(20)), at(15));
        assert!(clock.is_suspended());
        clock.resume(at(20));
        clock.resume(at(25));
        assert_eq!(clock.monotonic(at(21)), at(16));
    }

    #[test]
    fn a_deadline_is_found_again_in_world_time_after_a_suspend() {
        let mut clock = HostClock::new(7 * SECOND);
        let at = |s| origin() + s * SECOND;
        let deadline = clock.monotonic(at(30));
        assert_eq!(clock.world(deadline), Some(at(30)));
        clock.suspend(at(10));
        assert_eq!(clock.world(deadline), None);
        clock.resume(at(110));
        assert_eq!(clock.world(deadline), Some(at(130)));
        assert_eq!(clock.monotonic(at(130)), deadline);
    }

    #[test]
    fn wall_time_runs_through_suspend_and_jumps_either_way() {
        let mut clock = HostClock::new(Duration::ZERO);
        let at = |s| origin() + s * SECOND;
        clock.suspend(at(0));
        assert_eq!(clock.unix(at(100)), EPOCH + 100 * SECOND);
        clock.resume(at(100));
        clock.set_unix(Duration::ZERO, at(100));
        assert_eq!(clock.unix(at(101)), SECOND);
        clock.set_unix(2 * EPOCH, at(101));
        assert_eq!(clock.unix(at(101)), 2 * EPOCH);
        assert_eq!(clock.monotonic(at(101)), at(1));
    }
}
