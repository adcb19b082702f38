//! TLS around a byte stream: what it shows, and what it checks.
//!
//! The QUIC connection inside authenticates both sides and encrypts everything; it would be as safe
//! in a bare TCP stream. TLS is there for what stands between: a firewall that lets TLS through and
//! nothing else. A client that knows the relay's key pins it, so that a stream that ends at another
//! machine fails immediately, rather than after the silence of a connection that cannot be.
//!
//! No application protocol is offered (RFC 7301): a server that promises `http/1.1` is treated as
//! HTTP by proxies, and this is none. No session is resumed; streams are few and long.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::{Identity, KeyDigest, TlsError};

/// Makes the configuration of a listener, which shows this identity.
///
/// # Errors
/// [`TlsError`] when the identity or the provider cannot be used.
pub(super) fn server_config(
    identity: &Identity,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(NoTime))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TlsError::Provider(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(identity.chain().to_vec(), identity.clone_key())
        .map_err(TlsError::Identity)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Begins a session at a listener.
pub(super) fn accept(config: Arc<ServerConfig>) -> Result<Connection, rustls::Error> {
    ServerConnection::new(config).map(Into::into)
}

/// Begins a session with a relay: with the key that is known, or with any where none is. The server
/// name is `name`, or the address, which TLS does not send (RFC 6066 §3).
pub(super) fn connect(
    pin: Option<KeyDigest>,
    name: &str,
    address: IpAddr,
    provider: Arc<CryptoProvider>,
) -> Result<Connection, rustls::Error> {
    let mut config = ClientConfig::builder_with_details(provider.clone(), Arc::new(NoTime))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedKeyVerifier { pin, provider }))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::from(address));
    ClientConnection::new(Arc::new(config), name).map(Into::into)
}

/// No check here depends on the time.
#[derive(Debug)]
struct NoTime;

impl TimeProvider for NoTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

/// Checks the key alone: neither names, nor times, nor who signed.
#[derive(Debug)]
struct PinnedKeyVerifier {
    pin: Option<KeyDigest>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pin {
            Some(pin) if KeyDigest::of_certificate(end_entity) != Some(pin) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
