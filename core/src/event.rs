//! What a node tells its caller: small, past-tense facts; and its counters as plain data.
//!
//! An event says that something happened once. Data stays with the node until it is read, so an
//! event that is looked at late loses nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Code, Failure};
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::Transition;
use crate::message::ServiceName;
use crate::path::PathReason;
use crate::transmit::NextHop;

/// A fact about a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A peer's lifecycle changed. Subscribers see every transition, in order.
    Transition {
        /// Whose.
        peer: PeerId,
        /// From what to what.
        transition: Transition,
    },
    /// An attempt to connect failed, and another one follows.
    AttemptFailed {
        /// To whom.
        peer: PeerId,
        /// Why.
        failure: Failure,
        /// The number of the attempt that follows, counted from 1 since the last stable link.
        attempt: u32,
        /// How long until then.
        retry_in: Duration,
    },
    /// Another node connected to this one and is authenticated. It follows the transition to
    /// connected.
    Accepted {
        /// The new peer.
        peer: PeerId,
    },
    /// A peer is gone for good. The last event of a peer, exactly once.
    Closed {
        /// Which peer.
        peer: PeerId,
        /// Why.
        failure: Failure,
    },
    /// A handshake from `remote` came to nothing; no peer was made of it.
    Rejected {
        /// Whence it came.
        remote: SocketAddr,
        /// Why.
        failure: Failure,
    },
    /// A heartbeat came back.
    HeartbeatAcked {
        /// From whom.
        peer: PeerId,
        /// Round trip on the control stream.
        latency: Duration,
    },
    /// The peer announced that it shuts down: no new streams or requests reach it on this
    /// connection.
    GoingAway {
        /// Which peer.
        peer: PeerId,
    },
    /// A stream can be opened where there was none left.
    StreamsAvailable {
        /// To whom.
        peer: PeerId,
    },
    /// The peer opened a stream to a service; accept or refuse it.
    StreamOffered {
        /// The stream.
        stream: StreamId,
        /// The service the peer asked for.
        service: ServiceName,
    },
    /// A stream has something to read: data, its end, a reset, or the acceptor's answer.
    StreamReadable {
        /// Which stream.
        stream: StreamId,
    },
    /// A stream that was blocked may take data, or was stopped.
    StreamWritable {
        /// Which stream.
        stream: StreamId,
    },
    /// The peer has acknowledged everything of a finished stream.
    StreamFinished {
        /// Which stream.
        stream: StreamId,
    },
    /// The peer stopped a stream that this side was writing.
    StreamStopped {
        /// Which stream.
        stream: StreamId,
        /// The peer's reason.
        code: Code,
    },
    /// Application datagrams arrived.
    DatagramReceived {
        /// From whom.
        peer: PeerId,
    },
    /// The peer made a request; its body is complete.
    RequestOffered {
        /// By whom.
        peer: PeerId,
        /// Which request.
        request: RequestId,
    },
    /// Something about a request changed: a response can be read, more of one can be written, or
    /// it is over.
    RequestProgressed {
        /// Which request.
        request: RequestId,
    },
    /// A relay told this node where its packets come from.
    Observed {
        /// Which relay.
        peer: PeerId,
        /// This node's address, as the relay sees it.
        address: SocketAddr,
    },
    /// A relay took what this node offers.
    Registered {
        /// Which relay.
        peer: PeerId,
    },
    /// A relay does not have what this node offers, or has it no more.
    Unregistered {
        /// Which relay.
        peer: PeerId,
        /// Why.
        failure: Failure,
    },
    /// Packets to a peer take another path from here on.
    PathChanged {
        /// Which peer.
        peer: PeerId,
        /// Which path.
        via: NextHop,
        /// Why.
        reason: PathReason,
    },
    /// The last peer of a node that is shutting down is gone.
    ShutDown,
}

/// The transport's counters of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// The largest UDP payload the path carries, as far as known.
    pub mtu: u16,
    /// Bytes the congestion controller allows in flight.
    pub congestion_window: u64,
}

/// Requests of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RequestCounts {
    /// Written to the peer.
    pub sent: u64,
    /// Answered.
    pub succeeded: u64,
    /// Failed, for whatever reason.
    pub failed: u64,
    /// Waiting to be written.
    pub queued: usize,
}
