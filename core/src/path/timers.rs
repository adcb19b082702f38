//! What is done when its time has come, and probes that go out.
//!
//! It decides the order in which due things are done. What is due is decided beside it.

use std::time::{Duration, Instant};

use super::liveness::LivenessStep;
use super::probe_flags::ProbeFlags;
use super::probe_track::PROVEN_AGAIN;
use super::{PathAction, PathReason, Paths};
use crate::probe::{Probe, ProbeKind};

/// The pace at which a way is proven: three of these are less than a person notices.
const PROVING: Duration = Duration::from_millis(200);
/// Probes at that pace that a relayed way gets before it is left to its ordinary pace.
const PROVING_RELAYED: u64 = 8;
/// The pace of a way that has missed one.
const DOUBTED: Duration = Duration::from_secs(1);

impl Paths {
    pub(super) fn on_time(&mut self, now: Instant) {
        let step = self.select.on_time(now);
        match step {
            LivenessStep::None => {}
            LivenessStep::Ask => self.ping_in_use(now),
            LivenessStep::Dead => self.on_dead(now),
        }
        if step == LivenessStep::Ask && self.select.is_direct() && self.select.has_fallen_silent() {
            // What is sent again goes first: where there is no room, the oldest is dropped.
            self.refresh(now);
            self.tell_by_relays(now);
        }
        if self.keys.is_some() {
            for at in 0..self.ways.all.len() {
                if self.ways.all[at].track.next.is_some_and(|next| next <= now) {
                    self.ping(at, now);
                }
            }
            self.meet_on_time(now);
        }
        self.consider(now);
        self.release(now);
        self.refresh(now);
    }

    /// The connection has become busy: what waits for a quiet one's pace is due sooner.
    #[cold]
    pub(super) fn on_busy(&mut self, now: Instant) {
        let now = self.advance(now);
        self.pulse.on_busy(now);
        if let Some(used) = self.select.in_use().and_then(|via| self.ways.find(via))
            && self.keys.is_some()
        {
            let pace = self.pulse.in_use(&mut self.rng, now);
            self.ways.all[used].track.pull(now + pace);
        }
        self.refresh(now);
    }

    /// Every relayed way is probed now.
    pub(super) fn probe_relayed(&mut self, now: Instant) {
        self.ways.all.iter_mut().filter(|way| !way.is_direct()).for_each(|way| way.track.pull(now));
    }

    pub(super) fn ping_in_use(&mut self, now: Instant) {
        if let Some(used) = self.select.in_use().and_then(|via| self.ways.find(via)) {
            self.ping(used, now);
        }
    }

    /// Sends a ping by the way at that place.
    pub(super) fn ping(&mut self, at: usize, now: Instant) {
        let via = self.ways.all[at].via;
        let state = self.state(at).to_byte();
        let Some(keys) = &self.keys else { return };
        self.transaction += 1;
        let sent = self.clock(now);
        let ping = Probe {
            kind: ProbeKind::Ping,
            session: keys.ours.0,
            transaction: self.transaction,
            sent,
            observed: None,
            state,
        };
        let bytes = ping.encode(&keys.ours.1);
        self.actions.push_back(PathAction::Probe { via, bytes });
        if self.select.is_in_use(via) {
            self.select.on_sent(true, now);
            self.pulse.on_probe(now);
        }
        let pace = self.pace(at, now);
        self.ways.all[at].track.on_sent(self.transaction, pace, now);
    }

    /// That time by the clock which probes carry: microseconds since this connection began.
    pub(super) fn clock(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The time to the next probe of that way; `None` if it is probed only when both ends knock.
    pub(super) fn pace(&mut self, at: usize, now: Instant) -> Option<Duration> {
        let way = &self.ways.all[at];
        if self.select.is_in_use(way.via) {
            return Some(self.pulse.in_use(&mut self.rng, now));
        }
        let track = &way.track;
        let is_unproven = track.streak < PROVEN_AGAIN;
        if !way.is_direct() {
            let is_proving = is_unproven && track.sent < PROVING_RELAYED;
            let standby = self.pulse.standby(&mut self.rng, now);
            return Some(if is_proving { PROVING } else { standby });
        }
        match (track.is_answering(), is_unproven, track.misses) {
            (false, _, _) => None,
            (true, true, 0) => Some(PROVING),
            (true, true, _) => Some(DOUBTED),
            (true, false, _) => Some(self.pulse.standby(&mut self.rng, now)),
        }
    }

    /// What every probe says of this end.
    pub(super) fn state(&self, at: usize) -> ProbeFlags {
        let way = &self.ways.all[at];
        ProbeFlags {
            is_bare: way.is_direct(),
            sends_direct: self.select.is_direct(),
            sends_here: self.select.is_in_use(way.via),
            is_deaf: self.select.is_direct() && self.select.suspect_since().is_some(),
            left: self.left,
        }
    }

    /// The way in use is silent for good.
    fn on_dead(&mut self, now: Instant) {
        if !self.fail_over(PathReason::Silent, now) {
            if self.meeting.next.is_none() {
                self.seek(now);
            }
            self.ping_in_use(now);
        }
    }

    /// Gives the packets that waited, if it is time.
    pub(super) fn release(&mut self, now: Instant) {
        let Some(via) = self.select.in_use() else { return };
        for held in self.hold.take_due(now) {
            self.select.on_sent(false, now);
            self.replay.push(&held.bytes, held.segment_size, now);
            let (bytes, segment_size) = (held.bytes, held.segment_size);
            self.actions.push_back(PathAction::Packets { via, bytes, segment_size });
        }
    }
}
