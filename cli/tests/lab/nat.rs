//! The kinds of NAT, as rules of the kernel's packet filter (terms of RFC 4787).
//!
//! It decides the rules of a router between `lan` and `wan`, and which pairs of kinds allow a
//! direct path; it never reads a packet itself.
//!
//! A router drops unsolicited packets in the filter. If the router itself accepted one, the kernel
//! would keep the port for it, and the inside host, which uses that port a moment later, would get
//! another one.

use std::net::Ipv4Addr;

use adit_core::testing::nat::Rules;

/// A kind of router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One port for all destinations, open to all.
    FullCone,
    /// One port for all destinations, open to the addresses that were sent to.
    AddressRestricted,
    /// One port for all destinations, open to the sockets that were sent to.
    PortRestricted,
    /// A port for each destination address.
    AddressDependent,
    /// A port for each destination socket.
    Symmetric,
    /// No translation; only answers come in.
    Firewall,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::AddressDependent,
        Self::Symmetric,
        Self::Firewall,
    ];

    /// Returns the same kind in the simulation.
    pub(crate) const fn rules(self) -> Rules {
        match self {
            Self::FullCone => Rules::full_cone(),
            Self::AddressRestricted => Rules::address_restricted(),
            Self::PortRestricted => Rules::port_restricted(),
            Self::AddressDependent => Rules::address_dependent(),
            Self::Symmetric => Rules::symmetric(),
            Self::Firewall => Rules::firewall(),
        }
    }

    /// Returns true if two peers behind these kinds can reach each other directly.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.rules().meets(&other.rules())
    }

    /// Returns the rules of a router of this kind with `external` as its external address.
    pub(crate) fn nft(self, external: Ipv4Addr) -> String {
        let translation = match self {
            Self::FullCone => cone(external, ""),
            Self::AddressRestricted => cone(external, "ip saddr . udp dport @known"),
            Self::PortRestricted => out(&format!("snat to {external}")),
            Self::AddressDependent => out(&format!(
                "meta l4proto udp snat to {external} : jhash ip saddr . udp sport . ip daddr \
                 mod 40000 offset 20000; oifname \"wan\" snat to {external}"
            )),
            Self::Symmetric => out(&format!(
                "meta l4proto {{ tcp, udp }} snat to {external}:20000-59999 random,fully-random"
            )),
            Self::Firewall => String::new(),
        };
        format!("{GUARD}{translation}")
    }
}

/// Lets in answers and packets that were translated on purpose; drops everything else, and all to
/// the router.
const GUARD: &str = r#"
table ip guard {
  chain input {
    type filter hook input priority 0;
    iifname "wan" ct state established,related accept
    iifname "wan" drop
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname "lan" accept
    ct state established,related accept
    ct status dnat accept
  }
}
"#;

fn out(rule: &str) -> String {
    format!(
        r#"
table ip nat {{
  chain out {{ type nat hook postrouting priority 100; oifname "wan" {rule}; }}
}}
"#
    )
}

/// Keeps ports, remembers their inside hosts, and forwards to them what `is_let_in` allows.
fn cone(external: Ipv4Addr, is_let_in: &str) -> String {
    format!(
        r#"
table ip nat {{
  map owner {{ type inet_service : ipv4_addr; flags timeout; timeout 5m; size 4096; }}
  set known {{ type ipv4_addr . inet_service; flags timeout; timeout 5m; size 4096; }}
  chain learn {{
    type filter hook postrouting priority 50;
    oifname "wan" meta l4proto udp update @owner {{ udp sport : ip saddr }}
    oifname "wan" meta l4proto udp update @known {{ ip daddr . udp sport }}
  }}
  chain out {{ type nat hook postrouting priority 100; oifname "wan" snat to {external}; }}
  chain in {{
    type nat hook prerouting priority -100;
    iifname "wan" meta l4proto udp {is_let_in} dnat to udp dport map @owner
  }}
}}
"#
    )
}
