//! The demonstration, as a visitor runs it.

mod common;

use common::run;

const CHECKS: [&str; 9] = [
    "connect", "page", "large", "echo", "stream", "heartbeat", "restart", "blackout", "shutdown",
];

#[test]
fn the_demonstration_verifies_all_it_shows() {
    let output = run(&["demo"]);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    let rows: Vec<_> = stdout.lines().skip(1).collect();
    assert_eq!(rows.len(), CHECKS.len(), "{stdout}");
    assert!(rows.iter().all(|row| row.contains("verified")), "{stdout}");
    assert!(stderr.contains("connected → reconnecting"), "{stderr}");
    assert!(stderr.contains("reconnecting → connected"), "{stderr}");
}

#[test]
fn the_report_is_json_when_asked_for() {
    let output = run(&["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "adit.demo/1");
    assert_eq!(report["ok"], true);
    let ids: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids, CHECKS);
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["value"].is_number()));
    assert!(report["seconds"].as_f64().unwrap() < 30.0);
    assert!(!report["transitions"].as_array().unwrap().is_empty());
}
