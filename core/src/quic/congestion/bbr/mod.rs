//! Congestion control by a model of the path: BBR, version 3 (draft-ietf-ccwg-bbr).
//!
//! It decides the window and the pacing rate of one connection from what is delivered, and so it does
//! not take every loss for congestion, as Cubic does. It differs from the draft in this: loss counts
//! as congestion only together with a queue, or if it is more than a radio has (`model`), the time
//! between two probes for the shortest round trip is 10 s, and a path is probed upwards until a
//! quarter more than it carries is in flight. It never sends, and has no clock.
//!
//! | file | owns |
//! |---|---|
//! | `delivery` | what is in flight, delivered and lost |
//! | `model` | rate, round trip and limits of the path |
//! | `mod` | the states, and the window and the rate that follow from them |

mod delivery;
mod model;

use std::time::{Duration, Instant};

use self::delivery::{Delivery, Sample};
use self::model::{BETA, Model};
use crate::rng::Rng;

/// Packets of the first flight (RFC 9002 §7.2).
const INITIAL_PACKETS: u64 = 10;
/// Packets of the least window.
const LEAST_PACKETS: u64 = 4;
/// The part of the measured rate at which packets are sent, so that a queue drains.
const PACING_MARGIN: f64 = 0.99;

/// Gains of the states: of the pacing rate, and of the window.
const STARTUP: (f64, f64) = (2.773, 2.0);
const DRAIN: (f64, f64) = (0.5, 2.0);
const DOWN: (f64, f64) = (0.9, 2.0);
const LEVEL: (f64, f64) = (1.0, 2.0);
const UP: (f64, f64) = (1.25, 2.25);
const PROBE_RTT: (f64, f64) = (1.0, 0.5);

/// Growth of the rate, in a round, that shows that the path is not full.
const FULL_GROWTH: f64 = 1.25;
/// Rounds without it after which the path is full; with a queue one less.
const FULL_ROUNDS: u32 = 3;
/// Loss events of one round after which the path is full, if they are a sign of congestion.
const FULL_LOSSES: u32 = 6;

/// Growth of the rate, in a round of a probe, that shows that the path carries more.
const UP_GROWTH: f64 = 1.05;
/// Rounds of a probe without it, the one before its first packets are acknowledged included.
const UP_ROUNDS: u32 = 3;

/// What a flight leaves free below what it may reach, for others.
const HEADROOM: f64 = 0.15;
/// Time between two probes of the rate: this, and up to a second more.
const PROBE_AFTER: Duration = Duration::from_secs(2);
/// Rounds between two probes, so that flows of Reno beside this one get their share.
const PROBE_AFTER_ROUNDS: u64 = 63;
/// How long the flight stays small for the shortest round trip.
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
/// Bytes that one batch may have: of this time at the pacing rate.
const QUANTUM: Duration = Duration::from_millis(1);

/// A state, and what it has to remember.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// The rate is not known yet: it doubles every round.
    Startup,
    /// The queue of the startup drains.
    Drain,
    /// The rate is known: leave a little room, use it, prepare a probe, probe.
    Down,
    Cruise,
    Refill,
    Up,
    /// The flight is small, so that the shortest round trip shows; until then, once it is.
    ProbeRtt {
        until: Option<Instant>,
        round: u64,
        measured: Duration,
    },
}

impl State {
    const fn gains(self) -> (f64, f64) {
        match self {
            Self::Startup => STARTUP,
            Self::Drain => DRAIN,
            Self::Down => DOWN,
            Self::Cruise | Self::Refill => LEVEL,
            Self::Up => UP,
            Self::ProbeRtt { .. } => PROBE_RTT,
        }
    }

    const fn is_probing_rate(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }

    const fn is_cycle(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }
}

/// What the acknowledgements of the first rounds after a probe belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feedback {
    None,
    /// Packets of the probe are under way.
    Starting,
    /// Packets that were sent after the probe are under way.
    Stopping,
}

/// How the search for a full path stands.
#[derive(Debug, Clone, Copy)]
struct Full {
    rate: f64,
    rounds: u32,
    is_reached: bool,
}

/// BBR for one connection.
#[derive(Debug, Clone)]
pub(super) struct Bbr {
    state: State,
    model: Model,
    delivery: Delivery,
    mtu: u64,
    window: u64,
    /// Bytes a second.
    pacing_rate: f64,
    /// Rounds since the beginning, and the total of deliveries that ends the present one.
    round: u64,
    round_ends: u64,
    full: Full,
    loss_events: u32,
    feedback: Feedback,
    /// When the present state of the cycle began, and how long until the next probe.
    cycle_began: Instant,
    cycle_round: u64,
    probe_after: Duration,
    /// Rounds of the present probe.
    up_rounds: u32,
    /// The window before the flight was made small.
    prior_window: u64,
    /// Draws the time between two probes, so that flows do not probe together.
    rng: Rng,
}

impl Bbr {
    pub(super) const fn new(rng: Rng, mtu: u16, now: Instant) -> Self {
        Self {
            state: State::Startup,
            model: Model::new(now),
            delivery: Delivery::new(now),
            mtu: mtu as u64,
            window: INITIAL_PACKETS * mtu as u64,
            pacing_rate: 0.0,
            round: 0,
            round_ends: 0,
            full: Full { rate: 0.0, rounds: 0, is_reached: false },
            loss_events: 0,
            feedback: Feedback::None,
            cycle_began: now,
            cycle_round: 0,
            probe_after: PROBE_AFTER,
            up_rounds: 0,
            prior_window: 0,
            rng,
        }
    }

    /// Returns the rate at which packets are to be sent, in bytes a second; none before a round
    /// trip was measured.
    pub(super) fn pacing_rate(&self) -> Option<f64> {
        (self.pacing_rate > 0.0).then_some(self.pacing_rate)
    }

    /// Returns the shortest round trip of the path.
    pub(super) const fn min_rtt(&self) -> Option<Duration> {
        self.model.min_rtt()
    }

    /// Packets of so many bytes were sent.
    pub(super) fn on_sent(&mut self, bytes: u64, now: Instant) {
        self.delivery.on_sent(bytes, now);
    }

    /// A packet that was sent at `sent` is acknowledged.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivery.on_ack(sent, bytes);
    }

    /// An acknowledgement is complete, and leaves `in_flight` bytes.
    pub(super) fn on_end_acks(&mut self, in_flight: u64, is_app_limited: bool, now: Instant) {
        if let Some(sample) = self.delivery.on_end_acks(in_flight, is_app_limited, now) {
            self.on_sample(&sample, now);
        }
    }

    /// Packets are lost, the latest of which was sent at `sent`, or a mark of congestion came, with
    /// no lost bytes.
    pub(super) fn on_lost(&mut self, sent: Instant, bytes: u64, is_persistent: bool, now: Instant) {
        let Some(batch) = self.delivery.on_lost(sent, bytes) else { return };
        self.loss_events += 1;
        // A mark (RFC 3168) is congestion in any case.
        if bytes == 0 || self.model.is_congestion(batch.lost, batch.in_flight, self.mtu) {
            self.model.note_congestion();
            if self.state == State::Startup && self.loss_events >= FULL_LOSSES {
                self.full.is_reached = true;
                self.model.inflight_hi = Some(self.flight_by(self.model.max_capacity(), 1.0));
            }
            let is_of_probe = self.feedback == Feedback::Starting || self.state.is_probing_rate();
            if is_of_probe && self.state != State::Startup && self.full.is_reached {
                self.feedback = Feedback::Stopping;
                self.on_too_much(batch.in_flight, batch.is_app_limited, now);
            }
        }
        if is_persistent {
            // The model stays: what is acknowledged next opens the window again.
            self.window = self.least_window();
        }
    }

    /// Packets that are sent from now on take another path, with this shortest round trip: what is
    /// known of the old one's length and limits is forgotten. Its rate stays, and is probed.
    pub(super) fn on_path_changed(&mut self, round_trip: Option<Duration>, now: Instant) {
        self.model.on_path_changed(round_trip, now);
        if self.full.is_reached {
            self.begin_cruise(now);
        }
        self.set_pacing_rate();
        self.set_window(0);
    }

    /// The packet size changed.
    pub(super) fn on_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
        self.window = self.window.max(self.least_window());
    }

    /// Takes one acknowledgement: its measurements, then the state, then window and rate.
    fn on_sample(&mut self, sample: &Sample, now: Instant) {
        let is_round = sample.delivered_before >= self.round_ends;
        if is_round {
            self.round += 1;
            self.round_ends = self.delivery.delivered();
        }
        self.model.on_sample(sample, now);
        if is_round {
            let adapts = !self.state.is_probing_rate();
            self.check_full(sample);
            self.model.on_round(sample, adapts.then_some(self.window));
            self.loss_events = 0;
        }
        self.model.note_acked(sample.acked, self.window, self.round, now);
        if self.state == State::Startup && self.full.is_reached {
            self.state = State::Drain;
        }
        if self.state == State::Drain && self.delivery.in_flight() as f64 <= self.flight(1.0) {
            self.begin_down(now);
        }
        if self.state.is_cycle() {
            self.raise_limit(sample, is_round);
            self.advance_cycle(is_round, now);
        }
        self.advance_probe_rtt(sample, now);
        self.set_pacing_rate();
        self.set_window(sample.acked);
    }

    /// Decides at the end of a round of the startup whether the path is full.
    fn check_full(&mut self, sample: &Sample) {
        if self.full.is_reached || sample.is_app_limited {
            return;
        }
        if self.model.max_rate() >= self.full.rate * FULL_GROWTH {
            self.full.rate = self.model.max_rate();
            self.full.rounds = 0;
            return;
        }
        self.full.rounds += 1;
        self.full.is_reached = self.full.rounds + u32::from(self.model.has_queue()) >= FULL_ROUNDS;
    }

    fn begin_down(&mut self, now: Instant) {
        self.state = State::Down;
        self.feedback = Feedback::Stopping;
        self.probe_after = PROBE_AFTER + Duration::from_secs_f64(self.rng.unit());
        self.begin_phase(now);
        self.cycle_round = self.round;
    }

    /// Begins a cycle without the phase that leaves room.
    fn begin_cruise(&mut self, now: Instant) {
        self.begin_down(now);
        self.state = State::Cruise;
    }

    fn begin_phase(&mut self, now: Instant) {
        self.cycle_began = now;
        self.round_ends = self.delivery.delivered();
    }

    /// Raises what a flight may reach while it reaches it without too much loss, and forgets old
    /// rates once a probe is over.
    fn raise_limit(&mut self, sample: &Sample, is_round: bool) {
        if is_round && self.feedback == Feedback::Stopping {
            self.feedback = Feedback::None;
            if !sample.is_app_limited {
                self.model.begin_cycle();
            }
        }
        let Some(limit) = self.model.inflight_hi else { return };
        let mut limit = limit.max(sample.in_flight as f64);
        if self.state == State::Up && self.is_window_used(sample) && self.window as f64 >= limit {
            if is_round {
                self.up_rounds = (self.up_rounds + 1).min(30);
            }
            let growth = (self.mtu << self.up_rounds) as f64;
            limit += growth * sample.acked as f64 / self.window() as f64;
            // It is the limit that holds the rate, not the path.
            self.full.rounds = 0;
        }
        self.model.inflight_hi = Some(limit);
    }

    fn is_window_used(&self, sample: &Sample) -> bool {
        self.delivery.in_flight() + sample.acked + 2 * self.mtu >= self.window()
    }

    fn advance_cycle(&mut self, is_round: bool, now: Instant) {
        let in_flight = self.delivery.in_flight() as f64;
        match self.state {
            State::Down | State::Cruise if self.is_probe_due(now) => {
                self.model.lift_bounds();
                self.state = State::Refill;
                self.begin_phase(now);
            }
            State::Down if in_flight <= self.flight(1.0).min(self.limit_with_headroom()) => {
                self.state = State::Cruise;
            }
            State::Refill if is_round => {
                self.state = State::Up;
                self.feedback = Feedback::Starting;
                self.up_rounds = 0;
                self.full.rate = self.model.max_rate();
                self.full.rounds = 0;
                self.begin_phase(now);
            }
            State::Up => {
                let elapsed = now.saturating_duration_since(self.cycle_began);
                let full = self.flight_by(self.model.max_capacity(), UP.0);
                let is_seen = elapsed > self.model.min_rtt().unwrap_or_default() * 3 / 2;
                let grows = self.note_growth(is_round);
                if (is_seen && in_flight >= full && !grows) || self.full.rounds >= UP_ROUNDS {
                    self.begin_down(now);
                }
            }
            State::Startup
            | State::Drain
            | State::Down
            | State::Cruise
            | State::Refill
            | State::ProbeRtt { .. } => {}
        }
    }

    /// Counts the rounds of a probe in which the rate does not grow. Returns true if it grew: what
    /// others leave is taken for as long as there is more.
    fn note_growth(&mut self, is_round: bool) -> bool {
        let grows = self.model.max_rate() >= self.full.rate * UP_GROWTH;
        if grows {
            self.full.rate = self.model.max_rate();
            self.full.rounds = 0;
        } else if is_round {
            self.full.rounds += 1;
        }
        grows
    }

    fn is_probe_due(&self, now: Instant) -> bool {
        let packets = (self.model.capacity() / self.mtu as f64) as u64;
        let rounds = self.round.saturating_sub(self.cycle_round);
        now.saturating_duration_since(self.cycle_began) > self.probe_after
            || rounds >= packets.clamp(LEAST_PACKETS, PROBE_AFTER_ROUNDS)
    }

    /// Makes the flight small when the shortest round trip was not seen for long, and returns to
    /// the cycle afterwards.
    fn advance_probe_rtt(&mut self, sample: &Sample, now: Instant) {
        let small = (self.model.capacity() * PROBE_RTT.1).max(self.least_window() as f64);
        if let State::ProbeRtt { until, round, measured } = &mut self.state {
            *measured = (*measured).min(sample.rtt);
            match *until {
                None if self.delivery.in_flight() as f64 <= small => {
                    *until = Some(now + PROBE_RTT_TIME);
                    *round = self.round;
                    *measured = Duration::MAX;
                    self.round_ends = self.delivery.delivered();
                }
                Some(at) if now >= at && self.round > *round => {
                    let measured = Some(*measured).filter(|it| *it != Duration::MAX);
                    self.model.renew_min_rtt(measured, now);
                    self.window = self.window.max(self.prior_window);
                    self.leave_probe_rtt(now);
                }
                _ => {}
            }
        } else if self.model.is_min_rtt_old(now) {
            if self.delivery.in_flight() <= self.least_window() {
                // Hardly anything is in flight: what is measured now has no queue of this flow.
                self.model.renew_min_rtt(Some(sample.rtt), now);
                return;
            }
            self.prior_window = self.window;
            self.state =
                State::ProbeRtt { until: None, round: self.round, measured: Duration::MAX };
        }
    }

    fn leave_probe_rtt(&mut self, now: Instant) {
        if !self.full.is_reached {
            self.state = State::Startup;
            return;
        }
        self.begin_cruise(now);
    }

    /// Returns the bytes of a flight with this gain, and with room for batches.
    fn flight(&self, gain: f64) -> f64 {
        self.flight_by(self.model.capacity(), gain)
    }

    fn flight_by(&self, capacity: f64, gain: f64) -> f64 {
        let flight = (capacity * gain).max(self.least_window() as f64);
        flight + 3.0 * self.quantum()
    }

    const fn least_window(&self) -> u64 {
        LEAST_PACKETS * self.mtu
    }

    fn quantum(&self) -> f64 {
        (self.pacing_rate * QUANTUM.as_secs_f64()).clamp(self.mtu as f64, 64_000.0)
    }

    fn limit_with_headroom(&self) -> f64 {
        let least = self.least_window() as f64;
        self.model.inflight_hi.map_or(f64::MAX, |limit| (limit * (1.0 - HEADROOM)).max(least))
    }

    fn set_pacing_rate(&mut self) {
        let Some(min_rtt) = self.model.min_rtt() else { return };
        let gain = self.state.gains().0;
        let round_trip = min_rtt.max(QUANTUM).as_secs_f64();
        let least = self.least_window() as f64 / round_trip;
        if self.pacing_rate == 0.0 {
            self.pacing_rate = STARTUP.0 * (INITIAL_PACKETS * self.mtu) as f64 / round_trip;
        }
        let rate = (gain * self.model.rate() * PACING_MARGIN).max(least);
        if self.full.is_reached || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    fn set_window(&mut self, acked: u64) {
        let gain = self.state.gains().1;
        let most = (self.flight(gain) + self.model.surplus()) as u64;
        if self.full.is_reached {
            self.window = (self.window + acked).min(most);
        } else if self.window < most || self.delivery.delivered() < INITIAL_PACKETS * self.mtu {
            self.window += acked;
        }
        self.window = self.window.max(self.least_window());
    }

    /// Returns the window within all bounds of the present state.
    pub(super) fn window(&self) -> u64 {
        let least = self.least_window() as f64;
        let limit = match self.state {
            State::Cruise => self.limit_with_headroom(),
            State::ProbeRtt { .. } => {
                self.limit_with_headroom().min(self.model.capacity() * PROBE_RTT.1)
            }
            State::Startup | State::Drain | State::Down | State::Refill | State::Up => {
                self.model.inflight_hi.unwrap_or(f64::MAX)
            }
        };
        let limit = limit.min(self.model.inflight_lo.unwrap_or(f64::MAX)).max(least);
        self.window.min(limit as u64)
    }

    /// Loss or a mark that is a sign of congestion came while the rate was probed.
    fn on_too_much(&mut self, in_flight: u64, is_app_limited: bool, now: Instant) {
        if is_app_limited {
            return;
        }
        let target = self.flight(1.0).min(self.window as f64);
        self.model.inflight_hi = Some((in_flight as f64).max(target * BETA));
        if self.state == State::Up {
            self.begin_down(now);
        }
    }
}

#[cfg(test)]
mod tests;
