//! Who a peer is, as far as its rights go: by its verified certificate and nothing else.

use std::fmt;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Code, Failure};

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Device {
    names: Vec<String>,
    is_guest: bool,
}

impl Device {
    /// Who is connected. One that is gone already is nobody, and may do what a guest may.
    pub(super) fn of(peer: &Peer) -> Self {
        match peer.credential() {
            Some(credential) => Self { is_guest: credential.is_guest(), names: credential.names },
            None => Self { is_guest: true, names: Vec::new() },
        }
    }

    /// The DNS names of its certificate; none of a guest.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// That it is a member, which has a certificate of the CA.
    ///
    /// # Errors
    /// That a guest may not do what it asked for.
    pub(super) fn as_member(&self, what: &str) -> Result<(), Failure> {
        if self.is_guest {
            let why = format!("{what} is for members, and an invited guest is none yet");
            return Err(Failure::new(Code::Forbidden, why));
        }
        Ok(())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.as_slice() {
            _ if self.is_guest => f.write_str("an invited guest"),
            [] => f.write_str("a device without a name"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
impl Device {
    /// A member of these names.
    pub(super) fn member(names: &[&str]) -> Self {
        Self { names: names.iter().map(|&name| name.to_owned()).collect(), is_guest: false }
    }

    pub(super) const fn guest() -> Self {
        Self { names: Vec::new(), is_guest: true }
    }
}
