//! What the operating system supplies to an adapter, whichever runtime it is for: a socket, a
//! clock and a seed. Nothing here waits: every call returns at once.

pub mod clock;
pub mod udp;

use std::io;

/// A seed nobody can guess, from the TLS provider's source of randomness.
pub fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    adit_core::tls::default_provider()
        .secure_random
        .fill(&mut seed)
        .map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(seed)
}
