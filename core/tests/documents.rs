//! Compares the documents with the code: tables with values, links with files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use adit_core::config::{Limits, Transport};
use adit_core::error::Code;
use adit_core::heartbeat;
use adit_core::relay;
use adit_core::retry::Policy;

#[test]
fn the_protocol_lists_every_code_as_it_is() {
    let listed: Vec<_> = rows("docs/protocol.md", "Closing").into_iter().skip(2).collect();
    let expected: Vec<_> = Code::ALL.iter().map(|&code| row(code)).collect();
    assert_eq!(listed, expected, "replace the table by:\n{}", expected.join("\n"));
}

#[test]
fn the_protocol_states_the_times_that_are_the_defaults() {
    let (transport, limits) = (Transport::default(), Limits::default());
    let (heartbeat, policy) = (heartbeat::HeartbeatConfig::default(), Policy::interactive());
    let table = rows("docs/protocol.md", "Times").join("\n");
    for (what, time) in [
        ("handshake", transport.connect_timeout),
        ("keep-alive", transport.keep_alive),
        ("idle timeout", transport.idle_timeout),
        ("heartbeat", heartbeat.interval()),
        ("answer to a heartbeat", heartbeat.ack_within()),
        ("silence", heartbeat.dead_after()),
        ("handshake, at the acceptor", limits.handshake_timeout),
        ("first frame of a stream", limits.header_timeout),
        ("stable", policy.stable_after()),
    ] {
        let row = format!("| {what} | {} s |", time.as_secs());
        assert!(table.contains(&row), "{row} is not in:\n{table}");
    }
}

#[test]
fn the_protocol_and_the_operations_state_when_an_interactive_policy_gives_up() {
    let (policy, default) = (Policy::interactive(), Policy::default());
    let (attempts, unavailable) =
        (policy.max_attempts().unwrap(), policy.max_unavailable().unwrap());
    assert_eq!((default.max_attempts(), default.max_unavailable()), (None, None));
    for (document, text) in [
        ("docs/protocol.md", "The number of attempts has no limit by default.".to_owned()),
        ("docs/protocol.md", format!("gives up after {attempts} attempts")),
        ("docs/protocol.md", format!("an interactive policy gives up after {unavailable} of them")),
        (
            "docs/operations.md",
            format!(
                "waits between attempts grow from {} s to {} s",
                default.backoff().initial().as_secs(),
                default.backoff().max().as_secs()
            ),
        ),
    ] {
        let words = fs::read_to_string(root().join(document)).unwrap();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&text), "{text:?} is not in {document}");
    }
}

#[test]
fn the_protocol_and_the_operations_state_the_sizes_that_are_the_defaults() {
    let (transport, limits) = (Transport::default(), Limits::default());
    let relay = relay::RelayConfig::default();
    let protocol = rows("docs/protocol.md", "Transport").join("\n");
    let operations = rows("docs/operations.md", "Memory").join("\n");
    for (table, text) in [
        (&protocol, format!("| {} MiB, and 8 KiB for each", transport.connection_window >> 20)),
        (&protocol, format!("| {} MiB |", transport.stream_window >> 20)),
        (&protocol, format!("half of them are open, up to {} |", grouped(transport.max_streams))),
        (&protocol, format!("| {};", grouped(transport.max_udp_payload))),
        (&operations, format!("`connection_window` | {} MiB |", transport.connection_window >> 20)),
        (&operations, format!("`stream_window` | {} MiB |", transport.stream_window >> 20)),
        (&operations, format!("`send_window` | {} MiB |", transport.send_window >> 20)),
        (&operations, format!("`max_send_window` | {} MiB |", transport.max_send_window >> 20)),
        (
            &operations,
            format!("`interactive_reserve` | {} MiB |", transport.interactive_reserve >> 20),
        ),
        (&operations, format!("`max_streams` | {} |", grouped(transport.max_streams))),
        (
            &operations,
            format!(
                "`datagram_receive_buffer` | {} MiB |",
                transport.datagram_receive_buffer >> 20
            ),
        ),
        (
            &operations,
            format!("`datagram_send_buffer` | {} MiB |", transport.datagram_send_buffer >> 20),
        ),
        (&operations, format!("`request_bytes` | {} MiB |", limits.request_bytes >> 20)),
        (&operations, format!("`peers` | {} |", grouped(limits.peers))),
        (
            &operations,
            format!(
                "`held_lookups` | {}, {} of a client |",
                grouped(relay.held_lookups),
                relay.held_lookups_of_a_client
            ),
        ),
        (&operations, format!("`handshakes` | {} |", grouped(limits.handshakes))),
        (&operations, format!("`handshake_bytes` | {} KiB |", limits.handshake_bytes >> 10)),
        (&protocol, format!("from {} handshakes in progress", limits.handshakes_before_retry)),
        (&protocol, format!("at {} handshakes in progress", limits.handshakes)),
        (&protocol, format!("or beyond {} a second", limits.handshakes_per_second)),
    ] {
        assert!(table.contains(&text), "{text:?} is not in:\n{table}");
    }
}

#[test]
fn the_protocol_states_the_limits_of_a_relay_that_are_the_defaults() {
    let relay = relay::RelayConfig::default();
    let text = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let section =
        text.split("\n## Through a relay\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let section = section.split_whitespace().collect::<Vec<_>>().join(" ");
    let refresh = relay.refresh.as_secs();
    for text in [
        format!("room for {} guests", grouped(relay.guests)),
        format!("within `refresh_ms`, {refresh} s by default"),
        format!("At most {} connectors of a mesh", relay::MAX_OFFERS),
        format!("together have {} services", grouped(relay.entries)),
        format!(
            "have {} channels that it requested, {} of them to the same connector, and request {} a \
             second with a burst of {}",
            relay.channels,
            relay.channels_of_a_pair,
            relay.connects_per_second,
            relay.connects_at_once
        ),
        format!(
            "otherwise after {} s. It holds {} lookups of a client and {} in all",
            relay.lookup_wait.as_secs(),
            relay.held_lookups_of_a_client,
            grouped(relay.held_lookups)
        ),
        format!(
            "A connector may have {}, and is sent {} Incoming a second with a burst of {}",
            grouped(relay.channels_of_a_connector),
            relay.incoming_per_second,
            relay.incoming_at_once
        ),
        format!(
            "send {} MB a second with a burst of {} MiB",
            relay.bytes_per_second / 1_000_000,
            relay.bytes_at_once >> 20
        ),
        format!(
            "by {} KiB for all senders and {} KiB for each",
            grouped(relay.queue_bytes >> 10),
            relay.queue_bytes_of_a_source >> 10
        ),
    ] {
        assert!(section.contains(&text), "{text:?} is not in:\n{section}");
    }
    let times = rows("docs/protocol.md", "Times").join("\n");
    assert!(times.contains(&format!("| registration at a relay | {refresh} s |")));
}

#[test]
fn every_link_and_every_heading_linked_to_exists() {
    let mut links = 0;
    for document in documents() {
        for (file, heading) in links_of(&document) {
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(&file)
            };
            assert!(target.exists(), "{} links to {file}", document.display());
            if let Some(heading) = heading {
                let found = headings(&target);
                assert!(found.contains(&heading), "{}: #{heading}: {found:?}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[test]
fn every_section_of_the_protocol_that_the_code_names_exists() {
    let found: BTreeSet<String> = headings(&root().join("docs/protocol.md"));
    let mut named = 0;
    let sources = ["core/src", "cli/src"].map(|folder| files(&root().join(folder)));
    for source in sources.into_iter().flatten() {
        let text = fs::read_to_string(&source).unwrap();
        for part in text.split("docs/protocol.md, \"").skip(1) {
            let section = anchor(part.split('"').next().unwrap());
            assert!(found.contains(&section), "{}: {section}: {found:?}", source.display());
            named += 1;
        }
    }
    assert!(named > 3, "only {named} sections are named");
}

#[test]
fn every_threat_names_tests_and_every_test_it_names_exists() {
    let threats: Vec<_> =
        rows("docs/security.md", "Threats").into_iter().filter(|row| !is_head(row)).collect();
    assert!(threats.len() > 30, "only {} threats were found", threats.len());
    let mut missing = Vec::new();
    for threat in &threats {
        let cells: Vec<_> = threat.trim_matches('|').split('|').collect();
        let [_, _, shown_by] = cells.as_slice() else { panic!("not three cells: {threat}") };
        let tests: Vec<_> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {threat}");
        missing.extend(tests.into_iter().filter(|test| !exists(test)));
    }
    assert!(missing.is_empty(), "these tests do not exist:\n{}", missing.join("\n"));
}

/// Returns true if there is a test with this file and function.
fn exists(test: &str) -> bool {
    let (file, name) = test.split_once("::").unwrap_or_default();
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    is_test(&text, name)
}

fn is_head(row: &str) -> bool {
    row.starts_with("|---") || row.ends_with("| shown by |")
}

/// Returns true if a source has a function of this name below an attribute that makes it a test.
fn is_test(text: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    let mut is_attributed = false;
    for line in text.lines().map(str::trim) {
        if is_attributed && line.contains(&declared) {
            return true;
        }
        let is_attribute = line.starts_with("#[");
        is_attributed =
            is_attribute && (is_attributed || line.ends_with("test]") || line.contains("test("));
    }
    false
}

fn row(code: Code) -> String {
    let category = serde_json::to_value(code.category()).unwrap();
    format!(
        "| `{}` | `0x{:02x}` | {} | {} |",
        code.as_str(),
        code.to_wire(),
        category.as_str().unwrap(),
        code.suggestion()
    )
}

/// Returns 1250000 as 1,250,000.
fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the rows of all tables of a section, its subsections included.
fn rows(document: &str, section: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let start = text.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no {section}"));
    let body = text.get(start + 1..).unwrap();
    let body = body.split("\n## ").next().unwrap();
    body.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect()
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = ["", "docs", "docs/decisions", "core", "runtime-tokio", "runtime-smol", "cli"];
    for directory in folders.map(|folder| root().join(folder)) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// Returns the links of a document within the project, as file and heading.
fn links_of(document: &Path) -> Vec<(String, Option<String>)> {
    let text = fs::read_to_string(document).unwrap();
    let targets = text.split("](").skip(1).filter_map(|part| part.split(')').next());
    let ours = targets.filter(|target| !target.contains("://"));
    ours.map(|target| match target.split_once('#') {
        Some((file, heading)) => (file.to_owned(), Some(heading.to_owned())),
        None => (target.to_owned(), None),
    })
    .collect()
}

fn headings(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// Returns a heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-';
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
