//! Locks on files: one process at a time. The system releases a lock when its process ends for any
//! reason, so that a crash leaves none behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use super::{store, trusted};
use crate::base::exit::ExitError;

/// Pause between two tries.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// Tries before a line is logged: a change of a registry takes a few milliseconds.
const QUIET_TRIES: u32 = 50;

/// A lock that is held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of a file in an existing directory. If that takes longer than a moment, it
    /// logs what it waits for.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn wait(path: &Path) -> Result<Self, ExitError> {
        let file = open(path)?;
        for _ in 0..QUIET_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY_DELAY),
                Err(TryLockError::Error(error)) => return Err(store::cannot_write(path, &error)),
            }
        }
        tracing::warn!(
            "waiting for another adit that holds {}; if none should run, end it",
            path.display()
        );
        file.lock().map_err(|error| store::cannot_write(path, &error))?;
        Ok(Self { _file: file })
    }

    /// Returns the id of the process that holds a lock, if one does.
    pub(crate) fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        Some(holder.trim().to_owned())
    }

    /// Takes the lock of a file in an existing directory, for the life of this process, unless
    /// another process has it; then `taken` makes the error from that process's id.
    ///
    /// # Errors
    /// That error, or one about the file.
    pub(crate) fn claim(
        path: &Path,
        taken: impl FnOnce(&str) -> ExitError,
    ) -> Result<Self, ExitError> {
        Self::claim_opened(open(path)?, path, taken)
    }

    /// Takes the same, or returns `None` and logs it where the home cannot be written: the lock
    /// only keeps two processes apart.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub(crate) fn claim_if_writable(
        path: &Path,
        taken: impl FnOnce(&str) -> ExitError,
    ) -> Result<Option<Self>, ExitError> {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match try_open(path) {
            Ok(file) => Self::claim_opened(file, path, taken).map(Some),
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                tracing::warn!("{}: not locked: {error}; run it once only", path.display());
                Ok(None)
            }
            Err(error) => Err(store::cannot_write(path, &error)),
        }
    }

    fn claim_opened(
        mut file: File,
        path: &Path,
        taken: impl FnOnce(&str) -> ExitError,
    ) -> Result<Self, ExitError> {
        // A command that only asks for the holder has the lock for a moment.
        let mut tries = 0;
        let result = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if tries < 5 => {
                    tries += 1;
                    std::thread::sleep(RETRY_DELAY);
                }
                result => break result,
            }
        };
        match result {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(taken(if holder.is_empty() { "of unknown id" } else { holder }));
            }
            Err(TryLockError::Error(error)) => return Err(store::cannot_write(path, &error)),
        }
        // The process id in the file is only for people; on a full disk the lock is still held.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File, ExitError> {
    try_open(path).map_err(|error| store::cannot_write(path, &error))
}

fn try_open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    trusted::without_links(&mut options);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    #[test]
    fn a_second_claim_names_the_holder_of_the_lock() {
        let scratch = Scratch::new();
        let path = scratch.path().join("lock");
        let claim = || Lock::claim(&path, |holder| ExitError::usage(format!("held by {holder}")));
        let first = claim().unwrap();
        let said = claim().unwrap_err().to_string();
        assert_eq!(said, format!("held by {}", std::process::id()));
        drop(first);
        drop(claim().unwrap());
    }
}
