//! Congestion control: Cubic (RFC 9438), with a bound that prevents a standing queue between close
//! hosts.
//!
//! On a loopback or a local network no packet is lost until a socket buffer of megabytes overflows,
//! so that Cubic alone keeps it full and every small request waits behind it. There the window is
//! bounded by a little more than the amount that was recently delivered in two round trips. On
//! longer paths the bound is off: latency there is the path's, and a bound would yield to every
//! other sender.
//!
//! Every controller lets the few packets pass that [`super::stall`] asks for.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

use super::stall::Flight;

/// Round trips below this are local: a machine, a rack, an office.
const LOCAL: Duration = Duration::from_millis(5);

/// Queue that a local path may build on top of two round trips.
const QUEUE: Duration = Duration::from_micros(500);

/// Minimum of the bound: a wireless network of 400 Mbit/s may delay its packets by twenty times its
/// smallest round trip and is still filled.
const FLOOR: u64 = 1 << 20;

/// Shortest time over which a rate is measured: below it a single batch dominates.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

/// Rounds from which the best delivery rate is taken.
const ROUNDS: usize = 10;

/// The window while packets may pass it. Above 4 GiB the transport does not pace either.
const OPEN: u64 = 1 << 40;

/// Makes the controllers of one connection.
#[derive(Debug)]
pub(super) struct Controllers {
    /// False for connections that carry other connections with their own congestion control.
    pub(super) is_controlled: bool,
    pub(super) flight: Arc<Flight>,
}

impl ControllerFactory for Controllers {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        if let Some(mut kept) = self.flight.take_kept() {
            kept.on_mtu_update(current_mtu);
            return kept;
        }
        let (inner, bound): (Box<dyn Controller>, _) = if self.is_controlled {
            let cubic = Arc::new(CubicConfig::default()).build(now, current_mtu);
            (cubic, Some(Bound::new(now)))
        } else {
            (Box::new(Fixed), None)
        };
        Box::new(Passable { inner, bound, flight: self.flight.clone() })
    }
}

/// A controller with a bound, where there is one, that some packets may pass.
struct Passable {
    inner: Box<dyn Controller>,
    bound: Option<Bound>,
    flight: Arc<Flight>,
}

impl Passable {
    /// Returns the window that holds while no packet may pass it.
    fn own_window(&self) -> u64 {
        let bound = self.bound.as_ref().map_or(u64::MAX, |bound| bound.window);
        self.inner.window().min(bound)
    }
}

impl Controller for Passable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.flight.on_sent();
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.flight.on_packet_acknowledged(bytes);
        let is_bounded = self.bound.as_mut().is_some_and(|bound| {
            bound.on_ack(bytes, rtt.min());
            self.inner.window() >= bound.window
        });
        // A window that is not used must not grow, or the first loss would not reduce the sending
        // rate.
        self.inner.on_ack(now, sent, bytes, app_limited || is_bounded, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.flight.on_acknowledged(in_flight);
        if let Some(bound) = &mut self.bound {
            bound.on_end_acks(now);
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.flight.is_open() {
            return OPEN;
        }
        // A probe for the packet size may be larger than the least window. Its loss is no sign of
        // congestion (RFC 9000 §14.4), and what is behind it is not to wait for that.
        self.own_window() + self.flight.mtu_probe()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.own_window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (inner, bound) = (self.inner.clone_box(), self.bound.clone());
        Box::new(Self { inner, bound, flight: self.flight.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Bytes in flight that a connection to a relay never reaches: 10 Gbit/s over 200 ms.
const NO_BOUND: u64 = 256 << 20;

#[derive(Debug, Clone, Copy)]
struct Fixed;

impl Controller for Fixed {
    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        _is_persistent_congestion: bool,
        _lost_bytes: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        NO_BOUND
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        NO_BOUND
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The amount that the path recently delivered, and the resulting window.
#[derive(Debug, Clone)]
struct Bound {
    round_start: Instant,
    delivered: u64,
    /// The smallest round trip of the path.
    min_rtt: Duration,
    /// Bytes a second, of the latest rounds.
    rates: VecDeque<f64>,
    window: u64,
}

impl Bound {
    const fn new(now: Instant) -> Self {
        Self {
            round_start: now,
            delivered: 0,
            min_rtt: Duration::MAX,
            rates: VecDeque::new(),
            window: u64::MAX,
        }
    }

    fn on_ack(&mut self, bytes: u64, min_rtt: Duration) {
        self.delivered += bytes;
        self.min_rtt = min_rtt;
    }

    fn on_end_acks(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.round_start);
        if elapsed < SHORTEST_ROUND.max(self.min_rtt) {
            return;
        }
        if self.rates.len() == ROUNDS {
            self.rates.pop_front();
        }
        self.rates.push_back(self.delivered as f64 / elapsed.as_secs_f64());
        self.round_start = now;
        self.delivered = 0;
        self.window = if self.min_rtt >= LOCAL {
            u64::MAX
        } else {
            let best = self.rates.iter().copied().fold(0.0, f64::max);
            let room = best * (2 * self.min_rtt + QUEUE).as_secs_f64();
            FLOOR.max(room as u64)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const MS: Duration = Duration::from_millis(1);

    fn after_rounds(rtt: Duration, bytes: u64) -> Bound {
        let start = anchor();
        let mut bound = Bound::new(start);
        for round in 1..=5 {
            bound.on_ack(bytes, rtt);
            bound.on_end_acks(start + round * rtt.max(MS));
        }
        bound
    }

    #[test]
    fn a_local_path_holds_what_it_delivers_in_two_round_trips_and_a_little() {
        // 4 MB each millisecond: 4 GB/s over 400 µs, and 500 µs of queue.
        assert!(after_rounds(MS / 5, 4_000_000).window.abs_diff(3_600_000) < 100);
    }

    #[test]
    fn a_slow_local_path_keeps_the_floor() {
        assert_eq!(after_rounds(MS, 1_000).window, FLOOR);
    }

    #[test]
    fn a_path_of_five_milliseconds_is_not_bounded_and_one_below_is() {
        assert_eq!(after_rounds(LOCAL, 1_000_000).window, u64::MAX);
        assert_ne!(after_rounds(LOCAL - Duration::from_nanos(1), 1_000_000).window, u64::MAX);
    }
}
