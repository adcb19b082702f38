//! The paths between the two ends of one connection: which exist, which one is active, and when to
//! change.
//!
//! It decides what is probed, what is proven, which path each packet takes, and what is sent again
//! when a path fails. It never sends, never reads a packet of the connection, and trusts an address
//! only when the peer has answered there: the connection above sees one address and validates none.
//!
//! One `Paths` is one connection. It begins on a relay. Once both ends share keys, they send each
//! other their addresses (`PathAction::Candidates`), punch at them at the same time, and use what
//! has answered. `AddressDiscovery` belongs to the socket, and finds out what this end's addresses
//! are.
//!
//! Source: docs/protocol.md, "Paths". Terms as in RFC 8445, RFC 4787 and RFC 9000.
//!
//! `Paths` is a router: each input goes to the owners below, none of which knows another's fields.
//! They take what they need as arguments, and queue effects in `context`.
//!
//! | file | owns and decides |
//! |---|---|
//! | `paths` | the order in which owners are called |
//! | `path_set`, `path_state`, `probe_track`, `packet_size` | what is known of each path |
//! | `liveness` | the active path, and whether it answers |
//! | `prober`, `probe_flags`, `probe_pacing`, `replay_window` | probes: keys, pace, which of the peer's count |
//! | `progress` | whether the connection's own packets are acknowledged |
//! | `punching` | when both ends send addresses and punch |
//! | `packets`, `reorder`, `resend` | packets that wait, and packets that are sent again |
//! | `selection`, `score` | which path is best, and which is the backup |
//! | `candidate`, `nat`, `discovery` | which addresses are worth a probe, and what cannot work |

mod action;
mod candidate;
mod config;
mod context;
mod discovery;
mod liveness;
mod nat;
mod packet_size;
mod packets;
mod path_set;
mod path_state;
mod paths;
mod probe_flags;
mod probe_pacing;
mod probe_track;
mod prober;
mod progress;
mod punching;
mod reorder;
mod replay_window;
mod resend;
mod score;
mod selection;
mod view;

pub(crate) use action::{Dispatch, PathAction, PathRole};
pub use candidate::{CandidateAddress, CandidateType};
pub(crate) use candidate::{CandidateOffer, MAX_CANDIDATES};
pub use config::PathConfig;
pub(crate) use discovery::AddressDiscovery;
pub use nat::Mapping;
pub(crate) use paths::Paths;
#[cfg(any(test, feature = "testing"))]
pub(crate) use prober::ProbeOutcome;
pub(crate) use progress::TransportProgress;
pub use score::PathClass;
pub use view::{PathCounters, PathReason, PathVerdict, PathView, PathsView, PeerView};

#[cfg(test)]
mod tests;
