//! `adit connector`: the services of a file, exposed to the devices that may use them.

use std::path::PathBuf;

use adit_tokio::core::path;

use crate::base::exit::ExitError;
use crate::base::patience::until_possible;
use crate::config;
use crate::homedir::Home;
use crate::identity::mesh::Mesh;
use crate::identity::source::CredentialSource;
use crate::roles::connector::{ConnectorPlan, start};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  adit connector -c connector.toml

A connector.toml:
  listen = \"0.0.0.0:4433\"

  [tls]
  ca = \"ca.pem\"
  certificate = \"connector.pem\"
  key = \"connector.key\"

  [[service]]
  name = \"web\"
  tcp = \"127.0.0.1:8080\"    # or unix = \"/run/app.sock\"
  allow = [\"laptop\"]        # names from device certificates; without it, every device")]
pub(crate) struct ConnectorArgs {
    /// The configuration file; paths in it are relative to it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Do not ask the gateway of this network for a port mapping (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
}

/// Runs the connector of a file until a signal.
///
/// # Errors
/// What is wrong with the configuration, the address or, later, the socket.
pub(crate) async fn run(
    arguments: &ConnectorArgs,
    home: Result<Home, ExitError>,
) -> Result<(), ExitError> {
    let path = &arguments.config;
    let config = config::ConnectorConfig::load(path)?;
    let source = match config.tls {
        Some(files) => CredentialSource::Files(files),
        None => {
            let home = home.as_ref().map_err(ExitError::clone)?;
            CredentialSource::Mesh(until_possible(|| Mesh::open_or_create(home)).await?)
        }
    };
    let relays = match (config.relays, &source) {
        (Some(relays), _) => relays,
        (None, CredentialSource::Mesh(mesh)) => mesh.relays(),
        (None, CredentialSource::Files(_) | CredentialSource::Member(_)) => Vec::new(),
    };
    let plan = ConnectorPlan {
        role: "connector",
        listen: config.listen,
        services: config.services,
        limits: config.limits,
        heartbeat: config.heartbeat,
        advertise: config.advertise,
        relays,
        paths: path::PathConfig::default().direct(config.direct),
        port_mapping: config.port_mapping && config.direct && !arguments.no_port_mapping,
        source,
    };
    let running = start(plan, home.as_ref()).await.map_err(|stop| stop.within(path))?;
    running.until_asked_to_end().await
}
