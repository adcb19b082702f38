//! Throwaway identities for the demonstration: a private CA, and device certificates that live for
//! a day. They are never written to disk.

use std::time::{Duration, SystemTime};

use adit_tokio::core::tls::{Identity, Tls, Trust};
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How far certificates are backdated, for clocks that are slightly wrong.
const HOUR: Duration = Duration::from_secs(3_600);

/// A certificate authority that this process alone knows.
#[derive(Debug)]
pub(crate) struct ThrowawayAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl ThrowawayAuthority {
    /// Returns a new one (ECDSA P-256).
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params("adit demo CA", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Returns the identity of a device with this name, and this authority as the only trust
    /// anchor.
    pub(crate) fn device(&self, name: &str) -> anyhow::Result<Tls> {
        let key = KeyPair::generate()?;
        let mut params = params(name, vec![name.to_owned()])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let identity = Identity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes())
            .context("the new certificate cannot be used")?;
        Ok(Tls::new(identity, self.trust()?))
    }

    /// Returns its certificate in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate
    }

    /// Returns this authority as the only trust anchor.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        Ok(Trust::from_pem(self.certificate.as_bytes())?)
    }
}

fn params(name: &str, san: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(san)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + DAY).into();
    Ok(params)
}
