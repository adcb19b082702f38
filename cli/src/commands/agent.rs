//! `adit agent`: local ports that lead to the services of a connector, as a file has them.

use super::AgentArgs;
use crate::base::stop::Stop;
use crate::config;
use crate::forward::ingress::tcp::open;
use crate::homedir::Home;
use crate::roles::agent::{Plan, work};
use crate::roles::dialler::target;

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
