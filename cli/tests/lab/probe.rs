//! What a router does to datagrams, measured from outside: its mapping and its filter by RFC 5780,
//! and whether two hosts can reach each other.
//!
//! It decides by which datagrams arrive within a time; on one machine, even a busy one, few are
//! late.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use adit_core::testing::nat::Dependence;

use super::namespace::Namespace;
use super::net::{Public, Site};

/// Longest wait for one datagram: the kernel delivers it within the call that sends it, unless it
/// is so busy that it leaves that to another thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// Number of attempts of two hosts to punch: one second if they fail.
const ROUNDS: usize = 25;

/// Returns a socket of a namespace.
pub(crate) fn socket(inside: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = inside.enter(|| UdpSocket::bind((address, port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Two ports of each of two addresses of a public host.
pub(crate) struct Observers(Vec<UdpSocket>);

impl Observers {
    pub(crate) fn of(server: &Public) -> Self {
        let sockets = server.addresses[..2]
            .iter()
            .flat_map(|&address| [3_478, 3_479].map(|port| socket(&server.inside, address, port)));
        Self(sockets.collect())
    }

    /// Returns the address at which each of them sees a socket, if its packets reach it.
    pub(crate) fn see(&self, socket: &UdpSocket) -> Vec<Option<SocketAddr>> {
        self.0.iter().map(|observer| see(observer, socket)).collect()
    }

    /// Returns how the external port of a fresh socket depends on the destination, and prints what
    /// was observed. Returns `None` if not all were reached.
    pub(crate) fn mapping(&self, inside: &Namespace, port: u16) -> Option<Dependence> {
        let host = socket(inside, Ipv4Addr::UNSPECIFIED, port);
        let seen: Vec<_> = self.see(&host).into_iter().collect::<Option<_>>()?;
        let distinct = |seen: &[SocketAddr]| seen.iter().collect::<BTreeSet<_>>().len();
        Some(match (distinct(&seen[..2]), distinct(&seen)) {
            (1, 1) => Dependence::Independent,
            (1, 2) => Dependence::Address,
            (_, _) => Dependence::AddressAndPort,
        })
    }

    /// Returns which observers may send to a fresh socket that sent to the first of them, or `None`
    /// if that one may not.
    pub(crate) fn filtering(&self, inside: &Namespace, port: u16) -> Option<Dependence> {
        let host = socket(inside, Ipv4Addr::UNSPECIFIED, port);
        let seen = see(&self.0[0], &host)?;
        let reaches = |observer: &UdpSocket| {
            observer.send_to(b"answer", seen).unwrap();
            host.recv_from(&mut [0; 64]).is_ok()
        };
        let reached: Vec<_> = self.0.iter().map(reaches).collect();
        match reached[..] {
            [true, true, true, true] => Some(Dependence::Independent),
            [true, true, false, false] => Some(Dependence::Address),
            [true, false, false, false] => Some(Dependence::AddressAndPort),
            _ => None,
        }
    }
}

/// Returns the address at which an observer sees a socket.
fn see(observer: &UdpSocket, socket: &UdpSocket) -> Option<SocketAddr> {
    socket.send_to(b"question", observer.local_addr().unwrap()).ok()?;
    observer.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}

/// Returns true if two hosts receive from each other, when each sends to the address at which the
/// observers see the other one and then to the address from which it received.
pub(crate) fn punches(observers: &Observers, (a, b): (&Site, &Site), port: u16) -> bool {
    let sockets = [a, b].map(|site| socket(&site.host, Ipv4Addr::UNSPECIFIED, port));
    let seen = [0, 1].map(|n| see(&observers.0[0], &sockets[n]).unwrap());
    let mut to = [seen[1], seen[0]];
    let mut was_answered = [false; 2];
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    }
    for _ in 0..ROUNDS {
        for n in [0, 1] {
            let knock: &[u8] = if to[n] == seen[1 - n] { b"knock" } else { b"found" };
            let _ = sockets[n].send_to(knock, to[n]);
        }
        for n in [0, 1] {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = sockets[n].recv_from(&mut buffer) {
                // Received: answered immediately, to the source address.
                (to[n], was_answered[n]) = (from, true);
            }
        }
        if was_answered == [true; 2] {
            return true;
        }
    }
    false
}
