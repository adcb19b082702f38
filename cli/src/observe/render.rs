//! The status for people: a block for each process, with a table of its peers. Values in, text out;
//! it decides columns and words, and makes no judgement.

use std::fmt::Write as _;
use std::time::Duration;

use super::schema::{PathStatus, PeerStatus, ProcessStatus, RegistrationStatus, RelayStatus};
use crate::base::layout::{self, Table};
use crate::base::units;

/// Placeholder for a missing figure.
const NONE: &str = "–";

/// Digits of a mesh's key that distinguish it from others at a glance.
const MESH_DIGITS: usize = 12;

const COLUMNS: [&str; 12] = [
    "PEER",
    "ADDRESS",
    "STATE",
    "FOR",
    "LATENCY",
    "P99",
    "LOSS",
    "SENT",
    "RECEIVED",
    "STREAMS",
    "RECONNECTED",
    "CERTIFICATE",
];

/// The columns that a narrow terminal does without, the least important one first. `--json` has
/// all.
const DROPPABLE: [usize; 9] = [10, 9, 5, 8, 7, 6, 11, 4, 3];

/// Returns the whole text, at most `width` columns wide and without an end of line at its end;
/// `now` is since the Unix epoch.
pub(crate) fn text(
    processes: &[ProcessStatus],
    unanswered: &[String],
    now: Duration,
    width: usize,
) -> String {
    let mut blocks: Vec<_> = processes.iter().map(|process| block(process, now, width)).collect();
    if !unanswered.is_empty() {
        blocks.push(unanswered.join("\n"));
    }
    layout::wrap(&harmless(&blocks.join("\n\n")), width)
}

fn block(process: &ProcessStatus, now: Duration, width: usize) -> String {
    let ProcessStatus { role, pid, version, .. } = process;
    let up = units::age(Duration::from_millis(process.uptime_ms));
    let since = units::instant(Duration::from_millis(process.started_at_ms));
    let mut text = format!("{role}, pid {pid}, up {up} since {since}, adit {version}");
    // Writing to a string does not fail.
    for service in &process.services {
        let _ = write!(text, "\n  exposes {} at {}", service.name, service.address);
    }
    for forward in &process.forwards {
        let _ = write!(text, "\n  forwards {} to {}", forward.listen, forward.service);
    }
    for dial in &process.dials {
        let _ = write!(text, "\n  dials {} at {}", dial.title(), dial.address);
    }
    for relay in &process.relays {
        let _ = write!(text, "\n  is found at the relay {relay}");
    }
    if let Some(relay) = &process.relay {
        text += &relaying(relay);
    }
    if let Some(mapping) = process.port_mapping.as_ref().filter(|it| it.is_news()) {
        let _ = write!(text, "\n  port mapping: {}", mapping.words());
    }
    if process.peers.is_empty() {
        text += "\n  no peer is connected";
    } else {
        text += &table(process, now, width);
    }
    for peer in &process.peers {
        if let Some(transport) = &peer.relay_transport {
            let age = units::age(Duration::from_millis(transport.age_ms));
            let _ = write!(text, "\n  relay {}: {}", peer.remote, transport.sentence(&age));
        }
        if let Some(path) = &peer.path {
            let _ = write!(text, "\n  {}: {}", process.name(peer), path_line(process, path));
        }
    }
    for peer in process.peers.iter().filter(|peer| !peer.state.is_connected()) {
        if let Some(failure) = &peer.last_failure {
            let _ = write!(text, "\n  {}: {}", process.name(peer), failure.sentence());
        }
    }
    text
}

/// Returns the path, its age, its quality, and the reason for it.
pub(crate) fn path_line(process: &ProcessStatus, path: &PathStatus) -> String {
    let (Some(class), Some(to)) = (&path.class, &path.to) else {
        return format!("no path: {}", path.sentence);
    };
    let hop = process.endpoint(class, to);
    let path_words = match &**class {
        "direct" => format!("directly at {hop}"),
        _ => format!("by {hop}"),
    };
    let age = units::age(Duration::from_millis(path.age_ms));
    let latency = path.latency_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
    let loss = path.loss * 100.0;
    format!("{path_words} for {age}{latency}, {loss:.1} % lost; why: {}", path.sentence)
}

/// Returns what a relay does for its clients.
fn relaying(relay: &RelayStatus) -> String {
    let RelayStatus { clients, guests, channels, forwarded_bytes, .. } = relay;
    let bytes = units::bytes(*forwarded_bytes);
    let leaving = if relay.draining { ", and is about to stop" } else { "" };
    let mut text = format!(
        "\n  relays for {clients} clients, {guests} of them guests, on {channels} channels; \
         {bytes} so far{leaving}"
    );
    for registered in &relay.registrations {
        let RegistrationStatus { mesh, name, observed, services, age_ms, channels, .. } =
            registered;
        let (age, services) = (units::age(Duration::from_millis(*age_ms)), services.join(", "));
        let mesh: String = mesh.chars().take(MESH_DIGITS).collect();
        let _ = write!(
            text,
            "\n  has {name} of mesh {mesh} at {observed} for {age}, with {services}, on {channels} \
             channels"
        );
    }
    text
}

fn table(process: &ProcessStatus, now: Duration, width: usize) -> String {
    let rows = process.peers.iter().map(|peer| row(process, peer, now)).collect();
    let lines = Table::with_header(COLUMNS, rows, &DROPPABLE).lines(2, width);
    lines.iter().fold(String::new(), |text, line| text + "\n" + line)
}

fn row(process: &ProcessStatus, peer: &PeerStatus, now: Duration) -> [String; COLUMNS.len()] {
    let or_none = |figure: Option<String>| figure.unwrap_or_else(|| NONE.to_owned());
    let millis = |figure: Option<f64>| or_none(figure.map(|ms| format!("{ms:.1} ms")));
    let transport = &peer.transport;
    let smoothed = peer.latency.as_ref().map(|latency| latency.smoothed_ms);
    let ends = peer.credential.as_ref().and_then(|credential| credential.not_after);
    [
        process.name(peer).to_owned(),
        process.place(peer),
        peer.state.words(),
        or_none(peer.state.age_ms.map(|ms| units::age(Duration::from_millis(ms)))),
        // The dialled side sends no heartbeats and has the transport's figure alone.
        millis(smoothed.or(peer.rtt_ms)),
        millis(peer.latency.as_ref().map(|latency| latency.p99_ms)),
        or_none(units::percent(transport.packets_lost, transport.packets_sent)),
        units::bytes(transport.bytes_sent),
        units::bytes(transport.bytes_received),
        peer.streams.to_string(),
        peer.reconnections.to_string(),
        or_none(ends.map(|end| units::until(end, now))),
    ]
}

/// Returns a kind of NAT in words (RFC 4787 §4.1).
pub(crate) fn nat(mapping: &str) -> &str {
    match mapping {
        "none" => "none",
        "independent" => "the same address for all destinations, so direct paths are likely",
        "dependent" => "another address for each destination, so direct paths are unlikely",
        "unknown" | "" => "not known",
        other => other,
    }
}

/// Returns the text without control characters that move a terminal's cursor: some of it comes from
/// peers.
pub(crate) fn harmless(text: &str) -> String {
    let replace = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::layout::tests::assert_fits;
    use crate::observe::words::tests::{peer, status};

    const NOW: Duration = Duration::from_secs(1_770_113_472);

    /// On a terminal that is wide enough for all columns.
    const WIDE: usize = 200;

    fn shown(peers: &Value) -> String {
        text(&[status(peers)], &[], NOW, WIDE)
    }

    fn connected() -> Value {
        peer(
            &json!({"state": "connected", "age_ms": 125_000, "latency_ms": 12.3}),
            json!({
                "credential": {
                    "standing": "member", "names": ["hub", "web"],
                    "not_after": {"secs": NOW.as_secs() + 30 * 86_400, "nanos": 0},
                },
                "latency": {"smoothed_ms": 12.34, "p99_ms": 40.06, "min_ms": 1.0},
                "rtt_ms": 11.0,
                "transport": {
                    "bytes_sent": 1_572_864, "bytes_received": 900,
                    "packets_sent": 1_000, "packets_lost": 5, "mtu": 1_200,
                },
                "streams": 2, "reconnections": 1,
            }),
        )
    }

    #[test]
    fn a_process_is_a_block_with_a_table_of_its_peers() {
        assert_eq!(
            shown(&json!([connected()])),
            "\
agent, pid 42, up 3 h 12 min since 2026-02-03 10:11:12 UTC, adit 0.1.0
  forwards 127.0.0.1:9000 to web
  dials hub at hub.example:4433
  PEER  ADDRESS         STATE      FOR        LATENCY  P99      LOSS   SENT     RECEIVED  STREAMS  RECONNECTED  CERTIFICATE
  hub   192.0.2.1:4433  connected  2 min 5 s  12.3 ms  40.1 ms  0.5 %  1.5 MiB  900 B     2        1            30 days"
        );
    }

    #[test]
    fn a_peer_that_is_not_connected_has_its_failure_and_what_to_do_below_the_table() {
        let down = peer(
            &json!({"state": "reconnecting", "age_ms": 1_000, "attempt": 2, "last_error": {}}),
            json!({"last_failure": {"code": "reset", "detail": "unknown connection"}}),
        );
        let shown = shown(&json!([down]));
        let lines: Vec<_> = shown.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "  hub   192.0.2.1:4433  reconnecting, attempt 2  1 s  –        –    –     0 B   \
                 0 B       0        0            –",
                "  hub: reset: unknown connection; the peer restarted: reconnecting is enough",
            ]
        );
    }

    #[test]
    fn what_a_connected_peer_once_failed_of_is_not_shown() {
        let mut peer = connected();
        peer["last_failure"] = json!({"code": "reset", "detail": "unknown connection"});
        assert_eq!(shown(&json!([peer])), shown(&json!([connected()])));
    }

    #[test]
    fn the_side_without_heartbeats_shows_the_transports_latency() {
        let mut peer = connected();
        peer["latency"] = Value::Null;
        assert!(shown(&json!([peer])).contains("2 min 5 s  11.0 ms  –  "));
    }

    #[test]
    fn what_carries_a_relays_packets_is_below_the_table() {
        use crate::observe::words::tests::relay;
        for (by, state, sentence) in [
            ("udp", "udp", "by UDP for 3 min 2 s"),
            ("udp", "leaving", "by UDP for 3 min 2 s; it works again"),
            (
                "udp",
                "opening",
                "by UDP for 3 min 2 s; it does not answer, and a TCP connection is being opened",
            ),
            (
                "udp",
                "waiting",
                "by UDP for 3 min 2 s; it does not answer, and no TCP connection could be opened",
            ),
            ("tcp", "opened", "by TCP for 3 min 2 s; no packet has arrived yet"),
            ("tcp", "tcp", "by TCP for 3 min 2 s; UDP is blocked"),
            ("tcp", "of a later version", "by TCP for 3 min 2 s"),
        ] {
            let transport = json!({"transport": by, "state": state, "age_ms": 182_000});
            let told = shown(&json!([relay(json!({ "relay_transport": transport }))]));
            let last = told.lines().last().unwrap();
            assert_eq!(last, format!("  relay 203.0.113.3:4433: {sentence}"));
        }
    }

    #[test]
    fn a_path_is_below_the_table_with_its_reason() {
        use crate::observe::words::tests::{path, relay};
        let mut behind = connected();
        behind["path"] = path("relayed", "channel 7 of peer 2");
        let told = shown(&json!([behind, relay(json!({}))]));
        assert!(told.contains("  hub    relay 203.0.113.3:4433  connected"), "{told}");
        let last = told.lines().last().unwrap();
        assert_eq!(
            last,
            "  hub: by relay 203.0.113.3:4433 for 3 min 2 s, 12.3 ms, 3.1 % lost; why: a direct path \
             answered in both directions"
        );
        behind["path"] = path("direct", "192.0.2.1:4433");
        let told = shown(&json!([behind]));
        assert!(told.contains("\n  hub: directly at 192.0.2.1:4433 for 3 min 2 s"), "{told}");
    }

    #[test]
    fn a_relay_shows_its_registrations() {
        let relay = json!({
            "clients": 3, "guests": 1, "channels": 2, "forwarded_bytes": 2_048, "registrations": [{
                "mesh": "0123456789abcdef", "name": "device-1", "observed": "192.0.2.1:9",
                "services": ["db", "web"], "age_ms": 61_000, "channels": 2,
            }],
        });
        let relay = serde_json::from_value(relay).unwrap();
        let told =
            text(&[ProcessStatus { relay: Some(relay), ..status(&json!([])) }], &[], NOW, WIDE);
        assert!(
            told.contains(
                "\n  relays for 3 clients, 1 of them guests, on 2 channels; 2.0 KiB so far\n  has \
                 device-1 of mesh 0123456789ab at 192.0.2.1:9 for 1 min 1 s, with db, web, on 2 channels"
            ),
            "{told}"
        );
    }

    #[test]
    fn processes_without_peers_are_shown_and_silent_ones_last() {
        let idle = ProcessStatus { forwards: Vec::new(), dials: Vec::new(), ..status(&json!([])) };
        assert_eq!(
            text(&[idle], &["agent-7.sock: no answer".into()], NOW, WIDE),
            "agent, pid 42, up 3 h 12 min since 2026-02-03 10:11:12 UTC, adit 0.1.0\n  \
             no peer is connected\n\nagent-7.sock: no answer"
        );
    }

    #[test]
    fn a_peers_words_do_not_move_the_cursor() {
        let down = peer(
            &json!({"state": "failed", "age_ms": 1}),
            json!({"last_failure": {"code": "unknown", "detail": "\u{1b}[2J\rgone\u{9b}1A"}}),
        );
        let shown = shown(&json!([down]));
        assert!(shown.contains("\u{fffd}[2J\u{fffd}gone\u{fffd}1A"), "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn a_terminal_of_80_columns_gets_fewer_columns_and_no_wider_line() {
        let narrow = text(&[status(&json!([connected()]))], &[], NOW, layout::WIDTH);
        assert_fits(&narrow);
        let lines: Vec<_> = narrow.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "  PEER  ADDRESS         STATE      FOR        LATENCY  LOSS   CERTIFICATE",
                "  hub   192.0.2.1:4433  connected  2 min 5 s  12.3 ms  0.5 %  30 days",
            ]
        );
    }

    #[test]
    fn long_names_and_addresses_fit_80_columns_as_stacked_rows() {
        use crate::observe::words::tests::{path, relay};
        let mut peer = connected();
        peer["remote"] = json!("[2001:db8:1234:5678:9abc:def0:1234:5678]:44330");
        peer["credential"]["names"] = json!(["a-device-with-a-very-long-name.".repeat(4)]);
        peer["state"] = json!({"state": "reconnecting", "age_ms": 86_400_000, "attempt": 1_000});
        peer["last_failure"] = json!({"code": "heartbeat_lost", "detail": "no answer ".repeat(12)});
        peer["path"] = path("direct", "[2001:db8:1234:5678:9abc:def0:1234:5678]:44330");
        let relaying = json!({
            "clients": 4_096, "guests": 1_024, "channels": 65_536, "forwarded_bytes": u64::MAX,
            "registrations": [{
                "mesh": "0123456789abcdef", "name": "device-b1ff400dcf4b",
                "observed": "[2001:db8:1234:5678:9abc:def0:1234:5678]:44330",
                "services": ["a-service", "another-service", "one-more-service"],
                "age_ms": 61_000, "channels": 2,
            }],
        });
        let mut process = status(&json!([peer, relay(json!({}))]));
        process.relay = Some(serde_json::from_value(relaying).unwrap());
        process.relays = vec!["a-relay-with-a-very-long-name.example.".repeat(3)];
        let shown = text(&[process], &["agent-7.sock: no answer ".repeat(6)], NOW, layout::WIDTH);
        assert_fits(&shown);
        assert!(shown.contains("\n    state: reconnecting, attempt 1000\n"), "{shown}");
    }
}
