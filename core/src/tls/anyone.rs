//! Dialers of a node without trust anchors: each is its key, and a member of the mesh whose CA it
//! presents and that did issue its certificate. It never refuses a key because of its certificate,
//! and accepts a key only with the signature that proves its possession (RFC 8446 §4.4.3).

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::credential::Credential;
use super::trust::KeyDigest;
use super::verify::END_OF_TIME;

/// Certificates after the leaf that are checked: a CA with two intermediates, and one to spare. A
/// dialer chooses their number, and each costs a signature check or more.
const MAX_AUTHORITIES: usize = 4;

/// Accepts every dialer that holds the key of the certificate that it presents.
#[derive(Debug)]
pub(super) struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl Anyone {
    pub(super) fn new(provider: &Arc<CryptoProvider>) -> Self {
        Self { provider: provider.clone() }
    }

    /// Returns the identity at `unix` of the peer that presented this chain.
    pub(super) fn credential(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        unix: Duration,
    ) -> Result<Credential, Error> {
        let key = key_of(leaf)?;
        let rest = rest.get(..MAX_AUTHORITIES).unwrap_or(rest);
        // The CA is last by custom (RFC 8446 §4.4.2), and those between it and the leaf issued the
        // leaf as well: the mesh is that of the last.
        let found = rest.iter().rev().find_map(|authority| {
            let mesh = KeyDigest::of_certificate(authority)?;
            let may_serve = self.is_issued(leaf, authority, rest, unix).ok()?;
            let end = self.end(leaf, authority, rest);
            let member = Credential::member(leaf, end);
            Some(Credential { mesh: Some(mesh), may_serve, ..member })
        });
        Ok(found.unwrap_or_else(|| Credential::guest(key, None)))
    }

    /// Checks whether `authority` issued the leaf, directly or through intermediates, for either
    /// use. Returns true if it may accept connections.
    fn is_issued(
        &self,
        leaf: &CertificateDer<'_>,
        authority: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        unix: Duration,
    ) -> Result<bool, webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let anchor = [webpki::anchor_from_trusted_cert(authority)?];
        let algorithms = self.provider.signature_verification_algorithms.all;
        let at = UnixTime::since_unix_epoch(unix);
        let verify = |usage: KeyUsage| {
            leaf.verify_for_usage(algorithms, &anchor, rest, at, usage, None, None).map(drop)
        };
        match verify(KeyUsage::server_auth()) {
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                verify(KeyUsage::client_auth()).map(|()| false)
            }
            other => other.map(|()| true),
        }
    }

    /// Returns when a valid leaf expires: the error of a check at the end of time.
    fn end(
        &self,
        leaf: &CertificateDer<'_>,
        authority: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
    ) -> Option<Duration> {
        match self.is_issued(leaf, authority, rest, END_OF_TIME) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                Some(Duration::from_secs(not_after.as_secs()))
            }
            Ok(_) | Err(_) => None,
        }
    }
}

fn key_of(leaf: &CertificateDer<'_>) -> Result<KeyDigest, Error> {
    let wrong = Error::InvalidCertificate(CertificateError::BadEncoding);
    KeyDigest::of_certificate(leaf).ok_or(wrong)
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(leaf).map(|_| ClientCertVerified::assertion())
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
