//! The answers to clients that ask for their own address.
//!
//! It decides which names and keys the clients' probes have, and which probes are answered. It
//! keeps no state of a client: all is derived again from one secret and the client's id. An answer
//! is as long as its question and goes to the source of the question, so that a forged or repeated
//! question amplifies no traffic.
//!
//! Source: docs/protocol.md, "Address discovery".

use std::fmt;
use std::net::SocketAddr;

#[cfg(not(feature = "ring"))]
use aws_lc_rs::hmac;
#[cfg(feature = "ring")]
use ring::hmac;

use crate::id::PeerId;
use crate::probe::{LEN, Probe, ProbeKey, ProbeKind};
use crate::tls::{KeyDigest, Tls};

/// Label that separates the names of clients from their keys.
const SESSION_LABEL: &[u8] = b"adit/1 discovery session";
const KEY_LABEL: &[u8] = b"adit/1 discovery key";

/// Label that separates this secret from every other use of the identity's key.
const SECRET_LABEL: &[u8] = b"adit/1 relay discovery";

/// Returns the secret of the relay with this identity.
pub(crate) fn secret_of(tls: &Tls) -> [u8; 32] {
    tls.derive(SECRET_LABEL)
}

/// Answers discovery probes.
pub struct ProbeResponder(hmac::Key);

impl fmt::Debug for ProbeResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(..)")
    }
}

impl ProbeResponder {
    /// Returns a responder that derives names and keys from `secret`.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// Returns the responder of the relay with this identity, also on another socket or after a
    /// restart.
    #[must_use]
    pub fn of(tls: &Tls) -> Self {
        Self::new(secret_of(tls))
    }

    /// Returns the session under which a client sends its probes. It does not reveal the client,
    /// and no other client has the same one after a restart.
    #[must_use]
    pub fn session_for(&self, client: PeerId, key: &KeyDigest) -> u64 {
        let label = [SESSION_LABEL, &key.0].concat();
        let [a, b, c, d, e, f, g, h, ..] = self.derive(&label, client.0);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Returns the secret bytes of the key of a session, as `Welcome`(crate::message::Welcome)
    /// carries them to the client.
    #[must_use]
    pub fn secret_for(&self, session: u64) -> [u8; 32] {
        self.derive(KEY_LABEL, session)
    }

    /// Returns the key of a session's probes, in both directions: the kind distinguishes a pong
    /// from a ping.
    #[must_use]
    pub fn key_for(&self, session: u64) -> ProbeKey {
        ProbeKey::new(self.secret_for(session))
    }

    /// Returns the answer to a genuine ping: its source address. `None` to everything else.
    #[must_use]
    pub fn answer(&self, datagram: &[u8], source: SocketAddr) -> Option<[u8; LEN]> {
        let session = Probe::session(datagram)?;
        let key = self.key_for(session);
        let ping = Probe::decode(datagram, &key)?;
        match ping.kind {
            ProbeKind::Ping => {}
            ProbeKind::Pong | ProbeKind::FullPing | ProbeKind::FullPong => return None,
        }
        let observed = Some(SocketAddr::new(source.ip().to_canonical(), source.port()));
        Some(Probe { kind: ProbeKind::Pong, observed, state: 0, ..ping }.encode(&key))
    }

    fn derive(&self, label: &[u8], number: u64) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label);
        context.update(&number.to_be_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(session: u64) -> Probe {
        let (transaction, sent) = (3, 77);
        Probe { kind: ProbeKind::Ping, session, transaction, sent, observed: None, state: 1 }
    }

    #[test]
    fn a_pong_contains_the_observed_address() {
        let responder = ProbeResponder::new([1; 32]);
        let session = responder.session_for(PeerId(5), &KeyDigest([0; 32]));
        let key = responder.key_for(session);
        for (source, seen) in [
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
        ] {
            let question = ping(session).encode(&key);
            let answer = responder.answer(&question, source.parse().unwrap()).unwrap();
            assert!(answer.len() <= question.len());
            let pong = Probe::decode(&answer, &key).unwrap();
            let expected = Probe {
                kind: ProbeKind::Pong,
                observed: Some(seen.parse().unwrap()),
                state: 0,
                ..ping(session)
            };
            assert_eq!(pong, expected);
            // An answer that is reflected is not a question.
            assert_eq!(responder.answer(&answer, source.parse().unwrap()), None);
        }
    }

    #[test]
    fn only_the_holder_of_the_key_of_its_session_is_answered() {
        let responder = ProbeResponder::new([1; 32]);
        let source = "192.0.2.1:5".parse().unwrap();
        let [one, two] =
            [1, 2].map(|client| responder.session_for(PeerId(client), &KeyDigest([0; 32])));
        assert_ne!(one, two);
        assert_eq!(responder.answer(&ping(one).encode(&responder.key_for(two)), source), None);
        let question = ping(one).encode(&responder.key_for(one));
        assert!(responder.answer(&question, source).is_some());
        assert!(responder.answer(&question, source).is_some(), "a replay is answered as well");
        assert_eq!(ProbeResponder::new([2; 32]).answer(&question, source), None);
        for at in 0..LEN {
            let mut forged = question;
            forged[at] ^= 1;
            assert_eq!(responder.answer(&forged, source), None, "changed at {at}");
            assert_eq!(responder.answer(&question[..at], source), None, "cut at {at}");
        }
        assert_eq!(responder.answer(&[&question[..], &[0]].concat(), source), None);
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", ProbeResponder::new([0x5a; 32])), "Responder(..)");
    }
}
