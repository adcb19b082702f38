//! This machine's membership in another machine's mesh: its key, and the certificate for it. It
//! decides when a key is kept and when it is replaced.
//!
//! ```text
//! identities/<ca>/ca.pem       the CA of the mesh
//! identities/<ca>/identity.pem this machine's key and certificate, 0600
//! identities/<ca>/key.pem      a key that has no certificate yet, 0600
//! ```

use std::path::{Path, PathBuf};

use adit_tokio::core::tls::KeyDigest;
use rcgen::KeyPair;

use super::mesh::certificate;
use crate::base::exit::{Exit, ExitError};
use crate::homedir::{Home, store};

/// This machine's certificate in another machine's mesh.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    directory: PathBuf,
}

impl Membership {
    /// Returns the membership in the mesh of a CA, certified or not.
    pub(crate) fn of(home: &Home, ca: KeyDigest) -> Self {
        Self::named(home, &ca.to_string())
    }

    /// Returns the same by the digest of the CA's key in hexadecimal.
    pub(crate) fn named(home: &Home, ca: &str) -> Self {
        Self { directory: home.identity(ca) }
    }

    /// Returns all memberships of a home.
    pub(crate) fn all(home: &Home) -> Vec<Self> {
        let identities = home.identity("");
        let Ok(entries) = std::fs::read_dir(identities) else { return Vec::new() };
        let mut all: Vec<_> = entries
            .filter_map(|entry| Some(Self { directory: entry.ok()?.path() }))
            .filter(Self::is_certified)
            .collect();
        all.sort_by(|a, b| a.directory.cmp(&b.directory));
        all
    }

    /// Removes this machine's key and certificate in the mesh.
    ///
    /// # Errors
    /// A sentence about the directory.
    pub(crate) fn remove(&self) -> Result<(), ExitError> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(store::cannot_write(&self.directory, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn identity_path(&self) -> PathBuf {
        self.directory.join("identity.pem")
    }

    /// Returns the path of the CA's certificate.
    pub(crate) fn ca_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Describes its certificate.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn describe(&self) -> Result<certificate::CertificateDescription, ExitError> {
        certificate::describe_file(&self.identity_path())
    }

    /// Returns the key for a certificate request: the present one, or one that is kept until its
    /// certificate arrives, so that a lost answer can be requested again.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn key(&self) -> Result<KeyPair, ExitError> {
        match read_key(&self.identity_path())? {
            Some(present) => Ok(present),
            None => self.next_key(),
        }
    }

    /// Returns a key without a certificate, kept until one arrives.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn next_key(&self) -> Result<KeyPair, ExitError> {
        let path = self.directory.join("key.pem");
        if let Some(kept) = read_key(&path)? {
            return Ok(kept);
        }
        store::directory(&self.directory)?;
        let key = new_key()?;
        store::replace(&path, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// Returns true if there is a certificate.
    pub(crate) fn is_certified(&self) -> bool {
        self.identity_path().exists()
    }

    /// Keeps a certificate that arrived, with its key, in one step.
    ///
    /// # Errors
    /// A sentence about a file, or about a certificate that is not for this key.
    pub(crate) fn keep(&self, key: &KeyPair, certificate: &str, ca: &str) -> Result<(), ExitError> {
        use rcgen::PublicKeyData as _;
        let own = KeyDigest::of_spki(&key.subject_public_key_info());
        let said = certificate::describe_pem(certificate);
        if said.is_none_or(|said| said.key != own) {
            let sentence =
                "the connector answered with a certificate for another key; tell its owner";
            return Err(ExitError::new(Exit::Degraded, sentence));
        }
        let pinned = self.directory.file_name().and_then(|name| name.to_str());
        if certificate::sole_key_of_pem(ca).map(|key| key.to_string()).as_deref() != pinned {
            let sentence = "the connector answered with another CA than that of its invite, or with \
                            several; tell its owner";
            return Err(ExitError::new(Exit::Authentication, sentence));
        }
        store::directory(&self.directory)?;
        store::replace(&self.ca_path(), ca.as_bytes())?;
        let both = format!("{}{certificate}", key.serialize_pem());
        store::replace(&self.identity_path(), both.as_bytes())?;
        // It is no longer needed; one that cannot be removed is ignored.
        let _ = std::fs::remove_file(self.directory.join("key.pem"));
        Ok(())
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, ExitError> {
    let Some(pem) = store::read(path)? else { return Ok(None) };
    let key = KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(|error| {
        ExitError::usage(format!(
            "{}: {error}; remove it, and ask for a new invite",
            path.display()
        ))
    })?;
    Ok(Some(key))
}

/// Returns a new ECDSA P-256 key.
///
/// # Errors
/// If the system cannot make one.
fn new_key() -> Result<KeyPair, ExitError> {
    KeyPair::generate()
        .map_err(|error| ExitError::new(Exit::Degraded, format!("no key can be made: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    #[test]
    fn the_key_stays_the_same_until_its_certificate_comes_and_after() {
        let scratch = Scratch::new();
        let home = Home::find(Some(scratch.path())).unwrap();
        let ca =
            rcgen::CertificateParams::default().self_signed(&new_key().unwrap()).unwrap().pem();
        let membership = Membership::of(&home, certificate::key_of_pem(&ca).unwrap());
        let first = membership.key().unwrap();
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
        let certificate = rcgen::CertificateParams::default().self_signed(&first).unwrap().pem();
        for others in [certificate.clone(), ca.clone() + &certificate, String::new()] {
            let said = membership.keep(&first, &certificate, &others).unwrap_err().to_string();
            assert!(said.contains("with another CA"), "{said}");
        }
        membership.keep(&first, &certificate, &ca).unwrap();
        assert!(!membership.directory.join("key.pem").exists());
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
        let other = new_key().unwrap();
        assert!(membership.keep(&other, &certificate, &ca).is_err());
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
    }
}
