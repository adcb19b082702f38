//! The trust of a node: certificate authorities, their revocation lists, a pinned key in place of
//! them, guests without a certificate, or any dialer. Plain values; it checks nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::identity::certificates;
use super::{TlsError, sha256};

/// The SHA-256 of a public key, as its `SubjectPublicKeyInfo` in DER (RFC 7469 §2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// Returns the digest of a certificate's public key; `None` when it is not an X.509
    /// certificate.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        Some(Self::of_spki(&parsed.subject_public_key_info()))
    }

    /// Returns the digest of a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(sha256(spki))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for KeyDigest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's digest is 64 lowercase hexadecimal digits")]
pub struct InvalidKeyDigest;

impl FromStr for KeyDigest {
    type Err = InvalidKeyDigest;

    fn from_str(text: &str) -> Result<Self, InvalidKeyDigest> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(InvalidKeyDigest),
        };
        let (pairs, []) = text.as_bytes().as_chunks() else { return Err(InvalidKeyDigest) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| InvalidKeyDigest)?;
        let mut digest = [0; 32];
        for (byte, &[high, low]) in digest.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Ok(Self(digest))
    }
}

impl<'de> serde::Deserialize<'de> for KeyDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The trust anchors of certificates.
#[derive(Debug, Clone)]
pub(super) enum Anchors {
    Roots(Arc<RootCertStore>),
    /// The key of a CA.
    Pin(KeyDigest),
    /// The key of the acceptor itself.
    Leaf(KeyDigest),
    /// Every dialer.
    Anyone,
}

/// What a node trusts.
///
/// ```
/// # fn read(pem: &[u8], revoked: &[u8]) -> Result<(), adit_core::tls::TlsError> {
/// use adit_core::tls::Trust;
/// let trust = Trust::from_pem(pem)?.with_revoked_pem(revoked)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Trust {
    pub(super) anchors: Anchors,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Keys without a certificate that are admitted, and until when.
    pub(super) guests: Arc<BTreeMap<KeyDigest, Duration>>,
}

impl Trust {
    /// Reads one or more CA certificates from PEM text.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is none, [`TlsError::Trust`] when one is unusable.
    pub fn from_pem(ca: &[u8]) -> Result<Self, TlsError> {
        Self::new(certificates(ca)?)
    }

    /// Returns trust in CA certificates in DER.
    ///
    /// # Errors
    /// [`TlsError::Trust`] when one is unusable.
    pub fn new(ca: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(certificate).map_err(|e| TlsError::Trust(e.to_string()))?;
        }
        Ok(Self::anchored(Anchors::Roots(Arc::new(roots))))
    }

    /// Returns trust in the one CA with a public key of this digest: an acceptor has to present
    /// that CA's certificate along with its own. For a first contact, before the CA's certificate
    /// is known; only a node that dials can be configured with it.
    #[must_use]
    pub fn pinned(ca: KeyDigest) -> Self {
        Self::anchored(Anchors::Pin(ca))
    }

    /// Returns trust in the one acceptor with a public key of this digest, regardless of the issuer
    /// and the lifetime of its certificate: the name that is dialled has to be in it. A relay is
    /// pinned like this, since its certificate is its own (docs/protocol.md, "Relay addresses").
    /// Only a node that dials can be configured with it.
    #[must_use]
    pub fn pinned_leaf(key: KeyDigest) -> Self {
        Self::anchored(Anchors::Leaf(key))
    }

    /// Returns trust in no authority: an acceptor accepts every dialer that proves to hold the key
    /// of the certificate it presents (RFC 8446 §4.4.3), and knows it by that key. A dialer that
    /// presents the CA of its certificate as well is a member of that CA's mesh
    /// ([`Credential::mesh`](super::Credential::mesh)); every other is a guest. For a relay, which
    /// serves meshes unknown to it. Revocation lists and guests beside it are ignored; a node with
    /// it cannot dial.
    #[must_use]
    pub fn anyone() -> Self {
        Self::anchored(Anchors::Anyone)
    }

    /// Returns true if a node with it can dial.
    pub(crate) const fn may_dial(&self) -> bool {
        !matches!(self.anchors, Anchors::Anyone)
    }

    fn anchored(anchors: Anchors) -> Self {
        Self { anchors, revoked: Vec::new(), guests: Arc::default() }
    }

    /// Returns the same, less the certificates that these lists revoke (RFC 5280 §5), in PEM. A
    /// list past its `nextUpdate` still counts: a revoked device does not come back because the
    /// list was not renewed.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when the text is not PEM or one of its lists is not a list.
    pub fn with_revoked_pem(mut self, crl: &[u8]) -> Result<Self, TlsError> {
        let wrong = |why: String| TlsError::Pem { what: "certificate revocation list", why };
        for list in CertificateRevocationListDer::pem_slice_iter(crl) {
            let list = list.map_err(|e| wrong(e.to_string()))?;
            webpki::BorrowedCertRevocationList::from_der(&list)
                .map_err(|e| wrong(e.to_string()))?;
            self.revoked.push(list);
        }
        Ok(self)
    }

    /// Returns true if both trust the same certificates, guests aside.
    pub(crate) fn trusts_same_as(&self, other: &Self) -> bool {
        let same_anchors = match (&self.anchors, &other.anchors) {
            (Anchors::Roots(one), Anchors::Roots(two)) => one.roots == two.roots,
            (Anchors::Pin(one), Anchors::Pin(two)) | (Anchors::Leaf(one), Anchors::Leaf(two)) => {
                one == two
            }
            (Anchors::Anyone, Anchors::Anyone) => true,
            (
                Anchors::Roots(_) | Anchors::Pin(_) | Anchors::Leaf(_) | Anchors::Anyone,
                Anchors::Roots(_) | Anchors::Pin(_) | Anchors::Leaf(_) | Anchors::Anyone,
            ) => false,
        };
        same_anchors && self.revoked == other.revoked
    }

    /// Returns the same trust, and an acceptor also accepts peers that prove to hold one of these
    /// keys, each until a time since the Unix epoch. The rest of a guest's certificate is ignored,
    /// and a name in it is not trusted: the peer's [`Credential`](super::Credential) marks it as a
    /// guest.
    #[must_use]
    pub fn with_guests(mut self, guests: BTreeMap<KeyDigest, Duration>) -> Self {
        self.guests = Arc::new(guests);
        self
    }
}
