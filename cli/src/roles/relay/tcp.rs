//! The relay's TCP port, for clients whose network lets no UDP through. It decides whether a port that
//! cannot be had ends the relay; what comes in there is the TCP fallback's business.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::address::TCP_PORT;
use crate::base::exit::ExitError;

/// Connections that may wait to be taken.
const BACKLOG: i32 = 1_024;

/// Which port is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpPort {
    /// The usual one, if it can be had.
    Usual,
    /// This one; any for 0.
    Port(u16),
    None,
}

impl TcpPort {
    pub(crate) const fn of(port: Option<u16>, none: bool) -> Self {
        match (port, none) {
            (_, true) => Self::None,
            (Some(port), false) => Self::Port(port),
            (None, false) => Self::Usual,
        }
    }
}

/// Listens at the port that is wanted. Without the usual one it is warned, and UDP works as ever.
///
/// # Errors
/// A sentence about a port that was named.
pub(super) fn open(ip: IpAddr, wanted: TcpPort) -> Result<Option<TcpListener>, ExitError> {
    let address = |port| SocketAddr::new(ip, port);
    match wanted {
        TcpPort::None => Ok(None),
        TcpPort::Usual => Ok(usual(address(TCP_PORT))),
        TcpPort::Port(port) => listen(address(port)).map(Some).map_err(|error| {
            ExitError::usage(format!(
                "{}: cannot listen on this TCP address: {error}; choose another port with \
                 --tcp-port, or leave it out with --no-tcp",
                address(port)
            ))
        }),
    }
}

fn usual(address: SocketAddr) -> Option<TcpListener> {
    match listen(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(
                "{address}: cannot listen on this TCP address: {error}; clients without UDP will not \
                 reach this relay: name a free port with --tcp-port, allow the program this one, or \
                 say --no-tcp"
            );
            None
        }
    }
}

/// A listener of the address's family; an IPv6 wildcard takes IPv4 as well. A relay that has just ended
/// does not hold the port.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Elsewhere this would share the port with whoever has it.
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_port_that_was_named_is_had_or_said_to_be_taken() {
        let any = open(HOST, TcpPort::of(Some(0), false)).unwrap().unwrap();
        let port = any.local_addr().unwrap().port();
        let said = open(HOST, TcpPort::of(Some(port), false)).unwrap_err().to_string();
        assert!(said.contains("; choose another port with --tcp-port"), "{said}");
        drop(any);
        assert!(open(HOST, TcpPort::of(Some(port), false)).unwrap().is_some());
    }

    #[test]
    fn the_usual_port_is_gone_without_where_it_cannot_be_had_and_none_opens_none() {
        let taken = TcpListener::bind((HOST, 0)).unwrap();
        assert!(usual(taken.local_addr().unwrap()).is_none());
        assert_eq!(TcpPort::of(None, false), TcpPort::Usual);
        assert!(open(HOST, TcpPort::of(None, true)).unwrap().is_none());
    }
}
