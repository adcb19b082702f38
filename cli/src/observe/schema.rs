//! The status of a process, as it goes over the control socket and as `adit status --json` prints
//! it (`adit.status/1`). It decides names and structure, for the process that reports and for the
//! command that prints.
//!
//! Keys may be added; the meaning of one changes only with the number of the schema. Words of a
//! fixed set are text here, and most keys may be missing, so that processes of an earlier or later
//! version of `adit` are shown as well.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::event::{RequestCounts, Statistics};
use adit_tokio::core::heartbeat;
use adit_tokio::core::id::PeerId;
use adit_tokio::core::path::PathCounters;
use adit_tokio::core::relay::Drops;
use serde::{Deserialize, Serialize};

/// A word of a fixed set, or one that this version does not know.
pub(crate) type Word = Cow<'static, str>;

/// A process at one instant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProcessStatus {
    pub(crate) role: Word,
    pub(crate) pid: u32,
    pub(crate) version: Word,
    pub(crate) started_at_ms: u64,
    pub(crate) uptime_ms: u64,
    #[serde(default)]
    pub(crate) services: Vec<ExposedService>,
    #[serde(default)]
    pub(crate) forwards: Vec<LocalForward>,
    #[serde(default)]
    pub(crate) dials: Vec<DialTarget>,
    /// Relays at which a connector can be found.
    #[serde(default)]
    pub(crate) relays: Vec<String>,
    /// How the network translates the source addresses of its packets.
    #[serde(default)]
    pub(crate) mapping: Word,
    /// The gateway's mapping.
    pub(crate) port_mapping: Option<PortMapping>,
    /// Its state as a relay.
    pub(crate) relay: Option<RelayStatus>,
    pub(crate) peers: Vec<PeerStatus>,
}

/// A service, and its address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExposedService {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// A local address, and the service it leads to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalForward {
    pub(crate) listen: SocketAddr,
    pub(crate) service: String,
}

/// A peer that the process keeps itself connected to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DialTarget {
    pub(crate) name: String,
    /// What people call it, where that is not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    pub(crate) address: String,
}

/// The gateway's mapping for this network.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    /// `mapped`, `none`, `not_needed`, or `not_asked`.
    pub(crate) state: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external: Option<SocketAddr>,
    /// The result of each protocol, if no port is mapped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) why: Vec<String>,
}

/// The state of a relay for its clients.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RelayStatus {
    pub(crate) clients: usize,
    pub(crate) guests: usize,
    pub(crate) channels: usize,
    pub(crate) registrations: Vec<RegistrationStatus>,
    #[serde(default)]
    pub(crate) queued_bytes: usize,
    #[serde(default)]
    pub(crate) forwarded_packets: u64,
    pub(crate) forwarded_bytes: u64,
    #[serde(default)]
    pub(crate) dropped: Drops,
    #[serde(default)]
    pub(crate) matched: u64,
    #[serde(default)]
    pub(crate) unmatched: u64,
    #[serde(default)]
    pub(crate) evicted: u64,
    #[serde(default)]
    pub(crate) displaced: u64,
    #[serde(default)]
    pub(crate) expired: u64,
    #[serde(default)]
    pub(crate) draining: bool,
}

/// A connector that is registered at a relay.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RegistrationStatus {
    /// The connector among the relay's peers.
    pub(crate) client: Option<PeerId>,
    pub(crate) mesh: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) observed: SocketAddr,
    pub(crate) services: Vec<String>,
    #[serde(default)]
    pub(crate) guests: usize,
    pub(crate) age_ms: u64,
    pub(crate) channels: usize,
}

/// A peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) id: PeerId,
    /// What people call it, where that is not a name in its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    pub(crate) credential: Option<CredentialStatus>,
    pub(crate) remote: SocketAddr,
    pub(crate) dialled: bool,
    #[serde(default)]
    pub(crate) is_relay: bool,
    #[serde(default)]
    pub(crate) is_registered: bool,
    /// The path to a peer behind a relay.
    pub(crate) path: Option<PathStatus>,
    pub(crate) state: LifecycleStatus,
    #[serde(default)]
    pub(crate) healthy: bool,
    pub(crate) latency: Option<LatencyStatus>,
    #[serde(default)]
    pub(crate) heartbeats: heartbeat::HeartbeatStats,
    pub(crate) transport: Statistics,
    pub(crate) rtt_ms: Option<f64>,
    #[serde(default)]
    pub(crate) requests: RequestCounts,
    pub(crate) streams: usize,
    pub(crate) reconnections: u64,
    #[serde(default)]
    pub(crate) datagrams_dropped: u64,
    #[serde(default)]
    pub(crate) unknown_frames: u64,
    #[serde(default)]
    pub(crate) held_bytes: usize,
    pub(crate) last_failure: Option<FailureStatus>,
    /// The transport of packets to a relay that may be reached by TCP.
    pub(crate) relay_transport: Option<RelayTransportStatus>,
}

/// The verified identity of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CredentialStatus {
    /// `member` or `guest`.
    pub(crate) standing: Word,
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) uris: Vec<String>,
    #[serde(default)]
    pub(crate) serial: String,
    #[serde(default)]
    pub(crate) key: String,
    /// Since the Unix epoch.
    pub(crate) not_after: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mesh: Option<String>,
}

/// The lifecycle state of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LifecycleStatus {
    pub(crate) state: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_ms: Option<u64>,
    pub(crate) latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<FailureStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<FailureStatus>,
}

/// Round trips of heartbeats.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LatencyStatus {
    pub(crate) smoothed_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) last_ms: f64,
    pub(crate) samples: usize,
}

/// Why an attempt or a connection ended.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FailureStatus {
    pub(crate) code: Word,
    pub(crate) detail: String,
    pub(crate) retry_after: Option<Duration>,
}

/// The transport of packets to a relay.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RelayTransportStatus {
    /// `udp` or `tcp`.
    pub(crate) transport: Word,
    pub(crate) state: Word,
    pub(crate) age_ms: u64,
}

/// The path to a peer behind a relay, and the other paths that were tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PathStatus {
    /// `direct` or `relayed`; absent if there is no path.
    pub(crate) class: Option<Word>,
    pub(crate) to: Option<String>,
    pub(crate) age_ms: u64,
    #[serde(default)]
    pub(crate) reason: Word,
    pub(crate) sentence: Word,
    #[serde(default)]
    pub(crate) suspect: bool,
    pub(crate) latency_ms: Option<f64>,
    pub(crate) least_ms: Option<f64>,
    #[serde(default)]
    pub(crate) loss: f64,
    #[serde(default)]
    pub(crate) mapping: Word,
    /// The addresses of this end that were sent to the other.
    #[serde(default)]
    pub(crate) candidates: Vec<CandidateStatus>,
    pub(crate) peer: Option<RemoteEndStatus>,
    #[serde(default)]
    pub(crate) rounds: u32,
    pub(crate) held_off_ms: Option<u64>,
    #[serde(default)]
    pub(crate) kept_bytes: usize,
    #[serde(default)]
    pub(crate) dropped: u64,
    #[serde(default)]
    pub(crate) counters: PathCounters,
    #[serde(default)]
    pub(crate) candidate_pairs: Vec<CandidatePairStatus>,
}

/// An address of this end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CandidateStatus {
    pub(crate) kind: Word,
    pub(crate) address: SocketAddr,
}

/// What the other end advertised.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoteEndStatus {
    #[serde(default)]
    pub(crate) sends: Word,
    #[serde(default)]
    pub(crate) has_one_way_loss: bool,
    #[serde(default)]
    pub(crate) mapping: Word,
}

/// One candidate pair, and the results of its probes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CandidatePairStatus {
    pub(crate) class: Word,
    pub(crate) to: String,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) kind: Option<Word>,
    pub(crate) observed: Option<SocketAddr>,
    pub(crate) in_use: bool,
    #[serde(default)]
    pub(crate) used_by_peer: bool,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) answer_age_ms: Option<u64>,
    pub(crate) latency_ms: Option<f64>,
    pub(crate) least_ms: Option<f64>,
    #[serde(default)]
    pub(crate) loss: f64,
    #[serde(default)]
    pub(crate) verdict: Word,
    pub(crate) sentence: String,
}
