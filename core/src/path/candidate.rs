//! Addresses at which one end may be reached, and how they came to be known (RFC 8445 §5.1).
//!
//! It decides which of a peer's are used and how many. It never probes them.

use std::fmt;
use std::net::SocketAddr;

use super::nat::{Mapping, is_reachable};

/// Candidates of one peer that are tried: a host with many interfaces has fewer, and each costs
/// nine probes a round.
pub(crate) const MAX_CANDIDATES: usize = 16;

/// How a candidate came to be known; those before are tried and shown first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CandidateType {
    /// An address of the host itself.
    Host,
    /// An address that the host's router was asked to map.
    Mapped,
    /// The address that a relay saw.
    Reflexive,
    /// The address from which the peer itself came; no peer offers one.
    PeerReflexive,
}

impl CandidateType {
    /// Returns the stable text of the type, as messages and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Mapped => "mapped",
            Self::Reflexive => "reflexive",
            Self::PeerReflexive => "peer_reflexive",
        }
    }
}

impl fmt::Display for CandidateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One address of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct CandidateAddress {
    /// How it came to be known.
    pub kind: CandidateType,
    /// The address.
    pub address: SocketAddr,
}

/// What one end sends the other, end to end, so that both begin to punch at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CandidateOffer {
    /// Where its sender may be reached.
    pub(crate) candidates: Vec<CandidateAddress>,
    /// The NAT of its sender.
    pub(crate) mapping: Mapping,
    /// The number of the punching round; a peer with a lower one answers with the same.
    pub(crate) round: u32,
    /// Whether its sender answers full-size probes.
    pub(crate) has_full_probes: bool,
}

impl CandidateOffer {
    /// Returns the candidates that are worth a probe, best kind first, each address once, up to
    /// [`MAX_CANDIDATES`]. Loopback addresses are, if this end has one itself.
    pub(super) fn usable(&self, own: &[CandidateAddress]) -> Vec<CandidateAddress> {
        let is_local_allowed = own.iter().any(|candidate| candidate.address.ip().is_loopback());
        let mut usable: Vec<CandidateAddress> = Vec::new();
        let mut sorted = self.candidates.clone();
        sorted.sort_unstable();
        for candidate in sorted {
            let is_known = usable.iter().any(|it| it.address == candidate.address);
            let is_offered = candidate.kind != CandidateType::PeerReflexive;
            if is_offered && !is_known && is_reachable(candidate.address, is_local_allowed) {
                usable.push(candidate);
            }
        }
        usable.truncate(MAX_CANDIDATES);
        usable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateType, address: &str) -> CandidateAddress {
        CandidateAddress { kind, address: address.parse().unwrap() }
    }

    fn offer(candidates: Vec<CandidateAddress>) -> CandidateOffer {
        CandidateOffer { candidates, ..CandidateOffer::default() }
    }

    #[test]
    fn an_address_is_tried_once_and_as_its_best_kind() {
        let twice = offer(vec![
            candidate(CandidateType::Reflexive, "192.0.2.1:1"),
            candidate(CandidateType::Host, "192.0.2.1:1"),
            candidate(CandidateType::Mapped, "192.0.2.2:1"),
        ]);
        let expected = [
            candidate(CandidateType::Host, "192.0.2.1:1"),
            candidate(CandidateType::Mapped, "192.0.2.2:1"),
        ];
        assert_eq!(twice.usable(&[]), expected);
    }

    #[test]
    fn sixteen_are_tried_and_the_seventeenth_is_not() {
        let many = |count: u16| {
            let one = |port| candidate(CandidateType::Host, &format!("192.0.2.1:{port}"));
            offer((1..=count).map(one).collect()).usable(&[]).len()
        };
        assert_eq!((many(15), many(16), many(17)), (15, 16, 16));
    }

    #[test]
    fn loopback_is_probed_only_by_a_host_that_has_it() {
        let loopback = candidate(CandidateType::Host, "127.0.0.1:22");
        assert_eq!(
            offer(vec![loopback]).usable(&[candidate(CandidateType::Host, "10.0.0.1:1")]),
            []
        );
        assert_eq!(
            offer(vec![loopback]).usable(&[candidate(CandidateType::Host, "[::1]:1")]),
            [loopback]
        );
    }

    #[test]
    fn types_serialise_as_their_texts_and_no_peer_reflexive_one_is_used() {
        for kind in [
            CandidateType::Host,
            CandidateType::Mapped,
            CandidateType::Reflexive,
            CandidateType::PeerReflexive,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(
            offer(vec![candidate(CandidateType::PeerReflexive, "192.0.2.1:1")]).usable(&[]),
            []
        );
    }
}
