//! `adit id`: this machine's identity, and its devices; rotates keys and revokes devices.

use std::time::Duration;

use adit_tokio::core::path;
use adit_tokio::core::tls::KeyDigest;
use clap::Subcommand;
use serde::Serialize;

use crate::base::exit::{Exit, ExitError};
use crate::base::layout::{self, Table};
use crate::base::system::unix_now;
use crate::base::{output, units};
use crate::config::{ForwardLimits, HeartbeatSettings};
use crate::control::ControlAnswer;
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
    /// Show the identity of this machine, and the devices of its mesh
    #[command(after_help = "\
Examples:
  adit id show
  adit id show --json | jq '.devices[].id'")]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace this machine's key and certificate; connections stay open
    #[command(after_help = "\
Examples:
  adit id rotate          the connector's key, on the machine that exposes
  adit id rotate web      the device's key, on the machine that connects")]
    Rotate {
        /// A saved service; without it, the identity of this machine's own mesh
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a device's certificates: it loses access within a second, permanently
    #[command(after_help = "\
Examples:
  adit id revoke device-3f9a0c41d2b7
  adit id revoke laptop")]
    Revoke {
        /// Id, name or host name of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a revoked device from the list; its name can be given to another
    #[command(after_help = "\
Examples:
  adit id forget device-3f9a0c41d2b7
  adit id forget laptop")]
    Forget {
        /// Id, name or host name of the device
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Print JSON
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
                HeartbeatSettings::default(),
            )?;
            let attempt = reach(&known.remote()?, &core, CONNECT_TIMEOUT).await?;
            let renewed = enrol::agent::renew(&attempt.peer, &membership, true).await;
            attempt.node.end().await;
            renewed?;
            rotated(&membership.describe()?, json)
        }
        IdCommand::Revoke { device, json } => revoke(home, &device, json).await,
        IdCommand::Forget { device, json } => forget(home, &device, json).await,
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
    output::text_line(&shown.text(unix_now(), layout::width()))
}

impl IdentityReport {
    /// Returns it for people, at most `width` columns wide; `now` is in seconds since the Unix
    /// epoch.
    fn text(&self, now: u64, width: usize) -> String {
        let mut parts = Vec::new();
        if let Some(own) = &self.own {
            parts.push(format!("This machine's own mesh\n{}", lines(own, now)));
        }
        if let Some(mesh) = self.mesh {
            parts.push(format!("  mesh    {mesh}"));
        }
        let joined = self.memberships.iter();
        parts.extend(
            joined
                .map(|it| format!("This machine as a device of another mesh\n{}", lines(it, now))),
        );
        if !self.known.is_empty() {
            parts.push(format!("Saved services: {}", self.known.join(", ")));
        }
        if self.own.is_some() {
            let rows: Vec<_> = self.devices.iter().map(DeviceRow::cells).collect();
            let devices = match rows.is_empty() {
                true => "  none yet; invite one with: adit invite new".to_owned(),
                false => Table::plain(rows).lines(2, width).join("\n"),
            };
            parts.push(format!("Devices\n{devices}"));
        }
        layout::wrap(&parts.join("\n"), width)
    }
}

fn devices(registry: MeshRegistry) -> Vec<DeviceRow> {
    let is_shown =
        |device: &RegisteredDevice| device.role == DeviceRole::Agent && !device.is_forgotten();
    let agents = registry.devices.into_iter().filter(is_shown);
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

impl DeviceRow {
    /// Returns its row: what people call it, its id, its services and its certificate.
    fn cells(&self) -> [String; 4] {
        let name = self.name.as_ref().unwrap_or(&self.label);
        let state = match (self.revoked, self.not_after) {
            (Some(at), _) => format!("revoked on {}", units::date(at)),
            (None, Some(end)) => format!("until {}", units::date(end)),
            (None, None) => "without a certificate".to_owned(),
        };
        [name.clone(), self.id.clone(), self.services.join(", "), state]
    }
}

fn lines(said: &CertificateDescription, now: u64) -> String {
    let left = Duration::from_secs(said.not_after.saturating_sub(now));
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
    output::text(&format!("The new identity\n{}", lines(now, unix_now())))
}

async fn forget(home: &Home, word: &str, json: bool) -> Result<(), ExitError> {
    let mesh = Mesh::require(home)?;
    let id = one_device(&mesh, word)?;
    mesh.forget_device(&id)?;
    control::reload(home).await;
    if json {
        return output::json("adit.id-forgotten/1", &serde_json::json!({ "id": id }));
    }
    output::text_line(&format!("{id} is forgotten; its certificates stay revoked"))
}

/// Returns the id of the one device that a person means.
fn one_device(mesh: &Mesh, word: &str) -> Result<String, ExitError> {
    let registry = mesh.registry()?;
    let agents = |device: &&&RegisteredDevice| device.role == DeviceRole::Agent;
    let all = registry.meant_by(word);
    let meant: Vec<_> = all.iter().filter(agents).collect();
    match meant.as_slice() {
        [device] => Ok(device.id.clone()),
        [] => {
            let sentence = format!("no device is called \"{word}\"; see: adit id show");
            Err(ExitError::usage(sentence))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|device| device.id.as_str()).collect();
            Err(ExitError::usage(format!(
                "several devices are called \"{word}\": {}; give the id of one",
                ids.join(", ")
            )))
        }
    }
}

async fn revoke(home: &Home, word: &str, json: bool) -> Result<(), ExitError> {
    let mesh = Mesh::require(home)?;
    let id = one_device(&mesh, word)?;
    let device = mesh.revoke(&id)?;
    let list = mesh.registry()?.lists;
    let holder = mesh.holder();
    let answers = control::reload(home).await;
    let connectors = answers.iter().filter(|answer| has_applied(answer, list)).count();
    if json {
        let printed = serde_json::json!({ "id": device.id, "revoked": device.revoked, "connectors": connectors });
        output::json("adit.id-revoked/1", &printed)?;
    }
    if let Some(holder) = holder.filter(|_| connectors == 0) {
        return Err(unconfirmed(&device, &holder, &answers));
    }
    if json {
        return Ok(());
    }
    let access = if connectors > 0 { "cut off" } else { "no longer let in" };
    output::text_line(&format!("{} is revoked, and {access}", device.title()))
}

/// Returns true if a connector answered that this revocation list, or a later one, is in force.
fn has_applied(answer: &ControlAnswer, list: u64) -> bool {
    let applied = answer.answer.as_ref().ok().and_then(|fields| fields.get("revocation_list"));
    applied.and_then(serde_json::Value::as_u64).is_some_and(|applied| applied >= list)
}

/// Returns the error for a running connector that did not confirm a revocation.
fn unconfirmed(device: &RegisteredDevice, holder: &str, answers: &[ControlAnswer]) -> ExitError {
    let own = format!("-{holder}.sock");
    let why = answers.iter().find(|answer| answer.socket.ends_with(&own)).map_or_else(
        || "it did not answer".to_owned(),
        |answer| match &answer.answer {
            Ok(fields) => fields
                .get("failure")
                .and_then(serde_json::Value::as_str)
                .unwrap_or("an earlier list is in force there")
                .to_owned(),
            Err(why) => why.clone(),
        },
    );
    let sentence = format!(
        "{} is revoked, but the connector that runs here (process {holder}) did not confirm that it cut \
         the device off: {why}; look at its log, or end it",
        device.title()
    );
    ExitError::new(Exit::Degraded, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::tests::assert_fits;

    const NOW: u64 = 1_800_000_000;

    fn certificate(names: &[&str]) -> CertificateDescription {
        CertificateDescription {
            subject: "CN=device-b1ff400dcf4b, O=mesh-c7324bc4".into(),
            issuer: "CN=mesh-c7324bc4".into(),
            names: names.iter().map(ToString::to_string).collect(),
            uris: (0..9).map(|n| format!("adit:service:a-service-{n}")).collect(),
            serial: "7753725c2213955101ce3fe41e4dbfd7".into(),
            key: KeyDigest([7; 32]),
            not_before: NOW,
            not_after: NOW + 86_400,
        }
    }

    fn device(label: &str, services: usize) -> DeviceRow {
        DeviceRow {
            id: "device-390b8c599afc".into(),
            name: None,
            label: label.into(),
            services: (0..services).map(|n| format!("a-service-{n}")).collect(),
            enrolled: NOW,
            not_after: Some(NOW),
            revoked: None,
        }
    }

    #[test]
    fn long_names_and_many_services_fit_80_columns() {
        let report = |devices| IdentityReport {
            own: Some(certificate(&["device-b1ff400dcf4b"])),
            mesh: Some(KeyDigest([9; 32])),
            memberships: vec![certificate(&["device-b1ff400dcf4b", &"laptop-".repeat(9)])],
            known: (0..20).map(|n| format!("a-saved-service-{n}")).collect(),
            devices,
        };
        let long = report(vec![device(&"laptop-".repeat(9), 30)]).text(NOW, layout::WIDTH);
        assert_fits(&long);
        assert!(long.contains("\n    device-390b8c599afc\n    a-service-0, "), "{long}");
        let short = report(vec![device("laptop", 1)]).text(NOW, layout::WIDTH);
        assert_fits(&short);
        let row = "\n  laptop  device-390b8c599afc  a-service-0  until 2027-01-15 08:00 UTC";
        assert!(short.ends_with(row), "{short}");
    }
}
