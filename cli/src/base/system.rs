//! What the system provides to a program: random bytes and the wall clock.

use std::sync::{Mutex, PoisonError};
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

/// Keeps the system from writing the memory of this process to a disk when it crashes, as long as
/// the value lives. Only Linux can.
#[derive(Debug)]
pub(crate) struct NoCoreDump(());

/// How many values live.
static NO_CORE_DUMPS: Mutex<u32> = Mutex::new(0);

impl NoCoreDump {
    pub(crate) fn new() -> Self {
        let mut count = NO_CORE_DUMPS.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        allow_core_dump(false);
        Self(())
    }
}

impl Drop for NoCoreDump {
    fn drop(&mut self) {
        let mut count = NO_CORE_DUMPS.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            allow_core_dump(true);
        }
    }
}

fn allow_core_dump(is_allowed: bool) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let behavior =
            if is_allowed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
        // A kernel that refuses leaves the process as it was.
        let _ = set_dumpable_behavior(behavior);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = is_allowed;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use super::*;

    #[test]
    fn there_is_no_core_dump_while_a_key_is_in_memory() {
        let (one, two) = (NoCoreDump::new(), NoCoreDump::new());
        drop(one);
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        drop(two);
    }
}
