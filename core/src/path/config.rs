//! The settings of a connection's paths, each with its default and the reason for it.
//!
//! It holds values only. A value that needs no setting is a constant beside the code that uses it.

use std::time::Duration;

/// How one connection selects among its paths.
///
/// Every value is valid. A floor below a round trip is harmless: the multiples of the round trip
/// apply then.
///
/// ```
/// use adit_core::path::PathConfig;
/// let relayed_only = PathConfig::default().direct(false);
/// assert_ne!(relayed_only, PathConfig::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathConfig {
    pub(super) direct: bool,
    pub(super) suspect_after: Duration,
    pub(super) dead_after: Duration,
    pub(super) reorder_wait: Duration,
    pub(super) reorder_bytes: usize,
    pub(super) resend_bytes: usize,
}

impl PathConfig {
    /// Sets whether direct paths are sought: yes by default. Without them no address of this node
    /// is sent to the peer, and every packet goes through relays.
    #[must_use]
    pub const fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Returns true if direct paths are sought.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Sets the least silence after a packet before the path is suspected: 150 ms by default, or
    /// one and a half round trips and 25 ms where that is more. An answer takes one round trip, and
    /// the peer may delay its acknowledgement by 25 ms (RFC 9000 §18.2, max_ack_delay). A wrong
    /// suspicion costs copies alone, and round trips are long just when a queue is full and much is
    /// in flight.
    #[must_use]
    pub const fn suspect_after(mut self, silence: Duration) -> Self {
        self.suspect_after = silence;
        self
    }

    /// Sets the least silence after a packet before the path is left: 500 ms by default, or five
    /// round trips where that is more. By then three probes went unanswered, and a burst of loss on
    /// a mobile link is shorter.
    #[must_use]
    pub const fn dead_after(mut self, silence: Duration) -> Self {
        self.dead_after = silence;
        self
    }

    /// Sets the longest that packets wait at a planned switch so that those before them arrive
    /// first: 300 ms by default. A person would notice more, and a connection recovers from
    /// reordering in about that time.
    #[must_use]
    pub const fn reorder_wait(mut self, wait: Duration) -> Self {
        self.reorder_wait = wait;
        self
    }

    /// Sets the bytes that may wait so: 4 MiB by default, which is 100 Mbit/s for the longest wait.
    /// When there are more, all are sent immediately.
    #[must_use]
    pub const fn reorder_bytes(mut self, bytes: usize) -> Self {
        self.reorder_bytes = bytes;
        self
    }

    /// Sets the bytes kept to be sent again on another path: 256 KiB by default, which is 10 Mbit/s
    /// for as long as a suspicion takes. Of a faster sender only the first bytes are kept, and the
    /// cost stays small.
    #[must_use]
    pub const fn resend_bytes(mut self, bytes: usize) -> Self {
        self.resend_bytes = bytes;
        self
    }
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            direct: true,
            suspect_after: Duration::from_millis(150),
            dead_after: Duration::from_millis(500),
            reorder_wait: Duration::from_millis(300),
            reorder_bytes: 4 << 20,
            resend_bytes: 256 << 10,
        }
    }
}
