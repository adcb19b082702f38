//! The core's only source of randomness: a seeded generator, split by purpose.
//!
//! It decides nothing. Each machine gets its own generator, so that one more draw in one machine
//! does not change the draws of another.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A seeded generator (ChaCha8).
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// Returns the generator for one purpose under a seed.
    ///
    /// ```
    /// use adit_core::rng::Rng;
    /// let (mut a, mut b) = (Rng::new([7; 32], "jitter"), Rng::new([7; 32], "jitter"));
    /// assert_eq!(a.u64(), b.u64());
    /// assert_ne!(Rng::new([7; 32], "jitter").u64(), Rng::new([7; 32], "cid").u64());
    /// ```
    #[must_use]
    pub fn new(seed: [u8; 32], purpose: &str) -> Self {
        // Never in place: rustc 1.95 at opt-level 1 may pass one array to two calls of a closure.
        let mut mixed = seed;
        for (i, byte) in purpose.bytes().enumerate() {
            mixed[i % 32] ^= byte.rotate_left((i / 32) as u32);
        }
        Self(ChaCha8Rng::from_seed(mixed))
    }

    /// Returns the next 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// Returns 32 bytes to seed another generator with.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.fill(&mut out);
        out
    }

    /// Returns a number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}
