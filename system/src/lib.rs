//! What the operating system supplies to an adapter, for any runtime: a UDP socket, a clock and a
//! seed.
//!
//! [`udp`] sends and receives batches (GSO, GRO, ECN), [`SystemClock`] counts the time during which
//! the machine was suspended, and [`with_io`] seeds a node and joins it with an adapter.
//! `adit-tokio` and `adit-smol` add the readiness and timers of their runtime, as an adapter of
//! your own would. The crate never waits, spawns a task or makes a decision about the tunnel.

#![forbid(unsafe_code)]

pub mod clock;
pub mod timer;
pub mod udp;

use std::io::{Error, ErrorKind, Result};

use adit_core::config::Config;
use adit_core::drive::io::Io;
use adit_core::drive::{Driver, Handle, drive};

pub use adit_core as core;

pub use crate::clock::SystemClock;

/// Joins a new node with an adapter. Returns the handle to use and the driver to run.
///
/// # Errors
/// `InvalidInput` if the configuration cannot be used; what the system reports if it has no random
/// bytes.
pub fn with_io<I: Io>(io: I, config: Config) -> Result<(Handle, Driver<I>)> {
    drive(io, config, seed()?).map_err(|e| Error::new(ErrorKind::InvalidInput, e))
}

/// Returns a seed that cannot be guessed, from the TLS provider's source of randomness.
///
/// # Errors
/// If the system has no random bytes.
pub fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    adit_core::tls::default_provider()
        .secure_random
        .fill(&mut seed)
        .map_err(|_| Error::other("the system gave no random bytes"))?;
    Ok(seed)
}
