//! The status of a running role, and the requests to it. The role fills it in, and decides what a
//! reload does.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Instant, SystemTime};

use adit_tokio::core::node::Snapshot;
use adit_tokio::core::path::Mapping;
use serde::Serialize;
use serde_json::{Map, Value};

use super::schema::{
    DialTarget, ExposedService, LocalForward, PeerStatus, ProcessStatus, RelayStatus,
};
use crate::base::exit::ExitError;
use crate::base::units::as_ms;
use crate::control::Controlled;
use crate::net::node::NodeSnapshot;
use crate::net::port_mapping::PortMappingState;

type See = Box<dyn Fn() -> Option<NodeSnapshot> + Send + Sync>;
type TitleOf = Box<dyn Fn(&PeerStatus) -> Option<String> + Send + Sync>;
type Reloaded = Pin<Box<dyn Future<Output = Result<Map<String, Value>, ExitError>> + Send>>;
type Reload = Box<dyn Fn() -> Reloaded + Send + Sync>;

/// A running role.
pub(crate) struct Process {
    role: &'static str,
    started: Instant,
    started_at: SystemTime,
    services: Vec<ExposedService>,
    forwards: Vec<LocalForward>,
    dials: Vec<DialTarget>,
    relays: Vec<String>,
    see: See,
    title_of: TitleOf,
    reload: Option<Reload>,
}

impl Process {
    /// Returns a role that starts now, without peers and without a reload. Its name is part of a
    /// file name.
    pub(crate) fn new(role: &'static str) -> Self {
        Self {
            role,
            started: Instant::now(),
            started_at: SystemTime::now(),
            services: Vec::new(),
            forwards: Vec::new(),
            dials: Vec::new(),
            relays: Vec::new(),
            see: Box::new(|| None),
            title_of: Box::new(|_| None),
            reload: None,
        }
    }

    /// Adds an exposed service, with its address from here.
    pub(crate) fn exposing(mut self, name: impl fmt::Display, address: impl fmt::Display) -> Self {
        self.services.push(ExposedService { name: name.to_string(), address: address.to_string() });
        self
    }

    /// Adds a local address that leads to a service.
    pub(crate) fn forwarding(mut self, listen: SocketAddr, service: impl fmt::Display) -> Self {
        self.forwards.push(LocalForward { listen, service: service.to_string() });
        self
    }

    /// It wants to be connected to this peer: while it has no peer at all, it is degraded.
    pub(crate) fn dialling(
        mut self,
        name: impl fmt::Display,
        title: Option<String>,
        address: impl fmt::Display,
    ) -> Self {
        let (name, address) = (name.to_string(), address.to_string());
        self.dials.push(DialTarget { name, title, address });
        self
    }

    /// How people call its peers, where that is not by a name in a certificate.
    pub(crate) fn with_titles(
        mut self,
        title_of: impl Fn(&PeerStatus) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.title_of = Box::new(title_of);
        self
    }

    /// Adds a relay at which it can be found.
    pub(crate) fn relayed_by(mut self, relay: impl fmt::Display) -> Self {
        self.relays.push(relay.to_string());
        self
    }

    /// Sets the source of snapshots of its node, if it has one at the time.
    pub(crate) fn with_snapshots(
        mut self,
        see: impl Fn() -> Option<NodeSnapshot> + Send + Sync + 'static,
    ) -> Self {
        self.see = Box::new(see);
        self
    }

    /// Sets what a reload does. It returns what the client is shown, such as `{"closed":1}`. It
    /// runs to its end even if the client leaves, and never twice concurrently.
    pub(crate) fn on_reload<F>(mut self, reload: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Map<String, Value>, ExitError>> + Send + 'static,
    {
        self.reload = Some(Box::new(move || Box::pin(reload())));
        self
    }
}

impl Controlled for Process {
    fn role(&self) -> &'static str {
        self.role
    }

    fn status(&self) -> impl Serialize {
        let since_epoch = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        let (mapping, port_mapping, relay, peers) = match (self.see)() {
            Some(NodeSnapshot { snapshot, relay_transports, port_mapping }) => {
                let Snapshot { mapping, relay, peers, .. } = snapshot;
                let peers = peers.into_iter().map(|peer| {
                    let peer = PeerStatus::new(peer, &relay_transports);
                    PeerStatus { title: (self.title_of)(&peer), ..peer }
                });
                (mapping, port_mapping, relay.map(RelayStatus::from), peers.collect())
            }
            None => (Mapping::default(), PortMappingState::default(), None, Vec::new()),
        };
        ProcessStatus {
            role: self.role.into(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at_ms: as_ms(since_epoch.unwrap_or_default()),
            uptime_ms: as_ms(self.started.elapsed()),
            services: self.services.clone(),
            forwards: self.forwards.clone(),
            dials: self.dials.clone(),
            relays: self.relays.clone(),
            mapping: mapping.as_str().into(),
            port_mapping: Some(port_mapping.into()),
            relay,
            peers,
        }
    }

    async fn reload(&self) -> Result<Map<String, Value>, ExitError> {
        match &self.reload {
            Some(reload) => reload().await,
            None => Err(ExitError::usage(format!(
                "this {} has nothing to reload; end it and start it again",
                self.role
            ))),
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("role", &self.role).finish_non_exhaustive()
    }
}
