//! Clocks that are years off, on either side and in either direction, and clocks that are set while
//! connected: the error names the clock, and when it is right again everything works.

#![cfg(unix)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::clock::Clocks;
use common::people::{Machine, Running, assert_echoes, sentence};
use common::{bounded, echo, echoes_at_last, finish, free_udp, service};

fn echo_service() -> String {
    service(echo).to_string()
}

/// Returns the error of a command at another time.
fn said_at(clocks: &Clocks, by: &str, machine: &Machine, arguments: &[&str], code: i32) -> String {
    let mut command = machine.command(arguments);
    clocks.shift(&mut command, by);
    sentence(&finish(&mut command), code)
}

/// Starts a command with a clock that is off, and that follows a file.
fn start_at(clocks: &Clocks, by: &str, machine: &Machine, arguments: &[&str]) -> Running {
    let file = machine.directory.write("clock", by);
    let mut command = machine.command(arguments);
    clocks.follow(&mut command, &file);
    machine.spawn(&mut command)
}

#[test]
fn an_invite_is_not_lost_to_a_device_whose_clock_is_years_off() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let said = said_at(&clocks, "+3y", &away, &["connect", &invite], 3);
    assert!(said.starts_with("this invite expired 109"), "{said}");
    assert!(said.contains(", unless this machine's clock, which says 20"), "{said}");
    let said = said_at(&clocks, "-3y", &away, &["connect", &invite], 3);
    assert!(said.contains("is not valid at the time of this clock"), "{said}");
    assert!(said.ends_with("; set the clock that is wrong, or renew the certificate"), "{said}");
    away.connect(&invite, &[]);
}

#[test]
fn a_device_with_a_wrong_clock_names_it_once_and_connects_when_it_is_right() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    for (by, conflict) in [("+3y", "ended on 20"), ("-3y", "begins on 20"), ("-50y", "begins on ")]
    {
        let mut running = start_at(&clocks, by, &away, &["connect", "web"]);
        let address = running.address();
        running.says(&format!("waiting: this machine's certificate {conflict}"));
        running.says(", and its clock shows ");
        running.says("; set the clock that is wrong, or renew the certificate");
        assert!(running.is_running(), "{}", running.log());
        away.directory.write("clock", "+0");
        assert!(echoes_at_last(address), "{}", running.log());
        assert_eq!(running.log().matches("waiting: ").count(), 1, "{}", running.log());
        running.end();
    }
}

#[test]
fn a_device_whose_clock_is_twenty_minutes_off_redeems_a_fresh_invite() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let home = Machine::new();
    let (_exposing, _) = home.expose(&echo_service(), &[]);
    for by in ["+20m", "-20m"] {
        let away = Machine::new();
        let made = home.told(&["invite", "new"]);
        let running = start_at(&clocks, by, &away, &["connect", made.trim()]);
        assert_echoes(running.address(), &running);
    }
}

#[test]
fn a_certificate_that_ended_by_both_clocks_ends_the_device_with_3() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    exposing.end();
    let arguments = ["expose", &echo_service(), "--name", "web", "--listen", &listen];
    let exposing = start_at(&clocks, "+2y", &home, &arguments);
    exposing.line();
    let said = start_at(&clocks, "+2y", &away, &["connect", "web"]).ends_with(3);
    assert!(said.starts_with("this machine's certificate ended on 20"), "{said}");
    assert!(said.ends_with("or ask for a new invite: adit invite new"), "{said}");
}

#[test]
fn a_connector_at_whose_time_its_ca_is_not_good_names_the_clock_and_waits_for_it() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    exposing.end();
    for by in ["-3y", "+12y"] {
        let service = echo_service();
        let arguments = ["expose", &service, "--name", "web", "--listen", "127.0.0.1:0"];
        let mut running = start_at(&clocks, by, &home, &arguments);
        running.says("mesh/ca.pem: this CA is good from 20");
        running.says(", and this machine's clock says 20");
        running.says("; set the clock, or move the directory away");
        assert!(running.is_running() && running.is_silent(), "{}", running.log());
        home.directory.write("clock", "+0");
        let invite = running.line();
        away.connect(&invite, &[]).0.end();
        running.end();
    }
}

#[test]
fn no_mesh_is_made_before_the_clock_is_set() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let service = echo_service();
    let arguments = ["expose", &service, "--name", "web", "--listen", "127.0.0.1:0"];
    let running = start_at(&clocks, "-40y", &home, &arguments);
    running.says("waiting: this machine's clock says 19");
    assert!(!home.home().join("mesh").exists());
    home.directory.write("clock", "+0");
    away.connect(&running.line(), &[]);
}

#[test]
fn a_connector_is_trusted_again_after_its_clock_is_corrected() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away, fresh) = (Machine::new(), Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    exposing.end();

    let mut ahead =
        home.command(&["expose", &echo_service(), "--name", "web", "--listen", &listen]);
    clocks.shift(&mut ahead, "+3y");
    let ahead = home.spawn(&mut ahead);
    let invite = ahead.line();
    ahead.says("this machine has a new certificate");
    let mut waiting = away.start(&["connect", "web"]);
    let address = waiting.address();
    waiting.says("is not valid at the time of this clock");
    waiting.says("; set the clock that is wrong, or renew the certificate");
    assert!(waiting.is_running(), "{}", waiting.log());
    let said = fresh.fails(&["connect", &invite], 3);
    assert!(said.contains("is not valid at the time of this clock"), "{said}");
    ahead.end();

    let (_exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    assert!(echoes_at_last(address), "{}", waiting.log());
    fresh.connect(&invite, &[]);
}

/// Starts a connected device with a clock that follows a file.
fn with_a_clock(clocks: &Clocks, away: &Machine, invite: &str) -> (Running, SocketAddr) {
    let file = away.directory.write("clock", "+0");
    let mut command = away.command(&["connect", invite]);
    clocks.follow(&mut command, &file);
    let running = away.spawn(&mut command);
    let address = running.address();
    assert_echoes(address, &running);
    (running, address)
}

#[test]
fn an_hours_clock_change_while_connected_has_no_effect() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (mut connected, address) = with_a_clock(&clocks, &away, &invite);
    for by in ["+1h", "-30m"] {
        away.directory.write("clock", by);
        std::thread::sleep(Duration::from_millis(700));
        assert!(echoes_at_last(address) && connected.is_running(), "{by}: {}", connected.log());
    }
    assert_eq!(
        connected.log().matches("connected to the connector of web").count(),
        1,
        "{}",
        connected.log()
    );
}

#[test]
fn a_clock_that_is_set_years_ahead_while_connected_is_named_until_it_is_right_again() {
    let Some(clocks) = Clocks::of_this_machine() else { return };
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (mut connected, address) = with_a_clock(&clocks, &away, &invite);
    away.directory.write("clock", "+3y");
    let said = "the peer's certificate is not valid at the time of this clock";
    let named = bounded(|| connected.log().contains(said).then_some(()));
    assert!(named.is_some() && connected.is_running(), "{}", connected.log());
    away.directory.write("clock", "+0");
    assert!(echoes_at_last(address), "{}", connected.log());
}
