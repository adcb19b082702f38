//! `adit agent`: local ports that lead to the services of a connector, until asked to end.
//!
//! It never exits because the network is away, unless it was told how long to bear that. It does
//! when a certificate is refused: retrying cannot help then.

use adit_tokio::core::config::Config;
use tokio::task::JoinSet;

use crate::args::AgentArgs;
use crate::config::{self, Forward, Limits};
use crate::connector::shut_down;
use crate::forward::agent::{Gate, Tunnel, listen, serve};
use crate::link::Link;
use crate::stop::Stop;
use crate::{identity, node, signals};

/// Runs until a signal, or until retrying cannot help.
///
/// # Errors
/// What is wrong with the configuration, the certificates or, when a limit was given, the network.
pub(crate) async fn run(arguments: &AgentArgs) -> Result<(), Stop> {
    let config = config::Agent::load(&arguments.config)?;
    let tls = identity::load(&config.tls)?;
    let builder = Config::builder(tls).device_id("agent").transport(node::transport(config.limits));
    let core = node::build(builder, config.heartbeat, &arguments.config)?;
    let ended = node::signals(signals::asked_to_end())?;

    let (mut link, tunnel) = Link::new(config.connector, core, arguments.give_up_after);
    let _ports = open_ports(&config.forwards, &tunnel, config.limits)?;
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
