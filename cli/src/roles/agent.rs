//! The agent: local ports that lead to the services of a connector, until a signal. A plan names
//! them, from a file or from a saved service of `adit connect`.
//!
//! It never exits because the network is down, unless a limit was set for that. It exits if a
//! certificate is rejected: retrying cannot help then.

use std::time::Duration;

use adit_tokio::core::ServiceName;
use adit_tokio::core::lifecycle::StateView;
use adit_tokio::core::path;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::dialler::core;
use super::shutdown::shut_down;
use crate::base::exit::ExitError;
use crate::base::signals;
use crate::base::task::Background;
use crate::config::{ForwardLimits, HeartbeatSettings, RemoteConnector};
use crate::control;
use crate::enrol::renewal;
use crate::forward::ingress::tcp::{ConnectionLimiter, serve};
use crate::homedir::Home;
use crate::identity::source::CredentialSource;
use crate::net::dialer::Dialer;
use crate::net::link::ConnectorLink;
use crate::net::names::NameResolver;
use crate::net::node::NodeHandle;
use crate::observe::process::Process;

/// The plan of an agent.
#[derive(Debug)]
pub(crate) struct AgentPlan {
    /// Its name in `adit status`.
    pub(crate) role: &'static str,
    pub(crate) remote: RemoteConnector,
    pub(crate) source: CredentialSource,
    pub(crate) paths: path::PathConfig,
    /// Local ports, open already, and where they lead.
    pub(crate) ports: Vec<(TcpListener, ServiceName)>,
    pub(crate) limits: ForwardLimits,
    pub(crate) heartbeat: HeartbeatSettings,
    pub(crate) give_up_after: Option<Duration>,
    /// True if a gateway is asked to map the socket.
    pub(crate) port_mapping: bool,
    /// What can be checked if there is no connection after [`HINT_AFTER`].
    pub(crate) hint: Option<String>,
}

/// How long a first connection may take until the log has a hint.
pub(crate) const HINT_AFTER: Duration = Duration::from_secs(5);

/// Runs until a signal, or until retrying cannot help.
///
/// # Errors
/// Why it ended before a signal.
pub(crate) async fn work(
    plan: AgentPlan,
    home: Result<&Home, &ExitError>,
) -> Result<(), ExitError> {
    let membership = match &plan.source {
        CredentialSource::Member(membership) => Some(membership.clone()),
        CredentialSource::Files(_) | CredentialSource::Mesh(_) => None,
    };
    let limits = plan.limits.within_descriptors();
    let (dialer, watcher) = core(plan.source, plan.paths, limits, plan.heartbeat)?;
    let dialer = Dialer { port_mapping: plan.port_mapping, ..dialer };
    let ended = signals::asked_to_end()?;
    let mut process = Process::new(plan.role);
    for address in &plan.remote.addresses {
        process = process.dialling(&plan.remote.name, plan.remote.title.clone(), address);
    }
    for relay in &plan.remote.relays {
        let address = format_args!("the relay {}", relay.at);
        process = process.dialling(&plan.remote.name, plan.remote.title.clone(), address);
    }
    let title = plan.remote.title.clone();
    process = process.with_titles(move |peer| title.clone().filter(|_| !peer.is_relay));
    let ours = plan.ports.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect();
    let names =
        home.iter().fold(NameResolver::new().without(ours), |names, home| names.at_home(home));
    let (mut link, tunnel) =
        ConnectorLink::new((plan.remote, names), (dialer, watcher), plan.give_up_after)?;
    let limiter = ConnectionLimiter::new(limits);
    let mut ports = JoinSet::new();
    for (listener, service) in plan.ports {
        if let Ok(local) = listener.local_addr() {
            process = process.forwarding(local, &service);
            if !local.ip().is_loopback() {
                tracing::warn!(
                    "{local} gives \"{service}\" to every machine that reaches this port, without \
                     a certificate; for this machine alone listen on 127.0.0.1:{}",
                    local.port()
                );
            }
        }
        ports.spawn(serve(listener, service, tunnel.clone(), limiter.clone()));
    }
    let _hint = plan.hint.map(|hint| Background::spawn(log_hint(link.node_handle(), hint)));
    let node_handle = link.node_handle();
    let process =
        process.with_snapshots(move || node_handle.borrow().as_ref().map(NodeHandle::snapshot));
    let _control = control::open(home, process).await;
    let _renewal = Background::spawn(renewal::keep_current(membership, tunnel));
    let stop = tokio::select! {
        stop = link.keep_up() => Some(stop),
        () = ended => None,
    };
    match (stop, link.end()) {
        (Some(stop), _) => Err(stop),
        (None, Some((node, relays))) => shut_down(&node.handle, relays.as_ref()).await,
        (None, None) => Ok(()),
    }
}

/// Logs a hint if there is no connection after [`HINT_AFTER`].
async fn log_hint(node: watch::Receiver<Option<NodeHandle>>, hint: String) {
    tokio::time::sleep(HINT_AFTER).await;
    let is_connected = |node: &NodeHandle| {
        let peers = node.handle.snapshot().peers;
        peers.iter().any(|peer| !peer.is_relay && matches!(peer.state, StateView::Connected { .. }))
    };
    if !node.borrow().as_ref().is_some_and(is_connected) {
        tracing::info!("{hint}");
    }
}
