//! `connector.toml`: its keys, and the checked values.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::{
    CongestionControl, ForwardLimits, HeartbeatSettings, ServiceConfig, TlsFiles, check_relays,
    file, nothing, parse, twice, yes,
};
use crate::address::{HostPort, RelayAddress};
use crate::base::exit::ExitError;

/// `connector.toml`: what a connector exposes, where it listens, and its identity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectorConfig {
    /// The UDP address that agents reach.
    pub(crate) listen: SocketAddr,
    /// Without it, the identity of this machine's own mesh.
    pub(crate) tls: Option<TlsFiles>,
    /// Addresses for invites at which devices reach it, beside its own.
    #[serde(default)]
    pub(crate) advertise: Vec<HostPort>,
    /// Relays by which devices reach it when they cannot reach its own addresses; without the key,
    /// those that the mesh remembers.
    pub(crate) relays: Option<Vec<RelayAddress>>,
    /// True if packets to devices that were found through a relay may be sent directly.
    #[serde(default = "yes")]
    pub(crate) direct: bool,
    /// True if the gateway of a home network is asked to map a port. On by default: it helps where
    /// NATs prevent a direct path, and costs a few packets.
    #[serde(default = "yes")]
    pub(crate) port_mapping: bool,
    #[serde(default, rename = "service")]
    pub(crate) services: Vec<ServiceConfig>,
    #[serde(default)]
    pub(crate) limits: ForwardLimits,
    #[serde(default)]
    pub(crate) heartbeat: HeartbeatSettings,
    #[serde(default)]
    congestion: CongestionControl,
}

impl ConnectorConfig {
    /// Reads and checks a connector's file.
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
        let mut config: Self = parse(text, path)?;
        config.limits.congestion = config.congestion;
        if let Some(tls) = &mut config.tls {
            tls.resolve(path);
        }
        let mut names = BTreeSet::new();
        let directory = path.parent().unwrap_or(Path::new(""));
        for service in &mut config.services {
            service.resolve(directory).map_err(|sentence| {
                ExitError::usage(format!("{}: service: {sentence}", path.display()))
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
