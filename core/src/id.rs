//! Identifiers that remain valid after a call: peers, streams, requests.

use std::fmt;

/// One peer of a node: a dialled peer from `dial` until it is closed, across every reconnect; an
/// accepted one from its handshake until it is closed. Never reused within a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct PeerId(pub(crate) u64);

/// One stream of one connection of a peer. Streams do not survive a reconnect, and neither does
/// their name: a later connection of the same peer has another `connection` number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub(crate) peer: PeerId,
    pub(crate) connection: u64,
    pub(crate) index: u64,
}

impl StreamId {
    /// Returns the peer at the other end.
    #[must_use]
    pub const fn peer(self) -> PeerId {
        self.peer
    }
}

/// One request, ours or a peer's. Never reused within a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct RequestId(pub(crate) u64);

/// One end-to-end connection of a node, as the transport knows it: by its own address, which is
/// never on any wire. Numbers are used again once 2^32 connections have been made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OverlayId(pub(crate) u32);

impl OverlayId {
    /// Returns the id after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A channel to another client of a relay, as this node and the relay number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Channel {
    /// The relay, which is a peer of this node.
    pub relay: PeerId,
    /// The relay's number for it on this node's connection.
    pub number: u32,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} of {}", self.number, self.relay)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stream {}.{}", self.peer, self.connection, self.index)
    }
}
