//! `adit why`: the path to each peer, the results for every other path, and the reason for this
//! one. It asks the running processes and changes no state.

use std::fmt::Write as _;

use serde::Serialize;

use super::status::{nothing, survey};
use crate::base::exit::{Exit, ExitError};
use crate::base::output;
use crate::homedir::Home;
use crate::identity::saved_service::SavedService;
use crate::observe::render::{harmless, nat, path_line};
use crate::observe::schema::{CandidateStatus, PathStatus, PeerStatus, ProcessStatus};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit why                      every peer of every running adit
  adit why web                  the connector of a saved service
  adit why device-3f9a0c41d2b7 --json

Exit codes:
  0 there is a path   4 no adit runs here, or there is no such peer   5 a peer has no path")]
pub(crate) struct WhyArgs {
    /// Name of a peer, or of a saved service; without it, all peers
    #[arg(value_name = "PEER")]
    pub(crate) peer: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is printed about one peer.
#[derive(Debug, Serialize)]
struct PeerReport<'a> {
    role: &'a str,
    pid: u32,
    name: &'a str,
    /// The peer as in `adit status --json`.
    peer: &'a PeerStatus,
}

/// Prints it for the selected peers.
///
/// # Errors
/// That no process runs, that there is no such peer, or that one has no path.
pub(crate) async fn run(arguments: &WhyArgs, home: &Home) -> Result<(), ExitError> {
    let survey = survey(home).await?;
    let (seen, unanswered) = survey.read();
    if seen.is_empty() {
        let first = unanswered.into_iter().next();
        return Err(ExitError::new(Exit::Unreachable, first.unwrap_or_else(|| nothing(home))));
    }
    // The name of a saved service stands for its connector.
    let remote = arguments.peer.as_deref().and_then(|name| SavedService::load(home, name).ok());
    let connector = remote.and_then(|known| known.remote().ok()).map(|remote| remote.name);
    let wanted = PeerFilter { name: arguments.peer.as_deref(), connector: connector.as_deref() };
    let found: Vec<_> = seen
        .iter()
        .flat_map(|process| process.peers.iter().map(move |peer| (process, peer)))
        .filter(|(process, peer)| !peer.is_relay && wanted.is_it(process, peer))
        .collect();
    if found.is_empty() {
        return Err(ExitError::new(Exit::Unreachable, missing(&seen, wanted.name)));
    }
    if arguments.json {
        output::json("adit.why/1", &serde_json::json!({ "peers": reports(&found) }))?;
    } else {
        let texts: Vec<_> = found.iter().map(|(process, peer)| text(process, peer)).collect();
        output::text(&harmless(&texts.join("\n\n")))?;
    }
    let is_lost = |(process, peer): &(&ProcessStatus, &PeerStatus)| {
        let has_path = peer.path.as_ref().is_none_or(|path| path.class.is_some());
        (!peer.state.is_connected() || !has_path).then(|| process.name(peer).to_owned())
    };
    match found.iter().find_map(is_lost) {
        Some(name) => {
            let next = "see its log, and what this network allows: adit check";
            Err(ExitError::new(Exit::Degraded, format!("there is no path to {name} now; {next}")))
        }
        None => Ok(()),
    }
}

/// Selects peers.
struct PeerFilter<'a> {
    name: Option<&'a str>,
    connector: Option<&'a str>,
}

impl PeerFilter<'_> {
    fn is_it(&self, process: &ProcessStatus, peer: &PeerStatus) -> bool {
        let Some(name) = self.name else { return true };
        let is_called = |called: &str| called == name || Some(called) == self.connector;
        let names = peer.credential.iter().flat_map(|credential| &credential.names);
        is_called(process.name(peer)) || names.map(String::as_str).any(is_called)
    }
}

fn missing(seen: &[ProcessStatus], name: Option<&str>) -> String {
    let Some(name) = name else {
        return "no peer is connected; see what is dialled: adit status".to_owned();
    };
    let peers = seen.iter().flat_map(|process| {
        let others = process.peers.iter().filter(|peer| !peer.is_relay);
        others.map(|peer| process.name(peer).to_owned())
    });
    let all: std::collections::BTreeSet<_> = peers.collect();
    let next = match all.is_empty() {
        true => "no peer is connected: adit status".to_owned(),
        false => format!("connected peers: {}", all.into_iter().collect::<Vec<_>>().join(", ")),
    };
    format!("there is no peer \"{name}\" here; {next}")
}

/// Returns what is printed about the peers that were found.
fn reports<'a>(found: &[(&'a ProcessStatus, &'a PeerStatus)]) -> Vec<PeerReport<'a>> {
    let of_peer = |&(process, peer): &(&'a ProcessStatus, &'a PeerStatus)| PeerReport {
        role: &process.role,
        pid: process.pid,
        name: process.name(peer),
        peer,
    };
    found.iter().map(of_peer).collect()
}

fn text(process: &ProcessStatus, peer: &PeerStatus) -> String {
    let mut text = format!("{}, of {} {}", process.name(peer), process.role, process.pid);
    // Writing to a string does not fail.
    let _ = match &peer.path {
        Some(path) => write!(text, "\n  {}{}", path_line(process, path), details(process, path)),
        None => write!(
            text,
            "\n  directly at {}, {}; no relay is used",
            peer.remote,
            if peer.dialled { "the address that was dialled" } else { "from where it connected" }
        ),
    };
    text
}

fn details(process: &ProcessStatus, path: &PathStatus) -> String {
    let mut text = String::new();
    for pair in &path.candidate_pairs {
        let what = process.endpoint(&pair.class, &pair.to);
        let kind =
            pair.kind.as_deref().map_or_else(String::new, |it| format!(" ({})", kind_words(it)));
        let latency = pair.latency_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
        let mark = if pair.in_use { '*' } else { ' ' };
        let loss = pair.loss * 100.0;
        let _ = write!(
            text,
            "\n  {mark} {what}{kind}: {} sent, {} answered{latency}, {loss:.1} % lost: {}",
            pair.sent, pair.answered, pair.sentence
        );
    }
    let candidate = |c: &CandidateStatus| format!("{} ({})", c.address, kind_words(&c.kind));
    let own: Vec<_> = path.candidates.iter().map(candidate).collect();
    let own = if own.is_empty() { "nothing".to_owned() } else { own.join(", ") };
    let _ = write!(text, "\n  this end advertised: {own}");
    if let Some(mapping) = &process.port_mapping {
        let _ = write!(text, "\n  port mapping here: {}", mapping.words());
    }
    let other = path.peer.as_ref().map_or("unknown", |peer| &*peer.mapping);
    let _ = write!(text, "\n  NAT here: {}\n  NAT there: {}", nat(&path.mapping), nat(other));
    text
}

/// Returns how an address was discovered, in words.
fn kind_words(kind: &str) -> &str {
    if kind == "mapped" { "mapped by the gateway" } else { kind }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::layout::{self, tests::assert_fits};
    use crate::observe::words::tests::{path, peer, relay, status};

    fn example() -> ProcessStatus {
        let up = json!({"state": "connected", "age_ms": 5});
        let more = json!({
            "id": 7, "path": path("direct", "192.0.2.1:4433"),
            "credential": {"standing": "member", "names": ["hub", "second"], "not_after": null},
        });
        status(&json!([peer(&up, more), relay(json!({}))]))
    }

    #[test]
    fn every_path_has_its_probes_and_the_one_in_use_is_marked() {
        let seen = example();
        assert_eq!(
            text(&seen, &seen.peers[0]),
            "\
hub, of agent 42
  directly at 192.0.2.1:4433 for 3 min 2 s, 12.3 ms, 3.1 % lost; why: a direct path answered in both directions
  * 192.0.2.1:4433 (reflexive): 40 sent, 39 answered, 12.3 ms, 3.1 % lost: it answers
    relay 203.0.113.3:4433: 4 sent, 4 answered, 80.0 ms, 0.0 % lost: it answers
    10.0.0.9:4433 (host): 12 sent, 0 answered, 100.0 % lost: no answer ever came
  this end advertised: 10.0.0.5:4433 (host)
  NAT here: the same address for all destinations, so direct paths are likely
  NAT there: another address for each destination, so direct paths are unlikely"
        );
    }

    #[test]
    fn long_names_and_addresses_fit_80_columns() {
        let up = json!({"state": "connected", "age_ms": 5});
        let long = "[2001:db8:1234:5678:9abc:def0:1234:5678]:44330";
        let mut way = path("direct", long);
        way["candidate_pairs"][0]["to"] = json!(long);
        way["candidates"] =
            serde_json::Value::from(vec![json!({"kind": "host", "address": long}); 8]);
        let credential = json!({
            "standing": "member", "names": ["a-very-long-name.".repeat(9)], "not_after": null,
        });
        let seen = status(&json!([peer(&up, json!({"path": way, "credential": credential}))]));
        assert_fits(&layout::wrap(&text(&seen, &seen.peers[0]), layout::WIDTH));
    }

    #[test]
    fn what_a_gateway_maps_is_called_so_and_the_gateway_is_named() {
        let up = json!({"state": "connected", "age_ms": 5});
        let mut way = path("direct", "192.0.2.1:4433");
        way["candidate_pairs"][0]["kind"] = json!("mapped");
        way["candidates"] = json!([{"kind": "mapped", "address": "203.0.113.5:7000"}]);
        let mut seen = status(&json!([peer(&up, json!({"path": way}))]));
        let mapping = json!({
            "state": "mapped", "protocol": "nat_pmp", "gateway": "192.168.1.1",
            "external": "203.0.113.5:7000",
        });
        seen.port_mapping = Some(serde_json::from_value(mapping).unwrap());
        let text = text(&seen, &seen.peers[0]);
        for said in [
            "* 192.0.2.1:4433 (mapped by the gateway): 40 sent",
            "this end advertised: 203.0.113.5:7000 (mapped by the gateway)",
            "port mapping here: 203.0.113.5:7000 leads here, by NAT-PMP of the gateway 192.168.1.1",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_peer_at_its_own_address_has_that_and_no_more() {
        let up = json!({"state": "connected", "age_ms": 5});
        let seen = status(&json!([peer(&up, json!({}))]));
        assert_eq!(
            text(&seen, &seen.peers[0]),
            "hub, of agent 42\n  directly at 192.0.2.1:4433, the address that was dialled; no relay is used"
        );
    }

    #[test]
    fn a_peer_is_meant_by_any_of_its_names_and_by_a_service_of_its() {
        let seen = example();
        let is_it = |name, connector| PeerFilter { name, connector }.is_it(&seen, &seen.peers[0]);
        assert!(is_it(None, None) && is_it(Some("hub"), None) && is_it(Some("second"), None));
        assert!(is_it(Some("web"), Some("hub")));
        assert!(!is_it(Some("web"), None) && !is_it(Some("web"), Some("other")));
    }

    #[test]
    fn a_peer_that_is_not_there_is_answered_with_those_that_are() {
        assert_eq!(
            missing(&[example()], Some("web")),
            "there is no peer \"web\" here; connected peers: hub"
        );
        assert_eq!(
            missing(&[status(&json!([]))], Some("web")),
            "there is no peer \"web\" here; no peer is connected: adit status"
        );
    }
}
