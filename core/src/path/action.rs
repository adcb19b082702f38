//! What a connection's path machine hands out: the next hop of a packet, and effects to carry out.
//!
//! It holds values only. It never decides which of them comes when.

use std::time::Duration;

use super::candidate::CandidateOffer;
use super::view::PathReason;
use crate::probe::LEN;
use crate::transmit::NextHop;

/// Which end of the connection this is. One of the two has to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PathRole {
    /// This end dialled: it selects the path, and punches when it receives the peer's addresses.
    Dialler,
    /// This end was dialled: among paths of one class it follows, and punches when it has sent its
    /// own addresses.
    Acceptor,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Dispatch {
    /// To this hop.
    Send(NextHop),
    /// To the first hop, and a copy to the second: the first is suspect. QUIC discards duplicate
    /// packets (RFC 9000 §12.3).
    Both {
        /// The active path.
        first: NextHop,
        /// The backup path.
        copy: NextHop,
    },
    /// Nowhere now: a copy is buffered, and comes out of [`Paths::poll`](super::Paths::poll).
    Held,
}

/// An effect to carry out, in the order of [`Paths::poll`](super::Paths::poll).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathAction {
    /// Send this probe.
    Probe {
        /// To this hop.
        via: NextHop,
        /// Its bytes.
        bytes: [u8; LEN],
    },
    /// Send these packets, which were buffered, or were sent before on a path that failed.
    Packets {
        /// To this hop.
        via: NextHop,
        /// The packets, back to back.
        bytes: Vec<u8>,
        /// Bytes of each, the last may be shorter; `None` is a single one.
        segment_size: Option<usize>,
    },
    /// Send this offer to the peer, over the connection itself.
    Candidates(CandidateOffer),
    /// Another path is active.
    Changed {
        /// The one before; `None` if there was none.
        from: Option<NextHop>,
        /// The one since.
        to: NextHop,
        /// Why.
        reason: PathReason,
        /// Whether it was selected, in order and without loss; otherwise the one before had failed.
        planned: bool,
        /// The least of its latest round trips.
        round_trip: Option<Duration>,
    },
    /// The active path may carry smaller packets than the one before: the connection's path has
    /// changed (RFC 9000 §14.3), and path MTU discovery and congestion control start over.
    Shrink,
}
