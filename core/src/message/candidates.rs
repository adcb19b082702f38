//! The addresses at which a peer may be reached directly, as it advertises them over its end-to-end
//! connection.
//!
//! Decides which addresses can be advertised. Never decides whether one is valid or used:
//! authenticated probes establish that.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::OutOfRange;
use super::json::JsonBody;
use super::relay::reachable;

/// Most candidates of one message: every network of a well-connected host in both families.
pub const MAX_CANDIDATES: usize = 32;

/// The addresses at which the sender may be reached; they replace those of its earlier message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// Its addresses, best first: up to [`MAX_CANDIDATES`].
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// How its network maps the addresses of its packets.
    #[serde(default)]
    pub mapping: Mapping,
    /// Counts the sender's requests for probes, so that both sides start together.
    pub round: u32,
    /// Whether the sender answers full-size probes; no in messages of versions that have none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_probes: bool,
}

impl JsonBody for Candidates {
    fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::unless(self.candidates.len() <= MAX_CANDIDATES, "candidates")?;
        self.candidates.iter().try_for_each(|it| reachable(it.address, "candidates"))
    }
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// The source of the address.
    pub kind: CandidateKind,
    /// The address: a unicast one, a port, and no IPv6 scope.
    pub address: SocketAddr,
}

/// The source of an address (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CandidateKind {
    /// It is the host's own.
    Host,
    /// A relay saw it.
    Reflexive,
    /// A port mapping requested from a router.
    Mapped,
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

/// How a NAT maps the source addresses of packets (RFC 4787 §4.1), worst last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// The public address is one of the host's own: no NAT.
    None,
    /// One public address for all destinations.
    Independent,
    /// Another public address, most often another port, for other destinations: no peer can know in
    /// advance where to send.
    Dependent,
    /// Not known, or of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}
