//! The contents of the certificates of a mesh, and their signatures.
//!
//! A device's certificate has `CN=device-<id>, O=<mesh>`; its names are `device-<id>` and, if the
//! inviter gave it one, that name; its URIs are its role and its services. It does not decide which
//! device gets one.

use std::path::Path;
use std::time::Duration;

use adit_tokio::core::tls::KeyDigest;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::registry::{DeviceRole, MeshRegistry, RegisteredDevice};
use crate::base::exit::{Exit, ExitError};
use crate::base::system::{NoCoreDump, random};
use crate::base::units;
use crate::homedir::store;

/// Lifetime of a CA's certificate: ten years. It is pinned by its key.
const CA_LIFE: Duration = Duration::from_secs(3_650 * 86_400);

/// How long before its end a certificate is renewed, if its lifetime is long enough.
const RENEWED_BEFORE: u64 = 30 * 86_400;

/// How far certificates are backdated, for clocks that are slightly wrong.
const BACKDATED_BY: u64 = 3_600;

/// The time within which a revocation list is current. Older lists are still used.
const LIST_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// The role of a device, as a URI in its certificate.
pub(crate) const ROLE: &str = "adit:role:";

/// A service of a device, as a URI in its certificate.
const SERVICE: &str = "adit:service:";

/// The subject of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    id: String,
    mesh: String,
    role: DeviceRole,
    names: Vec<String>,
    uris: Vec<String>,
}

impl Subject {
    pub(crate) fn of(device: &RegisteredDevice, mesh: &str) -> Self {
        let role = match device.role {
            DeviceRole::Agent => "agent",
            DeviceRole::Connector => "connector",
        };
        let services = device.services.iter().map(|service| format!("{SERVICE}{service}"));
        Self {
            id: device.id.clone(),
            mesh: mesh.to_owned(),
            role: device.role,
            names: std::iter::once(device.id.clone()).chain(device.name.clone()).collect(),
            uris: std::iter::once(format!("{ROLE}{role}")).chain(services).collect(),
        }
    }
}

/// A certificate request: a public key with a proof of possession.
#[derive(Debug)]
pub(crate) struct CertificateRequest {
    params: CertificateSigningRequestParams,
}

impl CertificateRequest {
    /// Reads a PKCS#10 request (RFC 2986) in PEM and checks its signature. Only its key is used.
    ///
    /// # Errors
    /// Why it is not one.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let params = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|error| format!("the certificate request cannot be used: {error}"))?;
        Ok(Self { params })
    }

    /// Returns a new ECDSA P-256 key in PEM, and the request for it.
    ///
    /// # Errors
    /// If the system cannot make one.
    pub(crate) fn new_key() -> Result<(String, Self), ExitError> {
        let key = KeyPair::generate().map_err(|error| broken(&error))?;
        let pem = request_pem(&key)?;
        let request = Self::from_pem(&pem).map_err(|why| broken(&why))?;
        Ok((key.serialize_pem(), request))
    }

    /// Returns the digest of the key.
    pub(crate) fn key(&self) -> KeyDigest {
        KeyDigest::of_spki(&self.params.public_key.subject_public_key_info())
    }
}

/// Returns a request in PEM for a key.
///
/// # Errors
/// If the key cannot sign, which would be a bug.
pub(crate) fn request_pem(key: &KeyPair) -> Result<String, ExitError> {
    CertificateParams::default()
        .serialize_request(key)
        .and_then(|request| request.pem())
        .map_err(|error| broken(&error))
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub(crate) struct SignedCertificate {
    pub(crate) pem: String,
    pub(crate) serial: String,
    pub(crate) not_after: u64,
}

/// A CA: its certificate and its key.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// A crash while the key is in memory must not write it to a disk.
    _no_dump: NoCoreDump,
}

impl CertificateAuthority {
    pub(crate) fn new(name: &str, now: u64) -> Result<Self, ExitError> {
        let no_dump = NoCoreDump::new();
        let key = KeyPair::generate().map_err(|error| broken(&error))?;
        let mut params = params(now, CA_LIFE)?.0;
        params.distinguished_name.push(DnType::CommonName, format!("adit {name}"));
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(|error| broken(&error))?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem, _no_dump: no_dump })
    }

    pub(crate) fn open(certificate: &Path, key: &Path) -> Result<Self, ExitError> {
        let no_dump = NoCoreDump::new();
        let (pem, key_pem) = (read_pem(certificate)?, read_pem(key)?);
        let wrong = |path: &Path, error: &rcgen::Error| {
            ExitError::usage(format!("{}: {error}; restore it from a backup", path.display()))
        };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| wrong(key, &error))?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(|error| wrong(certificate, &error))?;
        Ok(Self { issuer, pem, _no_dump: no_dump })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a certificate that is valid from now on.
    pub(crate) fn sign(
        &self,
        subject: &Subject,
        request: &CertificateRequest,
        now: u64,
        life: Duration,
    ) -> Result<SignedCertificate, ExitError> {
        let (mut params, not_after) = params(now, life)?;
        let mut serial = [0; 16];
        random(&mut serial)?;
        // Positive and without leading zeros, so that its bytes are its DER (RFC 5280 §4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name.push(DnType::CommonName, &*subject.id);
        params.distinguished_name.push(DnType::OrganizationName, &*subject.mesh);
        let text = |text: &String| Ia5String::try_from(&**text).map_err(|error| broken(&error));
        for name in &subject.names {
            params.subject_alt_names.push(SanType::DnsName(text(name)?));
        }
        for uri in &subject.uris {
            params.subject_alt_names.push(SanType::URI(text(uri)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject.role {
            DeviceRole::Agent => vec![ExtendedKeyUsagePurpose::ClientAuth],
            DeviceRole::Connector => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&request.params.public_key, &self.issuer)
            .map_err(|error| broken(&error))?;
        let serial = data_encoding::HEXLOWER.encode(&serial);
        Ok(SignedCertificate { pem: certificate.pem(), serial, not_after })
    }

    /// Signs the revocation list (RFC 5280 §5), in PEM.
    pub(crate) fn list(&self, registry: &MeshRegistry, now: u64) -> Result<String, ExitError> {
        let mut revoked_certs = Vec::new();
        for device in &registry.devices {
            let Some(at) = device.revoked else { continue };
            for serial in device.serials.keys() {
                let bytes = data_encoding::HEXLOWER.decode(serial.as_bytes());
                revoked_certs.push(RevokedCertParams {
                    serial_number: SerialNumber::from(bytes.map_err(|error| broken(&error))?),
                    revocation_time: date(at)?,
                    reason_code: None,
                    invalidity_date: None,
                });
            }
        }
        CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(now.saturating_add(LIST_LIFE.as_secs()))?,
            crl_number: SerialNumber::from(registry.lists.max(1)),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .and_then(|list| list.pem())
        .map_err(|error| broken(&error))
    }
}

/// Returns the parameters that all certificates have, and the end of the lifetime.
fn params(now: u64, life: Duration) -> Result<(CertificateParams, u64), ExitError> {
    let not_after = now.saturating_add(life.as_secs());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date(now.saturating_sub(BACKDATED_BY))?;
    params.not_after = date(not_after)?;
    Ok((params, not_after))
}

/// The last second of X.509 (RFC 5280 §4.1.2.5), in the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

fn date(unix: u64) -> Result<time::OffsetDateTime, ExitError> {
    if unix > LAST_SECOND {
        return Err(ExitError::usage(
            "this machine's clock is past the year 9999; set it, and try again",
        ));
    }
    Ok(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix))
}

fn broken(why: &dyn std::fmt::Display) -> ExitError {
    ExitError::new(Exit::Degraded, format!("a certificate cannot be made: {why}"))
}

/// Reads a PEM file that must exist.
///
/// # Errors
/// A sentence about the file.
pub(crate) fn read_pem(path: &Path) -> Result<String, ExitError> {
    let gone = |why: &str| {
        ExitError::usage(format!("{}: {why}; restore it from a backup", path.display()))
    };
    let contents = store::read(path)?.ok_or_else(|| gone("this file is gone"))?;
    String::from_utf8(contents).map_err(|_| gone("this is no PEM file"))
}

/// Returns the key of the first certificate in a PEM text.
///
/// # Errors
/// That there is none.
pub(crate) fn key_of_pem(pem: &str) -> Result<KeyDigest, ExitError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .ok()
        .and_then(|certificate| KeyDigest::of_certificate(&certificate))
        .ok_or_else(|| {
            ExitError::usage("the CA's file holds no certificate; restore it from a backup")
        })
}

/// Returns the key of the only certificate in a PEM text; `None` if there is none, or several.
pub(crate) fn sole_key_of_pem(pem: &str) -> Option<KeyDigest> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    let only = all.next()?.ok()?;
    if all.next().is_some() { None } else { KeyDigest::of_certificate(&only) }
}

/// The fields of a certificate for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct CertificateDescription {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) names: Vec<String>,
    pub(crate) uris: Vec<String>,
    pub(crate) serial: String,
    pub(crate) key: KeyDigest,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl CertificateDescription {
    /// Returns when it is to be renewed: 30 days before the end, and not before two thirds of its
    /// lifetime are over, which began when it was signed.
    pub(crate) const fn due(&self) -> u64 {
        let signed = self.not_before.saturating_add(BACKDATED_BY);
        let third = self.not_after.saturating_sub(signed) / 3;
        let ahead = if third < RENEWED_BEFORE { third } else { RENEWED_BEFORE };
        self.not_after.saturating_sub(ahead)
    }

    /// Returns how it contradicts a clock that shows `now`, if it does.
    pub(crate) fn clock_conflict(&self, now: u64) -> Option<String> {
        let (what, at) = if now > self.not_after {
            ("ended", self.not_after)
        } else if now < self.not_before {
            ("begins", self.not_before)
        } else {
            return None;
        };
        let (at, now) = (units::date(at), units::date(now));
        Some(format!("this machine's certificate {what} on {at}, and its clock shows {now}"))
    }

    /// Returns true if it is to be renewed.
    pub(crate) const fn is_due(&self, now: u64) -> bool {
        now >= self.due()
    }
}

/// Describes the first certificate of a PEM file.
///
/// # Errors
/// A sentence about the file.
pub(crate) fn describe_file(path: &Path) -> Result<CertificateDescription, ExitError> {
    let pem = read_pem(path)?;
    describe_pem(&pem).ok_or_else(|| {
        ExitError::usage(format!(
            "{}: there is no certificate in it; restore it from a backup",
            path.display()
        ))
    })
}

/// Describes the first certificate of a PEM text. Returns `None` if there is none.
pub(crate) fn describe_pem(pem: &str) -> Option<CertificateDescription> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let unix = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let own = webpki::EndEntityCert::try_from(&der).ok()?;
    Some(CertificateDescription {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names: own.valid_dns_names().map(str::to_owned).collect(),
        uris: own.valid_uri_names().map(str::to_owned).collect(),
        serial: data_encoding::HEXLOWER.encode(parsed.raw_serial()),
        key: KeyDigest::of_certificate(&der)?,
        not_before: unix(parsed.validity().not_before),
        not_after: unix(parsed.validity().not_after),
    })
}

/// Returns this machine's label: its host name, reduced to plain characters.
pub(crate) fn this_machine() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let plain: String = name
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(63)
        .collect();
    if plain.is_empty() { "device".to_owned() } else { plain.to_ascii_lowercase() }
}
