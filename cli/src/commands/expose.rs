//! `adit expose`: a service on this machine, and an invite to it. The first time, it makes the
//! required identity; the serving itself is the connector's.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::ServiceName;
use adit_tokio::core::path;

use super::invite::{self, InviteOptions};
use super::parse::{self, Advertised};
use super::reach;
use crate::address::{Backend, RelayAddress};
use crate::base::exit::ExitError;
use crate::base::patience::until_possible;
use crate::base::{duration, output};
use crate::config::{ForwardLimits, HeartbeatSettings, MAX_RELAYS, ServiceConfig};
use crate::homedir::Home;
use crate::identity::mesh::Mesh;
use crate::identity::source::CredentialSource;
use crate::net::interfaces;
use crate::roles::connector::{self, ConnectorPlan};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit expose 3000                         a web server on this machine; prints an invite
  adit expose 192.168.1.9:22 --name ssh    a service on another machine that this one reaches
  adit expose unix:/run/app.sock
  adit expose 3000 --advertise home.example:4433    the router forwards this port
  adit expose 3000 --relay relay.example:4433#KEY   behind NAT; see adit relay

Run this on the other machine; the invite is valid once and for 15 minutes:
  adit connect adit1_...

Stdout has the invite, in one line; everything else is on stderr.")]
pub(crate) struct ExposeArgs {
    /// What to expose: a PORT of this machine, HOST:PORT, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: Backend,

    /// Name of the service; by default derived from its port
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ServiceName>,

    /// UDP address to listen on, as [IP:]PORT
    #[arg(long, value_name = "ADDR", default_value = "4433", value_parser = parse::listen)]
    pub(crate) listen: SocketAddr,

    /// Another address of this machine, as HOST[:PORT]; may be repeated
    #[arg(long, value_name = "HOST", value_parser = parse::advertised)]
    pub(crate) advertise: Vec<Advertised>,

    /// A relay for devices that cannot reach this machine directly, as adit relay printed it; may
    /// be repeated, and is saved
    #[arg(long, value_name = "RELAY")]
    pub(crate) relay: Vec<RelayAddress>,

    /// Use no relay, and remove the saved ones
    #[arg(long, conflicts_with = "relay")]
    pub(crate) no_relay: bool,

    /// Do not ask the gateway of this network for a port mapping (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Lifetime of certificates that are issued from now on, like 365d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) certificate_life: Option<Duration>,

    /// Print no invite: enrolled devices need none
    #[arg(long)]
    pub(crate) no_invite: bool,

    #[command(flatten)]
    pub(crate) invite: InviteOptions,

    /// Print the invite as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Serves until a signal.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn run(arguments: ExposeArgs, home: &Home) -> Result<(), ExitError> {
    let mesh = until_possible(|| Mesh::open_or_create(home)).await?;
    if let Some(life) = arguments.certificate_life {
        mesh.set_certificate_life(life)?;
    }
    let name = match arguments.name {
        Some(name) => name,
        None => default_name(&arguments.target),
    };
    let service = ServiceConfig { name: name.clone(), backend: arguments.target, allow: None };
    let target = service.backend.to_string();
    let missing = reach::missing(&service.backend).await;
    let plan = ConnectorPlan {
        role: "expose",
        listen: interfaces::dual(arguments.listen),
        services: vec![service],
        limits: ForwardLimits::default(),
        heartbeat: HeartbeatSettings::default(),
        advertise: arguments.advertise.iter().map(|it| it.at(arguments.listen.port())).collect(),
        relays: relays(&mesh, arguments.relay, arguments.no_relay)?,
        paths: path::PathConfig::default(),
        port_mapping: !arguments.no_port_mapping,
        source: CredentialSource::Mesh(mesh.clone()),
    };
    let running = connector::start(plan, Ok(home)).await?;
    output::message(format_args!("Exposing {target} as \"{name}\"; Ctrl-C ends it."));
    if let Some(warning) = missing {
        output::message(warning);
    }
    if let Some(outside) = running.mapped().await {
        output::message(format_args!("The router maps {outside} to this machine."));
    }
    let offer = mesh.offer()?;
    output::message(reach::from_where(&offer.addresses, &offer.relays));
    if !arguments.no_invite {
        let made = invite::make(&mesh, &name, &arguments.invite)?;
        // The key of the invite must be accepted before the invite is printed.
        running.credential_refresher().refresh().await.complete()?;
        invite::print(&made, arguments.json)?;
    }
    running.until_asked_to_end().await
}

/// Returns the relays that were named, or those of the last time.
fn relays(
    mesh: &Mesh,
    named: Vec<RelayAddress>,
    none: bool,
) -> Result<Vec<RelayAddress>, ExitError> {
    if none {
        return Ok(Vec::new());
    }
    if named.is_empty() {
        return Ok(mesh.relays());
    }
    if named.len() > MAX_RELAYS {
        return Err(ExitError::usage(format!("{MAX_RELAYS} relays at most are used; name fewer")));
    }
    Ok(named)
}

/// Returns the default name of a service: a usual one for its port, and otherwise its port or file.
fn default_name(target: &Backend) -> ServiceName {
    let name = match target.port() {
        Some(22) => "ssh".to_owned(),
        Some(80 | 443 | 3000 | 8000 | 8080 | 8443) => "web".to_owned(),
        Some(5432) => "postgres".to_owned(),
        Some(3306) => "mysql".to_owned(),
        Some(6379) => "redis".to_owned(),
        Some(port) => format!("port-{port}"),
        None => "socket".to_owned(),
    };
    name.parse().expect("every name above is a service name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_its_port() {
        for (target, name) in [
            ("22", "ssh"),
            ("192.0.2.7:3000", "web"),
            ("9999", "port-9999"),
            ("unix:/run/app.sock", "socket"),
        ] {
            assert_eq!(default_name(&target.parse().unwrap()).as_str(), name);
        }
    }
}
