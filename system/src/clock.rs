//! Monotonic time that counts a suspended machine, and wall time.
//!
//! `Instant` does not advance while Linux or macOS sleeps. A node on such a clock would take a
//! night for a moment and trust a connection that its peer dropped long ago. Here the elapsed time
//! is read from a clock of the system that counts sleep. This file sets no deadline and waits for
//! none.
//!
//! | system | clock |
//! |---|---|
//! | Linux, Android | `CLOCK_BOOTTIME` |
//! | macOS, iOS and the other systems of Apple | `CLOCK_MONOTONIC`, which counts sleep there |
//! | Windows | `Instant`, with a performance counter that counts sleep |
//! | others | `Instant`, which may not advance during sleep |

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_core::drive::io::Clock;

/// A clock for one node that counts the time during which the machine was suspended.
///
/// Instants of different clocks cannot be compared after a suspension: each clock anchors its time
/// at its own start. A node and everything that passes instants to it share one.
///
/// ```
/// use adit_core::drive::io::Clock;
/// use adit_system::SystemClock;
///
/// let clock = SystemClock::new();
/// let start = clock.now();
/// assert!(clock.now() >= start);
/// assert!(!clock.unix().is_zero());
/// ```
#[derive(Debug)]
pub struct SystemClock {
    anchor: Instant,
    origin: Duration,
}

impl SystemClock {
    /// Returns a clock that starts at the present `Instant`.
    #[must_use]
    pub fn new() -> Self {
        let anchor = Instant::now();
        Self { anchor, origin: uptime(anchor) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    /// Returns monotonic time, suspensions included where the system counts them.
    fn now(&self) -> Instant {
        self.anchor + uptime(self.anchor).saturating_sub(self.origin)
    }

    /// Returns the time since the Unix epoch, or zero if the wall clock is set before it.
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// The clock of this system that counts sleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
const COUNTS_SLEEP: rustix::time::ClockId = rustix::time::ClockId::Boottime;

/// The clock of this system that counts sleep. `Instant` reads `CLOCK_UPTIME_RAW`, which does not.
#[cfg(target_vendor = "apple")]
const COUNTS_SLEEP: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn uptime(_anchor: Instant) -> Duration {
    // A negative time is treated as zero; the core clamps a clock that goes back.
    Duration::try_from(rustix::time::clock_gettime(COUNTS_SLEEP)).unwrap_or_default()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn uptime(anchor: Instant) -> Duration {
    anchor.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_advances_with_the_systems_and_never_goes_back() {
        let clock = SystemClock::new();
        let (before, first) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(20));
        let (second, after) = (clock.now(), Instant::now());
        assert!(second >= first + Duration::from_millis(20));
        assert!(second - first <= after - before + Duration::from_millis(1));
    }
}
