//! The router of one connection's paths: each input goes to the owners of its parts, and what they
//! decide is carried out here.
//!
//! It decides the order in which that happens. What is due, which path is better and which probe
//! counts is decided by the owners, none of which knows another's fields.

use std::time::{Duration, Instant};

use super::action::{Dispatch, PathAction, PathRole};
use super::candidate::{CandidateAddress, CandidateOffer};
use super::config::PathConfig;
use super::context::PathContext;
use super::liveness::{ActivePath, LivenessStep, SilenceLimits};
use super::nat::Mapping;
use super::packets::PacketBuffers;
use super::path_set::PathSet;
use super::path_state::PathState;
use super::probe_flags::ProbeFlags;
use super::probe_track::ProbePurpose;
use super::prober::{ProbeOutcome, Prober};
use super::progress::{ProgressWatch, TransportProgress};
use super::punching::PunchingRounds;
use super::replay_window::Freshness;
use super::selection::{PathSwitch, Selection};
use super::view::{self, PathCounters, PathReason, PathsView};
use crate::id::Channel;
use crate::probe::{Probe, ProbeKey};
use crate::rng::Rng;
use crate::timer;
use crate::transmit::{NextHop, Route};

/// The round trip that is assumed before any is known (RFC 9002 §6.2.2).
const UNKNOWN_RTT: Duration = Duration::from_millis(333);

/// The paths of one connection.
///
/// Times never go back: a caller's earlier `now` counts as the latest.
#[derive(Debug)]
pub(crate) struct Paths {
    pub(super) cx: PathContext,
    pub(super) paths: PathSet,
    pub(super) active: ActivePath,
    packets: PacketBuffers,
    prober: Prober,
    rounds: PunchingRounds,
    counters: PathCounters,
    /// The connection's own smoothed round trip.
    srtt: Option<Duration>,
    progress: ProgressWatch,
    now: Instant,
    /// The earliest of the times that change on the cold paths only.
    wake: Option<Instant>,
}

impl Paths {
    /// Returns the paths of a connection whose first packets go through a relay.
    #[must_use]
    pub(crate) fn new(
        config: PathConfig,
        role: PathRole,
        first: Channel,
        rng: Rng,
        now: Instant,
    ) -> Self {
        let first = NextHop::Relayed(first);
        let limits = SilenceLimits::new(UNKNOWN_RTT, config.suspect_after, config.dead_after);
        let mut paths = PathSet::default();
        paths.add_relayed(first, now);
        Self {
            paths,
            active: ActivePath::new(first, limits, now),
            packets: PacketBuffers::new(&config, UNKNOWN_RTT),
            prober: Prober::new(now),
            rounds: PunchingRounds::default(),
            cx: PathContext::new(config, role, rng),
            counters: PathCounters::default(),
            srtt: None,
            progress: ProgressWatch::default(),
            now,
            wake: None,
        }
    }

    /// Returns where a packet goes, or several back to back. Everything that [`Paths::poll`]
    /// returns is to be sent before.
    #[inline]
    pub(crate) fn dispatch(
        &mut self,
        bytes: &[u8],
        segment_size: Option<usize>,
        now: Instant,
    ) -> Dispatch {
        if self.prober.on_dispatch() {
            self.on_busy(now);
        }
        self.packets.dispatch(&mut self.active, bytes, segment_size, now)
    }

    /// Returns the route of a packet that probes the path MTU (RFC 8899 §3), which takes the direct
    /// path or none. Without one it is lost, which is an answer. It is never buffered or sent
    /// again: it could take a relay then, in parts, and would be answered for a path that it never
    /// took.
    pub(crate) fn dispatch_mtu_probe(&self) -> Option<Route> {
        match self.active.hop() {
            Some(NextHop::Direct(route)) if self.packets.is_undisturbed() => Some(route),
            Some(NextHop::Direct(_) | NextHop::Relayed(_)) | None => None,
        }
    }

    /// Packets of the connection came from `via`, and the connection has authenticated one of them.
    /// Once for each batch is enough.
    #[inline]
    pub(crate) fn on_received(&mut self, via: NextHop, now: Instant) {
        if !self.active.is(via) {
            self.on_received_elsewhere(via, now);
            return;
        }
        if self.prober.peer().has_one_way_loss {
            // The peer receives nothing from here: what comes is no answer.
            return;
        }
        self.packets.on_received(now);
        if self.active.on_heard(now) {
            self.refresh(now);
        }
    }

    /// Packets of the connection came on a path that is not active.
    #[cold]
    fn on_received_elsewhere(&mut self, via: NextHop, now: Instant) {
        let now = self.advance(now);
        let has_keys = self.prober.has_keys();
        let Some(path) = self.paths.learn(via, self.cx.config.direct, self.active.hop(), now)
        else {
            return;
        };
        path.on_packets(has_keys, now);
        self.reselect(now);
        self.refresh(now);
    }

    /// Notes the connection's smoothed round trip, which includes what queues.
    pub(crate) const fn note_rtt(&mut self, srtt: Duration) {
        self.srtt = Some(srtt);
    }

    /// Notes how the connection's packets fare: after each batch that came, and before each probe.
    pub(crate) fn note_transport(&mut self, report: TransportProgress, now: Instant) {
        let news = self.progress.note(report, self.rtt(), now);
        let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop)) else { return };
        if !path.is_direct() {
            return;
        }
        path.size_mut().set_found(report.size);
        let is_its_own = self.packets.is_undisturbed() && self.active.is_settled(now);
        if news.has_carried && is_its_own {
            path.size_mut().on_carried(now);
        }
        if (news.has_lost && is_its_own) || news.is_stalled {
            path.on_loss(now);
            if news.is_stalled {
                let next = self.progress.next_probe(self.rtt()).unwrap_or(now);
                self.pull_active(next);
            }
            self.refresh(now);
        }
    }

    /// The connection's handshake is complete: from here paths are probed, and addresses sent. Each
    /// side is the tag and the key of one direction, from the connection's own exporter.
    pub(crate) fn set_keys(
        &mut self,
        ours: (u64, ProbeKey),
        theirs: (u64, ProbeKey),
        now: Instant,
    ) {
        let now = self.advance(now);
        self.prober.set_keys(ours, theirs);
        self.paths.pull_relayed(now);
        self.rounds.on_keys(&mut self.paths, &mut self.cx, now);
        self.refresh(now);
    }

    /// Sets this end's addresses. Without a call, none is sent and no path is direct.
    pub(crate) fn set_local(
        &mut self,
        candidates: &[CandidateAddress],
        mapping: Mapping,
        now: Instant,
    ) {
        let now = self.advance(now);
        if !self.cx.config.direct || !self.rounds.set_local(candidates, mapping) {
            return;
        }
        self.paths.set_can_meet(self.rounds.can_meet());
        if self.prober.has_keys() {
            self.rounds.on_local_changed(&mut self.paths, &mut self.cx, now);
        }
        self.refresh(now);
    }

    /// The peer has sent its addresses.
    pub(crate) fn handle_candidates(&mut self, offer: &CandidateOffer, now: Instant) {
        let now = self.advance(now);
        if !self.cx.config.direct || !self.rounds.accepts(offer.round, now) {
            return;
        }
        let usable = offer.usable(self.rounds.candidates());
        self.paths.set_full_probes(offer.has_full_probes);
        self.paths.set_offered(&usable, self.active.hop(), now);
        self.rounds.set_peer(offer.mapping, offer.round);
        self.paths.set_can_meet(self.rounds.can_meet());
        let has_keys = self.prober.has_keys();
        self.rounds.on_offer(offer.round, has_keys, &mut self.paths, &mut self.cx, now);
        self.refresh(now);
    }

    /// Another relay leads to the peer as well.
    pub(crate) fn add_relayed(&mut self, channel: Channel, now: Instant) {
        let (now, to) = (self.advance(now), NextHop::Relayed(channel));
        let Some(path) = self.paths.add_relayed(to, now) else { return };
        if self.prober.has_keys() {
            path.pull_probe(now);
        }
        if self.active.hop().is_none() {
            self.switch(PathSwitch { to, reason: PathReason::OnlyPath, planned: false }, now);
        }
        self.refresh(now);
    }

    /// That relay does not lead to the peer any more. If it was active, packets move to the backup
    /// immediately; without one, they wait for the next path.
    pub(crate) fn remove_relayed(&mut self, channel: Channel, now: Instant) {
        let (now, hop) = (self.advance(now), NextHop::Relayed(channel));
        self.paths.remove(hop);
        if self.active.is(hop) && !self.fail_over(PathReason::RelayLost, now) {
            self.active.move_to(None, PathReason::NoPath, now);
            self.packets.on_no_path();
        }
        self.refresh(now);
    }

    /// The host is in another network, or its addresses have changed: an active direct path is
    /// suspect, and a punching round begins as soon as it may.
    pub(crate) fn on_network_changed(&mut self, now: Instant) {
        let now = self.advance(now);
        self.active.forgive();
        self.paths.restart_direct();
        if self.prober.has_keys() {
            self.paths.pull_relayed(now);
            if self.active.is_direct() {
                self.active.suspect(now);
                self.ping_active(now);
            }
            self.rounds.restart(now);
        }
        self.refresh(now);
    }

    /// The system could not send to that address.
    pub(crate) fn on_send_failed(&mut self, route: Route, now: Instant) {
        let (now, hop) = (self.advance(now), NextHop::Direct(route));
        if self.active.is(hop) {
            self.active.suspect(now);
        } else if let Some(path) = self.paths.get_mut(hop) {
            path.on_unsendable();
        }
        self.refresh(now);
    }

    /// Takes bytes that may be a probe of this connection and came from `via`.
    pub(crate) fn handle_probe(
        &mut self,
        via: NextHop,
        bytes: &[u8],
        now: Instant,
    ) -> ProbeOutcome {
        let now = self.advance(now);
        let outcome = match self.prober.open(via, bytes) {
            Ok(probe) if probe.kind.is_ping() => self.on_ping(via, &probe, now),
            Ok(probe) => self.on_pong(via, &probe, now),
            Err(outcome) => outcome,
        };
        self.counters.count(outcome);
        if matches!(outcome, ProbeOutcome::Ping | ProbeOutcome::Pong) {
            self.leave_if_narrow(now);
            self.reselect(now);
            self.refresh(now);
        }
        outcome
    }

    fn on_ping(&mut self, via: NextHop, ping: &Probe, now: Instant) -> ProbeOutcome {
        let freshness = self.prober.take(ping);
        if freshness == Freshness::Old {
            return ProbeOutcome::Replayed;
        }
        let Some(path) = self.paths.learn(via, self.cx.config.direct, self.active.hop(), now)
        else {
            return ProbeOutcome::Stray;
        };
        // It is no answer to what this end sends: the peer may receive nothing, and ping for that
        // reason. Answered before anything follows from it: a failover has probes of its own to
        // send.
        let is_answered =
            self.prober.answer((path, via), ping, &mut self.active, &mut self.cx, now);
        if freshness == Freshness::Newest {
            self.on_flags(via, ProbeFlags::from_byte(ping.state), now);
        }
        if is_answered { ProbeOutcome::Ping } else { ProbeOutcome::Stray }
    }

    fn on_pong(&mut self, via: NextHop, pong: &Probe, now: Instant) -> ProbeOutcome {
        let Some(path) = self.paths.get_mut(via) else { return ProbeOutcome::Stray };
        let Some(is_moved) = self.prober.on_pong(path, pong, &self.active, &mut self.cx, now)
        else {
            return ProbeOutcome::Stray;
        };
        let sent = path.track().answered_sent().unwrap_or(now);
        if self.active.is(via) {
            self.active.on_heard(now);
            self.packets.on_received(now);
            self.on_active_answer(sent, now);
        } else if self.active.on_backup_answered(sent, now)
            && let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop))
        {
            let purpose = ProbePurpose::Verdict;
            self.prober.ping(path, purpose, &mut self.active, &mut self.cx, now);
        }
        if is_moved {
            // A NAT may have lost its mapping: until the relays receive from here, what they send
            // does not arrive.
            self.paths.pull_relayed(now);
        }
        ProbeOutcome::Pong
    }

    /// The active path has answered a probe that was sent at `sent`.
    fn on_active_answer(&mut self, sent: Instant, now: Instant) {
        let rtt = self.rtt();
        if !self.active.is_direct() {
            return;
        }
        if self.progress.on_answer(sent, rtt, now) {
            self.fail_over(PathReason::Unacknowledged, now);
        } else if let Some(next) = self.progress.next_probe(rtt) {
            self.pull_active(next);
        }
    }

    /// Makes a probe of the active path due at `at`, or earlier if it was.
    fn pull_active(&mut self, at: Instant) {
        if let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop)) {
            path.pull_probe(at);
        }
    }

    /// The peer advertises its state on the path to `via`.
    fn on_flags(&mut self, via: NextHop, flags: ProbeFlags, now: Instant) {
        let has_left = self.prober.set_peer(flags);
        let follows = flags.sends_here && !has_left && self.cx.role == PathRole::Acceptor;
        if follows && !via.is_direct() {
            // The dialler has selected a relay, and its grade of the direct path counts for both.
            self.paths.grade_used_by_peer_as_worse();
        }
        self.paths.on_peer_flags(via, flags.sends_here, self.active.is(via), now);
        if !self.active.is_direct() {
            return;
        }
        if has_left {
            self.fail_over(PathReason::PeerLeft, now);
        } else if flags.has_one_way_loss && !self.active.is_suspect() {
            self.active.suspect(now);
            self.ping_active(now);
        }
    }

    /// Returns what is to be done next, until `None`. After that, [`Paths::deadline`] is in the
    /// future.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<PathAction> {
        let now = self.advance(now);
        // What one turn makes due immediately is done in the next: a round that begins, packets
        // that came while others were on their way out.
        for _ in 0..4 {
            if self.cx.waiting() > 0 || self.due().is_none_or(|at| at > now) {
                break;
            }
            self.on_time(now);
        }
        self.cx.pop()
    }

    /// Returns when [`Paths::poll`] is to be called again. Cheap enough to ask after every call.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<timer::Deadline> {
        let at = if self.cx.waiting() == 0 { self.due() } else { Some(self.now) };
        at.map(|at| (at, timer::Reason::Path))
    }

    fn due(&self) -> Option<Instant> {
        [self.wake, self.active.check(), self.packets.deadline()].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        let step = self.active.on_time(now);
        match step {
            LivenessStep::None => {}
            LivenessStep::Ask => self.ping_active(now),
            LivenessStep::Dead => self.on_dead(now),
        }
        if step != LivenessStep::None {
            self.progress.interrupt();
        }
        if step == LivenessStep::Ask && self.active.has_fallen_silent() {
            // Packets that are sent again go first: where there is no room, the oldest is dropped.
            self.refresh(now);
            self.ping_backups(now);
        }
        if self.prober.has_keys() {
            for path in self.paths.iter_mut() {
                if path.on_time(now) {
                    let purpose = ProbePurpose::Paced;
                    self.prober.ping(path, purpose, &mut self.active, &mut self.cx, now);
                }
            }
            self.leave_if_narrow(now);
            let is_wanted = !self.active.is_direct() || self.active.is_suspect();
            self.rounds.on_time(is_wanted, &mut self.paths, &mut self.cx, now);
        }
        self.reselect(now);
        self.packets.release(&mut self.active, &mut self.cx, now);
        self.refresh(now);
    }

    /// Leaves a direct path that carries small packets only, if there is another.
    fn leave_if_narrow(&mut self, now: Instant) {
        let is_narrow = self.active_path().is_some_and(|path| path.size().is_narrow());
        if is_narrow {
            self.fail_over(PathReason::TooNarrow, now);
        }
    }

    /// The active path is silent for good.
    fn on_dead(&mut self, now: Instant) {
        if !(self.active.is_outlived(now) && self.fail_over(PathReason::Silent, now)) {
            if self.rounds.next().is_none() {
                self.rounds.restart(now);
            }
            if let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop)) {
                path.forgive();
            }
            self.ping_active(now);
            self.ping_backups(now);
        }
    }

    #[cold]
    fn on_busy(&mut self, now: Instant) {
        let now = self.advance(now);
        let active = self.active.hop().and_then(|hop| self.paths.get_mut(hop));
        self.prober.on_busy(active, &mut self.cx.rng, now);
        self.refresh(now);
    }

    fn ping_active(&mut self, now: Instant) {
        if let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop)) {
            let purpose = ProbePurpose::Doubt;
            self.prober.ping(path, purpose, &mut self.active, &mut self.cx, now);
        }
    }

    /// Asks every path that could take over whether it still answers. Relays carry the loss report.
    fn ping_backups(&mut self, now: Instant) {
        let is_direct = self.active.is_direct();
        for path in self.paths.iter_mut() {
            let is_backup = if path.is_direct() { !is_direct && path.is_proven() } else { true };
            if is_backup && !self.active.is(path.hop()) {
                let purpose = ProbePurpose::Doubt;
                self.prober.ping(path, purpose, &mut self.active, &mut self.cx, now);
            }
        }
    }

    /// Advertises immediately, through every relay, that the peer is not received directly.
    fn ping_relayed(&mut self, now: Instant) {
        for path in self.paths.relayed_mut() {
            let purpose = ProbePurpose::Verdict;
            self.prober.ping(path, purpose, &mut self.active, &mut self.cx, now);
        }
    }

    fn selection(&self) -> Selection<'_> {
        Selection { paths: &self.paths, active: &self.active, role: self.cx.role, rtt: self.rtt() }
    }

    /// Moves to a better path, if there is one.
    fn reselect(&mut self, now: Instant) {
        if !self.prober.has_keys() {
            return;
        }
        if let Some(switch) = self.selection().follow_peer() {
            self.paths.set_used_by_peer(switch.to);
            self.paths.inherit_size(self.active.hop(), switch.to);
            self.switch(switch, now);
            return;
        }
        self.paths.grade();
        let Some(switch) = self.selection().upgrade(now) else { return };
        if switch.reason == PathReason::DirectWorse {
            self.active.on_failure(now);
        } else if switch.reason == PathReason::Silent {
            self.fail_active();
        }
        self.switch(switch, now);
    }

    /// Leaves the active path, which has failed. Returns false if there is no backup.
    fn fail_over(&mut self, reason: PathReason, now: Instant) -> bool {
        let Some(switch) = self.selection().failover(reason) else { return false };
        let was_direct = self.active.is_direct();
        if was_direct {
            self.active.on_failure(now);
            let still_answers =
                matches!(reason, PathReason::TooNarrow | PathReason::Unacknowledged);
            if reason == PathReason::Unacknowledged {
                // Without a wait it would be taken again.
                self.active.on_failure(now);
            }
            if still_answers || reason == PathReason::Silent {
                self.prober.on_left();
            }
            if still_answers {
                self.fail_active();
            } else {
                self.paths.fail_direct(switch.to);
            }
        } else {
            self.fail_active();
        }
        self.switch(switch, now);
        if was_direct {
            self.ping_relayed(now);
            self.rounds.restart(now);
        }
        true
    }

    /// Earlier proofs of the active path show nothing any more.
    fn fail_active(&mut self) {
        if let Some(path) = self.active.hop().and_then(|hop| self.paths.get_mut(hop)) {
            path.fail();
        }
    }

    /// Makes another path the active one. At a planned change, packets wait until those before them
    /// have arrived; otherwise those that may be lost are sent again first.
    fn switch(&mut self, PathSwitch { to, reason, planned }: PathSwitch, now: Instant) {
        let from = self.active.hop();
        if planned {
            let most = self.cx.config.reorder_wait;
            let wait = self.paths.reorder_wait((from, to), self.rtt(), self.srtt, most);
            self.packets.on_planned_switch(wait, now);
        } else {
            self.packets.on_failure(now);
        }
        self.active.move_to(Some(to), reason, now);
        self.progress.interrupt();
        self.counters.switches += 1;
        let round_trip = self.paths.get(to).and_then(PathState::least_round_trip);
        self.cx.push(PathAction::Changed { from, to, reason, planned, round_trip });
        let is_relay_after_failure =
            !planned && from.is_some_and(NextHop::is_direct) && !to.is_direct();
        if is_relay_after_failure || self.paths.is_smaller(to, self.progress.size()) {
            self.progress.on_shrunk();
            self.cx.push(PathAction::Shrink);
        }
        if !to.is_direct() {
            self.rounds.on_relayed(now);
        }
        self.paths.on_switched(to, self.prober.has_keys(), now);
        self.refresh(now);
    }

    /// Brings up to date what is kept for the hot path.
    pub(super) fn refresh(&mut self, now: Instant) {
        let rtt = self.rtt();
        let has_keys = self.prober.has_keys();
        let (suspect_after, dead_after) = (self.cx.config.suspect_after, self.cx.config.dead_after);
        self.active.set_limits(SilenceLimits::new(rtt, suspect_after, dead_after));
        let backup = if has_keys { self.selection().backup() } else { None };
        self.packets.set_backup(rtt, backup, self.active.is_suspect(), &mut self.cx);
        let held_off = self.active.held_off_until(now);
        let held_off = held_off.filter(|_| self.paths.has_proven_direct());
        let probes = self.paths.next_probe().filter(|_| has_keys);
        let round = self.rounds.next().filter(|_| has_keys);
        self.wake = [probes, round, held_off].into_iter().flatten().min();
    }

    /// Returns the latest time, `now` or an earlier call's.
    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// Returns the active path, unless there is none.
    fn active_path(&self) -> Option<&PathState> {
        self.paths.get(self.active.hop()?)
    }

    /// Returns the round trip of the active path: the slower of those of its probes and the
    /// connection.
    fn rtt(&self) -> Duration {
        let probed = self.active_path().and_then(|path| path.track().smoothed());
        probed.max(self.srtt).unwrap_or(UNKNOWN_RTT)
    }

    /// Returns the state as plain data, with ages in place of instants.
    #[must_use]
    pub(crate) fn view(&self, now: Instant) -> PathsView {
        let Self { paths, active, prober, rounds, packets, counters, .. } = self;
        let is_stalled = self.progress.is_stalled(self.rtt(), self.now.max(now));
        view::overview(
            (paths, active, is_stalled),
            prober.peer(),
            rounds,
            packets,
            *counters,
            self.now.max(now),
        )
    }
}
