//! The invariants for any certificate chain: the body of the fuzz target `identity`.
//!
//! Decides how bytes become a chain, which certificates may be trusted, and which identity results;
//! fails by panicking. Never makes up input: that comes from the fuzzer, or from the corpus that
//! the tests replay.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::clock::EPOCH;
use super::crypto::SeededCrypto;
use super::pair::CONNECTOR;
use super::pki::{Pki, Role, Validity};
use crate::tls::{Credential, KeyDigest, Standing, Tls, Trust, Verifiers};

/// Most changes to one chain, and most certificates in it.
const MAX_EDITS: usize = 64;
const MAX_CHAIN: usize = 16;

/// The last instant at which the guest is admitted.
const GUEST_UNTIL: Duration = EPOCH;

/// An issued certificate, before any change.
struct Made {
    certificate: CertificateDer<'static>,
    name: &'static str,
    uris: &'static [&'static str],
    serial: String,
    validity: Validity,
    role: Role,
    /// Whether the CA issued it to a device and did not revoke it.
    is_good: bool,
}

impl Made {
    fn is_good_at(&self, unix: Duration) -> bool {
        self.is_good && self.validity.not_before <= unix && unix <= self.validity.not_after
    }
}

/// The parts of every chain, and its verifiers.
struct Cast {
    made: Vec<Made>,
    guest: KeyDigest,
    /// Trusts the CA.
    verifiers: Verifiers,
    /// Trusts every peer that presents the CA of a known key.
    pinned: Verifiers,
}

/// Certificate chains: after any change, insertion or removal in a chain, an accepted peer has a
/// first certificate that the CA issued, byte for byte, and the name in it; a guest has no name; a
/// revoked or expired certificate is refused.
///
/// The first byte of `data` chooses the time. Every five bytes after it are one change to a chain
/// that begins as the agent's certificate alone.
pub fn identity(data: &[u8]) {
    static CAST: OnceLock<Cast> = OnceLock::new();
    let cast = CAST.get_or_init(Cast::new);
    let Some((&time, rest)) = data.split_first() else { return };
    let unix = moment(time);
    let mut chain = vec![cast.made[0].certificate.to_vec()];
    for edit in rest.as_chunks().0.iter().take(MAX_EDITS) {
        change(&mut chain, *edit, &cast.made);
    }
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    cast.verify_dialler(&chain, unix);
    cast.verify_acceptor(&cast.verifiers, &chain, unix);
    cast.verify_acceptor(&cast.pinned, &chain, unix);
}

/// Returns an instant close to the begin or the end of a validity.
fn moment(choice: u8) -> Duration {
    const SECOND: Duration = Duration::from_secs(1);
    let Validity { not_before, not_after } = Validity::CURRENT;
    match choice % 8 {
        0 => EPOCH,
        1 => EPOCH + SECOND,
        2 => not_before,
        3 => not_before - SECOND,
        4 => not_after,
        5 => not_after + SECOND,
        6 => Duration::ZERO,
        _ => Duration::from_secs(u64::MAX),
    }
}

/// Applies one change: the operation, its certificates, its place, and its value.
fn change(chain: &mut Vec<Vec<u8>>, [what, which, high, low, with]: [u8; 5], made: &[Made]) {
    let known = made[usize::from(which) % made.len()].certificate.to_vec();
    let place = usize::from(u16::from_be_bytes([high, low]));
    let at = usize::from(which).checked_rem(chain.len()).unwrap_or(0);
    let other = place.checked_rem(chain.len()).unwrap_or(0);
    match what % 10 {
        0 if chain.len() < MAX_CHAIN => chain.insert(place % (chain.len() + 1), known),
        1 if chain.len() < MAX_CHAIN && !chain.is_empty() => chain.push(chain[at].clone()),
        2 if !chain.is_empty() => drop(chain.remove(at)),
        3 if !chain.is_empty() => chain.swap(at, other),
        4 => chain.truncate(place % MAX_CHAIN),
        5.. if !chain.is_empty() => edit(&mut chain[at], what % 10, place, with),
        _ => {}
    }
}

fn edit(der: &mut Vec<u8>, what: u8, place: usize, with: u8) {
    let at = place.checked_rem(der.len()).unwrap_or(0);
    match what {
        5 => der.insert(at, with),
        _ if der.is_empty() => {}
        6 => der[at] ^= with.max(1),
        7 => der[at] = with,
        8 => drop(der.remove(at)),
        _ => der.truncate(at),
    }
}

impl Cast {
    fn new() -> Self {
        let (pki, stranger) = (Pki::new(), Pki::stranger());
        let made = |pki: Pki, name, role, validity, uris, is_good| Made {
            certificate: pki.issue_with(name, role, validity, uris).chain().swap_remove(0),
            name,
            uris,
            serial: pki.serial(name),
            validity,
            role,
            is_good,
        };
        let (agent, connector) = (Role::Agent, Role::Connector);
        let (current, ended, future) = (Validity::CURRENT, Validity::ENDED, Validity::FUTURE);
        let (own, all): (&[_], &[_]) = (
            &["adit:role:agent", "adit:service:web"],
            &["adit:role:agent", "adit:role:connector", "adit:service:admin"],
        );
        let mut all = vec![
            made(pki, "agent", agent, current, own, true),
            made(pki, "admin", agent, current, all, true),
            made(pki, CONNECTOR, connector, current, &["adit:role:connector"], true),
            made(pki, "stolen", agent, current, all, false),
            made(pki, "ended", agent, ended, own, true),
            made(pki, "future", connector, future, own, true),
            made(stranger, "agent", agent, current, all, false),
            made(stranger, CONNECTOR, connector, current, all, false),
            made(stranger, "guest", agent, current, all, false),
        ];
        // A member that plays the CA for others.
        let forged = pki.issue_as("agent", "admin", agent).chain().swap_remove(0);
        for certificate in [forged, pki.root(), stranger.root()] {
            let template = made(stranger, "nobody", agent, current, &[], false);
            all.push(Made { certificate, ..template });
        }
        let guest = digest(&all[8].certificate);
        let list = pki.revoked_pem(&["stolen"]);
        let trust = |trust: Trust| trust.with_revoked_pem(list.as_bytes()).expect("a list");
        let verifiers = |trust: Trust| {
            let own = pki.issue(CONNECTOR, connector).identity();
            let provider = SeededCrypto::new([7; 32]).provider();
            Tls::with_provider(own, trust, provider).verifiers().expect("they can be made")
        };
        let guests = BTreeMap::from([(guest, GUEST_UNTIL)]);
        Self {
            guest,
            verifiers: verifiers(trust(pki.trust()).with_guests(guests)),
            pinned: verifiers(trust(Trust::pinned(digest(&pki.root())))),
            made: all,
        }
    }

    /// Returns the certificate that this one is, byte for byte.
    fn find(&self, certificate: &CertificateDer<'_>) -> Option<&Made> {
        self.made.iter().find(|made| made.certificate == *certificate)
    }

    fn verify_dialler(&self, chain: &[CertificateDer<'_>], unix: Duration) {
        let found = self.verifiers.dialler(chain, unix);
        let leaf = chain.first().and_then(|leaf| self.find(leaf));
        let may = leaf.is_some_and(|made| made.is_good_at(unix));
        match &found {
            Ok(credential) if credential.standing == Standing::Guest => {
                assert_eq!(credential.key, self.guest, "a guest that nobody invited");
                assert_eq!(credential.key, digest(&chain[0]), "another key than the leaf's");
                assert!(unix.as_secs() <= GUEST_UNTIL.as_secs(), "a guest whose time is over");
                assert!(credential.names.is_empty() && credential.uris.is_empty());
                assert!(credential.serial.is_empty());
            }
            Ok(credential) => {
                assert!(may, "accepted, and may not be: {credential:?}");
                is_the_leafs(credential, leaf);
            }
            // Only whole certificates follow a valid one.
            Err(refused) if may && chain.iter().all(|one| self.find(one).is_some()) => {
                panic!("a good certificate is refused: {refused}")
            }
            Err(_) => {}
        }
    }

    fn verify_acceptor(&self, verifiers: &Verifiers, chain: &[CertificateDer<'_>], unix: Duration) {
        let Ok(credential) = verifiers.acceptor(chain, CONNECTOR, unix) else { return };
        let leaf = chain.first().and_then(|leaf| self.find(leaf));
        let may = |made: &Made| {
            made.is_good_at(unix) && made.role == Role::Connector && made.name == CONNECTOR
        };
        assert!(leaf.is_some_and(may), "accepted, and may not be: {credential:?}");
        assert_eq!(credential.standing, Standing::Member);
        is_the_leafs(&credential, leaf);
    }
}

/// Checks that the name of a peer is exactly the one in its first certificate.
fn is_the_leafs(credential: &Credential, leaf: Option<&Made>) {
    let leaf = leaf.expect("it is one that was made");
    assert_eq!(credential.names, [leaf.name]);
    assert_eq!(credential.uris, leaf.uris);
    assert_eq!(credential.serial, leaf.serial);
    assert_eq!(credential.key, digest(&leaf.certificate));
    assert_eq!(credential.not_after, Some(leaf.validity.not_after));
}

fn digest(certificate: &CertificateDer<'_>) -> KeyDigest {
    KeyDigest::of_certificate(certificate).expect("what was accepted is a certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzz_target_sees_accepted_and_refused_chains() {
        let cast = Cast::new();
        let accepted = |time, as_acceptor| {
            let of = |made: &Made| {
                let chain = [made.certificate.clone(), Pki::new().root()];
                let found = match as_acceptor {
                    true => cast.pinned.acceptor(&chain, CONNECTOR, time),
                    false => cast.verifiers.dialler(&chain, time),
                };
                found.is_ok()
            };
            cast.made.iter().filter(|made| of(made)).map(|made| made.name).collect::<Vec<_>>()
        };
        assert_eq!(accepted(EPOCH, false), ["agent", "admin", CONNECTOR, "guest"]);
        let after = EPOCH + Duration::from_secs(1);
        assert_eq!(accepted(after, false), ["agent", "admin", CONNECTOR]);
        assert_eq!(accepted(EPOCH, true), [CONNECTOR]);
        assert!(accepted(Validity::CURRENT.not_after + Duration::from_secs(1), true).is_empty());
    }
}
