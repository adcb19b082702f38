//! Which sizes of packets one path carries.
//!
//! It decides when a full-size probe is due, and when a path counts as narrow: it answers small
//! probes and none of 1,200 bytes, the least size that QUIC needs (RFC 9000 §14). It never sends,
//! and never decides which path is active.

use std::time::{Duration, Instant};

use crate::probe::FULL_LEN;

/// The time between two full-size probes of a path that carries them. Acknowledged packets of that
/// size count as well, so that a busy path needs none.
const FULL_EVERY: Duration = Duration::from_secs(10);
/// The least time between two of them because packets were lost.
const AFTER_LOSS: Duration = Duration::from_secs(1);
/// Full-size probes in a row that were lost, each while a smaller one was answered, after which the
/// path is narrow. Chance alone does that in one of a thousand cases at a loss of one in ten.
const NARROW: u32 = 3;
/// The time to the next full-size probe of a narrow path, doubled with each up to the longest.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A full-size probe that was not answered yet.
#[derive(Debug, Clone, Copy)]
struct OpenProbe {
    sent: Instant,
    /// Whether a smaller probe that was sent with it, or later, was answered.
    is_outlived: bool,
}

/// What is known of the packet sizes of one path.
#[derive(Debug, Clone)]
pub(super) struct PacketSize {
    /// Whether the path has to carry a full-size probe: a relay splits packets, and a peer of an
    /// earlier version does not answer such probes.
    is_required: bool,
    is_carried: bool,
    misses: u32,
    open: Option<OpenProbe>,
    /// When the next full-size probe is due; `None` is now.
    due: Option<Instant>,
    last_sent: Option<Instant>,
    /// The packet size that the connection found while the path was active.
    found: u16,
}

impl PacketSize {
    pub(super) const fn new(is_required: bool) -> Self {
        Self {
            is_required,
            is_carried: false,
            misses: 0,
            open: None,
            due: None,
            last_sent: None,
            found: FULL_LEN as u16,
        }
    }

    /// Sets whether the path has to carry a full-size probe.
    pub(super) const fn set_required(&mut self, is_required: bool) {
        self.is_required = is_required;
    }

    /// Returns true if packets of QUIC's least size pass in both directions, as far as it is asked.
    pub(super) const fn is_proven(&self) -> bool {
        !self.is_required || self.is_carried
    }

    /// Returns true if the path carries small packets only.
    pub(super) const fn is_narrow(&self) -> bool {
        self.is_required && self.misses >= NARROW
    }

    /// Returns the largest packets that the path is known to carry, in bytes of UDP payload.
    pub(super) const fn known(&self) -> Option<u16> {
        if self.is_carried { Some(self.found) } else { None }
    }

    /// Returns the packet size with which a connection may begin on this path.
    pub(super) const fn found(&self) -> u16 {
        self.found
    }

    /// The connection has found this packet size while the path was active.
    pub(super) const fn set_found(&mut self, size: u16) {
        self.found = size;
    }

    /// Returns true if the next probe should have full size.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_required && self.open.is_none() && self.due.is_none_or(|due| due <= now)
    }

    pub(super) const fn on_sent(&mut self, now: Instant) {
        self.open = Some(OpenProbe { sent: now, is_outlived: false });
        self.last_sent = Some(now);
    }

    /// A full-size probe was answered, or packets of that size were acknowledged.
    pub(super) fn on_carried(&mut self, now: Instant) {
        self.is_carried = true;
        self.misses = 0;
        self.open = None;
        self.due = Some(now + FULL_EVERY);
    }

    /// A smaller probe was answered, which was sent at `sent`.
    pub(super) fn on_small_answer(&mut self, sent: Instant) {
        if let Some(open) = &mut self.open {
            open.is_outlived |= sent >= open.sent;
        }
    }

    /// The connection lost packets: a full-size probe is due, if there was none lately. Returns
    /// true if one is.
    pub(super) fn on_loss(&mut self, now: Instant) -> bool {
        let is_recent =
            self.last_sent.is_some_and(|at| now.saturating_duration_since(at) < AFTER_LOSS);
        if !self.is_required || is_recent || self.is_narrow() {
            return false;
        }
        self.due = None;
        self.open.is_none()
    }

    /// Returns when [`PacketSize::on_time`] is due, if an answer comes within that time.
    pub(super) fn deadline(&self, within: Duration) -> Option<Instant> {
        self.open.map(|open| open.sent + within)
    }

    /// Checks whether the time for an answer is over. Returns true if a full-size probe is to be
    /// sent now.
    pub(super) fn on_time(&mut self, within: Duration, now: Instant) -> bool {
        let Some(open) = self.open.filter(|open| open.sent + within <= now) else { return false };
        self.open = None;
        if !open.is_outlived {
            // The whole path was silent: that shows nothing of sizes.
            self.due = Some(now + within);
            return false;
        }
        self.misses = self.misses.saturating_add(1);
        let retries = self.misses.checked_sub(NARROW);
        let wait = retries.map(|it| RETRY.saturating_mul(1 << it.min(4)).min(LONGEST_RETRY));
        self.due = wait.map(|wait| now + wait);
        wait.is_none()
    }

    /// The path failed, or another network began: what it carried shows nothing any more. That it
    /// is narrow stays, until a full-size probe is answered.
    pub(super) const fn restart(&mut self) {
        self.is_carried = false;
        self.open = None;
        if !self.is_narrow() {
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);
    const WITHIN: Duration = Duration::from_millis(150);

    /// Loses one full-size probe while a smaller one is answered; returns whether another is due.
    fn miss(size: &mut PacketSize, now: Instant) -> bool {
        size.on_sent(now);
        size.on_small_answer(now);
        assert!(!size.on_time(WITHIN, now + WITHIN - NANO));
        size.on_time(WITHIN, now + WITHIN)
    }

    #[test]
    fn three_lost_full_probes_are_narrow_and_two_are_not() {
        let now = anchor();
        let mut size = PacketSize::new(true);
        assert!(miss(&mut size, now) && miss(&mut size, now));
        assert!(!size.is_narrow() && size.is_due(now));
        assert!(!miss(&mut size, now));
        assert!(size.is_narrow() && !size.is_proven());
        size.on_carried(now);
        assert!(!size.is_narrow() && size.is_proven());
    }

    #[test]
    fn a_narrow_path_is_asked_again_ever_more_slowly_up_to_a_minute() {
        let now = anchor();
        let mut size = PacketSize::new(true);
        (0..2).for_each(|_| assert!(miss(&mut size, now)));
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert!(!miss(&mut size, now));
            let due = now + WITHIN + Duration::from_secs(seconds);
            assert!(!size.is_due(due - NANO) && size.is_due(due), "{seconds}");
            size.restart();
            assert!(!size.is_due(due - NANO), "a restart shows nothing of the size");
        }
    }

    #[test]
    fn a_full_probe_lost_with_all_others_shows_nothing() {
        let now = anchor();
        let mut size = PacketSize::new(true);
        for _ in 0..10 {
            size.on_sent(now);
            size.on_small_answer(now - NANO);
            assert!(!size.on_time(WITHIN, now + WITHIN));
        }
        assert!(!size.is_narrow());
    }

    #[test]
    fn losses_ask_for_one_full_probe_a_second() {
        let now = anchor();
        let mut size = PacketSize::new(true);
        size.on_sent(now);
        size.on_carried(now);
        assert!(!size.is_due(now + FULL_EVERY - NANO) && size.is_due(now + FULL_EVERY));
        assert!(!size.on_loss(now + AFTER_LOSS - NANO));
        assert!(size.on_loss(now + AFTER_LOSS) && size.is_due(now + AFTER_LOSS));
    }

    #[test]
    fn a_relay_and_an_earlier_peer_need_no_full_probe() {
        let now = anchor();
        let mut size = PacketSize::new(false);
        assert!(size.is_proven() && !size.is_due(now) && !size.on_loss(now));
    }
}
