//! Locks on files: one process at a time. The system releases a lock when its process ends for any
//! reason, so that a crash leaves none behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::store;
use crate::base::exit::ExitError;

/// A lock that is held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of a file in an existing directory.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn wait(path: &Path) -> Result<Self, ExitError> {
        let file = open(path)?;
        file.lock().map_err(|error| store::cannot_write(path, &error))?;
        Ok(Self { _file: file })
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
        let mut file = open(path)?;
        match file.try_lock() {
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
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map_err(|error| store::cannot_write(path, &error))
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
