//! The last lifecycle events, for people and for `--json`.
//!
//! It decides which records are kept and which pass a filter. It never acts on them.

use crate::error::Failure;
use crate::id::PeerId;
use std::collections::VecDeque;
use std::time::Duration;

/// How many records are kept: a night of an unsteady link, in some tens of kilobytes at most. A
/// peer that reconnects without end replaces old records and uses no further memory.
pub const CAPACITY: usize = 100;

/// The kind of event of a [`Record`]: the state that a peer entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A first connection is being made.
    Connecting,
    /// The connection is up.
    Connected,
    /// The connection was lost, or an attempt to make it again failed.
    Reconnecting,
    /// It was given up.
    Failed,
    /// It is no longer wanted.
    Disconnected,
}

impl RecordKind {
    /// Returns the stable text of the kind, as logs and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// When, as time since the Unix epoch; serialised as `at_ms`, in whole milliseconds.
    #[serde(rename = "at_ms", serialize_with = "as_ms")]
    pub at: Duration,
    /// The peer.
    pub peer: PeerId,
    /// The kind of event.
    pub kind: RecordKind,
    /// Why, where there is a why.
    pub cause: Option<Failure>,
}

fn as_ms<S: serde::Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The criteria for records; by default all match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordFilter {
    /// Only this kind.
    pub kind: Option<RecordKind>,
    /// Only from this time on, since the Unix epoch.
    pub from: Option<Duration>,
    /// Only before this time, since the Unix epoch.
    pub until: Option<Duration>,
}

impl RecordFilter {
    /// Returns true if a record is wanted.
    #[must_use]
    pub fn is_match(&self, record: &Record) -> bool {
        self.kind.is_none_or(|kind| record.kind == kind)
            && self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at < until)
    }
}

/// The last [`CAPACITY`] records, oldest first.
///
/// ```
/// use adit_core::history::{RecordFilter, History, RecordKind};
/// let history = History::new();
/// let lost = RecordFilter { kind: Some(RecordKind::Reconnecting), ..RecordFilter::default() };
/// assert_eq!(history.filter(lost).count(), 0);
/// assert_eq!(history.to_json(), "[]");
/// ```
#[derive(Debug, Clone, Default)]
pub struct History {
    records: VecDeque<Record>,
}

impl History {
    /// Returns an empty history.
    #[must_use]
    pub const fn new() -> Self {
        Self { records: VecDeque::new() }
    }

    /// Adds a record, in place of the oldest when [`CAPACITY`] is reached.
    pub fn push(&mut self, record: Record) {
        if self.records.len() == CAPACITY {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// Returns all records, in the order in which they were added.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.records.iter()
    }

    /// Returns the records that a filter lets through, in the same order. Wall time may be set back
    /// between two records, so a window can leave gaps.
    pub fn filter(&self, filter: RecordFilter) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter().filter(move |record| filter.is_match(record))
    }

    /// Returns all records as a JSON array. For some of them, collect [`History::filter`]:
    /// [`Record`] can be serialised too.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.records)
            .expect("records have string keys only, and no serialiser of theirs fails")
    }

    /// Returns how many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns true if there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_capacity_is_kept_and_one_more_pushes_out_the_oldest() {
        let mut history = History::default();
        assert!(history.is_empty());
        (0..CAPACITY as u64).for_each(|at| history.push(record(at, RecordKind::Connected)));
        assert_eq!((history.len(), first(&history)), (100, Duration::from_millis(0)));
        history.push(record(1_000, RecordKind::Failed));
        assert_eq!((history.len(), first(&history)), (100, Duration::from_millis(1)));
        assert_eq!(history.iter().next_back().map(|record| record.kind), Some(RecordKind::Failed));
    }

    #[test]
    fn a_window_includes_its_beginning_and_not_its_end() {
        let mut history = History::new();
        (0..10).for_each(|at| history.push(record(at, RecordKind::Connected)));
        let filter = RecordFilter {
            from: Some(Duration::from_millis(3)),
            until: Some(Duration::from_millis(6)),
            ..RecordFilter::default()
        };
        let found: Vec<_> = history.filter(filter).map(|record| record.at.as_millis()).collect();
        assert_eq!(found, [3, 4, 5]);
    }

    #[test]
    fn a_filter_by_kind_leaves_the_others_out_and_no_filter_none() {
        let mut history = History::new();
        for (at, kind) in (0..).zip(KINDS) {
            history.push(record(at, kind));
        }
        for kind in KINDS {
            let only = RecordFilter { kind: Some(kind), ..RecordFilter::default() };
            assert!(history.filter(only).map(|record| record.kind).eq([kind]));
        }
        assert_eq!(history.filter(RecordFilter::default()).count(), KINDS.len());
    }

    #[test]
    fn the_whole_history_as_json() {
        let mut history = History::new();
        for (at, kind) in (1_700_000_000_000..).zip(KINDS) {
            history.push(record(at, kind));
        }
        let value: serde_json::Value = serde_json::from_str(&history.to_json()).unwrap();
        for (kind, record) in KINDS.iter().zip(value.as_array().unwrap()) {
            assert_eq!(record["kind"], kind.as_str());
        }
        insta::assert_json_snapshot!(value);
    }

    const KINDS: [RecordKind; 5] = [
        RecordKind::Connecting,
        RecordKind::Connected,
        RecordKind::Reconnecting,
        RecordKind::Failed,
        RecordKind::Disconnected,
    ];

    fn record(at_ms: u64, kind: RecordKind) -> Record {
        let cause = match kind {
            RecordKind::Reconnecting | RecordKind::Failed => {
                Some(Failure::new(Code::TimedOut, "no answer"))
            }
            RecordKind::Connecting | RecordKind::Connected | RecordKind::Disconnected => None,
        };
        Record { at: Duration::from_millis(at_ms), peer: PeerId(7), kind, cause }
    }

    fn first(history: &History) -> Duration {
        history.iter().next().unwrap().at
    }
}
