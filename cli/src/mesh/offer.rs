//! What a connector of this mesh offers and where it is reached, as the one that ran last left it:
//! so that an invite can be made beside a running connector.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::{HostPort, Service};
use crate::invite::MAX_ADDRESSES;

/// What is offered, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Addresses that a device may reach the connector at, the likeliest first.
    pub(crate) addresses: Vec<String>,
    /// Services, each with the port that it has at its own place, if it has one.
    pub(crate) services: BTreeMap<String, Option<u16>>,
}

impl Offer {
    pub(crate) fn new(listen: SocketAddr, advertised: &[HostPort], services: &[Service]) -> Self {
        let mut addresses: Vec<_> = advertised.iter().map(HostPort::to_string).collect();
        let own = if listen.ip().is_unspecified() { interfaces() } else { vec![listen.ip()] };
        let own = reachable(own, listen.is_ipv4());
        addresses.extend(own.into_iter().map(|ip| SocketAddr::new(ip, listen.port()).to_string()));
        addresses.truncate(MAX_ADDRESSES);
        let services = services
            .iter()
            .map(|service| (service.name.as_str().to_owned(), service.backend.port()))
            .collect();
        Self { addresses, services }
    }
}

/// Every address that this machine has.
fn interfaces() -> Vec<IpAddr> {
    match netwatcher::list_interfaces() {
        Ok(interfaces) => {
            let mut all: Vec<_> = interfaces.into_values().collect();
            all.sort_by_key(|interface| interface.index);
            all.into_iter().flat_map(|interface| interface.ips).map(|record| record.ip).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "this machine's addresses are not known; use --advertise");
            Vec::new()
        }
    }
}

/// Those that another machine could reach, global ones first; where there is none, this machine's
/// own, which at least itself can.
fn reachable(all: Vec<IpAddr>, only_ipv4: bool) -> Vec<IpAddr> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_link_local(),
        // A link-local address means nothing without the name of an interface.
        IpAddr::V6(v6) => !only_ipv4 && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    };
    let (own, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().filter(is_usable).partition(IpAddr::is_loopback);
    let is_private = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    others.sort_by_key(is_private);
    if others.is_empty() { own } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn global_addresses_go_first_and_those_that_nobody_reaches_not_at_all() {
        let all =
            ips(&["127.0.0.1", "10.0.0.5", "fe80::1", "169.254.1.1", "198.51.100.7", "fd00::5"]);
        assert_eq!(reachable(all.clone(), false), ips(&["198.51.100.7", "10.0.0.5", "fd00::5"]));
        assert_eq!(reachable(all, true), ips(&["198.51.100.7", "10.0.0.5"]));
    }

    #[test]
    fn a_machine_without_a_network_reaches_itself() {
        assert_eq!(reachable(ips(&["127.0.0.1", "::1"]), true), ips(&["127.0.0.1"]));
    }

    #[test]
    fn what_was_advertised_goes_first_and_eight_are_enough() {
        let advertised: Vec<_> = (1..=9)
            .map(|port| HostPort::try_from(format!("home.example:{port}")).unwrap())
            .collect();
        let offer = Offer::new("127.0.0.1:4433".parse().unwrap(), &advertised[..1], &[]);
        assert_eq!(offer.addresses, ["home.example:1", "127.0.0.1:4433"]);
        let offer = Offer::new("127.0.0.1:4433".parse().unwrap(), &advertised, &[]);
        assert_eq!(offer.addresses.len(), MAX_ADDRESSES);
    }
}
