//! The status of a relay as plain data, to display or to export.

use std::net::SocketAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Relay;
use super::registry::ConnectorRegistration;
use crate::id::PeerId;
use crate::message::ServiceName;
use crate::tls::KeyDigest;

/// Packets that were not forwarded, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drops {
    /// Not of the form in docs/protocol.md, "Relayed packets".
    pub malformed: u64,
    /// The channel does not exist: it ended recently, or never existed.
    pub unknown_channel: u64,
    /// The sender is over its rate limit.
    pub over_rate: u64,
    /// The receiver takes less than is sent to it.
    pub queue_full: u64,
    /// Parts that are larger than a datagram on the receiver's path.
    pub too_large: u64,
    /// The receiver left before it took them.
    pub receiver_gone: u64,
}

/// A relay at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayView {
    /// Clients attached.
    pub clients: usize,
    /// The clients among them without a mesh.
    pub guests: usize,
    /// Channels between them.
    pub channels: usize,
    /// The registered clients, in order of their arrival.
    pub registrations: Vec<RegistrationView>,
    /// Bytes that wait to be forwarded, each packet with 64 more.
    pub queued_bytes: usize,
    /// Packets forwarded since the start.
    pub forwarded_packets: u64,
    /// Bytes of them.
    pub forwarded_bytes: u64,
    /// Packets dropped since the start.
    pub dropped: Drops,
    /// Lookups that ended in a channel.
    pub matched: u64,
    /// Lookups that did not.
    pub unmatched: u64,
    /// Registrations replaced by one of the same key.
    pub evicted: u64,
    /// Registrations ended to make room for those of clients that have less.
    pub displaced: u64,
    /// Registrations that were not refreshed in time.
    pub expired: u64,
    /// Whether the relay is about to shut down.
    pub draining: bool,
}

/// A registration at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistrationView {
    /// The connector, as a peer of the node.
    pub client: PeerId,
    /// The key of its mesh's CA.
    pub mesh: KeyDigest,
    /// Its name there.
    pub name: String,
    /// Its own key.
    pub key: KeyDigest,
    /// Where its packets come from.
    pub observed: SocketAddr,
    /// The services that it offers.
    pub services: Vec<ServiceName>,
    /// How many guests it admits.
    pub guests: usize,
    /// Time since it registered, in milliseconds.
    pub age_ms: u64,
    /// Channels to it.
    pub channels: usize,
}

impl Relay {
    /// Returns the whole status, with ages as of `now`.
    #[must_use]
    pub(crate) fn view(&self, now: Instant) -> RelayView {
        let counters = self.counters;
        let registrations = self.registry.iter();
        RelayView {
            clients: self.clients.len(),
            guests: self.guests,
            channels: self.channels,
            registrations: registrations
                .filter_map(|(id, registration)| self.describe(id, registration, now))
                .collect(),
            queued_bytes: self.queues.bytes(),
            forwarded_packets: counters.packets,
            forwarded_bytes: counters.bytes,
            dropped: counters.drops,
            matched: counters.matched,
            unmatched: counters.unmatched,
            evicted: counters.evicted,
            displaced: counters.displaced,
            expired: counters.expired,
            draining: self.draining.is_some(),
        }
    }

    fn describe(
        &self,
        client: PeerId,
        registration: &ConnectorRegistration,
        now: Instant,
    ) -> Option<RegistrationView> {
        let attached = self.clients.get(&client)?;
        let age = now.saturating_duration_since(registration.since);
        Some(RegistrationView {
            client,
            mesh: registration.mesh,
            name: registration.name.to_string(),
            key: attached.key,
            observed: attached.observed,
            services: registration.services.iter().cloned().collect(),
            guests: registration.guests.len(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            channels: attached.served(),
        })
    }
}
