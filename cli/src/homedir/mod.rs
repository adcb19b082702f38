//! The home: one directory, accessible by its owner alone, with identities, what was issued and
//! what was saved. It decides where a file is; the file's module decides its contents.
//!
//! ```text
//! ~/.adit/                    0700; ADIT_HOME or --home names another
//!   mesh/                     this machine's own certificate authority (crate::identity::mesh)
//!   known/<name>.json         a service this machine was invited to (crate::identity::known)
//!   identities/<ca>/          this machine's certificate in another's mesh
//!   relay/                    this machine's key as a relay (crate::roles::relay)
//!   run/<process>.sock        a running adit (crate::control)
//! ```

pub(crate) mod lock;
pub(crate) mod store;
pub(crate) mod trusted;

use std::path::{Path, PathBuf};

use crate::base::exit::ExitError;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Returns the home that was named, or the one in the user's own directory. It creates no
    /// directory.
    ///
    /// # Errors
    /// If none was named and the user has no directory.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, ExitError> {
        if let Some(path) = named {
            return Ok(Self(path.to_owned()));
        }
        let user = std::env::home_dir().filter(|path| !path.as_os_str().is_empty());
        user.map(|path| Self(path.join(".adit"))).ok_or_else(|| {
            ExitError::usage("this user has no home directory; name one with --home or ADIT_HOME")
        })
    }

    /// Checks that no other user can write this home, if it exists: one who can is any device of it.
    ///
    /// # Errors
    /// The cause and the next step.
    pub(crate) fn checked(self) -> Result<Self, ExitError> {
        let Ok(metadata) = std::fs::metadata(&self.0) else { return Ok(self) };
        let wrong = |why: String| ExitError::usage(format!("{}: {why}", self.0.display()));
        if !metadata.is_dir() {
            return Err(wrong("this is no directory; name a home with --home or ADIT_HOME".into()));
        }
        trusted::check_writers(&metadata, "directory").map_err(wrong)?;
        Ok(self)
    }

    /// Returns the directory of everything.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the directory of this machine's certificate authority.
    pub(crate) fn mesh(&self) -> PathBuf {
        self.0.join("mesh")
    }

    /// Returns the directory of saved services that this machine was invited to.
    pub(crate) fn known(&self) -> PathBuf {
        self.0.join("known")
    }

    /// Returns the directory of this machine's certificate in the mesh of a CA.
    pub(crate) fn identity(&self, ca: &str) -> PathBuf {
        self.0.join("identities").join(ca)
    }

    /// Returns the directory of this machine's key as a relay.
    pub(crate) fn relay(&self) -> PathBuf {
        self.0.join("relay")
    }

    /// Returns the directory of the sockets of running processes.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A directory that is removed with its owner.
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("adit-scratch-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_home_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new();
        let said = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(scratch.path(), mode).unwrap();
            let home = Home::find(Some(scratch.path())).unwrap();
            home.checked().map(drop).map_err(|stop| stop.to_string())
        };
        assert!(said(0o700).is_ok() && said(0o755).is_ok());
        assert!(said(0o777).unwrap_err().contains("others may write this directory (mode 777)"));
        assert!(said(0o775).unwrap_err().ends_with("run: chmod go-w on it"));
        if std::os::unix::fs::chown(scratch.path(), Some(4_242), None).is_ok() {
            assert!(said(0o700).unwrap_err().contains("belongs to another user (id 4242)"));
        }
    }

    #[test]
    fn the_home_that_was_named_goes_before_the_users_own() {
        let home = Home::find(Some(Path::new("/elsewhere"))).unwrap();
        assert_eq!(home.mesh(), Path::new("/elsewhere/mesh"));
    }
}
