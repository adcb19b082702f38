//! Clocks that are off: libfaketime gives a process another time than its machine's. Where it is
//! not installed, a test that needs it prints so and is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that sets the clock of single processes.
pub(crate) struct Clocks(PathBuf);

impl Clocks {
    /// Returns the library of this machine, if it has one.
    pub(crate) fn of_this_machine() -> Option<Self> {
        let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let mut found = places
            .map(|place| place.path().join("faketime/libfaketime.so.1"))
            .chain(["/usr/lib/faketime/libfaketime.so.1".into()]);
        let library = found.find(|path| path.exists());
        if library.is_none() {
            eprintln!("SKIPPED: clocks that are off, because libfaketime is not installed");
        }
        library.map(Self)
    }

    /// Makes a command run at another time, like `+3y` or `-1h` from now.
    pub(crate) fn shift(&self, command: &mut Command, by: &str) {
        self.load(command).env("FAKETIME", by);
    }

    /// Makes a command run at the time in a file, which may change.
    pub(crate) fn follow(&self, command: &mut Command, file: &Path) {
        self.load(command).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
    }

    fn load<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.0)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    }
}
