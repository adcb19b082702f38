//! When a connection whose packets are not acknowledged sends one more, whatever the back-off and
//! the window of its transport.
//!
//! The transport doubles the time to each further probe (RFC 9002 §6.2) and starts over only when an
//! acknowledgement arrives; while its window is full it sends nothing else, acknowledgements included.
//! After an outage both ends would wait for the later of two such timers. [`StallGuard`] decides when
//! a probe is due before that: at a bounded rate during silence, immediately when the peer is heard
//! again, and once after a stream of data that has ended. [`Flight`] carries this to the congestion
//! controller. Neither sends, and neither knows a path.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn_proto::congestion::Controller;

/// The least time between two probes of a silent peer: with a round trip and a half for the loss
/// report and the retransmission, bytes flow within a second of the end of an outage on most paths.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The least time between two probes of a peer that is heard while it acknowledges nothing: it may
/// receive nothing, and every packet of it would be a reason for one.
const ECHO_EVERY: Duration = Duration::from_millis(200);
/// The least packet size of a path (RFC 9000 §14).
const LEAST_SIZE: u64 = 1_200;
/// Packets that a probe may send beyond the window, as many as RFC 9002 §6.2.4 allows for its own.
const BEYOND: u32 = 2;
/// Unanswered probes after which the path may have become narrower: the transport's own probes, which
/// are of the least size, come later than these.
const NARROW_AFTER: u32 = 3;
/// A round trip that silence has become a part of is longer than twice what it was, and this: an
/// acknowledgement that was lost with others may come after the silence.
const JITTER: Duration = Duration::from_millis(100);

/// Frames with data, without a pause of [`STREAM_GAP`], that are a stream of data.
const STREAM: u64 = 8;
const STREAM_GAP: Duration = Duration::from_secs(1);
/// The least silence after a stream of data before the receiver asks for a sign of the sender.
const STREAM_ENDED: Duration = Duration::from_millis(250);

/// What a connection and its congestion controllers share.
#[derive(Default)]
pub(super) struct Flight {
    /// Packets that may still be sent beyond the window.
    beyond: AtomicU32,
    /// Acknowledgements of packets that were not acknowledged before.
    acknowledgements: AtomicU64,
    /// Bytes that were not acknowledged after the latest of them.
    unacknowledged: AtomicU64,
    /// Acknowledged packets of the least size or more.
    full: AtomicU64,
    /// Bytes of a probe for the packet size that is under way.
    mtu_probe: AtomicU64,
    /// The rate at which packets are sent, in bytes a second; 0 is no rate of our own.
    pacing_rate: AtomicU64,
    /// The rate allows no packet now.
    held: AtomicBool,
    /// The path changed, to one with this round trip.
    path: Mutex<Option<Option<Duration>>>,
    /// The controller of the next path, in place of a new one.
    kept: Mutex<Option<Box<dyn Controller>>>,
}

impl Flight {
    /// Lets two packets pass the window.
    pub(super) fn open(&self) {
        self.beyond.store(BEYOND, Ordering::Relaxed);
    }

    /// Nothing is left to be sent: the window holds again.
    pub(super) fn close(&self) {
        self.beyond.store(0, Ordering::Relaxed);
    }

    /// Returns true while a packet may pass the window.
    pub(super) fn is_open(&self) -> bool {
        self.beyond.load(Ordering::Relaxed) > 0
    }

    pub(super) fn on_sent(&self) {
        let left = self.beyond.load(Ordering::Relaxed).saturating_sub(1);
        self.beyond.store(left, Ordering::Relaxed);
    }

    pub(super) fn on_acknowledged(&self, unacknowledged: u64) {
        self.acknowledgements.fetch_add(1, Ordering::Relaxed);
        self.unacknowledged.store(unacknowledged, Ordering::Relaxed);
    }

    /// A packet of that many bytes is acknowledged.
    pub(super) fn on_packet_acknowledged(&self, bytes: u64) {
        if bytes >= LEAST_SIZE {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many packets of the least size or more were acknowledged.
    pub(super) fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// A probe for the packet size of that many bytes is under way, or none is.
    pub(super) fn set_mtu_probe(&self, bytes: u64) {
        self.mtu_probe.store(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes of the probe for the packet size that is under way.
    pub(super) fn mtu_probe(&self) -> u64 {
        self.mtu_probe.load(Ordering::Relaxed)
    }

    /// Sets the rate at which packets are sent, in bytes a second.
    pub(super) fn set_pacing_rate(&self, rate: Option<f64>) {
        self.pacing_rate.store(rate.map_or(0, |rate| rate as u64), Ordering::Relaxed);
    }

    /// Returns the rate at which packets are sent, in bytes a second.
    pub(super) fn pacing_rate(&self) -> Option<f64> {
        let rate = self.pacing_rate.load(Ordering::Relaxed);
        (rate > 0).then_some(rate as f64)
    }

    /// Holds packets back, or no longer.
    pub(super) fn hold(&self, is_held: bool) {
        self.held.store(is_held, Ordering::Relaxed);
    }

    /// Returns true while packets are held back.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// The path changed, to one with this round trip.
    pub(super) fn set_path(&self, round_trip: Option<Duration>) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(round_trip);
    }

    /// Takes the change of the path that the controller does not know yet.
    pub(super) fn take_path(&self) -> Option<Option<Duration>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a controller for the next path.
    pub(super) fn keep(&self, controller: Box<dyn Controller>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(controller);
    }

    /// Takes the controller that was kept.
    pub(super) fn take_kept(&self) -> Option<Box<dyn Controller>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn acknowledgements(&self) -> u64 {
        self.acknowledgements.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.unacknowledged.load(Ordering::Relaxed) == 0
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("beyond", &self.beyond).finish_non_exhaustive()
    }
}

/// What is due, see [`StallGuard::on_time`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A packet that the peer acknowledges, now.
    Probe,
    /// The same, after the packet size and the round trip are forgotten.
    Restart,
}

/// Packets that are not acknowledged yet.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    /// Since when nothing was acknowledged.
    since: Instant,
    /// The time between two probes.
    every: Duration,
    probes: u32,
    probed: Option<Instant>,
}

impl Awaited {
    fn new(rtt: Duration, now: Instant) -> Self {
        Self { since: now, every: PROBE_EVERY.max(2 * rtt), probes: 0, probed: None }
    }

    fn next_probe(&self) -> Instant {
        self.probed.unwrap_or(self.since) + self.every
    }
}

/// The data that came lately.
#[derive(Debug, Clone, Copy)]
struct Stream {
    frames: u64,
    heard: Instant,
}

/// The silence of one connection's peer.
#[derive(Debug, Clone, Default)]
pub(super) struct StallGuard {
    awaited: Option<Awaited>,
    stream: Option<Stream>,
    acknowledgements: u64,
    /// The round trip at the latest acknowledgement that no probe had to ask for.
    rtt: Option<Duration>,
    /// When silence is looked at next. It is not moved by what arrives: that would be a timer for
    /// every packet.
    check: Option<Instant>,
}

impl StallGuard {
    /// Returns true if packets wait for an acknowledgement.
    pub(super) const fn is_awaiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Returns since when nothing was acknowledged, if packets wait for it.
    pub(super) fn unacknowledged(&self) -> Option<Instant> {
        self.awaited.map(|awaited| awaited.since)
    }

    /// A packet was sent that the peer is to acknowledge.
    pub(super) fn on_sent(&mut self, rtt: Duration, now: Instant) {
        let awaited = *self.awaited.get_or_insert_with(|| Awaited::new(rtt, now));
        self.check_at(awaited.next_probe());
    }

    /// Something authentic came, with so many frames of data. Returns what is due if the peer was
    /// silent before.
    pub(super) fn on_heard(
        &mut self,
        flight: &Flight,
        data: u64,
        rtt: Duration,
        now: Instant,
    ) -> Due {
        if data > 0 {
            self.on_data(data, rtt, now);
        }
        let acknowledgements = flight.acknowledgements();
        if acknowledgements != self.acknowledgements {
            self.acknowledgements = acknowledgements;
            return self.on_acknowledged(flight, rtt, now);
        }
        let Some(awaited) = &mut self.awaited else { return Due::Nothing };
        let spacing = ECHO_EVERY.max(rtt.min(PROBE_EVERY));
        if awaited.probed.is_none_or(|at| now.saturating_duration_since(at) < spacing) {
            return Due::Nothing;
        }
        awaited.probed = Some(now);
        Due::Probe
    }

    fn on_acknowledged(&mut self, flight: &Flight, rtt: Duration, now: Instant) -> Due {
        let was_silent = self.awaited.is_some_and(|awaited| awaited.probed.is_some());
        if !was_silent {
            self.rtt = Some(rtt);
        }
        let usual = self.rtt.unwrap_or(rtt);
        self.awaited = (!flight.is_empty()).then(|| Awaited::new(rtt.min(usual), now));
        // What is left of the packets from before is lost, and only a later one can show that.
        match (was_silent && self.awaited.is_some(), rtt > 2 * usual + JITTER) {
            (false, _) => Due::Nothing,
            (true, false) => Due::Probe,
            (true, true) => Due::Restart,
        }
    }

    fn on_data(&mut self, frames: u64, rtt: Duration, now: Instant) {
        let before = self.stream.filter(|it| now.saturating_duration_since(it.heard) < STREAM_GAP);
        let frames = frames + before.map_or(0, |it| it.frames);
        self.stream = Some(Stream { frames, heard: now });
        if frames >= STREAM {
            self.check_at(now + stream_ended(rtt));
        }
    }

    /// Returns when [`StallGuard::on_time`] is due.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.check
    }

    /// Checks the silence, if it is due.
    pub(super) fn on_time(&mut self, rtt: Duration, now: Instant) -> Due {
        if self.check.is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        self.check = None;
        let mut due = Due::Nothing;
        if let Some(awaited) = &mut self.awaited {
            if awaited.next_probe() <= now {
                awaited.probes += 1;
                awaited.probed = Some(now);
                due = if awaited.probes == NARROW_AFTER { Due::Restart } else { Due::Probe };
            }
            let next = awaited.next_probe();
            self.check_at(next);
        }
        if let Some(stream) = self.stream.filter(|it| it.frames >= STREAM) {
            let ended = stream.heard + stream_ended(rtt);
            if ended > now {
                self.check_at(ended);
            } else {
                self.stream = None;
                if self.awaited.is_none() {
                    due = Due::Probe;
                }
            }
        }
        due
    }

    fn check_at(&mut self, at: Instant) {
        self.check = Some(self.check.map_or(at, |before| before.min(at)));
    }
}

/// Returns how much silence ends a stream of data.
fn stream_ended(rtt: Duration) -> Duration {
    STREAM_ENDED.max(2 * rtt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);
    const RTT: Duration = ms(50);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Returns a guard that waits for an acknowledgement, after one with the usual round trip.
    fn waiting(flight: &Flight, now: Instant) -> StallGuard {
        let mut guard = StallGuard::default();
        flight.on_acknowledged(0);
        assert_eq!(guard.on_heard(flight, 0, RTT, now), Due::Nothing);
        guard.on_sent(RTT, now);
        guard
    }

    /// Probes until `until`, and returns when, in milliseconds after `from`.
    fn probes(guard: &mut StallGuard, from: Instant, until: Duration) -> Vec<(u128, Due)> {
        let mut all = Vec::new();
        while let Some(at) = guard.deadline().filter(|&at| at <= from + until) {
            let due = guard.on_time(RTT, at);
            if due != Due::Nothing {
                all.push(((at - from).as_millis(), due));
            }
        }
        all
    }

    #[test]
    fn a_silent_peer_is_probed_twice_a_second_and_the_third_probe_is_narrow() {
        let start = anchor();
        let mut guard = waiting(&Flight::default(), start);
        assert_eq!(guard.on_time(RTT, start + PROBE_EVERY - NANO), Due::Nothing);
        let due = [500, 1_000, 1_500, 2_000].map(|at| match at {
            1_500 => (at, Due::Restart),
            _ => (at, Due::Probe),
        });
        assert_eq!(probes(&mut guard, start, ms(2_400)), due);
    }

    #[test]
    fn a_slow_path_is_probed_every_two_round_trips() {
        let start = anchor();
        let mut guard = StallGuard::default();
        guard.on_sent(ms(400), start);
        assert_eq!(probes(&mut guard, start, ms(1_600)), [(800, Due::Probe), (1_600, Due::Probe)]);
    }

    #[test]
    fn acknowledgements_in_time_cause_no_probe() {
        let (start, flight) = (anchor(), Flight::default());
        let mut guard = waiting(&flight, start);
        for step in 1..100 {
            let now = start + ms(100) * step;
            assert_eq!(guard.on_time(RTT, now), Due::Nothing);
            flight.on_acknowledged(1_200);
            assert_eq!(guard.on_heard(&flight, 0, RTT, now), Due::Nothing);
        }
        flight.on_acknowledged(0);
        guard.on_heard(&flight, 0, RTT, start + ms(10_000));
        assert_eq!(probes(&mut guard, start, ms(60_000)), []);
    }

    #[test]
    fn a_peer_heard_after_silence_is_probed_at_a_bounded_rate() {
        let (start, flight) = (anchor(), Flight::default());
        let mut guard = waiting(&flight, start);
        assert_eq!(guard.on_heard(&flight, 0, RTT, start + ms(499)), Due::Nothing);
        assert_eq!(guard.on_time(RTT, start + ms(500)), Due::Probe);
        let heard = start + ms(500) + ECHO_EVERY;
        assert_eq!(guard.on_heard(&flight, 0, RTT, heard - NANO), Due::Nothing);
        assert_eq!(guard.on_heard(&flight, 0, RTT, heard), Due::Probe);
        assert_eq!(guard.on_heard(&flight, 0, RTT, heard + ECHO_EVERY - NANO), Due::Nothing);
    }

    #[test]
    fn an_acknowledgement_after_silence_asks_for_the_rest_once() {
        let (start, flight) = (anchor(), Flight::default());
        let mut guard = waiting(&flight, start);
        guard.on_time(RTT, start + ms(500));
        flight.on_acknowledged(10_000);
        let long = 2 * RTT + JITTER;
        let mut other = guard.clone();
        assert_eq!(other.on_heard(&flight, 0, long + NANO, start + ms(600)), Due::Restart);
        assert_eq!(guard.on_heard(&flight, 0, long, start + ms(600)), Due::Probe);
        for (guard, rtt) in [(&mut guard, long), (&mut other, long + NANO)] {
            flight.on_acknowledged(5_000);
            assert_eq!(guard.on_heard(&flight, 0, rtt, start + ms(601)), Due::Nothing);
        }
    }

    #[test]
    fn the_end_of_a_stream_of_data_is_asked_about_once() {
        for (frames, due) in [(STREAM - 1, vec![]), (STREAM, vec![(250, Due::Probe)])] {
            let (start, flight) = (anchor(), Flight::default());
            let mut guard = StallGuard::default();
            for frame in 0..frames {
                guard.on_heard(&flight, 1, RTT, start - ms(frames - frame - 1));
            }
            assert_eq!(probes(&mut guard, start, ms(60_000)), due, "{frames} frames");
        }
    }

    #[test]
    fn two_packets_pass_the_window() {
        let flight = Flight::default();
        flight.open();
        for _ in 0..BEYOND {
            assert!(flight.is_open());
            flight.on_sent();
        }
        assert!(!flight.is_open());
    }
}
