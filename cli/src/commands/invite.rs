//! `adit invite`: makes, lists and revokes invites. The mesh decides what an invite grants.

use std::time::Duration;

use adit_tokio::core::ServiceName;
use clap::Subcommand;
use serde::Serialize;

use crate::address::{HostPort, RelayAddress};
use crate::base::exit::ExitError;
use crate::base::layout::{self, Table};
use crate::base::system::unix_now;
use crate::base::{duration, output, units};
use crate::control;
use crate::homedir::Home;
use crate::identity::invite::{Invite, Secret};
use crate::identity::mesh::Mesh;
use crate::identity::mesh::registry::{DeviceRole, IssuedInvite, RegisteredDevice};

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Create an invite to a service of the connector on this machine
    #[command(after_help = "\
Examples:
  adit invite new                    if there is one service
  adit invite new web --device laptop --invite-for 1h")]
    New {
        /// The service
        #[arg(value_name = "SERVICE")]
        service: Option<ServiceName>,
        #[command(flatten)]
        options: InviteOptions,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List invites and their states
    #[command(after_help = "\
Examples:
  adit invite list
  adit invite list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke an invite that was not used
    #[command(after_help = "\
Examples:
  adit invite revoke 5e0c7a12       the first digits, as adit invite list shows them")]
    Revoke {
        /// The first digits of its id
        #[arg(value_name = "ID")]
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the invites that were used, revoked or have expired from the list
    #[command(after_help = "\
Example:
  adit invite prune")]
    Prune {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InviteOptions {
    /// Name for the invited device in its certificate, for allow lists
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,

    /// How long the invite is valid
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
    pub(crate) invite_for: Duration,
}

/// Runs the command.
///
/// # Errors
/// Why it cannot be done.
pub(crate) async fn run(command: InviteCommand, home: &Home) -> Result<(), ExitError> {
    let mesh = Mesh::require(home)?;
    match command {
        InviteCommand::New { service, options, json } => {
            let service = one_service(&mesh, service)?;
            let made = make(&mesh, &service, &options)?;
            // The connector that runs here accepts it from now on; without this, at its next poll.
            control::reload(home).await;
            print(&made, json)
        }
        InviteCommand::List { json } => list(&mesh, json),
        InviteCommand::Revoke { id, json } => {
            let revoked = revoke(&mesh, &id)?;
            control::reload(home).await;
            print_revoked(&revoked, json)
        }
        InviteCommand::Prune { json } => {
            let removed = mesh.prune_invites()?;
            control::reload(home).await;
            print_pruned(removed, json)
        }
    }
}

/// A new invite, with its text.
#[derive(Debug, Serialize)]
pub(crate) struct NewInvite {
    pub(crate) invite: String,
    id: String,
    service: ServiceName,
    device: Option<String>,
    addresses: Vec<String>,
    relays: Vec<RelayAddress>,
    /// Seconds since the Unix epoch.
    expires: u64,
}

/// Makes an invite to a service that the mesh's connector offers.
///
/// # Errors
/// Why there is none.
pub(crate) fn make(
    mesh: &Mesh,
    service: &ServiceName,
    options: &InviteOptions,
) -> Result<NewInvite, ExitError> {
    let offer = mesh.offer()?;
    let registry = mesh.registry()?;
    let own = registry.devices.iter().find(|device| device.role == DeviceRole::Connector);
    let connector = own.map(|device| device.id.clone()).unwrap_or_default();
    let parsed = |text: &String| HostPort::try_from(text.clone()).map_err(ExitError::usage);
    let addresses: Vec<_> = offer.addresses.iter().map(parsed).collect::<Result<_, _>>()?;
    if addresses.is_empty() && offer.relays.is_empty() {
        return Err(ExitError::usage(
            "this machine has no address that others can reach; name one with --advertise, or a \
             relay with --relay",
        ));
    }
    let now = unix_now();
    let secret = Secret::new()?;
    let (_, key) = secret.identity()?;
    let issued = IssuedInvite {
        key,
        service: service.as_str().to_owned(),
        name: options.device.clone(),
        issued: now,
        expires: now.saturating_add(options.invite_for.as_secs().max(1)),
        used_by: None,
        used: None,
        revoked: false,
    };
    let (id, expires) = (issued.id(), issued.expires);
    mesh.invite(issued)?;
    let invite = Invite {
        secret,
        ca: mesh.ca_key()?,
        connector,
        service: service.clone(),
        port: offer.services.get(service.as_str()).copied().flatten(),
        addresses,
        relays: offer.relays.clone(),
        expires,
    };
    Ok(NewInvite {
        invite: invite.to_string(),
        id,
        service: service.clone(),
        device: options.device.clone(),
        addresses: offer.addresses,
        relays: offer.relays,
        expires,
    })
}

/// Prints an invite on stdout, and on stderr what to do with it.
///
/// # Errors
/// If stdout cannot be written.
pub(crate) fn print(made: &NewInvite, json: bool) -> Result<(), ExitError> {
    if json {
        return output::json("adit.invite/1", made);
    }
    let left = Duration::from_secs(made.expires.saturating_sub(unix_now()));
    output::message(format_args!(
        "Invite to \"{}\", valid once and for {}; on the other machine: adit connect INVITE",
        made.service,
        units::span(left)
    ));
    output::text_line(&made.invite)
}

fn one_service(mesh: &Mesh, named: Option<ServiceName>) -> Result<ServiceName, ExitError> {
    let offered = mesh.offer()?.services;
    let all = || offered.keys().cloned().collect::<Vec<_>>().join(", ");
    match named {
        Some(name) if offered.contains_key(name.as_str()) => Ok(name),
        Some(name) => Err(ExitError::usage(format!(
            "\"{name}\" is not exposed here; exposed services: {}",
            all()
        ))),
        None => match offered.keys().collect::<Vec<_>>().as_slice() {
            [only] => {
                only.parse().map_err(|_| ExitError::usage(format!("\"{only}\" is no service name")))
            }
            _ => Err(ExitError::usage(format!(
                "several services are exposed: {}; name one: adit invite new SERVICE",
                all()
            ))),
        },
    }
}

/// An invite in a list.
#[derive(Debug, Serialize)]
struct InviteRow {
    id: String,
    service: String,
    device: Option<String>,
    state: &'static str,
    issued: u64,
    expires: u64,
    used_by: Option<String>,
}

fn list(mesh: &Mesh, json: bool) -> Result<(), ExitError> {
    let now = unix_now();
    let registry = mesh.registry()?;
    let listed: Vec<_> = registry
        .invites
        .iter()
        .cloned()
        .map(|issued| InviteRow {
            id: issued.id(),
            state: issued.state(now),
            service: issued.service,
            device: issued.name,
            issued: issued.issued,
            expires: issued.expires,
            used_by: issued.used_by,
        })
        .collect();
    if json {
        #[derive(Serialize)]
        struct All {
            invites: Vec<InviteRow>,
        }
        return output::json("adit.invites/1", &All { invites: listed });
    }
    if listed.is_empty() {
        output::message("There are no invites; make one with: adit invite new");
        return Ok(());
    }
    let title = |id: &str| {
        registry.devices.iter().find(|device| device.id == id).map(RegisteredDevice::title)
    };
    output::text_line(&table(&listed, title, layout::width()))
}

/// Returns the invites for people, a row each; `title` is what people call a device.
fn table(listed: &[InviteRow], title: impl Fn(&str) -> Option<String>, width: usize) -> String {
    let row = |invite: &InviteRow| {
        let used_by = invite.used_by.as_ref();
        let state = match (invite.state, used_by) {
            ("open", _) => format!("open, until {}", units::date(invite.expires)),
            (state, Some(id)) => {
                format!("{state} by {}", title(id).unwrap_or_else(|| id.clone()))
            }
            (state, None) => state.to_owned(),
        };
        let device = invite.device.as_ref().map_or_else(String::new, |name| format!(" for {name}"));
        [invite.id.clone(), format!("{}{device}", invite.service), state]
    };
    Table::plain(listed.iter().map(row).collect()).lines(0, width).join("\n")
}

fn revoke(mesh: &Mesh, id: &str) -> Result<String, ExitError> {
    let registry = mesh.registry()?;
    let meant: Vec<_> = registry
        .invites
        .iter()
        .filter(|invite| !id.is_empty() && invite.key.to_string().starts_with(id))
        .collect();
    let [invite] = meant.as_slice() else {
        let what = if meant.is_empty() { "no invite begins" } else { "several invites begin" };
        return Err(ExitError::usage(format!("{what} with \"{id}\"; see: adit invite list")));
    };
    mesh.revoke_invite(invite.key).map_err(|denied| {
        let next = "a device that used it is revoked with: adit id revoke DEVICE";
        ExitError::usage(format!("{denied}; {next}"))
    })?;
    Ok(invite.id())
}

fn print_pruned(count: usize, json: bool) -> Result<(), ExitError> {
    if json {
        return output::json("adit.invites-pruned/1", &serde_json::json!({ "removed": count }));
    }
    output::text_line(&format!("removed {}", units::count(count, "invite")))
}

fn print_revoked(id: &str, json: bool) -> Result<(), ExitError> {
    if json {
        return output::json("adit.invite-revoked/1", &serde_json::json!({ "id": id }));
    }
    output::text_line(&format!("{id} is revoked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::tests::assert_fits;

    fn row(service: &str, device: Option<String>, used_by: Option<&str>) -> InviteRow {
        InviteRow {
            id: "13d58ef4".into(),
            service: service.into(),
            device,
            state: if used_by.is_some() { "used" } else { "open" },
            issued: 1_800_000_000,
            expires: 1_800_000_900,
            used_by: used_by.map(str::to_owned),
        }
    }

    #[test]
    fn invites_are_in_columns_and_devices_have_their_names() {
        let rows = [row("web", None, None), row("postgres", None, Some("device-1"))];
        let title = |id: &str| (id == "device-1").then(|| "laptop (device-1)".to_owned());
        assert_eq!(
            table(&rows, title, layout::WIDTH),
            "13d58ef4  web       open, until 2027-01-15 08:15 UTC\n\
             13d58ef4  postgres  used by laptop (device-1)"
        );
    }

    #[test]
    fn long_names_fit_80_columns() {
        let rows = [row(&"service-".repeat(7), Some("laptop-".repeat(9)), Some("device-1"))];
        assert_fits(&table(&rows, |_| Some("laptop-".repeat(12)), layout::WIDTH));
    }
}
