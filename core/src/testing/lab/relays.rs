//! What only relays need: a second address with datagrams that no node answers, and clients that
//! attach, offer services and look them up.
//!
//! It decides which host gets a datagram that reaches such an address, never the answer. All code
//! of the lab for relays is here.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::{AGENT, Lab, Place};
use crate::config::{Config, Dial};
use crate::event::Event;
use crate::id::PeerId;
use crate::message::{Register, ServiceName};
use crate::node::Input;
use crate::path;
use crate::relay::{self, ProbeResponder};
use crate::testing::net::{HostId, Packet};
use crate::testing::pki::{Issued, Pki, Role};
use crate::tls::{KeyDigest, Tls, Trust};
use crate::transmit::NextHop;

/// The name in the certificates of relays.
pub const RELAY: &str = "relay";

/// The answer of a host at one of its other addresses: from the bytes of a datagram, its source,
/// and the host's monotonic time.
pub type Answer = Box<dyn FnMut(&[u8], SocketAddr, Instant) -> Option<Vec<u8>>>;

/// An address of a host that is not its node's.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    answer: Answer,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Lab {
    /// Adds a relay with its defaults and starts it: it answers discovery probes at two of its
    /// addresses.
    pub fn relay(&mut self) -> HostId {
        self.relay_with(|config| config)
    }

    /// Adds a relay with changed limits.
    ///
    /// # Panics
    /// If the configuration cannot work.
    pub fn relay_with(
        &mut self,
        change: impl FnOnce(relay::RelayConfig) -> relay::RelayConfig,
    ) -> HostId {
        let (host, first, second) = self.relay_host();
        let issued = relay_identity(host);
        let tls =
            Tls::with_provider(issued.identity(), Trust::anyone(), self.crypto(host).provider());
        let responder = ProbeResponder::of(&tls);
        let settings = relay::RelayConfig { discovery: vec![first, second], ..Default::default() };
        let config = Config::builder(tls).relay(change(settings)).build();
        self.start(host, config.expect("the configuration works"), 1);
        let answer = move |bytes: &[u8], from, _| Some(responder.answer(bytes, from)?.to_vec());
        self.answer_at(host, second, Box::new(answer));
        host
    }

    /// Makes a host dial a relay, as an agent or as the connector of a name, and sets its node's
    /// local addresses.
    ///
    /// # Panics
    /// If it may not.
    pub fn attach(&mut self, host: HostId, connector: Option<&str>, relay: HostId) -> PeerId {
        let who = connector.map_or((AGENT, Role::Agent), |name| (name, Role::Connector));
        self.attach_as(host, who, relay)
    }

    /// Lets an agent with its own identity dial a relay, as [`Lab::attach`] does.
    ///
    /// # Panics
    /// If it may not.
    pub fn attach_as(&mut self, host: HostId, (name, role): (&str, Role), relay: HostId) -> PeerId {
        let identity = Pki::new().issue(name, role).identity();
        let identity = identity.presenting(Pki::new().root_pem().as_bytes());
        let key = KeyDigest::of_certificate(&relay_identity(relay).chain()[0]);
        let trust = Trust::pinned_leaf(key.expect("it is a certificate"));
        let provider = self.crypto(host).provider();
        let tls = Tls::with_provider(identity.expect("the CA is one"), trust, provider);
        self.advertise_addresses(host);
        self.dial_with(host, Dial::relay(self.address(relay), RELAY, tls))
    }

    /// Sets the addresses that a node's host has now.
    pub fn advertise_addresses(&mut self, host: HostId) {
        let addresses = self.internet.addresses(host).to_vec();
        self.handle(host, Input::LocalAddresses(addresses));
    }

    /// Lets a connector offer a service at all its relays.
    ///
    /// # Panics
    /// If the service has no proper name.
    pub fn offer(&mut self, host: HostId, name: &str, service: &str) {
        let services: Vec<ServiceName> = vec![service.parse().expect("a service name")];
        let (guests, revoked, takeover) = (Vec::new(), Vec::new(), true);
        let offer = Register { name: name.into(), services, guests, revoked, takeover };
        let (node, now) = self.node_mut(host);
        node.register(Some(offer), now);
    }

    /// Lets an agent look for a service of the connector of a name.
    ///
    /// # Panics
    /// If the service has no proper name.
    pub fn find(&mut self, host: HostId, service: &str, name: &str) -> PeerId {
        self.dial_with(host, Dial::service(service.parse().expect("a service name"), name))
    }

    /// Returns how often a relay accepted the offer of a host's node.
    #[must_use]
    pub fn registrations(&self, host: HostId) -> usize {
        let is_one = |(_, event): &&(Instant, Event)| matches!(event, Event::Registered { .. });
        self.log(host).iter().filter(is_one).count()
    }

    /// Returns the path of a host's packets to a peer, and the reason.
    ///
    /// # Panics
    /// If the peer is not there, or not behind a relay.
    #[must_use]
    pub fn path(&self, host: HostId, peer: PeerId) -> path::PathsView {
        self.peer(host, peer).path.expect("it is behind a relay")
    }

    /// Returns every change of the path to a peer, with the lab's time of it.
    #[must_use]
    pub fn changes(&self, host: HostId, peer: PeerId) -> Vec<(Instant, NextHop, path::PathReason)> {
        let change = |(at, event): &(Instant, Event)| {
            let Event::PathChanged { peer: whose, via, reason } = event else { return None };
            (*whose == peer).then_some((*at, *via, *reason))
        };
        self.log(host).iter().filter_map(change).collect()
    }

    /// Returns true if a host's packets to a peer go directly.
    #[must_use]
    pub fn is_direct(&self, host: HostId, peer: PeerId) -> bool {
        matches!(self.changes(host, peer).last(), Some((_, NextHop::Direct(_), _)))
    }

    /// Adds a host on the internet with two IPv4 addresses, the node's and another one, and returns
    /// both; it runs no node yet.
    pub fn relay_host(&mut self) -> (HostId, SocketAddr, SocketAddr) {
        let first = self.public_address(super::CONNECTOR_PORT);
        let host = self.add_host(Place::Public, vec![first]);
        let second = SocketAddr::from(([198, 51, 101, 1 + host.index() as u8], first.port()));
        (host, first, second)
    }

    /// Makes a host itself answer what reaches another address, a separate one or the same one with
    /// another port: its node, which may be down, neither receives nor sends there.
    ///
    /// # Panics
    /// If a host in the same network has the address.
    pub fn answer_at(&mut self, host: HostId, address: SocketAddr, answer: Answer) {
        let mut addresses = self.internet.addresses(host).to_vec();
        addresses.push(address);
        let place = self.internet.place(host);
        self.internet.move_host(host, place, addresses);
        self.machines[host.index()].services.push(Service { address, answer });
    }

    /// Answers a datagram that is not for the node. Whether it was such a one.
    pub(super) fn serve(&mut self, host: HostId, packet: &Packet) -> bool {
        let machine = &mut self.machines[host.index()];
        let here = machine.host.clock.monotonic(self.now);
        let service = machine.services.iter_mut().find(|service| service.address == packet.to);
        let Some(service) = service else { return false };
        if let Some(payload) = (service.answer)(&packet.payload, packet.from, here) {
            let (from, to) = (packet.to, packet.from);
            self.put(host, Packet { from, to, ecn: None, payload });
        }
        true
    }
}

/// Returns the identity of a relay, with its own key.
fn relay_identity(host: HostId) -> Issued {
    let pki = if host.index().is_multiple_of(2) { Pki::new() } else { Pki::stranger() };
    pki.issue(RELAY, Role::Connector)
}
