//! Addresses by which this node and its peers may be reached: what was discovered goes to every way,
//! and what peers tell goes to theirs. What is worth trying is decided by [`crate::path`].

use std::time::Instant;

use super::Node;
use crate::id::PeerId;
use crate::message::{self, CandidateKind, Candidates};
use crate::path::{self, CandidateOffer};
use crate::transmit::Route;

impl Node {
    /// What this node knows of its own addresses changed.
    pub(super) fn on_discovered(&mut self, now: Instant) {
        self.drain_discovery(now);
        let revision = self.discovery.revision();
        if std::mem::replace(&mut self.discovered, revision) == revision {
            return;
        }
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        for number in self.ways.all.keys().copied().collect::<Vec<_>>() {
            if let Some(way) = self.ways.all.get_mut(&number) {
                way.paths.set_local(&candidates, mapping, now);
            }
            self.drain_way(number, now);
        }
    }

    pub(super) fn drain_discovery(&mut self, now: Instant) {
        while let Some((to, bytes)) = self.discovery.poll(now) {
            self.ways.push(Route::to(to), bytes.to_vec(), None);
        }
    }

    /// The peer said where it may be reached.
    pub(super) fn on_candidates(&mut self, peer: PeerId, candidates: &Candidates, now: Instant) {
        let Some(number) = self.way_of(peer) else { return };
        if let Some(way) = self.ways.all.get_mut(&number) {
            way.paths.handle_candidates(&offer(candidates), now);
        }
        self.drain_way(number, now);
    }
}

/// What a peer told, as the path machine takes it; kinds of later versions are left out.
fn offer(told: &Candidates) -> CandidateOffer {
    let candidate = |it: &message::Candidate| {
        let kind = match it.kind {
            CandidateKind::Host => path::CandidateType::Host,
            CandidateKind::Reflexive => path::CandidateType::Reflexive,
            CandidateKind::Mapped => path::CandidateType::Mapped,
            CandidateKind::Unknown => return None,
        };
        Some(path::CandidateAddress { kind, address: it.address })
    };
    let candidates = told.candidates.iter().filter_map(candidate).collect();
    CandidateOffer { candidates, mapping: told.mapping, round: told.round }
}

/// What this node tells a peer; an address from which the peer came is nothing to tell.
pub(super) fn told(offer: &CandidateOffer) -> Candidates {
    let candidate = |it: &path::CandidateAddress| {
        let kind = match it.kind {
            path::CandidateType::Host => CandidateKind::Host,
            path::CandidateType::Reflexive => CandidateKind::Reflexive,
            path::CandidateType::Mapped => CandidateKind::Mapped,
            path::CandidateType::PeerReflexive => return None,
        };
        Some(message::Candidate { kind, address: it.address })
    };
    let candidates = offer.candidates.iter().filter_map(candidate).collect();
    Candidates { candidates, mapping: offer.mapping, round: offer.round }
}
