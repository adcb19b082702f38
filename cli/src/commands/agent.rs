//! `adit agent`: local ports that lead to the services of a connector, from a file.

use std::path::PathBuf;
use std::time::Duration;

use super::reach;
use crate::base::duration;
use crate::base::exit::ExitError;
use crate::base::patience::until_possible;
use crate::config;
use crate::forward::ingress::tcp::open;
use crate::homedir::Home;
use crate::roles::agent::{AgentPlan, work};
use crate::roles::dialler::target;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  adit agent -c agent.toml

An agent.toml:
  [tls]
  ca = \"ca.pem\"
  certificate = \"laptop.pem\"
  key = \"laptop.key\"

  [connector]
  address = \"connector.example:4433\"
  name = \"connector\"        # the name in the connector's certificate

  [[forward]]
  listen = \"127.0.0.1:9000\"
  service = \"web\"")]
pub(crate) struct AgentArgs {
    /// The configuration file; paths in it are relative to it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Do not ask the gateway of this network for a port mapping (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Exit with code 4 after this long without a connection, like 30s or 5m; without it, retry
    /// indefinitely
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) give_up_after: Option<Duration>,
}

/// Runs the agent of a file until a signal, or until retrying cannot help.
///
/// # Errors
/// What is wrong with the configuration, the certificates or, when a limit was given, the network.
pub(crate) async fn run(
    arguments: &AgentArgs,
    home: Result<Home, ExitError>,
) -> Result<(), ExitError> {
    let config = config::AgentConfig::load(&arguments.config)?;
    let (remote, source) = target(&config, home.as_ref())?;
    let mut ports = Vec::new();
    for forward in config.forwards {
        let listener =
            until_possible(|| open(forward.listen, "choose another in [[forward]]")).await?;
        tracing::info!("forwarding {} to \"{}\"", forward.listen, forward.service);
        ports.push((listener, forward.service));
    }
    let plan = AgentPlan {
        hint: Some(reach::hint(&remote)),
        role: "agent",
        remote,
        source,
        ports,
        port_mapping: config.port_mapping && config.paths.is_direct() && !arguments.no_port_mapping,
        paths: config.paths,
        limits: config.limits,
        heartbeat: config.heartbeat,
        give_up_after: arguments.give_up_after,
    };
    work(plan, home.as_ref()).await.map_err(|stop| stop.within(&arguments.config))
}
