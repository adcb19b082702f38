//! The agent: local ports that lead to the services of a connector, until asked to end. Which ones is
//! a plan, from a file here or from what `adit connect` knows.
//!
//! It never exits because the network is away, unless it was told how long to bear that. It does
//! when a certificate is refused: retrying cannot help then.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::config::{Config, Transport};
use adit_tokio::core::message::ServiceName;
use adit_tokio::core::path;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::args::AgentArgs;
use crate::carriers::Sight;
use crate::config::{self, Heartbeat, Limits, Remote, Target};
use crate::connector::shut_down;
use crate::control::{self, Process};
use crate::forward::agent::{Gate, listen, serve};
use crate::homedir::Home;
use crate::identity::{Follower, Source, Who};
use crate::known::Known;
use crate::link::Link;
use crate::names::Names;
use crate::node::Background;
use crate::race::Caller;
use crate::stop::Stop;
use crate::{node, renewal, signals};

/// How long one attempt to reach the connector may take. A handshake is sent again after 1 s, and
/// then at twice the distance each time (RFC 9002 §6.2.2), so that a connector that has just
/// started is met within 4 s or by the next attempt; in 30 s the distances reach 16 s.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(10);

/// What an agent is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What `adit status` calls it.
    pub(crate) role: &'static str,
    pub(crate) remote: Remote,
    pub(crate) source: Source,
    pub(crate) paths: path::PathConfig,
    /// Local ports, open already, and where they lead.
    pub(crate) ports: Vec<(TcpListener, ServiceName)>,
    pub(crate) limits: Limits,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) give_up_after: Option<Duration>,
    /// Whether a gateway is asked to map the socket.
    pub(crate) port_mapping: bool,
}

/// Runs what a file says until a signal, or until retrying cannot help.
///
/// # Errors
/// What is wrong with the configuration, the certificates or, when a limit was given, the network.
pub(crate) async fn run(arguments: &AgentArgs, home: Result<Home, Stop>) -> Result<(), Stop> {
    let config = config::Agent::load(&arguments.config)?;
    let (remote, source) = target(&config, home.as_ref())?;
    let mut ports = Vec::new();
    for forward in config.forwards {
        let listener = open(forward.listen, "choose another in [[forward]]")?;
        tracing::info!(listen = %forward.listen, service = %forward.service, "forwarding");
        ports.push((listener, forward.service));
    }
    let plan = Plan {
        role: "agent",
        remote,
        source,
        ports,
        port_mapping: config.port_mapping && config.paths.direct && !arguments.no_port_mapping,
        paths: config.paths,
        limits: config.limits,
        heartbeat: config.heartbeat,
        give_up_after: arguments.give_up_after,
    };
    work(plan, home.as_ref()).await.map_err(|stop| stop.within(&arguments.config))
}

/// The connector that a file means, and who this machine is to it.
///
/// # Errors
/// When nothing is known of it.
pub(crate) fn target(
    config: &config::Agent,
    home: Result<&Home, &Stop>,
) -> Result<(Remote, Source), Stop> {
    let (remote, source) = match &config.target {
        Target::Given(remote, files) => (remote.clone(), Source::Files(files.clone())),
        Target::Known(name) => {
            let home = home.map_err(Stop::clone)?;
            let known = Known::load(home, name)?;
            (known.remote()?, Source::Member(known.membership(home)))
        }
    };
    let service = config.forwards.first().map(|forward| &forward.service);
    Ok((remote.by(&config.relays, service), source))
}

/// What the core is told of a plan's connection.
///
/// # Errors
/// What of it cannot work.
pub(crate) fn core(
    source: Source,
    paths: path::PathConfig,
    limits: Limits,
    heartbeat: Heartbeat,
) -> Result<(Caller, Follower), Stop> {
    let (follower, Who { tls, shown }) = Follower::start(source)?;
    let transport = Transport { connect_timeout: ATTEMPT, ..node::transport(limits) };
    let builder = Config::builder(tls).device_id("agent").transport(transport).path(paths);
    Ok((Caller { core: node::build(builder, heartbeat)?, shown, maps: false }, follower))
}

/// Works until a signal, or until retrying cannot help.
///
/// # Errors
/// Why it ended before it was asked to.
pub(crate) async fn work(plan: Plan, home: Result<&Home, &Stop>) -> Result<(), Stop> {
    let membership = match &plan.source {
        Source::Member(membership) => Some(membership.clone()),
        Source::Files(_) | Source::Mesh(_) => None,
    };
    let (caller, follower) = core(plan.source, plan.paths, plan.limits, plan.heartbeat)?;
    let caller = Caller { maps: plan.port_mapping, ..caller };
    let ended = node::signals(signals::asked_to_end())?;
    let mut process = Process::new(plan.role);
    for address in &plan.remote.addresses {
        process = process.dialling(&plan.remote.name, address);
    }
    for relay in &plan.remote.relays {
        process = process.dialling(&plan.remote.name, format_args!("the relay {}", relay.at));
    }
    let ours = plan.ports.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect();
    let names = home.iter().fold(Names::new().without(ours), |names, home| names.at_home(home));
    let (mut link, tunnel) =
        Link::new((plan.remote, names), (caller, follower), plan.give_up_after);
    let gate = Gate::new(plan.limits);
    let mut ports = JoinSet::new();
    for (listener, service) in plan.ports {
        if let Ok(local) = listener.local_addr() {
            process = process.forwarding(local, &service);
        }
        ports.spawn(serve(listener, service, tunnel.clone(), gate.clone()));
    }
    let seen = link.seen();
    let process = process.seeing(move || seen.borrow().as_ref().map(Sight::look));
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

/// Opens a local port.
///
/// # Errors
/// A sentence about the address that ends with `next`.
pub(crate) fn open(address: SocketAddr, next: &str) -> Result<TcpListener, Stop> {
    listen(address).map_err(|error| {
        Stop::usage(format!("{address}: cannot listen on this TCP address: {error}; {next}"))
    })
}
