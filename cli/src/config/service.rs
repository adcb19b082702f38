//! One service of a connector: its keys in a file, and the checked values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use adit_tokio::core::ServiceName;
use serde::Deserialize;

use crate::address::{Backend, HostPort};

/// Prefix of the names of the built-in services of every connector.
const RESERVED: &str = "adit.";

/// One private service.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ServiceKeys")]
pub(crate) struct ServiceConfig {
    pub(crate) name: ServiceName,
    /// The service's address as this machine reaches it.
    pub(crate) backend: Backend,
    /// Names of the devices that may use it, as in their verified certificates. Without the key
    /// every device of the CA may; with an empty list none.
    pub(crate) allow: Option<BTreeSet<String>>,
}

/// A `[[service]]`, key by key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceKeys {
    name: ServiceName,
    tcp: Option<HostPort>,
    unix: Option<PathBuf>,
    allow: Option<BTreeSet<String>>,
}

impl TryFrom<ServiceKeys> for ServiceConfig {
    type Error = String;

    fn try_from(keys: ServiceKeys) -> Result<Self, String> {
        let ServiceKeys { name, tcp, unix, allow } = keys;
        if name.as_str().starts_with(RESERVED) {
            let why = format!("names that begin with \"{RESERVED}\" are adit's own");
            return Err(format!("\"{}\": {why}; choose another", name.as_str()));
        }
        let backend = match (tcp, unix) {
            (Some(tcp), None) => tcp.into(),
            (None, Some(path)) => Backend::unix(path)?,
            (Some(_), Some(_)) => {
                return Err(format!(
                    "\"{}\" has both \"tcp\" and \"unix\"; remove one of them",
                    name.as_str()
                ));
            }
            (None, None) => {
                let forms = "tcp = \"127.0.0.1:8080\" or unix = \"app.sock\"";
                return Err(format!("\"{}\" does not say where it is; add {forms}", name.as_str()));
            }
        };
        Ok(Self { name, backend, allow })
    }
}

impl ServiceConfig {
    /// Makes a relative path one that is relative to the directory of the file.
    ///
    /// # Errors
    /// If no socket can have the path that results.
    #[cfg(unix)]
    pub(super) fn resolve(&mut self, directory: &Path) -> Result<(), String> {
        if let Backend::Unix(path) = &self.backend {
            self.backend = Backend::unix(directory.join(path))?;
        }
        Ok(())
    }

    /// Does no work: this system has no Unix sockets.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub(super) fn resolve(&mut self, _directory: &Path) -> Result<(), String> {
        Ok(())
    }
}
