//! `adit id`: this machine's identity, and its devices; rotates keys and revokes devices.

use std::time::Duration;

use adit_tokio::core::path;
use adit_tokio::core::tls::KeyDigest;
use clap::Subcommand;
use serde::Serialize;

use crate::base::exit::ExitError;
use crate::base::system::unix_now;
use crate::base::{output, units};
use crate::config::{ForwardLimits, HeartbeatConfig};
use crate::homedir::Home;
use crate::identity::member::Membership;
use crate::identity::mesh::Mesh;
use crate::identity::mesh::certificate::{CertificateDescription, describe_file};
use crate::identity::mesh::registry::{DeviceRole, MeshRegistry, RegisteredDevice};
use crate::identity::saved_service::SavedService;
use crate::identity::source::CredentialSource;
use crate::net::link::reach;
use crate::roles::dialler;
use crate::{control, enrol};

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Show who this machine is, and which devices have certificates of its mesh
    #[command(after_help = "\
Examples:
  adit id show
  adit id show --json | jq '.devices[].id'")]
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give this machine a new key and certificate, while everything goes on
    #[command(after_help = "\
Examples:
  adit id rotate          the connector's own, on the machine that exposes
  adit id rotate web      this machine's as a device, on the one that connects")]
    Rotate {
        /// A service that is known here; without it, the identity of this machine's own mesh
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a device's certificates back: it loses access within a second, and for good
    #[command(after_help = "\
Examples:
  adit id revoke device-3f9a0c41d2b7
  adit id revoke laptop")]
    Revoke {
        /// The device: its id, its name, or what it calls itself
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// How long a connector may take to be reached for a rotation.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
/// Why it cannot be done.
pub(crate) async fn run(command: IdCommand, home: &Home) -> Result<(), ExitError> {
    match command {
        IdCommand::Show { json } => show(home, json),
        IdCommand::Rotate { name: None, json } => {
            let mesh = Mesh::require(home)?;
            mesh.rotate()?;
            control::reload(home).await;
            rotated(&describe_file(&mesh.identity_path())?, json)
        }
        IdCommand::Rotate { name: Some(name), json } => {
            let known = SavedService::load(home, &name)?;
            let membership = known.membership(home);
            let source = CredentialSource::Member(membership.clone());
            let (core, _) = dialler::core(
                source,
                path::PathConfig::default(),
                ForwardLimits::default(),
                HeartbeatConfig::default(),
            )?;
            let attempt = reach(&known.remote()?, &core, CONNECT_TIMEOUT).await?;
            let renewed = enrol::agent::renew(&attempt.peer, &membership, true).await;
            attempt.node.end().await;
            renewed?;
            rotated(&membership.describe()?, json)
        }
        IdCommand::Revoke { device, json } => revoke(home, &device, json).await,
    }
}

/// Everything that `adit id show` shows.
#[derive(Debug, Serialize)]
struct IdentityReport {
    /// This machine as a connector of its own mesh.
    own: Option<CertificateDescription>,
    /// The key of its mesh's CA, by which relays identify the mesh.
    mesh: Option<KeyDigest>,
    /// This machine in the meshes of others.
    memberships: Vec<CertificateDescription>,
    /// The services saved here.
    known: Vec<String>,
    /// The devices of this machine's own mesh.
    devices: Vec<DeviceRow>,
}

#[derive(Debug, Serialize)]
struct DeviceRow {
    id: String,
    name: Option<String>,
    label: String,
    services: Vec<String>,
    /// Seconds since the Unix epoch.
    enrolled: u64,
    not_after: Option<u64>,
    revoked: Option<u64>,
}

fn show(home: &Home, json: bool) -> Result<(), ExitError> {
    let mesh = Mesh::open(home);
    let shown = IdentityReport {
        own: mesh.as_ref().map(|mesh| describe_file(&mesh.identity_path())).transpose()?,
        mesh: mesh.as_ref().map(Mesh::ca_key).transpose()?,
        memberships: Membership::all(home)
            .iter()
            .map(Membership::describe)
            .collect::<Result<_, _>>()?,
        known: SavedService::names(home),
        devices: match &mesh {
            Some(mesh) => devices(mesh.registry()?),
            None => Vec::new(),
        },
    };
    if json {
        return output::json("adit.id/1", &shown);
    }
    if shown.own.is_none() && shown.memberships.is_empty() {
        output::message(
            "This machine has no identity yet; it gets one with: adit expose 3000, or adit connect INVITE",
        );
        return Ok(());
    }
    if let Some(own) = &shown.own {
        output::text_line(&format!("This machine's own mesh\n{}", lines(own)))?;
        if let Some(mesh) = shown.mesh {
            output::text_line(&format!("  mesh    {mesh}"))?;
        }
    }
    for membership in &shown.memberships {
        output::text_line(&format!("A device of another's mesh\n{}", lines(membership)))?;
    }
    if !shown.known.is_empty() {
        output::text_line(&format!("Known services: {}", shown.known.join(", ")))?;
    }
    if shown.own.is_some() {
        let devices: Vec<_> = shown.devices.iter().map(device_line).collect();
        let none = "  none yet; invite one with: adit invite new".to_owned();
        let devices = if devices.is_empty() { none } else { devices.join("\n") };
        output::text_line(&format!("Devices\n{devices}"))?;
    }
    Ok(())
}

fn devices(registry: MeshRegistry) -> Vec<DeviceRow> {
    let agents = registry.devices.into_iter().filter(|device| device.role == DeviceRole::Agent);
    agents
        .map(|device| DeviceRow {
            not_after: device.serials.values().max().copied(),
            id: device.id,
            name: device.name,
            label: device.label,
            services: device.services.into_iter().collect(),
            enrolled: device.enrolled,
            revoked: device.revoked,
        })
        .collect()
}

fn device_line(device: &DeviceRow) -> String {
    let name = device.name.as_ref().unwrap_or(&device.label);
    let stands = match (device.revoked, device.not_after) {
        (Some(at), _) => format!("revoked on {}", units::date(at)),
        (None, Some(end)) => format!("until {}", units::date(end)),
        (None, None) => "without a certificate".to_owned(),
    };
    format!("  {}  {name}  {}  {stands}", device.id, device.services.join(","))
}

fn lines(said: &CertificateDescription) -> String {
    let left = Duration::from_secs(said.not_after.saturating_sub(unix_now()));
    format!(
        "  {}\n  names   {}\n  for     {}\n  serial  {}\n  key     {}\n  until   {}, in {}",
        said.subject,
        said.names.join(", "),
        said.uris.join(", "),
        said.serial,
        said.key,
        units::date(said.not_after),
        units::span(left)
    )
}

fn rotated(now: &CertificateDescription, json: bool) -> Result<(), ExitError> {
    if json {
        return output::json("adit.id-rotated/1", now);
    }
    output::text_line(&format!("The new identity\n{}", lines(now)))
}

async fn revoke(home: &Home, word: &str, json: bool) -> Result<(), ExitError> {
    let mesh = Mesh::require(home)?;
    let registry = mesh.registry()?;
    let agents = |device: &&&RegisteredDevice| device.role == DeviceRole::Agent;
    let all = registry.meant_by(word);
    let meant: Vec<_> = all.iter().filter(agents).collect();
    let id = match meant.as_slice() {
        [device] => device.id.clone(),
        [] => {
            let sentence = format!("no device is called \"{word}\"; see: adit id show");
            return Err(ExitError::usage(sentence));
        }
        several => {
            let ids: Vec<_> = several.iter().map(|device| device.id.as_str()).collect();
            return Err(ExitError::usage(format!(
                "several devices are called \"{word}\": {}; say which",
                ids.join(", ")
            )));
        }
    };
    let device = mesh.revoke(&id)?;
    // A connector that is not notified finds the change at its next poll.
    let connectors = control::reload(home).await;
    if json {
        let printed = serde_json::json!({ "id": device.id, "revoked": device.revoked, "connectors": connectors });
        return output::json("adit.id-revoked/1", &printed);
    }
    let access = if connectors > 0 { "cut off" } else { "not let in any more" };
    output::text_line(&format!("{} is revoked, and {access}", device.title()))
}
