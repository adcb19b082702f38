//! The parts of the demonstration: the private service, the connector in front of it, the agents,
//! and the identities of all. It starts, kills and restarts; it verifies no result.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::ServiceName;
use adit_tokio::core::backoff;
use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Handle, IncomingRequest, Peer};
use adit_tokio::core::heartbeat;
use adit_tokio::core::retry;
use adit_tokio::core::tls::Tls;
use bytes::Bytes;
use tokio::sync::watch;

use super::service::DemoService;
use crate::address::Backend;
use crate::base::task::Background;
use crate::config::{self, ForwardLimits};
use crate::forward;
use crate::identity::throwaway::ThrowawayAuthority;
use crate::net::link::Tunnel;
use crate::net::node::{self, NodeDriver, RunningNode};

/// The times that are shorter than the defaults.
pub(super) const SHORTENED_TIMES: &str = "a heartbeat every 250 ms instead of 30 s, a peer silent for 1 s \
is taken for dead instead of 45 s, retries start at 100 ms instead of 1 s";

/// The name in the connector's certificate.
pub(super) const CONNECTOR: &str = "connector.demo";

/// The name in the agents' certificates, which is in the connector's allow list.
pub(super) const AGENT: &str = "agent.demo";

/// Number of chunks in the response to a request for a stream.
pub(super) const CHUNKS: u64 = 64;

/// The request for a streamed response; any other is echoed.
pub(super) const STREAM: &[u8] = b"stream";

/// Bytes in a chunk of a streamed response.
const CHUNK: usize = 16 * 1024;

/// The running demonstration.
#[derive(Debug)]
pub(super) struct DemoWorld {
    pub(super) authority: ThrowawayAuthority,
    /// The connector's certificate and key, which outlive its process.
    identity: Tls,
    pub(super) service: DemoService,
    pub(super) connector: DemoConnector,
    pub(super) agent: DemoAgent,
}

impl DemoWorld {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let authority = ThrowawayAuthority::new()?;
        let service = DemoService::start().await?;
        // Any port that is free now; the connector is the next to take one.
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let identity = authority.device(CONNECTOR)?;
        let connector = DemoConnector::start(address, identity.clone(), &service)?;
        let agent = DemoAgent::start(authority.device(AGENT)?, connector.address)?;
        Ok(Self { authority, identity, service, connector, agent })
    }

    /// Returns another agent, which reaches the connector through `address`.
    pub(super) fn another_agent(&self, address: SocketAddr) -> anyhow::Result<DemoAgent> {
        DemoAgent::start(self.authority.device(AGENT)?, address)
    }

    /// Ends the connector as a crash would, without a notification.
    pub(super) async fn kill_connector(&mut self) {
        self.connector.kill().await;
    }

    /// Restarts the connector on its previous address.
    pub(super) fn restart_connector(&mut self) -> anyhow::Result<()> {
        let identity = self.identity.clone();
        self.connector = DemoConnector::start(self.connector.address, identity, &self.service)?;
        Ok(())
    }

    /// Returns the URL of the private service for a browser.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.agent.local())
    }
}

/// The running connector.
#[derive(Debug)]
pub(super) struct DemoConnector {
    pub(super) address: SocketAddr,
    running: Option<(NodeDriver, Background<()>)>,
}

impl DemoConnector {
    fn start(address: SocketAddr, tls: Tls, service: &DemoService) -> anyhow::Result<Self> {
        let RunningNode { handle, driver, .. } = node::start(address, hurried(tls, true)?)?;
        Ok(Self { address, running: Some((driver, offer(handle, service))) })
    }

    async fn kill(&mut self) {
        if let Some((driver, serving)) = self.running.take() {
            driver.abort().await;
            serving.abort().await;
        }
    }
}

/// A running agent with one local port.
#[derive(Debug)]
pub(super) struct DemoAgent {
    port: LocalPort,
    pub(super) handle: Handle,
    pub(super) peer: Peer,
    pub(super) events: Events,
    _driver: NodeDriver,
}

impl DemoAgent {
    fn start(tls: Tls, connector: SocketAddr) -> anyhow::Result<Self> {
        let from = node::local_for(connector);
        let RunningNode { handle, driver, .. } = node::start(from, hurried(tls, false)?)?;
        let events = handle.events();
        let peer = handle.dial(Dial::new(connector, CONNECTOR))?;
        let port = LocalPort::open(&peer)?;
        Ok(Self { port, handle, peer, events, _driver: driver })
    }

    /// Returns the local port's address.
    pub(super) const fn local(&self) -> SocketAddr {
        self.port.local
    }
}

/// A local port that leads to the service of a peer.
#[derive(Debug)]
pub(super) struct LocalPort {
    pub(super) local: SocketAddr,
    _forwarding: Background<()>,
    _tunnel: watch::Sender<Option<Peer>>,
}

impl LocalPort {
    pub(super) fn open(peer: &Peer) -> anyhow::Result<Self> {
        let (current, tunnel) = Tunnel::to(peer.clone());
        let listener = forward::ingress::tcp::listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let local = listener.local_addr()?;
        let limiter = forward::ingress::tcp::ConnectionLimiter::new(ForwardLimits::default());
        let forwarding =
            Background::spawn(forward::ingress::tcp::serve(listener, web(), tunnel, limiter));
        Ok(Self { local, _forwarding: forwarding, _tunnel: current })
    }
}

/// Offers the private service to agents.
pub(super) fn offer(handle: Handle, service: &DemoService) -> Background<()> {
    let web = config::ServiceConfig {
        name: web(),
        backend: Backend::Tcp(service.address().into()),
        allow: Some([AGENT.to_owned()].into()),
    };
    let services = Arc::new(forward::egress::Services::new(vec![web], ForwardLimits::default()));
    Background::spawn(serve(handle, services))
}

pub(super) fn web() -> ServiceName {
    "web".parse().expect("the name is a valid one")
}

fn hurried(tls: Tls, listening: bool) -> anyhow::Result<Config> {
    let heartbeat = heartbeat::HeartbeatConfig::builder()
        .interval(Duration::from_millis(250))
        .ack_within(Duration::from_millis(250))
        .dead_after(Duration::from_secs(1))
        .build()?;
    let backoff = backoff::BackoffConfig::builder()
        .initial(Duration::from_millis(100))
        .max(Duration::from_millis(500))
        .build()?;
    let retry = retry::Policy::builder().backoff(backoff).build()?;
    let transport =
        adit_tokio::core::config::Transport::default().connect_timeout(Duration::from_secs(1));
    Ok(Config::builder(tls)
        .device_id("demo")
        .listening(listening)
        .transport(transport)
        .heartbeat(heartbeat)
        .retry(retry)
        .build()?)
}

async fn serve(handle: Handle, services: Arc<forward::egress::Services>) {
    forward::egress::serve_each(handle, |peer| serve_peer(peer, services.clone())).await;
}

async fn serve_peer(peer: Peer, services: Arc<forward::egress::Services>) {
    let requests = async {
        while let Some(request) = peer.accept_request().await {
            answer(request).await;
        }
    };
    tokio::join!(forward::egress::serve_streams(&peer, services), requests);
}

async fn answer(request: IncomingRequest) {
    if request.body().as_ref() != STREAM {
        let echo = request.body().clone();
        // A requester that has given up meanwhile needs no response.
        let _ = request.respond(echo);
        return;
    }
    let mut responder = request.stream();
    for index in 0..CHUNKS {
        if let Err(failure) = responder.send(chunk(index)).await {
            tracing::debug!(%failure, "a requester went away");
            return;
        }
    }
    if let Err(failure) = responder.finish().await {
        tracing::debug!(%failure, "a requester went away");
    }
}

/// Returns a chunk of the streamed response, the same on every run.
pub(super) fn chunk(index: u64) -> Bytes {
    let mut chunk = vec![0; CHUNK];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&index.to_be_bytes());
    hasher.finalize_xof().fill(&mut chunk);
    chunk.into()
}
