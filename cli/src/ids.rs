//! `adit id`: who this machine is, and who its devices are; keys exchanged, devices revoked.

use std::time::Duration;

use adit_tokio::core::path;
use adit_tokio::core::tls::KeyDigest;
use serde::Serialize;

use crate::agent;
use crate::args::IdCommand;
use crate::config::{Heartbeat, Limits};
use crate::control;
use crate::enrol;
use crate::homedir::Home;
use crate::identity::Source;
use crate::known::{Known, Membership};
use crate::link::reach;
use crate::mesh::certificate::{Description, describe_file};
use crate::mesh::registry::{Device, Registry, Role};
use crate::mesh::{Mesh, unix_now};
use crate::output;
use crate::stop::Stop;

/// How long a connector may take to be reached for a rotation.
const REACHED_WITHIN: Duration = Duration::from_secs(30);

/// Does what the command says.
///
/// # Errors
/// Why it cannot be done.
pub(crate) async fn run(command: IdCommand, home: &Home) -> Result<(), Stop> {
    match command {
        IdCommand::Show { json } => show(home, json),
        IdCommand::Rotate { name: None, json } => {
            let mesh = Mesh::require(home)?;
            mesh.rotate()?;
            control::reload(home).await;
            rotated(&describe_file(&mesh.identity_path())?, json)
        }
        IdCommand::Rotate { name: Some(name), json } => {
            let known = Known::load(home, &name)?;
            let membership = known.membership(home);
            let source = Source::Member(membership.clone());
            let (core, _) = agent::core(
                source,
                path::PathConfig::default(),
                Limits::default(),
                Heartbeat::default(),
            )?;
            let attempt = reach(&known.remote()?, &core, REACHED_WITHIN).await?;
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
struct Shown {
    /// This machine as a connector of its own mesh.
    own: Option<Description>,
    /// The key of its mesh's CA, which relays know the mesh by.
    mesh: Option<KeyDigest>,
    /// This machine in the meshes of others.
    memberships: Vec<Description>,
    /// The services known here.
    known: Vec<String>,
    /// The devices of this machine's own mesh.
    devices: Vec<ShownDevice>,
}

#[derive(Debug, Serialize)]
struct ShownDevice {
    id: String,
    name: Option<String>,
    label: String,
    services: Vec<String>,
    /// Seconds since the Unix epoch.
    enrolled: u64,
    not_after: Option<u64>,
    revoked: Option<u64>,
}

fn show(home: &Home, json: bool) -> Result<(), Stop> {
    let mesh = Mesh::open(home);
    let shown = Shown {
        own: mesh.as_ref().map(|mesh| describe_file(&mesh.identity_path())).transpose()?,
        mesh: mesh.as_ref().map(Mesh::ca_key).transpose()?,
        memberships: Membership::all(home)
            .iter()
            .map(Membership::describe)
            .collect::<Result<_, _>>()?,
        known: Known::names(home),
        devices: match &mesh {
            Some(mesh) => devices(mesh.registry()?),
            None => Vec::new(),
        },
    };
    if json {
        return output::json("adit.id/1", &shown);
    }
    if shown.own.is_none() && shown.memberships.is_empty() {
        output::say(
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

fn devices(registry: Registry) -> Vec<ShownDevice> {
    let agents = registry.devices.into_iter().filter(|device| device.role == Role::Agent);
    agents
        .map(|device| ShownDevice {
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

fn device_line(device: &ShownDevice) -> String {
    let name = device.name.as_ref().unwrap_or(&device.label);
    let stands = match (device.revoked, device.not_after) {
        (Some(at), _) => format!("revoked on {}", output::date(at)),
        (None, Some(end)) => format!("until {}", output::date(end)),
        (None, None) => "without a certificate".to_owned(),
    };
    format!("  {}  {name}  {}  {stands}", device.id, device.services.join(","))
}

fn lines(said: &Description) -> String {
    let left = Duration::from_secs(said.not_after.saturating_sub(unix_now()));
    format!(
        "  {}\n  names   {}\n  for     {}\n  serial  {}\n  key     {}\n  until   {}, in {}",
        said.subject,
        said.names.join(", "),
        said.uris.join(", "),
        said.serial,
        said.key,
        output::date(said.not_after),
        output::span(left)
    )
}

fn rotated(now: &Description, json: bool) -> Result<(), Stop> {
    if json {
        return output::json("adit.id-rotated/1", now);
    }
    output::text_line(&format!("The new identity\n{}", lines(now)))
}

async fn revoke(home: &Home, word: &str, json: bool) -> Result<(), Stop> {
    let mesh = Mesh::require(home)?;
    let registry = mesh.registry()?;
    let agents = |device: &&&Device| device.role == Role::Agent;
    let all = registry.meant_by(word);
    let meant: Vec<_> = all.iter().filter(agents).collect();
    let id = match meant.as_slice() {
        [device] => device.id.clone(),
        [] => {
            let sentence = format!("no device is called \"{word}\"; see: adit id show");
            return Err(Stop::usage(sentence));
        }
        several => {
            let ids: Vec<_> = several.iter().map(|device| device.id.as_str()).collect();
            return Err(Stop::usage(format!(
                "several devices are called \"{word}\": {}; say which",
                ids.join(", ")
            )));
        }
    };
    let device = mesh.revoke(&id)?;
    // A connector that does not hear this sees it by itself, as soon as it looks.
    let connectors = control::reload(home).await;
    if json {
        let told = serde_json::json!({ "id": device.id, "revoked": device.revoked, "connectors": connectors });
        return output::json("adit.id-revoked/1", &told);
    }
    let access = if connectors > 0 { "cut off" } else { "not let in any more" };
    output::text_line(&format!("{} is revoked, and {access}", device.title()))
}
