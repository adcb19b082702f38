//! The parts of the second act: a relay, and two peers that reach it and each other over paths of
//! known latency. It starts them with the default times; it verifies no result.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Handle, Peer};
use adit_tokio::core::event::Event;
use adit_tokio::core::path::{PathClass, PathsView};
use adit_tokio::core::relay;
use adit_tokio::core::relay::Register;
use adit_tokio::core::tls::{KeyDigest, Tls, Trust};
use anyhow::Context as _;

use super::path::SimulatedPath;
use super::service::DemoService;
use super::world::{self, AGENT, CONNECTOR, LocalPort};
use crate::address::RELAY_NAME;
use crate::base::task::Background;
use crate::identity::throwaway::ThrowawayAuthority;
use crate::net::node::{self, NodeDriver, RunningNode};

/// One-way delay between either peer and the relay: 80 ms there and back through it.
const TO_RELAY: Duration = Duration::from_millis(20);

/// One-way delay between the two peers: 20 ms there and back.
const DIRECTLY: Duration = Duration::from_millis(10);

/// The running relay and peers, and the paths between them.
#[derive(Debug)]
pub(super) struct RelayedPair {
    /// The agent's.
    pub(super) port: LocalPort,
    pub(super) events: Events,
    pub(super) peer: Peer,
    connector: Handle,
    direct: SimulatedPath,
    _to_relay: [SimulatedPath; 2],
    _drivers: [NodeDriver; 3],
    _serving: Background<()>,
}

impl RelayedPair {
    /// Starts all; the peers discover each other by themselves. Without `is_direct_open` the relay
    /// is the only path between them.
    pub(super) async fn start(
        authority: &ThrowawayAuthority,
        service: &DemoService,
        is_direct_open: bool,
    ) -> anyhow::Result<Self> {
        let own = authority.device(RELAY_NAME)?;
        let key = own.identity().chain().first().and_then(KeyDigest::of_certificate);
        let trust = Trust::pinned_leaf(key.context("the relay's certificate cannot be read")?);
        let own = Tls::new(own.identity().clone(), Trust::anyone());
        let builder = Config::builder(own).device_id("relay").relay(relay::RelayConfig::default());
        let at_relay = node::start(loopback(), builder.build()?)?;

        let (agent, connector) = (authority.device(AGENT)?, authority.device(CONNECTOR)?);
        let attach = async |tls: &Tls, node: &RunningNode| {
            let path = SimulatedPath::between(Some(node.local), at_relay.local, TO_RELAY).await?;
            let shown = tls.identity().clone().presenting(authority.pem().as_bytes())?;
            let tls = Tls::new(shown, trust.clone());
            node.handle.dial(Dial::relay(path.near(), RELAY_NAME, tls))?;
            anyhow::Ok(path)
        };
        let accepting = Config::builder(connector.clone()).device_id("demo").listening(true);
        let at_connector = node::start(loopback(), accepting.build()?)?;
        let at_agent =
            node::start(loopback(), Config::builder(agent.clone()).device_id("demo").build()?)?;
        let direct =
            SimulatedPath::between(Some(at_agent.local), at_connector.local, DIRECTLY).await?;
        direct.block(!is_direct_open);
        // Each is advertised where the other reaches it, and at no other address.
        at_agent.handle.set_local_addresses(vec![direct.far()]);
        at_connector.handle.set_local_addresses(vec![direct.near()]);

        at_connector.handle.register(Some(Register {
            name: CONNECTOR.to_owned(),
            services: vec![world::web()],
            guests: Vec::new(),
            revoked: Vec::new(),
            takeover: true,
        }));
        let to_relay = [attach(&connector, &at_connector).await?, attach(&agent, &at_agent).await?];
        let serving = world::offer(at_connector.handle.clone(), service);
        let events = at_agent.handle.events();
        let peer = at_agent.handle.dial(Dial::service(world::web(), CONNECTOR))?;
        let port = LocalPort::open(&peer)?;
        Ok(Self {
            port,
            events,
            peer,
            connector: at_connector.handle,
            direct,
            _to_relay: to_relay,
            _drivers: [at_relay.driver, at_connector.driver, at_agent.driver],
            _serving: serving,
        })
    }

    /// Drops everything on the direct path, without a notification, or restores it.
    pub(super) fn cut(&self, is_cut: bool) {
        self.direct.block(is_cut);
    }

    /// The agent's path to the connector.
    pub(super) fn path(&self) -> Option<PathsView> {
        self.peer.snapshot().and_then(|peer| peer.path)
    }

    /// Whether both send to each other by a path of this class.
    pub(super) fn both_go(&self, class: PathClass) -> bool {
        let is_it = |view: &PathsView| view.class == Some(class);
        let of_connector = self.connector.snapshot().peers.into_iter().filter_map(|p| p.path);
        let mut of_connector = of_connector.peekable();
        of_connector.peek().is_some()
            && of_connector.all(|view| is_it(&view))
            && self.path().is_some_and(|view| is_it(&view))
    }

    /// Returns the name of the peer of an event: the agent has the relay as a peer as well.
    pub(super) fn who(&self, event: &Event) -> &'static str {
        let is_of_relay =
            matches!(event, Event::Transition { peer, .. } if *peer != self.peer.id());
        if is_of_relay { "relay" } else { "peer" }
    }

    /// Returns the number of reconnections between the two.
    pub(super) fn reconnections(&self) -> u64 {
        self.peer.snapshot().map_or(0, |peer| peer.reconnections)
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
