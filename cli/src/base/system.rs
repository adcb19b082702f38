//! What the system provides to a program: random bytes and the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use adit_tokio::core::tls::default_provider;

use super::exit::{Exit, ExitError};

/// Fills a buffer with bytes from the system.
///
/// # Errors
/// If the system has none.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), ExitError> {
    default_provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| ExitError::new(Exit::Degraded, "the system gave no random bytes; start again"))
}

/// Returns the seconds since the Unix epoch by this machine's clock.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
