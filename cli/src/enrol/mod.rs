//! From an invite to a certificate, and from a certificate to the next one: the messages of the two
//! sides (docs/protocol.md, "Operations of a connector"). Both travel as requests within the
//! tunnel's own TLS session.
//!
//! `connector` answers, `agent` asks. TLS proves that the requester holds the invite's secret: it
//! is the key that the session was authenticated with.

pub(crate) mod agent;
pub(crate) mod connector;
pub(crate) mod renewal;

use serde::{Deserialize, Serialize};

/// A request of a device to its connector.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum EnrolmentRequest {
    /// A guest wants to become a member.
    Enrol {
        /// A certificate request (PKCS#10) in PEM.
        csr: String,
        /// What the device calls itself.
        #[serde(default)]
        label: String,
    },
    /// A member wants its next certificate.
    Renew {
        /// A certificate request (PKCS#10) in PEM, for the same key or a new one.
        csr: String,
    },
}

/// The answer to both.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnrolmentResponse {
    /// The device's name in the mesh.
    pub(crate) device: String,
    /// Its certificate in PEM.
    pub(crate) certificate: String,
    /// The CA's certificate in PEM.
    pub(crate) ca: String,
}

/// Maximum length of a stored label.
const MAX_LABEL: usize = 63;
