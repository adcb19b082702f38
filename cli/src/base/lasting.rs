//! The log lines of a state that lasts, such as a file that cannot be read: one when it begins, one
//! when its cause changes, one every ten minutes with a count, and one when it ends. It decides
//! when a line is due, and never writes one.

use std::time::{Duration, Instant};

/// Time between two lines about a state that has not changed.
const REMINDER_INTERVAL: Duration = Duration::from_secs(600);

/// A state that may begin and end.
#[derive(Debug, Default)]
pub(crate) struct LastingState {
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    cause: String,
    since: Instant,
    logged: Instant,
    /// Observations since the state began.
    count: u64,
}

impl LastingState {
    /// Records that the state was observed. Returns the line that is due, if one is.
    pub(crate) fn on_observed(&mut self, cause: String, now: Instant) -> Option<String> {
        let Some(present) = self.present.as_mut().filter(|present| present.cause == cause) else {
            let (since, count) = self.present.as_ref().map_or((now, 0), |p| (p.since, p.count));
            let line = cause.clone();
            self.present = Some(Present { cause, since, logged: now, count: count + 1 });
            return Some(line);
        };
        present.count += 1;
        if now.saturating_duration_since(present.logged) < REMINDER_INTERVAL {
            return None;
        }
        present.logged = now;
        let minutes = now.saturating_duration_since(present.since).as_secs() / 60;
        Some(format!("{cause} (for {minutes} min, seen {} times)", present.count))
    }

    /// Records that the state is over. Returns how long it lasted and how often it was observed, if
    /// it had begun.
    pub(crate) fn on_ended(&mut self, now: Instant) -> Option<String> {
        let present = self.present.take()?;
        let seconds = now.saturating_duration_since(present.since).as_secs_f64();
        Some(format!("after {seconds:.1} s, seen {} times", present.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_logged_when_it_begins_changes_lasts_and_ends() {
        let (mut state, start) = (LastingState::default(), Instant::now());
        let mut lines = Vec::new();
        for second in 0..1_201 {
            let now = start + Duration::from_secs(second);
            lines.extend(state.on_observed("no file".to_owned(), now));
        }
        let expected = [
            "no file",
            "no file (for 10 min, seen 601 times)",
            "no file (for 20 min, seen 1201 times)",
        ];
        assert_eq!(lines, expected);
        let end = start + Duration::from_secs(1_201);
        assert_eq!(state.on_observed("no space".to_owned(), end).as_deref(), Some("no space"));
        assert_eq!(state.on_ended(end).as_deref(), Some("after 1201.0 s, seen 1202 times"));
        assert_eq!(state.on_ended(end), None);
    }
}
