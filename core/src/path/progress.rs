//! What the connection above experiences on the active path, as it reports it.
//!
//! It decides when answered probes deserve no trust: the path answers them, while the connection's
//! own packets are not acknowledged. It never decides which path is next, and never sends.

use std::time::{Duration, Instant};

use crate::probe::FULL_LEN;

/// How long a peer may wait with its acknowledgement (RFC 9000 §18.2, max_ack_delay).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// The least time without an acknowledgement that is a stall: two probe timeouts (RFC 9002 §6.2) of
/// a quick path are less than a burst of loss.
const STALL_FLOOR: Duration = Duration::from_millis(500);
/// How long probes are answered during a stall before the path is left: a stalled connection sends
/// a packet that is acknowledged every 500 ms or two round trips, so that it had two chances.
const ANSWERING_FLOOR: Duration = Duration::from_secs(1);

/// How the packets of a connection fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransportProgress {
    /// Since when nothing was acknowledged, while something waits for it.
    pub(crate) unacknowledged: Option<Instant>,
    /// Packets declared lost.
    pub(crate) lost: u64,
    /// Acknowledged packets of QUIC's least size or more.
    pub(crate) full: u64,
    /// The present packet size, in bytes of UDP payload.
    pub(crate) size: u16,
}

impl Default for TransportProgress {
    fn default() -> Self {
        Self { unacknowledged: None, lost: 0, full: 0, size: FULL_LEN as u16 }
    }
}

/// What a report adds to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgressNews {
    pub(super) has_lost: bool,
    pub(super) has_carried: bool,
    pub(super) is_stalled: bool,
}

/// The latest report, and how long probes were answered meanwhile.
#[derive(Debug, Clone, Default)]
pub(super) struct ProgressWatch {
    latest: TransportProgress,
    /// Since when probes were answered during this stall.
    answering: Option<Instant>,
}

impl ProgressWatch {
    /// Takes a report; `rtt` is the round trip of the active path.
    pub(super) fn note(
        &mut self,
        report: TransportProgress,
        rtt: Duration,
        now: Instant,
    ) -> ProgressNews {
        let before = std::mem::replace(&mut self.latest, report);
        if report.unacknowledged != before.unacknowledged {
            self.answering = None;
        }
        ProgressNews {
            has_lost: report.lost > before.lost,
            has_carried: report.full > before.full,
            is_stalled: self.is_stalled(rtt, now),
        }
    }

    /// Returns true if nothing was acknowledged for two probe timeouts.
    pub(super) fn is_stalled(&self, rtt: Duration, now: Instant) -> bool {
        let since = self.latest.unacknowledged;
        since.is_some_and(|since| now.saturating_duration_since(since) >= stall(rtt))
    }

    /// A probe of the active path was answered, which was sent at `sent`. Returns true if probes
    /// have been answered for so long that the path is useless.
    pub(super) fn on_answer(&mut self, sent: Instant, rtt: Duration, now: Instant) -> bool {
        if !self.is_stalled(rtt, now) {
            return false;
        }
        let since = self.latest.unacknowledged.unwrap_or(now);
        let answering = *self.answering.get_or_insert(sent.max(since));
        now.saturating_duration_since(answering) >= ANSWERING_FLOOR.max(stall(rtt))
    }

    /// Probes are not answered, or another path is active.
    pub(super) const fn interrupt(&mut self) {
        self.answering = None;
    }

    /// Returns when a further answer would be the last that is needed, if the connection is stalled.
    pub(super) fn next_probe(&self, rtt: Duration) -> Option<Instant> {
        self.answering.map(|answering| answering + ANSWERING_FLOOR.max(stall(rtt)))
    }

    /// Returns the packet size of the connection.
    pub(super) const fn size(&self) -> u16 {
        self.latest.size
    }

    /// The connection starts over with the least packet size.
    pub(super) const fn on_shrunk(&mut self) {
        self.latest.size = FULL_LEN as u16;
    }
}

/// Returns two probe timeouts for a round trip that varies by half of itself.
fn stall(rtt: Duration) -> Duration {
    STALL_FLOOR.max(2 * (3 * rtt + ACK_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);
    const RTT: Duration = Duration::from_millis(20);

    fn since(at: Instant) -> TransportProgress {
        TransportProgress { unacknowledged: Some(at), ..TransportProgress::default() }
    }

    #[test]
    fn answers_for_a_second_of_a_stall_show_a_useless_path_and_not_before() {
        let start = anchor();
        let mut watch = ProgressWatch::default();
        assert!(!watch.note(since(start), RTT, start + STALL_FLOOR - NANO).is_stalled);
        assert!(watch.note(since(start), RTT, start + STALL_FLOOR).is_stalled);
        let sent = start + STALL_FLOOR;
        assert!(!watch.on_answer(sent, RTT, sent + RTT));
        assert_eq!(watch.next_probe(RTT), Some(sent + ANSWERING_FLOOR));
        assert!(!watch.on_answer(sent, RTT, sent + ANSWERING_FLOOR - NANO));
        assert!(watch.on_answer(sent, RTT, sent + ANSWERING_FLOOR));
    }

    #[test]
    fn an_acknowledgement_or_silence_starts_the_count_again() {
        let start = anchor();
        let late = start + Duration::from_secs(5);
        for is_acknowledged in [true, false] {
            let mut watch = ProgressWatch::default();
            watch.note(since(start), RTT, late);
            assert!(!watch.on_answer(late, RTT, late));
            if is_acknowledged {
                watch.note(since(start + NANO), RTT, late);
            } else {
                watch.interrupt();
            }
            let again = late + ANSWERING_FLOOR;
            assert!(!watch.on_answer(again, RTT, again), "{is_acknowledged}");
        }
    }

    #[test]
    fn a_report_shows_what_is_new_in_it() {
        let start = anchor();
        let mut watch = ProgressWatch::default();
        let report = TransportProgress { lost: 1, full: 1, ..TransportProgress::default() };
        let news = watch.note(report, RTT, start);
        assert!(news.has_lost && news.has_carried && !news.is_stalled);
        let news = watch.note(report, RTT, start);
        assert!(!news.has_lost && !news.has_carried);
    }
}
