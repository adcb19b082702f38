//! The relay's TCP port, for clients on networks that block UDP. It decides whether a port that
//! cannot be bound ends the relay; the TCP fallback handles the connections.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::address::TCP_PORT;
use crate::base::exit::ExitError;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// The requested port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpPort {
    /// The default, if it can be bound.
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

/// Listens at the requested port. If the default port is unavailable, it logs a warning, and UDP
/// works as before.
///
/// # Errors
/// A sentence about a port that was named.
pub(super) fn open(ip: IpAddr, wanted: TcpPort) -> Result<Option<TcpListener>, ExitError> {
    let address = |port| SocketAddr::new(ip, port);
    match wanted {
        TcpPort::None => Ok(None),
        TcpPort::Usual => Ok(usual(address(TCP_PORT))),
        TcpPort::Port(port) => listen(address(port)).map(Some).map_err(|error| {
            let sentence = format!(
                "{}: cannot listen on this TCP address: {error}; choose another port with \
                 --tcp-port, or use none with --no-tcp",
                address(port)
            );
            ExitError::of_bind(&error, sentence)
        }),
    }
}

fn usual(address: SocketAddr) -> Option<TcpListener> {
    match listen(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(
                "{address}: cannot listen on this TCP address: {error}; clients without UDP cannot use \
                 this relay: choose a free port with --tcp-port, give the program permission for \
                 this one, or use --no-tcp"
            );
            None
        }
    }
}

/// Returns a listener of the address's family; an IPv6 wildcard accepts IPv4 as well. A relay that
/// has just ended does not block the port.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // On other systems this would share the port with another process.
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
    fn a_named_port_is_bound_or_reported_as_taken() {
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
