//! A certificate authority for tests, with certificates, keys and lists in files: with any
//! lifetime, for any key, and revoked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, PublicKeyData, RevokedCertParams, SerialNumber,
    SubjectPublicKeyInfo,
};

use super::Directory;

/// A CA with its certificates in files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes an identity. Returns the `[tls]` section that names it.
    pub(crate) fn issue(&self, directory: &Directory, name: &str) -> String {
        self.issue_for(directory, name, Duration::from_secs(30 * 86_400))
    }

    /// Issues the same with this lifetime, in whole seconds.
    pub(crate) fn issue_for(&self, directory: &Directory, name: &str, life: Duration) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = self.sign(name, &key, life);
        let path = directory.write(&format!("{name}.key"), &key.serialize_pem());
        self.section(directory, name, &certificate.pem(), &path)
    }

    /// Issues the same for a key in a file, of which only the public half, in PEM, is read.
    pub(crate) fn issue_to(
        &self,
        directory: &Directory,
        name: &str,
        key: &Path,
        public: &str,
    ) -> String {
        let public = SubjectPublicKeyInfo::from_pem(public).unwrap();
        let certificate = self.sign(name, &public, Duration::from_secs(86_400));
        self.section(directory, name, &certificate.pem(), key)
    }

    fn section(&self, directory: &Directory, name: &str, certificate: &str, key: &Path) -> String {
        directory.write(&format!("{name}.pem"), certificate);
        keep_to_owner(key);
        directory.write(&format!("{name}-ca.pem"), &self.pem);
        let key = key.display();
        format!("[tls]\nca = \"{name}-ca.pem\"\ncertificate = \"{name}.pem\"\nkey = \"{key}\"\n")
    }

    /// Returns a certificate with this name, which is its serial number as well.
    fn sign(&self, name: &str, key: &impl PublicKeyData, life: Duration) -> Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(name.as_bytes()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + (now - Duration::from_secs(3_600));
        params.not_after = epoch + Duration::from_secs(now.as_secs()) + life;
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// Writes the revocation list: the certificates with these names.
    pub(crate) fn revoke(&self, directory: &Directory, file: &str, names: &[&str]) -> PathBuf {
        self.revoke_as(directory, file, names, 1)
    }

    /// Writes the same with this number.
    pub(crate) fn revoke_as(
        &self,
        directory: &Directory,
        file: &str,
        names: &[&str],
        number: u64,
    ) -> PathBuf {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = names.iter().map(|name| RevokedCertParams {
            serial_number: SerialNumber::from_slice(name.as_bytes()),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        directory.write(file, &list.signed_by(&self.issuer).unwrap().pem().unwrap())
    }
}

#[cfg(unix)]
fn keep_to_owner(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn keep_to_owner(_path: &Path) {}
