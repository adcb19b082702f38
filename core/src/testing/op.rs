//! The operations on a world of two, each as four bytes.
//!
//! It decides which operations there are and how often a random world has them. One encoding serves
//! every generator of worlds: the seeded sweep, property tests that shrink, and fuzzers. It never
//! decides the effect of an operation.

use crate::rng::Rng;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one that dials.
    Agent,
    /// The one that accepts.
    Connector,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Agent, Self::Connector];

    /// Returns the other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Agent => Self::Connector,
            Self::Connector => Self::Agent,
        }
    }

    const fn from_bit(byte: u8) -> Self {
        if byte & 1 == 0 { Self::Agent } else { Self::Connector }
    }
}

/// One thing that happens. Places (`nth`) are taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named for what they are")]
pub enum Op {
    /// The agent dials the connector, unless it has dialled twice.
    Dial,
    /// A peer that failed is dialled again.
    Reconnect { nth: u8 },
    /// A peer is disconnected.
    Disconnect { side: Side, nth: u8 },
    /// A stream is opened to the service of this number.
    Open { side: Side, nth: u8, service: u8 },
    /// This many KiB more are to be written.
    Write { side: Side, nth: u8, kib: u8 },
    /// A direction ends once everything is written.
    Finish { side: Side, nth: u8 },
    /// A direction is abandoned.
    Reset { side: Side, nth: u8 },
    /// The other's direction is refused.
    Stop { side: Side, nth: u8 },
    /// An application stops reading, or goes on.
    Hold { side: Side, nth: u8 },
    /// A request is made, to be answered in this manner; above 0xf8, more than a queue holds.
    Request { side: Side, nth: u8, manner: u8 },
    /// A request is given up.
    Cancel { side: Side, nth: u8 },
    /// A datagram is sent, this times 16 bytes long, or six of them if that is odd.
    Datagram { side: Side, nth: u8, size: u8 },
    /// Time passes: two to the power of this modulo 18, in milliseconds.
    Advance { power: u8 },
    /// The link is cut in the directions with a set bit, and restored in the others.
    Cut { directions: u8 },
    /// The link gets the conditions of this number.
    Weather { which: u8 },
    /// A host gets another address.
    Move { side: Side, port: u8 },
    /// A program ends without a close.
    Crash { side: Side },
    /// A program starts again.
    Restart { side: Side },
    /// A program is stopped.
    Pause { side: Side },
    /// A host goes to sleep.
    Suspend { side: Side },
    /// A program or host goes on.
    Resume { side: Side },
    /// A wall clock is set this many days off, backwards with the high bit.
    SetWall { side: Side, days: u8 },
    /// A node is notified that its network changed.
    NetworkChanged { side: Side },
    /// A host's socket could not send to the other.
    SendFailed { side: Side },
    /// A node is called before its time, by a clock that is this many seconds behind.
    Tick { side: Side, behind: u8 },
    /// Forged bytes arrive with the other's source address.
    Forge { side: Side, kind: u8, length: u8 },
    /// A node shuts down.
    Shutdown { side: Side },
}

impl Op {
    /// Reads an operation; any four bytes are one.
    #[must_use]
    pub const fn decode([kind, a, b, c]: [u8; 4]) -> Self {
        let (side, nth) = (Side::from_bit(a), a >> 1);
        match kind {
            0..=11 => Self::Dial,
            12..=19 => Self::Reconnect { nth },
            20..=25 => Self::Disconnect { side, nth },
            26..=53 => Self::Open { side, nth, service: b },
            54..=81 => Self::Write { side, nth: b, kib: c },
            82..=91 => Self::Finish { side, nth: b },
            92..=96 => Self::Reset { side, nth: b },
            97..=101 => Self::Stop { side, nth: b },
            102..=107 => Self::Hold { side, nth: b },
            108..=137 => Self::Request { side, nth, manner: b },
            138..=141 => Self::Cancel { side, nth: b },
            142..=151 => Self::Datagram { side, nth, size: b },
            152..=195 => Self::Advance { power: a },
            196..=203 => Self::Cut { directions: a },
            204..=211 => Self::Weather { which: a },
            212..=216 => Self::Move { side, port: b },
            217..=219 => Self::Crash { side },
            220..=223 => Self::Restart { side },
            224..=226 => Self::Pause { side },
            227..=229 => Self::Suspend { side },
            230..=234 => Self::Resume { side },
            235..=238 => Self::SetWall { side, days: b },
            239..=242 => Self::NetworkChanged { side },
            243..=245 => Self::SendFailed { side },
            246..=249 => Self::Tick { side, behind: b },
            250..=253 => Self::Forge { side, kind: b, length: c },
            254..=255 => Self::Shutdown { side },
        }
    }

    /// Returns the peer that it wants a connection to, if it wants one.
    #[must_use]
    pub const fn wanted(self) -> Option<u8> {
        if let Self::Open { nth, .. } | Self::Request { nth, .. } = self { Some(nth) } else { None }
    }

    /// Returns the side that it happens to.
    #[must_use]
    pub const fn side(self) -> Side {
        match self {
            Self::Disconnect { side, .. }
            | Self::Open { side, .. }
            | Self::Write { side, .. }
            | Self::Finish { side, .. }
            | Self::Reset { side, .. }
            | Self::Stop { side, .. }
            | Self::Hold { side, .. }
            | Self::Request { side, .. }
            | Self::Cancel { side, .. }
            | Self::Datagram { side, .. }
            | Self::Move { side, .. }
            | Self::Crash { side }
            | Self::Restart { side }
            | Self::Pause { side }
            | Self::Suspend { side }
            | Self::Resume { side }
            | Self::SetWall { side, .. }
            | Self::NetworkChanged { side }
            | Self::SendFailed { side }
            | Self::Tick { side, .. }
            | Self::Forge { side, .. }
            | Self::Shutdown { side } => side,
            Self::Dial
            | Self::Reconnect { .. }
            | Self::Advance { .. }
            | Self::Cut { .. }
            | Self::Weather { .. } => Side::Agent,
        }
    }

    /// Returns the operations of a random world.
    #[must_use]
    pub fn sequence(rng: &mut Rng, length: usize) -> Vec<Self> {
        // Most worlds begin with a connection: much of what can happen needs one.
        let begin = [Self::Dial, Self::Advance { power: 8 }];
        let begin = if rng.u64().is_multiple_of(4) { &[][..] } else { &begin };
        let draw = |_| Self::decode((rng.u64() as u32).to_le_bytes());
        begin.iter().copied().chain((0..length).map(draw)).collect()
    }

    /// Returns the operations in a string of bytes; a remainder at its end is ignored.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().map(|&chunk| Self::decode(chunk)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_operations_and_the_rest_is_none() {
        assert_eq!(Op::parse(&[0; 7]), [Op::Dial]);
        let all: Vec<u8> = (0..=255).flat_map(|kind| [kind, 1, 2, 3]).collect();
        assert_eq!(Op::parse(&all).len(), 256);
    }

    #[test]
    fn a_random_world_meets_every_operation() {
        let ops = Op::sequence(&mut Rng::new([1; 32], "ops"), 20_000);
        let names: std::collections::BTreeSet<_> =
            ops.iter().map(|op| format!("{op:?}").split(' ').next().map(str::to_owned)).collect();
        assert_eq!(names.len(), 27);
    }
}
