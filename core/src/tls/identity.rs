//! The identity of a node: a certificate chain and its private key, read from PEM. It reads no
//! files.

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, default_provider};

/// A certificate chain, leaf first, and its private key. The key is never logged: `Debug` does not
/// show it.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads a chain and a key (PKCS#8, PKCS#1 or SEC1) from PEM text.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either is missing or malformed.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|e| TlsError::Pem { what: "private key", why: e.to_string() })?;
        Ok(Self { chain: certificates(chain)?, key })
    }

    /// Returns an identity from DER.
    #[must_use]
    pub const fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// Checks that the key is of a supported kind and fits the first certificate.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when it does not.
    pub fn check(&self) -> Result<(), TlsError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &default_provider())
            .map(|_| ())
            .map_err(TlsError::Identity)
    }

    /// The same, and these certificates (PEM) are presented after its own: a node shows a relay
    /// the CA of its mesh this way, and a device that has pinned the CA needs to see it.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is none, or one is malformed.
    pub fn presenting(mut self, authorities: &[u8]) -> Result<Self, TlsError> {
        self.chain.extend(certificates(authorities)?);
        Ok(self)
    }

    /// Returns a copy of the private key, for a TLS configuration.
    pub(crate) fn clone_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// Returns every certificate of a PEM text, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if list.is_empty() => {
            Err(TlsError::Pem { what: "certificate", why: "there is none".into() })
        }
        Ok(list) => Ok(list),
        Err(e) => Err(TlsError::Pem { what: "certificate", why: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::PrivatePkcs8KeyDer;

    #[test]
    fn the_key_is_not_shown() {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(b"canary".to_vec()));
        let shown = format!("{:?}", Identity::new(vec![CertificateDer::from(vec![1])], key));
        assert_eq!(shown, "Identity { certificates: 1, .. }");
    }
}
