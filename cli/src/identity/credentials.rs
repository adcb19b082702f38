//! Who a node is: what it shows to its peers, and what to relays. It reads no file.

use adit_tokio::core::tls::{Identity, Tls, TlsError};

/// Who a node is.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// To the peers that it has, and whom it believes to be one.
    pub(crate) tls: Tls,
    /// To relays, which know nobody: with the CA of its certificate behind that.
    pub(crate) relay_identity: Identity,
}

impl Credentials {
    /// One whose identity says all there is to say, to anybody.
    pub(crate) fn alone(tls: Tls) -> Self {
        Self { relay_identity: tls.identity().clone(), tls }
    }

    /// The same, which shows this CA to relays.
    ///
    /// # Errors
    /// When the text is no certificate.
    pub(crate) fn of(tls: Tls, ca: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { relay_identity: tls.identity().clone().presenting(ca)?, tls })
    }
}
