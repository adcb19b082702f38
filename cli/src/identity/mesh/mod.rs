//! A mesh: one's own certificate authority, the devices that it certified, and its invites.
//!
//! It decides which file is written and in what order. `registry` decides who may have a
//! certificate, `certificate` the contents of one. All state of a mesh is one file, replaced in one
//! step under a lock: an invite is spent and its device registered, or neither.
//!
//! ```text
//! mesh/ca.pem          the CA's certificate
//! mesh/ca.key          its key, 0600, read only when something is signed
//! mesh/identity.pem    this machine's own key and certificate as a connector, 0600
//! mesh/registry.json   devices, invites, revocations
//! mesh/offer.json      what the connector offers, and where; written when it starts
//! mesh/lock            taken while the registry is changed
//! mesh/running         taken by the connector that runs with this identity
//! ```

pub(crate) mod certificate;
pub(crate) mod offer;
pub(crate) mod registry;
pub(crate) mod roster;

use std::path::PathBuf;
use std::time::Duration;

use adit_tokio::core::tls::KeyDigest;

use self::certificate::{CertificateAuthority, CertificateRequest, SignedCertificate, Subject};
use self::offer::ConnectorOffer;
use self::registry::{
    DeviceRole, ID, IssuedInvite, MeshRegistry, Refusal, RegisteredDevice, SCHEMA,
};
use crate::address::RelayAddress;
use crate::base::exit::{Exit, ExitError, Obstacle};
use crate::base::system::{random, unix_now};
use crate::base::units;
use crate::homedir::lock::Lock;
use crate::homedir::trusted::Stamp;
use crate::homedir::{Home, store};

/// 2026-01-01: a clock before this time was never set, as that of a machine without a battery. A
/// certificate from that time would have ended when the clock is right.
const EARLIEST: u64 = 1_767_225_600;

/// Returns a new id of a device: forty-eight random bits.
fn fresh_id() -> Result<String, ExitError> {
    let mut bytes = [0; 6];
    random(&mut bytes)?;
    Ok(format!("{ID}{}", data_encoding::HEXLOWER.encode(&bytes)))
}

/// Why a device gets no certificate: it is refused, or this machine failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Broken(#[from] ExitError),
}

impl From<Denied> for ExitError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => Self::usage(refusal.to_string()),
            Denied::Broken(stop) => stop,
        }
    }
}

/// Prefix of the directory in which a mesh is made.
const UNFINISHED: &str = ".mesh-";

/// Age at which such a directory was left behind by a crash: a mesh is made in milliseconds.
const UNFINISHED_LIFE: Duration = Duration::from_secs(60);

/// Removes the directories, with their keys, of processes that crashed while they made a mesh.
fn sweep(home: &Home) {
    let Ok(entries) = std::fs::read_dir(home.path()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        let age = age.ok().and_then(|at| at.elapsed().ok());
        if is_unfinished && age.is_some_and(|age| age > UNFINISHED_LIFE) {
            // One that cannot be removed is found again at the next start.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The mesh of a home.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    directory: PathBuf,
}

impl Mesh {
    /// Returns the mesh of a home, if it has one.
    pub(crate) fn open(home: &Home) -> Option<Self> {
        let directory = home.mesh();
        directory.join("registry.json").exists().then_some(Self { directory })
    }

    /// Returns the mesh of a home, for a command that requires one.
    ///
    /// # Errors
    /// That there is none, and how to make one.
    pub(crate) fn require(home: &Home) -> Result<Self, ExitError> {
        Self::open(home).ok_or_else(|| {
            ExitError::usage(format!(
                "{}: there is no mesh here yet; make one with: adit expose 3000",
                home.mesh().display()
            ))
        })
    }

    /// Returns the mesh of a home. If there is none, it makes a CA, and a certificate of it for
    /// this machine. It appears complete, and never replaces an existing one.
    ///
    /// # Errors
    /// A sentence about what could not be written.
    pub(crate) fn open_or_create(home: &Home) -> Result<Self, ExitError> {
        sweep(home);
        if let Some(mesh) = Self::open(home) {
            return Ok(mesh);
        }
        store::directory(home.path())?;
        let mut suffix = [0; 4];
        random(&mut suffix)?;
        let suffix = data_encoding::HEXLOWER.encode(&suffix);
        let beside = Self { directory: home.path().join(format!("{UNFINISHED}{suffix}")) };
        let made = beside.create(&format!("mesh-{suffix}")).and_then(|()| {
            // A directory can be renamed only to a missing or an empty one.
            match std::fs::rename(&beside.directory, home.mesh()) {
                Err(error) if Self::open(home).is_none() => {
                    Err(store::cannot_write(&home.mesh(), &error))
                }
                Ok(()) | Err(_) => store::flush_directory(home.path()),
            }
        });
        let _ = std::fs::remove_dir_all(&beside.directory);
        made?;
        Ok(Self { directory: home.mesh() })
    }

    fn create(&self, name: &str) -> Result<(), ExitError> {
        let now = unix_now();
        if now < EARLIEST {
            let sentence = format!(
                "this machine's clock says {}, which is before this program existed, and no certificate is \
                 made at that time; set the clock",
                units::date(now)
            );
            return Err(ExitError::usage(sentence).because_of(Obstacle::Clock));
        }
        store::directory(&self.directory)?;
        let authority = CertificateAuthority::new(name, now)?;
        let mut registry = MeshRegistry::new(name.to_owned());
        let (certified, pem) = self.certify_self(&authority, &mut registry, now)?;
        drop(certified);
        store::create(&self.path("ca.key"), authority.key_pem().as_bytes())?;
        store::create(&self.path("ca.pem"), authority.pem().as_bytes())?;
        store::create(&self.path("identity.pem"), pem.as_bytes())?;
        self.write(&registry)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Takes this identity for a connector, for the life of the process.
    ///
    /// # Errors
    /// If another process has it, with its id.
    pub(crate) fn claim(&self) -> Result<Lock, ExitError> {
        Lock::claim(&self.path("running"), |holder| {
            ExitError::usage(format!(
                "the identity in {} is in use by the adit of process {holder}; end that one, or \
                 expose several services with one file: adit connector -c FILE",
                self.directory.display()
            ))
        })
    }

    /// Returns the process of the connector that runs with this identity, if one does.
    pub(crate) fn holder(&self) -> Option<String> {
        Lock::holder(&self.path("running"))
    }

    /// Returns the state of the mesh.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn registry(&self) -> Result<MeshRegistry, ExitError> {
        self.parse_registry(&self.read_registry()?.0)
    }

    /// Returns the file of the state.
    pub(crate) fn registry_path(&self) -> PathBuf {
        self.path("registry.json")
    }

    fn read_registry(&self) -> Result<(Vec<u8>, Stamp), ExitError> {
        store::read_stamped(&self.registry_path())?.ok_or_else(|| self.damaged(&"it is gone"))
    }

    fn parse_registry(&self, contents: &[u8]) -> Result<MeshRegistry, ExitError> {
        let registry: MeshRegistry =
            serde_json::from_slice(contents).map_err(|error| self.damaged(&error))?;
        if registry.schema != SCHEMA {
            return Err(self.damaged(&format_args!("its shape is \"{}\"", registry.schema)));
        }
        Ok(registry)
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> ExitError {
        ExitError::usage(format!(
            "{}: this is not what adit wrote: {why}; restore it from a backup",
            self.registry_path().display()
        ))
    }

    fn write(&self, registry: &MeshRegistry) -> Result<(), ExitError> {
        let text = serde_json::to_vec_pretty(registry).map_err(|error| {
            ExitError::new(Exit::Degraded, format!("the registry is no JSON: {error}"))
        })?;
        store::replace(&self.path("registry.json"), &text)
    }

    /// Changes the state of the mesh: it is on the disk before this returns, or unchanged.
    fn transact<T>(
        &self,
        change: impl FnOnce(&mut MeshRegistry, u64) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        let _lock = Lock::wait(&self.path("lock"))?;
        let mut registry = self.registry()?;
        let before = registry.clone();
        let result = change(&mut registry, unix_now())?;
        if registry != before {
            self.write(&registry)?;
        }
        Ok(result)
    }

    fn authority(&self) -> Result<CertificateAuthority, ExitError> {
        CertificateAuthority::open(&self.path("ca.pem"), &self.path("ca.key"))
    }

    /// Returns the CA's certificate in PEM.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn ca_pem(&self) -> Result<String, ExitError> {
        certificate::read_pem(&self.path("ca.pem"))
    }

    /// Returns the key of the CA, which an invite pins.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn ca_key(&self) -> Result<KeyDigest, ExitError> {
        certificate::key_of_pem(&self.ca_pem()?)
    }

    /// Returns the file of the CA's certificate.
    pub(crate) fn ca_path(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Returns the offer of the connector that runs with this identity, or ran last.
    ///
    /// # Errors
    /// That none ever ran.
    pub(crate) fn offer(&self) -> Result<ConnectorOffer, ExitError> {
        let contents = store::read(&self.path("offer.json"))?;
        contents.and_then(|contents| serde_json::from_slice(&contents).ok()).ok_or_else(|| {
            ExitError::usage("no connector has run here yet; start one with: adit expose 3000")
        })
    }

    /// Writes the offer of a connector that starts now.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn set_offer(&self, offer: &ConnectorOffer) -> Result<(), ExitError> {
        let text = serde_json::to_vec_pretty(offer).map_err(|error| {
            ExitError::new(Exit::Degraded, format!("the offer is no JSON: {error}"))
        })?;
        store::replace(&self.path("offer.json"), &text)
    }

    /// Returns the relays of the connector that ran last, which the next one uses unless others are
    /// named.
    pub(crate) fn relays(&self) -> Vec<RelayAddress> {
        self.offer().map(|offer| offer.relays).unwrap_or_default()
    }

    /// Returns the path of this machine's own key and certificate.
    pub(crate) fn identity_path(&self) -> PathBuf {
        self.path("identity.pem")
    }

    /// Registers an invite to a service.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn invite(&self, invite: IssuedInvite) -> Result<(), Denied> {
        self.transact(|registry, now| Ok(registry.invite(invite, now)?))
    }

    /// Spends an invite on the device that made `request`.
    ///
    /// # Errors
    /// Why it gets no certificate.
    pub(crate) fn enrol(
        &self,
        invite: KeyDigest,
        request: &CertificateRequest,
        label: &str,
    ) -> Result<(RegisteredDevice, SignedCertificate), Denied> {
        let fresh = fresh_id()?;
        self.transact(|registry, now| {
            let id = registry.redeem(invite, request.key(), (label, fresh), now)?;
            self.certify(registry, &id, request, now)
        })
    }

    /// Issues another certificate to a device, for the key of `request`.
    ///
    /// # Errors
    /// Why it gets none.
    pub(crate) fn renew(
        &self,
        id: &str,
        request: &CertificateRequest,
    ) -> Result<(RegisteredDevice, SignedCertificate), Denied> {
        self.transact(|registry, now| {
            registry.renew(id, request.key())?;
            self.certify(registry, id, request, now)
        })
    }

    fn certify(
        &self,
        registry: &mut MeshRegistry,
        id: &str,
        request: &CertificateRequest,
        now: u64,
    ) -> Result<(RegisteredDevice, SignedCertificate), Denied> {
        let device = registry.certifiable(id, now)?.clone();
        let subject = Subject::of(&device, &registry.mesh);
        let life = registry.certificate_life();
        let certified = self.authority()?.sign(&subject, request, now, life)?;
        registry.certified(id, certified.serial.clone(), certified.not_after, now);
        Ok((device, certified))
    }

    /// Revokes a device: its certificates are invalid from now on.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn revoke(&self, id: &str) -> Result<RegisteredDevice, Denied> {
        self.transact(|registry, now| {
            registry.revoke(id, now)?;
            registry.lists += 1;
            registry.revoked_pem = self.authority()?.list(registry, now)?;
            Ok(registry.device(id).ok_or(Refusal::NoDevice)?.clone())
        })
    }

    /// Removes a revoked device, and frees its name.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn forget_device(&self, id: &str) -> Result<(), Denied> {
        self.transact(|registry, now| Ok(registry.forget_device(id, now)?))
    }

    /// Removes the invites that can no longer be used. Returns how many.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn prune_invites(&self) -> Result<usize, Denied> {
        self.transact(|registry, now| Ok(registry.prune_invites(now)))
    }

    /// Revokes an invite that was not used.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn revoke_invite(&self, key: KeyDigest) -> Result<(), Denied> {
        self.transact(|registry, now| Ok(registry.revoke_invite(key, now)?))
    }

    /// Sets the lifetime of certificates that are issued from now on.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn set_certificate_life(&self, life: Duration) -> Result<(), Denied> {
        self.transact(|registry, _| {
            registry.certificate_seconds = Some(life.as_secs().max(1));
            Ok(())
        })
    }

    /// Makes a new key and a new certificate for this machine.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn rotate(&self) -> Result<SignedCertificate, Denied> {
        let authority = self.authority()?;
        let (certified, pem) =
            self.transact(|registry, now| self.certify_self(&authority, registry, now))?;
        // Until this is written the old one is used, which remains valid.
        store::replace(&self.path("identity.pem"), pem.as_bytes())?;
        Ok(certified)
    }

    /// Renews this machine's own certificate when it is due, or was signed while the clock was
    /// ahead.
    ///
    /// # Errors
    /// A sentence about a file, or about a clock at whose time no certificate of the CA is valid.
    pub(crate) fn keep_current(&self) -> Result<(), ExitError> {
        let now = unix_now();
        self.check_clock(now)?;
        let own = certificate::describe_file(&self.path("identity.pem"))?;
        if own.is_due(now) || now < own.not_before {
            self.rotate()?;
            tracing::info!("this machine has a new certificate");
        }
        Ok(())
    }

    fn check_clock(&self, now: u64) -> Result<(), ExitError> {
        let ca = certificate::describe_file(&self.path("ca.pem"))?;
        if (ca.not_before..=ca.not_after).contains(&now) {
            return Ok(());
        }
        let (from, to) = (units::date(ca.not_before), units::date(ca.not_after));
        let sentence = format!(
            "{}: this CA is good from {from} to {to}, and this machine's clock says {}; set the clock, or \
             move the directory away to begin a new mesh",
            self.path("ca.pem").display(),
            units::date(now)
        );
        Err(ExitError::usage(sentence).because_of(Obstacle::Clock))
    }

    /// Returns a key and a certificate for this machine, as one PEM text.
    fn certify_self(
        &self,
        authority: &CertificateAuthority,
        registry: &mut MeshRegistry,
        now: u64,
    ) -> Result<(SignedCertificate, String), Denied> {
        let (key_pem, request) = CertificateRequest::new_key()?;
        let id = match registry.devices.iter_mut().find(|d| d.role == DeviceRole::Connector) {
            Some(own) => {
                own.key = request.key();
                own.id.clone()
            }
            None => {
                let id = fresh_id()?;
                registry.devices.push(RegisteredDevice {
                    id: id.clone(),
                    name: None,
                    label: certificate::this_machine(),
                    role: DeviceRole::Connector,
                    key: request.key(),
                    services: std::collections::BTreeSet::new(),
                    serials: std::collections::BTreeMap::new(),
                    enrolled: now,
                    revoked: None,
                });
                id
            }
        };
        let device = registry.device(&id).ok_or(Refusal::NoDevice)?.clone();
        let subject = Subject::of(&device, &registry.mesh);
        let life = registry.certificate_life();
        let certified = authority.sign(&subject, &request, now, life)?;
        registry.certified(&id, certified.serial.clone(), certified.not_after, now);
        let pem = format!("{key_pem}{}{}", certified.pem, authority.pem());
        Ok((certified, pem))
    }
}

#[cfg(test)]
mod tests;
