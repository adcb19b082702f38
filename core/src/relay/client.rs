//! One client of a relay: its identity, and its ends of channels.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::meter::Meter;
use super::serial::Serial;
use crate::encapsulation::RELAY_IDS;
use crate::id::PeerId;
use crate::shares::Origin;
use crate::tls::KeyDigest;
use crate::token_bucket::Bucket;

/// The proven identity of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// The key that it holds.
    pub key: KeyDigest,
    /// The key of the CA that certified it; `None` for a guest, which has no mesh.
    pub mesh: Option<KeyDigest>,
    /// The serial number of its certificate in hexadecimal; empty without one.
    pub serial: String,
    /// The names in its certificate.
    pub names: Vec<String>,
    /// Whether its certificate is that of a connector.
    pub may_serve: bool,
}

/// An attached client.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) key: KeyDigest,
    pub(super) mesh: Option<KeyDigest>,
    pub(super) serial: Serial,
    /// The names that it may register; none of a device that is not a connector.
    pub(super) names: Box<[String]>,
    pub(super) observed: SocketAddr,
    pub(super) channels: BTreeMap<u32, ChannelEnd>,
    /// How many of them it requested; of the rest it is the connector.
    pub(super) called: usize,
    last_channel: u32,
    /// The id of the last packet that was sent to it in parts.
    pub(super) last_part: u16,
    pub(super) bytes: Meter,
    pub(super) connects: Bucket,
}

/// One end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelEnd {
    /// The client at the other end.
    pub(super) partner: PeerId,
    /// The number of the channel at the other end.
    pub(super) number: u32,
    /// Whether this end requested it.
    pub(super) is_caller: bool,
}

impl Attached {
    pub(super) fn new(who: &Client, observed: SocketAddr) -> Self {
        Self {
            key: who.key,
            mesh: who.mesh,
            serial: Serial::parse(&who.serial).unwrap_or(Serial::NONE),
            names: if who.may_serve { who.names.clone().into() } else { Box::default() },
            observed,
            channels: BTreeMap::new(),
            called: 0,
            last_channel: 0,
            last_part: RELAY_IDS,
            bytes: Meter::default(),
            connects: Bucket::new(),
        }
    }

    /// Returns the holders that its registrations count for.
    pub(super) fn origin(&self) -> Origin {
        Origin::new(self.observed.ip(), self.mesh, self.key)
    }

    /// Returns the number of channels of which it is the connector.
    pub(super) fn served(&self) -> usize {
        self.channels.len() - self.called
    }

    /// Returns a number for its next channel: no number is reused while a packet may still carry
    /// it.
    pub(super) fn next_channel(&mut self) -> u32 {
        loop {
            self.last_channel = self.last_channel.wrapping_add(1);
            if !self.channels.contains_key(&self.last_channel) {
                return self.last_channel;
            }
        }
    }

    pub(super) fn insert(&mut self, number: u32, end: ChannelEnd) {
        self.called += usize::from(end.is_caller);
        self.channels.insert(number, end);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<ChannelEnd> {
        let end = self.channels.remove(&number)?;
        self.called -= usize::from(end.is_caller);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_is_a_few_hundred_bytes() {
        assert!(size_of::<Attached>() <= 256, "{}", size_of::<Attached>());
    }

    #[test]
    fn a_number_that_is_in_use_is_not_given_again() {
        let who = Client {
            key: KeyDigest([1; 32]),
            mesh: None,
            serial: String::new(),
            names: Vec::new(),
            may_serve: false,
        };
        let mut client = Attached::new(&who, "192.0.2.1:9".parse().unwrap());
        let end = ChannelEnd { partner: PeerId(2), number: 7, is_caller: true };
        client.insert(0, end);
        client.insert(1, ChannelEnd { is_caller: false, ..end });
        client.last_channel = u32::MAX - 1;
        assert_eq!((client.next_channel(), client.next_channel()), (u32::MAX, 2));
        assert_eq!((client.called, client.served()), (1, 1));
        assert_eq!(client.remove(0), Some(end));
        assert_eq!((client.called, client.served(), client.remove(0)), (0, 1, None));
    }
}
