//! Files that must not be lost or disclosed: written completely or not at all, readable by their
//! owner alone.
//!
//! A file is written beside its place, flushed to the disk, and renamed; then the directory is
//! flushed, so that a crash leaves the old file or the new one. It never overwrites a file that it
//! is asked to create.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::trusted::{self, Stamp, Unread};
use crate::base::exit::ExitError;

/// Creates a directory and its parents, accessible by the owner alone.
///
/// # Errors
/// A sentence about the directory.
pub(crate) fn directory(path: &Path) -> Result<(), ExitError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path).map_err(|error| cannot_write(path, &error))
}

/// Replaces a file, or creates it. Its directory exists.
///
/// # Errors
/// A sentence about the file; the old contents are kept then.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), ExitError> {
    write_beside(path, contents, |beside| fs::rename(beside, path))
}

/// Creates a file, unless there is one. Its directory exists.
///
/// # Errors
/// A sentence about the file, also if there is one already, which is kept.
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<(), ExitError> {
    // A link, unlike a rename, fails if the destination exists.
    write_beside(path, contents, |beside| {
        fs::hard_link(beside, path)?;
        fs::remove_file(beside)
    })
}

fn write_beside(
    path: &Path,
    contents: &[u8],
    put: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), ExitError> {
    let beside = beside(path);
    let written = write(&beside, contents).and_then(|()| put(&beside)).and_then(|()| flush(path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        cannot_write(path, &error)
    })
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Returns a name that no other process and no other write of this one uses.
fn beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The time distinguishes a file of this process from one that a crashed process with the same
    // id left behind.
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = time.unwrap_or_default().as_nanos();
    path.with_file_name(format!(".{name}.{}.{number}.{time}", std::process::id()))
}

/// Makes what was renamed in a directory outlast a crash of the machine.
///
/// # Errors
/// A sentence about the directory.
pub(crate) fn flush_directory(path: &Path) -> Result<(), ExitError> {
    flush(&path.join(".")).map_err(|error| cannot_write(path, &error))
}

#[cfg(unix)]
fn flush(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(not(unix))]
fn flush(path: &Path) -> io::Result<()> {
    let _ = path;
    Ok(())
}

/// Reads a file that may be missing.
///
/// # Errors
/// A sentence about a file that exists and cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, ExitError> {
    Ok(read_stamped(path)?.map(|(contents, _)| contents))
}

/// Reads the same, and the state of the file that it was read in.
///
/// # Errors
/// A sentence about a file that exists and cannot be read, or is not trusted.
pub(crate) fn read_stamped(path: &Path) -> Result<Option<(Vec<u8>, Stamp)>, ExitError> {
    match trusted::read(path) {
        Ok(read) => Ok(Some(read)),
        Err(Unread::Failed(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(Unread::Failed(error)) => Err(ExitError::usage(format!(
            "{}: cannot be read: {error}; make it readable for this user, or name another home with --home",
            path.display()
        ))),
        Err(Unread::Untrusted(why)) => Err(ExitError::usage(format!("{}: {why}", path.display()))),
    }
}

/// Returns the error for a file that could not be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> ExitError {
    use io::ErrorKind as Kind;
    let is = |kinds: &[Kind]| kinds.contains(&error.kind());
    let next = if is(&[Kind::StorageFull, Kind::QuotaExceeded, Kind::FileTooLarge]) {
        "free some space and try again: nothing was lost"
    } else if is(&[Kind::AlreadyExists]) {
        "it is left as it is: remove it yourself if it may go"
    } else if is(&[Kind::PermissionDenied, Kind::ReadOnlyFilesystem]) {
        "make it writable for this user, or name another home with --home or ADIT_HOME"
    } else {
        "name another home with --home or ADIT_HOME"
    };
    ExitError::usage(format!("{}: cannot be written: {error}; {next}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_not_created_again() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        create(&path, b"one").unwrap();
        let said = create(&path, b"two").unwrap_err().to_string();
        assert!(said.contains("it is left as it is"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_directories_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new();
        let folder = scratch.path().join("a/b");
        directory(&folder).unwrap();
        replace(&folder.join("file"), b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("file"))), (0o700, 0o600));
        assert_eq!(mode(&scratch.path().join("a")), 0o700);
    }

    #[test]
    fn a_file_that_is_not_there_is_no_error() {
        let scratch = Scratch::new();
        assert_eq!(read(&scratch.path().join("nothing")).unwrap(), None);
        assert!(read(scratch.path()).is_err());
    }
}
