//! A peer's identity for its rights: only its verified certificate counts.

use std::fmt;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Code, Failure};
use adit_tokio::core::tls::Credential;
#[cfg(test)]
use adit_tokio::core::tls::{KeyDigest, Standing};

use crate::identity::mesh::certificate::ROLE;
use crate::identity::mesh::registry::id_among;

/// A connected peer. One that is gone already has no credential, and has no rights.
#[derive(Debug)]
pub(crate) struct ConnectedDevice(Option<Credential>);

impl ConnectedDevice {
    /// Returns the device that is connected.
    pub(crate) fn of(peer: &Peer) -> Self {
        Self(peer.credential())
    }

    /// Returns what its verified certificate contains, or its invite's key.
    pub(crate) const fn credential(&self) -> Option<&Credential> {
        self.0.as_ref()
    }

    /// Returns the DNS names of its certificate; a guest has none.
    pub(crate) fn names(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |credential| &credential.names)
    }

    /// Returns its name in a mesh, if its certificate is of one.
    pub(crate) fn id(&self) -> Option<&str> {
        id_among(self.names())
    }

    /// Checks that it is a member, which has a certificate of the CA, and one for agents if it
    /// names roles.
    ///
    /// # Errors
    /// Why it may not do what it asked for.
    pub(crate) fn as_member(&self, what: &str) -> Result<(), Failure> {
        let forbidden = |why: String| Err(Failure::new(Code::Forbidden, why));
        let Some(credential) = self.0.as_ref().filter(|credential| !credential.is_guest()) else {
            return forbidden(format!("{what} is for members, and an invited guest is none yet"));
        };
        let mut roles = credential.uris.iter().filter_map(|uri| uri.strip_prefix(ROLE)).peekable();
        let first = roles.peek().copied();
        match first {
            Some(role) if !roles.any(|role| role == "agent") => {
                forbidden(format!("{what} is for agents, and this certificate is for a {role}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Display for ConnectedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.as_ref().is_some_and(Credential::is_guest) {
            return f.write_str("an invited guest");
        }
        match self.names() {
            [] => f.write_str("a device without a name"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
impl ConnectedDevice {
    fn with(standing: Standing, names: &[&str], uris: &[&str]) -> Self {
        let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        Self(Some(Credential {
            standing,
            names: owned(names),
            uris: owned(uris),
            serial: String::new(),
            key: KeyDigest([0; 32]),
            not_after: None,
            mesh: None,
            may_serve: false,
        }))
    }

    /// Returns a member with these names.
    pub(crate) fn member(names: &[&str]) -> Self {
        Self::with(Standing::Member, names, &[])
    }

    pub(crate) fn guest() -> Self {
        Self::with(Standing::Guest, &[], &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_names_roles_is_good_for_those_alone() {
        let may = |uris| {
            ConnectedDevice::with(Standing::Member, &["device-1"], uris).as_member("it").is_ok()
        };
        assert!(may(&[]) && may(&["adit:role:agent"]) && may(&["https://elsewhere"]));
        assert!(may(&["adit:role:connector", "adit:role:agent"]));
        assert!(!may(&["adit:role:connector"]) && !may(&["adit:role:agents"]));
    }

    #[test]
    fn who_is_gone_may_nothing() {
        assert!(ConnectedDevice(None).as_member("it").is_err());
    }
}
