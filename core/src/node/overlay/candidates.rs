//! Addresses at which this node and its peers may be reached: discovered ones go to every path
//! machine, and those that a peer advertises go to its own. [`crate::path`] decides which are worth
//! a probe.

use super::Overlay;
use crate::event::Event;
use crate::fallback::is_tcp_client_address;
use crate::id::PeerId;
use crate::message::{self, CandidateKind, Candidates, Welcome};
use crate::node::io::{Effect, Io};
use crate::path::{self, CandidateOffer};
use crate::quic::ConnectionId;
use crate::transmit::Route;

impl Overlay {
    /// Handles the welcome of a relay, with the address that the relay sees.
    pub(in crate::node) fn on_welcome(&mut self, relay: PeerId, welcome: &Welcome, io: &mut Io) {
        let key = crate::probe::ProbeKey::new(welcome.key.0);
        // What a relay calls a client on TCP is no address.
        let observed = Some(welcome.observed).filter(|&it| !is_tcp_client_address(it));
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

/// Returns what a peer advertised as the path machine takes it; kinds of later versions are left
/// out.
fn offer(advertised: &Candidates) -> CandidateOffer {
    let candidate = |it: &message::Candidate| {
        let kind = match it.kind {
            CandidateKind::Host => path::CandidateType::Host,
            CandidateKind::Reflexive => path::CandidateType::Reflexive,
            CandidateKind::Mapped => path::CandidateType::Mapped,
            CandidateKind::Unknown => return None,
        };
        Some(path::CandidateAddress { kind, address: it.address })
    };
    let candidates = advertised.candidates.iter().filter_map(candidate).collect();
    CandidateOffer {
        candidates,
        mapping: advertised.mapping,
        round: advertised.round,
        has_full_probes: advertised.full_probes,
    }
}

/// Returns what this node advertises to a peer: its own addresses, never one that it saw the peer
/// at.
pub(super) fn advertised(offer: &CandidateOffer) -> Candidates {
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
    Candidates {
        candidates,
        mapping: offer.mapping,
        round: offer.round,
        full_probes: offer.has_full_probes,
    }
}
