//! `adit expose`: a service on this machine, and an invite to it. It makes the identity that takes,
//! the first time; the serving itself is the connector's.

use std::net::SocketAddr;

use adit_tokio::core::message::ServiceName;
use adit_tokio::core::path;

use crate::args::ExposeArgs;
use crate::config::{Backend, Heartbeat, Limits, MAX_RELAYS, RelayAddress, Service};
use crate::connector::{self, Plan};
use crate::homedir::Home;
use crate::identity::Source;
use crate::invites;
use crate::mesh::Mesh;
use crate::networks;
use crate::output;
use crate::stop::Stop;

/// Serves until a signal.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn run(arguments: ExposeArgs, home: &Home) -> Result<(), Stop> {
    let mesh = Mesh::open_or_create(home)?;
    if let Some(life) = arguments.certificate_life {
        mesh.set_certificate_life(life)?;
    }
    let name = match arguments.name {
        Some(name) => name,
        None => default_name(&arguments.target),
    };
    let service = Service { name: name.clone(), backend: arguments.target, allow: None };
    let target = service.backend.to_string();
    let plan = Plan {
        role: "expose",
        listen: dual(arguments.listen),
        services: vec![service],
        limits: Limits::default(),
        heartbeat: Heartbeat::default(),
        advertise: arguments.advertise,
        relays: relays(&mesh, arguments.relay, arguments.no_relay)?,
        paths: path::PathConfig::default(),
        port_mapping: !arguments.no_port_mapping,
        source: Source::Mesh(mesh.clone()),
    };
    let running = connector::start(plan, Ok(home)).await?;
    output::say(format_args!("Exposing {target} as \"{name}\"; Ctrl-C ends it."));
    if !arguments.no_invite {
        let made = invites::make(&mesh, &name, &arguments.invite)?;
        // The key of the invite is to be let in before anybody has it.
        running.exchange().now().await;
        invites::print(&made, arguments.json)?;
    }
    running.until_asked_to_end().await
}

/// The relays that were named, or those of the last time.
fn relays(mesh: &Mesh, named: Vec<RelayAddress>, none: bool) -> Result<Vec<RelayAddress>, Stop> {
    if none {
        return Ok(Vec::new());
    }
    if named.is_empty() {
        return Ok(mesh.relays());
    }
    if named.len() > MAX_RELAYS {
        return Err(Stop::usage(format!("{MAX_RELAYS} relays at most are used; name fewer")));
    }
    Ok(named)
}

/// The IPv6 wildcard takes IPv4 as well, where this machine has IPv6.
pub(crate) fn dual(listen: SocketAddr) -> SocketAddr {
    if listen.is_ipv4() && listen.ip().is_unspecified() {
        return networks::wildcard(listen.port());
    }
    listen
}

/// What a service is called whose port is a usual one, and otherwise by its port or file.
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
