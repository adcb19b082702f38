//! `adit ping` and `adit bench` against a connector, each a process of its own: their stdout, their
//! stderr, and their exit codes.

#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use common::{Authority, Directory, Tunnel, echo, free_udp, run, service};
use serde_json::Value;

/// Returns a tunnel that is up, and the file of its agent.
fn tunnel() -> (Tunnel, PathBuf) {
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let config = tunnel.directory.path("agent.toml");
    (tunnel, config)
}

fn ask(command: &str, config: &Path, more: &[&str]) -> Output {
    run(&[&[command, "-c", config.to_str().unwrap()], more].concat())
}

/// Returns stdout, after checking that the command succeeded and stderr is empty.
fn data(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: Output) -> Value {
    let text = data(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Returns the one sentence on stderr, after checking that it ended with `code` and stdout is
/// empty.
fn sentence(output: Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].strip_prefix("adit: ").unwrap().to_owned()
}

/// Returns an agent's file for a connector at `address`, with a CA of its own.
fn stranger(directory: &Directory, address: std::net::SocketAddr) -> PathBuf {
    let tls = Authority::new().issue(directory, "stranger");
    let forward = "[[forward]]\nlisten = \"127.0.0.1:0\"\nservice = \"web\"\n";
    let connector = format!("[connector]\naddress = \"{address}\"\nname = \"connector\"\n");
    directory.write("stranger.toml", &format!("{tls}{connector}{forward}"))
}

#[test]
fn a_ping_is_a_line_each_and_a_summary() {
    let (tunnel, config) = tunnel();
    let text = data(ask("ping", &config, &["-n", "3", "-i", "50ms"]));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let connected = format!("connected to connector ({}) in ", tunnel.listen);
    assert!(lines[0].starts_with(&connected) && lines[0].ends_with(" ms"), "{text}");
    for (sequence, line) in (1..).zip(&lines[1..4]) {
        let time = line.strip_prefix(&format!("{sequence}: ")).unwrap();
        assert!(time.strip_suffix(" ms").unwrap().parse::<f64>().unwrap() > 0.0, "{line}");
    }
    let summary = "3 sent, 3 answered, 0 % lost; RTT min ";
    assert!(lines[4].starts_with(summary) && lines[4].contains(", p50 "), "{text}");
}

#[test]
fn a_ping_is_json_when_asked_for() {
    let (tunnel, config) = tunnel();
    let report = json(ask("ping", &config, &["-n", "2", "-i", "50ms", "--json"]));
    assert_eq!(report["schema"], "adit.ping/1");
    assert_eq!(report["connector"], "connector");
    assert_eq!(report["address"], tunnel.listen.to_string());
    assert!(report["connected_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&report["sent"], &report["answered"]), (&2.into(), &2.into()));
    let round_trip = |key: &str| report["round_trip_ms"][key].as_f64().unwrap();
    assert!(0.0 < round_trip("min") && round_trip("min") <= round_trip("avg"));
    assert!(round_trip("p50") <= round_trip("max"));
    assert_eq!(report["pings"].as_array().unwrap().len(), 2);
    assert!(report["pings"][1]["round_trip_ms"].is_number());
}

#[cfg(unix)]
#[test]
fn a_ping_that_is_interrupted_still_sums_up() {
    let (_tunnel, config) = tunnel();
    let mut ping = Pinging::start(&config, &["-n", "1000", "-i", "1h"]);
    ping.wait_for_first();
    let interrupt = ["-INT".to_owned(), ping.child.id().to_string()];
    assert!(Command::new("kill").args(interrupt).status().unwrap().success());
    assert!(ping.line().starts_with("1 sent, 1 answered, 0 % lost; "));
    assert_eq!(ping.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_connector_that_dies_is_a_ping_without_an_answer() {
    let (mut tunnel, config) = tunnel();
    // Time enough to end the connector between the first ping and the second, on any machine.
    let mut ping = Pinging::start(&config, &["-n", "2", "-i", "5s"]);
    ping.wait_for_first();
    tunnel.connector.kill();
    assert!(ping.line().starts_with("2: no answer: "));
    assert!(ping.line().starts_with("2 sent, 1 answered, 50 % lost; "));
    assert_eq!(ping.child.wait().unwrap().code(), Some(0));
}

/// A running ping; killed when dropped.
struct Pinging {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Pinging {
    fn start(config: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command.args(["ping", "-c"]).arg(config).args(more).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn wait_for_first(&mut self) {
        assert!(self.line().starts_with("connected to "));
        assert!(self.line().starts_with("1: "));
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_figure_of_a_bench_is_a_line() {
    let (_tunnel, config) = tunnel();
    let text = data(ask("bench", &config, &["--seconds", "0.2"]));
    let begins = [
        "connected to connector (",
        "down, 1 stream ",
        "down, 8 streams ",
        "up, 1 stream ",
        "up, 8 streams ",
        "latency, idle ",
        "latency, beside 1 bulk ",
        "new streams, 16 at once ",
    ];
    assert_eq!(text.lines().count(), begins.len(), "{text}");
    for (line, begin) in text.lines().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert!(text.contains(" Gbit/s, ") && text.contains(" × 64 bytes)"), "{text}");
}

#[test]
fn a_bench_is_json_when_asked_for() {
    let (_tunnel, config) = tunnel();
    let report = json(ask("bench", &config, &["--seconds", "0.2", "--json"]));
    assert_eq!(report["schema"], "adit.bench/1");
    assert_eq!(report["seconds"], 0.2);
    let all = report["measurements"].as_array().unwrap();
    let what: Vec<_> = all.iter().map(|one| one["what"].as_str().unwrap()).collect();
    let (bulk, small) = ([(); 4].map(|()| "throughput"), ["latency", "latency", "new_streams"]);
    assert_eq!(what, [&bulk[..], &small[..]].concat());
    for bulk in &all[..4] {
        assert!(bulk["bytes"].as_u64().unwrap() > 0, "{bulk}");
        assert!(bulk["gbit_per_second"].as_f64().unwrap() > 0.0, "{bulk}");
    }
    for latency in &all[4..6] {
        assert!(latency["n"].as_u64().unwrap() > 0, "{latency}");
        assert!(latency["p50_ms"].as_f64().unwrap() <= latency["p99_ms"].as_f64().unwrap());
    }
    assert!(all[6]["per_second"].as_f64().unwrap() > 0.0, "{}", all[6]);
}

#[test]
fn an_absent_connector_ends_with_4_in_time() {
    let directory = Directory::new();
    let config = stranger(&directory, free_udp());
    for command in ["ping", "bench"] {
        let said = sentence(ask(command, &config, &["--timeout", "500ms"]), 4);
        assert!(said.contains("no connection for 500ms; check that"), "{said}");
    }
}

#[test]
fn a_name_without_an_address_ends_with_4() {
    let directory = Directory::new();
    let config = stranger(&directory, free_udp());
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, after) = text.split_once("address = \"").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let name = "nobody.invalid:4433";
    std::fs::write(&config, format!("{before}address = \"{name}\"{after}")).unwrap();
    let said = sentence(ask("ping", &config, &["--timeout", "20s"]), 4);
    assert!(said.starts_with(&format!("{name}: no address: ")), "{said}");
    assert!(said.contains("; check how it is written"), "{said}");
}

#[test]
fn a_certificate_of_another_ca_ends_with_3() {
    let (tunnel, _) = tunnel();
    let config = stranger(&tunnel.directory, tunnel.listen);
    for command in ["ping", "bench"] {
        let said = sentence(ask(command, &config, &[]), 3);
        assert!(said.starts_with("unauthenticated: "), "{said}");
        assert!(said.ends_with("; check the certificates and the CA of both sides"), "{said}");
    }
}

#[test]
fn the_help_has_examples() {
    for command in ["ping", "bench"] {
        let text = data(run(&[command, "--help"]));
        assert!(text.contains(&format!("Examples:\n  adit {command} web")), "{text}");
    }
}

#[test]
fn what_cannot_be_measured_is_a_mistake_with_the_next_step() {
    let output = run(&["bench", "-c", "agent.toml", "--seconds", "60"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("write a number of seconds from 0.1 to 30, like 3"), "{said}");
    assert_eq!(run(&["ping", "-c", "agent.toml", "-n", "0"]).status.code(), Some(2));
}
