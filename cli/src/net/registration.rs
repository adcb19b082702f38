//! What a connector registers at its relays: its services, the keys of guests, and revoked
//! certificates. It decides which part of a registry fits into a registration; the relay does not
//! judge it, and the connector checks every device again.

use std::sync::{Mutex, PoisonError};

use adit_tokio::core::ServiceName;
use adit_tokio::core::drive::Handle;
use adit_tokio::core::relay::{MAX_GUESTS, MAX_REVOKED, MAX_SERVICES, Register};
use adit_tokio::core::tls::Identity;

use crate::base::exit::ExitError;
use crate::config::ServiceConfig;
use crate::identity::mesh::registry::MeshRegistry;
use crate::identity::mesh::roster::Roster;

/// The registration of a node at its relays.
#[derive(Debug)]
pub(crate) struct RelayRegistration {
    name: String,
    services: Vec<ServiceName>,
    /// What was registered last.
    advertised: Mutex<Option<Register>>,
}

impl RelayRegistration {
    /// Returns the registration of a connector with these services.
    ///
    /// # Errors
    /// If its certificate has no name, by which relays distinguish the connectors of one mesh.
    pub(crate) fn new(identity: &Identity, services: &[ServiceConfig]) -> Result<Self, ExitError> {
        let services = services.iter().map(|service| service.name.clone());
        Ok(Self {
            name: name(identity)?,
            services: services.take(MAX_SERVICES).collect(),
            advertised: Mutex::default(),
        })
    }

    /// Registers the present state, unless it is registered already.
    pub(crate) fn advertise(&self, handle: &Handle, roster: Option<&Roster>, now: u64) {
        let offer = match roster {
            Some(roster) => roster.with(|registry| self.offer(Some(registry), now)),
            None => self.offer(None, now),
        };
        let mut advertised = self.advertised.lock().unwrap_or_else(PoisonError::into_inner);
        if advertised.as_ref() != Some(&offer) {
            handle.register(Some(offer.clone()));
            *advertised = Some(offer);
        }
    }

    fn offer(&self, registry: Option<&MeshRegistry>, now: u64) -> Register {
        let mut offer = Register {
            name: self.name.clone(),
            services: self.services.clone(),
            guests: Vec::new(),
            revoked: Vec::new(),
            takeover: false,
        };
        if let Some(registry) = registry {
            // If there are more than a relay accepts, those with the most time left.
            let mut guests: Vec<_> = registry.guests(now).into_iter().collect();
            guests.sort_by_key(|(key, until)| (std::cmp::Reverse(*until), *key));
            offer.guests = guests.into_iter().map(|(key, _)| key).take(MAX_GUESTS).collect();
            offer.revoked = revoked(registry, now);
        }
        offer
    }
}

/// Returns the serial numbers of certificates that were revoked and have not expired, the latest
/// first.
fn revoked(registry: &MeshRegistry, now: u64) -> Vec<String> {
    let mut all: Vec<_> = registry
        .devices
        .iter()
        .filter_map(|device| device.revoked.map(|at| (at, &device.serials)))
        .flat_map(|(at, serials)| serials.iter().map(move |(serial, end)| (at, serial, *end)))
        .filter(|(_, _, end)| now <= *end)
        .collect();
    all.sort_by_key(|(at, serial, _)| (std::cmp::Reverse(*at), *serial));
    all.into_iter().map(|(_, serial, _)| serial.clone()).take(MAX_REVOKED).collect()
}

fn name(identity: &Identity) -> Result<String, ExitError> {
    let nobody = || {
        let next = "issue one with a DNS name, which is also what agents dial it by";
        ExitError::usage(format!(
            "relays need a name, and this connector's certificate has none; {next}"
        ))
    };
    let leaf = identity.chain().first().ok_or_else(nobody)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| nobody())?;
    leaf.valid_dns_names().next().map(str::to_owned).ok_or_else(nobody)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use adit_tokio::core::tls::KeyDigest;

    use super::*;
    use crate::identity::mesh::registry::{DeviceRole, IssuedInvite, RegisteredDevice};
    use crate::identity::throwaway::ThrowawayAuthority;

    fn registration() -> RelayRegistration {
        let identity =
            ThrowawayAuthority::new().unwrap().device("connector").unwrap().identity().clone();
        let backend = "3000".parse().unwrap();
        let service = ServiceConfig { name: "web".parse().unwrap(), backend, allow: None };
        RelayRegistration::new(&identity, &[service]).unwrap()
    }

    fn invite(number: u16, expires: u64) -> IssuedInvite {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        IssuedInvite {
            key: KeyDigest(key),
            service: "web".into(),
            name: None,
            issued: 0,
            expires,
            used_by: None,
            used: None,
            revoked: false,
        }
    }

    fn device(serial: &str, end: u64, revoked: Option<u64>) -> RegisteredDevice {
        RegisteredDevice {
            id: format!("device-{serial}"),
            name: None,
            label: String::new(),
            role: DeviceRole::Agent,
            key: KeyDigest([0; 32]),
            services: BTreeSet::new(),
            serials: BTreeMap::from([(serial.to_owned(), end)]),
            enrolled: 0,
            revoked,
        }
    }

    #[test]
    fn a_registration_has_the_certificate_name_and_services() {
        let offer = registration().offer(None, 0);
        assert_eq!(
            (offer.name.as_str(), offer.services),
            ("connector", vec!["web".parse().unwrap()])
        );
        assert!(offer.guests.is_empty() && offer.revoked.is_empty());
    }

    #[test]
    fn guests_are_those_of_open_invites_and_the_longest_lived_where_they_are_many() {
        let mut registry = MeshRegistry::new("mesh".into());
        registry.invites = vec![invite(1, 99), invite(2, 100), invite(3, 101)];
        registry.invites[2].revoked = true;
        let keys = |registry: &MeshRegistry| registration().offer(Some(registry), 100).guests;
        assert_eq!(keys(&registry), [invite(2, 100).key]);
        let many = u16::try_from(MAX_GUESTS).unwrap() + 1;
        registry.invites = (0..many).map(|n| invite(n, 100 + u64::from(n))).collect();
        let all = keys(&registry);
        assert_eq!(all.len(), MAX_GUESTS);
        assert_eq!(all[0], invite(many - 1, 0).key);
        assert!(!all.contains(&invite(0, 0).key));
    }

    #[test]
    fn serials_are_those_of_revoked_devices_whose_certificates_have_not_ended() {
        let mut registry = MeshRegistry::new("mesh".into());
        registry.devices = vec![
            device("0a", 100, Some(1)),
            device("0b", 99, Some(1)),
            device("0c", 100, None),
            device("0d", 100, Some(2)),
        ];
        assert_eq!(registration().offer(Some(&registry), 100).revoked, ["0d", "0a"]);
    }
}
