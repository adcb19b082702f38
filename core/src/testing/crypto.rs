//! A TLS crypto provider with seeded randomness, so that handshakes repeat byte for byte.
//!
//! It replaces the random source and the key exchange of the provider the crate was built with, and
//! leaves one cipher suite, one group and the provider's own signatures: Ed25519 certificates are
//! needed for identical bytes, since an ECDSA signature is random in value and in length. It never
//! decides anything about certificates, and must never be used outside tests.
//!
//! rustls requires `&'static` sources. Each [`SeededCrypto`] therefore borrows a source from a pool
//! that grows to the largest number in use at any time, instead of leaking one per simulated node.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::{CipherSuite, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::rng::Rng;
use crate::tls::default_provider;

static IDLE: Mutex<Vec<&'static Source>> = Mutex::new(Vec::new());

/// A seeded crypto provider with its own random streams.
///
/// Keep it for as long as anything made from its provider is in use: when it is dropped and no
/// other owner holds the provider, its source goes back to the pool and serves the next one.
///
/// ```
/// use adit_core::testing::crypto::SeededCrypto;
/// let draw = |seed| {
///     let crypto = SeededCrypto::new([seed; 32]);
///     let mut out = [0; 16];
///     crypto.provider().secure_random.fill(&mut out).map(|()| out).ok()
/// };
/// assert_eq!(draw(1), draw(1));
/// assert_ne!(draw(1), draw(2));
/// ```
#[derive(Debug)]
pub struct SeededCrypto {
    source: &'static Source,
    provider: Arc<CryptoProvider>,
}

impl SeededCrypto {
    /// Returns a provider that draws everything from `seed`.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let streams = Streams::new(seed);
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let source: &'static Source = match idle {
            Some(source) => {
                *source.lock() = streams;
                source
            }
            None => Box::leak(Box::new(Source(Mutex::new(streams)))),
        };
        let mut provider = CryptoProvider::clone(&default_provider());
        provider.cipher_suites.retain(|s| s.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        provider.kx_groups = vec![source];
        provider.secure_random = source;
        Self { source, provider: Arc::new(provider) }
    }

    /// Returns the provider, to build TLS configurations with.
    #[must_use]
    pub fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }
}

impl Drop for SeededCrypto {
    fn drop(&mut self) {
        if Arc::get_mut(&mut self.provider).is_some() {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self.source);
        }
    }
}

struct Source(Mutex<Streams>);

/// Key exchange draws apart from everything else, so that neither shifts the other.
struct Streams {
    random: Rng,
    exchange: Rng,
}

impl Streams {
    fn new(seed: [u8; 32]) -> Self {
        Self { random: Rng::new(seed, "tls random"), exchange: Rng::new(seed, "tls exchange") }
    }
}

impl Source {
    fn lock(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl SecureRandom for Source {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.lock().random.fill(buf);
        Ok(())
    }
}

impl SupportedKxGroup for Source {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let secret = StaticSecret::from(self.lock().exchange.seed());
        let public = PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(shared.as_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pki::tests::handshake;
    use crate::testing::pki::{Pki, Role};

    fn transcript(seed: u8) -> Vec<u8> {
        let (client, server) = (SeededCrypto::new([seed; 32]), SeededCrypto::new([!seed; 32]));
        let pki = Pki::new();
        let agent = pki.issue("agent", Role::Agent);
        let connector = pki.issue("connector", Role::Connector);
        let (bytes, result) = handshake((&client, pki, &agent), (&server, pki, &connector));
        assert_eq!(result, Ok(()));
        bytes
    }

    #[test]
    fn the_same_seeds_give_the_same_handshake_byte_for_byte() {
        let first = transcript(1);
        assert!(first.len() > 1000);
        assert_eq!(first, transcript(1));
        assert_ne!(first, transcript(2));
    }

    #[test]
    fn concurrent_providers_do_not_share_a_stream() {
        let draw = |crypto: &SeededCrypto| {
            let mut out = [0; 32];
            crypto.provider().secure_random.fill(&mut out).unwrap();
            out
        };
        let alone = SeededCrypto::new([3; 32]);
        let expected = [draw(&alone), draw(&alone)];
        drop(alone);
        let (mine, other) = (SeededCrypto::new([3; 32]), SeededCrypto::new([4; 32]));
        let first = draw(&mine);
        draw(&other);
        assert_eq!([first, draw(&mine)], expected);
    }

    #[test]
    fn a_source_is_kept_out_of_the_pool_while_its_provider_is_held() {
        let crypto = SeededCrypto::new([5; 32]);
        let (source, held) = (crypto.source, crypto.provider());
        drop(crypto);
        let others: Vec<_> = (0..8).map(|_| SeededCrypto::new([6; 32])).collect();
        assert!(others.iter().all(|other| !std::ptr::eq(other.source, source)));
        drop(held);
    }

    #[test]
    fn a_key_share_that_contributes_nothing_or_has_the_wrong_length_is_refused() {
        let crypto = SeededCrypto::new([7; 32]);
        let provider = crypto.provider();
        let group = provider.kx_groups[0];
        for share in [&[0; 32][..], &[9; 31], &[9; 33], &[]] {
            assert!(group.start().unwrap().complete(share).is_err(), "{} bytes", share.len());
        }
        assert!(group.start().unwrap().complete(&[9; 32]).is_ok());
    }
}
