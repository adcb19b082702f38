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
        let of_its_key = match credential.is_guest() {
            true => limits.connections_of_a_guest,
            false => limits.connections_of_a_key,
        };
        let held = self.keys.get(&credential.key);
        let (displaced, sentence) = if held.is_some_and(|held| held.len() >= of_its_key) {
            // A device that was killed comes back beside connections that are silent. One that is
            // heard stays, or two programs would displace each other without end.
            let longest = held.into_iter().flatten().copied().max_by_key(&silence);
            let silent = longest.filter(|id| silence(id) >= SILENT);
            (silent, "this device has as many connections as it may have")
        } else if peers >= limits.peers {
            let newest = self.shares.makes_room(origin, 1);
            (newest, "the node is full, and others have fewer connections")
        } else {
            return Ok(None);
        };
        let overloaded = |sentence| Failure::new(Code::Overloaded, sentence);
        let displaced = displaced.ok_or_else(|| overloaded("at the limit of peers"))?;
        Ok(Some((displaced, overloaded(sentence))))
    }

    /// Checks that the indices match, and returns the peers with a place.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn audit(&self) -> impl Iterator<Item = PeerId> {
        assert_eq!(self.shares.len(), self.by_peer.len());
        assert_eq!(self.keys.values().map(BTreeSet::len).sum::<usize>(), self.by_peer.len());
        self.by_peer.keys().copied()
    }
}
