//! When a runtime's timer is set, and when a sleep of the driver is over.
//!
//! The clock decides: a timer that fires early is set again, and one that is set already is not
//! changed. It never waits by itself.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use adit_core::drive::io::Clock;

/// A timer of a runtime.
pub trait Timer {
    /// Sets it to fire after a time from now, in place of its previous time.
    fn set(&mut self, after: Duration);

    /// Ready once it has fired; otherwise it wakes the context's waker when it fires.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// [`Io::poll_sleep`](adit_core::drive::io::Io::poll_sleep) over a timer of a runtime.
pub struct Alarm<T> {
    clock: Arc<dyn Clock>,
    timer: T,
    armed: Option<Instant>,
}

impl<T> fmt::Debug for Alarm<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl<T: Timer> Alarm<T> {
    /// Returns an alarm that is not set.
    pub const fn new(clock: Arc<dyn Clock>, timer: T) -> Self {
        Self { clock, timer, armed: None }
    }

    /// Returns the clock that the instants of this alarm are of.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Ready at `until` or later, by the clock.
    pub fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            let left = until.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            if self.armed != Some(until) {
                self.timer.set(left);
                self.armed = Some(until);
            }
            ready!(self.timer.poll(cx));
            self.armed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::task::Waker;

    const SECOND: Duration = Duration::from_secs(1);

    struct Manual(Mutex<Instant>);

    impl Clock for Manual {
        fn now(&self) -> Instant {
            *self.0.lock().expect("nothing panics under it")
        }

        fn unix(&self) -> Duration {
            Duration::ZERO
        }
    }

    impl Manual {
        fn pass(&self, time: Duration) {
            *self.0.lock().expect("nothing panics under it") += time;
        }
    }

    /// Fires whenever it is polled after it was set, however early that is.
    #[derive(Default)]
    struct Hasty {
        set: Vec<Duration>,
        is_due: bool,
    }

    impl Timer for Hasty {
        fn set(&mut self, after: Duration) {
            self.set.push(after);
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if std::mem::take(&mut self.is_due) { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    #[test]
    fn the_clock_decides_and_the_timer_is_set_once_for_each_deadline() {
        let start = Instant::now();
        let clock = Arc::new(Manual(Mutex::new(start)));
        let mut alarm = Alarm::new(clock.clone(), Hasty::default());
        let mut cx = Context::from_waker(Waker::noop());

        assert!(alarm.poll(&mut cx, start).is_ready(), "what is due needs no timer");
        assert!(alarm.poll(&mut cx, start + SECOND).is_pending());
        assert!(alarm.poll(&mut cx, start + SECOND).is_pending());
        assert_eq!(alarm.timer.set, [SECOND]);

        clock.pass(SECOND / 4);
        alarm.timer.is_due = true;
        assert!(alarm.poll(&mut cx, start + SECOND).is_pending(), "it fired early");
        assert_eq!(alarm.timer.set, [SECOND, SECOND * 3 / 4]);

        assert!(alarm.poll(&mut cx, start + SECOND / 2).is_pending());
        assert_eq!(alarm.timer.set.last(), Some(&(SECOND / 4)));
        clock.pass(SECOND / 4);
        assert!(alarm.poll(&mut cx, start + SECOND / 2).is_ready());
        assert_eq!(alarm.timer.set.len(), 3);
    }
}
