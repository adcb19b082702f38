//! Things that happen at an instant, taken in order of time and, at one instant, of arrival.
//!
//! It decides only the order: ties never depend on the content of the entries.

use std::collections::BTreeMap;
use std::time::Instant;

/// A queue ordered by time, first come first served within an instant.
///
/// ```
/// use adit_core::testing::{agenda::Agenda, clock::origin};
/// use std::time::Duration;
/// let (mut agenda, now) = (Agenda::new(), origin());
/// agenda.push("second", now + Duration::from_secs(1));
/// agenda.push("third", now + Duration::from_secs(1));
/// agenda.push("first", now);
/// assert_eq!(agenda.pop(now), Some("first"));
/// assert_eq!(agenda.pop(now), None);
/// assert_eq!(agenda.next_at(), Some(now + Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone)]
pub struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    pushed: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Agenda<T> {
    /// Returns an empty agenda.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), pushed: 0 }
    }

    /// Puts `entry` at `at`, after all entries of the same instant.
    pub fn push(&mut self, entry: T, at: Instant) {
        self.entries.insert((at, self.pushed), entry);
        self.pushed += 1;
    }

    /// Returns when the next entry is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes the next entry, if it is due.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, entry)| entry)
    }

    /// Returns all entries in the order in which they come, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut()
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::clock::origin;
    use std::time::Duration;

    #[test]
    fn an_entry_is_due_exactly_at_its_instant() {
        let (mut agenda, at) = (Agenda::new(), origin() + Duration::from_secs(1));
        agenda.push((), at);
        assert_eq!(agenda.pop(at - Duration::from_nanos(1)), None);
        assert_eq!(agenda.len(), 1);
        assert_eq!(agenda.pop(at), Some(()));
        assert!(agenda.is_empty());
    }

    #[test]
    fn entries_of_one_instant_come_in_the_order_they_were_put() {
        let (mut agenda, at) = (Agenda::new(), origin());
        for n in (0..100).rev() {
            agenda.push(n, at);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop(at)).collect();
        assert_eq!(order, (0..100).rev().collect::<Vec<_>>());
    }
}
