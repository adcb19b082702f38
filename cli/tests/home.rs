//! A home that cannot be written: read-only, full, or full for a while. Every command reports it in
//! one sentence, and keeps the existing data.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::people::{Machine, assert_echoes, sentence};
use common::{echo, finish, service, system};

fn echo_service() -> String {
    service(echo).to_string()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs `adit` through another command, at a machine's home.
fn at(
    machine: &Machine,
    mut command: std::process::Command,
    arguments: &[&str],
) -> std::process::Output {
    machine.at_home(command.args(arguments));
    finish(&mut command)
}

/// Returns everything in a home but the files that name the process that holds it.
fn kept(machine: &Machine) -> Vec<(PathBuf, Vec<u8>)> {
    let is_lock = |path: &Path| ["running", "lock", "web.lock"].iter().any(|n| path.ends_with(n));
    machine.files().into_iter().filter(|(path, _)| !is_lock(path)).collect()
}

/// Runs commands that write, each with the machine at which it does; their failure loses no data.
fn fails_and_loses_nothing(
    fail: &dyn Fn(&Machine, &[&str]) -> std::process::Output,
    expected: &str,
) {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    let device = home.devices()[0]["id"].as_str().unwrap().to_owned();
    let more = home.told(&["invite", "new"]);
    let before = (kept(&home), kept(&away));
    let cases: [(&Machine, &[&str]); 4] = [
        (&home, &["invite", "new"]),
        (&home, &["id", "revoke", &device]),
        (&home, &["id", "rotate"]),
        (&away, &["id", "rotate", "web"]),
    ];
    for (machine, arguments) in cases {
        let said = sentence(&fail(machine, arguments), 2);
        assert!(said.contains(": cannot be written: ") && said.contains(expected), "{said}");
        assert!((kept(&home), kept(&away)) == before, "{arguments:?} changed something");
    }
    exposing.end();
    let said = sentence(&fail(&home, &["expose", "3000", "--listen", "127.0.0.1:0"]), 2);
    assert!(said.contains(": cannot be written: ") && said.contains(expected), "{said}");
    let (_exposing, _) = home.expose(&echo_service(), &[]);
    let fresh = Machine::new();
    std::fs::create_dir(fresh.home()).unwrap();
    let said = sentence(&fail(&fresh, &["connect", more.trim()]), 2);
    assert!(said.contains(": cannot be written: ") && said.contains(expected), "{said}");
    let said = sentence(&fail(&fresh, &["expose", "3000", "--listen", "127.0.0.1:0"]), 2);
    assert!(said.contains(": cannot be written: ") && said.contains(expected), "{said}");
    assert!(fresh.files().is_empty(), "something was left: {:?}", fresh.files());
    fresh.connect(home.told(&["invite", "new"]).trim(), &[]);
}

#[test]
fn a_full_home_is_reported_without_loss() {
    let fail =
        |machine: &Machine, arguments: &[&str]| at(machine, system::on_a_full_disk(), arguments);
    fails_and_loses_nothing(&fail, "free some space and try again: nothing was lost");
}

#[test]
fn a_read_only_home_is_reported_without_loss() {
    if system::as_a_plain_user().is_none() {
        return;
    }
    let fail = |machine: &Machine, arguments: &[&str]| {
        let set = |bits| chmod(&machine.home(), bits);
        set(0o500);
        let output = at(machine, system::as_a_plain_user().unwrap(), arguments);
        set(0o700);
        output
    };
    fails_and_loses_nothing(&fail, "make it writable for this user, or name another home");
}

/// Sets the mode of a directory and of those in it.
fn chmod(directory: &Path, bits: u32) {
    mode(directory, 0o700);
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            chmod(&entry.path(), bits);
        }
    }
    mode(directory, bits);
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_no_invite_and_no_device() {
    let (home, away) = (Machine::new(), Machine::new());
    let path = home.home();
    let Some(disk) = system::Disk::at(&path) else { return };
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    let filler = disk.fill();
    let said = home.fails(&["invite", "new"], 2);
    assert!(said.ends_with("free some space and try again: nothing was lost"), "{said}");
    let said = away.fails(&["connect", &invite], 5);
    assert!(said.contains("the connector cannot issue certificates at the moment"), "{said}");
    exposing.says("no certificate was issued: ");
    std::fs::remove_file(filler).unwrap();
    away.connect(&invite, &[]).0.end();
    assert_eq!(home.devices().len(), 1);
    drop(exposing);
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_tunnel() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let mut command = away.command(&["connect", &invite]);
    let mut connected = away.spawn_logging_to(&mut command, Path::new("/dev/full"));
    let address = connected.address();
    assert_echoes(address, &connected);
    home.told(&["id", "revoke", home.devices()[0]["id"].as_str().unwrap()]);
    assert_eq!(connected.wait().code(), Some(3));
}

#[test]
fn a_known_service_of_a_read_only_home_is_used_with_a_warning() {
    let Some(mut command) = system::as_a_plain_user() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    std::fs::remove_file(away.home().join("known/web.lock")).unwrap();
    chmod(&away.home(), 0o500);
    away.at_home(command.args(["connect", "web"]));
    let connected = away.spawn(&mut command);
    assert_echoes(connected.address(), &connected);
    connected.says("web.lock: not locked: Permission denied (os error 13); run it once only");
    chmod(&away.home(), 0o700);
}

#[test]
fn a_home_that_others_may_write_is_refused() {
    let home = Machine::new();
    std::fs::create_dir(home.home()).unwrap();
    mode(&home.home(), 0o777);
    let said = home.fails(&["expose", "3000", "--listen", "127.0.0.1:0"], 2);
    assert!(
        said.contains(": others may write this directory (mode 777); run: chmod go-w"),
        "{said}"
    );
    assert!(home.files().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_home_that_hangs_holds_up_no_connection() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    let (connected, address) = away.connect(&invite, &[]);
    let mesh = home.home().join("mesh");
    let Some(hanging) = system::HangingDisk::at(&mesh) else { return };
    // The connector looks at its files every half second.
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_millis(1_600) {
        assert_echoes(address, &connected);
    }
    drop(hanging);
    assert_echoes(address, &connected);
    connected.end();
    exposing.end();
}
