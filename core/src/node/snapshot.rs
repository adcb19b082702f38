//! All statistics of a node as plain data, to display or to export.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::admission;
use crate::event::{RequestCounts, Statistics};
use crate::heartbeat;
use crate::id::PeerId;
use crate::latency::Summary;
use crate::lifecycle::StateView;
use crate::path::{self, Mapping};
use crate::relay;
use crate::tls::Credential;

/// A node at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Connections that exist, including those being established or closed.
    pub connections: usize,
    /// The results of handshakes that others began.
    pub handshakes: admission::AdmissionStats,
    /// How the network maps the addresses of this node's packets, as far as relays have shown it.
    pub mapping: Mapping,
    /// Its status as a relay, if it is one.
    pub relay: Option<relay::RelayView>,
    /// Every peer, in order of arrival.
    pub peers: Vec<PeerSnapshot>,
}

/// A peer at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerSnapshot {
    /// Its id in this node.
    pub id: PeerId,
    /// The identity that its verified certificate proved; `None` until it was connected once.
    pub credential: Option<Credential>,
    /// Its address.
    pub remote: SocketAddr,
    /// Whether this side dialled.
    pub dialled: bool,
    /// Whether it is one of this node's relays.
    pub is_relay: bool,
    /// Whether it has registered this node's offer, if it is a relay.
    pub is_registered: bool,
    /// By which path it is reached and why, if it is behind a relay.
    pub path: Option<path::PathsView>,
    /// Where its lifecycle stands.
    pub state: StateView,
    /// Connected, and smoothed latency below 500 ms.
    pub healthy: bool,
    /// Round trips of heartbeats; `None` before the first.
    pub latency: Option<Summary>,
    /// Heartbeats of a dialled peer.
    pub heartbeats: heartbeat::HeartbeatStats,
    /// The transport's counters of the present connection.
    pub transport: Statistics,
    /// The transport's own smoothed round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Requests of ours to it.
    pub requests: RequestCounts,
    /// Streams open now.
    pub streams: usize,
    /// Connections that were restored after a loss.
    pub reconnections: u64,
    /// Datagrams dropped because the application did not fetch them.
    pub datagrams_dropped: u64,
    /// Control frames of unknown kinds, skipped.
    pub unknown_frames: u64,
    /// Bytes of its request bodies held here.
    pub held_bytes: usize,
    /// Why the last attempt or connection ended.
    pub last_failure: Option<crate::error::Failure>,
}

/// The parts of a peer's snapshot that other owners hold.
pub(super) struct Parts {
    pub(super) is_registered: bool,
    pub(super) path: Option<path::PathsView>,
    pub(super) requests: RequestCounts,
    pub(super) streams: usize,
    pub(super) held_bytes: usize,
    /// The time of the snapshot.
    pub(super) now: Instant,
}
