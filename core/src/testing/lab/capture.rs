//! Records the datagrams that pass at a host.
//!
//! It decides nothing: once started, it keeps every datagram that leaves or reaches a host.

use std::time::Instant;

use super::Lab;
use crate::testing::net::{HostId, Packet};

/// The direction of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It reached the host.
    In,
    /// It left the host.
    Out,
}

/// One datagram as it passed at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// The direction.
    pub passage: Passage,
    /// The datagram, with the addresses as the host sees them.
    pub packet: Packet,
}

impl Captured {
    /// Returns true if its payload contains these bytes.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.packet.payload.windows(needle.len().max(1)).any(|window| window == needle)
    }
}

impl Lab {
    /// Starts to keep everything that passes at a host.
    pub fn capture(&mut self, host: HostId) {
        self.machines[host.index()].capture.get_or_insert_default();
    }

    /// Returns what has passed at a host since [`Lab::capture`], and starts again.
    pub fn take_captured(&mut self, host: HostId) -> Vec<Captured> {
        let capture = &mut self.machines[host.index()].capture;
        capture.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns what has passed at a host since [`Lab::capture`] or [`Lab::take_captured`].
    #[must_use]
    pub fn captured(&self, host: HostId) -> &[Captured] {
        self.machines[host.index()].capture.as_deref().unwrap_or_default()
    }

    pub(super) fn record(&mut self, host: HostId, passage: Passage, packet: &Packet) {
        if let Some(capture) = &mut self.machines[host.index()].capture {
            capture.push(Captured { at: self.now, passage, packet: packet.clone() });
        }
    }
}
