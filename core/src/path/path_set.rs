//! The paths of one connection: its relays, and the addresses of its peer.
//!
//! It decides how many there are and which one makes room for another. It never decides which is
//! active.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::{CandidateAddress, CandidateType};
use super::path_state::PathState;
use super::probe_track::{ProbeTrack, RttSample};
use super::reorder;
use crate::transmit::{NextHop, Route};

/// Direct paths of one connection: what a peer may offer, and eight more from which it may come.
pub(super) const MAX_DIRECT: usize = 24;
/// Relayed paths of one connection: two relays, and each in two families.
pub(super) const MAX_RELAYED: usize = 4;

/// All paths of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct PathSet {
    all: Vec<PathState>,
    /// Whether the peer is known to answer no full-size probe.
    has_small_probes_only: bool,
}

impl PathSet {
    pub(super) fn get(&self, hop: NextHop) -> Option<&PathState> {
        self.all.iter().find(|path| path.hop().is_same_path(hop))
    }

    pub(super) fn get_mut(&mut self, hop: NextHop) -> Option<&mut PathState> {
        self.all.iter_mut().find(|path| path.hop().is_same_path(hop))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PathState> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.all.iter_mut()
    }

    pub(super) fn direct_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.all.iter_mut().filter(|path| path.is_direct())
    }

    pub(super) fn relayed_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.all.iter_mut().filter(|path| !path.is_direct())
    }

    /// Adds a relayed path, unless it is there or there are too many. Returns it if it was added.
    pub(super) fn add_relayed(&mut self, hop: NextHop, now: Instant) -> Option<&mut PathState> {
        let relayed = self.all.iter().filter(|path| !path.is_direct()).count();
        if relayed >= MAX_RELAYED || self.get(hop).is_some() {
            return None;
        }
        self.all.push(PathState::new(hop, None, now));
        self.all.last_mut()
    }

    /// Removes a path.
    pub(super) fn remove(&mut self, hop: NextHop) {
        self.all.retain(|path| !path.hop().is_same_path(hop));
    }

    /// Returns the direct path to `address`, added if there is room. A path that does not answer
    /// and that the peer does not offer makes room, the oldest first. Returns `None` if there is no
    /// room.
    fn direct_to(
        &mut self,
        address: SocketAddr,
        kind: CandidateType,
        active: Option<NextHop>,
        now: Instant,
    ) -> Option<&mut PathState> {
        let hop = NextHop::Direct(Route::to(address));
        if self.get(hop).is_none() {
            if self.all.iter().filter(|path| path.is_direct()).count() >= MAX_DIRECT {
                let is_spare = |path: &PathState| path.is_spare() && !is_active(path, active);
                let spare = self.all.iter().enumerate().filter(|(_, path)| is_spare(path));
                let (oldest, _) = spare.min_by_key(|(_, path)| path.created())?;
                self.all.remove(oldest);
            }
            let mut path = PathState::new(hop, Some(kind), now);
            path.size_mut().set_required(!self.has_small_probes_only);
            self.all.push(path);
        }
        self.get_mut(hop)
    }

    /// Returns the path on which something authentic came from `via`. An unknown address makes a
    /// new direct path, if `may_be_direct`.
    pub(super) fn learn(
        &mut self,
        via: NextHop,
        may_be_direct: bool,
        active: Option<NextHop>,
        now: Instant,
    ) -> Option<&mut PathState> {
        match via {
            NextHop::Relayed(_) => self.get_mut(via),
            NextHop::Direct(_) if !may_be_direct => None,
            NextHop::Direct(Route { remote, .. }) => {
                self.direct_to(remote, CandidateType::PeerReflexive, active, now)
            }
        }
    }

    /// Takes the addresses of the peer's latest offer, best first. Forgets the direct paths that it
    /// no longer offers and that never answered; one from which the peer has just come may still do
    /// so.
    pub(super) fn set_offered(
        &mut self,
        offered: &[CandidateAddress],
        active: Option<NextHop>,
        now: Instant,
    ) {
        self.direct_mut().for_each(PathState::withdraw_offer);
        for &CandidateAddress { kind, address } in offered {
            if let Some(path) = self.direct_to(address, kind, active, now) {
                path.offer(kind);
            }
        }
        self.all.retain(|path| !path.is_spare() || path.is_new(now) || is_active(path, active));
    }

    /// Notes whether the peer answers full-size probes.
    pub(super) fn set_full_probes(&mut self, has_full_probes: bool) {
        self.has_small_probes_only = !has_full_probes;
        self.direct_mut().for_each(|path| path.size_mut().set_required(has_full_probes));
    }

    /// Begins a punching round at every address of the peer that does not answer.
    pub(super) fn punch(&mut self, is_early: bool, now: Instant) {
        self.direct_mut().for_each(|path| path.punch(is_early, now));
    }

    /// Notes whether the NATs of both ends can meet at addresses that relays saw.
    pub(super) fn set_can_meet(&mut self, can_meet: bool) {
        self.direct_mut().for_each(|path| path.set_can_meet(can_meet));
    }

    /// Makes a probe of every relayed path due now.
    pub(super) fn pull_relayed(&mut self, now: Instant) {
        self.relayed_mut().for_each(|path| path.pull_probe(now));
    }

    /// The peer sends its packets on this path, and on no other.
    pub(super) fn set_used_by_peer(&mut self, hop: NextHop) {
        for path in &mut self.all {
            path.set_used_by_peer(path.hop().is_same_path(hop));
        }
    }

    /// The peer advertises on a path whether it sends its packets there.
    pub(super) fn on_peer_flags(
        &mut self,
        hop: NextHop,
        sends_here: bool,
        is_active: bool,
        now: Instant,
    ) {
        if sends_here {
            self.set_used_by_peer(hop);
        }
        if let Some(path) = self.get_mut(hop) {
            path.set_used_by_peer(sends_here);
            if sends_here && !is_active {
                path.on_peer_moved_here(now);
            }
        }
    }

    /// The peer left the direct path that it used for a relay: this end grades the path as it did.
    pub(super) fn grade_used_by_peer_as_worse(&mut self) {
        self.direct_mut().filter(|path| path.is_used_by_peer()).for_each(PathState::grade_as_worse);
    }

    /// Grades each direct path against the best relayed one.
    pub(super) fn grade(&mut self) {
        let relayed = self.all.iter().filter(|path| !path.is_direct() && path.is_proven());
        let best = relayed.filter_map(PathState::quality).min_by_key(|it| it.latency);
        self.direct_mut().for_each(|path| path.grade(best));
    }

    /// The direct paths start over: the network is another one.
    pub(super) fn restart_direct(&mut self) {
        self.direct_mut().for_each(PathState::restart);
    }

    /// Returns true if a path is not known to carry packets of that size. A relay splits them.
    pub(super) fn is_smaller(&self, hop: NextHop, size: u16) -> bool {
        hop.is_direct() && self.get(hop).is_some_and(|path| path.size().found() < size)
    }

    /// The peer comes from another address: what its path carried before, it most likely still does.
    pub(super) fn inherit_size(&mut self, from: Option<NextHop>, to: NextHop) {
        let found = from.and_then(|from| self.get(from)).map(|path| path.size().found());
        if let (Some(found), Some(path)) = (found, self.get_mut(to)) {
            path.size_mut().set_found(found);
        }
    }

    /// A direct path failed. All others fail with it, save the one that packets move to.
    pub(super) fn fail_direct(&mut self, to: NextHop) {
        let others = self.direct_mut().filter(|path| !path.hop().is_same_path(to));
        others.for_each(PathState::fail_with_others);
    }

    /// The active path has changed to `to`, which is probed now if this end `has_keys`.
    pub(super) fn on_switched(&mut self, to: NextHop, has_keys: bool, now: Instant) {
        for path in &mut self.all {
            path.on_switched();
            if has_keys && path.hop().is_same_path(to) {
                path.pull_probe(now);
            }
        }
    }

    /// Returns how long packets wait at a planned switch, see [`reorder::wait`]. `rtt` stands in
    /// for what was not measured, `smoothed` is the connection's own round trip.
    pub(super) fn reorder_wait(
        &self,
        (from, to): (Option<NextHop>, NextHop),
        rtt: Duration,
        smoothed: Option<Duration>,
        most: Duration,
    ) -> Duration {
        let track = |hop| self.get(hop).map(PathState::track);
        let unknown = RttSample { round_trip: rtt, there: None };
        let old = from.and_then(track).and_then(ProbeTrack::latest).unwrap_or(unknown);
        let new = track(to).and_then(ProbeTrack::quickest).unwrap_or(unknown);
        let least = from.and_then(track).and_then(ProbeTrack::least).unwrap_or(old.round_trip);
        reorder::wait(old, new, smoothed.unwrap_or(old.round_trip), least, most)
    }

    /// Returns when the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.all.iter().filter_map(PathState::next).min()
    }

    /// Returns true if a direct path is proven.
    pub(super) fn has_proven_direct(&self) -> bool {
        self.all.iter().any(|path| path.is_direct() && path.is_proven())
    }
}

fn is_active(path: &PathState, active: Option<NextHop>) -> bool {
    active.is_some_and(|active| active.is_same_path(path.hop()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Channel, PeerId};
    use crate::timer::anchor;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn the_twenty_fifth_direct_path_replaces_the_oldest_unanswered() {
        let now = anchor();
        let mut paths = PathSet::default();
        let add = |paths: &mut PathSet, port| {
            paths.direct_to(address(port), CandidateType::PeerReflexive, None, now).is_some()
        };
        (1..=24).for_each(|port| assert!(add(&mut paths, port)));
        paths.all[0].offer(CandidateType::Host);
        assert!(add(&mut paths, 25));
        assert_eq!(paths.all[23].hop(), NextHop::Direct(Route::to(address(25))));
        assert_eq!(paths.all.len(), MAX_DIRECT);
        assert!(paths.get(NextHop::Direct(Route::to(address(1)))).is_some());
        assert!(paths.get(NextHop::Direct(Route::to(address(2)))).is_none());
        paths.all.iter_mut().for_each(|path| path.offer(CandidateType::Host));
        assert!(!add(&mut paths, 26));
    }

    #[test]
    fn four_relayed_paths_are_kept_each_once() {
        let mut paths = PathSet::default();
        let hop = |number| NextHop::Relayed(Channel { relay: PeerId(1), number });
        let mut add = |number| paths.add_relayed(hop(number), anchor()).is_some();
        assert!(add(1) && !add(1));
        assert!((2..=4).all(&mut add));
        assert!(!add(5));
    }
}
