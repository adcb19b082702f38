//! The model of a path: how fast it delivers, how long it is, and how much it holds
//! (draft-ietf-ccwg-bbr, "Network Path Model").
//!
//! It decides which loss is a sign of congestion: only loss that comes with a queue, or that is
//! more than a radio has. It decides nothing about sending.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::delivery::Sample;

/// How long the shortest round trip counts before the path has to show it again.
pub(super) const MIN_RTT_KEPT: Duration = Duration::from_secs(10);
/// Round trips this close to the shortest one show it again.
const RTT_NOISE: u32 = 64;
/// Round trips above the shortest one by a thirty-second of it and this show a queue.
const QUEUE_SHARE: u32 = 32;
const QUEUE_NOISE: Duration = Duration::from_micros(500);
/// Samples that one round must have before its shortest round trip is used.
const ROUND_SAMPLES: u32 = 4;

/// How far a bound goes down after a round with congestion.
pub(super) const BETA: f64 = 0.7;
/// The part of the flight whose loss is too much if there is a queue.
const LOSS_WITH_QUEUE: f64 = 0.02;
/// The part of the flight whose loss is too much in any case: a policer or a queue of a few packets
/// has no delay that could be seen.
const LOSS_WITHOUT_QUEUE: f64 = 0.2;
/// Lost packets below which the second part is chance.
const FEW_LOST: u64 = 16;

/// Rounds over which the largest surplus of acknowledgements counts.
const SURPLUS_ROUNDS: u64 = 10;

/// The shortest round trips of the present round and the one before.
#[derive(Debug, Clone, Copy)]
struct RoundRtt {
    present: Duration,
    samples: u32,
    before: Duration,
}

/// What is known of a path.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// The best rates, in bytes a second, of the present probing cycle and the one before.
    rates: [f64; 2],
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    /// Since when packets take the present path.
    path_since: Instant,
    round_rtt: RoundRtt,
    /// What a flight may have reached without too much loss, in bytes.
    pub(super) inflight_hi: Option<f64>,
    /// Bounds since the last probe, by recent congestion.
    rate_lo: Option<f64>,
    pub(super) inflight_lo: Option<f64>,
    latest_rate: f64,
    latest_delivered: f64,
    is_congested: bool,
    surplus: Surplus,
}

impl Model {
    pub(super) const fn new(now: Instant) -> Self {
        let round_rtt = RoundRtt { present: Duration::MAX, samples: 0, before: Duration::MAX };
        Self {
            rates: [0.0; 2],
            min_rtt: None,
            min_rtt_at: now,
            path_since: now,
            round_rtt,
            inflight_hi: None,
            rate_lo: None,
            inflight_lo: None,
            latest_rate: 0.0,
            latest_delivered: 0.0,
            is_congested: false,
            surplus: Surplus::new(now),
        }
    }

    /// Takes the measurements of one acknowledgement.
    pub(super) fn on_sample(&mut self, sample: &Sample, now: Instant) {
        if sample.sent >= self.path_since {
            self.note_rtt(sample.rtt, now);
        }
        let min_rtt = self.min_rtt.unwrap_or_default();
        // An interval below the shortest round trip comes from compressed acknowledgements.
        let rate = sample.rate.filter(|rate| {
            let interval = sample.delivered as f64 / rate.max(1.0);
            interval * 1.001 >= min_rtt.as_secs_f64()
        });
        if let Some(rate) = rate {
            self.latest_rate = self.latest_rate.max(rate);
            self.latest_delivered = self.latest_delivered.max(sample.delivered as f64);
            if !sample.is_app_limited || rate >= self.max_rate() {
                self.rates[0] = self.rates[0].max(rate);
            }
        }
    }

    /// Packets take another path from now on, with this shortest round trip.
    pub(super) fn on_path_changed(&mut self, round_trip: Option<Duration>, now: Instant) {
        self.min_rtt = round_trip.or(self.min_rtt);
        self.min_rtt_at = now;
        self.path_since = now;
        self.round_rtt = RoundRtt { present: Duration::MAX, samples: 0, before: Duration::MAX };
        self.inflight_hi = None;
        self.lift_bounds();
    }

    /// Counts bytes that are acknowledged, and how many of them the rate does not explain.
    pub(super) fn note_acked(&mut self, acked: u64, window: u64, round: u64, now: Instant) {
        let rate = self.rate();
        self.surplus.note(acked, rate, window, round, now);
    }

    fn note_rtt(&mut self, rtt: Duration, now: Instant) {
        self.round_rtt.present = self.round_rtt.present.min(rtt);
        self.round_rtt.samples += 1;
        let shortest = self.min_rtt.unwrap_or(Duration::MAX);
        if rtt <= shortest {
            self.min_rtt = Some(rtt);
            self.min_rtt_at = now;
        } else if rtt <= shortest + shortest / RTT_NOISE {
            self.min_rtt_at = now;
        }
    }

    /// A round begins. Where the bounds follow congestion, `window` is what they begin with.
    pub(super) fn on_round(&mut self, sample: &Sample, window: Option<u64>) {
        if self.round_rtt.samples > 0 {
            self.round_rtt.before = self.round_rtt.present;
        }
        self.round_rtt.present = Duration::MAX;
        self.round_rtt.samples = 0;
        if std::mem::take(&mut self.is_congested)
            && let Some(window) = window
        {
            let rate = self.rate_lo.unwrap_or_else(|| self.max_rate());
            self.rate_lo = Some(self.latest_rate.max(rate * BETA));
            let inflight = self.inflight_lo.unwrap_or(window as f64);
            self.inflight_lo = Some(self.latest_delivered.max(inflight * BETA));
        }
        self.latest_rate = sample.rate.unwrap_or_default();
        self.latest_delivered = sample.delivered as f64;
    }

    /// Packets were lost, or marked: returns true if that is a sign of congestion.
    pub(super) fn is_congestion(&self, lost: u64, in_flight: u64, mtu: u64) -> bool {
        let (part, flight) = (lost as f64, in_flight as f64);
        (self.has_queue() && part > flight * LOSS_WITH_QUEUE)
            || (lost > FEW_LOST * mtu && part > flight * LOSS_WITHOUT_QUEUE)
    }

    /// Remembers congestion until the end of the round.
    pub(super) const fn note_congestion(&mut self) {
        self.is_congested = true;
    }

    /// Returns true if the latest round trips are longer than the path.
    pub(super) fn has_queue(&self) -> bool {
        let RoundRtt { present, samples, before } = self.round_rtt;
        let rtt = if samples >= ROUND_SAMPLES { present } else { present.min(before) };
        let Some(shortest) = self.min_rtt.filter(|_| rtt != Duration::MAX) else { return false };
        rtt > shortest + shortest / QUEUE_SHARE + QUEUE_NOISE
    }

    /// Returns true if the shortest round trip was not seen for long.
    pub(super) fn is_min_rtt_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.min_rtt_at) > MIN_RTT_KEPT
    }

    /// The flight was small for long enough: what was measured then is the shortest round trip.
    pub(super) fn renew_min_rtt(&mut self, measured: Option<Duration>, now: Instant) {
        self.min_rtt = measured.or(self.min_rtt);
        self.min_rtt_at = now;
    }

    pub(super) const fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// Returns the best rate of the last two cycles.
    pub(super) const fn max_rate(&self) -> f64 {
        self.rates[0].max(self.rates[1])
    }

    /// Returns the rate that is used: the best one, within the bound of recent congestion.
    pub(super) fn rate(&self) -> f64 {
        self.rate_lo.map_or(self.max_rate(), |bound| bound.min(self.max_rate()))
    }

    /// A probing cycle is over: the rates of the one before it are forgotten.
    pub(super) const fn begin_cycle(&mut self) {
        self.rates = [0.0, self.rates[0]];
    }

    /// Lifts the bounds of recent congestion, to probe.
    pub(super) const fn lift_bounds(&mut self) {
        self.rate_lo = None;
        self.inflight_lo = None;
    }

    /// Returns the bytes that fill the path, by the rate that is used.
    pub(super) fn capacity(&self) -> f64 {
        self.rate() * self.min_rtt.unwrap_or_default().as_secs_f64()
    }

    /// Returns the bytes that fill the path, by the best rate.
    pub(super) fn max_capacity(&self) -> f64 {
        self.max_rate() * self.min_rtt.unwrap_or_default().as_secs_f64()
    }

    /// Returns the bytes that come acknowledged together beyond what the rate explains.
    pub(super) fn surplus(&self) -> f64 {
        self.surplus.largest()
    }
}

/// Acknowledgements that come in bursts: a radio, a receiver that waits, and batches of packets.
#[derive(Debug, Clone)]
struct Surplus {
    since: Instant,
    acked: f64,
    largest: VecDeque<(u64, f64)>,
}

impl Surplus {
    const fn new(now: Instant) -> Self {
        Self { since: now, acked: 0.0, largest: VecDeque::new() }
    }

    fn note(&mut self, acked: u64, rate: f64, window: u64, round: u64, now: Instant) {
        let expected = rate * now.saturating_duration_since(self.since).as_secs_f64();
        let mut surplus = self.acked - expected;
        if surplus <= 0.0 {
            self.since = now;
            self.acked = 0.0;
            surplus = 0.0;
        }
        self.acked += acked as f64;
        let surplus = (surplus + acked as f64).min(window as f64);
        while self.largest.front().is_some_and(|(at, _)| at + SURPLUS_ROUNDS < round) {
            self.largest.pop_front();
        }
        while self.largest.back().is_some_and(|(_, less)| *less <= surplus) {
            self.largest.pop_back();
        }
        self.largest.push_back((round, surplus));
    }

    fn largest(&self) -> f64 {
        self.largest.front().map_or(0.0, |(_, surplus)| *surplus)
    }
}
