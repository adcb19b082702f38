//! The ways that one connection knows: its relays, and the addresses of its peer.
//!
//! It decides how many there are and which give way. It never decides which is used.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::CandidateType;
use super::liveness::is_same;
use super::probe_track::{PROVEN, PROVEN_AGAIN, ProbeTrack};
use super::score::PathClass;
use crate::transmit::{NextHop, Route};

/// Direct ways of one connection: what a peer may tell, and eight more from which it may come.
pub(super) const MAX_DIRECT: usize = 24;
/// Relayed ways of one connection: two relays, and each in two families.
pub(super) const MAX_RELAYED: usize = 4;

/// Why a way is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Both ends' NATs choose a new port for every destination.
    CannotMeet,
    /// The system cannot send there.
    Unsendable,
}

/// How long a way is new: as long as one round of knocking.
const NEW: Duration = Duration::from_secs(4);

/// One way.
#[derive(Debug, Clone)]
pub(super) struct PathState {
    pub(super) via: NextHop,
    /// How a direct way's address became known; `None` for a relayed way.
    pub(super) kind: Option<CandidateType>,
    pub(super) track: ProbeTrack,
    /// Whether the peer told its address lately.
    pub(super) is_offered: bool,
    /// Whether the peer sends its packets by it, as it last said.
    pub(super) is_used_by_peer: bool,
    pub(super) is_worse: bool,
    pub(super) has_died: bool,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) created: Instant,
    pub(super) knocked: Option<Instant>,
    /// Since when the peer sends its packets by this way, though it is not the one in use.
    pub(super) moved_here: Option<Instant>,
    /// Batches of packets from an address that has not answered yet, since it was last asked.
    pub(super) batches: u32,
    /// Where the peer sees this end.
    pub(super) observed: Option<SocketAddr>,
}

impl PathState {
    pub(super) fn new(via: NextHop, kind: Option<CandidateType>, now: Instant) -> Self {
        Self {
            via,
            kind,
            track: ProbeTrack::default(),
            is_offered: false,
            is_used_by_peer: false,
            is_worse: false,
            has_died: false,
            obstacle: None,
            created: now,
            knocked: None,
            moved_here: None,
            batches: 0,
            observed: None,
        }
    }

    pub(super) const fn class(&self) -> PathClass {
        match self.via {
            NextHop::Direct(_) => PathClass::Direct,
            NextHop::Relayed(_) => PathClass::Relayed,
        }
    }

    pub(super) const fn is_direct(&self) -> bool {
        matches!(self.via, NextHop::Direct(_))
    }

    /// Whether the peer has answered there, ever: others may be sent no more than they send.
    pub(super) const fn is_validated(&self) -> bool {
        self.track.answered > 0 || !self.is_direct()
    }

    /// Whether it has been proven in both directions: an answer shows that the peer hears this end
    /// there and that this end hears the peer.
    pub(super) fn is_proven(&self) -> bool {
        let needed = if self.has_died { PROVEN_AGAIN } else { PROVEN };
        self.obstacle != Some(Obstacle::Unsendable) && self.track.streak >= needed
    }
}

/// All ways of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct PathSet {
    pub(super) all: Vec<PathState>,
}

impl PathSet {
    pub(super) fn find(&self, via: NextHop) -> Option<usize> {
        self.all.iter().position(|way| is_same(way.via, via))
    }

    pub(super) fn get(&self, via: NextHop) -> Option<&PathState> {
        self.all.iter().find(|way| is_same(way.via, via))
    }

    pub(super) fn direct(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.all.iter_mut().filter(|way| way.is_direct())
    }

    /// Adds a relayed way, unless it is there or there are too many. Gives whether it did.
    pub(super) fn add_relayed(&mut self, via: NextHop, now: Instant) -> bool {
        let relayed = self.all.iter().filter(|way| !way.is_direct()).count();
        let is_new = relayed < MAX_RELAYED && self.find(via).is_none();
        if is_new {
            self.all.push(PathState::new(via, None, now));
        }
        is_new
    }

    /// The direct way to `address`, added if there is room; a way that never answered and that the
    /// peer does not tell gives way, the oldest first. `None` if there is no room.
    pub(super) fn direct_to(
        &mut self,
        address: SocketAddr,
        kind: CandidateType,
        in_use: Option<NextHop>,
        now: Instant,
    ) -> Option<usize> {
        let via = NextHop::Direct(Route::to(address));
        if let Some(known) = self.find(via) {
            return Some(known);
        }
        if self.all.iter().filter(|way| way.is_direct()).count() >= MAX_DIRECT {
            let is_spare = |way: &PathState| {
                let is_used = in_use.is_some_and(|used| is_same(used, way.via));
                way.is_direct() && !way.is_offered && !way.track.is_answering() && !is_used
            };
            let spare = self.all.iter().enumerate().filter(|(_, way)| is_spare(way));
            let (oldest, _) = spare.min_by_key(|(_, way)| way.created)?;
            self.all.remove(oldest);
        }
        self.all.push(PathState::new(via, Some(kind), now));
        Some(self.all.len() - 1)
    }

    /// Forgets the direct ways that the peer no longer tells and that never led anywhere. One by which
    /// the peer has just come may still do so.
    pub(super) fn forget_untold(&mut self, in_use: Option<NextHop>, now: Instant) {
        self.all.retain(|way| {
            let is_used = in_use.is_some_and(|used| is_same(used, way.via));
            let is_new = now.saturating_duration_since(way.created) < NEW;
            !way.is_direct() || way.is_offered || way.track.is_answering() || is_used || is_new
        });
    }
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
    fn the_twenty_fifth_direct_way_takes_the_place_of_the_oldest_that_led_nowhere() {
        let now = anchor();
        let mut ways = PathSet::default();
        let add = |ways: &mut PathSet, port| {
            ways.direct_to(address(port), CandidateType::PeerReflexive, None, now)
        };
        (1..=24).for_each(|port| assert!(add(&mut ways, port).is_some()));
        ways.all[0].is_offered = true;
        assert_eq!(add(&mut ways, 25), Some(23));
        assert_eq!(ways.all.len(), MAX_DIRECT);
        assert!(ways.get(NextHop::Direct(Route::to(address(1)))).is_some());
        assert!(ways.get(NextHop::Direct(Route::to(address(2)))).is_none());
        ways.all.iter_mut().for_each(|way| way.is_offered = true);
        assert_eq!(add(&mut ways, 26), None);
    }

    #[test]
    fn four_relayed_ways_are_kept_each_once() {
        let mut ways = PathSet::default();
        let via = |number| NextHop::Relayed(Channel { relay: PeerId(1), number });
        assert!(ways.add_relayed(via(1), anchor()) && !ways.add_relayed(via(1), anchor()));
        assert!((2..=4).all(|number| ways.add_relayed(via(number), anchor())));
        assert!(!ways.add_relayed(via(5), anchor()));
    }
}
