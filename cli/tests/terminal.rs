//! What the program does to a terminal: the alternate screen of `adit status --watch`, and colours.
//! The terminal is a pseudo-terminal, whose other end the test reads.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Directory, bounded, run_at};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A terminal, and everything that was written to it.
struct Terminal {
    user: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new() -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let user = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let written = shown.clone();
        let mut near = File::from(near);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with an error once the last program has closed the terminal.
            while let Ok(count @ 1..) = near.read(&mut bytes) {
                written.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { user, shown }
    }

    fn stdio(&self) -> Stdio {
        self.user.try_clone().unwrap().into()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn waits_for(&self, part: &str) {
        let seen = bounded(|| self.text().contains(part).then_some(()));
        assert!(seen.is_some(), "{part:?} is not in {:?}", self.text());
    }
}

fn adit(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.env("ADIT_HOME", home).env("TERM", "xterm").env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn interrupt(child: &mut Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn watching_draws_on_the_alternate_screen_and_an_interrupt_restores_the_terminal() {
    let (directory, terminal) = (Directory::new(), Terminal::new());
    let home = directory.path("home");
    let mut watch =
        adit(&home).args(["status", "--watch"]).stdout(terminal.stdio()).spawn().unwrap();
    terminal.waits_for("no adit runs here");
    assert!(terminal.text().starts_with(ENTER), "{:?}", terminal.text());
    assert!(!terminal.text().contains(LEAVE), "{:?}", terminal.text());
    interrupt(&mut watch);
    terminal.waits_for(LEAVE);
    assert!(terminal.text().ends_with(LEAVE), "{:?}", terminal.text());
}

#[test]
fn what_is_no_terminal_gets_no_escape_sequences() {
    let directory = Directory::new();
    let output = run_at(&directory.path("home"), &["status"]);
    assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
}

/// What a relay logs to a terminal until it is up.
fn log_of_a_relay(no_color: Option<&str>) -> String {
    let (directory, terminal) = (Directory::new(), Terminal::new());
    let mut command = adit(&directory.path("home"));
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let arguments = ["relay", "--listen", "127.0.0.1:0", "--no-tcp"];
    let mut relay = command.args(arguments).stderr(terminal.stdio()).spawn().unwrap();
    terminal.waits_for("the relay is up");
    interrupt(&mut relay);
    terminal.text()
}

#[test]
fn a_log_on_a_terminal_is_coloured_unless_no_color_is_set() {
    assert!(log_of_a_relay(None).contains("\x1b["));
    assert!(log_of_a_relay(Some("")).contains("\x1b["));
    let plain = log_of_a_relay(Some("1"));
    assert!(!plain.contains("\x1b["), "{plain:?}");
}
