//! Lookups without a match that wait for a connector to register.
//!
//! It decides which lookups are held, and when one is due. It never decides whether a lookup is
//! matched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::id::PeerId;
use crate::message::{Connect, ServiceName};
use crate::timer::{Deadline, Reason, Timers};

/// How many lookups may be held.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldLimits {
    pub(super) of_a_client: usize,
    pub(super) in_all: usize,
}

/// A lookup, and the client that waits for its answer.
#[derive(Debug)]
pub(super) struct HeldLookup {
    pub(super) client: PeerId,
    pub(super) connect: Connect,
}

/// The lookups that wait, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct HeldLookups {
    next: u64,
    lookups: BTreeMap<u64, HeldLookup>,
    clients: BTreeMap<PeerId, BTreeSet<u64>>,
    services: BTreeMap<ServiceName, BTreeSet<u64>>,
    timers: Timers<u64>,
}

impl HeldLookups {
    /// Holds a lookup until then. Returns false if there is no room for it.
    pub(super) fn hold(
        &mut self,
        client: PeerId,
        connect: &Connect,
        limits: HeldLimits,
        until: Instant,
    ) -> bool {
        let of_client = self.clients.get(&client).map_or(0, BTreeSet::len);
        if of_client >= limits.of_a_client || self.lookups.len() >= limits.in_all {
            return false;
        }
        let id = self.next;
        self.next += 1;
        self.clients.entry(client).or_default().insert(id);
        self.services.entry(connect.service.clone()).or_default().insert(id);
        self.timers.set(id, Some((until, Reason::HeldLookup)));
        self.lookups.insert(id, HeldLookup { client, connect: connect.clone() });
        true
    }

    /// Returns the lookups of a service with their clients, the oldest first.
    pub(super) fn of_service(&self, service: &ServiceName) -> Vec<(u64, PeerId)> {
        let ids = self.services.get(service).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.lookups.get(id)?.client))).collect()
    }

    pub(super) fn get(&self, id: u64) -> Option<&HeldLookup> {
        self.lookups.get(&id)
    }

    /// Takes a lookup that is answered.
    pub(super) fn take(&mut self, id: u64) -> Option<HeldLookup> {
        let lookup = self.lookups.remove(&id)?;
        self.timers.set(id, None);
        unlist(&mut self.clients, &lookup.client, id);
        unlist(&mut self.services, &lookup.connect.service, id);
        Some(lookup)
    }

    /// Takes a lookup that was held long enough.
    pub(super) fn poll(&mut self, now: Instant) -> Option<HeldLookup> {
        let (id, _) = self.timers.pop_due(now)?;
        self.take(id)
    }

    /// Removes the lookups of a client.
    pub(super) fn remove_client(&mut self, client: PeerId) {
        for id in self.clients.get(&client).cloned().unwrap_or_default() {
            self.take(id);
        }
    }

    /// Returns when the next lookup is due.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }
}

fn unlist<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: &K, id: u64) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl HeldLookups {
    /// Checks that the indices match the lookups, and that the limits are kept.
    pub(super) fn audit(&self, limits: HeldLimits) {
        assert!(self.lookups.len() <= limits.in_all);
        assert_eq!(self.timers.len(), self.lookups.len(), "a held lookup without its end");
        for (id, it) in &self.lookups {
            assert!(self.clients[&it.client].contains(id));
            assert!(self.services[&it.connect.service].contains(id));
        }
        assert!(self.clients.values().all(|ids| (1..=limits.of_a_client).contains(&ids.len())));
        let by_service: usize = self.services.values().map(BTreeSet::len).sum();
        assert_eq!(by_service, self.lookups.len());
    }

    /// Returns the clients that wait.
    pub(super) fn clients(&self) -> impl Iterator<Item = PeerId> {
        self.clients.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lookups.is_empty()
    }
}
