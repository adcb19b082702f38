//! The demonstration, as a visitor runs it.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{connect, run};

const CHECKS: [&str; 14] = [
    "connect",
    "page",
    "large",
    "echo",
    "stream",
    "heartbeat",
    "restart",
    "blackout",
    "shutdown",
    "relayed",
    "direct",
    "cut",
    "open",
    "transfer",
];

/// One demonstration at a time: each bounds its own steps, and two would slow each other down.
fn alone() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::new(());
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_demonstration_verifies_all_it_shows() {
    let _alone = alone();
    let output = run(&["demo"]);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    let rows: Vec<_> = stdout.lines().skip(1).collect();
    assert_eq!(rows.len(), CHECKS.len(), "{stdout}");
    assert!(rows.iter().all(|row| row.contains("verified")), "{stdout}");
    assert!(stderr.contains("connected → reconnecting"), "{stderr}");
    assert!(stderr.contains("reconnecting → connected"), "{stderr}");
    let reached = |what| stderr.matches(what).count();
    assert!(reached("peer: on a direct path to 127.0.0.1:") >= 2, "{stderr}");
    assert!(reached("peer: on a path through a relay") >= 1, "{stderr}");
}

#[test]
fn the_report_is_json_when_asked_for() {
    let _alone = alone();
    let output = run(&["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "adit.demo/1");
    assert_eq!(report["ok"], true);
    let ids: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, CHECKS);
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["value"].is_number()));
    assert!(report["seconds"].as_f64().unwrap() < 170.0);
    assert!(!report["transitions"].as_array().unwrap().is_empty());
}

#[test]
fn the_tunnel_stays_up_when_asked_to() {
    let _alone = alone();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["demo", "--keep"])
        .env("ADIT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(demo.stderr.take().unwrap());
    let address = stderr.lines().map_while(Result::ok).find_map(|line| {
        let (_, url) = line.split_once("http://")?;
        Some(url.split_once('/')?.0.to_owned())
    });
    let mut page = String::new();
    if let Some(address) = &address {
        let mut tcp = connect(address.parse().unwrap());
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").unwrap();
        tcp.read_to_string(&mut page).unwrap();
    }
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(page.contains("It works"), "{address:?}: {page}");
}
