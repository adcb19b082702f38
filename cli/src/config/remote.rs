//! The connector that an agent's file names, and the identity to dial it with: one that the file
//! describes, or one that this machine was invited to.

use std::path::Path;

use adit_tokio::core::ServiceName;
use serde::Deserialize;

use super::{MAX_RELAYS, TlsFiles};
use crate::address::{HostAddress, PORT, RelayAddress};
use crate::base::exit::ExitError;

/// The connector to reach: by address and name, or as one that this machine was invited to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteKeys {
    #[serde(default, deserialize_with = "one_or_more")]
    address: Vec<HostAddress>,
    name: Option<String>,
    known: Option<String>,
}

/// A connector by its possible addresses and the identity that it must prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteConnector {
    /// Each may have several addresses, and any of them is sufficient.
    pub(crate) addresses: Vec<HostAddress>,
    /// Relays that it may be registered at, and any of them is sufficient.
    pub(crate) relays: Vec<RelayAddress>,
    /// The service to look up at a relay.
    pub(crate) service: Option<ServiceName>,
    /// The name that its certificate must carry.
    pub(crate) name: String,
    /// What people call it, where that is not its name.
    pub(crate) title: Option<String>,
}

/// The connector that an agent dials, and the identity to dial it with.
#[derive(Debug, Clone)]
pub(crate) enum AgentTarget {
    /// The one of an invite that this machine redeemed, by its saved name.
    Known(String),
    /// One that the file describes.
    Given(RemoteConnector, TlsFiles),
}

impl RemoteConnector {
    /// Returns a connector that is reached at its own addresses.
    pub(crate) const fn at(addresses: Vec<HostAddress>, name: String) -> Self {
        Self { addresses, name, relays: Vec::new(), service: None, title: None }
    }

    /// The same, as people call it.
    #[must_use]
    pub(crate) fn called(self, title: String) -> Self {
        Self { title: Some(title), ..self }
    }

    /// Returns what to call it in a sentence.
    pub(crate) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }

    /// Returns true if there is nothing to choose from: one address, which is no name, or relays
    /// alone.
    pub(crate) fn has_no_choice(&self) -> bool {
        match &self.addresses[..] {
            [] => true,
            [only] => self.relays.is_empty() && only.literal(PORT).is_some(),
            _ => false,
        }
    }

    /// Returns the same, also by these relays, with `service` to look up.
    #[must_use]
    pub(crate) fn by(mut self, relays: &[RelayAddress], service: Option<&ServiceName>) -> Self {
        for relay in relays {
            if !self.relays.iter().any(|known| known.at == relay.at) {
                self.relays.push(relay.clone());
            }
        }
        self.relays.truncate(MAX_RELAYS);
        if self.service.is_none() {
            self.service = service.cloned();
        }
        self
    }
}

impl RemoteKeys {
    /// Returns the target, which needs no address if there are relays.
    pub(super) fn target(
        self,
        tls: Option<TlsFiles>,
        has_relays: bool,
        path: &Path,
    ) -> Result<AgentTarget, ExitError> {
        let has_place = has_relays || !self.address.is_empty();
        let wrong = |what: &str| ExitError::usage(format!("{}: connector: {what}", path.display()));
        match (self.known, self.name, tls) {
            (Some(known), None, None) if self.address.is_empty() => Ok(AgentTarget::Known(known)),
            (Some(_), ..) => Err(wrong(
                "\"known\" is enough; remove \"address\", \"name\" and the section [tls]",
            )),
            (None, Some(name), Some(mut tls)) if has_place => {
                tls.resolve(path);
                Ok(AgentTarget::Given(RemoteConnector::at(self.address, name), tls))
            }
            (None, None, None) if self.address.is_empty() => Err(wrong(
                "the connector is missing; add known = \"web\" for one you were invited to, or address, \
                 name and a section [tls]",
            )),
            (None, None, _) => Err(wrong(
                "the key \"name\" is missing; add it like name = \"connector\", as the certificate says",
            )),
            (None, Some(_), _) if !has_place => Err(wrong(
                "the key \"address\" is missing; add it like address = \"connector.example:4433\"",
            )),
            (None, Some(_), _) => Err(ExitError::usage(format!(
                "{}: the key \"tls\" is missing; add it as a section [tls] with ca, certificate and key",
                path.display()
            ))),
        }
    }
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<HostAddress>, D::Error> {
    struct OneOrMore;
    impl<'de> serde::de::Visitor<'de> for OneOrMore {
        type Value = Vec<HostAddress>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a host, a host and a port, or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            HostAddress::try_from(text.to_owned()).map(|one| vec![one]).map_err(E::custom)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }
    from.deserialize_any(OneOrMore)
}
