//! A running fingerprint of everything a world did, to compare one run with its twin.
//!
//! It decides nothing. Two runs with the same additions in the same order end with the same number;
//! a collision does not matter, since no attacker is trying to make one.

use std::hash::{DefaultHasher, Hasher};

/// A fingerprint, and how much went into it.
///
/// ```
/// use adit_core::testing::trace::Trace;
/// let (mut a, mut b) = (Trace::new(), Trace::new());
/// a.add(b"ab");
/// a.add(b"c");
/// b.add(b"a");
/// b.add(b"bc");
/// assert_ne!(a.fingerprint(), b.fingerprint());
/// assert_eq!((a.items(), b.items()), (2, 2));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Trace {
    hasher: DefaultHasher,
    items: u64,
}

impl Trace {
    /// Returns the fingerprint of an empty trace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes; where one addition ends and the next begins counts too.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.write_u64(bytes.len() as u64);
        self.hasher.write(bytes);
        self.items += 1;
    }

    /// Returns the fingerprint so far.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    /// Returns how many additions there were.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.items
    }
}
