//! A certificate authority in memory: it issues certificates with the usages and names that the
//! other end checks (docs/protocol.md, "Identity"). For examples, tests and programs that certify a
//! few devices themselves; any other CA works equally.
//!
//! It decides which key signs which certificate, for which use and for how long. It reads no clock
//! and stores no file. Keys come from the TLS provider's source of randomness, like those of
//! handshakes.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::{Identity, Trust};

const DAY: Duration = Duration::from_secs(86_400);

/// How far before the present a certificate begins, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// How long a CA of [`Authority::new`] is good: 10 years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * DAY.as_secs());

/// How long a certificate of [`Authority::issue`] is good: 365 days.
const DEVICE_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The name cannot be part of a certificate.
    #[error("{name:?} is no DNS name: {why}")]
    Name {
        /// The name.
        name: String,
        /// The error.
        why: String,
    },
    /// The provider cannot create or use a key, or a date is outside the range of X.509.
    #[error("cannot make a certificate: {0}")]
    Signing(String),
}

/// The permitted use of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Dials only: extended key usage `clientAuth`.
    Agent,
    /// Accepts, and dials its relays: `serverAuth` and `clientAuth`.
    Connector,
    /// Accepts only: `serverAuth`.
    Relay,
}

impl Role {
    /// Returns the URI in a certificate of this role, if there is one.
    const fn uri(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("adit:role:agent"),
            Self::Connector => Some("adit:role:connector"),
            Self::Relay => None,
        }
    }

    fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Agent => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Self::Connector => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Self::Relay => vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

/// When a certificate is valid, both ends included, as time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Validity {
    /// The first instant, in whole seconds.
    pub not_before: Duration,
    /// The last instant, in whole seconds.
    pub not_after: Duration,
}

impl Validity {
    /// Returns the validity of a certificate that is signed at `unix`, the time since the Unix
    /// epoch, and is good for `life`. It begins an hour earlier, for clocks that are behind.
    #[must_use]
    pub const fn starting(unix: Duration, life: Duration) -> Self {
        Self { not_before: unix.saturating_sub(BACKDATED), not_after: unix.saturating_add(life) }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub struct Issued(Arc<IssuedInner>);

struct IssuedInner {
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    chain_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for IssuedInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Issued {
    /// Signs a certificate for `key`.
    pub(crate) fn sign(
        params: &CertificateParams,
        key: &KeyPair,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<Self, PkiError> {
        let certificate = params.signed_by(key, issuer).map_err(signing)?;
        Ok(Self(Arc::new(IssuedInner {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })))
    }

    /// Returns the chain, leaf first, without the root.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.chain.clone()
    }

    /// Returns the private key of the leaf.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.key.clone_key())
    }

    /// Returns the chain and its key, for a node.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::new(self.chain(), self.key())
    }

    /// Returns the chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.0.chain_pem
    }

    /// Returns the private key as PKCS#8 PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.0.key_pem
    }
}

/// A certificate authority. Its key is in memory only and goes with it.
///
/// ```
/// use adit_core::config::Config;
/// use adit_core::pki::{Authority, Role};
/// use adit_core::tls::Tls;
/// use std::time::{SystemTime, UNIX_EPOCH};
///
/// let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
/// let authority = Authority::new("example mesh", now)?;
/// let connector = authority.issue("connector.example", Role::Connector, now)?;
/// let agent = authority.issue("laptop.example", Role::Agent, now)?;
/// for device in [connector, agent] {
///     Config::builder(Tls::new(device.identity(), authority.trust()?)).build()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority of this name with a new key (ECDSA P-256). Its certificate is good for 10
    /// years from `unix`, the time since the Unix epoch.
    ///
    /// # Errors
    /// [`PkiError::Signing`].
    pub fn new(name: &str, unix: Duration) -> Result<Self, PkiError> {
        Self::valid(name, Validity::starting(unix, AUTHORITY_LIFE))
    }

    /// Creates an authority with a new key and a certificate that is valid for the given time.
    ///
    /// # Errors
    /// [`PkiError::Signing`].
    pub fn valid(name: &str, validity: Validity) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(signing)?;
        Self::signed(authority_params(name, None, validity)?, key)
    }

    /// Creates the authority of a key, with a certificate of these parameters.
    pub(crate) fn signed(params: CertificateParams, key: KeyPair) -> Result<Self, PkiError> {
        let certificate = params.self_signed(&key).map_err(signing)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Returns its own certificate, which is the root of all that it signs.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns its own certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Returns trust in this authority alone, for a node.
    ///
    /// # Errors
    /// [`TlsError`](crate::tls::TlsError) if its certificate cannot be used, which does not happen.
    pub fn trust(&self) -> Result<Trust, crate::tls::TlsError> {
        Trust::new(vec![self.certificate.clone()])
    }

    /// Signs a certificate for a device of this DNS name, with a new key. It is good for 365 days
    /// from `unix`, the time since the Unix epoch, and carries the URI of its role.
    ///
    /// # Errors
    /// [`PkiError::Name`] when `name` is not a DNS name, [`PkiError::Signing`].
    pub fn issue(&self, name: &str, role: Role, unix: Duration) -> Result<Issued, PkiError> {
        self.issue_valid(name, role, Validity::starting(unix, DEVICE_LIFE))
    }

    /// Signs a certificate as [`Authority::issue`] does, good for a time of the caller's.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_valid(
        &self,
        name: &str,
        role: Role,
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        DnsName::try_from(name).map_err(|error| wrong(name, &error))?;
        let uris: Vec<&str> = role.uri().into_iter().collect();
        let params = device_params(name, role, &uris, None, validity)?;
        let key = KeyPair::generate().map_err(signing)?;
        Issued::sign(&params, &key, &self.issuer)
    }

    /// Returns what signs for it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// Returns the parameters of the certificate of a CA that certifies devices alone, and no other CA.
pub(crate) fn authority_params(
    name: &str,
    serial: Option<SerialNumber>,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut params = params(name, serial, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Returns the parameters of a device's certificate.
pub(crate) fn device_params(
    name: &str,
    role: Role,
    uris: &[&str],
    serial: Option<SerialNumber>,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let text = |text: &str| text.try_into().map_err(|error: rcgen::Error| wrong(text, &error));
    let mut params = params(name, serial, validity)?;
    params.subject_alt_names = vec![SanType::DnsName(text(name)?)];
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(text(uri)?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = role.usages();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Returns what all certificates have. Without a serial number it is the hash of the key.
pub(crate) fn params(
    name: &str,
    serial: Option<SerialNumber>,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = serial;
    let epoch = date_time_ymd(1970, 1, 1);
    let date = |time: Duration| {
        let date = time.try_into().ok().and_then(|time| epoch.checked_add(time));
        date.ok_or_else(|| PkiError::Signing("a date is after the year 9999".to_owned()))
    };
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    Ok(params)
}

fn wrong(name: &str, why: &dyn std::fmt::Display) -> PkiError {
    PkiError::Name { name: name.to_owned(), why: why.to_string() }
}

fn signing(error: rcgen::Error) -> PkiError {
    PkiError::Signing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::clock::EPOCH;
    use crate::tls::Tls;

    fn authority() -> Authority {
        Authority::new("mesh", EPOCH).expect("the provider makes keys")
    }

    #[test]
    fn what_an_authority_issues_makes_a_node_of_every_role() {
        let authority = authority();
        for role in [Role::Agent, Role::Connector, Role::Relay] {
            let issued = authority.issue("device.example", role, EPOCH).expect("it is a DNS name");
            let trust = authority.trust().expect("the root is a certificate");
            assert!(
                crate::config::Config::builder(Tls::new(issued.identity(), trust)).build().is_ok()
            );
        }
    }

    #[test]
    fn a_name_that_is_no_dns_name_gets_no_certificate() {
        for name in ["", "a b", "käse.example", "-", "a..b"] {
            let refused = authority().issue(name, Role::Agent, EPOCH);
            assert!(matches!(refused, Err(PkiError::Name { .. })), "{name:?}: {refused:?}");
        }
    }

    #[test]
    fn a_date_that_x509_cannot_express_is_an_error() {
        let last = Duration::from_secs(253_402_300_799);
        let ending = |not_after| Validity { not_before: EPOCH, not_after };
        assert!(Authority::valid("mesh", ending(last)).is_ok());
        for too_late in [last + Duration::from_secs(1), Duration::MAX] {
            let refused = Authority::valid("mesh", ending(too_late));
            assert!(matches!(refused, Err(PkiError::Signing(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_certificate_begins_an_hour_before_it_is_signed_and_not_before_the_epoch() {
        let validity = Validity::starting(EPOCH, DAY);
        assert_eq!(EPOCH - validity.not_before, Duration::from_secs(3_600));
        assert_eq!(validity.not_after - EPOCH, DAY);
        assert_eq!(Validity::starting(Duration::ZERO, DAY).not_before, Duration::ZERO);
    }

    #[test]
    fn the_key_is_not_shown() {
        let issued = authority().issue("laptop", Role::Agent, EPOCH).expect("it is a DNS name");
        assert_eq!(format!("{issued:?}"), "Issued(Issued { certificates: 1, .. })");
    }
}
