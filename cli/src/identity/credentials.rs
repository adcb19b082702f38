//! The credentials of a node: its identity and trust anchors for peers, and its identity for
//! relays. It reads no file.

use adit_tokio::core::tls::{Identity, Tls, TlsError};

/// What a node authenticates with.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Identity and trust anchors for peers.
    pub(crate) tls: Tls,
    /// Identity shown to relays; the chain includes the CA certificate.
    pub(crate) relay_identity: Identity,
}

impl Credentials {
    /// Returns credentials that show relays the same identity as peers.
    pub(crate) fn alone(tls: Tls) -> Self {
        Self { relay_identity: tls.identity().clone(), tls }
    }

    /// Returns credentials with this CA certificate at the end of the chain for relays.
    ///
    /// # Errors
    /// If the text is not a certificate.
    pub(crate) fn of(tls: Tls, ca: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { relay_identity: tls.identity().clone().presenting(ca)?, tls })
    }
}
