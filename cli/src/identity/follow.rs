//! Files that a running program follows: read when they change, and again until that succeeds. It
//! decides when files are read and what is logged about them; their contents are for the caller.
//!
//! A state of the files counts as seen only after it was read and used. A file that cannot be read,
//! as when the process is out of descriptors, is tried again at every look. Contents that cannot be
//! used are tried again when they change, and every few seconds, since they may depend on others.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::exit::ExitError;
use crate::base::lasting::LastingState;
use crate::homedir::trusted::Stamp;

/// Time after which contents that cannot be used are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Files that are used together.
#[derive(Debug)]
pub(crate) struct FollowedFiles {
    paths: Vec<PathBuf>,
    /// The beginning of the log lines about them.
    subject: &'static str,
    /// Their state when they were read and used last.
    seen: Option<Vec<Stamp>>,
    rejected: Option<Rejected>,
    failure: LastingState,
}

/// Contents that could not be used.
#[derive(Debug)]
struct Rejected {
    state: Vec<Stamp>,
    at: Instant,
    why: ExitError,
}

impl FollowedFiles {
    pub(crate) fn new(paths: Vec<PathBuf>, subject: &'static str) -> Self {
        Self { paths, subject, seen: None, rejected: None, failure: LastingState::default() }
    }

    /// Returns what `make` makes of the files, if they changed. `read` reads one of them.
    ///
    /// # Errors
    /// Why their present state is not in use, at every look until it is.
    pub(crate) fn look<T>(
        &mut self,
        read: impl Fn(&Path) -> Result<(Vec<u8>, Stamp), ExitError>,
        make: impl FnOnce(&[Vec<u8>]) -> Result<T, ExitError>,
    ) -> Result<Option<T>, ExitError> {
        let now = Instant::now();
        let result = self.look_at(read, make, now);
        match &result {
            Ok(None) => {}
            Ok(Some(_)) => {
                if let Some(after) = self.failure.on_ended(now) {
                    tracing::info!("{} is in use again, {after}", self.subject);
                }
            }
            Err(_) if self.seen.is_none() => {}
            Err(stop) => {
                let line = format!("{} cannot be used: {stop}", self.subject);
                if let Some(line) = self.failure.on_observed(line, now) {
                    tracing::warn!("{line}");
                }
            }
        }
        result
    }

    fn look_at<T>(
        &mut self,
        read: impl Fn(&Path) -> Result<(Vec<u8>, Stamp), ExitError>,
        make: impl FnOnce(&[Vec<u8>]) -> Result<T, ExitError>,
        now: Instant,
    ) -> Result<Option<T>, ExitError> {
        let state: Option<Vec<Stamp>> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        if state.is_some() && state == self.seen {
            self.rejected = None;
            self.failure.on_ended(now);
            return Ok(None);
        }
        if let Some(rejected) = &self.rejected
            && state.as_ref() == Some(&rejected.state)
            && now.saturating_duration_since(rejected.at) < RETRY_DELAY
        {
            return Err(rejected.why.clone());
        }
        let read: Result<Vec<_>, _> = self.paths.iter().map(|path| read(path)).collect();
        let (contents, state): (Vec<_>, Vec<_>) = read?.into_iter().unzip();
        match make(&contents) {
            Ok(made) => {
                (self.seen, self.rejected) = (Some(state), None);
                Ok(Some(made))
            }
            Err(why) => {
                self.rejected = Some(Rejected { state, at: now, why: why.clone() });
                Err(why)
            }
        }
    }

    /// Makes the next look read the files again, whether they change or not.
    pub(crate) fn forget(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.clear();
        }
        self.rejected = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::homedir::store;
    use crate::homedir::tests::Scratch;

    fn read(path: &Path) -> Result<(Vec<u8>, Stamp), ExitError> {
        store::read_stamped(path)?.ok_or_else(|| ExitError::usage("gone"))
    }

    fn text(contents: &[Vec<u8>]) -> Result<String, ExitError> {
        let text = String::from_utf8(contents[0].clone()).unwrap();
        if text == "bad" { Err(ExitError::usage("it is bad")) } else { Ok(text) }
    }

    #[test]
    fn a_failed_look_is_tried_again_without_a_change() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut followed = FollowedFiles::new(vec![path.clone()], "the files");
        let is_failing = Cell::new(false);
        let mut look = || {
            let read = |path: &Path| match is_failing.get() {
                true => Err(ExitError::usage("no descriptor")),
                false => read(path),
            };
            followed.look(read, text).map_err(|stop| stop.to_string())
        };
        assert_eq!(look(), Ok(Some("one".to_owned())));
        assert_eq!(look(), Ok(None));
        fs::write(&path, "three").unwrap();
        is_failing.set(true);
        assert_eq!(look(), Err("no descriptor".to_owned()));
        assert_eq!(look(), Err("no descriptor".to_owned()));
        is_failing.set(false);
        assert_eq!(look(), Ok(Some("three".to_owned())));
        assert_eq!(look(), Ok(None));
    }

    #[test]
    fn unusable_contents_are_an_error_at_every_look_until_they_change() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut followed = FollowedFiles::new(vec![path.clone()], "the files");
        let mut look = |made: &Cell<u32>| {
            let make = |contents: &[Vec<u8>]| {
                made.set(made.get() + 1);
                text(contents)
            };
            followed.look(read, make).map_err(|stop| stop.to_string())
        };
        let made = Cell::new(0);
        assert_eq!(look(&made), Ok(Some("one".to_owned())));
        fs::write(&path, "bad").unwrap();
        for _ in 0..3 {
            assert_eq!(look(&made), Err("it is bad".to_owned()));
        }
        assert_eq!(made.get(), 2, "the same contents are not tried at every look");
        fs::write(&path, "three").unwrap();
        assert_eq!(look(&made), Ok(Some("three".to_owned())));
    }
}
