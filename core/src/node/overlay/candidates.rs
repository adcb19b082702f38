//! Addresses at which this node and its peers may be reached: discovered ones go to every path
//! machine, and those that a peer advertises go to its own. [`crate::path`] decides which are worth
//! a probe.

use super::Overlay;
use crate::event::Event;
use crate::fallback::is_carried;
use crate::id::PeerId;
use crate::message::{self, CandidateKind, Candidates, Welcome};
use crate::node::io::{Effect, Io};
use crate::path::{self, Offer};
use crate::quic::ConnectionId;
use crate::transmit::Route;

impl Overlay {
    /// Handles the welcome of a relay, with the address that the relay sees.
    pub(in crate::node) fn on_welcome(&mut self, relay: PeerId, welcome: &Welcome, io: &mut Io) {
        let key = crate::probe::Key::new(welcome.key.0);
        // The address that a relay sees of a client on TCP is not a candidate.
        let observed = Some(welcome.observed).filter(|&it| !is_carried(it));
        let (session, now) = (welcome.session, io.now());
        let is_moved =
            self.discovery.on_welcome(relay, observed, &welcome.discovery, session, key, now);
        if is_moved {
            io.effect(Effect::AddressChanged { relay });
        }
        if let Some(address) = observed {
            io.emit(Event::Observed { peer: relay, address });
        }
        self.on_discovered(io);
    }

    /// Handles a possible change in what this node knows of its own addresses.
    pub(super) fn on_discovered(&mut self, io: &mut Io) {
        let now = io.now();
        while let Some((to, bytes)) = self.discovery.poll(now) {
            self.push(Route::to(to), bytes.to_vec(), None);
        }
        let revision = self.discovery.revision();
        if std::mem::replace(&mut self.discovered, revision) == revision {
            return;
        }
        let (candidates, mapping) = (self.discovery.candidates(), self.discovery.mapping());
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(overlaid) = self.all.get_mut(&id) {
                overlaid.paths.set_local(&candidates, mapping, now);
            }
            self.drain(id, io);
        }
    }

    /// Handles the candidates of the other end of a connection.
    pub(in crate::node) fn on_candidates(
        &mut self,
        connection: ConnectionId,
        candidates: &Candidates,
        io: &mut Io,
    ) {
        let Some(id) = self.by_connection(connection) else { return };
        if let Some(overlaid) = self.all.get_mut(&id) {
            overlaid.paths.handle_candidates(&offer(candidates), io.now());
        }
        self.drain(id, io);
    }
}

/// Converts a peer's candidates for the path machine; kinds of later versions are left out.
fn offer(advertised: &Candidates) -> Offer {
    let candidate = |it: &message::Candidate| {
        let kind = match it.kind {
            CandidateKind::Host => path::Kind::Host,
            CandidateKind::Reflexive => path::Kind::Reflexive,
            CandidateKind::Mapped => path::Kind::Mapped,
            CandidateKind::Unknown => return None,
        };
        Some(path::Candidate { kind, address: it.address })
    };
    let mapping = match advertised.mapping {
        message::Mapping::None => path::Mapping::None,
        message::Mapping::Independent => path::Mapping::Independent,
        message::Mapping::Dependent => path::Mapping::Dependent,
        message::Mapping::Unknown => path::Mapping::Unknown,
    };
    let candidates = advertised.candidates.iter().filter_map(candidate).collect();
    Offer { candidates, mapping, round: advertised.round }
}

/// Returns the addresses that this node advertises to a peer: its own, never one at which it saw
/// the peer.
pub(super) fn advertised(offer: &Offer) -> Candidates {
    let candidate = |it: &path::Candidate| {
        let kind = match it.kind {
            path::Kind::Host => CandidateKind::Host,
            path::Kind::Reflexive => CandidateKind::Reflexive,
            path::Kind::Mapped => CandidateKind::Mapped,
            path::Kind::PeerReflexive => return None,
        };
        Some(message::Candidate { kind, address: it.address })
    };
    let mapping = match offer.mapping {
        path::Mapping::None => message::Mapping::None,
        path::Mapping::Independent => message::Mapping::Independent,
        path::Mapping::Dependent => message::Mapping::Dependent,
        path::Mapping::Unknown => message::Mapping::Unknown,
    };
    let candidates = offer.candidates.iter().filter_map(candidate).collect();
    Candidates { candidates, mapping, round: offer.round }
}
