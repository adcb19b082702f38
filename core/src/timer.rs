//! Deadlines with their reasons, and an index of them by key.
//!
//! It decides which deadline is next. It never reads a clock, never sleeps, and does not know what
//! happens when a deadline passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

/// The reason of a deadline. The order breaks ties between equal instants: reasons that can still
/// save a connection come before reasons that end something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A timer of QUIC itself: loss detection, pacing, idle timeout (RFC 9002, RFC 9000 §10.1).
    Transport,
    /// A path to the peer is to be probed, reselected or pruned (docs/protocol.md, "Paths").
    Path,
    /// The next heartbeat is to be sent.
    Heartbeat,
    /// The answer to a heartbeat is due, or any other packet of the peer.
    HeartbeatAck,
    /// An attempt to connect, or a handshake that a peer began, has used up its time.
    Connect,
    /// The wait before the next attempt to connect is over.
    Reconnect,
    /// The link has been up long enough to count as stable.
    Stable,
    /// A request's deadline.
    Request,
    /// The header of a stream that a peer opened is due.
    Header,
    /// What was read of streams is to be reported to their sender.
    Credit,
    /// Output is waiting to be fetched.
    Output,
    /// Work was left for the next turn, so that other work comes between.
    Backlog,
    /// The drain time for work in progress ends.
    Drain,
    /// A peer's certificate ends, and its connection with it.
    Certificate,
    /// A relay lookup or registration is to be repeated.
    Relay,
    /// A registration at a relay ends, unless it is refreshed.
    Registration,
    /// A lookup that waits at a relay for its connector is answered.
    HeldLookup,
    /// The TCP fallback: UDP is suspected or probed, or a byte stream has used up its time.
    Fallback,
}

impl Reason {
    /// Returns the stable text of the reason, as logs and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Path => "path",
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatAck => "heartbeat_ack",
            Self::Connect => "connect",
            Self::Reconnect => "reconnect",
            Self::Stable => "stable",
            Self::Request => "request",
            Self::Header => "header",
            Self::Credit => "credit",
            Self::Output => "output",
            Self::Backlog => "backlog",
            Self::Drain => "drain",
            Self::Certificate => "certificate",
            Self::Relay => "relay",
            Self::Registration => "registration",
            Self::HeldLookup => "held_lookup",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A deadline of a machine, and its reason.
pub type Deadline = (Instant, Reason);

/// Returns the earliest of several deadlines; at the same instant, the first in the order of
/// [`Reason`].
#[must_use]
pub(crate) fn earliest(deadlines: impl IntoIterator<Item = Option<Deadline>>) -> Option<Deadline> {
    deadlines.into_iter().flatten().min()
}

/// At most one deadline per key, indexed by time: setting, clearing and taking cost `O(log n)`,
/// reading the next one does not depend on how many there are.
#[derive(Debug, Clone)]
pub(crate) struct Timers<K> {
    order: BTreeSet<(Deadline, K)>,
    by_key: BTreeMap<K, Deadline>,
}

impl<K: Ord + Copy> Timers<K> {
    /// Returns timers without deadlines.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { order: BTreeSet::new(), by_key: BTreeMap::new() }
    }

    /// Replaces the deadline of `key`; `None` clears it.
    pub(crate) fn set(&mut self, key: K, deadline: Option<Deadline>) {
        let old = match deadline {
            Some(new) => self.by_key.insert(key, new),
            None => self.by_key.remove(&key),
        };
        if old == deadline {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, key));
        }
        if let Some(new) = deadline {
            self.order.insert((new, key));
        }
    }

    /// Returns the earliest deadline.
    #[must_use]
    pub(crate) fn next(&self) -> Option<Deadline> {
        self.order.first().map(|&(deadline, _)| deadline)
    }

    /// Takes the earliest deadline that has been reached: at `now` or before it. Its key has no
    /// deadline then, until one is set.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(K, Reason)> {
        let &((at, reason), key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.by_key.remove(&key);
        Some((key, reason))
    }

    /// Returns how many keys have a deadline.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns true if no key has a deadline.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other origin; tests only add to it"
)]
pub(crate) fn anchor() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence::Direct;
    use std::time::Duration;

    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn equal_instants_are_ordered_by_their_reasons() {
        let now = anchor();
        let (a, b) = ((now, Reason::Heartbeat), (now, Reason::Drain));
        assert_eq!(earliest([Some(b), Some(a)]), Some(a));
    }

    #[test]
    fn every_reason_serialises_as_its_text() {
        for reason in [
            Reason::Transport,
            Reason::Path,
            Reason::Heartbeat,
            Reason::HeartbeatAck,
            Reason::Connect,
            Reason::Reconnect,
            Reason::Stable,
            Reason::Request,
            Reason::Header,
            Reason::Drain,
            Reason::Registration,
            Reason::HeldLookup,
            Reason::Fallback,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(reason.to_string(), reason.as_str());
        }
    }

    #[test]
    fn a_deadline_is_due_exactly_at_its_instant_and_not_before() {
        let now = anchor();
        let mut timers = Timers::default();
        timers.set(1, Some((now + TICK, Reason::Connect)));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(now + TICK), Some((1, Reason::Connect)));
        assert_eq!(timers.pop_due(now + TICK), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_new_deadline_replaces_the_old_one() {
        let now = anchor();
        let mut timers = Timers::new();
        timers.set(1, Some((now, Reason::Heartbeat)));
        timers.set(1, Some((now + TICK, Reason::HeartbeatAck)));
        assert_eq!((timers.len(), timers.next()), (1, Some((now + TICK, Reason::HeartbeatAck))));
        timers.set(1, None);
        timers.set(2, None);
        assert_eq!((timers.len(), timers.next()), (0, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(Direct(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/timer.txt"
            )))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_index_agrees_with_a_scan_over_all_keys(
            ops in prop::collection::vec((0u8..8, prop::option::of(0u64..20), 0u64..20), 0..100)
        ) {
            let start = anchor();
            let mut timers = Timers::new();
            let mut model: BTreeMap<u8, Deadline> = BTreeMap::new();
            for (key, at, pop_at) in ops {
                let deadline = at.map(|at| (start + TICK * at as u32, Reason::Request));
                timers.set(key, deadline);
                match deadline {
                    Some(deadline) => { model.insert(key, deadline); }
                    None => { model.remove(&key); }
                }
                let now = start + TICK * pop_at as u32;
                if let Some((key, reason)) = timers.pop_due(now) {
                    let scanned = model.iter().map(|(&k, &d)| (d, k)).min();
                    let ((at, scanned_reason), scanned_key) = scanned.unwrap();
                    prop_assert!(at <= now);
                    prop_assert_eq!((key, reason), (scanned_key, scanned_reason));
                    model.remove(&key);
                } else {
                    prop_assert!(model.values().all(|&(at, _)| at > now));
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.order.len(), model.len());
            }
        }
    }

    #[test]
    fn the_earliest_of_several_deadlines() {
        use crate::timer::{Reason, earliest};
        use std::time::Duration;
        let now = anchor();
        let ack = Some((now + Duration::from_secs(10), Reason::HeartbeatAck));
        let next = Some((now + Duration::from_secs(30), Reason::Heartbeat));
        assert_eq!(earliest([next, None, ack]), ack);
        assert_eq!(earliest([]), None);
    }

    #[test]
    fn timers_are_popped_when_due() {
        use crate::timer::{Reason, Timers};
        use std::time::Duration;
        let (now, second) = (anchor(), Duration::from_secs(1));
        let mut timers = Timers::new();
        timers.set("slow", Some((now + 2 * second, Reason::Transport)));
        timers.set("quick", Some((now + second, Reason::Request)));
        assert_eq!(timers.next(), Some((now + second, Reason::Request)));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(now + second), Some(("quick", Reason::Request)));
    }
}
