//! Fixed certificates for worlds: the same names give the same bytes on every run.
//!
//! It decides which key signs which certificate, and for how long. It never draws anything: keys
//! and serial numbers are derived from the names. Authorities and certificates are made once per
//! process, since thousands of worlds use the same few.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, PKCS_ED25519, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::clock::EPOCH;
use crate::pki;
use crate::rng::Rng;
use crate::tls::Trust;

pub use crate::pki::{Issued, Role, Validity};

const DAY: Duration = Duration::from_secs(86_400);

impl Validity {
    /// From 30 days before the start of every world until 335 days after it.
    pub const CURRENT: Self = Self {
        not_before: Duration::from_secs(EPOCH.as_secs() - 30 * DAY.as_secs()),
        not_after: Duration::from_secs(EPOCH.as_secs() + 335 * DAY.as_secs()),
    };
    /// Ended a day before the start of every world.
    pub const ENDED: Self = Self {
        not_before: Duration::from_secs(EPOCH.as_secs() - 366 * DAY.as_secs()),
        not_after: Duration::from_secs(EPOCH.as_secs() - DAY.as_secs()),
    };
    /// Begins a day after the start of every world.
    pub const FUTURE: Self = Self {
        not_before: Duration::from_secs(EPOCH.as_secs() + DAY.as_secs()),
        not_after: Duration::from_secs(EPOCH.as_secs() + 366 * DAY.as_secs()),
    };
}

/// A certificate authority.
///
/// ```
/// use adit_core::testing::pki::{Pki, Role};
/// let pki = Pki::new();
/// let issued = pki.issue("connector", Role::Connector);
/// assert_eq!(issued.chain(), pki.issue("connector", Role::Connector).chain());
/// assert_ne!(issued.chain(), Pki::stranger().issue("connector", Role::Connector).chain());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Pki(&'static TestAuthority);

struct TestAuthority {
    seed: [u8; 32],
    own: pki::Authority,
    roots: Arc<RootCertStore>,
    issued: Mutex<BTreeMap<(String, Role, Validity), Issued>>,
}

impl std::fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// Returns the authority that every node in a world trusts.
    #[must_use]
    pub fn new() -> Self {
        static TRUSTED: OnceLock<TestAuthority> = OnceLock::new();
        Self(TRUSTED.get_or_init(|| TestAuthority::new([1; 32])))
    }

    /// Returns another authority of the same name, which no node trusts.
    #[must_use]
    pub fn stranger() -> Self {
        static STRANGER: OnceLock<TestAuthority> = OnceLock::new();
        Self(STRANGER.get_or_init(|| TestAuthority::new([2; 32])))
    }

    /// Returns the root certificate.
    #[must_use]
    pub fn root(self) -> CertificateDer<'static> {
        self.0.own.certificate().clone()
    }

    /// Returns the root certificate as PEM.
    #[must_use]
    pub fn root_pem(self) -> &'static str {
        self.0.own.certificate_pem()
    }

    /// Returns a store with the root certificate alone.
    #[must_use]
    pub fn roots(self) -> Arc<RootCertStore> {
        Arc::clone(&self.0.roots)
    }

    /// Returns trust in the root certificate alone, for a node.
    ///
    /// # Panics
    ///
    /// Never: a root made here is a certificate.
    #[must_use]
    pub fn trust(self) -> Trust {
        self.0.own.trust().expect("a root made here is a certificate")
    }

    /// Returns a certificate for a DNS name, valid in every world.
    #[must_use]
    pub fn issue(self, name: &str, role: Role) -> Issued {
        self.issue_valid(name, role, Validity::CURRENT)
    }

    /// Returns a certificate that ended before the world began.
    #[must_use]
    pub fn issue_expired(self, name: &str, role: Role) -> Issued {
        self.issue_valid(name, role, Validity::ENDED)
    }

    /// Returns a certificate that is not valid yet when the world begins.
    #[must_use]
    pub fn issue_not_yet_valid(self, name: &str, role: Role) -> Issued {
        self.issue_valid(name, role, Validity::FUTURE)
    }

    /// Returns a list, as PEM, that revokes the certificates of these names.
    ///
    /// # Panics
    ///
    /// Never: fixed parameters can be signed.
    #[must_use]
    pub fn revoked_pem(self, names: &[&str]) -> String {
        let at = date_time_ymd(1970, 1, 1) + EPOCH;
        let revoked = |name: &&str| RevokedCertParams {
            serial_number: serial(self.0.seed, name),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at,
            next_update: at + DAY,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(self.0.own.issuer()).expect("the authority signs lists");
        list.pem().expect("a list made here is one")
    }

    /// Returns a certificate for a DNS name, with this validity.
    ///
    /// # Panics
    ///
    /// If `name` is not a DNS name, or `validity` leaves the years that X.509 can write.
    #[must_use]
    pub fn issue_valid(self, name: &str, role: Role, validity: Validity) -> Issued {
        let mut issued = self.0.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued
            .entry((name.to_owned(), role, validity))
            .or_insert_with(|| self.0.issue(name, role, validity, &[]))
            .clone()
    }

    /// Returns the same with URIs; made again for each call.
    #[must_use]
    pub(super) fn issue_with(
        self,
        name: &str,
        role: Role,
        validity: Validity,
        uris: &[&str],
    ) -> Issued {
        self.0.issue(name, role, validity, uris)
    }

    /// Returns a certificate that the holder of `member`'s certificate signed without
    /// authorization.
    #[must_use]
    pub(crate) fn issue_as(self, member: &str, name: &str, role: Role) -> Issued {
        let key = fixed_key(self.0.seed, member);
        let serial = Some(serial(self.0.seed, member));
        let params = pki::params(member, serial, Validity::CURRENT);
        let issuer = Issuer::new(params.expect("the dates can be written"), key);
        self.0.issue_by(&issuer, name, role, Validity::CURRENT, &[])
    }

    /// Returns the serial number in the certificates of a name, in hexadecimal.
    pub(crate) fn serial(self, name: &str) -> String {
        serial(self.0.seed, name).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TestAuthority {
    fn new(seed: [u8; 32]) -> Self {
        let validity = Validity { not_before: Duration::ZERO, not_after: EPOCH + 20_000 * DAY };
        let name = "adit simulation";
        let params = pki::authority_params(name, Some(serial(seed, name)), validity);
        let params = params.expect("the dates can be written");
        let own = pki::Authority::signed(params, fixed_key(seed, "authority"))
            .expect("fixed parameters can be signed");
        let mut roots = RootCertStore::empty();
        roots.add(own.certificate().clone()).expect("a root made here is a certificate");
        Self { seed, own, roots: Arc::new(roots), issued: Mutex::new(BTreeMap::new()) }
    }

    fn issue(&self, name: &str, role: Role, validity: Validity, uris: &[&str]) -> Issued {
        self.issue_by(self.own.issuer(), name, role, validity, uris)
    }

    fn issue_by(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        name: &str,
        role: Role,
        validity: Validity,
        uris: &[&str],
    ) -> Issued {
        let serial = Some(serial(self.seed, name));
        let params = pki::device_params(name, role, uris, serial, validity);
        let params = params.expect("a name is ASCII and a date can be written");
        Issued::sign(&params, &fixed_key(self.seed, name), issuer).expect("Ed25519 signs anything")
    }
}

/// Returns the Ed25519 key of a name, as PKCS#8 (RFC 8410 section 7).
fn fixed_key(seed: [u8; 32], name: &str) -> KeyPair {
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06];
    der.extend([0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]);
    der.extend(Rng::new(Rng::new(seed, name).seed(), "key").seed());
    let der = PrivatePkcs8KeyDer::from(der);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 private key")
}

fn serial(seed: [u8; 32], name: &str) -> SerialNumber {
    SerialNumber::from(Rng::new(Rng::new(seed, name).seed(), "serial").u64() >> 1 | 1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::crypto::SeededCrypto;
    use rustls::client::ClientConnection;
    use rustls::server::{ServerConnection, WebPkiClientVerifier};
    use rustls::{ClientConfig, Error, ServerConfig};
    use rustls_pki_types::{PrivateKeyDer, UnixTime};

    #[derive(Debug)]
    struct AtEpoch;
    impl rustls::time_provider::TimeProvider for AtEpoch {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(EPOCH))
        }
    }

    type Side<'a> = (&'a SeededCrypto, Pki, &'a Issued);

    fn client((crypto, trust, identity): Side<'_>) -> ClientConnection {
        let config = ClientConfig::builder_with_details(crypto.provider(), Arc::new(AtEpoch))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(trust.roots())
            .with_client_auth_cert(identity.chain(), identity.key())
            .unwrap();
        ClientConnection::new(Arc::new(config), "connector".try_into().unwrap()).unwrap()
    }

    fn server((crypto, trust, identity): Side<'_>) -> ServerConnection {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(trust.roots(), crypto.provider())
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_details(crypto.provider(), Arc::new(AtEpoch))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        ServerConnection::new(Arc::new(config)).unwrap()
    }

    /// Returns every byte of a mutually authenticated handshake, and how it ended.
    pub(in crate::testing) fn handshake(
        agent: Side<'_>,
        connector: Side<'_>,
    ) -> (Vec<u8>, Result<(), Error>) {
        let (mut client, mut server) = (client(agent), server(connector));
        let mut bytes = Vec::new();
        for _ in 0..8 {
            let mut up = Vec::new();
            client.write_tls(&mut up).unwrap();
            server.read_tls(&mut &up[..]).unwrap();
            let at_server = server.process_new_packets().map(drop);
            let mut down = Vec::new();
            server.write_tls(&mut down).unwrap();
            client.read_tls(&mut &down[..]).unwrap();
            let at_client = client.process_new_packets().map(drop);
            bytes.extend([up, down].concat());
            if let Err(error) = at_client.and(at_server) {
                return (bytes, Err(error));
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        (bytes, Ok(()))
    }

    /// Returns the result of an agent's handshake with a connector of the given certificate.
    fn outcome(trust: Pki, issuer: Pki, issue: impl Fn(Pki) -> Issued) -> Result<(), Error> {
        let (a, b) = (SeededCrypto::new([8; 32]), SeededCrypto::new([9; 32]));
        let pki = Pki::new();
        let agent = pki.issue("agent", Role::Agent);
        let connector = issue(issuer);
        handshake((&a, trust, &agent), (&b, pki, &connector)).1
    }

    #[test]
    fn a_current_certificate_of_the_trusted_authority_is_accepted() {
        let issue = |pki: Pki| pki.issue("connector", Role::Connector);
        assert_eq!(outcome(Pki::new(), Pki::new(), issue), Ok(()));
    }

    #[test]
    fn a_certificate_of_the_wrong_authority_name_or_role_is_refused() {
        let good = |pki: Pki| pki.issue("connector", Role::Connector);
        for refused in [
            outcome(Pki::new(), Pki::stranger(), good),
            outcome(Pki::stranger(), Pki::new(), good),
            outcome(Pki::new(), Pki::new(), |pki| pki.issue("other", Role::Connector)),
            outcome(Pki::new(), Pki::new(), |pki| pki.issue("connector", Role::Agent)),
        ] {
            assert!(matches!(refused, Err(Error::InvalidCertificate(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_certificate_is_accepted_to_its_last_second_and_from_its_first() {
        let second = Duration::from_secs(1);
        let at = |not_before, not_after| {
            let validity = Validity { not_before, not_after };
            let issue = |pki: Pki| pki.issue_valid("connector", Role::Connector, validity);
            outcome(Pki::new(), Pki::new(), issue).is_ok()
        };
        assert!(at(EPOCH, EPOCH));
        assert!(!at(EPOCH - DAY, EPOCH - second));
        assert!(!at(EPOCH + second, EPOCH + DAY));
    }

    #[test]
    fn the_ended_and_the_future_certificate_are_refused_by_the_connector_too() {
        let pki = Pki::new();
        let (a, b) = (SeededCrypto::new([8; 32]), SeededCrypto::new([9; 32]));
        let connector = pki.issue("connector", Role::Connector);
        for agent in [
            pki.issue_expired("agent", Role::Agent),
            pki.issue_not_yet_valid("agent", Role::Agent),
            Pki::stranger().issue("agent", Role::Agent),
        ] {
            let (_, result) = handshake((&a, pki, &agent), (&b, pki, &connector));
            assert!(matches!(result, Err(Error::AlertReceived(_))), "{result:?}");
        }
    }

    #[test]
    fn pem_and_der_carry_the_same_certificate_and_key() {
        use rustls_pki_types::pem::PemObject;
        let issued = Pki::new().issue("connector", Role::Connector);
        let pem = CertificateDer::from_pem_slice(issued.chain_pem().as_bytes()).unwrap();
        assert_eq!(vec![pem], issued.chain());
        let root = CertificateDer::from_pem_slice(Pki::new().root_pem().as_bytes()).unwrap();
        assert_eq!(root, Pki::new().root());
        assert!(PrivateKeyDer::from_pem_slice(issued.key_pem().as_bytes()).is_ok());
    }
}
