//! How a NAT maps a socket's address, and what therefore cannot work.
//!
//! It decides how observations of one socket's address add up to a kind of mapping (RFC 4787 §4.1).
//! It never asks for an observation.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use crate::message::Mapping;

impl Mapping {
    /// Returns the stable text of the mapping, as messages and `--json` carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Independent => "independent",
            Self::Dependent => "dependent",
            Self::Unknown => "unknown",
        }
    }

    /// Returns true if two sockets that are mapped so can meet at the addresses that a relay saw.
    /// They cannot where both change theirs: each would have to guess the other's port. Filtering
    /// may forbid more, and only trying shows it.
    ///
    /// ```
    /// use adit_core::path::Mapping;
    /// assert!(Mapping::Dependent.can_meet(Mapping::Independent));
    /// assert!(!Mapping::Dependent.can_meet(Mapping::Dependent));
    /// ```
    #[must_use]
    pub fn can_meet(self, other: Self) -> bool {
        !(self == Self::Dependent && other == Self::Dependent)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns the mapping that follows from `observed`, each as (observer, address seen), all of one
/// family and one socket.
///
/// One address for destinations on two hosts is [`Mapping::Independent`]. Two ports of one host
/// do not show that: a mapping may depend on the destination's host alone (RFC 4787 §4.1).
pub(super) fn mapping_of(observed: &[(SocketAddr, SocketAddr)], own: &[SocketAddr]) -> Mapping {
    let Some(&(first_by, first)) = observed.first() else { return Mapping::Unknown };
    if observed.iter().any(|&(_, seen)| seen != first) {
        return Mapping::Dependent;
    }
    if own.contains(&first) {
        return Mapping::None;
    }
    let is_other_host = |&(by, _): &(SocketAddr, SocketAddr)| by.ip() != first_by.ip();
    if observed.iter().any(is_other_host) { Mapping::Independent } else { Mapping::Unknown }
}

/// Returns the mapping of a host from those of its families: the one that promises least of those
/// that are known, since a peer may use either.
pub(super) fn of_both_families(v4: Mapping, v6: Mapping) -> Mapping {
    match (v4, v6) {
        (Mapping::Unknown, known) | (known, Mapping::Unknown) => known,
        (v4, v6) => v4.max(v6),
    }
}

/// Returns true if `address` can be that of another host's socket, for a probe.
///
/// Addresses of this host itself count only if `is_local_allowed`: otherwise a peer could have
/// this node probe its own services.
pub(super) fn is_reachable(address: SocketAddr, is_local_allowed: bool) -> bool {
    let ip = address.ip();
    let is_special = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        // Link-local addresses mean nothing without the interface.
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    address.port() != 0
        && !is_special
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && (is_local_allowed || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_observer_shows_no_mapping_unless_there_is_no_nat() {
        let (relay, seen) = (at("192.0.2.1:1"), at("198.51.100.1:4000"));
        assert_eq!(mapping_of(&[], &[]), Mapping::Unknown);
        assert_eq!(mapping_of(&[(relay, seen)], &[at("10.0.0.1:4000")]), Mapping::Unknown);
        assert_eq!(mapping_of(&[(relay, seen)], &[seen]), Mapping::None);
    }

    #[test]
    fn two_hosts_that_see_one_address_make_it_independent_and_two_ports_of_one_do_not() {
        let seen = at("198.51.100.1:4000");
        let (a, b, c) = (at("192.0.2.1:1"), at("192.0.2.1:2"), at("192.0.2.2:1"));
        assert_eq!(mapping_of(&[(a, seen), (b, seen)], &[]), Mapping::Unknown);
        assert_eq!(mapping_of(&[(a, seen), (c, seen)], &[]), Mapping::Independent);
    }

    #[test]
    fn two_addresses_seen_are_a_dependent_mapping() {
        let (a, b) = (at("192.0.2.1:1"), at("192.0.2.1:2"));
        let (first, second) = (at("198.51.100.1:4000"), at("198.51.100.1:4001"));
        assert_eq!(mapping_of(&[(a, first), (b, second)], &[first]), Mapping::Dependent);
    }

    #[test]
    fn only_two_dependent_mappings_cannot_meet() {
        let all = [Mapping::None, Mapping::Independent, Mapping::Dependent, Mapping::Unknown];
        for a in all {
            for b in all {
                let both = a == Mapping::Dependent && b == Mapping::Dependent;
                assert_eq!(a.can_meet(b), !both, "{a} and {b}");
            }
            assert_eq!(serde_json::to_value(a).unwrap(), a.as_str());
        }
    }

    #[test]
    fn a_host_of_two_families_promises_what_the_worse_one_does() {
        assert_eq!(of_both_families(Mapping::None, Mapping::Dependent), Mapping::Dependent);
        assert_eq!(of_both_families(Mapping::Unknown, Mapping::None), Mapping::None);
        assert_eq!(of_both_families(Mapping::Independent, Mapping::None), Mapping::Independent);
        assert_eq!(of_both_families(Mapping::Unknown, Mapping::Unknown), Mapping::Unknown);
    }

    #[test]
    fn unusable_addresses_are_no_candidates() {
        for wrong in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "169.254.1.1:1",
            "10.0.0.1:0",
            "[::]:1",
            "[fe80::1]:1",
            "[ff02::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(!is_reachable(at(wrong), true), "{wrong}");
        }
        for right in ["10.0.0.1:1", "100.64.0.1:1", "[2001:db8::1]:1", "[fd00::1]:1"] {
            assert!(is_reachable(at(right), false), "{right}");
        }
        assert!(is_reachable(at("127.0.0.1:1"), true) && !is_reachable(at("127.0.0.1:1"), false));
        assert!(is_reachable(at("[::1]:1"), true) && !is_reachable(at("[::1]:1"), false));
    }
}
