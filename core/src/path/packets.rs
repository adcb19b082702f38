//! Packets of the connection between [`Paths::dispatch`](super::Paths::dispatch) and the network:
//! those that wait, those that may be sent again, and where copies go.
//!
//! It decides whether a packet is sent, sent twice or buffered. It never selects a path.

use std::time::{Duration, Instant};

use super::action::{Dispatch, PathAction};
use super::config::PathConfig;
use super::context::PathContext;
use super::liveness::ActivePath;
use super::reorder::ReorderBuffer;
use super::resend::{ANSWER_SLACK, ResendBuffer};
use crate::transmit::NextHop;

/// The packets of one connection.
#[derive(Debug)]
pub(super) struct PacketBuffers {
    reorder: ReorderBuffer,
    resend: ResendBuffer,
    /// Where copies go while the active path is suspect.
    copy: Option<NextHop>,
    /// How long an answer takes on the active path.
    answer: Duration,
}

impl PacketBuffers {
    pub(super) fn new(config: &PathConfig, rtt: Duration) -> Self {
        Self {
            reorder: ReorderBuffer::new(config.reorder_bytes),
            resend: ResendBuffer::new(config.resend_bytes),
            copy: None,
            answer: rtt,
        }
    }

    /// Decides where packets go while `active` is the active path.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        active: &mut ActivePath,
        bytes: &[u8],
        segment_size: Option<usize>,
        now: Instant,
    ) -> Dispatch {
        if self.reorder.is_closed() {
            self.reorder.push(bytes, segment_size, now);
            return Dispatch::Held;
        }
        let Some(first) = active.hop() else { return Dispatch::Held };
        active.on_sent(false, now);
        if let Some(copy) = self.copy {
            return Dispatch::Both { first, copy };
        }
        self.resend.push(bytes, segment_size, now);
        Dispatch::Send(first)
    }

    /// Returns true if packets take the active path alone and immediately.
    pub(super) const fn is_undisturbed(&self) -> bool {
        !self.reorder.is_closed() && self.copy.is_none()
    }

    /// Something authentic came on the active path.
    #[inline]
    pub(super) fn on_received(&mut self, now: Instant) {
        self.resend.on_received(self.answer, now);
    }

    /// A planned switch: packets wait until those before them have arrived.
    pub(super) fn on_planned_switch(&mut self, wait: Duration, now: Instant) {
        self.reorder.close(wait, now);
        self.resend.forget();
    }

    /// The active path has failed: packets that may be lost are sent again before all others.
    pub(super) fn on_failure(&mut self, now: Instant) {
        let lost = self.resend.take();
        self.reorder.put_first(lost, now);
    }

    /// There is no path: packets wait for one.
    pub(super) const fn on_no_path(&mut self) {
        self.reorder.close_without_path();
    }

    /// Sends the packets that waited, if it is time.
    pub(super) fn release(&mut self, active: &mut ActivePath, cx: &mut PathContext, now: Instant) {
        let Some(via) = active.hop() else { return };
        for batch in self.reorder.take_due(now) {
            active.on_sent(false, now);
            self.resend.push(&batch.bytes, batch.segment_size, now);
            let (bytes, segment_size) = (batch.bytes, batch.segment_size);
            cx.push(PathAction::Packets { via, bytes, segment_size });
        }
    }

    /// Notes the round trip of the active path, the backup path, and whether copies go there. When
    /// they begin to, the packets sent lately are sent there as well: a connection that waits for
    /// an answer may send none of its own for a while.
    pub(super) fn set_backup(
        &mut self,
        rtt: Duration,
        backup: Option<NextHop>,
        is_suspect: bool,
        cx: &mut PathContext,
    ) {
        self.answer = rtt + ANSWER_SLACK;
        self.resend.set_on(backup.is_some());
        let copy = backup.filter(|_| is_suspect);
        if let (None, Some(via)) = (self.copy, copy) {
            for batch in self.resend.take() {
                let (bytes, segment_size) = (batch.bytes, batch.segment_size);
                cx.push(PathAction::Packets { via, bytes, segment_size });
            }
        }
        self.copy = copy;
    }

    /// Returns when [`PacketBuffers::release`] is due.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.reorder.deadline()
    }

    /// Returns how many bytes wait or are kept to be sent again.
    pub(super) fn bytes(&self) -> usize {
        self.reorder.bytes() + self.resend.bytes()
    }

    /// Returns how many dispatches were dropped because too many waited.
    pub(super) const fn dropped(&self) -> u64 {
        self.reorder.dropped()
    }
}
