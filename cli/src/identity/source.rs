//! Where credentials are read from, and how a running program watches their files: a renewed or
//! rotated certificate, another CA and a new revocation list take effect without a restart.
//!
//! The identity, the CA, and what is revoked are followed apart: none of them waits for another to
//! be in order. Files are read on a thread of their own, never on the event loop. Key material goes
//! to the core and nowhere else, and is never shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_tokio::core::tls::{Identity, Tls, Trust};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::credentials::Credentials;
use super::follow::FollowedFiles;
use super::member::Membership;
use super::mesh::roster::Roster;
use super::mesh::{Mesh, certificate};
use super::revocation::RevocationLists;
use crate::base::exit::{Exit, ExitError};
use crate::base::system::unix_now;
use crate::config::TlsFiles;
use crate::homedir::store;
use crate::homedir::trusted::{self, Stamp, Unread};

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
    /// Checks that the credentials can be used.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(crate) fn check(self) -> Result<(), ExitError> {
        CredentialFiles::start(self).map(drop)
    }

    fn clock_conflict(&self, now: u64) -> Option<String> {
        let own = match self {
            Self::Files(files) => certificate::describe_file(&files.certificate),
            Self::Mesh(mesh) => certificate::describe_file(&mesh.identity_path()),
            Self::Member(membership) => membership.describe(),
        };
        own.ok()?.clock_conflict(now)
    }

    /// Returns the files with the certificate and its key; they may be one.
    fn identity_paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Files(files) => vec![files.certificate.clone(), files.key.clone()],
            Self::Mesh(mesh) => vec![mesh.identity_path()],
            Self::Member(membership) => vec![membership.identity_path()],
        }
    }

    fn ca_path(&self) -> PathBuf {
        match self {
            Self::Files(files) => files.ca.clone(),
            Self::Mesh(mesh) => mesh.ca_path(),
            Self::Member(membership) => membership.ca_path(),
        }
    }

    /// Reads one of its files.
    fn read(&self, path: &Path) -> Result<(Vec<u8>, Stamp), ExitError> {
        match self {
            Self::Files(files) => read_given(path, files.what(path)),
            Self::Mesh(_) | Self::Member(_) => store::read_stamped(path)?.ok_or_else(|| {
                let next = "restore it from a backup";
                ExitError::usage(format!("{}: this file is gone; {next}", path.display()))
            }),
        }
    }

    fn identity(&self, contents: &[Vec<u8>]) -> Result<Identity, ExitError> {
        let (chain, key) = (&contents[0], contents.last().unwrap_or(&contents[0]));
        let identity = Identity::from_pem(chain, key);
        identity.and_then(|identity| identity.check().map(|()| identity)).map_err(|error| {
            ExitError::usage(match self {
                Self::Files(files) => format!(
                    "{} with {}: {error}; check that both are PEM and belong together",
                    files.certificate.display(),
                    files.key.display()
                ),
                Self::Mesh(mesh) => {
                    format!("{}: {error}; restore it from a backup", mesh.identity_path().display())
                }
                Self::Member(membership) => format!(
                    "{}: {error}; ask for a new invite",
                    membership.identity_path().display()
                ),
            })
        })
    }

    /// Checks the CA's certificates. Returns them as they were written.
    fn authorities(&self, contents: &[Vec<u8>]) -> Result<Vec<u8>, ExitError> {
        let next = match self {
            Self::Files(_) => "name a PEM file of the CA",
            Self::Mesh(_) => "restore it from a backup",
            Self::Member(_) => "ask for a new invite",
        };
        match Trust::from_pem(&contents[0]) {
            Ok(_) => Ok(contents[0].clone()),
            Err(error) => {
                Err(ExitError::usage(format!("{}: {error}; {next}", self.ca_path().display())))
            }
        }
    }
}

/// Reads a file that the configuration names.
fn read_given(path: &Path, what: &str) -> Result<(Vec<u8>, Stamp), ExitError> {
    trusted::read(path).map_err(|unread| {
        ExitError::usage(match unread {
            Unread::Failed(error) => format!(
                "{}: the {what} cannot be read: {error}; check the path in [tls]",
                path.display()
            ),
            Unread::Untrusted(why) => format!("{}: the {what} is not used: {why}", path.display()),
        })
    })
}

/// What was found in the files at one look.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// The credentials in use from now on, if they changed.
    pub(crate) credentials: Option<Credentials>,
    /// Why the present state of a file is not in use, if there is one.
    pub(crate) failure: Option<ExitError>,
    /// The number of the revocation list of the mesh, if the present one is in use.
    pub(crate) list: Option<u64>,
}

/// The files of credentials, as they were read last. It accesses the disk.
#[derive(Debug)]
pub(crate) struct CredentialFiles {
    source: CredentialSource,
    identity: (FollowedFiles, Option<Identity>),
    authorities: (FollowedFiles, Option<Vec<u8>>),
    /// The file of revocation lists, if there is one; a mesh has them in its registry.
    lists: (Option<FollowedFiles>, RevocationLists),
    /// The registry of a mesh, and its state in the credentials.
    roster: Option<(Arc<Roster>, u64)>,
}

impl CredentialFiles {
    /// Reads the credentials for the first time.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(crate) fn start(source: CredentialSource) -> Result<(Self, Credentials), ExitError> {
        let roster = match &source {
            CredentialSource::Mesh(mesh) => Some((Arc::new(Roster::new(mesh.clone())?), 0)),
            CredentialSource::Files(_) | CredentialSource::Member(_) => None,
        };
        let list = match &source {
            CredentialSource::Files(files) => files.revoked.clone(),
            CredentialSource::Mesh(_) | CredentialSource::Member(_) => None,
        };
        let follow = |paths| FollowedFiles::new(paths, "the new certificate");
        let lists = list.map(|path| FollowedFiles::new(vec![path], "the new revocation list"));
        let mut files = Self {
            identity: (follow(source.identity_paths()), None),
            authorities: (follow(vec![source.ca_path()]), None),
            lists: (lists, RevocationLists::default()),
            roster,
            source,
        };
        let Look { credentials, failure, .. } = files.look();
        if let Some(stop) = failure {
            return Err(stop);
        }
        let credentials = credentials.ok_or_else(|| {
            ExitError::new(Exit::Degraded, "there are no credentials; start again")
        })?;
        Ok((files, credentials))
    }

    /// Reads what changed since it was read and used.
    fn look(&mut self) -> Look {
        let (mut has_changed, mut failure) = (false, None);
        let source = &self.source;
        let mut note = |looked: Result<bool, ExitError>| match looked {
            Ok(changed) => has_changed |= changed,
            Err(stop) => failure = failure.take().or(Some(stop)),
        };
        let looked = self.authorities.0.look(|path| source.read(path), |it| source.authorities(it));
        if matches!(looked, Ok(Some(_)))
            && let Some(lists) = &mut self.lists.0
        {
            lists.forget();
        }
        note(keep(looked, &mut self.authorities.1));
        let looked = self.identity.0.look(|path| source.read(path), |it| source.identity(it));
        if let (Ok(Some(_)), CredentialSource::Files(files)) = (&looked, source) {
            warn_if_shared(&files.key);
        }
        note(keep(looked, &mut self.identity.1));
        note(self.look_at_lists());
        let looked = self.look_at_registry();
        let is_current = looked.is_ok();
        note(looked);
        let list = self.roster.as_ref().filter(|_| is_current);
        let list = list.map(|(roster, _)| roster.with(|registry| registry.lists));
        let credentials = match has_changed {
            true => self.compose(),
            false => Ok(None),
        };
        match credentials {
            Ok(credentials) => Look { credentials, failure, list },
            Err(stop) => {
                self.forget();
                Look { credentials: None, failure: Some(stop), list: None }
            }
        }
    }

    /// Returns the certificates that may have signed a list: the CA's, and those between it and
    /// this machine's own.
    fn signers(&self) -> Vec<CertificateDer<'static>> {
        let pem = self.authorities.1.as_deref().unwrap_or_default();
        let anchors = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        let chain = self.identity.1.iter().flat_map(|identity| identity.chain().iter().skip(1));
        anchors.chain(chain.cloned()).collect()
    }

    fn look_at_lists(&mut self) -> Result<bool, ExitError> {
        let signers = self.signers();
        let (Some(files), lists) = (&mut self.lists.0, &mut self.lists.1) else { return Ok(false) };
        let CredentialSource::Files(TlsFiles { revoked: Some(path), .. }) = &self.source else {
            return Ok(false);
        };
        let make = |contents: &[Vec<u8>]| {
            lists.with_pem(&contents[0], &signers).map_err(|why| {
                let next = "name a PEM file of the list that the CA signed last";
                ExitError::usage(format!("{}: {why}; {next}", path.display()))
            })
        };
        let Some(new) = files.look(|path| self.source.read(path), make)? else { return Ok(false) };
        *lists = new;
        Ok(true)
    }

    fn look_at_registry(&mut self) -> Result<bool, ExitError> {
        let signers = self.signers();
        let Some((roster, used)) = &mut self.roster else { return Ok(false) };
        let present = roster.look()?;
        let list = roster.with(|registry| registry.revoked_pem.clone());
        let lists = &mut self.lists.1;
        let has_changed = std::mem::replace(used, present) != present;
        if has_changed && !(list.is_empty() && *lists == RevocationLists::default()) {
            *lists = lists.with_pem(list.as_bytes(), &signers).map_err(|why| {
                // It is looked at again until it is in order.
                *used = 0;
                let path = roster.mesh().registry_path();
                ExitError::usage(format!("{}: {why}; restore it from a backup", path.display()))
            })?;
        }
        Ok(has_changed)
    }

    fn compose(&self) -> Result<Option<Credentials>, ExitError> {
        let (Some(identity), Some(ca)) = (&self.identity.1, &self.authorities.1) else {
            return Ok(None);
        };
        let wrong = |error: &dyn std::fmt::Display| {
            ExitError::usage(format!("{}: {error}", self.source.ca_path().display()))
        };
        let trust = Trust::from_pem(ca)
            .and_then(|trust| trust.with_revoked_pem(self.lists.1.pem().as_bytes()))
            .map_err(|error| wrong(&error))?;
        let trust = match &self.roster {
            Some((roster, _)) => {
                trust.with_guests(roster.with(|registry| registry.guests(unix_now())))
            }
            None => trust,
        };
        let tls = Tls::new(identity.clone(), trust);
        let credentials = match &self.source {
            CredentialSource::Files(_) => match issuer(identity, ca) {
                Some(issuer) => Credentials::of(tls, issuer.as_bytes()),
                None => Ok(Credentials::alone(tls)),
            },
            // The chain includes the CA already.
            CredentialSource::Mesh(_) => Ok(Credentials::alone(tls)),
            CredentialSource::Member(_) => Credentials::of(tls, ca),
        };
        credentials.map(Some).map_err(|error| wrong(&error))
    }

    /// Makes the next look read everything again.
    fn forget(&mut self) {
        self.identity.0.forget();
        self.authorities.0.forget();
        if let Some(lists) = &mut self.lists.0 {
            lists.forget();
        }
        if let Some((_, used)) = &mut self.roster {
            *used = 0;
        }
    }
}

/// Stores what was read, if anything was. Returns whether it was.
fn keep<T>(looked: Result<Option<T>, ExitError>, to: &mut Option<T>) -> Result<bool, ExitError> {
    let new = looked?;
    let is_new = new.is_some();
    if is_new {
        *to = new;
    }
    Ok(is_new)
}

/// Credentials in use, and the watch over their files.
#[derive(Debug)]
pub(crate) struct CredentialWatcher {
    source: CredentialSource,
    files: Arc<Mutex<CredentialFiles>>,
    roster: Option<Arc<Roster>>,
    /// A look under way: the disk may take any time.
    pending: Option<JoinHandle<Look>>,
    polls: Interval,
}

impl CredentialWatcher {
    /// Reads the credentials for the first time.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(crate) fn start(source: CredentialSource) -> Result<(Self, Credentials), ExitError> {
        let (files, credentials) = CredentialFiles::start(source.clone())?;
        let roster = files.roster.as_ref().map(|(roster, _)| roster.clone());
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = Arc::new(Mutex::new(files));
        Ok((Self { source, files, roster, pending: None, polls }, credentials))
    }

    /// Returns the registry that it follows, if the source is a mesh.
    pub(crate) fn roster(&self) -> Option<Arc<Roster>> {
        self.roster.clone()
    }

    /// Returns how this machine's certificate contradicts a clock that shows `now`: it has ended, or
    /// it has not begun. Returns `None` if it does not, or cannot be read.
    pub(crate) fn clock_conflict(&self, now: u64) -> Option<String> {
        self.source.clock_conflict(now)
    }

    /// Reads what changed before this call. It is safe to cancel: the next call returns what this
    /// one would have.
    pub(crate) async fn look(&mut self) -> Look {
        let earlier = match self.pending {
            Some(_) => self.finish().await,
            None => Look::default(),
        };
        self.begin();
        let look = self.finish().await;
        Look { credentials: look.credentials.or(earlier.credentials), ..look }
    }

    fn begin(&mut self) {
        let files = self.files.clone();
        self.pending = Some(tokio::task::spawn_blocking(move || {
            files.lock().unwrap_or_else(PoisonError::into_inner).look()
        }));
    }

    async fn finish(&mut self) -> Look {
        let Some(pending) = &mut self.pending else { return Look::default() };
        let look = pending.await.unwrap_or_else(|error| {
            let failure = ExitError::new(Exit::Degraded, format!("a look ended: {error}"));
            Look { failure: Some(failure), ..Look::default() }
        });
        self.pending = None;
        look
    }

    /// Makes the next look return the credentials again: those of the last one could not be used.
    pub(crate) fn forget(&self) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).forget();
    }

    /// Waits for the next credentials, indefinitely. It is safe to cancel.
    pub(crate) async fn next(&mut self) -> Credentials {
        loop {
            if self.pending.is_none() {
                self.polls.tick().await;
                self.begin();
            }
            if let Some(credentials) = self.finish().await.credentials {
                return credentials;
            }
        }
    }
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
