//! The services and addresses of a connector of this mesh, as the one that ran last wrote them, so
//! that an invite can be made beside a running connector.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::address::{HostPort, MAX_ADDRESSES, RelayAddress};
use crate::config::ServiceConfig;

/// The services, and their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectorOffer {
    /// Addresses at which a device may reach the connector, the most likely first.
    pub(crate) addresses: Vec<String>,
    /// Relays by which a device may reach it as well.
    #[serde(default)]
    pub(crate) relays: Vec<RelayAddress>,
    /// Services, each with its port at the connector, if it has one.
    pub(crate) services: BTreeMap<String, Option<u16>>,
}

impl ConnectorOffer {
    /// Returns an offer of `services` at the advertised addresses, at the connector's own and by
    /// its relays.
    pub(crate) fn new(
        own: &[SocketAddr],
        advertised: &[HostPort],
        relays: &[RelayAddress],
        services: &[ServiceConfig],
    ) -> Self {
        let mut addresses: Vec<_> = advertised.iter().map(HostPort::to_string).collect();
        addresses.extend(own.iter().map(SocketAddr::to_string));
        addresses.truncate(MAX_ADDRESSES);
        let services = services
            .iter()
            .map(|service| (service.name.as_str().to_owned(), service.backend.port()))
            .collect();
        Self { addresses, relays: relays.to_vec(), services }
    }

    /// Returns the same with an outside address before the others.
    #[must_use]
    pub(crate) fn at_first(mut self, outside: Option<SocketAddr>) -> Self {
        if let Some(outside) = outside.map(|outside| outside.to_string())
            && !self.addresses.contains(&outside)
        {
            self.addresses.insert(0, outside);
            self.addresses.truncate(MAX_ADDRESSES);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_advertised_goes_first_and_eight_are_enough() {
        let advertised: Vec<_> = (1..=9)
            .map(|port| HostPort::try_from(format!("home.example:{port}")).unwrap())
            .collect();
        let own = ["127.0.0.1:4433".parse().unwrap()];
        let offer = ConnectorOffer::new(&own, &advertised[..1], &[], &[]);
        assert_eq!(offer.addresses, ["home.example:1", "127.0.0.1:4433"]);
        let offer = ConnectorOffer::new(&own, &advertised, &[], &[]);
        assert_eq!(offer.addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn an_outside_address_goes_first_once() {
        let own = ["192.168.1.9:4433".parse().unwrap()];
        let offer = ConnectorOffer::new(&own, &[], &[], &[]);
        let outside = Some("203.0.113.7:4433".parse().unwrap());
        let mapped = offer.clone().at_first(outside).at_first(outside);
        assert_eq!(mapped.addresses, ["203.0.113.7:4433", "192.168.1.9:4433"]);
        assert_eq!(offer.clone().at_first(None), offer);
    }

    #[test]
    fn what_was_offered_before_there_were_relays_is_read() {
        let offer: ConnectorOffer =
            serde_json::from_str(r#"{"addresses":[],"services":{}}"#).unwrap();
        assert!(offer.relays.is_empty());
    }
}
