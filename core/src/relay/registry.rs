//! The registered names, and the services that each connector offers to which clients.
//!
//! It decides which client holds a name and which connectors a client may be matched with. It never
//! decides which of them the client gets, and does not know about channels.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::config::MAX_OFFERS;
use super::serial::Serial;
use crate::id::PeerId;
use crate::message::{Register, ServiceName};
use crate::shares::{ClientShares, Origin};
use crate::tls::KeyDigest;
use crate::token_bucket::Bucket;

/// Connectors of one key that may offer one service: a device has several names while it is moved or
/// renamed, and one of them would otherwise take the places of others.
const OFFERS_OF_A_KEY: usize = 2;

/// The registration of one connector.
#[derive(Debug)]
pub(super) struct ConnectorRegistration {
    pub(super) mesh: KeyDigest,
    /// The holders that its entries count for.
    origin: Origin,
    pub(super) name: Box<str>,
    pub(super) services: BTreeSet<ServiceName>,
    pub(super) guests: BTreeSet<KeyDigest>,
    pub(super) revoked: BTreeSet<Serial>,
    pub(super) since: Instant,
    /// Limits the channels that are offered to it.
    pub(super) notifications: Bucket,
}

impl ConnectorRegistration {
    pub(super) fn new(mesh: KeyDigest, origin: Origin, register: &Register, now: Instant) -> Self {
        Self {
            mesh,
            origin,
            name: register.name.as_str().into(),
            services: register.services.iter().cloned().collect(),
            guests: register.guests.iter().copied().collect(),
            // A message with invalid serial numbers was refused when it was read.
            revoked: register.revoked.iter().filter_map(|text| Serial::parse(text)).collect(),
            since: now,
            notifications: Bucket::new(),
        }
    }

    /// Returns how many entries it takes up.
    fn entries(&self) -> usize {
        self.services.len() + self.guests.len() + self.revoked.len()
    }

    /// Returns true if it admits this client: a member of its mesh that it has not revoked, or a
    /// guest.
    pub(super) fn admits(&self, key: KeyDigest, mesh: Option<KeyDigest>, serial: Serial) -> bool {
        let is_member = mesh == Some(self.mesh) && !self.revoked.contains(&serial);
        is_member || self.guests.contains(&key)
    }
}

/// All registrations, and indices by name, service and guest.
#[derive(Debug, Default)]
pub(super) struct Registry {
    registrations: BTreeMap<PeerId, ConnectorRegistration>,
    names: BTreeMap<KeyDigest, BTreeMap<Box<str>, PeerId>>,
    services: BTreeMap<(KeyDigest, ServiceName), BTreeSet<PeerId>>,
    guests: BTreeMap<KeyDigest, BTreeSet<PeerId>>,
    /// Services, guests and serial numbers of all registrations, by the clients that have them.
    entries: ClientShares<PeerId>,
}

impl Registry {
    pub(super) fn get(&self, client: PeerId) -> Option<&ConnectorRegistration> {
        self.registrations.get(&client)
    }

    pub(super) fn get_mut(&mut self, client: PeerId) -> Option<&mut ConnectorRegistration> {
        self.registrations.get_mut(&client)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &ConnectorRegistration)> {
        self.registrations.iter().map(|(id, registration)| (*id, registration))
    }

    /// Returns the client that holds a name.
    pub(super) fn holder(&self, mesh: KeyDigest, name: &str) -> Option<PeerId> {
        self.names.get(&mesh)?.get(name).copied()
    }

    /// Returns true if any connector lists a guest.
    pub(super) fn is_guest(&self, key: KeyDigest) -> bool {
        self.guests.contains_key(&key)
    }

    /// Returns true if there is room for a registration among `limit` entries in all.
    pub(super) fn has_room(&self, client: PeerId, register: &Register, limit: usize) -> bool {
        let others = self.entries.total() - self.entries.weight(client);
        others + entries(register) <= limit
    }

    /// Returns the registration that makes room for one of `client`: the newest of the client that
    /// has the most entries.
    pub(super) fn makes_room(
        &self,
        client: PeerId,
        register: &Register,
        origin: &Origin,
    ) -> Option<PeerId> {
        let more = entries(register).saturating_sub(self.entries.weight(client));
        self.entries.makes_room(origin, more).filter(|newest| *newest != client)
    }

    /// Returns the clients that are registered in a mesh.
    pub(super) fn of_mesh(&self, mesh: KeyDigest) -> Vec<PeerId> {
        self.names.get(&mesh).into_iter().flat_map(BTreeMap::values).copied().collect()
    }

    /// Returns a service that already has too many connectors for `client` to be another, or too
    /// many of the same key.
    pub(super) fn crowded<'a>(
        &self,
        client: PeerId,
        mesh: KeyDigest,
        key: KeyDigest,
        services: &'a [ServiceName],
    ) -> Option<&'a ServiceName> {
        services.iter().find(|service| {
            let offers = self.services.get(&(mesh, (*service).clone()));
            let Some(offers) = offers.filter(|it| !it.contains(&client)) else { return false };
            let has_its_key =
                |id: &&PeerId| self.get(**id).is_some_and(|it| it.origin.key() == key);
            offers.len() >= MAX_OFFERS
                || offers.iter().filter(has_its_key).count() >= OFFERS_OF_A_KEY
        })
    }

    /// Registers a client and replaces its earlier registration; the age is kept if the name is the
    /// same. The name must be free or its own.
    ///
    /// A guest that too many connectors list already gains no reachability from another, so that it
    /// is not listed again.
    pub(super) fn insert(&mut self, client: PeerId, mut registration: ConnectorRegistration) {
        // The age of the entries stays, for which a new registration may make room.
        if let Some(before) = self.unindex(client)
            && before.name == registration.name
        {
            registration.since = before.since;
            registration.notifications = before.notifications;
        }
        let mesh = registration.mesh;
        self.names.entry(mesh).or_default().insert(registration.name.clone(), client);
        for service in &registration.services {
            self.services.entry((mesh, service.clone())).or_default().insert(client);
        }
        registration.guests.retain(|guest| {
            let listing = self.guests.entry(*guest).or_default();
            listing.len() < MAX_OFFERS && listing.insert(client)
        });
        self.entries.set(client, &registration.origin, registration.entries());
        self.registrations.insert(client, registration);
    }

    /// Ends the registration of a client.
    pub(super) fn remove(&mut self, client: PeerId) -> Option<ConnectorRegistration> {
        let registration = self.unindex(client)?;
        self.entries.remove(client);
        Some(registration)
    }

    fn unindex(&mut self, client: PeerId) -> Option<ConnectorRegistration> {
        let registration = self.registrations.remove(&client)?;
        let mesh = registration.mesh;
        if let Some(names) = self.names.get_mut(&mesh) {
            names.remove(&registration.name);
            if names.is_empty() {
                self.names.remove(&mesh);
            }
        }
        for service in &registration.services {
            unlist(&mut self.services, &(mesh, service.clone()), client);
        }
        for guest in &registration.guests {
            unlist(&mut self.guests, guest, client);
        }
        Some(registration)
    }

    /// Returns the connectors that offer a service to this client and admit it.
    pub(super) fn offers(
        &self,
        service: &ServiceName,
        key: KeyDigest,
        mesh: Option<KeyDigest>,
        serial: Serial,
    ) -> BTreeSet<PeerId> {
        let of_mesh = mesh.and_then(|mesh| self.services.get(&(mesh, service.clone())));
        let of_guest = self.guests.get(&key);
        let all = of_mesh.into_iter().chain(of_guest).flatten().copied();
        all.filter(|id| {
            self.registrations
                .get(id)
                .is_some_and(|it| it.services.contains(service) && it.admits(key, mesh, serial))
        })
        .collect()
    }
}

/// Returns how many entries a registration takes up.
const fn entries(register: &Register) -> usize {
    register.services.len() + register.guests.len() + register.revoked.len()
}

fn unlist<K: Ord>(index: &mut BTreeMap<K, BTreeSet<PeerId>>, key: &K, client: PeerId) {
    if let Some(clients) = index.get_mut(key) {
        clients.remove(&client);
        if clients.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Registry {
    /// Checks that the indices match the registrations.
    pub(super) fn audit(&self) {
        let names: usize = self.names.values().map(BTreeMap::len).sum();
        assert_eq!(names, self.registrations.len(), "a name is held twice, or by nobody");
        let entries: usize = self.registrations.values().map(ConnectorRegistration::entries).sum();
        assert_eq!((self.entries.total(), self.entries.len()), (entries, self.registrations.len()));
        let (mut services, mut guests) = (0, 0);
        for (id, it) in &self.registrations {
            assert_eq!(self.holder(it.mesh, &it.name), Some(*id));
            for service in &it.services {
                assert!(self.services[&(it.mesh, service.clone())].contains(id));
            }
            assert!(it.guests.iter().all(|guest| self.guests[guest].contains(id)));
            services += it.services.len();
            guests += it.guests.len();
        }
        let sizes = |sets: &mut dyn Iterator<Item = usize>| {
            sets.inspect(|len| assert!((1..=MAX_OFFERS).contains(len), "{len} offers"))
                .sum::<usize>()
        };
        assert_eq!(sizes(&mut self.services.values().map(BTreeSet::len)), services);
        assert_eq!(sizes(&mut self.guests.values().map(BTreeSet::len)), guests);
    }
}
