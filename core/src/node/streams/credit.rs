//! How much this side may have unread at the peer, per stream, and what it reports as read.
//!
//! The transport has one window for every stream: large, so that one stream fills a long path. Here
//! the sender of the data limits each stream further, to what the application at the other end
//! keeps reading, so that many streams which nobody reads leave room for those that flow. It
//! decides these limits and when a report is due. It never moves a byte.
//!
//! ```text
//!                 reads fast: doubles, up to twice the congestion window
//!   first window ─────────────────────────────────────────────────────▶ window
//!                ◀─────────────────────────────────────────────────────
//!                 reads slowly: halves
//!
//!   limit = 8 KiB + min(window, part of what is free of the share of the budget)
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::STREAM_RESERVE;
use crate::message::MAX_CREDITS;

/// Bytes of every stream that are not counted, so that a stream never stops for the others, and a
/// short one costs no report.
pub(super) const FREE: u64 = STREAM_RESERVE as u64;

/// Bytes read since the last report that make a report due: half of what a stream may always have
/// unread, so that a full one is always reported.
const MIN_REPORT: u64 = FREE / 2;

/// A stream's window before the speed of its reader is known: a usual answer in one round trip.
const FIRST_WINDOW: u64 = 512 << 10;

/// Largest budget of a peer that counts.
const MAX_BUDGET: u64 = 1 << 32;

/// Bytes read from which a stream may use half of the budget instead of a quarter: its reader
/// exists.
const READING: u64 = 64 << 10;

/// Bytes read from which a stream may use the whole budget: more than the kernel's buffers between
/// an application and its peer hold.
const FLOWING: u64 = 8 << 20;

/// Bytes read from which a stream may use half of what is free. Below it, with nothing else unread,
/// its limit is four fifths of what was read: it nearly doubles in each round trip, as slow start
/// does.
const HALF: u64 = 40 << 20;

/// The budget of a peer that may still report one: the default.
const ASSUMED_BUDGET: u64 = 64 << 20;

/// Streams that are finished here, kept until their last byte is read: 5 MiB of them. Beyond it
/// they count as read.
const MAX_FINISHED: usize = 65_536;

/// Shortest and longest time between two reports, an eighth of the round trip between them.
const REPORT_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// The path of a connection, as the transport measures it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathState {
    pub(super) rtt: Duration,
    pub(super) congestion_window: u64,
}

/// The sending direction of one stream.
#[derive(Debug)]
struct Flow {
    sent: u64,
    /// What the peer reported as read, at most `sent`.
    read: u64,
    window: u64,
    /// What was read when the reader's speed was last checked, and when.
    checked: (u64, Instant),
    /// A write was held back.
    is_held: bool,
    is_finished: bool,
}

impl Flow {
    const fn new(now: Instant) -> Self {
        let window = FIRST_WINDOW;
        Self { sent: 0, read: 0, window, checked: (0, now), is_held: false, is_finished: false }
    }

    const fn unread(&self) -> u64 {
        self.sent - self.read
    }

    /// Returns the unread bytes that use the budget.
    fn counted(&self) -> u64 {
        self.sent.saturating_sub(self.read.max(FREE))
    }

    /// Returns how much may be unread, where the counted bytes of the others are `others`.
    fn limit(&self, budget: u64, others: u64, path: PathState) -> u64 {
        let share = match self.read {
            FLOWING.. => budget,
            READING.. => budget / 2,
            0.. => budget / 4,
        };
        let free = share.saturating_sub(others);
        // A part of what is free leaves room for every later stream.
        let part = (free / 64).max(free * self.read.min(HALF / 2) / HALF);
        let needed = path.congestion_window.saturating_mul(2).saturating_add(FIRST_WINDOW);
        FREE + self.window.min(part).min(needed)
    }

    /// Adapts the window to the speed of the reader.
    fn check(&mut self, path: PathState, now: Instant) {
        if self.read - self.checked.0 < self.window / 2 {
            return;
        }
        let took = now.saturating_duration_since(self.checked.1);
        let quick = 2 * path.rtt + 4 * REPORT_INTERVAL.0;
        if took <= quick {
            self.window = (self.window * 2).min(MAX_BUDGET);
        } else if took > 16 * quick {
            self.window = (self.window / 2).max(FIRST_WINDOW);
        }
        self.checked = (self.read, now);
    }
}

/// What is known of a peer's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Budget {
    /// The peer has sent no control message yet.
    Unknown,
    /// Its first message was another: it does not report what it reads.
    None,
    /// The bytes that it stores unread.
    Known(u64),
}

/// What this side may send on the streams of one connection.
#[derive(Debug)]
pub(super) struct SendCredit {
    budget: Budget,
    /// The counted bytes of all streams.
    used: u64,
    flows: BTreeMap<u64, Flow>,
}

impl Default for SendCredit {
    fn default() -> Self {
        Self { budget: Budget::Unknown, used: 0, flows: BTreeMap::new() }
    }
}

impl SendCredit {
    /// Handles the budget that the peer has now.
    pub(super) fn set_budget(&mut self, budget: u64) {
        self.budget = Budget::Known(budget.min(MAX_BUDGET));
    }

    /// Handles another message of a peer. If it is the first one, the peer does not report, and
    /// nothing is limited. Returns the streams whose writes were held back until then.
    pub(super) fn on_other_message(&mut self) -> Vec<u64> {
        if self.budget != Budget::Unknown {
            return Vec::new();
        }
        self.budget = Budget::None;
        let held = self.flows.iter_mut();
        held.filter_map(|(&stream, flow)| std::mem::take(&mut flow.is_held).then_some(stream))
            .collect()
    }

    /// Returns how many bytes may be written to a stream. If there are none, [`SendCredit::on_read`]
    /// returns true for the stream when there are some again.
    pub(super) fn room(&mut self, stream: u64, path: PathState, now: Instant) -> usize {
        let budget = match self.budget {
            Budget::Known(budget) => budget,
            Budget::Unknown => ASSUMED_BUDGET,
            Budget::None => return usize::MAX,
        };
        let flow = self.flows.entry(stream).or_insert_with(|| Flow::new(now));
        let limit = flow.limit(budget, self.used - flow.counted(), path);
        let room = limit.saturating_sub(flow.unread());
        flow.is_held = room == 0;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Counts bytes that were written.
    pub(super) fn on_written(&mut self, stream: u64, bytes: usize, now: Instant) {
        let flow = self.flows.entry(stream).or_insert_with(|| Flow::new(now));
        let before = flow.counted();
        flow.sent += bytes as u64;
        self.used += flow.counted() - before;
    }

    /// Handles the peer's report of what it has read of a stream. Returns true if a write that was
    /// held back can go on.
    pub(super) fn on_read(
        &mut self,
        stream: u64,
        read: u64,
        path: PathState,
        now: Instant,
    ) -> bool {
        let Some(flow) = self.flows.get_mut(&stream) else { return false };
        let read = read.min(flow.sent);
        if read <= flow.read {
            return false;
        }
        let before = flow.counted();
        flow.read = read;
        self.used -= before - flow.counted();
        flow.check(path, now);
        if flow.is_finished && flow.unread() == 0 {
            self.flows.remove(&stream);
            return false;
        }
        flow.is_held && self.room(stream, path, now) > 0
    }

    /// Handles a stream of which the peer has everything; what it has not read still counts.
    pub(super) fn on_finished(&mut self, stream: u64) {
        let is_crowded = self.flows.len() > MAX_FINISHED;
        let Some(flow) = self.flows.get_mut(&stream) else { return };
        flow.is_finished = true;
        if flow.counted() == 0 || is_crowded {
            self.on_reset(stream);
        }
    }

    /// Handles a stream that is reset: the peer discards what it has not read.
    pub(super) fn on_reset(&mut self, stream: u64) {
        if let Some(flow) = self.flows.remove(&stream) {
            self.used -= flow.counted();
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn audit(&self) {
        assert_eq!(self.used, self.flows.values().map(Flow::counted).sum::<u64>());
        let finished = self.flows.values().filter(|flow| flow.is_finished).count();
        assert!(finished <= MAX_FINISHED + 1, "{finished} finished streams");
    }
}

/// What this side has read and not reported yet.
#[derive(Debug, Default)]
pub(super) struct ReadReports {
    /// Whether the peer reports as well, and so understands reports.
    is_wanted: bool,
    pending: BTreeMap<u64, u64>,
    reported_at: Option<Instant>,
}

impl ReadReports {
    /// Handles a report of the peer.
    pub(super) const fn on_wanted(&mut self) {
        self.is_wanted = true;
    }

    /// Counts what was read of a stream in all; `reported` is what was last to be reported. Returns
    /// true if there was nothing to report before.
    pub(super) fn on_read(&mut self, stream: u64, read: u64, reported: &mut u64) -> bool {
        if !self.is_wanted {
            return false;
        }
        let is_first = self.pending.is_empty();
        if read - *reported >= MIN_REPORT || self.pending.contains_key(&stream) {
            self.pending.insert(stream, read);
            *reported = read;
        }
        is_first && !self.pending.is_empty()
    }

    /// Handles the end of a stream: no byte of it is stored any more. Returns the same.
    pub(super) fn on_over(&mut self, stream: u64) -> bool {
        let is_first = self.is_wanted && self.pending.is_empty();
        if self.is_wanted {
            self.pending.insert(stream, u64::MAX);
        }
        is_first
    }

    /// Returns when a report is due.
    pub(super) fn due(&self, rtt: Duration, now: Instant) -> Option<Instant> {
        let interval = (rtt / 8).clamp(REPORT_INTERVAL.0, REPORT_INTERVAL.1);
        let at = self.reported_at.map_or(now, |at| at + interval);
        (!self.pending.is_empty()).then_some(at.max(now))
    }

    /// Returns the next report.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(u64, u64)> {
        self.reported_at = Some(now);
        let mut report = std::mem::take(&mut self.pending);
        if let Some((&next, _)) = report.iter().nth(MAX_CREDITS) {
            self.pending = report.split_off(&next);
        }
        report.into_iter().collect()
    }

    /// Waits for another interval: the last report is not sent yet.
    pub(super) const fn postpone(&mut self, now: Instant) {
        self.reported_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PATH: PathState =
        PathState { rtt: Duration::from_millis(100), congestion_window: 64 << 20 };

    fn credit(budget: u64) -> (SendCredit, Instant) {
        let mut credit = SendCredit::default();
        credit.set_budget(budget);
        (credit, crate::testing::clock::origin())
    }

    /// Writes to a stream what there is room for.
    fn fill(credit: &mut SendCredit, stream: u64, now: Instant) -> u64 {
        let room = credit.room(stream, PATH, now);
        credit.on_written(stream, room, now);
        assert_eq!(credit.room(stream, PATH, now), 0);
        room as u64
    }

    #[test]
    fn a_peer_that_does_not_report_limits_nothing() {
        let (mut credit, now) = (SendCredit::default(), crate::testing::clock::origin());
        assert_eq!(fill(&mut credit, 4, now), FREE + MIB / 4);
        assert_eq!(credit.on_other_message(), [4]);
        assert_eq!(credit.room(4, PATH, now), usize::MAX);
        assert!(credit.on_other_message().is_empty());
    }

    #[test]
    fn every_stream_may_leave_its_reserve_unread() {
        let (mut credit, now) = credit(0);
        for stream in 0..20_000 {
            assert_eq!(fill(&mut credit, stream, now), FREE);
        }
        assert_eq!(credit.used, 0);
        assert!(credit.on_read(7, MIN_REPORT, PATH, now));
        assert_eq!(fill(&mut credit, 7, now), MIN_REPORT);
        assert!(!credit.on_read(7, MIN_REPORT, PATH, now), "an old report");
        assert!(credit.on_read(7, u64::MAX, PATH, now), "more than was sent is all that was sent");
    }

    #[test]
    fn streams_that_nobody_reads_share_a_quarter_of_the_budget() {
        let (mut credit, now) = credit(64 * MIB);
        let first = fill(&mut credit, 0, now);
        assert_eq!(first, FREE + 16 * MIB / 64);
        (1..10_000).for_each(|stream| {
            fill(&mut credit, stream, now);
        });
        credit.audit();
        assert!(credit.used > 15 * MIB && credit.used <= 16 * MIB, "{}", credit.used);
    }

    #[test]
    fn a_stream_that_is_read_gets_a_long_path_filled_beside_stalled_ones() {
        let (mut credit, mut now) = credit(64 * MIB);
        (0..10_000).for_each(|stream| {
            fill(&mut credit, stream, now);
        });
        let (stream, mut sent, mut turns) = (10_000, 0, 0);
        loop {
            let room = fill(&mut credit, stream, now);
            if room >= 12_500_000 {
                break;
            }
            (sent, turns, now) = (sent + room, turns + 1, now + PATH.rtt);
            credit.on_read(stream, sent, PATH, now);
            assert!(turns < 30, "{room} bytes a round trip after {turns} of them");
        }
        // 8 of them until the reader is known to exist.
        assert!(turns <= 24, "{turns}");
    }

    #[test]
    fn a_window_follows_the_reader_and_the_congestion_window() {
        let (mut credit, mut now) = credit(1 << 32);
        let mut read = 0;
        for _ in 0..12 {
            read += fill(&mut credit, 4, now);
            now += PATH.rtt;
            credit.on_read(4, read, PATH, now);
        }
        let narrow = PathState { congestion_window: MIB, ..PATH };
        assert!(credit.room(4, PATH, now) as u64 > 64 * MIB);
        assert_eq!(credit.room(4, narrow, now) as u64, FREE + 2 * MIB + FIRST_WINDOW);
        for _ in 0..40 {
            let unread = fill(&mut credit, 4, now);
            now += Duration::from_secs(60);
            read += unread;
            credit.on_read(4, read, PATH, now);
        }
        assert_eq!(credit.room(4, PATH, now) as u64, FREE + FIRST_WINDOW);
    }

    #[test]
    fn a_finished_stream_counts_until_it_is_read_and_a_reset_one_does_not() {
        let (mut credit, now) = credit(64 * MIB);
        let unread = fill(&mut credit, 4, now);
        credit.on_finished(4);
        assert_eq!(credit.used, unread - FREE);
        assert!(!credit.on_read(4, unread, PATH, now));
        fill(&mut credit, 8, now);
        credit.on_reset(8);
        credit.on_written(12, 100, now);
        credit.on_finished(12);
        assert_eq!((credit.used, credit.flows.len()), (0, 0));
    }

    #[test]
    fn finished_streams_that_are_never_reported_are_bounded() {
        let (mut credit, now) = credit(64 * MIB);
        for stream in 0..MAX_FINISHED as u64 + 1_000 {
            credit.on_written(stream, 10_000, now);
            credit.on_finished(stream);
        }
        credit.audit();
    }

    #[test]
    fn reports_are_collected_and_split() {
        let (mut reports, now) = (ReadReports::default(), crate::testing::clock::origin());
        let mut reported = 0;
        assert!(!reports.on_read(4, MIB, &mut reported), "the peer does not report");
        reports.on_wanted();
        assert!(!reports.on_read(4, MIN_REPORT - 1, &mut reported));
        assert!(reports.on_read(4, MIN_REPORT, &mut reported));
        assert!(!reports.on_read(4, MIN_REPORT + 1, &mut reported));
        assert_eq!(reports.due(PATH.rtt, now), Some(now));
        assert_eq!(reports.take(now), [(4, MIN_REPORT + 1)]);
        assert_eq!(reports.due(PATH.rtt, now), None);
        for stream in 0..MAX_CREDITS as u64 + 1 {
            reports.on_over(stream);
        }
        assert_eq!(reports.due(PATH.rtt, now), Some(now + PATH.rtt / 8));
        assert_eq!(reports.take(now).len(), MAX_CREDITS);
        assert_eq!(reports.take(now), [(MAX_CREDITS as u64, u64::MAX)]);
    }
}
