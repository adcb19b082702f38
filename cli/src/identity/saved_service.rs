//! The saved services that this machine was invited to: the addresses of their connector, and the
//! mesh that it belongs to. It decides what is kept, and under what name.
//!
//! ```text
//! known/<name>.json            the service, its connector, the local port it had last
//! known/<name>.lock            taken by the process that offers it here
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use adit_tokio::core::ServiceName;
use adit_tokio::core::tls::KeyDigest;
use serde::{Deserialize, Serialize};

use super::member::Membership;
use crate::address::{HostAddress, HostPort, MAX_ADDRESSES, RelayAddress};
use crate::base::exit::{Exit, ExitError};
use crate::config::RemoteConnector;
use crate::homedir::lock::Lock;
use crate::homedir::{Home, store};

const SCHEMA: &str = "adit.known/1";

/// A service that this machine was invited to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedService {
    schema: String,
    /// The digest of the CA's key, in hexadecimal, which selects the membership.
    ca: String,
    /// The name in the connector's certificate.
    connector: String,
    addresses: Vec<String>,
    /// Relays that the connector may be registered at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    relays: Vec<RelayAddress>,
    pub(crate) service: ServiceName,
    /// The local address at which it is offered.
    pub(crate) local: Option<SocketAddr>,
    /// The one that is tried first: it was asked for, or has the port of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usual: Option<SocketAddr>,
}

impl SavedService {
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
            usual: None,
        }
    }

    /// Returns the same, with these relays as well.
    #[must_use]
    pub(crate) fn by(self, relays: &[RelayAddress]) -> Self {
        Self { relays: relays.to_vec(), ..self }
    }

    /// Returns the service that is saved under a name.
    ///
    /// # Errors
    /// That there is none, with the saved names; or a sentence about the file.
    pub(crate) fn load(home: &Home, name: &str) -> Result<Self, ExitError> {
        let path = path(home, name);
        let contents = if is_name(name) { store::read(&path)? } else { None };
        let Some(contents) = contents else {
            let all = Self::names(home);
            let next = if all.is_empty() {
                "ask its owner for an invite: adit invite new".to_owned()
            } else {
                format!("saved here: {}", all.join(", "))
            };
            return Err(ExitError::usage(format!("there is no saved service \"{name}\"; {next}")));
        };
        let known: Self = serde_json::from_slice(&contents).map_err(|error| {
            ExitError::usage(format!(
                "{}: adit did not write this file: {error}; remove it and ask for a new invite",
                path.display()
            ))
        })?;
        Ok(known)
    }

    /// Returns all names, in order.
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

    /// Saves it under a name.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn save(&self, home: &Home, name: &str) -> Result<(), ExitError> {
        store::directory(&home.known())?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ExitError::new(Exit::Degraded, format!("it is no JSON: {error}")))?;
        store::replace(&path(home, name), &text)
    }

    /// Returns the name to save it under: its existing one, or its service's, with a number if
    /// another connector's service has that.
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

    /// Claims it for this process, which is to offer it.
    ///
    /// # Errors
    /// If another process has it, with its id.
    pub(crate) fn claim(home: &Home, name: &str) -> Result<Option<Lock>, ExitError> {
        Lock::claim_if_writable(&home.known().join(format!("{name}.lock")), |holder| {
            ExitError::usage(format!(
                "\"{name}\" is forwarded here already, by the adit of process {holder}; use that one's \
                 port (adit status), or end it"
            ))
        })
    }

    /// Removes it, and this machine's key and certificate in its mesh unless another saved service
    /// uses them.
    ///
    /// # Errors
    /// If a process uses it, or a sentence about a file.
    pub(crate) fn forget(home: &Home, name: &str) -> Result<(), ExitError> {
        let known = Self::load(home, name)?;
        let claim = Self::claim(home, name)?;
        let file = path(home, name);
        std::fs::remove_file(&file).map_err(|error| store::cannot_write(&file, &error))?;
        let is_of_mesh = |name: &String| Self::load(home, name).is_ok_and(|it| it.ca == known.ca);
        if !Self::names(home).iter().any(is_of_mesh) {
            known.membership(home).remove()?;
        }
        drop(claim);
        let _ = std::fs::remove_file(home.known().join(format!("{name}.lock")));
        Ok(())
    }

    /// Returns the connector to dial.
    ///
    /// # Errors
    /// If the addresses cannot be used.
    pub(crate) fn remote(&self) -> Result<RemoteConnector, ExitError> {
        let parsed = |text: &String| HostAddress::try_from(text.clone()).map_err(ExitError::usage);
        let addresses: Vec<_> = self.addresses.iter().map(parsed).collect::<Result<_, _>>()?;
        // The name in its certificate is made of random digits.
        let title = title(&addresses, &self.service);
        let remote = RemoteConnector::at(addresses, self.connector.clone()).called(title);
        Ok(remote.by(&self.relays, Some(&self.service)))
    }

    /// Moves an address before the others.
    pub(crate) fn prefer(&mut self, address: &HostPort) {
        let text = address.to_string();
        self.addresses.retain(|known| *known != text);
        self.addresses.insert(0, text);
        self.addresses.truncate(MAX_ADDRESSES);
    }

    /// Returns this machine's membership in its mesh.
    pub(crate) fn membership(&self, home: &Home) -> Membership {
        Membership::named(home, &self.ca)
    }
}

/// Returns what people call the connector of a service: its host name or, where only addresses are
/// known, its service.
pub(crate) fn title(addresses: &[HostAddress], service: &ServiceName) -> String {
    let host = addresses.iter().find_map(HostAddress::name);
    host.map_or_else(|| format!("the connector of {service}"), str::to_owned)
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.known().join(format!("{name}.json"))
}

/// Returns true for a service name. Only these are names of files here, so that none leads out of
/// the folder.
fn is_name(name: &str) -> bool {
    name.parse::<ServiceName>().is_ok() && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    fn home(scratch: &Scratch) -> Home {
        Home::find(Some(scratch.path())).unwrap()
    }

    fn known(ca: u8, service: &str) -> SavedService {
        let address = HostPort::try_from("192.0.2.7:4433".to_owned()).unwrap();
        let service = service.parse().unwrap();
        SavedService::new(KeyDigest([ca; 32]), "device-1".into(), &[address], service)
    }

    #[test]
    fn what_is_known_is_found_again_under_its_name() {
        let scratch = Scratch::new();
        let (home, known) = (home(&scratch), known(1, "web"));
        assert_eq!(known.name_for(&home), "web");
        known.save(&home, "web").unwrap();
        assert_eq!(SavedService::load(&home, "web").unwrap(), known);
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
        let remote = SavedService::load(&home, "web").unwrap().remote().unwrap();
        assert_eq!((&remote.relays[..], remote.service), (&relays[..], "web".parse().ok()));
        plain.save(&home, "web").unwrap();
        assert!(!std::fs::read_to_string(path(&home, "web")).unwrap().contains("relays"));
        assert_eq!(SavedService::load(&home, "web").unwrap(), plain);
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
        let said = SavedService::load(&home, "web").unwrap_err().to_string();
        assert_eq!(
            said,
            "there is no saved service \"web\"; ask its owner for an invite: adit invite new"
        );
        known(1, "db").save(&home, "db").unwrap();
        for name in ["web", "../known/db", "", "."] {
            let said = SavedService::load(&home, name).unwrap_err().to_string();
            assert!(said.ends_with("saved here: db"), "{said}");
        }
    }

    #[test]
    fn a_known_service_is_offered_by_one_process() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        known(1, "web").save(&home, "web").unwrap();
        let _first = SavedService::claim(&home, "web").unwrap();
        let said = SavedService::claim(&home, "web").unwrap_err().to_string();
        assert!(
            said.contains("\"web\" is forwarded here already, by the adit of process"),
            "{said}"
        );
    }
}
