//! Reads a configuration file, only if no other user could have written it.
//!
//! The file controls access, so that anyone who can write it has all the access that it grants.
//! "-" is standard input, which the caller of the program controls already.

use std::io::{self, Read as _};
use std::path::Path;

use crate::base::exit::ExitError;
use crate::homedir::trusted::{self, Unread};

/// Longest configuration that is read from standard input.
const MAX_LENGTH: u64 = 16 * 1024 * 1024;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, ExitError> {
    let wrong = |sentence: String| ExitError::usage(format!("{}: {sentence}", path.display()));
    let unreadable = |error: io::Error| {
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let next =
            if is_denied { "make it readable for this user" } else { "check the path given to -c" };
        wrong(format!("the configuration cannot be read: {error}; {next}"))
    };
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().take(MAX_LENGTH).read_to_string(&mut text);
        return read.map(|_| text).map_err(unreadable);
    }
    let contents = match trusted::read(path) {
        Ok((contents, _)) => contents,
        Err(Unread::Failed(error)) => return Err(unreadable(error)),
        Err(Unread::Untrusted(why)) => return Err(wrong(why)),
    };
    String::from_utf8(contents)
        .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))
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
    fn a_symbolic_link_is_followed_if_no_other_user_can_turn_it() {
        let scratch = Scratch::new();
        let (path, link) = (scratch.path().join("c.toml"), scratch.path().join("link.toml"));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read(&link).is_ok());
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            said(&link).ends_with("who could turn it; name the file itself"),
            "{}",
            said(&link)
        );
        fs::remove_file(&path).unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(said(&link).ends_with("check the path given to -c"));
    }

    #[test]
    fn a_directory_and_a_missing_file_are_unreadable() {
        let scratch = Scratch::new();
        assert!(said(scratch.path()).contains("cannot be read"));
        let none = scratch.path().join("none.toml");
        assert!(said(&none).ends_with("check the path given to -c"));
    }
}
