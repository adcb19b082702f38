//! Converts the core's snapshots to the schema of the status, field by field. Only here does a new
//! name in the core meet the name that programs rely on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use adit_tokio::core::error::Failure;
use adit_tokio::core::latency::Summary;
use adit_tokio::core::lifecycle;
use adit_tokio::core::node::PeerSnapshot;
use adit_tokio::core::path::{self, PathView, PeerView};
use adit_tokio::core::relay::{self, RegistrationView};
use adit_tokio::core::tls::{Credential, Standing};

use super::schema::{
    CandidatePairStatus, CandidateStatus, CredentialStatus, FailureStatus, LatencyStatus,
    LifecycleStatus, PathStatus, PeerStatus, PortMapping, RegistrationStatus, RelayStatus,
    RelayTransportStatus, RemoteEndStatus,
};
use crate::base::units::millis;
use crate::net::port_mapping::PortMappingState;
use crate::net::relay_transports::RelayTransport;

impl PeerStatus {
    /// Returns the status of a peer, with what carries its packets if it is a relay.
    pub(crate) fn new(
        peer: PeerSnapshot,
        relay_transports: &BTreeMap<SocketAddr, RelayTransport>,
    ) -> Self {
        let transport = relay_transports.get(&peer.remote).filter(|_| peer.is_relay).copied();
        Self {
            id: peer.id,
            title: None,
            credential: peer.credential.map(CredentialStatus::from),
            remote: peer.remote,
            dialled: peer.dialled,
            is_relay: peer.is_relay,
            is_registered: peer.is_registered,
            path: peer.path.map(PathStatus::from),
            state: peer.state.into(),
            healthy: peer.healthy,
            latency: peer.latency.map(LatencyStatus::from),
            heartbeats: peer.heartbeats,
            transport: peer.transport,
            rtt_ms: peer.rtt_ms,
            requests: peer.requests,
            streams: peer.streams,
            reconnections: peer.reconnections,
            datagrams_dropped: peer.datagrams_dropped,
            unknown_frames: peer.unknown_frames,
            held_bytes: peer.held_bytes,
            last_failure: peer.last_failure.as_ref().map(FailureStatus::from),
            relay_transport: transport.map(RelayTransportStatus::from),
        }
    }
}

impl From<Credential> for CredentialStatus {
    fn from(credential: Credential) -> Self {
        let standing = match credential.standing {
            Standing::Member => "member",
            Standing::Guest => "guest",
        };
        Self {
            standing: standing.into(),
            names: credential.names,
            uris: credential.uris,
            serial: credential.serial,
            key: credential.key.to_string(),
            not_after: credential.not_after,
            mesh: credential.mesh.map(|mesh| mesh.to_string()),
        }
    }
}

impl From<lifecycle::StateView> for LifecycleStatus {
    fn from(view: lifecycle::StateView) -> Self {
        use lifecycle::{StateKind, StateView};
        let in_state = |kind: StateKind, age_ms| Self {
            state: kind.as_str().into(),
            age_ms,
            latency_ms: None,
            attempt: None,
            last_error: None,
            error: None,
        };
        match view {
            StateView::Disconnected => in_state(StateKind::Disconnected, None),
            StateView::Connecting { age_ms } => in_state(StateKind::Connecting, Some(age_ms)),
            StateView::Connected { age_ms, latency_ms } => {
                Self { latency_ms, ..in_state(StateKind::Connected, Some(age_ms)) }
            }
            StateView::Reconnecting { age_ms, attempt, last_error } => Self {
                attempt: Some(attempt),
                last_error: Some((&last_error).into()),
                ..in_state(StateKind::Reconnecting, Some(age_ms))
            },
            StateView::Failed { age_ms, error } => {
                Self { error: Some((&error).into()), ..in_state(StateKind::Failed, Some(age_ms)) }
            }
        }
    }
}

impl From<Summary> for LatencyStatus {
    fn from(summary: Summary) -> Self {
        Self {
            smoothed_ms: millis(summary.smoothed),
            min_ms: millis(summary.min),
            p50_ms: millis(summary.p50),
            p99_ms: millis(summary.p99),
            last_ms: millis(summary.last),
            samples: summary.samples,
        }
    }
}

impl From<&Failure> for FailureStatus {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code().as_str().into(),
            detail: failure.detail().to_owned(),
            retry_after: failure.retry_after(),
        }
    }
}

impl From<RelayTransport> for RelayTransportStatus {
    fn from(transport: RelayTransport) -> Self {
        Self {
            transport: transport.transport.as_str().into(),
            state: transport.word().into(),
            age_ms: transport.age_ms,
        }
    }
}

impl From<path::PathsView> for PathStatus {
    fn from(view: path::PathsView) -> Self {
        let candidates = view.candidates.into_iter().map(CandidateStatus::from);
        Self {
            class: view.class.map(|class| class.as_str().into()),
            to: view.to,
            age_ms: view.age_ms,
            reason: view.reason.as_str().into(),
            sentence: view.sentence.into(),
            suspect: view.suspect,
            latency_ms: view.latency_ms,
            least_ms: view.least_ms,
            loss: view.loss,
            mapping: view.mapping.as_str().into(),
            candidates: candidates.collect(),
            peer: Some(view.peer.into()),
            rounds: view.rounds,
            held_off_ms: view.held_off_ms,
            kept_bytes: view.kept_bytes,
            dropped: view.dropped,
            counters: view.counters,
            candidate_pairs: view.paths.into_iter().map(CandidatePairStatus::from).collect(),
        }
    }
}

impl From<path::CandidateAddress> for CandidateStatus {
    fn from(candidate: path::CandidateAddress) -> Self {
        Self { kind: candidate.kind.as_str().into(), address: candidate.address }
    }
}

impl From<PeerView> for RemoteEndStatus {
    fn from(view: PeerView) -> Self {
        Self {
            sends: view.sends.as_str().into(),
            has_one_way_loss: view.has_one_way_loss,
            mapping: view.mapping.as_str().into(),
        }
    }
}

impl From<PathView> for CandidatePairStatus {
    fn from(view: PathView) -> Self {
        Self {
            class: view.class.as_str().into(),
            to: view.to,
            address: view.address,
            kind: view.kind.map(|kind| kind.as_str().into()),
            observed: view.observed,
            in_use: view.in_use,
            used_by_peer: view.used_by_peer,
            sent: view.sent,
            answered: view.answered,
            answer_age_ms: view.answer_age_ms,
            latency_ms: view.latency_ms,
            least_ms: view.least_ms,
            loss: view.loss,
            verdict: view.verdict.as_str().into(),
            sentence: view.sentence,
        }
    }
}

impl From<relay::RelayView> for RelayStatus {
    fn from(view: relay::RelayView) -> Self {
        Self {
            clients: view.clients,
            guests: view.guests,
            channels: view.channels,
            registrations: view.registrations.into_iter().map(RegistrationStatus::from).collect(),
            queued_bytes: view.queued_bytes,
            forwarded_packets: view.forwarded_packets,
            forwarded_bytes: view.forwarded_bytes,
            dropped: view.dropped,
            matched: view.matched,
            unmatched: view.unmatched,
            evicted: view.evicted,
            displaced: view.displaced,
            expired: view.expired,
            draining: view.draining,
        }
    }
}

impl From<RegistrationView> for RegistrationStatus {
    fn from(view: RegistrationView) -> Self {
        Self {
            client: Some(view.client),
            mesh: view.mesh.to_string(),
            name: view.name,
            key: view.key.to_string(),
            observed: view.observed,
            services: view.services.iter().map(ToString::to_string).collect(),
            guests: view.guests,
            age_ms: view.age_ms,
            channels: view.channels,
        }
    }
}

impl From<PortMappingState> for PortMapping {
    fn from(state: PortMappingState) -> Self {
        let in_state = |state: &'static str| Self {
            state: Cow::Borrowed(state),
            protocol: None,
            gateway: None,
            external: None,
            why: Vec::new(),
        };
        match state {
            PortMappingState::NotAsked => in_state("not_asked"),
            PortMappingState::NotNeeded => in_state("not_needed"),
            PortMappingState::None { gateway, why } => {
                Self { gateway: Some(gateway.to_string()), why, ..in_state("none") }
            }
            PortMappingState::Mapped { protocol, gateway, external } => Self {
                protocol: Some(protocol.as_str().into()),
                gateway: Some(gateway.to_string()),
                external: Some(external),
                ..in_state("mapped")
            },
        }
    }
}
