//! Configuration files: TOML text in, checked values out, and for a mistake one sentence that names
//! the place, the cause and the next step.
//!
//! Unknown keys are mistakes. Paths in a file are relative to that file. This module reads only the
//! configuration file itself.

mod agent;
mod connector;
mod explain;
mod file;
mod relay;
mod remote;
mod service;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_tokio::core::config::Congestion;
use adit_tokio::core::heartbeat;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use self::agent::AgentConfig;
pub(crate) use self::connector::ConnectorConfig;
pub(crate) use self::relay::{DeviceKey, MeshKey, RelayConfig};
pub(crate) use self::remote::{AgentTarget, RemoteConnector};
pub(crate) use self::service::ServiceConfig;
use crate::address::RelayAddress;
use crate::base::exit::ExitError;
use crate::base::{descriptors, duration};

/// Maximum number of relays of one machine: two that fail over to each other, and as many again
/// while moving.
pub(crate) const MAX_RELAYS: usize = 4;

/// The files of an identity and of its trust anchors, in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificates that the CA revoked, as a list that it signed (RFC 5280 §5).
    pub(crate) revoked: Option<PathBuf>,
}

/// Limits of forwarding.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ForwardLimits {
    /// Maximum number of forwarded connections; further ones wait to be accepted (agent) or are
    /// refused (connector). The default, 16,384, is half of what one address can hold towards
    /// another.
    pub(crate) connections: usize,
    /// How long a connection that one side has finished may be idle. The default, an hour, is
    /// longer than people wait for an answer; connections that are open in both directions are
    /// never cut.
    #[serde(with = "duration")]
    pub(crate) half_open: Duration,
    /// Mebibytes that the requests of all peers may hold together; above it, the connection with
    /// the most ends. The default is a sixteenth of the memory of the control group or the machine.
    pub(crate) memory: Option<NonZeroU32>,
    /// The `congestion` of the file, which is beside `[limits]`.
    #[serde(skip)]
    pub(crate) congestion: CongestionControl,
}

impl Default for ForwardLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            half_open: Duration::from_secs(3600),
            memory: None,
            congestion: CongestionControl::default(),
        }
    }
}

/// How the sending rate follows the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CongestionControl {
    /// By a model of the path: loss without a queue does not slow it down.
    #[default]
    Bbr,
    /// By loss.
    Cubic,
}

impl From<CongestionControl> for Congestion {
    fn from(control: CongestionControl) -> Self {
        match control {
            CongestionControl::Bbr => Self::Bbr,
            CongestionControl::Cubic => Self::Cubic,
        }
    }
}

/// How soon a dead peer is detected.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeartbeatSettings {
    /// Time between heartbeats.
    #[serde(with = "duration")]
    pub(crate) interval: Duration,
    /// Time within which the answer to one counts.
    #[serde(with = "duration")]
    pub(crate) ack_within: Duration,
    /// Silence after which the peer is considered dead.
    #[serde(with = "duration")]
    pub(crate) dead_after: Duration,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        let core = heartbeat::HeartbeatConfig::default();
        Self {
            interval: core.interval(),
            ack_within: core.ack_within(),
            dead_after: core.dead_after(),
        }
    }
}

impl TlsFiles {
    /// Returns what one of the files is for.
    pub(crate) fn what(&self, path: &Path) -> &'static str {
        if path == self.ca {
            "CA certificate"
        } else if path == self.certificate {
            "certificate"
        } else if path == self.key {
            "key"
        } else {
            "revocation list"
        }
    }

    fn resolve(&mut self, config: &Path) {
        let directory = config.parent().unwrap_or(Path::new(""));
        let optional = self.revoked.iter_mut();
        for path in [&mut self.ca, &mut self.certificate, &mut self.key].into_iter().chain(optional)
        {
            *path = directory.join(&path);
        }
    }
}

impl ForwardLimits {
    /// Returns the same with no more connections than this process can open.
    pub(crate) fn within_descriptors(self) -> Self {
        Self { connections: descriptors::connections(self.connections), ..self }
    }

    fn check(&self, path: &Path) -> Result<(), ExitError> {
        if self.connections == 0 {
            return Err(ExitError::usage(format!(
                "{}: limits.connections: 0 would refuse everyone; write 1 or more",
                path.display()
            )));
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ExitError> {
    explain::parse(text)
        .map_err(|sentence| ExitError::usage(format!("{}: {sentence}", path.display())))
}

const fn yes() -> bool {
    true
}

fn check_relays(relays: &[RelayAddress], path: &Path) -> Result<(), ExitError> {
    let mut seen = BTreeSet::new();
    if let Some(again) = relays.iter().find(|relay| !seen.insert(&relay.at)) {
        return Err(twice(path, "relays", &again.at.to_string()));
    }
    if relays.len() > MAX_RELAYS {
        return Err(ExitError::usage(format!(
            "{}: relays: there are {}, and {MAX_RELAYS} at most are used; remove some",
            path.display(),
            relays.len()
        )));
    }
    Ok(())
}

fn twice(path: &Path, what: &str, name: &str) -> ExitError {
    ExitError::usage(format!("{}: {what}: \"{name}\" stands twice; remove one", path.display()))
}

fn nothing(path: &Path, section: &str, keys: &str) -> ExitError {
    ExitError::usage(format!("{}: there is no {section}; add one with {keys}", path.display()))
}

#[cfg(test)]
mod tests;
