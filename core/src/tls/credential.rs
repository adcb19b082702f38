//! The identity that a peer proved. It is read from the verified leaf alone: the rest of the peer's
//! chain names no peer, and determines at most the mesh of the leaf (docs/security.md).

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::Serialize;

use super::trust::KeyDigest;

/// The authorization by which a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It holds a certificate of the trusted CA, the pinned key, or, where anyone may dial, a
    /// certificate of the CA that it presented.
    Member,
    /// It holds a key that was admitted without a certificate
    /// ([`Trust::with_guests`](super::Trust::with_guests),
    /// [`Trust::anyone`](super::Trust::anyone)).
    Guest,
}

/// The facts in a peer's verified certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// The authorization by which it is connected.
    pub standing: Standing,
    /// The DNS names of the leaf; none of a guest.
    pub names: Vec<String>,
    /// The URIs of the leaf; none of a guest.
    pub uris: Vec<String>,
    /// The leaf's serial number in hexadecimal; empty for a guest.
    pub serial: String,
    /// The leaf's public key.
    pub key: KeyDigest,
    /// The last instant at which it is good, since the Unix epoch in whole seconds; `None` if it
    /// never ends. The connection ends by then.
    pub not_after: Option<Duration>,
    /// The mesh it is a member of: the key of the CA that it presented and that issued its leaf.
    /// Known only where anyone may dial ([`Trust::anyone`](super::Trust::anyone)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<KeyDigest>,
    /// Whether its certificate is good for accepting connections: the extended key usage
    /// `serverAuth`, or no extended key usage at all (RFC 5280 §4.2.1.12). Known only with `mesh`.
    #[serde(skip_serializing)]
    pub may_serve: bool,
}

impl Credential {
    /// Returns a verified leaf.
    pub(super) fn member(leaf: &CertificateDer<'_>, not_after: Option<Duration>) -> Self {
        let mut credential = Self {
            standing: Standing::Member,
            names: Vec::new(),
            uris: Vec::new(),
            serial: String::new(),
            key: KeyDigest([0; 32]),
            not_after,
            mesh: None,
            may_serve: false,
        };
        // The certificate was just verified, and so can be parsed.
        if let Ok(parsed) = webpki::EndEntityCert::try_from(leaf) {
            credential.names = parsed.valid_dns_names().map(str::to_owned).collect();
            credential.uris = parsed.valid_uri_names().map(str::to_owned).collect();
            credential.serial = parsed.serial().iter().map(|b| format!("{b:02x}")).collect();
            credential.key = KeyDigest::of_spki(&parsed.subject_public_key_info());
        }
        credential
    }

    /// Returns the credential of the holder of a key, until a time if there is one.
    pub(super) fn guest(key: KeyDigest, until: Option<Duration>) -> Self {
        Self {
            standing: Standing::Guest,
            names: Vec::new(),
            uris: Vec::new(),
            serial: String::new(),
            key,
            not_after: until.map(|until| Duration::from_secs(until.as_secs())),
            mesh: None,
            may_serve: false,
        }
    }

    /// Returns true if it is a guest, which has no certificate and no name.
    #[must_use]
    pub const fn is_guest(&self) -> bool {
        matches!(self.standing, Standing::Guest)
    }
}
