//! A relay's key, and its self-signed certificate: made once, and the same on every start, since
//! clients identify the relay by its key alone.
//!
//! ```text
//! relay/identity.pem  the key and the certificate, 0600
//! relay/running       taken by the relay that runs with this key
//! ```

use std::path::Path;

use adit_tokio::core::tls::{Identity, KeyDigest};
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::address::RELAY_NAME;
use crate::base::exit::{Exit, ExitError};
use crate::homedir::lock::Lock;
use crate::homedir::{Home, store};
use crate::identity::mesh::certificate;

/// The key of this machine as a relay, taken for the life of the process.
#[derive(Debug)]
pub(super) struct RelayIdentity {
    pub(super) identity: Identity,
    /// What clients know it by.
    pub(super) key: KeyDigest,
    _claim: Lock,
}

impl RelayIdentity {
    /// Returns the key of a home, and makes one if there is none.
    ///
    /// # Errors
    /// A sentence about a file, or that another process has it, with its id.
    pub(super) fn open_or_create(home: &Home) -> Result<Self, ExitError> {
        let directory = home.relay();
        store::directory(&directory)?;
        let claim = Lock::claim(&directory.join("running"), |holder| {
            ExitError::usage(format!(
                "the key in {} is in use by the adit of process {holder}; end that one, or give this \
                 one a home of its own with --home",
                directory.display()
            ))
        })?;
        let path = directory.join("identity.pem");
        if store::read(&path)?.is_none() {
            store::create(&path, make()?.as_bytes())?;
        }
        let (identity, key) = read(&path)?;
        Ok(Self { identity, key, _claim: claim })
    }
}

fn read(path: &Path) -> Result<(Identity, KeyDigest), ExitError> {
    let wrong = |error: &dyn std::fmt::Display| {
        let next = "restore it from a backup; with a new one every client has to be told anew";
        ExitError::usage(format!("{}: {error}; {next}", path.display()))
    };
    let pem = certificate::read_pem(path)?;
    let identity =
        Identity::from_pem(pem.as_bytes(), pem.as_bytes()).map_err(|error| wrong(&error))?;
    identity.check().map_err(|error| wrong(&error))?;
    let key = identity.chain().first().and_then(KeyDigest::of_certificate);
    key.map(|key| (identity, key)).ok_or_else(|| wrong(&"its certificate is none"))
}

/// Returns a new key and its certificate, as one PEM text. Clients ignore its lifetime: they verify
/// the key.
fn make() -> Result<String, ExitError> {
    let broken = |error: rcgen::Error| {
        ExitError::new(Exit::Degraded, format!("no key can be made for the relay: {error}"))
    };
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::new(vec![RELAY_NAME.to_owned()]).map_err(broken)?;
    params.distinguished_name.push(DnType::CommonName, RELAY_NAME);
    let certificate = params.self_signed(&key).map_err(broken)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    #[test]
    fn a_relay_has_one_key_for_good_and_one_process_has_it_at_a_time() {
        let scratch = Scratch::new();
        let home = Home::find(Some(scratch.path())).unwrap();
        let first = RelayIdentity::open_or_create(&home).unwrap();
        let said = RelayIdentity::open_or_create(&home).unwrap_err().to_string();
        assert!(said.contains("is in use by the adit of process"), "{said}");
        let key = first.key;
        drop(first);
        assert_eq!(RelayIdentity::open_or_create(&home).unwrap().key, key);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_its_owners_alone_and_one_that_is_damaged_is_not_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new();
        let home = Home::find(Some(scratch.path())).unwrap();
        drop(RelayIdentity::open_or_create(&home).unwrap());
        let path = home.relay().join("identity.pem");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        let said = RelayIdentity::open_or_create(&home).unwrap_err().to_string();
        assert!(said.contains("restore it from a backup"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), b"no key");
    }
}
