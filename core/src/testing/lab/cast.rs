//! The hosts of a lab: agents and connectors with their certificates, and their addresses.
//!
//! It decides configurations and addresses, and how to dial and to open a stream. It never decides
//! the content of a test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Lab, NatId, Place};
use crate::config::{Builder, Dial};
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::lifecycle::State;
use crate::message::ServiceName;
use crate::node::{Input, PeerSnapshot};
use crate::testing::nat::Rules;
use crate::testing::net::HostId;
use crate::testing::pair::with_identity;
use crate::testing::pki::{Pki, Role};

/// The name in the certificates of all agents.
pub const AGENT: &str = "agent";

/// The port of every connector and relay. Each agent has its own, higher port.
pub const CONNECTOR_PORT: u16 = 4_433;

/// Most addresses, and most boxes, in a lab.
const ROOM: u8 = 250;

impl Lab {
    /// Adds a box with a fresh IPv4 address in the network `outside`.
    pub fn nat(&mut self, rules: Rules, outside: Place) -> NatId {
        let number = self.nats_so_far();
        let external = match outside {
            Place::Public => IpAddr::from([203, 0, 113, 1 + number]),
            Place::Behind(id) => IpAddr::from([10, id.index() as u8, 0, 1 + number]),
        };
        self.internet.add_nat(rules, external, outside)
    }

    /// Adds an agent with a fresh IPv4 address and its defaults, and starts it.
    pub fn agent(&mut self, place: Place) -> HostId {
        self.agent_with(place, |builder| builder)
    }

    /// Adds an agent with a changed configuration.
    ///
    /// # Panics
    /// If the configuration cannot work.
    pub fn agent_with(&mut self, place: Place, change: impl FnOnce(Builder) -> Builder) -> HostId {
        self.agent_as(AGENT, place, change)
    }

    /// Adds an agent with its own identity; all other agents share one.
    ///
    /// # Panics
    /// If the configuration cannot work.
    pub fn agent_as(
        &mut self,
        name: &str,
        place: Place,
        change: impl FnOnce(Builder) -> Builder,
    ) -> HostId {
        let port = 40_000 + self.machines.len() as u16;
        self.player(place, port, (name, Role::Agent), change)
    }

    /// Adds a connector of this name with a fresh IPv4 address and its defaults, and starts it.
    pub fn connector(&mut self, name: &str, place: Place) -> HostId {
        self.connector_with(name, place, |builder| builder)
    }

    /// Adds a connector with a changed configuration.
    ///
    /// # Panics
    /// If the configuration cannot work.
    pub fn connector_with(
        &mut self,
        name: &str,
        place: Place,
        change: impl FnOnce(Builder) -> Builder,
    ) -> HostId {
        let change = |builder: Builder| change(builder.listening(true));
        self.player(place, CONNECTOR_PORT, (name, Role::Connector), change)
    }

    fn player(
        &mut self,
        place: Place,
        port: u16,
        (name, role): (&str, Role),
        change: impl FnOnce(Builder) -> Builder,
    ) -> HostId {
        let address = self.address_in(place, port);
        let host = self.add_host(place, vec![address]);
        let config = change(with_identity(self.crypto(host), &Pki::new().issue(name, role)));
        self.start(host, config.build().expect("the configuration works"), 1);
        host
    }

    /// Returns a fresh address in a network: 198.51.100.n, or 192.168.b.n behind the box b.
    #[must_use]
    pub fn address_in(&self, place: Place, port: u16) -> SocketAddr {
        match place {
            Place::Public => self.public_address(port),
            Place::Behind(id) => SocketAddr::new(self.inside_ip(id, self.hosts_so_far()), port),
        }
    }

    pub(super) fn public_address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(198, 51, 100, self.hosts_so_far()), port))
    }

    /// Returns the global IPv6 address of the `n`th host.
    #[must_use]
    pub fn global_address(&self, host: HostId) -> SocketAddr {
        let port = self.address(host).port();
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + host.index() as u16);
        SocketAddr::from((ip, port))
    }

    fn inside_ip(&self, id: NatId, n: u8) -> IpAddr {
        IpAddr::from([192, 168, id.index() as u8, n])
    }

    fn hosts_so_far(&self) -> u8 {
        let taken = self.internet.addresses_given();
        u8::try_from(taken).ok().filter(|&n| n < ROOM).expect("a lab is small") + 1
    }

    fn nats_so_far(&self) -> u8 {
        u8::try_from(self.internet.nats()).ok().filter(|&n| n < ROOM).expect("a lab is small")
    }

    /// Returns a host's first address.
    #[must_use]
    pub fn address(&self, host: HostId) -> SocketAddr {
        self.internet.addresses(host)[0]
    }

    /// Adds one more address to a host, in its network.
    pub fn add_address(&mut self, host: HostId, address: SocketAddr) {
        let mut addresses = self.internet.addresses(host).to_vec();
        addresses.push(address);
        let place = self.internet.place(host);
        self.internet.move_host(host, place, addresses);
    }

    /// Moves a host to a fresh address of a network, and notifies its node if asked to.
    pub fn roam(&mut self, host: HostId, place: Place, is_notified: bool) {
        let address = self.address_in(place, self.address(host).port());
        self.internet.move_host(host, place, vec![address]);
        if is_notified {
            self.handle(host, Input::NetworkChanged);
        }
    }

    /// Lets a host dial another one at its first address.
    ///
    /// # Panics
    /// If it may not.
    pub fn dial(&mut self, from: HostId, to: HostId, name: &str) -> PeerId {
        let address = self.address(to);
        self.dial_with(from, Dial::new(address, name))
    }

    /// Lets a host dial.
    ///
    /// # Panics
    /// If it may not.
    pub fn dial_with(&mut self, from: HostId, dial: Dial) -> PeerId {
        let (node, now) = self.node_mut(from);
        node.dial(dial, now).expect("it can dial")
    }

    /// Returns true if a peer of a host's node is connected.
    #[must_use]
    pub fn is_connected(&self, host: HostId, peer: PeerId) -> bool {
        matches!(self.node(host).state(peer), Some(State::Connected { .. }))
    }

    /// Returns a host's node's snapshot of a peer.
    ///
    /// # Panics
    /// If it does not know it.
    #[must_use]
    pub fn peer(&self, host: HostId, peer: PeerId) -> PeerSnapshot {
        self.node(host).peer_snapshot(peer).expect("it is there")
    }

    /// Returns the peer that a host's node accepted last.
    #[must_use]
    pub fn accepted(&self, host: HostId) -> Option<PeerId> {
        self.log(host).iter().rev().find_map(|(_, event)| {
            if let Event::Accepted { peer } = event { Some(*peer) } else { None }
        })
    }

    /// Opens a stream to a service of a connected peer and accepts it there; returns the opener's
    /// id and the acceptor's. The service has a name that is not used before.
    ///
    /// # Panics
    /// If that takes a minute, or the peer allows no more streams.
    pub fn open(&mut self, (from, peer): (HostId, PeerId), to: HostId) -> (StreamId, StreamId) {
        let service: ServiceName = format!("load-{}", self.opened).parse().expect("a service name");
        self.opened += 1;
        let opened = self.node_mut(from).0.open(peer, service.clone());
        let ours = opened.expect("connected").expect("the peer allows a stream");
        let offered = |lab: &Self| {
            lab.log(to).iter().rev().find_map(|(_, event)| {
                let Event::StreamOffered { stream, service: asked } = event else { return None };
                (*asked == service).then_some(*stream)
            })
        };
        let is_offered = self.run_until(|lab| offered(lab).is_some(), Duration::from_secs(60));
        assert!(is_offered, "waited for {service} to be offered in vain");
        let theirs = offered(self).expect("the wait was for it");
        self.node_mut(to).0.accept_stream(theirs).expect("it was offered");
        (ours, theirs)
    }
}
