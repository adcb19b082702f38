//! What this machine knows of services that it was invited to: where their connector may be, and
//! its own membership in that connector's mesh. It decides what is kept, and under what name.
//!
//! ```text
//! known/<name>.json            the service, its connector, the local port it had last
//! known/<name>.lock            taken by the process that offers it here
//! identities/<ca>/ca.pem       the CA of the mesh
//! identities/<ca>/identity.pem this machine's key and certificate, 0600
//! identities/<ca>/key.pem      a key whose certificate has not come yet, 0600
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adit_tokio::core::message::ServiceName;
use adit_tokio::core::tls::{Identity, KeyDigest, Tls, Trust};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use crate::address::MAX_ADDRESSES;
use crate::config::{HostPort, RelayAddress, Remote};
use crate::homedir::lock::Lock;
use crate::homedir::{Home, store};
use crate::identity::Who;
use crate::mesh::certificate;
use crate::names::Place;
use crate::stop::{Exit, Stop};

const SCHEMA: &str = "adit.known/1";

/// A service that this machine was invited to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    schema: String,
    /// The digest of the CA's key, in hexadecimal: which membership is used.
    ca: String,
    /// The name in the connector's certificate.
    connector: String,
    addresses: Vec<String>,
    /// Relays that the connector may be registered at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    relays: Vec<RelayAddress>,
    pub(crate) service: ServiceName,
    /// Where it is offered here.
    pub(crate) local: Option<SocketAddr>,
}

impl Known {
    pub(crate) fn new(
        ca: KeyDigest,
        connector: String,
        addresses: &[HostPort],
        service: ServiceName,
    ) -> Self {
        let addresses = addresses.iter().map(HostPort::to_string).collect();
        Self {
            schema: SCHEMA.into(),
            ca: ca.to_string(),
            connector,
            addresses,
            relays: Vec::new(),
            service,
            local: None,
        }
    }

    /// The same, whose connector is reached by these relays as well.
    #[must_use]
    pub(crate) fn by(self, relays: &[RelayAddress]) -> Self {
        Self { relays: relays.to_vec(), ..self }
    }

    /// Finds what is known under a name.
    ///
    /// # Errors
    /// That nothing is, with what is known; or a sentence about the file.
    pub(crate) fn load(home: &Home, name: &str) -> Result<Self, Stop> {
        let path = path(home, name);
        let contents = if is_name(name) { store::read(&path)? } else { None };
        let Some(contents) = contents else {
            let all = Self::names(home);
            let next = if all.is_empty() {
                "ask its owner for an invite: adit invite new".to_owned()
            } else {
                format!("known here: {}", all.join(", "))
            };
            return Err(Stop::usage(format!("nothing is known of \"{name}\"; {next}")));
        };
        let known: Self = serde_json::from_slice(&contents).map_err(|error| {
            Stop::usage(format!(
                "{}: this is not what adit wrote: {error}; remove it and ask for a new invite",
                path.display()
            ))
        })?;
        Ok(known)
    }

    /// All names, in order.
    pub(crate) fn names(home: &Home) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(home.known()) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        names
    }

    /// Keeps it under a name.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn save(&self, home: &Home, name: &str) -> Result<(), Stop> {
        store::directory(&home.known())?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Stop::new(Exit::Degraded, format!("it is no JSON: {error}")))?;
        store::replace(&path(home, name), &text)
    }

    /// The name to keep it under: the one it is known under already, or its service's, with a
    /// number where another connector's has that.
    pub(crate) fn name_for(&self, home: &Home) -> String {
        let is_same = |name: &String| {
            Self::load(home, name).is_ok_and(|known| {
                (&known.ca, &known.connector, &known.service)
                    == (&self.ca, &self.connector, &self.service)
            })
        };
        let names = Self::names(home);
        if let Some(name) = names.iter().find(|name| is_same(name)) {
            return name.clone();
        }
        let base = self.service.as_str();
        std::iter::once(base.to_owned())
            .chain((2..).map(|number| format!("{base}-{number}")))
            .find(|name| !names.contains(name))
            .unwrap_or_else(|| base.to_owned())
    }

    /// Takes it for this process, which is to offer it.
    ///
    /// # Errors
    /// When another process does, with its id.
    pub(crate) fn claim(home: &Home, name: &str) -> Result<Lock, Stop> {
        Lock::claim(&home.known().join(format!("{name}.lock")), |holder| {
            Stop::usage(format!(
                "\"{name}\" is offered here already, by the adit of process {holder}; use that one's \
                 port (adit status), or end it"
            ))
        })
    }

    /// The connector to dial.
    ///
    /// # Errors
    /// When the addresses cannot be used.
    pub(crate) fn remote(&self) -> Result<Remote, Stop> {
        let parsed = |text: &String| Place::try_from(text.clone()).map_err(Stop::usage);
        let addresses = self.addresses.iter().map(parsed).collect::<Result<_, _>>()?;
        let remote = Remote::at(addresses, self.connector.clone());
        Ok(remote.by(&self.relays, Some(&self.service)))
    }

    /// Puts an address before the others.
    pub(crate) fn prefer(&mut self, address: &HostPort) {
        let text = address.to_string();
        self.addresses.retain(|known| *known != text);
        self.addresses.insert(0, text);
        self.addresses.truncate(MAX_ADDRESSES);
    }

    /// This machine's membership in its mesh.
    pub(crate) fn membership(&self, home: &Home) -> Membership {
        Membership { directory: home.identity(&self.ca) }
    }
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.known().join(format!("{name}.json"))
}

/// Service names are the names that things are known under, so that none leads out of its folder.
fn is_name(name: &str) -> bool {
    name.parse::<ServiceName>().is_ok() && !name.starts_with('.')
}

/// This machine's certificate in somebody's mesh.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    directory: PathBuf,
}

impl Membership {
    /// The membership in the mesh of a CA, whether there is one yet or not.
    pub(crate) fn of(home: &Home, ca: KeyDigest) -> Self {
        Self { directory: home.identity(&ca.to_string()) }
    }

    /// All memberships of a home.
    pub(crate) fn all(home: &Home) -> Vec<Self> {
        let identities = home.identity("");
        let Ok(entries) = std::fs::read_dir(identities) else { return Vec::new() };
        let mut all: Vec<_> = entries
            .filter_map(|entry| Some(Self { directory: entry.ok()?.path() }))
            .filter(Self::is_certified)
            .collect();
        all.sort_by(|a, b| a.directory.cmp(&b.directory));
        all
    }

    pub(crate) fn identity_path(&self) -> PathBuf {
        self.directory.join("identity.pem")
    }

    fn ca_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        vec![self.identity_path(), self.ca_path()]
    }

    /// What its certificate says.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn describe(&self) -> Result<certificate::Description, Stop> {
        certificate::describe_file(&self.identity_path())
    }

    /// Who this machine is there, and whom it believes.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn who(&self) -> Result<Who, Stop> {
        let wrong = |path: PathBuf, error: &dyn std::fmt::Display| {
            Stop::usage(format!("{}: {error}; ask for a new invite", path.display()))
        };
        let own = certificate::read_pem(&self.identity_path())?;
        let ca = certificate::read_pem(&self.ca_path())?;
        let identity = Identity::from_pem(own.as_bytes(), own.as_bytes())
            .map_err(|error| wrong(self.identity_path(), &error))?;
        let trust =
            Trust::from_pem(ca.as_bytes()).map_err(|error| wrong(self.ca_path(), &error))?;
        Who::of(Tls::new(identity, trust), ca.as_bytes())
            .map_err(|error| wrong(self.ca_path(), &error))
    }

    /// The key to ask for a certificate with: the present one, or one that is kept until its
    /// certificate comes, so that an answer that was lost can be asked for again.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn key(&self) -> Result<KeyPair, Stop> {
        match read_key(&self.identity_path())? {
            Some(present) => Ok(present),
            None => self.next_key(),
        }
    }

    /// A key that no certificate came for yet, kept until one does.
    ///
    /// # Errors
    /// A sentence about a file.
    pub(crate) fn next_key(&self) -> Result<KeyPair, Stop> {
        let path = self.directory.join("key.pem");
        if let Some(kept) = read_key(&path)? {
            return Ok(kept);
        }
        store::directory(&self.directory)?;
        let key = new_key()?;
        store::replace(&path, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// Whether there is a certificate.
    pub(crate) fn is_certified(&self) -> bool {
        self.identity_path().exists()
    }

    /// Keeps a certificate that came, with its key, in one step.
    ///
    /// # Errors
    /// A sentence about a file, or about a certificate that is not for this key.
    pub(crate) fn keep(&self, key: &KeyPair, certificate: &str, ca: &str) -> Result<(), Stop> {
        use rcgen::PublicKeyData as _;
        let own = KeyDigest::of_spki(&key.subject_public_key_info());
        let said = certificate::describe_pem(certificate);
        if said.is_none_or(|said| said.key != own) {
            let sentence =
                "the connector answered with a certificate for another key; tell its owner";
            return Err(Stop::new(Exit::Degraded, sentence));
        }
        store::directory(&self.directory)?;
        store::replace(&self.ca_path(), ca.as_bytes())?;
        let both = format!("{}{certificate}", key.serialize_pem());
        store::replace(&self.identity_path(), both.as_bytes())?;
        // It has done its work; one that stays is not looked at any more.
        let _ = std::fs::remove_file(self.directory.join("key.pem"));
        Ok(())
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, Stop> {
    let Some(pem) = store::read(path)? else { return Ok(None) };
    let key = KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(|error| {
        Stop::usage(format!("{}: {error}; remove it, and ask for a new invite", path.display()))
    })?;
    Ok(Some(key))
}

/// A new ECDSA P-256 key.
///
/// # Errors
/// When the system lacks what it takes.
fn new_key() -> Result<KeyPair, Stop> {
    KeyPair::generate()
        .map_err(|error| Stop::new(Exit::Degraded, format!("no key can be made: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    fn home(scratch: &Scratch) -> Home {
        Home::find(Some(scratch.path())).unwrap()
    }

    fn known(ca: u8, service: &str) -> Known {
        let address = HostPort::try_from("192.0.2.7:4433".to_owned()).unwrap();
        let service = service.parse().unwrap();
        Known::new(KeyDigest([ca; 32]), "device-1".into(), &[address], service)
    }

    #[test]
    fn what_is_known_is_found_again_under_its_name() {
        let scratch = Scratch::new();
        let (home, known) = (home(&scratch), known(1, "web"));
        assert_eq!(known.name_for(&home), "web");
        known.save(&home, "web").unwrap();
        assert_eq!(Known::load(&home, "web").unwrap(), known);
        assert_eq!(known.name_for(&home), "web");
        assert_eq!(known.remote().unwrap().name, "device-1");
    }

    #[test]
    fn relays_are_remembered_and_what_was_kept_before_there_were_any_is_read() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        let at = HostPort::try_from("relay.example:4433".to_owned()).unwrap();
        let relays = [RelayAddress { at, tcp: 8_443, key: KeyDigest([8; 32]) }];
        let (plain, relayed) = (known(1, "web"), known(1, "web").by(&relays));
        relayed.save(&home, "web").unwrap();
        let remote = Known::load(&home, "web").unwrap().remote().unwrap();
        assert_eq!((&remote.relays[..], remote.service), (&relays[..], "web".parse().ok()));
        plain.save(&home, "web").unwrap();
        assert!(!std::fs::read_to_string(path(&home, "web")).unwrap().contains("relays"));
        assert_eq!(Known::load(&home, "web").unwrap(), plain);
    }

    #[test]
    fn another_connectors_service_of_the_same_name_gets_a_number() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        known(1, "web").save(&home, "web").unwrap();
        assert_eq!(known(2, "web").name_for(&home), "web-2");
        known(2, "web").save(&home, "web-2").unwrap();
        assert_eq!(known(2, "web").name_for(&home), "web-2");
        assert_eq!(known(3, "web").name_for(&home), "web-3");
    }

    #[test]
    fn a_name_that_nothing_is_known_of_is_answered_with_those_that_are() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        let said = Known::load(&home, "web").unwrap_err().to_string();
        assert_eq!(
            said,
            "nothing is known of \"web\"; ask its owner for an invite: adit invite new"
        );
        known(1, "db").save(&home, "db").unwrap();
        for name in ["web", "../known/db", "", "."] {
            let said = Known::load(&home, name).unwrap_err().to_string();
            assert!(said.ends_with("known here: db"), "{said}");
        }
    }

    #[test]
    fn the_key_stays_the_same_until_its_certificate_comes_and_after() {
        let scratch = Scratch::new();
        let membership = Membership::of(&home(&scratch), KeyDigest([1; 32]));
        let first = membership.key().unwrap();
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
        let certificate = rcgen::CertificateParams::default().self_signed(&first).unwrap().pem();
        membership.keep(&first, &certificate, &certificate).unwrap();
        assert!(!membership.directory.join("key.pem").exists());
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
        let other = new_key().unwrap();
        assert!(membership.keep(&other, &certificate, &certificate).is_err());
        assert_eq!(membership.key().unwrap().serialize_der(), first.serialize_der());
    }

    #[test]
    fn a_known_service_is_offered_by_one_process() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        known(1, "web").save(&home, "web").unwrap();
        let _first = Known::claim(&home, "web").unwrap();
        let said = Known::claim(&home, "web").unwrap_err().to_string();
        assert!(said.contains("\"web\" is offered here already, by the adit of process"), "{said}");
    }
}
