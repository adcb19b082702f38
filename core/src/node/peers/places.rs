//! The places of peers that connected to this node: how many one key may have, and who makes room
//! when there are none left.
//!
//! It decides which connection ends for another. It never decides whether a certificate is good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::Limits;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::shares::{ClientShares, Origin};
use crate::tls::{Credential, KeyDigest};

/// Silence after which a connection of a key makes room for another: one that lives is heard every
/// 10 s, see [`crate::config::Transport::keep_alive`].
const SILENT: Duration = Duration::from_secs(12);

/// When a refused peer may try again: a place is free once another has its answer.
const AGAIN: Duration = Duration::from_secs(1);

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    shares: ClientShares<PeerId>,
    keys: BTreeMap<KeyDigest, BTreeSet<PeerId>>,
    by_peer: BTreeMap<PeerId, KeyDigest>,
}

impl Places {
    /// Gives a peer a place.
    pub(super) fn insert(&mut self, id: PeerId, origin: &Origin, key: KeyDigest) {
        self.shares.set(id, origin, 1);
        self.keys.entry(key).or_default().insert(id);
        self.by_peer.insert(id, key);
    }

    /// Frees the place of a peer, if it has one.
    pub(super) fn remove(&mut self, id: PeerId) {
        let Some(key) = self.by_peer.remove(&id) else { return };
        self.shares.remove(id);
        if let Some(peers) = self.keys.get_mut(&key) {
            peers.remove(&id);
            if peers.is_empty() {
                self.keys.remove(&key);
            }
        }
    }

    /// Returns the connection that ends for a peer that connected, and the reason that it gets;
    /// none while there is room. `peers` is the number of all peers.
    ///
    /// # Errors
    /// The peer is refused: the node is full, and no source or mesh has more than its own.
    pub(super) fn displaced_by(
        &self,
        credential: &Credential,
        origin: &Origin,
        limits: &Limits,
        peers: usize,
        silence: impl Fn(&PeerId) -> Duration,
    ) -> Result<Option<(PeerId, Failure)>, Failure> {
        // Many machines may share the key of an invite, each for one question: there the newest
        // counts. The connections of a device live, and displacing them would have no end.
        let (of_its_key, least) = match credential.is_guest() {
            true => (limits.connections_of_a_guest, Duration::ZERO),
            false => (limits.connections_of_a_key, SILENT),
        };
        let overloaded = |sentence| Failure::new(Code::Overloaded, sentence);
        let held = self.keys.get(&credential.key);
        if held.is_some_and(|held| held.len() >= of_its_key) {
            // A device that was killed comes back beside connections that are silent.
            let longest = held.into_iter().flatten().copied().max_by_key(&silence);
            let failure = overloaded("this device has as many connections as it may have");
            return match longest.filter(|id| silence(id) >= least) {
                Some(silent) => Ok(Some((silent, failure))),
                None => Err(failure.with_retry_after(AGAIN)),
            };
        }
        if peers < limits.peers {
            return Ok(None);
        }
        let newest = self.shares.makes_room(origin, 1);
        let newest = newest.ok_or_else(|| overloaded("at the limit of peers"))?;
        Ok(Some((newest, overloaded("the node is full, and others have fewer connections"))))
    }

    /// Checks that the indices match, and returns the peers with a place.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn audit(&self) -> impl Iterator<Item = PeerId> {
        assert_eq!(self.shares.len(), self.by_peer.len());
        assert_eq!(self.keys.values().map(BTreeSet::len).sum::<usize>(), self.by_peer.len());
        self.by_peer.keys().copied()
    }
}
