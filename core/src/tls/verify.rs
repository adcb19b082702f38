//! The checks of certificates, in the handshake and again while a connection lives.
//!
//! webpki checks chains, names, usages, times and revocation; this module decides what they are
//! checked against. Every verifier below delegates, and none skips the proof that the peer holds
//! the leaf's private key (RFC 8446 §4.4.3).

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;
use super::anyone::Anyone;
use super::credential::Credential;
use super::pinned::{Pin, PinnedVerifier};
use super::trust::{Anchors, KeyDigest, Trust};
use crate::error::{Code, Failure};

/// Later than the end of any certificate (9999-12-31, RFC 5280 §4.1.2.5).
pub(super) const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// Checks the certificates of peers: of acceptors, if any may be dialled, and of dialers, if any
/// may dial.
#[derive(Debug, Clone)]
pub(crate) struct Verifiers {
    acceptors: Option<Arc<dyn ServerCertVerifier>>,
    diallers: Diallers,
}

/// Which dialers are accepted.
#[derive(Debug, Clone)]
enum Diallers {
    Rejected,
    Members(Arc<Members>),
    Anyone(Arc<Anyone>),
}

impl Verifiers {
    pub(super) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let pinned = |pin| {
            let pinned = PinnedVerifier { pin, trust: trust.clone(), provider: provider.clone() };
            (Some(Arc::new(pinned) as Arc<dyn ServerCertVerifier>), Diallers::Rejected)
        };
        let (acceptors, diallers) = match &trust.anchors {
            Anchors::Roots(roots) => {
                let members = Members::new(roots, trust, provider)?;
                let acceptors = acceptors(roots.clone(), trust, provider)
                    .map_err(|e| TlsError::Trust(e.to_string()))?;
                (Some(acceptors), Diallers::Members(Arc::new(members)))
            }
            Anchors::Pin(pin) => pinned(Pin::Authority(*pin)),
            Anchors::Leaf(pin) => pinned(Pin::Leaf(*pin)),
            Anchors::Anyone => (None, Diallers::Anyone(Arc::new(Anyone::new(provider)))),
        };
        Ok(Self { acceptors, diallers })
    }

    pub(super) fn of_acceptors(&self) -> Option<Arc<dyn ServerCertVerifier>> {
        self.acceptors.clone()
    }

    pub(super) fn of_diallers(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        match &self.diallers {
            Diallers::Rejected => None,
            Diallers::Members(members) => Some(members.clone()),
            Diallers::Anyone(anyone) => Some(anyone.clone()),
        }
    }

    /// Returns the identity at `unix` of a peer that was dialled under `name`, from the chain it
    /// presented.
    pub(crate) fn acceptor(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
        unix: Duration,
    ) -> Result<Credential, Failure> {
        let (leaf, rest) = chain.split_first().ok_or_else(nothing_presented)?;
        let name = ServerName::try_from(name)
            .map_err(|e| Failure::new(Code::Misconfigured, e.to_string()))?;
        let nobody = || Failure::new(Code::Misconfigured, "this node may dial nobody");
        let acceptors = self.acceptors.as_ref().ok_or_else(nobody)?;
        let check = |unix| {
            let at = UnixTime::since_unix_epoch(unix);
            acceptors.verify_server_cert(leaf, rest, &name, &[], at).map(drop)
        };
        check(unix).map_err(|e| refusal(&e))?;
        Ok(Credential::member(leaf, end(check)))
    }

    /// Returns the identity at `unix` of a peer that dialled, from the chain it presented.
    pub(crate) fn dialler(
        &self,
        chain: &[CertificateDer<'_>],
        unix: Duration,
    ) -> Result<Credential, Failure> {
        let (leaf, rest) = chain.split_first().ok_or_else(nothing_presented)?;
        match &self.diallers {
            Diallers::Rejected => {
                Err(Failure::new(Code::Unauthenticated, "nobody may dial this node"))
            }
            Diallers::Members(members) => members.credential(leaf, rest, unix),
            Diallers::Anyone(anyone) => {
                anyone.credential(leaf, rest, unix).map_err(|error| refusal(&error))
            }
        }
    }
}

/// Returns when a valid chain expires: the error of a check at the end of time.
fn end(check: impl Fn(Duration) -> Result<(), Error>) -> Option<Duration> {
    match check(END_OF_TIME) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(Duration::from_secs(not_after.as_secs()))
        }
        Ok(()) | Err(_) => None,
    }
}

fn nothing_presented() -> Failure {
    Failure::new(Code::Unauthenticated, "the peer presented no certificate")
}

/// Returns why a certificate is not valid any more, for the peer that presented it.
fn refusal(error: &Error) -> Failure {
    let about = |reason: fn(&CertificateError) -> bool| matches!(error, Error::InvalidCertificate(e) if reason(e));
    let sentence = if about(|e| *e == CertificateError::Revoked) {
        "the certificate was revoked".to_owned()
    } else if about(|e| {
        matches!(e, CertificateError::Expired | CertificateError::ExpiredContext { .. })
    }) {
        "the certificate has expired".to_owned()
    } else {
        error.to_string()
    };
    Failure::new(Code::Unauthenticated, sentence)
}

/// Acceptors with a certificate of these roots.
pub(super) fn acceptors(
    roots: Arc<RootCertStore>,
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::client::VerifierBuilderError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .with_crls(trust.revoked.iter().cloned())
        .allow_unknown_revocation_status()
        .build()?;
    Ok(verifier)
}

/// Members by their certificate, guests by their key alone.
#[derive(Debug)]
struct Members {
    members: Arc<dyn ClientCertVerifier>,
    trust: Trust,
}

impl Members {
    fn new(
        roots: &Arc<RootCertStore>,
        trust: &Trust,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let members = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(trust.revoked.iter().cloned())
            // A list applies only to certificates of its own issuer.
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| TlsError::Trust(e.to_string()))?;
        Ok(Self { members, trust: trust.clone() })
    }

    fn credential(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        unix: Duration,
    ) -> Result<Credential, Failure> {
        let check = |unix| {
            let at = UnixTime::since_unix_epoch(unix);
            self.members.verify_client_cert(leaf, rest, at).map(drop)
        };
        match check(unix) {
            Ok(()) => Ok(Credential::member(leaf, end(check))),
            Err(error) => {
                let (key, until) = self.guest(leaf, unix).ok_or_else(|| refusal(&error))?;
                Ok(Credential::guest(key, Some(until)))
            }
        }
    }

    fn guest(&self, leaf: &CertificateDer<'_>, unix: Duration) -> Option<(KeyDigest, Duration)> {
        let key = KeyDigest::of_certificate(leaf)?;
        let until = *self.trust.guests.get(&key)?;
        (unix.as_secs() <= until.as_secs()).then_some((key, until))
    }
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.members.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.members.verify_client_cert(leaf, rest, now).or_else(|error| {
            let guest = self.guest(leaf, Duration::from_secs(now.as_secs()));
            guest.map(|_| ClientCertVerified::assertion()).ok_or(error)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.members.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.members.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.supported_verify_schemes()
    }
}
