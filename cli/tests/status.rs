//! What `adit status` shows of running processes, and what becomes of their sockets.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{
    Authority, Directory, Program, Tunnel, bounded, echo, echoes_at_last, free_tcp, free_udp, run,
    run_at, service,
};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], "adit.status/1");
    value
}

/// Returns the sockets that have their final names.
fn sockets(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.join("run")).into_iter().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    found.sort();
    found
}

/// Returns the status once all are connected, which the dialled side learns last.
fn connected(home: &Path, arguments: &[&str]) -> Output {
    let output = bounded(|| Some(run_at(home, arguments)).filter(|o| o.status.code() == Some(0)));
    output.unwrap_or_else(|| panic!("{}", text(&run_at(home, arguments).stderr)))
}

/// Starts an agent of a connector that does not exist.
fn lonely_agent(directory: &Directory, more: &[&str]) -> Program {
    let tls = Authority::new().issue(directory, "laptop");
    let config = format!(
        "{tls}[connector]\naddress = \"{}\"\nname = \"connector\"\n\
         [[forward]]\nlisten = \"{}\"\nservice = \"echo\"\n",
        free_udp(),
        free_tcp()
    );
    Program::start("agent", &directory.write("agent.toml", &config), more)
}

#[test]
fn a_tunnel_is_shown_to_people_and_to_programs() {
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let home = tunnel.directory.path("home");

    let output = connected(&home, &["status"]);
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(said.is_empty(), "{said}");
    let blocks: Vec<_> = shown.split("\n\n").collect();
    let [agent, connector] = blocks[..] else { panic!("{shown}") };
    assert!(agent.starts_with(&format!("agent, pid {}, up ", tunnel.agent.id())), "{shown}");
    assert!(agent.contains(&format!("\n  forwards {} to echo\n", tunnel.ports[0])), "{shown}");
    assert!(agent.contains(&format!("\n  dials connector at {}\n", tunnel.listen)), "{shown}");
    assert!(agent.contains(&format!("\n  connector  {}  connected  ", tunnel.listen)), "{shown}");
    let started = format!("connector, pid {}, up ", tunnel.connector.id());
    assert!(connector.starts_with(&started), "{shown}");
    assert!(connector.contains("\n  exposes echo at 127.0.0.1:"), "{shown}");
    assert!(connector.contains("\n  laptop  127.0.0.1:"), "{shown}");
    assert!(connector.contains(" days\n"), "the end of the certificate: {shown}");

    let json = json(&connected(&home, &["status", "--json"]));
    assert_eq!(json["unanswered"], serde_json::json!([]));
    let [agent, connector] = &json["processes"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&agent["role"], &connector["role"]), (&"agent".into(), &"connector".into()));
    assert_eq!(agent["pid"], tunnel.agent.id());
    assert_eq!(agent["version"], env!("CARGO_PKG_VERSION"));
    assert!(agent["uptime_ms"].is_u64() && agent["started_at_ms"].is_u64(), "{json}");
    let peer = &agent["peers"][0];
    assert_eq!(peer["state"]["state"], "connected");
    assert_eq!(peer["credential"]["names"][0], "connector");
    assert!(peer["transport"]["bytes_sent"].as_u64() > Some(0), "{json}");
    assert_eq!(connector["peers"][0]["credential"]["names"][0], "laptop");
}

#[test]
fn a_lost_connection_has_cause_next_step_and_code_5() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let home = tunnel.directory.path("home");
    connected(&home, &["status"]);
    tunnel.connector.kill();
    let is_told = |output: &Output| text(&output.stdout).contains("heartbeat_lost");
    let told = bounded(|| Some(run_at(&home, &["status"])).filter(is_told)).unwrap();
    let (shown, said) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(told.status.code(), Some(5), "{shown}{said}");
    assert!(said.starts_with(&format!("adit: agent {}: connector at ", tunnel.agent.id())));
    assert!(said.ends_with("check the network between the two\n"), "{said}");
    assert!(shown.contains("\n  connector: heartbeat_lost: "), "{shown}");

    let agent = format!("agent-{}.sock", tunnel.agent.id());
    assert_eq!(sockets(&home), [home.join("run").join(agent)], "the connector left its socket");
}

#[test]
fn a_process_that_never_met_its_peer_is_degraded() {
    let directory = Directory::new();
    let agent = lonely_agent(&directory, &[]);
    let home = directory.path("home");
    bounded(|| sockets(&home).pop()).unwrap();
    let told = run_at(&home, &["status", "--json"]);
    assert_eq!(told.status.code(), Some(5), "{}", text(&told.stderr));
    assert_eq!(json(&told)["processes"][0]["pid"], agent.id());
    assert!(text(&told.stderr).contains(": connector at 127.0.0.1:"), "{}", text(&told.stderr));
}

#[test]
fn a_hanging_process_is_listed_with_code_5() {
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let home = tunnel.directory.path("home");
    let signal = |name: &str| {
        let id = tunnel.agent.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    signal("-STOP");
    let told = run_at(&home, &["status", "--json"]);
    let shown = run_at(&home, &["status"]);
    signal("-CONT");
    assert_eq!(told.status.code(), Some(5));
    let (told, shown) = (json(&told), text(&shown.stdout));
    let name = format!("agent-{}.sock", tunnel.agent.id());
    assert_eq!(told["unanswered"][0]["socket"], name);
    assert_eq!(told["processes"][0]["role"], "connector");
    let said = format!("\n\n{name}: no answer within 2s; look at its log, or restart it\n");
    assert!(shown.starts_with("connector, pid ") && shown.ends_with(&said), "{shown}");
}

#[test]
fn no_running_process_is_code_4_with_the_next_step() {
    let directory = Directory::new();
    let home = directory.path("home");
    let output = run_at(&home, &["status"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("adit: no adit runs here with the home {}", home.display())));
    assert!(said.contains("start one with adit connector or adit agent"), "{said}");
    assert_eq!(said.lines().count(), 1);

    let output = run(&["status", "--json", "--home", home.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(json(&output)["processes"], serde_json::json!([]));
    assert!(!home.exists(), "asking creates nothing");
}

#[test]
fn a_killed_process_is_cleared_away_by_the_next_that_starts_and_an_ended_one_by_itself() {
    let directory = Directory::new();
    let home = directory.path("home");
    let mut killed = lonely_agent(&directory, &[]);
    bounded(|| (sockets(&home).len() == 1).then_some(())).unwrap();
    killed.kill();
    assert_eq!(sockets(&home).len(), 1);
    let mut next = lonely_agent(&directory, &[]);
    let own = home.join("run").join(format!("agent-{}.sock", next.id()));
    bounded(|| (sockets(&home) == [own.clone()]).then_some(())).unwrap();
    next.terminate();
    assert!(next.wait().success());
    assert!(sockets(&home).is_empty());
}

#[test]
fn only_the_owner_can_reach_a_process() {
    let directory = Directory::new();
    let home = directory.path("home");
    let _agent = lonely_agent(&directory, &[]);
    let socket = bounded(|| sockets(&home).pop()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home), mode(&home.join("run")), mode(&socket)), (0o700, 0o700, 0o600));
}

#[test]
fn the_socket_has_one_json_line_in_each_direction() {
    let tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let socket = sockets(&tunnel.directory.path("home")).remove(0);
    let mut stream = BufReader::new(UnixStream::connect(socket).unwrap());
    let mut ask = |line: &str| -> Value {
        stream.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    assert_eq!(ask("{\"op\":\"status\"}\n")["role"], "agent");
    assert_eq!(ask("hello\n")["ok"], false);
    let long = "x".repeat(2_000);
    assert!(ask(&long)["error"].as_str().unwrap().starts_with("the request is too long"));
    assert!(echoes_at_last(tunnel.ports[0]), "the tunnel does not mind");
}

#[test]
fn a_process_without_a_socket_logs_it_once_and_works() {
    let directory = Directory::new();
    let file = directory.write("file", "");
    let long = directory.path(&"x".repeat(100));
    for (home, why) in [(file.join("home"), "cannot be written"), (long, "too long for a socket")] {
        let more = ["--home", home.to_str().unwrap(), "--give-up-after", "500ms"];
        let mut agent = lonely_agent(&directory, &more);
        assert_eq!(agent.wait().code(), Some(4), "it ran until it gave up");
        let log = agent.log();
        assert_eq!(log.matches(why).count(), 1, "{log}");
        assert!(log.contains("adit status will not show this process: "), "{log}");
        assert!(log.contains("--home or ADIT_HOME"), "{log}");
    }
}

#[test]
fn a_process_whose_home_cannot_be_written_runs() {
    let directory = Directory::new();
    let home = directory.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o500)).unwrap();
    let mut agent = lonely_agent(&directory, &["--give-up-after", "500ms"]);
    assert_eq!(agent.wait().code(), Some(4), "it ran until it gave up");
}

#[test]
fn who_watches_gets_a_line_every_second_until_asked_to_end() {
    let directory = Directory::new();
    let _agent = lonely_agent(&directory, &[]);
    let home = directory.path("home");
    for (arguments, start) in [
        (&["status", "--watch", "--json"][..], "{\"schema\":\"adit.status/1\","),
        (&["status", "--watch"][..], "agent, pid "),
    ] {
        bounded(|| (sockets(&home).len() == 1).then_some(())).unwrap();
        let mut watch = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(arguments)
            .env("ADIT_HOME", &home)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
        for _ in 0..2 {
            assert!(lines.any(|line| line.starts_with(start)), "{arguments:?}");
        }
        let interrupt = Command::new("kill").args(["-INT", &watch.id().to_string()]).status();
        assert!(interrupt.unwrap().success());
        assert!(watch.wait().unwrap().success());
    }
}

#[test]
fn the_help_has_examples_and_exit_codes() {
    let output = run(&["status", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for part in ["Examples:", "adit status --watch", "--json", "Exit codes:", "ADIT_HOME"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn an_unknown_option_is_code_2() {
    let output = run(&["status", "--jsn"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--json"));
    assert!(output.stdout.is_empty());
}
