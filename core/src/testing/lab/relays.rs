//! What only relays have: a second address whose datagrams no node answers.
//!
//! It decides who gets a datagram that reaches such an address, never what is answered. Everything of
//! the lab that knows of relays is here.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::{Lab, Place};
use crate::testing::net::{HostId, Packet};

/// What a host answers at an address of its own: the bytes of a datagram, whence it came, and the
/// host's monotonic time.
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
    /// Adds a host on the internet with two IPv4 addresses of its own, the node's and another one,
    /// and gives both; it runs nothing yet.
    pub fn relay_host(&mut self) -> (HostId, SocketAddr, SocketAddr) {
        let first = self.public_address(super::CONNECTOR_PORT);
        let host = self.add_host(Place::Public, vec![first]);
        let second = SocketAddr::from(([198, 51, 101, 1 + host.index() as u8], first.port()));
        (host, first, second)
    }

    /// Lets a host answer what reaches another address, of its own or the same one with another
    /// port, by itself: its node, which may be down, neither sees nor sends anything there.
    ///
    /// # Panics
    /// If somebody in the same network has the address.
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
