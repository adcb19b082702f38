//! The serial numbers that the connectors of a mesh have sent as revoked. They outlive a
//! registration: a revoked device must not register while the connector is away.
//!
//! It decides which certificates may not register. It never decides which client may connect to a
//! connector: that is in the connector's own list.

use std::collections::{BTreeMap, BTreeSet};

use super::serial::Serial;
use crate::shares::{ClientShares, Origin};
use crate::tls::KeyDigest;

/// A connector: the key of its mesh, and its own.
type Reporter = (KeyDigest, KeyDigest);

/// The lists of all connectors, the latest of each.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    lists: BTreeMap<Reporter, BTreeSet<Serial>>,
    /// How many connectors of a mesh have listed a serial number.
    listed: BTreeMap<(KeyDigest, Serial), usize>,
    shares: ClientShares<Reporter>,
}

impl Revocations {
    /// Replaces the list of a connector; returns true if it is another. Beyond `limit` serial
    /// numbers in all, the newest list of the client with the most is forgotten.
    pub(super) fn set(
        &mut self,
        reporter: Reporter,
        origin: &Origin,
        serials: &BTreeSet<Serial>,
        limit: usize,
    ) -> bool {
        if self.lists.get(&reporter).map_or(serials.is_empty(), |before| before == serials) {
            return false;
        }
        self.remove(reporter);
        if !serials.is_empty() {
            for serial in serials {
                *self.listed.entry((reporter.0, *serial)).or_default() += 1;
            }
            self.lists.insert(reporter, serials.clone());
            self.shares.set(reporter, origin, serials.len());
        }
        while self.shares.total() > limit {
            let Some(largest) = self.shares.largest() else { break };
            self.remove(largest);
        }
        true
    }

    /// Returns true if another connector of its mesh has listed a certificate.
    pub(super) fn contains(&self, mesh: KeyDigest, key: KeyDigest, serial: Serial) -> bool {
        let listed = self.listed.get(&(mesh, serial)).copied().unwrap_or(0);
        let is_own = self.lists.get(&(mesh, key)).is_some_and(|list| list.contains(&serial));
        listed > usize::from(is_own)
    }

    fn remove(&mut self, reporter: Reporter) {
        let Some(list) = self.lists.remove(&reporter) else { return };
        self.shares.remove(reporter);
        for serial in list {
            let entry = (reporter.0, serial);
            let left = self.listed.get(&entry).map_or(0, |listed| listed - 1);
            match left {
                0 => self.listed.remove(&entry),
                left => self.listed.insert(entry, left),
            };
        }
    }

    /// Checks that the counts match the lists, and that the limit is kept.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn audit(&self, limit: usize) {
        let all: usize = self.lists.values().map(BTreeSet::len).sum();
        assert_eq!((all, self.listed.values().sum::<usize>()), (self.shares.total(), all));
        assert!(all <= limit, "{all} serial numbers are remembered");
    }
}
