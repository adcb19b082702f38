//! The log lines of what peers cause: for each peer and cause a few a minute, and the number of those
//! that were left out. It decides which line is due, so that no peer fills a disk with lines.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time in which a peer and cause have their lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Peers and causes that are counted apart; all others share one line a minute. At 200 bytes each
/// they take 200 KiB.
const MAX_KEYS: usize = 1_024;

/// What the peers and causes beyond the limit are counted under.
const OTHERS: (&str, &str) = ("others", "");

/// A tally of lines.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Lines of one peer and cause in an interval.
    lines: u32,
    counted: Mutex<BTreeMap<(String, String), Counted>>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The first line of the interval.
    began: Instant,
    lines: u32,
    /// Lines since the last one that was written.
    left_out: u64,
}

impl Tally {
    /// Returns a tally that lets this many lines a minute pass, of each peer and cause.
    pub(crate) const fn new(lines: u32) -> Self {
        Self { lines, counted: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the end of the line about a cause, if the line is due: empty, or the number of lines
    /// that were left out.
    pub(crate) fn due(&self, peer: &str, cause: &str) -> Option<String> {
        self.due_at(peer, cause, Instant::now())
    }

    fn due_at(&self, peer: &str, cause: &str, now: Instant) -> Option<String> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |counted: &Counted| now.saturating_duration_since(counted.began) >= INTERVAL;
        let mut key = (peer.to_owned(), cause.to_owned());
        if counted.len() >= MAX_KEYS && !counted.contains_key(&key) {
            counted.retain(|_, one| !is_over(one) || one.left_out > 0);
            if counted.len() >= MAX_KEYS {
                key = (OTHERS.0.to_owned(), OTHERS.1.to_owned());
            }
        }
        match counted.get_mut(&key) {
            None => {
                counted.insert(key, Counted { began: now, lines: 1, left_out: 0 });
                Some(String::new())
            }
            Some(one) if is_over(one) => {
                let left_out = std::mem::take(&mut one.left_out);
                (one.began, one.lines) = (now, 1);
                Some(match left_out {
                    0 => String::new(),
                    count => format!(" (and {count} more like this)"),
                })
            }
            Some(one) if one.lines < self.lines => {
                one.lines += 1;
                Some(String::new())
            }
            Some(one) => {
                one.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_cause_of_a_peer_has_one_line_a_minute_with_a_count() {
        let (tally, start) = (Tally::new(1), Instant::now());
        let due = |peer, second| tally.due_at(peer, "refused", start + S(second));
        assert_eq!(due("laptop", 0).as_deref(), Some(""));
        assert_eq!(due("desk", 0).as_deref(), Some(""));
        assert!((1..60).all(|second| due("laptop", second).is_none()));
        assert_eq!(due("laptop", 60).as_deref(), Some(" (and 59 more like this)"));
        assert_eq!(due("laptop", 120).as_deref(), Some(""));
    }

    #[test]
    fn some_lines_a_minute_pass_and_not_one_more() {
        let (tally, start) = (Tally::new(3), Instant::now());
        let due = |second| tally.due_at("laptop", "connected", start + S(second)).is_some();
        let passed = |from: u64| (from..from + 60).filter(|&second| due(second)).count();
        assert_eq!((passed(0), passed(60)), (3, 3));
    }

    #[test]
    fn many_peers_take_a_bounded_memory_and_number_of_lines() {
        let (tally, start) = (Tally::new(1), Instant::now());
        let lines =
            (0..10 * MAX_KEYS).filter(|n| tally.due_at(&n.to_string(), "refused", start).is_some());
        assert_eq!(lines.count(), MAX_KEYS + 1);
        let kept = tally.counted.lock().unwrap().len();
        assert!(kept <= MAX_KEYS + 1, "{kept}");
    }
}
