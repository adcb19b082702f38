//! What a connection delivers, and how fast: bytes between the sending of a batch and its
//! acknowledgement (draft-ietf-ccwg-bbr, "Delivery Rate Samples").
//!
//! It measures, and decides nothing. The transport names an acknowledged or lost packet by the time
//! at which it was sent, so that the batches of one instant are one entry; of a fast and long path
//! an entry is a short time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Entries that are remembered. Where there would be more, an entry is of a longer time.
const REMEMBERED: usize = 4_096;
/// The time of an entry, once batches of one instant are too many.
const FIRST_STEP: Duration = Duration::from_micros(100);
/// How long a batch is remembered after a later one was acknowledged.
const KEPT: Duration = Duration::from_secs(2);
/// A batch of at most this many bytes has no data: an acknowledgement.
const SMALL: u64 = 100;

/// The state of a connection when a batch was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    /// When the batch was sent that was acknowledged last before this was sent.
    first_sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    lost: u64,
    in_flight: u64,
    is_app_limited: bool,
}

/// What one acknowledgement shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes that it acknowledges.
    pub(super) acked: u64,
    /// When the newest of its packets was sent.
    pub(super) sent: Instant,
    /// From the sending of the newest packet to its acknowledgement.
    pub(super) rtt: Duration,
    /// Bytes a second; none where the interval is too short to be measured.
    pub(super) rate: Option<f64>,
    /// Bytes delivered in that interval.
    pub(super) delivered: u64,
    /// Bytes that had been delivered in all when the newest packet was sent.
    pub(super) delivered_before: u64,
    /// Bytes in flight when it was sent.
    pub(super) in_flight: u64,
    /// The application had less to send than the path carries.
    pub(super) is_app_limited: bool,
}

/// What a loss shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct LostBatch {
    /// Bytes in flight when the latest lost packet was sent.
    pub(super) in_flight: u64,
    /// Bytes that were lost since.
    pub(super) lost: u64,
    pub(super) is_app_limited: bool,
}

/// The deliveries of one connection.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// Bytes that were acknowledged in all.
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    lost: u64,
    in_flight: u64,
    /// Nothing was in flight after the latest acknowledgement, and no data was sent since.
    is_idle: bool,
    /// The total of deliveries after which packets show the rate of the path again.
    app_limited_until: Option<u64>,
    sent: VecDeque<Sent>,
    /// The time that one entry covers.
    step: Duration,
    /// Of the acknowledgement that is being read: the newest packet, and its entry.
    newest: Option<(Instant, Sent)>,
    acked: u64,
}

impl Delivery {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            lost: 0,
            in_flight: 0,
            is_idle: true,
            app_limited_until: None,
            sent: VecDeque::new(),
            step: Duration::ZERO,
            newest: None,
            acked: 0,
        }
    }

    /// Returns the bytes that were acknowledged in all.
    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns the bytes in flight, as far as the transport has made them known.
    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn on_sent(&mut self, bytes: u64, now: Instant) {
        if self.is_idle {
            self.first_sent = now;
            self.delivered_at = now;
            self.is_idle = bytes <= SMALL;
        }
        self.in_flight += bytes;
        if let Some(last) = self.sent.back_mut().filter(|last| now <= last.at + self.step) {
            last.in_flight = self.in_flight;
            return;
        }
        if self.sent.len() == REMEMBERED {
            self.step = (2 * self.step).max(FIRST_STEP);
            // Every second one, the first included.
            let mut is_kept = false;
            self.sent.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.sent.push_back(Sent {
            at: now,
            first_sent: self.first_sent,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            lost: self.lost,
            in_flight: self.in_flight,
            is_app_limited: self.app_limited_until.is_some(),
        });
    }

    /// A packet that was sent at `sent` is acknowledged.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.acked += bytes;
        if self.newest.is_none_or(|(newest, _)| newest < sent) {
            self.newest = self.find(sent).map(|entry| (sent, entry)).or(self.newest);
        }
    }

    /// An acknowledgement is complete, and leaves `in_flight` bytes. Returns what it shows, unless
    /// it acknowledged nothing.
    pub(super) fn on_end_acks(
        &mut self,
        in_flight: u64,
        is_app_limited: bool,
        now: Instant,
    ) -> Option<Sample> {
        self.in_flight = in_flight;
        self.is_idle = in_flight == 0;
        if self.app_limited_until.is_some_and(|until| self.delivered > until) {
            self.app_limited_until = None;
        }
        if is_app_limited {
            self.app_limited_until = Some(self.delivered + in_flight);
        }
        let acked = std::mem::take(&mut self.acked);
        let (sent, newest) = self.newest.take()?;
        self.forget_before(sent);
        let rtt = now.saturating_duration_since(sent);
        let sending = sent.saturating_duration_since(newest.first_sent);
        let acking = now.saturating_duration_since(newest.delivered_at);
        let delivered = self.delivered - newest.delivered;
        let interval = sending.max(acking);
        self.first_sent = sent;
        self.delivered_at = now;
        Some(Sample {
            acked,
            sent,
            rtt,
            rate: (!interval.is_zero()).then(|| delivered as f64 / interval.as_secs_f64()),
            delivered,
            delivered_before: newest.delivered,
            in_flight: newest.in_flight,
            is_app_limited: newest.is_app_limited,
        })
    }

    /// Packets are lost, the latest of which was sent at `sent`.
    pub(super) fn on_lost(&mut self, sent: Instant, bytes: u64) -> Option<LostBatch> {
        self.lost += bytes;
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let batch = self.find(sent)?;
        Some(LostBatch {
            in_flight: batch.in_flight,
            lost: self.lost - batch.lost,
            is_app_limited: batch.is_app_limited,
        })
    }

    fn find(&self, sent: Instant) -> Option<Sent> {
        let after = self.sent.partition_point(|batch| batch.at <= sent);
        self.sent.get(after.checked_sub(1)?).copied()
    }

    fn forget_before(&mut self, newest: Instant) {
        while self.sent.get(1).is_some_and(|next| next.at + KEPT < newest) {
            self.sent.pop_front();
        }
    }
}
