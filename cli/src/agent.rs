//! `adit agent`: local ports that lead to the services of a connector, until asked to end.
//!
//! It never exits because the network is away, unless it was told how long to bear that. It does
//! when a certificate is refused: retrying cannot help then.

use std::time::Duration;

use adit_tokio::core::config::{Config, Transport};
use adit_tokio::core::drive::Peer;
use tokio::task::JoinSet;

use crate::args::AgentArgs;
use crate::config::{self, Forward, Limits};
use crate::connector::shut_down;
use crate::control::{self, Process};
use crate::forward::agent::{Gate, Tunnel, listen, serve};
use crate::home::Home;
use crate::link::Link;
use crate::stop::Stop;
use crate::{identity, node, signals};

/// How long one attempt to reach the connector may take. A handshake is sent again after 1 s, and
/// then at twice the distance each time (RFC 9002 §6.2.2), so that a connector that has just
/// started is met within 4 s or by the next attempt; in 30 s the distances reach 16 s.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Runs until a signal, or until retrying cannot help.
///
/// # Errors
/// What is wrong with the configuration, the certificates or, when a limit was given, the network.
pub(crate) async fn run(arguments: &AgentArgs, home: Result<Home, Stop>) -> Result<(), Stop> {
    let config = config::Agent::load(&arguments.config)?;
    let tls = identity::load(&config.tls)?;
    let transport = Transport { connect_timeout: ATTEMPT, ..node::transport(config.limits) };
    let builder = Config::builder(tls).device_id("agent").transport(transport);
    let core = node::build(builder, config.heartbeat, &arguments.config)?;
    let ended = node::signals(signals::asked_to_end())?;

    let process = Process::new("agent").dialling(&config.connector.name, &config.connector.address);
    let (mut link, tunnel) = Link::new(config.connector, core, arguments.give_up_after);
    let _ports = open_ports(&config.forwards, &tunnel, config.limits)?;
    let _control = control::open(home.as_ref(), describe(process, &config.forwards, &tunnel)).await;
    let stop = tokio::select! {
        stop = link.keep_up() => Some(stop),
        () = ended => None,
    };
    match (stop, link.end()) {
        (Some(stop), _) => Err(stop),
        (None, Some(node)) => shut_down(&node.handle).await,
        (None, None) => Ok(()),
    }
}

/// What `adit status` is told.
fn describe(process: Process, forwards: &[Forward], tunnel: &Tunnel) -> Process {
    let tunnel = tunnel.clone();
    let current = move || tunnel.borrow().as_ref().and_then(Peer::snapshot).into_iter().collect();
    forwards
        .iter()
        .fold(process.peers(current), |process, f| process.forwarding(f.listen, &f.service))
}

fn open_ports(forwards: &[Forward], tunnel: &Tunnel, limits: Limits) -> Result<JoinSet<()>, Stop> {
    let gate = Gate::new(limits);
    let mut ports = JoinSet::new();
    for forward in forwards {
        let listener = listen(forward.listen).map_err(|error| {
            Stop::usage(format!(
                "{}: cannot listen on this TCP address: {error}; choose another in [[forward]]",
                forward.listen
            ))
        })?;
        tracing::info!(listen = %forward.listen, service = %forward.service, "forwarding");
        ports.spawn(serve(listener, forward.service.clone(), tunnel.clone(), gate.clone()));
    }
    Ok(ports)
}
