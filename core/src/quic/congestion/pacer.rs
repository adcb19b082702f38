//! When a connection may send its next batch, and how large that is, at a given rate.
//!
//! The transport has a pacer of its own, whose rate is 1.25 windows in a round trip; the rate of
//! [`super::bbr`] is mostly below it, and decided here. A batch is about a millisecond of the rate:
//! 44 segments into 10 Mbit/s would hold up everything behind them for 50 ms. It never sends.

use std::time::{Duration, Instant};

/// What one batch may hold, as time at the rate.
const BATCH: Duration = Duration::from_millis(1);
/// What may be sent together after a timer was late or nothing was to be sent.
const BURST: Duration = Duration::from_millis(8);
/// The least of that, in packets, so that small messages do not wait.
const LEAST_BURST: u64 = 10;

/// The bytes that a connection may send now.
#[derive(Debug, Clone, Default)]
pub(in crate::quic) struct Pacer {
    tokens: f64,
    /// When `tokens` was right.
    at: Option<Instant>,
    due: Option<Instant>,
}

impl Pacer {
    /// Returns how many packets of `mtu` bytes the next batch may hold, at most `most`, at a rate in
    /// bytes a second; 0 if it has to wait.
    pub(in crate::quic) fn allow(
        &mut self,
        rate: f64,
        mtu: u64,
        most: usize,
        now: Instant,
    ) -> usize {
        let burst = (rate * BURST.as_secs_f64()).max((LEAST_BURST * mtu) as f64);
        let earned = match self.at {
            Some(at) => now.saturating_duration_since(at).as_secs_f64() * rate,
            None => burst,
        };
        self.tokens = (self.tokens + earned).min(burst);
        self.at = Some(now);
        let batch = (rate * BATCH.as_secs_f64() / mtu as f64).max(2.0);
        let packets = (self.tokens / mtu as f64).min(batch);
        (packets as usize).min(most)
    }

    /// So many bytes were sent.
    pub(in crate::quic) fn on_sent(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }

    /// Something waits: sets when there is room for a batch.
    pub(in crate::quic) fn wait(&mut self, rate: f64, mtu: u64, now: Instant) {
        let batch = (rate * BATCH.as_secs_f64()).clamp(mtu as f64, 64_000.0);
        let missing = (batch - self.tokens).max(1.0) / rate;
        self.due = Some(now + Duration::from_secs_f64(missing.clamp(1e-6, 1.0)));
    }

    /// Nothing waits: it is about to be sent, or there is nothing.
    pub(in crate::quic) const fn clear(&mut self) {
        self.due = None;
    }

    /// Returns when what waits may be sent.
    pub(in crate::quic) const fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    /// Sends whenever it may, and returns the bytes after `time` beyond the first burst.
    fn sent(rate: f64, late: Duration, time: Duration) -> f64 {
        let (start, mut pacer, mut bytes) = (anchor(), Pacer::default(), 0);
        let mut now = start;
        while now < start + time {
            match pacer.allow(rate, 1_200, 44, now) {
                0 => {
                    pacer.wait(rate, 1_200, now);
                    now = pacer.due().map_or(now, |due| due) + late;
                }
                packets => {
                    bytes += packets * 1_200;
                    pacer.on_sent(packets * 1_200);
                }
            }
        }
        bytes as f64
    }

    #[test]
    fn the_rate_is_kept_even_if_the_timer_is_late() {
        for rate in [1.25e5, 1.25e6, 1.25e7, 1.25e8] {
            for late in [Duration::ZERO, Duration::from_millis(2)] {
                let bytes = sent(rate, late, Duration::from_secs(10)) / 10.0;
                assert!((0.98..1.02).contains(&(bytes / rate)), "{rate} {late:?}: {bytes}");
            }
        }
    }

    #[test]
    fn a_batch_is_a_millisecond_of_the_rate_and_two_packets_at_least() {
        let (start, mut pacer) = (anchor(), Pacer::default());
        assert_eq!(pacer.allow(1.25e6, 1_200, 44, start), 2);
        assert_eq!(Pacer::default().allow(1.25e7, 1_200, 44, start), 10);
        assert_eq!(Pacer::default().allow(1.25e9, 1_200, 44, start), 44);
    }

    #[test]
    fn what_was_not_used_is_worth_ten_packets_or_eight_milliseconds() {
        let (start, mut pacer) = (anchor(), Pacer::default());
        pacer.on_sent(1);
        let later = start + Duration::from_secs(60);
        let mut packets = 0;
        while let allowed @ 1.. = pacer.allow(1.25e5, 1_200, 44, later) {
            packets += allowed;
            pacer.on_sent(allowed * 1_200);
        }
        assert_eq!(packets, 10 - 1);
    }
}
