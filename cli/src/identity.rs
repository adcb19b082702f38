//! The files of an identity: read, checked for who else may read them, and handed to the core.
//! Key material goes nowhere else and is never shown.

use std::path::Path;

use adit_tokio::core::tls::{Identity, Tls, Trust};

use crate::config::TlsFiles;
use crate::stop::Stop;

/// Reads the certificate, its key and the CA.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(crate) fn load(files: &TlsFiles) -> Result<Tls, Stop> {
    let chain = read(&files.certificate, "certificate")?;
    let key = read(&files.key, "key")?;
    let ca = read(&files.ca, "CA certificate")?;
    let identity = Identity::from_pem(&chain, &key).map_err(|error| {
        Stop::usage(format!(
            "{} with {}: {error}; check that both are PEM and belong together",
            files.certificate.display(),
            files.key.display()
        ))
    })?;
    let trust = Trust::from_pem(&ca).map_err(|error| {
        Stop::usage(format!("{}: {error}; name a PEM file of the CA", files.ca.display()))
    })?;
    warn_if_shared(&files.key);
    Ok(Tls::new(identity, trust))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Stop> {
    std::fs::read(path).map_err(|error| {
        Stop::usage(format!(
            "{}: the {what} cannot be read: {error}; check the path in [tls]",
            path.display()
        ))
    })
}

#[cfg(unix)]
fn warn_if_shared(key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = std::fs::metadata(key) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{}: others may read this key (mode {mode:o}); run: chmod 600 {0}",
            key.display()
        );
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_key: &Path) {}
