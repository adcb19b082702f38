//! Invites that are wrong, used, expired or cancelled, redeemed concurrently, and interrupted at
//! the worst moments: the error that each device gets, and that an invite makes exactly one device.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::people::{Machine, Running};
use common::{Directory, echo, free_udp, service, within};
use serde_json::Value;

/// Longest wait for a crowd on a busy machine.
const CROWD: Duration = Duration::from_secs(300);

fn echo_service() -> String {
    service(echo).to_string()
}

fn invite(home: &Machine, more: &[&str]) -> Value {
    home.json(&[&["invite", "new", "--json"], more].concat())
}

fn text(invite: &Value) -> &str {
    invite["invite"].as_str().unwrap()
}

#[test]
fn each_kind_of_invalid_invite_has_its_error_and_code_2() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, good) = home.expose(&echo_service(), &[]);
    let cut = &good[..good.len() - 9];
    let changed = good.replace("AAAA", "AAAB");
    let next = "; copy it whole, or ask for a new one: adit invite new";
    let damaged = format!("this invite is damaged: a part is missing, or was changed{next}");
    assert_eq!(away.fails(&["connect", cut], 2), damaged);
    assert_eq!(away.fails(&["connect", &changed], 2), damaged);
    let later = good.replace("adit1_", "adit2_");
    let said = away.fails(&["connect", &later], 2);
    assert!(
        said.starts_with("this invite is of another version of adit, which this one"),
        "{said}"
    );
    assert!(said.contains("its format is 2, and adit") && said.ends_with("made it here"), "{said}");
    let other = away.directory.write("other.txt", "web\n");
    let said = away.fails(&["connect", "--invite-file", other.to_str().unwrap()], 2);
    assert_eq!(said, format!("this is no invite, which begins with \"adit1_\"{next}"));
    let said = away.fails(&["connect", "--invite-file", "/nowhere/invite.txt"], 2);
    assert!(said.starts_with("/nowhere/invite.txt: the invite cannot be read: "), "{said}");
    assert!(said.ends_with("; check the path"), "{said}");
    assert!(!away.home().exists(), "nothing is made for what is no invite");
    away.connect(&good, &[]);
}

#[test]
fn an_invite_that_was_used_is_refused_to_another_device_and_good_for_its_own() {
    let (home, away, other) = (Machine::new(), Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    let said = other.fails(&["connect", &invite], 3);
    assert!(said.starts_with("this invite was used already, by "), "{said}");
    assert!(said.ends_with("; ask for a new one: adit invite new"), "{said}");
    away.connect(&invite, &[]).0.end();
    assert_eq!(home.devices().len(), 1);
}

#[test]
fn an_invite_that_is_over_is_refused_by_the_connector_and_cannot_be_revoked() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &["--invite-for", "1s"]);
    std::thread::sleep(Duration::from_millis(2_100));
    let said = away.fails(&["connect", &invite], 3);
    assert!(said.starts_with("the connector ") && said.contains("has expired, "), "{said}");
    assert!(said.ends_with("; ask for a new one: adit invite new"), "{said}");
    let listed = home.json(&["invite", "list", "--json"]);
    assert_eq!(listed["invites"][0]["state"], "expired");
    let id = listed["invites"][0]["id"].as_str().unwrap();
    assert!(home.fails(&["invite", "revoke", id], 2).starts_with("this invite has expired; "));
    assert!(home.devices().is_empty());
}

#[test]
fn an_invite_that_was_taken_back_is_refused() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, _) = home.expose(&echo_service(), &[]);
    let made = invite(&home, &[]);
    home.told(&["invite", "revoke", made["id"].as_str().unwrap()]);
    let said = away.fails(&["connect", text(&made)], 3);
    assert!(said.contains(" does not take this invite ("), "{said}");
    assert!(said.ends_with("another connector's; ask for a new one: adit invite new"), "{said}");
    let said = home.fails(&["invite", "revoke", "zzzz"], 2);
    assert_eq!(said, "no invite begins with \"zzzz\"; see: adit invite list");
    away.connect(text(&invite(&home, &[])), &[]);
}

#[test]
fn an_invite_of_another_mesh_is_refused_though_its_address_answers() {
    let (home, stranger, away) = (Machine::new(), Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    exposing.end();
    let (exposing, _) = stranger.expose_at(&listen, &echo_service(), &[]);
    let said = away.fails(&["connect", &invite], 3);
    assert!(said.contains(" does not take this invite ("), "{said}");
    exposing.end();
    let (_exposing, _) = home.expose_at(&listen, &echo_service(), &[]);
    away.connect(&invite, &[]);
}

#[test]
fn an_invite_to_a_connector_that_is_away_is_followed_once_it_listens() {
    let (home, away) = (Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    exposing.end();
    let said = away.fails(&["connect", &invite, "--give-up-after", "500ms"], 4);
    assert!(said.starts_with("no connection for 500ms; check that the connector runs"), "{said}");
    let waiting = away.start(&["connect", &invite]);
    std::thread::sleep(Duration::from_millis(300));
    let (_exposing, _) = home.expose_at(&listen, &echo_service(), &[]);
    common::people::assert_echoes(waiting.address(), &waiting);
}

#[test]
fn a_device_that_was_revoked_comes_back_as_another_when_it_is_invited_again() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, first) = home.expose(&echo_service(), &[]);
    let (mut connected, _) = away.connect(&first, &[]);
    let device = home.devices()[0]["id"].as_str().unwrap().to_owned();
    home.told(&["id", "revoke", &device]);
    let said = connected.ends_with(3);
    assert!(said.ends_with("ask for a new invite: adit invite new"), "{said}");
    let again = invite(&home, &[]);
    away.connect(text(&again), &[]).0.end();
    away.connect("web", &[]).0.end();
    let devices = home.devices();
    assert_eq!(devices.len(), 2);
    assert!(devices[0]["revoked"].is_u64() && devices[1]["revoked"].is_null(), "{devices:?}");
}

/// Devices that redeem one invite, each from a home of its own.
struct Crowd {
    directory: Directory,
    devices: Vec<Child>,
}

impl Crowd {
    fn start(count: usize, invite: &str) -> Self {
        let directory = Directory::new();
        let devices = (0..count)
            .map(|number| {
                let log = File::create(directory.path(&format!("{number}.log"))).unwrap();
                Command::new(env!("CARGO_BIN_EXE_adit"))
                    .args(["connect", invite, "--local", "0", "--give-up-after", "290s"])
                    .env("ADIT_HOME", directory.path(&number.to_string()))
                    .env_remove("RUST_LOG")
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log)
                    .spawn()
                    .unwrap()
            })
            .collect();
        Self { directory, devices }
    }

    fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.directory.path(&format!("{number}.log"))).unwrap()
    }

    /// Waits until all but one have ended. Returns the index of that one.
    fn winner(&mut self) -> usize {
        let last = |devices: &mut Vec<Child>| {
            let mut running = devices.iter_mut().enumerate().filter_map(|(number, device)| {
                device.try_wait().unwrap().is_none().then_some(number)
            });
            let first = running.next();
            running.next().is_none().then_some(first)
        };
        let winner = within(CROWD, || last(&mut self.devices));
        let all = || (0..self.devices.len()).map(|n| self.log(n)).collect::<String>();
        winner.flatten().unwrap_or_else(|| panic!("nobody won, or several: {}", all()))
    }

    /// Checks that every device but the winner reported that it came too late.
    fn assert_refused(&mut self, winner: usize) {
        for number in (0..self.devices.len()).filter(|number| *number != winner) {
            let code = self.devices[number].wait().unwrap().code();
            let log = self.log(number);
            assert_eq!(code, Some(3), "{log}");
            let said = log.lines().last().unwrap();
            assert!(said.starts_with("adit: this invite was used already, by "), "{log}");
        }
    }

    fn home(&self, number: usize) -> PathBuf {
        self.directory.path(&number.to_string())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for device in &mut self.devices {
            let _ = device.kill();
            let _ = device.wait();
        }
    }
}

/// Returns the one device of a mesh, which redeemed an invite.
fn only_device(home: &Machine) -> String {
    let registry = home.registry();
    let devices = registry["devices"].as_array().unwrap();
    let agents: Vec<_> = devices.iter().filter(|device| device["role"] == "agent").collect();
    assert_eq!(agents.len(), 1, "{registry:#}");
    agents[0]["id"].as_str().unwrap().to_owned()
}

/// Returns the id of a home of the crowd, once it has its certificate.
fn id_of(home: &Path) -> String {
    let shown = || {
        let output = common::run_at(home, &["id", "show", "--json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(shown["memberships"][0]["names"][0].as_str()?.to_owned())
    };
    within(CROWD, shown).unwrap()
}

#[test]
fn a_hundred_devices_race_for_one_invite_and_one_has_it() {
    let home = Machine::new();
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let start = Instant::now();
    let mut crowd = Crowd::start(100, &invite);
    let winner = crowd.winner();
    eprintln!("a hundred devices were answered in {:?}", start.elapsed());
    crowd.assert_refused(winner);
    let device = only_device(&home);
    assert_eq!(id_of(&crowd.home(winner)), device);
    assert_eq!(home.registry()["invites"][0]["used_by"], device.as_str());
}

/// Starts the connector again that was killed, on the same port.
fn again(home: &Machine, listen: &str, target: &str) -> Running {
    let exposing =
        home.start(&["expose", target, "--name", "web", "--listen", listen, "--no-invite"]);
    exposing.says("the connector is up");
    exposing
}

#[test]
fn a_connector_killed_while_devices_race_loses_no_invite_and_gives_none_twice() {
    let target = echo_service();
    // From the moment in which the first guest is there to the one in which all have an answer.
    std::thread::scope(|scope| {
        for delays in [[0, 12, 25, 40], [4, 8, 18, 30]] {
            let target = &target;
            scope.spawn(move || delays.map(|delay| killed_while_devices_race(target, delay)));
        }
    });
}

fn killed_while_devices_race(target: &str, delay: u64) {
    let home = Machine::new();
    let listen = free_udp().to_string();
    let (mut exposing, invite) = home.expose_at(&listen, target, &[]);
    let start = Instant::now();
    let mut crowd = Crowd::start(4, &invite);
    while !exposing.log().contains("guest connected") && start.elapsed() < CROWD {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(delay));
    exposing.kill();
    let spent = home.registry()["invites"][0]["used_by"].is_string();
    let _exposing = again(&home, &listen, target);
    let winner = crowd.winner();
    eprintln!("killed after {delay} ms, spent: {spent}, all answered in {:?}", start.elapsed());
    crowd.assert_refused(winner);
    assert_eq!(id_of(&crowd.home(winner)), only_device(&home));
}

#[test]
fn a_device_killed_while_it_enrols_can_follow_the_same_invite_again() {
    let home = Machine::new();
    let (_exposing, first) = home.expose(&echo_service(), &[]);
    let mut next = first;
    for (round, delay) in (1..).zip([5, 20, 40, 60, 80, 110]) {
        let away = Machine::new();
        let mut killed = away.start(&["connect", &next]);
        std::thread::sleep(Duration::from_millis(delay));
        killed.kill();
        away.connect(&next, &[]).0.end();
        assert_eq!(home.devices().len(), round);
        next = text(&invite(&home, &[])).to_owned();
    }
}
