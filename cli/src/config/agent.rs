//! `agent.toml`: its keys, and the checked values.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use adit_tokio::core::ServiceName;
use adit_tokio::core::path;
use serde::Deserialize;

use super::remote::RemoteKeys;
use super::{
    AgentTarget, CongestionControl, ForwardLimits, HeartbeatSettings, TlsFiles, check_relays, file,
    nothing, parse, twice, yes,
};
use crate::address::RelayAddress;
use crate::base::exit::ExitError;

/// `agent.toml`: the connector, and its services on local ports.
#[derive(Debug)]
pub(crate) struct AgentConfig {
    pub(crate) target: AgentTarget,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) paths: path::PathConfig,
    pub(crate) port_mapping: bool,
    pub(crate) forwards: Vec<ForwardConfig>,
    pub(crate) limits: ForwardLimits,
    pub(crate) heartbeat: HeartbeatSettings,
}

/// The same as its keys in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentKeys {
    tls: Option<TlsFiles>,
    connector: RemoteKeys,
    /// Relays by which the connector is reached, beside those of its invite.
    #[serde(default)]
    relays: Vec<RelayAddress>,
    /// True if packets to a connector that was found through a relay may be sent directly.
    #[serde(default = "yes")]
    direct: bool,
    /// As in `connector.toml`.
    #[serde(default = "yes")]
    port_mapping: bool,
    #[serde(default, rename = "forward")]
    forwards: Vec<ForwardConfig>,
    #[serde(default)]
    limits: ForwardLimits,
    #[serde(default)]
    heartbeat: HeartbeatSettings,
    /// As in `connector.toml`.
    #[serde(default)]
    congestion: CongestionControl,
}

/// One local TCP port and the service behind it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) service: ServiceName,
}

impl AgentConfig {
    /// Reads and checks an agent's file.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn load(path: &Path) -> Result<Self, ExitError> {
        Self::parse(&file::read(path)?, path)
    }

    /// Checks the text of the file at `path`.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ExitError> {
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
        let limits = ForwardLimits { congestion: keys.congestion, ..keys.limits };
        let AgentKeys { relays, direct, port_mapping, forwards, heartbeat, .. } = keys;
        check_relays(&relays, path)?;
        let paths = path::PathConfig::default().direct(direct);
        Ok(Self { target, relays, paths, port_mapping, forwards, limits, heartbeat })
    }
}
