//! TCP and Unix sockets over the tunnel: what an agent and a connector do with each connection.
//!
//! It decides about sockets, time limits and refusals. It knows nothing of how the tunnel is kept
//! up, and it never looks at the bytes.

mod copy;
pub(crate) mod egress;
pub(crate) mod ingress;
mod socket;

use std::time::Duration;

use adit_tokio::core::error::Failure;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a new connection waits for the tunnel, or for the service behind it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other end of a TCP connection may be silent before it is asked whether it is
/// still there, and how often it is asked. A host that vanished holds a connection for about two
/// minutes and a half, whatever the connection waits for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// What every forwarded TCP connection is set to. A socket that refuses has died already, which
/// the first read will show.
fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

/// Ends a TCP connection so that its other end sees an error instead of an orderly end.
fn refuse(tcp: TcpStream, why: &Failure) {
    tracing::debug!(%why, "refused a connection");
    let _ = tcp.set_zero_linger();
    drop(tcp);
}
