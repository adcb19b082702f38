//! An internet of namespaces: a bridge, public hosts on it, and sites behind routers.
//!
//! It decides who has which address and how the parts are joined. It never decides what runs there.
//!
//! ```text
//!  relay .10 .11 ──┐
//!                  ├── bridge 203.0.113.0/24 ──[wire]── router .20+n ── host 192.168.n.2
//!  more hosts ─────┘                                └─ or: carrier ── router ── host
//! ```

use std::net::Ipv4Addr;

use adit_core::testing::link::Conditions;

use super::namespace::{Namespace, is_possible};
use super::nat::Kind;
use super::wire::Wire;

/// Maximum number of sites in a lab.
const MAX_SITES: u8 = 4;

/// A lab's internet.
pub(crate) struct Net {
    bridge: Namespace,
    ends: u32,
}

/// A host on the internet.
pub(crate) struct Public {
    pub(crate) inside: Namespace,
    pub(crate) addresses: Vec<Ipv4Addr>,
}

/// A host behind a router.
pub(crate) struct Site {
    pub(crate) host: Namespace,
    pub(crate) router: Namespace,
    /// External address of the router, on the internet or on its carrier's network.
    pub(crate) external: Ipv4Addr,
    number: u8,
    subnet: [u8; 3],
    address: u8,
    /// The link of the router to the internet, if it is not a cable.
    pub(crate) wire: Option<Wire>,
    carrier: Option<Namespace>,
}

impl Net {
    /// Returns an empty internet. Returns `None`, and prints so, where none can be made.
    pub(crate) fn new() -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let bridge = Namespace::new("inet");
        bridge.ip("link add name bridge0 type bridge");
        bridge.ip("link set bridge0 up");
        Some(Self { bridge, ends: 0 })
    }

    /// Returns a host on the internet with these addresses of 203.0.113.0/24.
    pub(crate) fn public(&mut self, role: &str, last: &[u8]) -> Public {
        let inside = Namespace::new(role);
        self.plug(&inside, "wan");
        let addresses: Vec<_> = last.iter().map(|&n| Ipv4Addr::new(203, 0, 113, n)).collect();
        for address in &addresses {
            inside.ip(&format!("addr add {address}/24 dev wan"));
        }
        routes(&inside);
        Public { inside, addresses }
    }

    /// Returns a host behind a router of this kind, by a cable.
    pub(crate) fn site(&mut self, number: u8, kind: Kind) -> Site {
        self.site_by(number, kind, None)
    }

    /// Returns the same by a link with conditions of its own, in both directions.
    pub(crate) fn site_by(&mut self, number: u8, kind: Kind, link: Option<&Conditions>) -> Site {
        let router = Namespace::new("router");
        let external = Ipv4Addr::new(203, 0, 113, 20 + number);
        let wire = match link {
            None => {
                self.plug(&router, "wan");
                None
            }
            Some(conditions) => Some(self.wire(&router, conditions)),
        };
        router.ip(&format!("addr add {external}/24 dev wan"));
        routes(&router);
        self.finish_site(number, kind, router, external, (wire, None))
    }

    /// Returns a host behind a router of one kind, itself behind a carrier's NAT of another.
    pub(crate) fn site_behind(&mut self, number: u8, kind: Kind, carrier: Kind) -> Site {
        let (outer, router) = (Namespace::new("carrier"), Namespace::new("router"));
        self.plug(&outer, "wan");
        let public = Ipv4Addr::new(203, 0, 113, 20 + number);
        outer.ip(&format!("addr add {public}/24 dev wan"));
        routes(&outer);
        outer.join("lan", &router, "wan");
        outer.ip(&format!("addr add 100.64.{number}.1/24 dev lan"));
        let external = Ipv4Addr::new(100, 64, number, 2);
        router.ip(&format!("addr add {external}/24 dev wan"));
        router.ip(&format!("route add default via 100.64.{number}.1"));
        outer.set("net/ipv4/ip_forward", "1");
        outer.nft(&carrier.nft(public));
        self.finish_site(number, kind, router, external, (None, Some(outer)))
    }

    fn finish_site(
        &mut self,
        number: u8,
        kind: Kind,
        router: Namespace,
        external: Ipv4Addr,
        (wire, carrier): (Option<Wire>, Option<Namespace>),
    ) -> Site {
        assert!(number < MAX_SITES, "the lab has no more sites");
        let host = Namespace::new("host");
        router.join("lan", &host, "eth");
        let subnet = match kind {
            Kind::Firewall => [198, 51, 100 + number],
            Kind::FullCone
            | Kind::AddressRestricted
            | Kind::PortRestricted
            | Kind::AddressDependent
            | Kind::Symmetric => [192, 168, number],
        };
        let site = Site { host, router, external, number, subnet, address: 2, wire, carrier };
        site.router.ip(&format!("addr add {}/24 dev lan", site.inside(1)));
        site.router.set("net/ipv4/ip_forward", "1");
        site.router.nft(&kind.nft(external));
        site.configure_host();
        site
    }

    /// Joins a namespace to the bridge by a cable.
    fn plug(&mut self, namespace: &Namespace, end: &str) {
        let port = self.port();
        self.bridge.join(&port, namespace, end);
        self.bridge.ip(&format!("link set {port} master bridge0"));
    }

    /// Joins a namespace to the bridge by a link with conditions.
    fn wire(&mut self, namespace: &Namespace, conditions: &Conditions) -> Wire {
        let port = self.port();
        let wire = Wire::between((namespace, "wan"), (&self.bridge, &port), conditions);
        self.bridge.ip(&format!("link set {port} master bridge0"));
        wire
    }

    fn port(&mut self) -> String {
        self.ends += 1;
        format!("port{}", self.ends)
    }
}

/// Sets the routes to networks behind firewalls.
fn routes(namespace: &Namespace) {
    for number in 0..MAX_SITES {
        let own = Ipv4Addr::new(203, 0, 113, 20 + number);
        // The route to its own site is its cable's: a router does not send that to itself.
        let taken = namespace.enter(|| std::net::UdpSocket::bind((own, 0)).is_ok());
        if !taken {
            namespace.ip(&format!("route add 198.51.{}.0/24 via {own}", 100 + number));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Namespaces end a while after they were deleted; the address is free for another
        // immediately.
        self.carrier.as_ref().unwrap_or(&self.router).ip("link set wan down");
    }
}

impl Site {
    fn inside(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }

    /// Returns the host's address in its own network.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.inside(self.address)
    }

    fn configure_host(&self) {
        self.host.ip(&format!("addr add {}/24 dev eth", self.address()));
        self.host.ip(&format!("route add default via {}", self.inside(1)));
    }

    /// Changes the host's address.
    pub(crate) fn change_address(&mut self) {
        self.host.ip("addr flush dev eth");
        self.address += 1;
        self.configure_host();
    }

    /// Disconnects the host's cable.
    pub(crate) fn unplug(&self) {
        self.host.ip("link set eth down");
    }

    /// Connects the cable again, and restores the route that it removed.
    pub(crate) fn replug(&self) {
        self.host.ip("link set eth up");
        self.host.ip(&format!("route replace default via {}", self.inside(1)));
    }

    /// Makes the router drop everything to and from the public side of another site.
    pub(crate) fn cut(&self, other: &Self) {
        let (public, behind) = (other.public(), other.subnet);
        let [a, b, c] = behind;
        self.router.nft(&format!(
            "table ip cut {{
               chain forward {{
                 type filter hook forward priority -10;
                 ip daddr {{ {public}, {a}.{b}.{c}.0/24 }} drop
                 ip saddr {{ {public}, {a}.{b}.{c}.0/24 }} drop
               }}
             }}"
        ));
    }

    /// Reverts [`Site::cut`].
    pub(crate) fn mend(&self) {
        self.router.nft("delete table ip cut");
    }

    /// Makes the router drop all UDP.
    pub(crate) fn block_udp(&self) {
        self.router.nft(
            "table ip tcponly {
               chain forward {
                 type filter hook forward priority -10;
                 meta l4proto udp drop
               }
             }",
        );
    }

    /// Makes the router drop everything.
    pub(crate) fn block_all(&self) {
        self.router.nft(
            "table ip out {
               chain forward {
                 type filter hook forward priority -10;
                 drop
               }
             }",
        );
    }

    /// Reverts [`Site::block_all`].
    pub(crate) fn allow_all(&self) {
        self.router.nft("delete table ip out");
    }

    /// Makes the router drop everything from inside but what goes to one address.
    pub(crate) fn block_all_but(&self, address: Ipv4Addr) {
        self.router.nft(&format!(
            "table ip walled {{
               chain forward {{
                 type filter hook forward priority -10;
                 iifname lan ip daddr != {address} drop
               }}
             }}"
        ));
    }

    /// Reverts [`Site::block_udp`].
    pub(crate) fn allow_udp(&self) {
        self.router.nft("delete table ip tcponly");
    }

    /// Returns the public address of this site's router, or of its carrier.
    pub(crate) fn public(&self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, 20 + self.number)
    }
}
