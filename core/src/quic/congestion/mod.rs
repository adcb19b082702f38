//! Congestion control: BBR by default or Cubic (RFC 9438), and between close hosts Cubic with a
//! bound.
//!
//! Cubic takes every loss for congestion, so that it is slow on a path that loses packets for other
//! reasons; [`bbr`] is not. Between hosts less than 5 ms apart a rate that is measured by
//! acknowledgements is too coarse to be followed, and [`bound`] prevents the standing queue that
//! Cubic alone would build there. Both controllers see all packets, so that the one that fits the
//! path is ready when the path is known.
//!
//! Every controller lets the few packets pass that [`super::stall`] asks for.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

use self::bbr::Bbr;
use self::bound::{Bound, LOCAL};
use super::stall::Flight;
use crate::config::Congestion;
use crate::rng::Rng;

mod bbr;
mod bound;
mod pacer;

pub(super) use pacer::Pacer;

/// The window while packets may pass it. Above 4 GiB the transport does not pace either.
const OPEN: u64 = 1 << 40;

/// The window while the rate allows no packet.
const HELD: u64 = 1;

/// Makes the controllers of one connection.
#[derive(Debug)]
pub(super) struct Controllers {
    /// None for connections that carry other connections with their own congestion control.
    pub(super) congestion: Option<Congestion>,
    /// Draws when a connection probes its path.
    pub(super) rng: Rng,
    pub(super) flight: Arc<Flight>,
}

impl ControllerFactory for Controllers {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        if let Some(mut kept) = self.flight.take_kept() {
            kept.on_mtu_update(current_mtu);
            return kept;
        }
        let flight = self.flight.clone();
        let Some(congestion) = self.congestion else {
            return Box::new(Passable { inner: Box::new(Fixed), bound: None, bbr: None, flight });
        };
        let bbr =
            (congestion == Congestion::Bbr).then(|| Bbr::new(self.rng.clone(), current_mtu, now));
        Box::new(Passable {
            inner: Arc::new(CubicConfig::default()).build(now, current_mtu),
            bound: Some(Bound::new(now)),
            bbr,
            flight,
        })
    }
}

/// The controllers of a path, of which one holds, that some packets may pass.
struct Passable {
    inner: Box<dyn Controller>,
    bound: Option<Bound>,
    bbr: Option<Bbr>,
    flight: Arc<Flight>,
}

impl Passable {
    /// Returns the window that holds while no packet may pass it.
    fn own_window(&self) -> u64 {
        if let Some(bbr) = self.present_bbr() {
            return bbr.window();
        }
        let bound = self.bound.as_ref().map_or(u64::MAX, |bound| bound.window);
        self.inner.window().min(bound)
    }

    /// Returns BBR, where it is in use and the hosts are not close.
    fn present_bbr(&self) -> Option<&Bbr> {
        self.bbr.as_ref().filter(|bbr| bbr.min_rtt().is_none_or(|rtt| rtt >= LOCAL))
    }

    fn set_pacing_rate(&self) {
        self.flight.set_pacing_rate(self.present_bbr().and_then(Bbr::pacing_rate));
    }
}

impl Controller for Passable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.flight.on_sent();
        if let Some(bbr) = &mut self.bbr {
            if let Some(round_trip) = self.flight.take_path() {
                bbr.on_path_changed(round_trip, now);
            }
            bbr.on_sent(bytes, now);
        }
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
        if let Some(bbr) = &mut self.bbr {
            bbr.on_ack(sent, bytes);
        }
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
        if let Some(bbr) = &mut self.bbr {
            bbr.on_end_acks(in_flight, app_limited, now);
            self.set_pacing_rate();
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
        if let Some(bbr) = &mut self.bbr {
            bbr.on_lost(sent, lost_bytes, is_persistent_congestion, now);
            self.set_pacing_rate();
        }
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        if let Some(bbr) = &mut self.bbr {
            bbr.on_mtu(new_mtu);
        }
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.flight.is_open() {
            return OPEN;
        }
        if self.flight.is_held() {
            return HELD;
        }
        // A probe for the packet size may be larger than the least window. Its loss is no sign of
        // congestion (RFC 9000 §14.4), and what is behind it is not to wait for that.
        self.own_window() + self.flight.mtu_probe()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.own_window();
        metrics.pacing_rate =
            self.present_bbr().and_then(Bbr::pacing_rate).map(|rate| (rate * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (inner, bound, bbr) = (self.inner.clone_box(), self.bound.clone(), self.bbr.clone());
        Box::new(Self { inner, bound, bbr, flight: self.flight.clone() })
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
