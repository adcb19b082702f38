//! Tests keys in place of a CA: dialers of a node without trust anchors, and an acceptor with a
//! pinned key.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ED25519};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::testing::pki::Validity;

fn provider() -> Arc<CryptoProvider> {
    SeededCrypto::new([7; 32]).provider()
}

fn digest(certificate: &CertificateDer<'_>) -> KeyDigest {
    KeyDigest::of_certificate(certificate).unwrap()
}

/// Returns the identity of a peer for a node that accepts any dialer.
fn seen(chain: &[CertificateDer<'static>]) -> Credential {
    let relay = Pki::stranger().issue("relay", Role::Connector).identity();
    let tls = Tls::with_provider(relay, Trust::anyone(), provider());
    tls.verifiers().unwrap().dialler(chain, EPOCH).unwrap()
}

fn behind(leaf: &Issued, rest: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    [leaf.chain(), rest.to_vec()].concat()
}

#[test]
fn a_dialler_that_shows_the_ca_of_its_certificate_is_a_member_of_that_mesh() {
    for (pki, role) in [(Pki::new(), Role::Agent), (Pki::stranger(), Role::Connector)] {
        let issued = pki.issue("device", role);
        let found = seen(&behind(&issued, &[pki.root()]));
        assert_eq!((found.standing, found.mesh), (Standing::Member, Some(digest(&pki.root()))));
        assert_eq!((found.names, found.key), (vec!["device".into()], digest(&issued.chain()[0])));
        assert_eq!(found.not_after, Some(Validity::CURRENT.not_after));
        assert_eq!(found.serial, pki.serial("device"));
    }
}

#[test]
fn a_dialler_that_shows_no_ca_or_one_that_did_not_issue_its_certificate_is_a_guest() {
    let issued = Pki::new().issue("device", Role::Agent);
    let other = Pki::new().issue("other", Role::Agent).chain();
    for rest in [vec![], vec![Pki::stranger().root()], other, vec![CertificateDer::from(vec![0])]] {
        let found = seen(&behind(&issued, &rest));
        assert_eq!(found, Credential::guest(digest(&issued.chain()[0]), None));
    }
}

#[test]
fn a_member_whose_certificate_is_not_valid_now_is_a_guest() {
    let pki = Pki::new();
    let all = [pki.issue_expired("d", Role::Agent), pki.issue_not_yet_valid("d", Role::Agent)];
    for issued in all {
        assert!(seen(&behind(&issued, &[pki.root()])).is_guest());
    }
}

#[test]
fn a_certificate_for_accepting_alone_makes_a_member_as_well() {
    let key = || KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = key();
    let root = ca.self_signed(&authority).unwrap();
    let issuer = Issuer::new(ca, authority);
    for (usage, mesh) in [
        (ExtendedKeyUsagePurpose::ServerAuth, Some(digest(root.der()))),
        (ExtendedKeyUsagePurpose::CodeSigning, None),
    ] {
        let mut leaf = CertificateParams::new(vec!["connector".into()]).unwrap();
        leaf.extended_key_usages = vec![usage];
        let leaf = leaf.signed_by(&key(), &issuer).unwrap();
        assert_eq!(seen(&[leaf.der().clone(), root.der().clone()]).mesh, mesh);
    }
}

#[test]
fn a_members_key_does_not_issue_members() {
    let (pki, member) = (Pki::new(), Pki::new().issue("member", Role::Agent));
    let forged = pki.issue_as("member", "device", Role::Agent);
    let rest = [member.chain(), vec![pki.root()]].concat();
    assert_ne!(seen(&behind(&forged, &rest)).mesh, Some(digest(&pki.root())));
}

#[test]
fn the_fourth_certificate_behind_the_leaf_is_looked_at_and_the_fifth_is_not() {
    let (pki, stranger) = (Pki::new(), Pki::stranger().root());
    let issued = pki.issue("device", Role::Agent);
    let at = |n: usize| {
        let mut rest = vec![stranger.clone(); n - 1];
        rest.push(pki.root());
        seen(&behind(&issued, &rest)).mesh
    };
    assert_eq!((at(4), at(5)), (Some(digest(&pki.root())), None));
}

#[test]
fn an_invalid_certificate_has_no_identity() {
    let relay = Tls::with_provider(identity("relay"), Trust::anyone(), provider());
    let verifiers = relay.verifiers().unwrap();
    assert!(verifiers.dialler(&[], EPOCH).is_err());
    assert!(verifiers.dialler(&[CertificateDer::from(vec![0x30, 0])], EPOCH).is_err());
}

/// Returns an observed certificate with the key of another.
fn borrowed(seen: &Issued, own: &Issued) -> CertifiedKey {
    let key = provider().key_provider.load_private_key(own.key()).unwrap();
    CertifiedKey::new(seen.chain(), key)
}

#[test]
fn anyone_who_dials_has_to_hold_the_key() {
    // The dialer of these tests trusts the CA.
    let own = Pki::new().issue("connector", Role::Connector).identity();
    let tls = Tls::with_provider(own, Trust::anyone(), provider());
    let relay = Arc::new(tls.server(&tls.verifiers().unwrap(), &wall()).unwrap());
    let (agent, mallory) = (Pki::new().issue("a", Role::Agent), Pki::new().issue("m", Role::Agent));
    assert_eq!(meet(&Arc::new(stranger(Some(&agent))), &relay), Ok(HandshakeKind::Full));
    let mut forger = stranger(None);
    forger.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(borrowed(&agent, &mallory)));
    let refused = meet(&Arc::new(forger), &relay).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(rustls::CertificateError::BadSignature));
    assert_eq!(meet(&Arc::new(stranger(None)), &relay), Err(Error::NoCertificatesPresented));
}

fn identity(name: &str) -> Identity {
    Pki::stranger().issue(name, Role::Connector).identity()
}

fn pinning(pin: KeyDigest) -> ClientConfig {
    let own = Pki::new().issue("agent", Role::Agent).identity();
    let tls = Tls::with_provider(own, Trust::pinned_leaf(pin), provider());
    tls.client(&tls.verifiers().unwrap(), &wall()).unwrap()
}

/// Returns an acceptor that accepts every dialer, with any certificate and key.
fn relay(own: CertifiedKey) -> Arc<ServerConfig> {
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let tls = Tls::with_provider(identity("relay"), Trust::anyone(), provider());
    let mut config = tls.server(&tls.verifiers().unwrap(), &wall()).unwrap();
    config.cert_resolver = Arc::new(Always(Arc::new(own)));
    Arc::new(config)
}

#[test]
fn a_pinned_key_is_trusted_regardless_of_issuer_and_validity() {
    let all = [
        Pki::stranger().issue("connector", Role::Connector),
        Pki::stranger().issue_expired("connector", Role::Connector),
    ];
    for issued in all {
        let pin = digest(&issued.chain()[0]);
        let own = relay(borrowed(&issued, &issued));
        assert_eq!(meet(&Arc::new(pinning(pin)), &own), Ok(HandshakeKind::Full));
        let tls = Tls::with_provider(identity("x"), Trust::pinned_leaf(pin), provider());
        let found = tls.verifiers().unwrap().acceptor(&issued.chain(), "connector", EPOCH).unwrap();
        assert_eq!((found.key, found.not_after, found.mesh), (pin, None, None));
    }
}

#[test]
fn an_acceptor_with_another_key_or_name_or_without_its_key_is_refused() {
    let issued = Pki::stranger().issue("connector", Role::Connector);
    let other = Pki::stranger().issue("other", Role::Connector);
    let pin = digest(&issued.chain()[0]);
    let refused = |pin, own| match meet(&Arc::new(pinning(pin)), &relay(own)) {
        Err(Error::InvalidCertificate(why)) => why,
        met => panic!("{met:?}"),
    };
    let unknown = refused(KeyDigest([9; 32]), borrowed(&issued, &issued));
    assert!(unknown.to_string().contains("OtherKey"), "{unknown}");
    // The name that is dialled is "connector".
    let named = refused(digest(&other.chain()[0]), borrowed(&other, &other));
    assert!(matches!(named, rustls::CertificateError::NotValidForNameContext { .. }), "{named:?}");
    let forged = refused(pin, borrowed(&issued, &other));
    assert_eq!(forged, rustls::CertificateError::BadSignature);
    // The CA of the pinned key's certificate does not help.
    let of_the_ca = refused(digest(&Pki::stranger().root()), borrowed(&issued, &issued));
    assert!(of_the_ca.to_string().contains("OtherKey"), "{of_the_ca}");
}

#[test]
fn trust_that_is_for_one_side_is_no_configuration_of_the_other() {
    let tls = |trust| Tls::with_provider(identity("relay"), trust, provider());
    let anyone = tls(Trust::anyone());
    let error = anyone.client(&anyone.verifiers().unwrap(), &wall()).unwrap_err();
    assert!(error.to_string().contains("for accepting alone"), "{error}");
    let pinned = tls(Trust::pinned_leaf(KeyDigest([1; 32])));
    let error = pinned.server(&pinned.verifiers().unwrap(), &wall()).unwrap_err();
    assert!(error.to_string().contains("for dialling alone"), "{error}");
}

#[test]
fn the_same_trust_is_the_same_and_any_other_is_not() {
    let (one, two) = (KeyDigest([1; 32]), KeyDigest([2; 32]));
    let all = [
        Trust::pinned(one),
        Trust::pinned(two),
        Trust::pinned_leaf(one),
        Trust::pinned_leaf(two),
        Trust::anyone(),
        Pki::new().trust(),
        Pki::stranger().trust(),
    ];
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            assert_eq!(a.trusts_same_as(b), i == j, "{i} and {j}");
        }
    }
}

#[test]
fn an_identity_presents_what_is_put_behind_it() {
    let issued = Pki::new().issue("agent", Role::Agent);
    let shown = issued.identity().presenting(Pki::new().root_pem().as_bytes()).unwrap();
    assert_eq!(shown.chain(), [issued.chain(), vec![Pki::new().root()]].concat());
    assert!(issued.identity().presenting(b"no PEM").is_err());
}
