//! The events of a node: small, past-tense facts; and its counters as plain data.
//!
//! An event reports one occurrence. Data stays with the node until it is read, so that an event
//! that is handled late loses no data.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Code, Failure};
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::{State, Transition};
use crate::message::ServiceName;
use crate::path::PathReason;
use crate::transmit::NextHop;

/// A fact about a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A peer's lifecycle changed. Subscribers see every transition, in order.
    Transition {
        /// The peer.
        peer: PeerId,
        /// The old and the new state.
        transition: Transition,
    },
    /// An attempt to connect failed, and another one follows.
    AttemptFailed {
        /// The peer.
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
    /// A peer is permanently closed. The last event of a peer, exactly once.
    Closed {
        /// Which peer.
        peer: PeerId,
        /// Why.
        failure: Failure,
    },
    /// A handshake from `remote` failed; no peer was created.
    Rejected {
        /// Its source address.
        remote: SocketAddr,
        /// Why.
        failure: Failure,
    },
    /// A heartbeat came back.
    HeartbeatAcked {
        /// The peer.
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
        /// The peer.
        peer: PeerId,
    },
    /// The peer opened a stream to a service; accept or refuse it.
    StreamOffered {
        /// The stream.
        stream: StreamId,
        /// The requested service.
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
        /// The peer.
        peer: PeerId,
    },
    /// The peer made a request; its body is complete.
    RequestOffered {
        /// The peer.
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
    /// A relay reported the source address of this node's packets.
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
    /// The last peer of a node that is shutting down is closed.
    ShutDown,
}

/// One sentence in plain English, for logs and people. The text may change; programs match on the
/// variants.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition { peer, transition } => fmt_state(*peer, &transition.to, f),
            Self::AttemptFailed { peer, failure, attempt, retry_in } => write!(
                f,
                "cannot connect to {peer} ({failure}); attempt {attempt} follows in {retry_in:.1?}"
            ),
            Self::Accepted { peer } => write!(f, "{peer} connected to this node"),
            Self::Closed { peer, failure } => write!(f, "{peer} is closed: {failure}"),
            Self::Rejected { remote, failure } => {
                write!(f, "a handshake from {remote} was rejected: {failure}")
            }
            Self::HeartbeatAcked { peer, latency } => {
                write!(f, "{peer} answered a heartbeat after {latency:.1?}")
            }
            Self::GoingAway { peer } => {
                write!(f, "{peer} is shutting down and takes no new streams or requests")
            }
            Self::DatagramReceived { peer } => write!(f, "datagrams from {peer} arrived"),
            Self::RequestOffered { peer, request } => write!(f, "{peer} made {request}"),
            Self::RequestProgressed { request } => write!(f, "{request} progressed or ended"),
            Self::Observed { peer, address } => {
                write!(f, "the relay ({peer}) sees this node at {address}")
            }
            Self::Registered { peer } => {
                write!(f, "the relay ({peer}) registered the services of this node")
            }
            Self::Unregistered { peer, failure } => {
                write!(f, "the relay ({peer}) does not have the services of this node: {failure}")
            }
            Self::PathChanged { peer, via, reason } => fmt_path(*peer, *via, *reason, f),
            Self::StreamsAvailable { peer } => write!(f, "{peer} takes another stream"),
            Self::StreamOffered { stream, service } => {
                write!(f, "{stream} was opened by the peer to the service \"{service}\"")
            }
            Self::StreamReadable { stream } => write!(f, "{stream} can be read"),
            Self::StreamWritable { stream } => write!(f, "{stream} can be written again"),
            Self::StreamFinished { stream } => {
                write!(f, "{stream} was acknowledged to its end by the peer")
            }
            Self::StreamStopped { stream, code } => {
                write!(f, "{stream} was stopped by the peer: {}", code.as_str())
            }
            Self::ShutDown => f.write_str("the node has shut down"),
        }
    }
}

fn fmt_state(peer: PeerId, state: &State, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match state {
        State::Disconnected => write!(f, "{peer} is disconnected"),
        State::Connecting { .. } => write!(f, "{peer} is being connected to"),
        State::Connected { .. } => write!(f, "{peer} is connected"),
        State::Reconnecting { attempt, last_error, .. } => {
            write!(f, "{peer} was lost ({last_error}); attempt {attempt} follows")
        }
        State::Failed { error, .. } => write!(f, "{peer} was given up: {error}"),
    }
}

fn fmt_path(
    peer: PeerId,
    via: NextHop,
    reason: PathReason,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let why = reason.sentence();
    match via {
        NextHop::Direct(route) => {
            write!(f, "packets to {peer} go directly to {}: {why}", route.remote)
        }
        NextHop::Relayed(channel) => write!(f, "packets to {peer} go through {channel}: {why}"),
    }
}

/// The transport's counters of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct RequestCounts {
    /// Written to the peer.
    pub sent: u64,
    /// Answered.
    pub succeeded: u64,
    /// Failed, for any reason.
    pub failed: u64,
    /// Waiting to be written.
    pub queued: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Channel;
    use crate::timer::anchor;
    use crate::transmit::Route;

    fn failure() -> Failure {
        Failure::new(Code::TimedOut, "no answer")
    }

    fn transition(to: State) -> Event {
        let transition = Transition { from: State::Disconnected, to, at: anchor() };
        Event::Transition { peer: PeerId(3), transition }
    }

    #[test]
    fn transitions_and_attempts_read_as_sentences() {
        let since = anchor();
        let (attempt, last_error, error) = (2, failure(), failure());
        let retry_in = Duration::from_micros(1_260_000);
        for (event, text) in [
            (transition(State::Disconnected), "peer 3 is disconnected"),
            (transition(State::Connecting { since }), "peer 3 is being connected to"),
            (transition(State::Connected { since, latency: None }), "peer 3 is connected"),
            (
                transition(State::Reconnecting { attempt, last_error, since }),
                "peer 3 was lost (timed_out: no answer); attempt 2 follows",
            ),
            (
                transition(State::Failed { error, at: since }),
                "peer 3 was given up: timed_out: no answer",
            ),
            (
                Event::AttemptFailed { peer: PeerId(3), failure: failure(), attempt, retry_in },
                "cannot connect to peer 3 (timed_out: no answer); attempt 2 follows in 1.3s",
            ),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn events_of_peers_and_relays_read_as_sentences() {
        let (peer, address) = (PeerId(3), SocketAddr::from(([192, 0, 2, 1], 4433)));
        let relayed = NextHop::Relayed(Channel { relay: PeerId(1), number: 7 });
        for (event, text) in [
            (Event::Accepted { peer }, "peer 3 connected to this node"),
            (Event::Closed { peer, failure: failure() }, "peer 3 is closed: timed_out: no answer"),
            (
                Event::Rejected { remote: address, failure: failure() },
                "a handshake from 192.0.2.1:4433 was rejected: timed_out: no answer",
            ),
            (
                Event::HeartbeatAcked { peer, latency: Duration::from_micros(20_480) },
                "peer 3 answered a heartbeat after 20.5ms",
            ),
            (
                Event::GoingAway { peer },
                "peer 3 is shutting down and takes no new streams or requests",
            ),
            (
                Event::Observed { peer, address },
                "the relay (peer 3) sees this node at 192.0.2.1:4433",
            ),
            (Event::Registered { peer }, "the relay (peer 3) registered the services of this node"),
            (
                Event::Unregistered { peer, failure: failure() },
                "the relay (peer 3) does not have the services of this node: timed_out: no answer",
            ),
            (
                Event::PathChanged { peer, via: relayed, reason: PathReason::First },
                &format!(
                    "packets to peer 3 go through channel 7 of peer 1: {}",
                    PathReason::First.sentence()
                ),
            ),
            (
                Event::PathChanged {
                    peer,
                    via: NextHop::Direct(Route::to(address)),
                    reason: PathReason::DirectProven,
                },
                &format!(
                    "packets to peer 3 go directly to 192.0.2.1:4433: {}",
                    PathReason::DirectProven.sentence()
                ),
            ),
            (Event::ShutDown, "the node has shut down"),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn events_of_streams_and_requests_read_as_sentences() {
        let (peer, request) = (PeerId(3), RequestId(9));
        let stream = StreamId { peer, connection: 1, index: 4 };
        let service = "db".parse().expect("a plain word is a service name");
        for (event, text) in [
            (Event::StreamsAvailable { peer }, "peer 3 takes another stream"),
            (
                Event::StreamOffered { stream, service },
                "peer 3 stream 1.4 was opened by the peer to the service \"db\"",
            ),
            (Event::StreamReadable { stream }, "peer 3 stream 1.4 can be read"),
            (Event::StreamWritable { stream }, "peer 3 stream 1.4 can be written again"),
            (
                Event::StreamFinished { stream },
                "peer 3 stream 1.4 was acknowledged to its end by the peer",
            ),
            (
                Event::StreamStopped { stream, code: Code::Cancelled },
                "peer 3 stream 1.4 was stopped by the peer: cancelled",
            ),
            (Event::DatagramReceived { peer }, "datagrams from peer 3 arrived"),
            (Event::RequestOffered { peer, request }, "peer 3 made request 9"),
            (Event::RequestProgressed { request }, "request 9 progressed or ended"),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }
}
