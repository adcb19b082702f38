//! Monotonic time that notices a suspended machine, and wall time.
//!
//! `Instant` stands still while Linux sleeps, so that a node would take a night for an instant and
//! trust a connection its peer forgot long ago. Here the elapsed time is that of `CLOCK_BOOTTIME`,
//! which goes on. It decides no deadline and waits for none.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_core::drive::io::Clock;

/// The clock of one node.
#[derive(Debug)]
pub struct SystemClock {
    anchor: Instant,
    origin: Duration,
}

impl SystemClock {
    pub fn new() -> Self {
        let anchor = Instant::now();
        Self { anchor, origin: uptime(anchor) }
    }
}

impl Clock for SystemClock {
    /// Monotonic time, suspensions included where the system tells of them.
    fn now(&self) -> Instant {
        self.anchor + uptime(self.anchor).saturating_sub(self.origin)
    }

    /// Time since the Unix epoch; the epoch itself on a machine whose clock is set before it.
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(target_os = "linux")]
fn uptime(_anchor: Instant) -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).expect("the boot clock starts at zero and never goes back")
}

#[cfg(not(target_os = "linux"))]
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
