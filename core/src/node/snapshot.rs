//! All statistics of a node as plain data, for whoever shows or exports them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Node;
use super::peer::Peer;
use crate::admission;
use crate::event::{RequestCounts, Statistics};
use crate::heartbeat;
use crate::id::PeerId;
use crate::latency::Summary;
use crate::lifecycle::View;
use crate::path::{self, Mapping};
use crate::relay;
use crate::tls::Credential;

/// A node at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Connections that exist, those being made or closed included.
    pub connections: usize,
    /// What came of the handshakes that others began.
    pub handshakes: admission::Stats,
    /// What the network does to the addresses of this node's packets, as far as relays have shown it.
    pub mapping: Mapping,
    /// What it does for its clients, if it is a relay.
    pub relay: Option<relay::View>,
    /// Every peer, in the order in which they came.
    pub peers: Vec<PeerSnapshot>,
}

/// A peer at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerSnapshot {
    /// Its id in this node.
    pub id: PeerId,
    /// Who it proved to be by its verified certificate; `None` until it was connected once.
    pub credential: Option<Credential>,
    /// Its address.
    pub remote: SocketAddr,
    /// Whether this side dialled.
    pub dialled: bool,
    /// Whether it is a relay of this node's.
    pub is_relay: bool,
    /// Whether it has what this node offers, if it is a relay.
    pub is_registered: bool,
    /// By which path it is reached and why, if it is behind a relay.
    pub path: Option<path::PathsView>,
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
    /// All statistics, with ages as of the latest time that the node was told.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(self.clock.now())
    }

    /// All statistics, with ages as of `now`: an idle node is told no time for as long as a
    /// heartbeat takes to be due.
    #[must_use]
    pub fn snapshot_at(&self, now: Instant) -> Snapshot {
        Snapshot {
            connections: self.endpoint.len(),
            handshakes: self.endpoint.admission(),
            mapping: self.discovery.mapping(),
            relay: self.relay_view(now),
            peers: self.peers.values().map(|p| self.describe(p, now)).collect(),
        }
    }

    /// The statistics of one peer, as in [`Node::snapshot`].
    #[must_use]
    pub fn peer_snapshot(&self, id: PeerId) -> Option<PeerSnapshot> {
        self.peer_snapshot_at(id, self.clock.now())
    }

    /// The statistics of one peer, as in [`Node::snapshot_at`].
    #[must_use]
    pub fn peer_snapshot_at(&self, id: PeerId, now: Instant) -> Option<PeerSnapshot> {
        self.peers.get(&id).map(|p| self.describe(p, now))
    }

    fn describe(&self, peer: &Peer, now: Instant) -> PeerSnapshot {
        let connection = peer.link.as_ref().and_then(|l| self.endpoint.get(l.connection));
        let mut requests = peer.counts;
        requests.queued = peer.queue.len();
        PeerSnapshot {
            id: peer.id,
            credential: peer.credential.clone(),
            remote: connection.map_or(peer.remote, crate::quic::Connection::remote),
            dialled: peer.dialled.is_some(),
            is_relay: self.is_relay(peer.id),
            is_registered: self.is_registered(peer.id),
            path: self.path_view(peer.id, now),
            state: peer.lifecycle.state().view(now),
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
