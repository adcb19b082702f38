//! Acceptors that are trusted by the digest of a key. It decides which certificate a pin is
//! compared with and what else of it has to be valid; it never trusts a digest without the proof
//! that the peer holds the leaf's private key (RFC 8446 §4.4.3).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::trust::{KeyDigest, Trust};
use super::verify::acceptors;

/// Which key is pinned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pin {
    /// The key of the CA, which is presented along with a certificate that it issued.
    Authority(KeyDigest),
    /// The acceptor's own, regardless of the issuer and the lifetime of its certificate.
    Leaf(KeyDigest),
}

/// Accepts acceptors with the pinned key, or with a certificate of the CA that has it.
#[derive(Debug)]
pub(super) struct PinnedVerifier {
    pub(super) pin: Pin,
    pub(super) trust: Trust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    fn issued(
        &self,
        pin: KeyDigest,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = |c: &&CertificateDer<'_>| KeyDigest::of_certificate(c) == Some(pin);
        let root = rest.iter().find(pinned).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        acceptors(Arc::new(roots), &self.trust, &self.provider)
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(leaf, rest, server_name, &[], now)
    }
}

/// The peer has proven another key than the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("it has another key than the expected one")]
struct OtherKey;

fn unknown() -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(OtherKey))))
}

fn known(
    pin: KeyDigest,
    leaf: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    if KeyDigest::of_certificate(leaf) != Some(pin) {
        return Err(unknown());
    }
    verify_server_name(&ParsedCertificate::try_from(leaf)?, server_name)?;
    Ok(ServerCertVerified::assertion())
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pin {
            Pin::Authority(pin) => self.issued(pin, leaf, rest, server_name, now),
            Pin::Leaf(pin) => known(pin, leaf, server_name),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
