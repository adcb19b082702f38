//! Seeded connection ids: eight random bytes from the node's own generator. It also records which
//! of them belong to end-to-end connections: their packets may come from any address.
//!
//! The default generators use the operating system's randomness and would make two runs of one seed
//! differ.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn_proto::ConnectionIdGenerator;

use super::ConnectionId;
use crate::rng::Rng;

/// Bytes of a connection id.
pub(super) const CID_LEN: usize = 8;

/// Ids of one connection that are remembered: the transport has at most eight of them in use.
const REMEMBERED: usize = 32;

/// A connection id of this node.
pub(super) type Cid = [u8; CID_LEN];

/// The ids generated since the last call that took them.
#[derive(Debug, Clone, Default)]
pub(super) struct IssuedCids(Arc<Mutex<Vec<Cid>>>);

impl IssuedCids {
    /// Takes the generated ids.
    pub(super) fn take(&self) -> Vec<Cid> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The connection ids of end-to-end connections.
#[derive(Debug, Default)]
pub(super) struct KnownCids {
    connections: BTreeMap<Cid, ConnectionId>,
    of: BTreeMap<ConnectionId, VecDeque<Cid>>,
}

impl KnownCids {
    /// Records ids of a connection; beyond the number that a connection can have in use, the oldest
    /// are dropped.
    pub(super) fn insert(&mut self, connection: ConnectionId, issued: Vec<Cid>) {
        let of = self.of.entry(connection).or_default();
        for cid in issued {
            self.connections.insert(cid, connection);
            of.push_back(cid);
            if of.len() > REMEMBERED
                && let Some(old) = of.pop_front()
            {
                self.connections.remove(&old);
            }
        }
    }

    /// Removes the ids of a connection.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        for cid in self.of.remove(&connection).unwrap_or_default() {
            self.connections.remove(&cid);
        }
    }

    /// Returns the end-to-end connection that a packet with a short header belongs to (RFC 9000
    /// §17.3.1), if any.
    pub(super) fn find(&self, packet: &[u8]) -> Option<ConnectionId> {
        if self.connections.is_empty() {
            return None;
        }
        let (first, rest) = packet.split_first()?;
        let cid: &Cid = rest.first_chunk()?;
        (first & 0x80 == 0).then(|| self.connections.get(cid).copied())?
    }
}

#[derive(Debug)]
pub(super) struct SeededCids(Rng, IssuedCids);

impl SeededCids {
    pub(super) const fn new(rng: Rng, issued: IssuedCids) -> Self {
        Self(rng, issued)
    }
}

impl ConnectionIdGenerator for SeededCids {
    fn generate_cid(&mut self) -> quinn_proto::ConnectionId {
        let cid = draw(&mut self.0);
        self.1.0.lock().unwrap_or_else(PoisonError::into_inner).push(cid);
        quinn_proto::ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Returns the provider of a client's first destination ids.
pub(super) fn initial_dst_cids(
    rng: Rng,
) -> Arc<dyn Fn() -> quinn_proto::ConnectionId + Send + Sync> {
    let rng = Mutex::new(rng);
    Arc::new(move || {
        let cid = draw(&mut rng.lock().unwrap_or_else(PoisonError::into_inner));
        quinn_proto::ConnectionId::new(&cid)
    })
}

fn draw(rng: &mut Rng) -> Cid {
    let mut bytes = [0; CID_LEN];
    rng.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, cid: Cid) -> Vec<u8> {
        [&[first], &cid[..], b"rest"].concat()
    }

    #[test]
    fn a_short_header_names_its_connection_and_a_long_one_does_not() {
        let (mut known, id) = (KnownCids::default(), ConnectionId(7));
        known.insert(id, vec![[1; CID_LEN]]);
        assert_eq!(known.find(&packet(0x40, [1; CID_LEN])), Some(id));
        assert_eq!(known.find(&packet(0xc0, [1; CID_LEN])), None);
        assert_eq!(known.find(&packet(0x40, [2; CID_LEN])), None);
        assert_eq!(known.find(&packet(0x40, [1; CID_LEN])[..CID_LEN]), None);
    }

    #[test]
    fn a_peer_that_retires_ids_without_end_makes_none_pile_up() {
        let (mut known, id) = (KnownCids::default(), ConnectionId(7));
        for i in 0..1_000_u64 {
            known.insert(id, vec![i.to_be_bytes()]);
        }
        assert_eq!(known.connections.len(), REMEMBERED);
        assert_eq!(known.find(&packet(0x40, 999_u64.to_be_bytes())), Some(id));
        known.remove(id);
        assert!(known.connections.is_empty() && known.of.is_empty());
    }
}
