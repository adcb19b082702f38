//! Where credentials are read from, and how a running program watches their files: a renewed or
//! rotated certificate, another CA and a new revocation list take effect without a restart.
//!
//! Key material goes to the core and nowhere else, and is never shown.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use adit_tokio::core::tls::{Identity, Tls, Trust};
use tokio::time::{Interval, MissedTickBehavior};

use super::credentials::Credentials;
use super::member::Membership;
use super::mesh::{Mesh, certificate};
use crate::base::exit::ExitError;
use crate::config::TlsFiles;

/// How often the files are checked. A revocation takes effect within this time and a little; a
/// check costs one system call for each of a few files.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Where credentials are kept.
#[derive(Debug, Clone)]
pub(crate) enum CredentialSource {
    /// Files that something else maintains.
    Files(TlsFiles),
    /// This machine's own mesh, as its connector.
    Mesh(Mesh),
    /// This machine's certificate in another machine's mesh.
    Member(Membership),
}

impl CredentialSource {
    /// Reads the credentials.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(crate) fn load(&self) -> Result<Credentials, ExitError> {
        match self {
            Self::Files(files) => load(files),
            // The chain includes the CA already.
            Self::Mesh(mesh) => mesh.tls().map(Credentials::alone),
            Self::Member(membership) => membership.credentials(),
        }
    }

    fn clock_conflict(&self, now: u64) -> Option<String> {
        let own = match self {
            Self::Files(files) => certificate::describe_file(&files.certificate),
            Self::Mesh(mesh) => certificate::describe_file(&mesh.identity_path()),
            Self::Member(membership) => membership.describe(),
        };
        own.ok()?.clock_conflict(now)
    }

    fn watched(&self) -> Vec<PathBuf> {
        match self {
            Self::Files(files) => [&files.ca, &files.certificate, &files.key]
                .into_iter()
                .chain(&files.revoked)
                .cloned()
                .collect(),
            Self::Mesh(mesh) => mesh.watched(),
            Self::Member(membership) => membership.watched(),
        }
    }
}

/// Time, length and number of each file when it was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamp {
    fn of(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| stamp(path)).collect())
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let number = 0;
    Some((metadata.modified().ok()?, metadata.len(), number))
}

/// Credentials in use, and the state of their files when they were read.
#[derive(Debug)]
pub(crate) struct CredentialWatcher {
    source: CredentialSource,
    seen: Stamp,
    polls: Interval,
}

impl CredentialWatcher {
    /// Reads the credentials for the first time.
    ///
    /// # Errors
    /// As [`CredentialSource::load`].
    pub(crate) fn start(source: CredentialSource) -> Result<(Self, Credentials), ExitError> {
        let seen = Stamp::of(&source.watched());
        let credentials = source.load()?;
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok((Self { source, seen, polls }, credentials))
    }

    /// Returns how this machine's certificate contradicts a clock that shows `now`: it has ended, or
    /// it has not begun. Returns `None` if it does not, or cannot be read.
    pub(crate) fn clock_conflict(&self, now: u64) -> Option<String> {
        self.source.clock_conflict(now)
    }

    /// Returns new credentials if the files have changed and can be used. Files that cannot be used
    /// leave the old credentials in place, and are read again when they change.
    pub(crate) fn poll(&mut self) -> Option<Credentials> {
        let now = Stamp::of(&self.source.watched());
        if now == self.seen {
            return None;
        }
        self.seen = now;
        match self.source.load() {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                tracing::warn!("the new certificate cannot be used: {error}");
                None
            }
        }
    }

    /// Waits for the next credentials, indefinitely. It is safe to cancel.
    pub(crate) async fn next(&mut self) -> Credentials {
        loop {
            self.polls.tick().await;
            if let Some(credentials) = self.poll() {
                return credentials;
            }
        }
    }
}

/// Reads the certificate, its key and the CA.
fn load(files: &TlsFiles) -> Result<Credentials, ExitError> {
    let chain = read(&files.certificate, "certificate")?;
    let key = read(&files.key, "key")?;
    let ca = read(&files.ca, "CA certificate")?;
    let identity = Identity::from_pem(&chain, &key).map_err(|error| {
        ExitError::usage(format!(
            "{} with {}: {error}; check that both are PEM and belong together",
            files.certificate.display(),
            files.key.display()
        ))
    })?;
    let mut trust = Trust::from_pem(&ca).map_err(|error| {
        ExitError::usage(format!("{}: {error}; name a PEM file of the CA", files.ca.display()))
    })?;
    if let Some(revoked) = &files.revoked {
        let list = read(revoked, "revocation list")?;
        trust = trust.with_revoked_pem(&list).map_err(|error| {
            ExitError::usage(format!("{}: {error}; name a PEM file of the list", revoked.display()))
        })?;
    }
    warn_if_shared(&files.key);
    let relay_identity = issuer(&identity, &ca).map_or_else(
        || Ok(identity.clone()),
        |issuer| identity.clone().presenting(issuer.as_bytes()),
    );
    let relay_identity = relay_identity
        .map_err(|error| ExitError::usage(format!("{}: {error}", files.ca.display())))?;
    Ok(Credentials { tls: Tls::new(identity, trust), relay_identity })
}

/// The CA, of those in a file of many, that issued the last certificate of a chain.
fn issuer(identity: &Identity, ca: &[u8]) -> Option<String> {
    let (_, last) = x509_parser::parse_x509_certificate(identity.chain().last()?).ok()?;
    x509_parser::pem::Pem::iter_from_buffer(ca).filter_map(Result::ok).find_map(|pem| {
        let certificate = pem.parse_x509().ok()?;
        let is_issuer = certificate.subject() == last.issuer() && last.subject() != last.issuer();
        is_issuer.then(|| {
            let body = data_encoding::BASE64_MIME.encode(&pem.contents);
            format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
        })
    })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, ExitError> {
    std::fs::read(path).map_err(|error| {
        ExitError::usage(format!(
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
