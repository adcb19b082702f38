//! TCP and Unix sockets over the tunnel: what an agent and a connector do with each connection.
//!
//! It decides about sockets, time limits and rejections. It does not know how the tunnel is kept
//! up, and never looks at the bytes.

mod copy;
pub(crate) mod egress;
pub(crate) mod ingress;
#[cfg(target_os = "linux")]
mod kernel;
mod origin;
mod socket;

use std::time::Duration;

use adit_tokio::core::error::Failure;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a new connection waits for the tunnel, or for the service behind it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a host may be silent until it counts as vanished.
const VANISHED: Duration = Duration::from_secs(150);

/// How often a connection that was written to is checked for bytes that nobody acknowledges.
const ACKNOWLEDGEMENT_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Silence of the other end of a TCP connection after which it is probed, the interval of the
/// probes, and how many stay without an answer: an idle connection to a host that vanished ends
/// after [`VANISHED`].
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 6);

/// Sets the options of every forwarded TCP connection. A socket that fails here is closed already,
/// which the first read will show.
fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    // However the process or the task ends, a connection that did not end in order is reset: an
    // orderly end would make what was cut short look complete.
    let _ = tcp.set_zero_linger();
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(KEEPALIVE.2);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

/// Ends a TCP connection so that its other end sees an error instead of an orderly end.
fn refuse(tcp: TcpStream, why: &Failure) {
    tracing::debug!(%why, "refused a connection");
    let _ = tcp.set_zero_linger();
    drop(tcp);
}
