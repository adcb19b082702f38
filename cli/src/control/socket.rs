//! The files of control sockets: made so that no other user can ever connect, removed with the
//! process, and recognised when a killed process left its own behind.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::base::exit::ExitError;
use crate::homedir::store;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) listener: UnixListener,
    pub(super) place: SocketFile,
    /// The user who owns it.
    pub(super) owner: u32,
}

/// The file of a socket, removed with this value.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens as `name` in the directory `run`, which is created.
///
/// The socket gets its name only once it listens. A client that is refused can therefore conclude
/// that the process is gone.
///
/// # Errors
/// A sentence about the obstacle.
pub(super) async fn bind(run: &Path, name: &str) -> Result<BoundSocket, ExitError> {
    let path = run.join(name);
    close_to_others(run)?;
    if UnixStream::connect(&path).await.is_ok() {
        let why = "another process has this name; give each its own home with --home or ADIT_HOME";
        return Err(ExitError::usage(format!("{}: {why}", path.display())));
    }
    let beside = run.join(format!(".{name}"));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(|error| cannot_listen(&path, &error))?;
    let published = (|| {
        let (socket, directory) = (fs::symlink_metadata(&beside)?, fs::metadata(run)?);
        if socket.uid() != directory.uid() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's"));
        }
        fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        fs::rename(&beside, &path)?;
        Ok(socket)
    })();
    match published {
        Ok(socket) => {
            let place = SocketFile { path, file: (socket.dev(), socket.ino()) };
            Ok(BoundSocket { listener, place, owner: socket.uid() })
        }
        Err(error) => {
            let _ = fs::remove_file(&beside);
            Err(store::cannot_write(run, &error))
        }
    }
}

/// Creates the directory, and removes other users' access to an existing one.
fn close_to_others(run: &Path) -> Result<(), ExitError> {
    store::directory(run)?;
    let closed = fs::metadata(run).and_then(|found| match found.mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(run, Permissions::from_mode(0o700)),
    });
    closed.map_err(|error| store::cannot_write(run, &error))
}

fn cannot_listen(path: &Path, error: &io::Error) -> ExitError {
    // The error of the standard library for a path that does not fit into a socket's address.
    if error.kind() == io::ErrorKind::InvalidInput {
        return ExitError::usage(format!(
            "{}: too long for a socket; name a home with a shorter path with --home or ADIT_HOME",
            path.display()
        ));
    }
    store::cannot_write(path, error)
}

/// Returns the sockets in a directory, which may be missing, in the order of their names.
///
/// # Errors
/// The error of the system about the directory.
pub(super) fn list(run: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(run) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_named = Path::new(&name).extension().is_some_and(|extension| extension == "sock");
        if is_named && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Connects to a socket. Returns `None`, and removes the socket, if its process is gone.
///
/// # Errors
/// Why a socket that may have a listener cannot be connected to.
pub(super) async fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let _ = fs::remove_file(path);
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what killed processes left behind.
pub(super) async fn sweep(run: &Path) {
    for path in list(run).unwrap_or_default() {
        drop(connect(&path).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_directory_and_the_socket_are_their_owners_alone() {
        let scratch = Scratch::new();
        let run = scratch.path().join("home/run");
        let socket = bind(&run, "agent-1.sock").await.unwrap();
        assert_eq!((mode(&run), mode(&run.join("agent-1.sock"))), (0o700, 0o600));
        assert_eq!(mode(&scratch.path().join("home")), 0o700);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
        drop(socket);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_directory_that_others_could_enter_is_closed_to_them() {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
        let _socket = bind(scratch.path(), "agent-1.sock").await.unwrap();
        assert_eq!(mode(scratch.path()), 0o700);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let scratch = Scratch::new();
        let run = scratch.path();
        drop(std::os::unix::net::UnixListener::bind(run.join("agent-1.sock")).unwrap());
        fs::write(run.join("agent-2.sock"), b"").unwrap();
        let _alive = bind(run, "agent-3.sock").await.unwrap();
        sweep(run).await;
        assert!(!run.join("agent-1.sock").exists());
        assert!(run.join("agent-2.sock").exists() && run.join("agent-3.sock").exists());
        assert_eq!(list(run).unwrap(), [run.join("agent-3.sock")]);
    }

    #[tokio::test]
    async fn a_name_that_was_left_behind_is_taken_and_one_in_use_is_not() {
        let scratch = Scratch::new();
        drop(std::os::unix::net::UnixListener::bind(scratch.path().join("a.sock")).unwrap());
        let first = bind(scratch.path(), "a.sock").await.unwrap();
        let said = bind(scratch.path(), "a.sock").await.unwrap_err().to_string();
        assert!(said.contains("another process has this name"), "{said}");
        drop(first);
        drop(bind(scratch.path(), "a.sock").await.unwrap());
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_answered_with_what_helps() {
        let scratch = Scratch::new();
        let run = scratch.path().join("x".repeat(100));
        let said = bind(&run, "agent-1.sock").await.unwrap_err().to_string();
        assert!(said.contains("too long for a socket; name a home with a shorter path"), "{said}");
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_sockets() {
        let scratch = Scratch::new();
        assert!(list(&scratch.path().join("run")).unwrap().is_empty());
        fs::write(scratch.path().join("file"), b"").unwrap();
        assert!(list(&scratch.path().join("file")).is_err());
    }
}
