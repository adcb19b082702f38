//! Where a peer may be reached directly, as it tells the other over their own connection.
//!
//! Decides which addresses can be told. Never decides whether one is true or used: that is for
//! authenticated probes to find out.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::OutOfRange;
use super::json::JsonBody;
use super::relay::reachable;

/// Most candidates of one message: every network of a well-connected host in both families.
pub const MAX_CANDIDATES: usize = 32;

/// Where the sender may be reached; it replaces what the sender said before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// Its addresses, best first: up to [`MAX_CANDIDATES`].
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// What its network does to the addresses of its packets.
    #[serde(default)]
    pub mapping: Mapping,
    /// Counts the times the sender asks for probes, so that both begin at once.
    pub round: u32,
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
    /// How the sender came by it.
    pub kind: CandidateKind,
    /// The address: a unicast one, a port, and no IPv6 scope.
    pub address: SocketAddr,
}

/// How an address came to be known (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CandidateKind {
    /// It is the host's own.
    Host,
    /// A relay saw it.
    Reflexive,
    /// A router was asked for it.
    Mapped,
    /// What a later version says.
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
