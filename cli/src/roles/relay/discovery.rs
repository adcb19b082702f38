//! The relay's second socket: clients that ask at two ports of one relay learn whether their NAT
//! maps them to another address for each destination (RFC 4787 §4.1). The core decides the answers;
//! this file sends and receives datagrams, and keeps none.

use std::io;
use std::net::SocketAddr;

use adit_tokio::core::relay::DISCOVERY_LEN;
use adit_tokio::core::relay::ProbeResponder;
use tokio::net::UdpSocket;

use crate::base::exit::ExitError;
use crate::base::task::Background;

/// A socket that answers for as long as it lives.
#[derive(Debug)]
pub(super) struct DiscoveryResponder {
    pub(super) local: SocketAddr,
    _answering: Background<()>,
}

impl DiscoveryResponder {
    /// Starts answering at `address`.
    ///
    /// # Errors
    /// A sentence about the address.
    pub(super) fn start(address: SocketAddr, responder: ProbeResponder) -> Result<Self, ExitError> {
        let wrong = |error: io::Error| {
            let sentence = format!(
                "{address}: cannot use this UDP address for address discovery: {error}; choose \
                 another port with --discovery-port"
            );
            ExitError::of_bind(&error, sentence)
        };
        let socket = bind(address).map_err(wrong)?;
        let local = socket.local_addr().map_err(wrong)?;
        Ok(Self { local, _answering: Background::spawn(answer(socket, responder)) })
    }
}

/// Binds a socket of the address's family; an IPv6 wildcard accepts IPv4 as well.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn answer(socket: UdpSocket, responder: ProbeResponder) {
    // A datagram that is longer than a question is not one.
    let mut question = [0; DISCOVERY_LEN + 1];
    loop {
        match socket.recv_from(&mut question).await {
            Ok((length, source)) => {
                let source = plain(source);
                if let Some(answer) = responder.answer(&question[..length], source) {
                    // An answer that cannot be sent now is lost, as on any network.
                    let _ = socket.try_send_to(&answer, mapped(source, &socket));
                }
            }
            // An earlier answer was returned as unreachable; the socket itself works.
            Err(error) => tracing::trace!(%error, "address discovery"),
        }
    }
}

/// Returns an IPv4 address as such, which sockets for both families write as IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns an address as this socket writes it.
fn mapped(address: SocketAddr, socket: &UdpSocket) -> SocketAddr {
    let is_v6 = socket.local_addr().is_ok_and(|local| local.is_ipv6());
    match address.ip() {
        std::net::IpAddr::V4(v4) if is_v6 => (v4.to_ipv6_mapped(), address.port()).into(),
        std::net::IpAddr::V4(_) | std::net::IpAddr::V6(_) => address,
    }
}
