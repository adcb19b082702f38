//! Identities and trust: from PEM to TLS configurations for the transport.
//!
//! TLS 1.3 only, both sides always present a certificate, ALPN `adit/1`. It reads no files: the
//! caller passes PEM text. Certificates are checked against the node's own wall clock.

mod anyone;
mod credential;
mod identity;
mod pinned;
mod trust;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

pub use self::credential::{Credential, Standing};
pub use self::identity::Identity;
pub(crate) use self::identity::certificates;
pub use self::trust::{InvalidKeyDigest, KeyDigest, Trust};
pub(crate) use self::verify::Verifiers;
use crate::clock::WallClock;

/// The application protocol of this version (RFC 7301).
pub const ALPN: &[u8] = b"adit/1";

/// An error in the TLS material of the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text is not PEM, or has no item of the kind looked for.
    #[error("no {what} in the PEM text: {why}")]
    Pem {
        /// The expected item.
        what: &'static str,
        /// The message of the parser.
        why: String,
    },
    /// The key does not match the certificate, or its kind is not supported.
    #[error("the certificate and key cannot be used: {0}")]
    Identity(rustls::Error),
    /// The CA cannot be used.
    #[error("the CA certificate cannot be used: {0}")]
    Trust(String),
    /// The provider lacks TLS 1.3 with AES-128-GCM, which QUIC requires.
    #[error("the TLS provider cannot do QUIC: {0}")]
    Provider(String),
}

/// The identity and the trust of a node.
#[derive(Debug, Clone)]
pub struct Tls {
    identity: Identity,
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// Returns mutual TLS with the default provider: aws-lc-rs with post-quantum key exchange, or
    /// ring where only that feature is enabled. AES-128-GCM comes first: measured 1.3 times as fast
    /// as ChaCha20 where the processor has AES instructions.
    #[must_use]
    pub fn new(identity: Identity, trust: Trust) -> Self {
        Self::with_provider(identity, trust, default_provider())
    }

    /// Returns mutual TLS with the caller's provider.
    #[must_use]
    pub const fn with_provider(
        identity: Identity,
        trust: Trust,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { identity, trust, provider }
    }

    /// Returns the provider of cryptography.
    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// Who the node is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns what the node trusts.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Returns a secret of this identity for one purpose: derived from its private key, so that it
    /// is the same after a restart.
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        #[cfg(not(feature = "ring"))]
        use aws_lc_rs::hmac;
        #[cfg(feature = "ring")]
        use ring::hmac;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.identity.key.secret_der());
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        out
    }

    pub(crate) fn verifiers(&self) -> Result<Verifiers, TlsError> {
        Verifiers::new(&self.trust, &self.provider)
    }

    pub(crate) fn client(
        &self,
        verifiers: &Verifiers,
        wall: &WallClock,
    ) -> Result<rustls::ClientConfig, TlsError> {
        let unavailable = || TlsError::Trust("trust in anyone is for accepting alone".into());
        let mut config = rustls::ClientConfig::builder_with_details(
            self.provider.clone(),
            Arc::new(NodeTime(wall.clone())),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TlsError::Provider(e.to_string()))?
        // Not the verifier of rustls itself, but one that wraps it: see `verify.rs`.
        .dangerous()
        .with_custom_certificate_verifier(verifiers.of_acceptors().ok_or_else(unavailable)?)
        .with_client_auth_cert(self.identity.chain.clone(), self.identity.key.clone_key())
        .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the certificate checks that revocation relies on.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    pub(crate) fn server(
        &self,
        verifiers: &Verifiers,
        wall: &WallClock,
    ) -> Result<rustls::ServerConfig, TlsError> {
        let unavailable = || TlsError::Trust("a pinned key is for dialling alone".into());
        let mut config = rustls::ServerConfig::builder_with_details(
            self.provider.clone(),
            Arc::new(NodeTime(wall.clone())),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TlsError::Provider(e.to_string()))?
        .with_client_cert_verifier(verifiers.of_diallers().ok_or_else(unavailable)?)
        .with_single_cert(self.identity.chain.clone(), self.identity.key.clone_key())
        .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Returns the provider of the enabled feature, with AES-128-GCM first.
#[must_use]
pub fn default_provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// Returns the SHA-256 digest, which needs no secret and no provider.
fn sha256(data: &[u8]) -> [u8; 32] {
    #[cfg(not(feature = "ring"))]
    use aws_lc_rs::digest;
    #[cfg(feature = "ring")]
    use ring::digest;
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

#[derive(Debug)]
struct NodeTime(WallClock);

impl TimeProvider for NodeTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix()))
    }
}

#[cfg(test)]
mod tests;
