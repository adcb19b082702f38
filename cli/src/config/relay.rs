//! `relay.toml`: where a relay listens, how clients address it, and which meshes it serves.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;

use adit_tokio::core::tls::KeyDigest;
use serde::Deserialize;

use super::{file, parse};
use crate::address::{HostPort, key_of};
use crate::base::exit::ExitError;

/// A relay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelayConfig {
    /// The UDP address that clients reach.
    pub(crate) listen: SocketAddr,
    /// The port of the second socket, for address discovery. The default is the port after
    /// `listen`'s.
    pub(crate) discovery_port: Option<u16>,
    /// The TCP port for networks without UDP. The default is 443, if that is available.
    pub(crate) tcp_port: Option<u16>,
    /// True if there is no TCP port.
    #[serde(default)]
    pub(crate) no_tcp: bool,
    /// Addresses at which clients reach it, if not at its own.
    #[serde(default)]
    pub(crate) advertise: Vec<HostPort>,
    /// The meshes whose members may use it. The default is every mesh.
    #[serde(default)]
    pub(crate) allow_meshes: Vec<MeshKey>,
    /// The devices that may use it besides, whatever their mesh.
    #[serde(default)]
    pub(crate) allow_keys: Vec<DeviceKey>,
    /// True if anyone may use it. This is also the default while no mesh and no device is allowed;
    /// then it is warned of.
    #[serde(default)]
    pub(crate) open: bool,
    /// Megabits a second that one client may have forwarded. The default is a thousand.
    pub(crate) mbits_per_client: Option<NonZeroU32>,
    /// Megabits a second that all clients may have forwarded together. The default is no limit.
    pub(crate) mbits_in_all: Option<NonZeroU32>,
}

impl RelayConfig {
    /// Reads and checks a relay's file.
    ///
    /// # Errors
    /// One sentence about the first mistake.
    pub(crate) fn load(path: &Path) -> Result<Self, ExitError> {
        let relay: Self = parse(&file::read(path)?, path)?;
        if relay.no_tcp && relay.tcp_port.is_some() {
            return Err(ExitError::usage(format!(
                "{}: tcp_port and no_tcp contradict each other; remove one",
                path.display()
            )));
        }
        if relay.open && !(relay.allow_meshes.is_empty() && relay.allow_keys.is_empty()) {
            return Err(ExitError::usage(format!(
                "{}: open contradicts allow_meshes and allow_keys; remove one",
                path.display()
            )));
        }
        Ok(relay)
    }
}

/// A mesh by the digest of its CA's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MeshKey(pub(crate) KeyDigest);

impl FromStr for MeshKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        key_of(text.trim()).map(Self).ok_or_else(|| {
            format!("\"{text}\" is no mesh; write its key as adit id show prints it")
        })
    }
}

/// A device by the digest of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct DeviceKey(pub(crate) KeyDigest);

impl FromStr for DeviceKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        key_of(text.trim()).map(Self).ok_or_else(|| {
            format!("\"{text}\" is no device; write its key as adit id show prints it")
        })
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for MeshKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
