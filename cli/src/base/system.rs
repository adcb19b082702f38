//! What the system provides to a program: random bytes, the wall clock, and how
//! much memory there is.

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

/// Returns the memory that this process may use, in bytes: that of its control group or, without a
/// limit there, of the machine. `None` where the system does not tell.
pub(crate) fn memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| of_meminfo(&text));
    let group = read("/proc/self/cgroup").and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
        let limits = std::path::Path::new(&path).ancestors().filter_map(|path| {
            read(&format!("/sys/fs/cgroup{}/memory.max", path.display()))?.trim().parse().ok()
        });
        limits.min()
    });
    group.into_iter().chain(machine).min()
}

fn of_meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read_in_bytes() {
        let text = "MemTotal:        1014892 kB\nMemFree:          128 kB\n";
        assert_eq!(of_meminfo(text), Some(1_014_892 << 10));
        assert_eq!(of_meminfo("MemFree: 1 kB"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn there_is_no_core_dump_while_a_key_is_in_memory() {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        let (one, two) = (NoCoreDump::new(), NoCoreDump::new());
        drop(one);
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        drop(two);
    }
}
