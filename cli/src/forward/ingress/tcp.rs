//! The agent's side: each connection to a local port becomes a stream to a service.
//!
//! While the tunnel is down new connections wait for it, for as long as a connect may take, and are
//! refused after that. A rejection by the connector is a reset for the local client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::ServiceName;
use adit_tokio::core::drive::{Peer, Stream, StreamError};
use adit_tokio::core::error::{Category, Code, Failure};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::base::exit::ExitError;
use crate::base::tally::Tally;
use crate::config::ForwardLimits;
use crate::forward::copy::{self, Broken};
use crate::forward::{CONNECT_TIMEOUT, origin, prepare, refuse};
use crate::net::link::Tunnel;

/// Pause after the system could not accept another connection: the next try would fail as well.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Length of the queue of incoming connections, as far as the system allows. With the usual 128 a
/// burst overflows it, and each client that meets the overflow waits a second before its next try.
const BACKLOG: u32 = 4_096;

/// Pause before a stream is requested again on a tunnel that just broke.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Connections that were refused or not accepted, by service and cause.
static REFUSED: Tally = Tally::new(1);

/// What all forwards of an agent share.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    half_open: Duration,
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: ForwardLimits) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            half_open: limits.half_open,
        }
    }
}

/// Opens a local port.
///
/// # Errors
/// The error of the system about the address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of an earlier run in TIME_WAIT do not block the port, except on Windows, where
    // the option has another meaning.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Opens a local port.
///
/// # Errors
/// A sentence about the address that ends with `next`.
pub(crate) fn open(address: SocketAddr, next: &str) -> Result<TcpListener, ExitError> {
    listen(address).map_err(|error| {
        let sentence = format!("{address}: cannot listen on this TCP address: {error}; {next}");
        ExitError::of_bind(&error, sentence)
    })
}

/// Accepts connections for a service until the tunnel's sender is dropped, and then lets the open
/// ones finish. Dropping it ends every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    service: ServiceName,
    tunnel: Tunnel,
    limiter: ConnectionLimiter,
) {
    let mut flows = JoinSet::new();
    let mut watched = tunnel.clone();
    loop {
        let accepted = async {
            let slot = limiter.slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            (slot, accepted) = accepted => match accepted {
                Ok((tcp, _)) => {
                    let flow = forward(tcp, service.clone(), tunnel.clone(), limiter.half_open);
                    flows.spawn(async move {
                        flow.await;
                        drop(slot);
                    });
                }
                Err(error) => on_accept_error(&error).await,
            },
            Some(_) = flows.join_next() => {}
            result = watched.changed() => if result.is_err() {
                break;
            },
        }
    }
    drop(listener);
    while flows.join_next().await.is_some() {}
}

/// Ignores a connection that its client aborted. Any other error means that the system lacks a
/// resource, which the next call would lack as well.
async fn on_accept_error(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        if let Some(more) = REFUSED.due("", "accept") {
            tracing::warn!(
                "cannot accept a connection: {error}; check the limit on open files{more}"
            );
        }
        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
    }
}

async fn forward(tcp: TcpStream, service: ServiceName, mut tunnel: Tunnel, half_open: Duration) {
    prepare(&tcp);
    let origin = origin::of_accepted(&tcp);
    let stream = match open_stream(&mut tunnel, &service, origin.as_deref()).await {
        Ok(stream) => stream,
        Err(failure) => return refuse(tcp, &failure),
    };
    let (send, recv) = stream.split();
    let (totals, result) = copy::both_ways(tcp, send, recv, half_open).await;
    match result {
        Ok(()) => tracing::debug!(%service, ?totals, "a connection ended"),
        Err(Broken::Tunnel(StreamError::Refused(failure))) => {
            if let Some(more) = REFUSED.due(service.as_str(), failure.code().as_str()) {
                tracing::info!(
                    "the connector refused a connection to \"{service}\": {failure}{more}"
                );
            }
        }
        Err(error) => tracing::debug!(%service, ?totals, %error, "a connection broke"),
    }
}

async fn open_stream(
    tunnel: &mut Tunnel,
    service: &ServiceName,
    origin: Option<&str>,
) -> Result<Stream, Failure> {
    tunnel.dial_now();
    let opened = async {
        loop {
            let peer = tunnel.peer();
            let result = match peer {
                Some(peer) => tokio::select! {
                    result = open_on(&peer, service, origin) => result,
                    Ok(()) = tunnel.changed() => continue,
                },
                None => match tunnel.changed().await {
                    Ok(()) => continue,
                    Err(_) => Err(Failure::new(Code::ShuttingDown, "the agent is ending")),
                },
            };
            match result {
                Err(failure) if is_final(&failure) => return Err(failure),
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
                Ok(stream) => return Ok(stream),
            }
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, opened).await.unwrap_or_else(|_| {
        Err(Failure::new(Code::TimedOut, format!("no tunnel within {CONNECT_TIMEOUT:?}")))
    })
}

/// Returns true if waiting for the tunnel cannot help.
const fn is_final(failure: &Failure) -> bool {
    match failure.category() {
        Category::Authentication | Category::Configuration => true,
        Category::Network | Category::Server | Category::Protocol | Category::Unknown => false,
    }
}

async fn open_on(
    peer: &Peer,
    service: &ServiceName,
    origin: Option<&str>,
) -> Result<Stream, Failure> {
    peer.connected().await?;
    peer.open_from(service.clone(), origin.map(str::to_owned)).await
}
