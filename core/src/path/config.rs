//! The knobs of a path, each with its default and the reason for it.
//!
//! It decides values and nothing else. What is no knob is a constant beside the code that uses it.

use std::time::Duration;

/// How one connection chooses among its ways.
///
/// A floor below what a round trip takes is harmless: the multiples of the round trip hold then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfig {
    /// Whether direct ways are sought at all: yes. Without them no address of this node is told to
    /// the peer, and everything goes through relays.
    pub direct: bool,
    /// The least silence after a packet before the way is suspected: 150 ms, or one and a half round
    /// trips and 25 ms where that is more. An answer takes one, and the peer may wait 25 ms with its
    /// acknowledgement (RFC 9000 §18.2, max_ack_delay). A suspicion that was wrong costs copies alone,
    /// while round trips are long just when a queue is full and much is under way.
    pub suspect_after: Duration,
    /// The least silence after a packet before the way is left: 500 ms, or five round trips where
    /// that is more. Three probes went unanswered by then, and a burst of loss on a mobile link
    /// is shorter.
    pub dead_after: Duration,
    /// The longest that packets wait so that those before them arrive first: 300 ms. More would be
    /// noticed by a person, and a connection recovers from reordering in about that time.
    pub hold: Duration,
    /// Bytes that may wait so: 4 MiB, 100 Mbit/s for the longest wait. With more they go at once.
    pub hold_bytes: usize,
    /// Bytes kept to be sent again by another way: 256 KiB, which is 10 Mbit/s for as long as it
    /// takes to suspect. A faster sender keeps the first of them only, and pays little for it.
    pub replay_bytes: usize,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            direct: true,
            suspect_after: Duration::from_millis(150),
            dead_after: Duration::from_millis(500),
            hold: Duration::from_millis(300),
            hold_bytes: 4 << 20,
            replay_bytes: 256 << 10,
        }
    }
}
