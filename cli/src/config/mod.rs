//! Configuration files: TOML text in, checked values out, and for a mistake one sentence that
//! names the place, the cause and the next step.
//!
//! Unknown keys are mistakes. Paths in a file are relative to that file. Nothing is read here but
//! the configuration file itself.

mod backend;
pub(crate) mod duration;
mod explain;
mod file;
mod host_port;
mod relay;
mod relay_address;
mod remote;
mod service;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_tokio::core::heartbeat;
use adit_tokio::core::message::ServiceName;
use adit_tokio::core::path;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use self::backend::Backend;
pub(crate) use self::host_port::HostPort;
pub(crate) use self::relay::{MeshKey, Relay};
pub(crate) use self::relay_address::{RelayAddress, RelayPlace, TCP_PORT, place, place_of};
use self::remote::RemoteKeys;
pub(crate) use self::remote::{Remote, Target};
pub(crate) use self::service::Service;
use crate::stop::Stop;

/// Most relays of one machine: two that fail over to each other, and as many again while moving.
pub(crate) const MAX_RELAYS: usize = 4;

/// `connector.toml`: what a connector exposes, where it listens, and who it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connector {
    /// The UDP address that agents reach.
    pub(crate) listen: SocketAddr,
    /// Without it, the identity of this machine's own mesh.
    pub(crate) tls: Option<TlsFiles>,
    /// Where else devices reach it than at its own addresses, for invites.
    #[serde(default)]
    pub(crate) advertise: Vec<HostPort>,
    /// Relays by which devices reach it that no address of its own leads to; without the key, those
    /// that the mesh remembers.
    pub(crate) relays: Option<Vec<RelayAddress>>,
    /// Whether devices that were met at a relay may be sent to directly.
    #[serde(default = "yes")]
    pub(crate) direct: bool,
    /// Whether the gateway of a home network is asked to lead devices here. On by default: it helps
    /// where no NAT lets two peers meet, and costs a few packets.
    #[serde(default = "yes")]
    pub(crate) port_mapping: bool,
    #[serde(default, rename = "service")]
    pub(crate) services: Vec<Service>,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) heartbeat: Heartbeat,
}

/// `agent.toml`: which connector, and what it offers on local ports.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) target: Target,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) paths: path::PathConfig,
    pub(crate) port_mapping: bool,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) limits: Limits,
    pub(crate) heartbeat: Heartbeat,
}

/// The same as its keys stand in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentKeys {
    tls: Option<TlsFiles>,
    connector: RemoteKeys,
    /// Relays by which the connector is reached, beside those of its invite.
    #[serde(default)]
    relays: Vec<RelayAddress>,
    /// Whether a connector that was met at a relay may be sent to directly.
    #[serde(default = "yes")]
    direct: bool,
    /// As in `connector.toml`.
    #[serde(default = "yes")]
    port_mapping: bool,
    #[serde(default, rename = "forward")]
    forwards: Vec<Forward>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    heartbeat: Heartbeat,
}

/// One local TCP port and the service behind it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forward {
    pub(crate) listen: SocketAddr,
    pub(crate) service: ServiceName,
}

/// The files of an identity and of whom it trusts, in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificates that the CA took back, as a list that it signed (RFC 5280 §5).
    pub(crate) revoked: Option<PathBuf>,
}

/// What forwarding may take.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Forwarded connections at a time; further ones wait to be accepted (agent) or are refused
    /// (connector). The default, 16,384, is half of what one address can hold towards another.
    pub(crate) connections: usize,
    /// How long a connection that one side has finished may stay without a byte. The default, an
    /// hour, is longer than people wait for an answer; connections open both ways are never cut.
    #[serde(with = "duration")]
    pub(crate) half_open: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, half_open: Duration::from_secs(3600) }
    }
}

/// How soon a dead peer is noticed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Heartbeat {
    /// Time between heartbeats.
    #[serde(with = "duration")]
    pub(crate) interval: Duration,
    /// Time within which the answer to one counts.
    #[serde(with = "duration")]
    pub(crate) ack_within: Duration,
    /// Silence after which the peer is taken for dead.
    #[serde(with = "duration")]
    pub(crate) dead_after: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        let core = heartbeat::Config::default();
        Self {
            interval: core.interval(),
            ack_within: core.ack_within(),
            dead_after: core.dead_after(),
        }
    }
}

impl Connector {
    /// Reads and checks a connector's file.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn load(path: &Path) -> Result<Self, Stop> {
        Self::parse(&file::read(path)?, path)
    }

    /// Checks the text of the file at `path`.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Stop> {
        let mut config: Self = parse(text, path)?;
        if let Some(tls) = &mut config.tls {
            tls.resolve(path);
        }
        let mut names = BTreeSet::new();
        let directory = path.parent().unwrap_or(Path::new(""));
        for service in &mut config.services {
            service.resolve(directory).map_err(|sentence| {
                Stop::usage(format!("{}: service: {sentence}", path.display()))
            })?;
            if !names.insert(service.name.as_str()) {
                return Err(twice(path, "service", service.name.as_str()));
            }
        }
        if config.services.is_empty() {
            return Err(nothing(
                path,
                "[[service]]",
                "name = \"web\" and tcp = \"127.0.0.1:8080\"",
            ));
        }
        check_relays(config.relays.as_deref().unwrap_or_default(), path)?;
        config.limits.check(path)?;
        Ok(config)
    }
}

impl Agent {
    /// Reads and checks an agent's file.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn load(path: &Path) -> Result<Self, Stop> {
        Self::parse(&file::read(path)?, path)
    }

    /// Checks the text of the file at `path`.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Stop> {
        let keys: AgentKeys = parse(text, path)?;
        let target = keys.connector.target(keys.tls, !keys.relays.is_empty(), path)?;
        let mut ports = BTreeSet::new();
        for forward in &keys.forwards {
            if forward.listen.port() != 0 && !ports.insert(forward.listen) {
                return Err(twice(path, "forward", &forward.listen.to_string()));
            }
        }
        if keys.forwards.is_empty() {
            let example = "listen = \"127.0.0.1:9000\" and service = \"web\"";
            return Err(nothing(path, "[[forward]]", example));
        }
        keys.limits.check(path)?;
        let AgentKeys { relays, direct, port_mapping, forwards, limits, heartbeat, .. } = keys;
        check_relays(&relays, path)?;
        let paths = path::PathConfig::default().direct(direct);
        Ok(Self { target, relays, paths, port_mapping, forwards, limits, heartbeat })
    }
}

impl TlsFiles {
    fn resolve(&mut self, config: &Path) {
        let directory = config.parent().unwrap_or(Path::new(""));
        let optional = self.revoked.iter_mut();
        for path in [&mut self.ca, &mut self.certificate, &mut self.key].into_iter().chain(optional)
        {
            *path = directory.join(&path);
        }
    }
}

impl Limits {
    fn check(&self, path: &Path) -> Result<(), Stop> {
        if self.connections == 0 {
            return Err(Stop::usage(format!(
                "{}: limits.connections: 0 would refuse everyone; write 1 or more",
                path.display()
            )));
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Stop> {
    explain::parse(text).map_err(|sentence| Stop::usage(format!("{}: {sentence}", path.display())))
}

const fn yes() -> bool {
    true
}

fn check_relays(relays: &[RelayAddress], path: &Path) -> Result<(), Stop> {
    let mut seen = BTreeSet::new();
    if let Some(again) = relays.iter().find(|relay| !seen.insert(&relay.at)) {
        return Err(twice(path, "relays", &again.at.to_string()));
    }
    if relays.len() > MAX_RELAYS {
        return Err(Stop::usage(format!(
            "{}: relays: there are {}, and {MAX_RELAYS} at most are used; remove some",
            path.display(),
            relays.len()
        )));
    }
    Ok(())
}

fn twice(path: &Path, what: &str, name: &str) -> Stop {
    Stop::usage(format!("{}: {what}: \"{name}\" stands twice; remove one", path.display()))
}

fn nothing(path: &Path, section: &str, keys: &str) -> Stop {
    Stop::usage(format!("{}: there is no {section}; add one with {keys}", path.display()))
}

#[cfg(test)]
mod tests;
