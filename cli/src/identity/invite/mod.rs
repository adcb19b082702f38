//! The text of an invite: what a person copies from one machine to the other.
//!
//! It contains all that a new device needs to find a connector, to verify it, and to prove that it
//! was invited (docs/protocol.md, "Invites"). It decides the format alone; `mesh` decides what an
//! invite grants.

mod text;

use std::fmt;

use adit_tokio::core::ServiceName;
use adit_tokio::core::tls::{Identity, KeyDigest};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) use self::text::seal;
use crate::address::{HostPort, RelayAddress};
use crate::base::exit::{Exit, ExitError};
use crate::base::system::random;

/// The one-use secret: an Ed25519 private key. The connector keeps only the hash of its public key.
/// It is proven as a TLS client key, so that it is never transmitted (RFC 8446 §4.4.3).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Returns a new secret from the system's randomness.
    ///
    /// # Errors
    /// If the system has none.
    pub(crate) fn new() -> Result<Self, ExitError> {
        let mut bytes = [0; 32];
        random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the TLS identity that proves possession of the secret, and the digest by which the
    /// connector identifies it. The certificate around the key has no meaning.
    ///
    /// # Errors
    /// If it cannot be made, which would be a bug.
    pub(crate) fn identity(&self) -> Result<(Identity, KeyDigest), ExitError> {
        let broken = |why: &dyn fmt::Display| {
            ExitError::new(Exit::Degraded, format!("the invite's key cannot be used: {why}"))
        };
        // An Ed25519 private key in PKCS#8 is its seed behind these bytes (RFC 8410 §7).
        let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06];
        der.extend([0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]);
        der.extend(self.0);
        let der = PrivatePkcs8KeyDer::from(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
            .map_err(|error| broken(&error))?;
        let certificate = CertificateParams::default()
            .self_signed(&key)
            .map_err(|error| broken(&error))?
            .der()
            .clone();
        let digest = KeyDigest::of_certificate(&certificate);
        let digest = digest.ok_or_else(|| broken(&"its certificate is none"))?;
        Ok((Identity::new(vec![certificate], PrivateKeyDer::Pkcs8(der)), digest))
    }
}

/// The contents of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) secret: Secret,
    /// The CA that issued the connector's certificate, by its key.
    pub(crate) ca: KeyDigest,
    /// The name in the connector's certificate.
    pub(crate) connector: String,
    pub(crate) service: ServiceName,
    /// The port of the service at the connector, which is a good local port for it.
    pub(crate) port: Option<u16>,
    /// Addresses at which the connector may be reached.
    pub(crate) addresses: Vec<HostPort>,
    /// Relays by which it may be reached.
    pub(crate) relays: Vec<RelayAddress>,
    /// When it expires, in seconds since the Unix epoch.
    pub(crate) expires: u64,
}

impl Invite {
    /// Returns true if a word is meant as an invite, of this version or another, rather than as a
    /// name.
    pub(crate) fn is_meant_by(word: &str) -> bool {
        text::begin(word).is_some()
    }

    /// Reads the text of an invite. What terminals, mail and chats add around and within it is
    /// ignored, and so is the command that was pasted with it.
    ///
    /// # Errors
    /// What is wrong with it, and the next step.
    pub(crate) fn parse(text: &str) -> Result<Self, ExitError> {
        if let Some(version) = text::later_version(text) {
            return Err(ExitError::usage(format!(
                "this invite is of another version of adit, which this one cannot read: its format \
                 is {version}, and adit {} reads 1; install the adit that made it here",
                env!("CARGO_PKG_VERSION")
            )));
        }
        text::read(text).map_err(|wrong| {
            ExitError::usage(format!(
                "{wrong}; copy it whole, or ask for a new one: adit invite new"
            ))
        })
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::write(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_of_any_version_differs_from_a_name() {
        for (word, is_invite) in [
            ("adit1_AA", true),
            (" adit1_", true),
            ("adit12_", true),
            ("`adit1_AA`", true),
            ("adit connect adit1_AA", true),
            ("my-adit1_AA", false),
            ("adit_db", false),
            ("web", false),
        ] {
            assert_eq!(Invite::is_meant_by(word), is_invite, "{word}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let secret = Secret(*b"canary canary canary canary cana");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let (identity, _) = secret.identity().unwrap();
        assert!(!format!("{identity:?}").contains("99, 97, 110"));
    }

    #[test]
    fn equal_secrets_make_equal_keys_and_others_make_others() {
        let digest = |byte| Secret([byte; 32]).identity().unwrap().1;
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
        assert_ne!(Secret::new().unwrap(), Secret::new().unwrap());
    }
}
