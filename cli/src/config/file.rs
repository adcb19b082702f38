//! Reads a configuration file, only if no other user could have written it.
//!
//! The file controls access, so that anyone who can write it has all the access that it grants.

use std::io;
use std::path::Path;

use crate::base::exit::ExitError;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, ExitError> {
    let wrong = |sentence: String| ExitError::usage(format!("{}: {sentence}", path.display()));
    let unreadable = |error: io::Error| {
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let next =
            if is_denied { "make it readable for this user" } else { "check the path given to -c" };
        wrong(format!("the configuration cannot be read: {error}; {next}"))
    };
    let metadata = std::fs::symlink_metadata(path).map_err(unreadable)?;
    if metadata.is_symlink() {
        let next = std::fs::canonicalize(path).map_or_else(
            |_| "what it leads to is not there".to_owned(),
            |target| format!("give the file itself: -c {}", target.display()),
        );
        return Err(wrong(format!(
            "this is a symbolic link, which whoever owns its directory can turn; {next}"
        )));
    }
    check_writers(&metadata).map_err(&wrong)?;
    std::fs::read_to_string(path).map_err(unreadable)
}

#[cfg(unix)]
fn check_writers(metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return Err(format!(
            "this file belongs to another user (id {owner}), who could change it; own it, or copy it"
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!("others may write this file (mode {mode:o}); run: chmod go-w on it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_writers(_metadata: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::homedir::tests::Scratch;

    fn said(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_others_may_write_is_refused_and_one_that_they_may_read_is_not() {
        let scratch = Scratch::new();
        let path = scratch.path().join("c.toml");
        fs::write(&path, "").unwrap();
        for (mode, is_good) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), is_good, "{mode:o}");
        }
        let expected = "others may write this file (mode 602); run: chmod go-w on it";
        assert!(said(&path).ends_with(expected));
    }

    #[test]
    fn a_symbolic_link_is_refused_and_the_file_itself_named() {
        let scratch = Scratch::new();
        let (path, link) = (scratch.path().join("c.toml"), scratch.path().join("link.toml"));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let real = fs::canonicalize(&path).unwrap();
        assert!(said(&link).ends_with(&format!("give the file itself: -c {}", real.display())));
        fs::remove_file(&path).unwrap();
        assert!(said(&link).ends_with("what it leads to is not there"));
    }

    #[test]
    fn a_directory_and_a_missing_file_are_unreadable() {
        let scratch = Scratch::new();
        assert!(said(scratch.path()).contains("cannot be read"));
        let none = scratch.path().join("none.toml");
        assert!(said(&none).ends_with("check the path given to -c"));
    }
}
