//! All statistics of a node as plain data, for whoever shows or exports them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::Node;
use super::peer::Peer;
use crate::admission;
use crate::event::{RequestCounts, Statistics};
use crate::heartbeat;
use crate::id::PeerId;
use crate::quality::Summary;
use crate::session::View;

/// A node at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Connections that exist, those being made or closed included.
    pub connections: usize,
    /// What came of the handshakes that others began.
    pub handshakes: admission::Stats,
    /// Every peer, in the order in which they came.
    pub peers: Vec<PeerSnapshot>,
}

/// A peer at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerSnapshot {
    /// Its id in this node.
    pub id: PeerId,
    /// DNS names of its verified certificate; empty until it was connected once.
    pub names: Vec<String>,
    /// Its address.
    pub remote: SocketAddr,
    /// Whether this side dialled.
    pub dialled: bool,
    /// Where its lifecycle stands.
    pub state: View,
    /// Connected, and smoothed latency below 500 ms.
    pub healthy: bool,
    /// Round trips of heartbeats; `None` before the first.
    pub latency: Option<Summary>,
    /// Heartbeats of a dialled peer.
    pub heartbeats: heartbeat::Stats,
    /// The transport's counters of the present connection.
    pub transport: Statistics,
    /// The transport's own smoothed round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Requests of ours to it.
    pub requests: RequestCounts,
    /// Streams open now.
    pub streams: usize,
    /// Connections made again after a loss.
    pub reconnections: u64,
    /// Datagrams dropped because nobody fetched them.
    pub datagrams_dropped: u64,
    /// Control frames of unknown kinds, skipped.
    pub unknown_frames: u64,
    /// Bytes of its request bodies held here.
    pub held_bytes: usize,
    /// Why the last attempt or connection ended.
    pub last_failure: Option<crate::error::Failure>,
}

impl Node {
    /// All statistics as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.endpoint.len(),
            handshakes: self.endpoint.admission(),
            peers: self.peers.values().map(|p| self.describe(p)).collect(),
        }
    }

    /// The statistics of one peer.
    #[must_use]
    pub fn peer_snapshot(&self, id: PeerId) -> Option<PeerSnapshot> {
        self.peers.get(&id).map(|p| self.describe(p))
    }

    fn describe(&self, peer: &Peer) -> PeerSnapshot {
        let connection = peer.link.as_ref().and_then(|l| self.endpoint.get(l.connection));
        let mut requests = peer.counts;
        requests.queued = peer.queue.len();
        PeerSnapshot {
            id: peer.id,
            names: peer.names.clone(),
            remote: connection.map_or(peer.remote, crate::quic::Connection::remote),
            dialled: peer.dialled.is_some(),
            state: peer.lifecycle.state().view(self.clock.now()),
            healthy: peer.lifecycle.is_healthy(),
            latency: peer.latency.summary(),
            heartbeats: peer.dialled.as_ref().map(|d| d.heartbeat.stats()).unwrap_or_default(),
            transport: connection.map(crate::quic::Connection::statistics).unwrap_or_default(),
            rtt_ms: connection.map(|c| c.rtt()).map(|d: Duration| d.as_secs_f64() * 1e3),
            requests,
            streams: peer.link.as_ref().map_or(0, |l| l.streams.len()),
            reconnections: peer.reconnections,
            datagrams_dropped: peer.datagrams_dropped,
            unknown_frames: peer.link.as_ref().map_or(0, |l| l.control.unknown),
            held_bytes: peer.held_bytes,
            last_failure: peer.last_failure.clone(),
        }
    }
}
