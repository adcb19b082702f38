//! Rare branches that a sweep over many worlds must reach, each with its count.
//!
//! It decides nothing: a sweep uses it to find code that the generator never reaches, and that is
//! therefore not tested.

use std::fmt;

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One thing that some world of every sweep must have seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Mark { $($(#[$doc])* $name,)* }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

marks! {
    /// A datagram was lost on its own.
    LostAlone,
    /// A datagram was lost in a burst.
    LostInBurst,
    /// A datagram arrived twice.
    Duplicated,
    /// A datagram was held back so that later ones could pass it.
    HeldBack,
    /// Bits of a datagram were flipped.
    Corrupted,
    /// A datagram waited for others in a bottleneck.
    Queued,
    /// A bottleneck marked a datagram instead of dropping it.
    CongestionMarked,
    /// A datagram found the bottleneck's queue full.
    QueueFull,
    /// A datagram was longer than its link carries.
    TooLong,
    /// A datagram was sent into a link that was cut.
    Cut,
    /// A link was cut in one direction while the other still carried.
    CutOneWay,
    /// A datagram was sent to, or arrived at, an address without a host.
    NoHost,
    /// A host got another address.
    AddressChanged,
    /// A peer was connected for the first time.
    Connected,
    /// A peer was connected again after a loss.
    Reconnected,
    /// An attempt to connect failed and another one followed.
    AttemptFailed,
    /// A peer was given up.
    GaveUp,
    /// A peer that had been given up was dialled again.
    DialledAgain,
    /// A handshake failed at the accepting side.
    Rejected,
    /// Unanswered heartbeats ended a connection.
    HeartbeatLost,
    /// QUIC's idle timeout ended a connection.
    IdleTimeout,
    /// A stateless reset ended a connection: its peer had been restarted.
    StatelessReset,
    /// A certificate was not acceptable.
    Unauthenticated,
    /// A connection went on at another address of its peer.
    Migrated,
    /// A stream was refused.
    StreamRefused,
    /// A stream was reset by its writer, and its reader saw that.
    StreamReset,
    /// A stream was stopped by its reader, and its writer saw that.
    StreamStopped,
    /// A write had to wait.
    WriteBlocked,
    /// No stream could be opened for now.
    StreamsExhausted,
    /// A stream was read to its end.
    StreamEnded,
    /// A stream was broken by the loss of its connection.
    StreamLost,
    /// A request was answered whole.
    Answered,
    /// A request was answered chunk by chunk.
    AnsweredInChunks,
    /// A chunk of an answer had to wait for the requester.
    ChunkBlocked,
    /// A request was refused by its responder.
    RequestRefused,
    /// A request's deadline passed.
    RequestExpired,
    /// A request was lost with the connection it was written to.
    RequestLost,
    /// A request was cancelled, and its responder learned of it.
    RequestWithdrawn,
    /// A queue of requests was full.
    RequestQueueFull,
    /// A datagram was delivered.
    DatagramDelivered,
    /// Received datagrams were dropped because the application did not fetch them.
    DatagramDropped,
    /// The peer announced that it shuts down.
    GoingAway,
    /// A node that was asked to shut down did.
    ShutDown,
}

/// How often each [`Mark`] was reached.
///
/// ```
/// use adit_core::testing::marks::{Mark, Marks};
/// let mut marks = Marks::new();
/// marks.hit(Mark::Duplicated);
/// assert_eq!(marks.count(Mark::Duplicated), 1);
/// assert_eq!(marks.missing().len(), Mark::ALL.len() - 1);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

impl Marks {
    /// Returns marks of which none was reached.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; Mark::ALL.len()])
    }

    /// Counts `mark` once more.
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// Returns how often `mark` was reached.
    #[must_use]
    pub const fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds the counts of another world.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Returns the marks that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|&mark| self.count(mark) == 0).collect()
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Mark::ALL.iter().map(|&mark| (mark, self.count(mark)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_has_a_count_of_its_own_and_counts_add_up_over_worlds() {
        let mut sum = Marks::new();
        for &mark in Mark::ALL {
            let mut world = Marks::new();
            world.hit(mark);
            assert_eq!(Mark::ALL.iter().map(|&m| world.count(m)).sum::<u64>(), 1);
            assert!(sum.missing().contains(&mark));
            sum.merge(&world);
            sum.merge(&world);
            assert_eq!(sum.count(mark), 2);
        }
        assert_eq!(sum.missing(), []);
    }
}
