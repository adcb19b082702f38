//! Nodes as the program runs them: started on a socket, driven in the background, ended with the
//! value that owns them. It makes no decision about peers.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use adit_tokio::TokioIo;
use adit_tokio::core::config::{Builder, Config, Limits, Transport};
use adit_tokio::core::drive::Handle;
use adit_tokio::core::drive::io::Io as _;
use adit_tokio::core::fallback::ListenerLimits;
use adit_tokio::core::heartbeat;
use adit_tokio::core::node::Snapshot;
use adit_tokio::core::tls::Identity;

use super::port_mapping::{PortMappingState, PortMappingStatus};
use super::relay_transports::{RelayTransport, RelayTransports};
use crate::base::exit::{Exit, ExitError};
use crate::base::system::memory;
use crate::base::task::Background;
use crate::config::{ForwardLimits, HeartbeatSettings};

/// How long one attempt to reach the connector may take. A handshake is retransmitted after 1 s,
/// and then after twice the time each (RFC 9002 §6.2.2), so that a connector that has just started
/// is reached within 4 s or by the next attempt; in 30 s the intervals grow to 16 s.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The running event loop of a node.
pub(crate) type NodeDriver = Background<io::Result<()>>;

impl NodeDriver {
    /// Waits for the loop to end by itself, which it does after a shutdown or when its socket
    /// fails.
    pub(crate) async fn ended(&mut self) -> ExitError {
        let why = match self.join().await {
            Ok(Ok(())) => "the node has shut down".to_owned(),
            Ok(Err(error)) => format!("the UDP socket failed: {error}; start again"),
            Err(error) => format!("the event loop ended: {error}"),
        };
        ExitError::new(Exit::Degraded, why)
    }
}

/// A node that runs on its socket.
#[derive(Debug)]
pub(crate) struct RunningNode {
    pub(crate) handle: Handle,
    pub(crate) driver: NodeDriver,
    /// The address its socket is bound to.
    pub(crate) local: SocketAddr,
    /// The TCP fallback to its relays, if it may have relays.
    pub(crate) relay_transports: Option<RelayTransports>,
    /// What its gateway maps.
    pub(crate) port_mapping: PortMappingStatus,
}

impl RunningNode {
    fn new(
        handle: Handle,
        driver: impl Future<Output = io::Result<()>> + Send + 'static,
        local: SocketAddr,
        relay_transports: Option<RelayTransports>,
    ) -> Self {
        let (driver, port_mapping) = (Background::spawn(driver), PortMappingStatus::default());
        Self { handle, driver, local, relay_transports, port_mapping }
    }

    /// Returns what a status needs of this node.
    pub(crate) fn to_handle(&self) -> NodeHandle {
        let (handle, relay_transports) = (self.handle.clone(), self.relay_transports.clone());
        NodeHandle { handle, relay_transports, port_mapping: self.port_mapping.clone() }
    }

    /// Closes the node, and waits until its peers have been notified.
    pub(crate) async fn end(mut self) {
        self.handle.shutdown();
        self.driver.ended().await;
    }

    /// Closes the node in the background.
    pub(crate) fn retire(self) {
        tokio::spawn(self.end());
    }
}

/// A node at one instant, and how its relays are reached.
#[derive(Debug)]
pub(crate) struct NodeSnapshot {
    pub(crate) snapshot: Snapshot,
    /// Transport the UDP addresses of the relays.
    pub(crate) relay_transports: BTreeMap<SocketAddr, RelayTransport>,
    /// What its gateway maps.
    pub(crate) port_mapping: PortMappingState,
}

/// What a status needs of a running node.
#[derive(Debug, Clone)]
pub(crate) struct NodeHandle {
    pub(crate) handle: Handle,
    pub(crate) relay_transports: Option<RelayTransports>,
    pub(crate) port_mapping: PortMappingStatus,
}

impl NodeHandle {
    /// Returns the state of the node, its relays and its gateway at this instant.
    pub(crate) fn snapshot(&self) -> NodeSnapshot {
        let relay_transports =
            self.relay_transports.as_ref().map(RelayTransports::statuses).unwrap_or_default();
        NodeSnapshot {
            snapshot: self.handle.snapshot(),
            relay_transports,
            port_mapping: self.port_mapping.get(),
        }
    }
}

/// Binds a socket and starts a node on it.
///
/// # Errors
/// A sentence about the address.
pub(crate) fn start(address: SocketAddr, config: Config) -> Result<RunningNode, ExitError> {
    on(address, |io, local| {
        let (handle, driver) = adit_tokio::with_io(io, config)?;
        Ok(RunningNode::new(handle, driver, local, None))
    })
}

/// Starts the same for a node with relays, which are reached by TCP if UDP is blocked.
///
/// # Errors
/// A sentence about the address.
pub(crate) fn start_with_relays(
    address: SocketAddr,
    config: Config,
) -> Result<RunningNode, ExitError> {
    on(address, |io, local| {
        let clock = io.clock();
        let (handle, driver) = adit_tokio::with_io(io, config)?;
        let relay_transports = Some(RelayTransports::new(handle.tcp_fallback(), clock));
        Ok(RunningNode::new(handle, driver, local, relay_transports))
    })
}

/// Starts the same for a relay, which accepts clients at a TCP port as well, if it has one.
///
/// # Errors
/// A sentence about the address.
pub(crate) fn start_relay(
    address: SocketAddr,
    config: Config,
    tcp: Option<(TcpListener, Identity)>,
) -> Result<RunningNode, ExitError> {
    let Some((listener, identity)) = tcp else { return start(address, config) };
    on(address, |mut io, local| {
        io.listen_tcp(listener)?;
        let (handle, driver) = adit_tokio::with_io(io, config)?;
        let listening = handle.tcp_fallback().listen(&identity, ListenerLimits::default());
        listening.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(RunningNode::new(handle, driver, local, None))
    })
}

/// Binds a socket and makes a node on it.
fn on(
    address: SocketAddr,
    make: impl FnOnce(TokioIo, SocketAddr) -> io::Result<RunningNode>,
) -> Result<RunningNode, ExitError> {
    let bind = || {
        let io = TokioIo::bind(address)?;
        let local = io.local_addr()?;
        make(io, local)
    };
    bind().map_err(|error| {
        let sentence = format!(
            "{address}: cannot use this UDP address: {error}; choose another, or end what uses it"
        );
        ExitError::of_bind(&error, sentence)
    })
}

/// Returns any free port of the family of `remote`.
pub(crate) fn local_for(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns the transport's defaults with the configured congestion control, and with room for as
/// many streams as connections may be forwarded.
pub(crate) fn transport(limits: ForwardLimits) -> Transport {
    let max_streams = u32::try_from(limits.connections).unwrap_or(u32::MAX).clamp(2, 1 << 20);
    Transport::default().max_streams(max_streams).congestion(limits.congestion.into())
}

/// The least memory that requests may use by default: the largest body, and room for others.
const LEAST_MEMORY: u64 = 16 << 20;

/// The part of the memory that the requests of peers may use by default.
const PART_OF_MEMORY: u64 = 16;

/// Returns the core's limits with the memory that is configured, or a part of what there is.
pub(crate) fn limits(limits: ForwardLimits) -> Limits {
    let core = Limits::default();
    let most = core.request_bytes_in_all;
    let memory = match limits.memory {
        Some(mebibytes) => u64::from(mebibytes.get()) << 20,
        None => memory().map_or(most as u64, |all| (all / PART_OF_MEMORY).max(LEAST_MEMORY)),
    };
    core.request_bytes_in_all(usize::try_from(memory).unwrap_or(usize::MAX))
}

/// Finishes a node's configuration.
///
/// # Errors
/// Which setting cannot work.
pub(crate) fn build(builder: Builder, beat: HeartbeatSettings) -> Result<Config, ExitError> {
    let wrong = |error: &dyn std::fmt::Display| {
        ExitError::in_file(format!("{error}; correct it or leave it out"))
    };
    let heartbeat = heartbeat::HeartbeatConfig::builder()
        .interval(beat.interval)
        .ack_within(beat.ack_within)
        .dead_after(beat.dead_after)
        .build()
        .map_err(|error| wrong(&error))?;
    builder.heartbeat(heartbeat).build().map_err(|error| wrong(&error))
}
