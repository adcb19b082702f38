//! The files of one pair: a directory with a CA and two identities, removed on drop.
//!
//! It decides file names and certificate contents. It never leaves a key behind.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// File of the CA's certificate.
pub(crate) const CA: &str = "ca.pem";
/// Name of the accepting end, in its certificate and of its files.
pub(crate) const CONNECTOR: &str = "connector";
/// Name of the dialling end, in its certificate and of its files.
pub(crate) const AGENT: &str = "agent";

pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn create(purpose: &str) -> Result<Self> {
        let root =
            std::env::temp_dir().join(format!("adit-bench-{}-{purpose}", std::process::id()));
        std::fs::create_dir(&root).with_context(|| format!("creating {}", root.display()))?;
        let directory = Self(root);
        directory.fill()?;
        Ok(directory)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the certificate and key of one end.
    pub(super) fn identity(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    fn fill(&self) -> Result<()> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "adit bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(self.path(CA), ca.pem())?;
        for name in [CONNECTOR, AGENT] {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let (certificate_path, key_path) = self.identity(name);
            std::fs::write(certificate_path, params.signed_by(&key, &ca)?.pem())?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(key_path)?;
            file.write_all(key.serialize_pem().as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {e}", self.0.display());
        }
    }
}
