//! Requests that wait for a connection: bounded, ordered by priority, each with its deadline.
//!
//! It decides which item is next, which is too late and which does not fit. It never sends, never
//! reads a clock, and does not know what an item is.

pub use crate::message::Priority;
use crate::timer::{Deadline, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

/// Most items that may overtake the head of a waiting class, plus one when both lower classes have
/// waited that long. Without a bound, a steady stream of urgent requests would let others pass
/// their deadlines unsent; with 16, urgent ones keep nine tenths of the turns.
pub(crate) const MAX_OVERTAKES: u32 = 16;

/// How much a [`PriorityQueue`] holds: 100 items by default, which a reconnect sends immediately,
/// and 32 MiB, which is three requests of the largest size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    items: usize,
    bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { items: 100, bytes: 32 * 1024 * 1024 }
    }
}

/// Whether the caller that pushes should slow down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pressure {
    /// Less than 80 % of both limits is in use.
    Relaxed,
    /// At least 80 % of a limit is in use.
    Pressured,
}

/// The id of an item in its queue; never reused within the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(u64);

/// An accepted item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Its name, for [`PriorityQueue::remove`].
    pub slot: Slot,
    /// The pressure of the queue including it.
    pub pressure: Pressure,
}

/// The limit that an item would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The number of items.
    Items,
    /// The number of bytes.
    Bytes,
}

/// There is no room for the item, which is returned to the caller. The queue is unchanged.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Full<T> {
    /// The item that did not fit.
    pub item: T,
    /// The limit that it would exceed.
    pub limit: Limit,
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.limit {
            Limit::Items => "the queue holds as many items as it may",
            Limit::Bytes => "the queue has too few bytes left for the item",
        })
    }
}

impl<T> std::error::Error for Full<T> {}

/// An item taken from the queue in its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Popped<T> {
    /// The name it had.
    pub slot: Slot,
    /// How urgent it is.
    pub priority: Priority,
    /// The item.
    pub item: T,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its deadline.
    pub deadline: Option<Instant>,
}

/// The fates of the items. `accepted` is always the sum of the others and of the queued ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(crate) struct Counts {
    /// Taken in.
    pub accepted: u64,
    /// Taken out in turn.
    pub delivered: u64,
    /// Too late.
    pub expired: u64,
    /// Taken out by name.
    pub removed: u64,
}

#[derive(Debug, Clone)]
struct QueuedItem<T> {
    priority: Priority,
    item: T,
    bytes: usize,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Class {
    waiting: BTreeSet<Slot>,
    overtaken: u32,
}

/// A bounded queue: high before normal before low, first come first served within each, and no
/// class waits for more than [`MAX_OVERTAKES`] + 1 items of others.
#[derive(Debug, Clone)]
pub(crate) struct PriorityQueue<T> {
    limits: QueueLimits,
    entries: BTreeMap<Slot, QueuedItem<T>>,
    classes: [Class; 3],
    deadlines: BTreeSet<(Instant, Slot)>,
    bytes: usize,
    counts: Counts,
}

impl<T> PriorityQueue<T> {
    /// Returns an empty queue.
    #[must_use]
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            classes: Default::default(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// Adds an item that counts as `bytes`. A `deadline` in the past is accepted too, and expires
    /// with the next [`PriorityQueue::expire`].
    ///
    /// # Errors
    /// When the item would exceed a limit; it is returned.
    pub(crate) fn push(
        &mut self,
        priority: Priority,
        item: T,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<Accepted, Full<T>> {
        if self.entries.len() >= self.limits.items {
            return Err(Full { item, limit: Limit::Items });
        }
        if bytes > self.limits.bytes - self.bytes {
            return Err(Full { item, limit: Limit::Bytes });
        }
        let slot = Slot(self.counts.accepted);
        self.counts.accepted += 1;
        self.bytes += bytes;
        self.class(priority).waiting.insert(slot);
        self.deadlines.extend(deadline.map(|at| (at, slot)));
        self.entries.insert(slot, QueuedItem { priority, item, bytes, deadline });
        Ok(Accepted { slot, pressure: self.pressure() })
    }

    /// Removes the item that is next. Deadlines are not checked: call [`PriorityQueue::expire`]
    /// first.
    pub(crate) fn pop(&mut self) -> Option<Popped<T>> {
        let turn = self.turn()?;
        let slot = *self.class(turn).waiting.first()?;
        let QueuedItem { priority, item, bytes, deadline } = self.take(slot)?;
        self.counts.delivered += 1;
        for other in Priority::ALL {
            let class = self.class(other);
            if other == turn || class.waiting.is_empty() {
                class.overtaken = 0;
            } else {
                class.overtaken += 1;
            }
        }
        Some(Popped { slot, priority, item, bytes, deadline })
    }

    /// Returns the item that is next.
    #[must_use]
    pub(crate) fn peek(&self) -> Option<&T> {
        let slot = self.classes[self.turn()? as usize].waiting.first()?;
        self.entries.get(slot).map(|entry| &entry.item)
    }

    /// Removes the items with a deadline at `now` or before it, earliest first. Items that the
    /// caller does not take from the iterator stay.
    pub(crate) fn expire(&mut self, now: Instant) -> impl Iterator<Item = T> {
        std::iter::from_fn(move || {
            let &(at, slot) = self.deadlines.first()?;
            if at > now {
                return None;
            }
            let entry = self.take(slot)?;
            self.counts.expired += 1;
            Some(entry.item)
        })
    }

    /// Removes one item by its slot, at any position; `None` when it has left.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.take(slot)?;
        self.counts.removed += 1;
        Some(entry.item)
    }

    /// Returns the earliest deadline of the items.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadlines.first().map(|&(at, _)| (at, Reason::Request))
    }

    /// Returns true if at least 80 % of the items or of the bytes is in use.
    #[must_use]
    pub(crate) fn is_pressured(&self) -> bool {
        let four_fifths = |limit: usize| limit - limit / 5;
        self.entries.len() >= four_fifths(self.limits.items)
            || self.bytes >= four_fifths(self.limits.bytes)
    }

    /// Returns [`PriorityQueue::is_pressured`] as a value.
    #[must_use]
    pub(crate) fn pressure(&self) -> Pressure {
        if self.is_pressured() { Pressure::Pressured } else { Pressure::Relaxed }
    }

    /// Returns how many items wait.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if no item waits.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many bytes the waiting items count as.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns where the items went.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    fn turn(&self) -> Option<Priority> {
        let waits = |priority: &Priority| !self.classes[*priority as usize].waiting.is_empty();
        let starved =
            |priority: &Priority| self.classes[*priority as usize].overtaken >= MAX_OVERTAKES;
        let mut least_urgent_first = Priority::ALL.into_iter().rev();
        least_urgent_first
            .find(|priority| waits(priority) && starved(priority))
            .or_else(|| Priority::ALL.into_iter().find(waits))
    }

    const fn class(&mut self, priority: Priority) -> &mut Class {
        &mut self.classes[priority as usize]
    }

    fn take(&mut self, slot: Slot) -> Option<QueuedItem<T>> {
        let entry = self.entries.remove(&slot)?;
        self.bytes -= entry.bytes;
        let class = self.class(entry.priority);
        class.waiting.remove(&slot);
        if class.waiting.is_empty() {
            class.overtaken = 0;
        }
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, slot));
        }
        Some(entry)
    }
}

impl<T> Default for PriorityQueue<T> {
    fn default() -> Self {
        Self::new(QueueLimits::default())
    }
}

#[cfg(test)]
mod tests;
