//! Files that decide who may do what: opened once, judged by the descriptor, and read. It decides
//! whose files are trusted; their contents are for the caller.
//!
//! A file has to belong to this user or to root, and no other user may be able to write it.
//! Symbolic links are followed, as those of a Kubernetes ConfigMap have to be, if each of them, and
//! the directory that holds it, is as trusted as the file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Longest file that is read: a registry of 100,000 devices has half of it.
const MAX_LENGTH: u64 = 128 * 1024 * 1024;

/// Most symbolic links on the path to a file, as in Linux.
#[cfg(unix)]
const MAX_LINKS: u32 = 40;

/// A descriptor that is given up when the process has no other, so that a revocation can be read
/// even then.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

/// What distinguishes two states of a file: times of its contents and of its attributes, length,
/// device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    changed: (i64, i64),
    #[cfg(unix)]
    number: (u64, u64),
}

impl Stamp {
    /// Returns the present state of a file, or `None` if it cannot be looked at.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            #[cfg(unix)]
            number: (metadata.dev(), metadata.ino()),
        }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The system does not read it.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// It is not trusted: the cause and the next step.
    #[error("{0}")]
    Untrusted(String),
}

/// Reads a file. Returns its contents, and the state that they were read in.
///
/// # Errors
/// That it cannot be read, or is not trusted.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Unread> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let result = match read_once(path) {
        Err(Unread::Failed(error)) if is_out_of_descriptors(&error) && spare.is_some() => {
            *spare = None;
            read_once(path)
        }
        result => result,
    };
    if spare.is_none() {
        *spare = File::open(std::env::temp_dir()).or_else(|_| File::open("/")).ok();
    }
    result
}

fn read_once(path: &Path) -> Result<(Vec<u8>, Stamp), Unread> {
    let file = open(&resolve(path)?)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    if !metadata.is_file() {
        return Err(Unread::Untrusted("this is no file; name a file".to_owned()));
    }
    check_writers(&metadata, "file").map_err(Unread::Untrusted)?;
    if metadata.len() > MAX_LENGTH {
        return Err(Unread::Untrusted(format!("it is longer than {MAX_LENGTH} bytes; shorten it")));
    }
    let mut contents = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut contents)?;
    Ok((contents, Stamp::from(&metadata)))
}

/// Opens a file for reading, without waiting and without following a link at its end.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    without_links(&mut options);
    options.open(path)
}

/// Makes the options follow no link at the end of a path, and not wait for the writer of a pipe.
pub(super) fn without_links(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    #[cfg(not(unix))]
    let _ = options;
}

#[cfg(unix)]
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(not(unix))]
fn is_out_of_descriptors(_error: &io::Error) -> bool {
    false
}

/// Returns a path to the same file without symbolic links.
#[cfg(unix)]
fn resolve(path: &Path) -> Result<PathBuf, Unread> {
    use std::collections::VecDeque;
    use std::ffi::OsString;
    use std::path::Component;
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut left: VecDeque<OsString> = parts(&std::path::absolute(path)?).into();
    let (mut real, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir | Component::Prefix(_)) => real = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(real.pop()),
            Some(Component::CurDir) | None => {}
            Some(Component::Normal(_)) => {
                let next = real.join(&part);
                let metadata = std::fs::symlink_metadata(&next)?;
                if !metadata.is_symlink() {
                    real = next;
                    continue;
                }
                links += 1;
                if links > MAX_LINKS {
                    return Err(Unread::Untrusted("it has too many links; name the file".into()));
                }
                check_link(&next, &metadata, &real)?;
                for part in parts(&std::fs::read_link(&next)?).into_iter().rev() {
                    left.push_front(part);
                }
            }
        }
    }
    Ok(real)
}

#[cfg(not(unix))]
fn resolve(path: &Path) -> Result<PathBuf, Unread> {
    Ok(path.to_owned())
}

/// Checks that no other user can turn a link to another file.
#[cfg(unix)]
fn check_link(link: &Path, metadata: &Metadata, directory: &Path) -> Result<(), Unread> {
    use std::os::unix::fs::MetadataExt as _;
    let untrusted = |why: &str| {
        Err(Unread::Untrusted(format!(
            "{} is a symbolic link {why}; name the file itself",
            link.display()
        )))
    };
    if !is_trusted_owner(metadata.uid()) {
        return untrusted("that belongs to another user, who could turn it");
    }
    let holder = std::fs::metadata(directory)?;
    if !is_trusted_owner(holder.uid()) {
        return untrusted("in a directory of another user, who could turn it");
    }
    const STICKY: u32 = 0o1000;
    let is_open = holder.mode() & 0o022 != 0 && holder.mode() & STICKY == 0;
    if is_open && !is_read_only(directory) {
        return untrusted("in a directory that others may write, who could turn it");
    }
    Ok(())
}

/// Returns true if the file system of a directory is mounted read-only, as that of a ConfigMap is.
#[cfg(unix)]
fn is_read_only(directory: &Path) -> bool {
    let flags = rustix::fs::statvfs(directory).map(|system| system.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(unix)]
fn is_trusted_owner(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Checks that only this user and root may write a file or a directory.
///
/// # Errors
/// The cause and the next step.
#[cfg(unix)]
pub(super) fn check_writers(metadata: &Metadata, what: &str) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if !is_trusted_owner(owner) {
        return Err(format!(
            "this {what} belongs to another user (id {owner}), who could change it; own it, or copy it"
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!("others may write this {what} (mode {mode:o}); run: chmod go-w on it"));
    }
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn check_writers(_metadata: &Metadata, _what: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
