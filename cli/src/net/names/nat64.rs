//! IPv4 addresses as they are reached from a network that has IPv6 alone: by the prefix of its NAT64
//! (RFC 7050, RFC 6052).
//!
//! It decides how a prefix is found in what the network answers, and which addresses get one. It
//! never looks up a name, and never decides whether this machine needs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The name that has IPv4 addresses only: an IPv6 address of it is made by the network (RFC 7050 §3).
pub(super) const NAME: &str = "ipv4only.arpa";

/// The addresses of that name (RFC 7050 §2.2).
const WELL_KNOWN_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The prefix that leads to global addresses alone (RFC 6052 §3.1).
const WELL_KNOWN_PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// The lengths that a prefix may have, in bytes (RFC 6052 §2.2).
const LENGTHS: [usize; 6] = [12, 8, 7, 6, 5, 4];

/// Most prefixes of one network that are used: each makes another candidate of each address.
const MAX_PREFIXES: usize = 2;

/// The byte between the prefix and the suffix, which is zero and carries nothing (RFC 6052 §2.2).
const RESERVED: usize = 8;

/// The prefix of a NAT64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    address: Ipv6Addr,
    /// Its length in bytes.
    length: usize,
}

impl Prefix {
    /// Returns the prefix in an address of [`NAME`]; `None` if there is none, or if it may be two.
    fn in_answer(answer: Ipv6Addr) -> Option<Self> {
        let is_prefix = |length: &usize| WELL_KNOWN_ADDRESSES.contains(&embedded(answer, *length));
        let mut lengths = LENGTHS.into_iter().filter(is_prefix);
        let (length, other) = (lengths.next()?, lengths.next());
        let mut octets = answer.octets();
        octets[length..].fill(0);
        other.is_none().then_some(Self { address: octets.into(), length })
    }

    /// Returns the IPv6 address by which an IPv4 address is reached.
    fn join(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.address.octets();
        for (at, octet) in places(self.length).zip(address.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// Returns true if an address may be reached by this prefix.
    fn serves(self, address: Ipv4Addr) -> bool {
        let is_of_this_link = address.is_loopback()
            || address.is_unspecified()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast();
        let is_global_only = self.address == WELL_KNOWN_PREFIX;
        !(is_of_this_link || (is_global_only && address.is_private()))
    }
}

/// Returns where the bytes of an IPv4 address are, behind a prefix of that length.
fn places(length: usize) -> impl Iterator<Item = usize> {
    (length..).filter(|at| *at != RESERVED).take(4)
}

/// Returns the IPv4 address behind a prefix of that length.
fn embedded(address: Ipv6Addr, length: usize) -> Ipv4Addr {
    let octets = address.octets();
    let mut found = [0; 4];
    for (octet, at) in found.iter_mut().zip(places(length)) {
        *octet = octets[at];
    }
    found.into()
}

/// Returns true if one of the addresses needs a NAT64 where there is IPv6 alone.
pub(super) fn is_needed(addresses: &[SocketAddr]) -> bool {
    let anywhere = Prefix { address: Ipv6Addr::UNSPECIFIED, length: 12 };
    addresses.iter().any(|it| matches!(it.ip(), IpAddr::V4(ip) if anywhere.serves(ip)))
}

/// Returns the addresses with those that the network makes of IPv4 addresses: behind the IPv6
/// addresses that are known, and before the IPv4 addresses, which are not reached. `answers` are the
/// addresses of [`NAME`] in this network.
pub(super) fn synthesize(addresses: &[SocketAddr], answers: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for answer in answers {
        let IpAddr::V6(answer) = answer.ip() else { continue };
        let Some(prefix) = Prefix::in_answer(answer) else { continue };
        if prefixes.len() < MAX_PREFIXES && !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    let (v4, mut all): (Vec<SocketAddr>, Vec<_>) =
        addresses.iter().copied().partition(SocketAddr::is_ipv4);
    for prefix in prefixes {
        for address in &v4 {
            if let IpAddr::V4(ip) = address.ip()
                && prefix.serves(ip)
            {
                all.push((prefix.join(ip), address.port()).into());
            }
        }
    }
    all.extend(v4);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

    /// The table of RFC 6052 §2.4: the length of each prefix in bytes, the prefix, and 192.0.2.33
    /// behind it.
    const EXAMPLES: [(usize, &str, &str); 7] = [
        (4, "2001:db8::", "2001:db8:c000:221::"),
        (5, "2001:db8:100::", "2001:db8:1c0:2:21::"),
        (6, "2001:db8:122::", "2001:db8:122:c000:2:2100::"),
        (7, "2001:db8:122:300::", "2001:db8:122:3c0:0:221::"),
        (8, "2001:db8:122:344::", "2001:db8:122:344:c0:2:2100::"),
        (12, "2001:db8:122:344::", "2001:db8:122:344::192.0.2.33"),
        (12, "64:ff9b::", "64:ff9b::192.0.2.33"),
    ];

    fn sockets(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 4433)).collect()
    }

    #[test]
    fn each_prefix_length_gives_the_address_of_the_specification() {
        for (length, prefix, joined) in EXAMPLES {
            let prefix = Prefix { address: prefix.parse().unwrap(), length };
            assert_eq!(prefix.join(EXAMPLE), joined.parse::<Ipv6Addr>().unwrap());
            assert_eq!(embedded(prefix.join(EXAMPLE), length), EXAMPLE);
        }
    }

    #[test]
    fn each_prefix_is_found_in_either_well_known_address() {
        for (length, prefix, _) in EXAMPLES {
            let prefix = Prefix { address: prefix.parse().unwrap(), length };
            for address in WELL_KNOWN_ADDRESSES {
                assert_eq!(Prefix::in_answer(prefix.join(address)), Some(prefix));
            }
        }
    }

    #[test]
    fn an_answer_without_a_prefix_or_with_two_gives_none() {
        let none: Ipv6Addr = "2001:db8::1".parse().unwrap();
        // Behind 32 and behind 96 bits.
        let two: Ipv6Addr = "2001:db8:c000:aa::192.0.0.170".parse().unwrap();
        for answer in [none, two] {
            assert_eq!(Prefix::in_answer(answer), None, "{answer}");
        }
    }

    #[test]
    fn synthesized_addresses_follow_ipv6_and_precede_ipv4() {
        let known = sockets(&["192.0.2.33", "2001:db8::7", "127.0.0.1"]);
        let answers = sockets(&["192.0.0.170", "64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"]);
        let expected = sockets(&["2001:db8::7", "64:ff9b::192.0.2.33", "192.0.2.33", "127.0.0.1"]);
        assert_eq!(synthesize(&known, &answers), expected);
        let without = sockets(&["2001:db8::7", "192.0.2.33", "127.0.0.1"]);
        assert_eq!(synthesize(&known, &sockets(&["192.0.0.170"])), without);
    }

    #[test]
    fn addresses_that_no_nat64_leads_to_need_none() {
        assert!(is_needed(&sockets(&["2001:db8::7", "192.0.2.33"])));
        assert!(!is_needed(&sockets(&["2001:db8::7", "127.0.0.1", "169.254.1.1"])));
        let private = sockets(&["10.0.0.5"]);
        let of_network = sockets(&["2001:db8::192.0.0.170"]);
        assert_eq!(synthesize(&private, &of_network)[0], sockets(&["2001:db8::10.0.0.5"])[0]);
        assert_eq!(synthesize(&private, &sockets(&["64:ff9b::192.0.0.170"])), private);
    }
}
