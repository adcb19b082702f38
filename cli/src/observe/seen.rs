//! What people are shown of a process's status. It reads what it needs and passes over the rest, so
//! that processes of an earlier or later version of `adit` are shown as well.

use std::time::Duration;

use adit_tokio::core::error::Code;
use serde::Deserialize;

/// A process.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) role: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) started_at_ms: u64,
    pub(crate) uptime_ms: u64,
    #[serde(default)]
    pub(crate) services: Vec<Service>,
    #[serde(default)]
    pub(crate) forwards: Vec<Forward>,
    #[serde(default)]
    pub(crate) dials: Vec<Dial>,
    /// Where it is to be found, of a connector.
    #[serde(default)]
    pub(crate) relays: Vec<String>,
    /// What it does, if it is a relay itself.
    pub(crate) relay: Option<Relay>,
    /// What the gateway maps, of a process with relays.
    pub(crate) port_mapping: Option<PortMapping>,
    pub(crate) peers: Vec<Peer>,
}

/// What the gateway of this network maps.
#[derive(Debug, Deserialize)]
pub(crate) struct PortMapping {
    /// `mapped`, `none`, `not_needed`, or `not_asked`.
    state: String,
    protocol: Option<String>,
    gateway: Option<String>,
    external: Option<String>,
    #[serde(default)]
    why: Vec<String>,
}

impl PortMapping {
    /// Whether a gateway was asked.
    pub(crate) fn is_news(&self) -> bool {
        matches!(self.state.as_str(), "mapped" | "none")
    }

    pub(crate) fn words(&self) -> String {
        let gateway = self.gateway.as_deref().unwrap_or("unknown");
        match (self.state.as_str(), &self.external) {
            ("mapped", Some(external)) => {
                let protocol = match self.protocol.as_deref() {
                    Some("pcp") => "PCP",
                    Some("nat_pmp") => "NAT-PMP",
                    Some("upnp") => "UPnP",
                    other => other.unwrap_or("an unknown protocol"),
                };
                format!("{external} leads here, by {protocol} of the gateway {gateway}")
            }
            ("none", _) => format!("none by the gateway {gateway}: {}", self.why.join("; ")),
            ("not_needed", _) => "not asked for: no gateway, or no private address".to_owned(),
            _ => "not asked for: no relay sees a NAT here, or it is switched off".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Forward {
    pub(crate) listen: String,
    pub(crate) service: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dial {
    pub(crate) name: String,
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Peer {
    #[serde(default)]
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) is_relay: bool,
    #[serde(default)]
    pub(crate) is_registered: bool,
    /// What carries its packets, of a relay that may be reached by TCP.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) path: Option<Path>,
    pub(crate) credential: Option<Credential>,
    pub(crate) remote: String,
    pub(crate) dialled: bool,
    pub(crate) state: State,
    pub(crate) latency: Option<Latency>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) transport: Transport,
    pub(crate) streams: u64,
    pub(crate) reconnections: u64,
    pub(crate) last_failure: Option<Failure>,
}

/// How a relay is reached.
#[derive(Debug, Deserialize)]
pub(crate) struct Carrier {
    /// `udp` or `tcp`.
    by: String,
    state: String,
    pub(crate) age_ms: u64,
}

/// By which way a peer behind a relay is reached.
#[derive(Debug, Deserialize)]
pub(crate) struct Path {
    /// `direct` or `relayed`; nothing where there is no way.
    pub(crate) class: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) age_ms: u64,
    pub(crate) sentence: String,
    pub(crate) latency_ms: Option<f64>,
    #[serde(default)]
    pub(crate) loss: f64,
    #[serde(default)]
    pub(crate) mapping: String,
    #[serde(default)]
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) peer: Option<OtherEnd>,
    #[serde(default)]
    pub(crate) ways: Vec<Way>,
}

/// What this end told the other of its own addresses.
#[derive(Debug, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) kind: String,
    pub(crate) address: String,
}

/// What the other end said of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct OtherEnd {
    #[serde(default)]
    pub(crate) mapping: String,
}

/// One way, and what its probes have shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Way {
    pub(crate) class: String,
    pub(crate) to: String,
    pub(crate) kind: Option<String>,
    pub(crate) in_use: bool,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) latency_ms: Option<f64>,
    #[serde(default)]
    pub(crate) loss: f64,
    pub(crate) sentence: String,
}

/// A relay's own figures.
#[derive(Debug, Deserialize)]
pub(crate) struct Relay {
    pub(crate) clients: u64,
    pub(crate) guests: u64,
    pub(crate) channels: u64,
    pub(crate) forwarded_bytes: u64,
    #[serde(default)]
    pub(crate) draining: bool,
    pub(crate) registrations: Vec<Registered>,
}

/// A connector that a relay knows.
#[derive(Debug, Deserialize)]
pub(crate) struct Registered {
    pub(crate) mesh: String,
    pub(crate) name: String,
    pub(crate) observed: String,
    pub(crate) services: Vec<String>,
    pub(crate) age_ms: u64,
    pub(crate) channels: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Credential {
    standing: String,
    pub(crate) names: Vec<String>,
    pub(crate) not_after: Option<Duration>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct State {
    state: String,
    pub(crate) age_ms: Option<u64>,
    attempt: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) smoothed_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Transport {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) packets_sent: u64,
    pub(crate) packets_lost: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    code: String,
    detail: String,
}

impl Seen {
    /// What a peer is called: as its certificate says and, before it showed one, as it was dialled.
    pub(crate) fn name<'a>(&'a self, peer: &'a Peer) -> &'a str {
        match &peer.credential {
            Some(credential) if credential.standing == "guest" => "a guest",
            Some(credential) => credential.names.first().map_or("without a name", String::as_str),
            None if peer.is_relay => "relay",
            // It may be dialled in several ways, under one name.
            None => match &self.dials[..] {
                [dial, rest @ ..] if peer.dialled && rest.iter().all(|d| d.name == dial.name) => {
                    &dial.name
                }
                _ => "unknown",
            },
        }
    }

    /// Where packets to a peer go: its address, or that of the relay which passes them on.
    pub(crate) fn place(&self, peer: &Peer) -> String {
        match &peer.path {
            None => peer.remote.clone(),
            Some(path) => path.to.as_deref().map_or_else(
                || "nowhere".to_owned(),
                |to| self.way(path.class.as_deref().unwrap_or_default(), to),
            ),
        }
    }

    /// A way in words: the address that it leads to, or the relay that it goes by.
    pub(crate) fn way(&self, class: &str, to: &str) -> String {
        if class == "direct" {
            return to.to_owned();
        }
        // A channel is told with the relay's id among the peers.
        let id = to.rsplit_once("peer ").and_then(|(_, id)| id.parse().ok());
        let relay = self.peers.iter().find(|peer| peer.is_relay && Some(peer.id) == id);
        relay.map_or_else(|| to.to_owned(), |relay| format!("relay {}", relay.remote))
    }

    /// A sentence about everything that does not work, with what can be done.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> {
        let who =
            |name: &str, address: &str| format!("{} {}: {name} at {address}", self.role, self.pid);
        let is_waiting = self.peers.is_empty();
        let missing = self.dials.iter().filter(move |_| is_waiting).map(move |dial| {
            let next = "see its log for what it waits for";
            format!("{} has no connection yet; {next}", who(&dial.name, &dial.address))
        });
        let lost = self.peers.iter().filter(|peer| !peer.state.is_connected()).map(move |peer| {
            let who = who(self.name(peer), &peer.remote);
            match &peer.last_failure {
                Some(failure) => format!("{who} is {}: {}", peer.state.words(), failure.sentence()),
                None => format!("{who} is {}; see its log", peer.state.words()),
            }
        });
        let unregistered = self.peers.iter().filter(|peer| {
            !self.relays.is_empty()
                && peer.is_relay
                && peer.state.is_connected()
                && !peer.is_registered
        });
        let unregistered = unregistered.map(move |peer| {
            let who = who("the relay", &peer.remote);
            format!("{who} does not have its services; see its log for why")
        });
        let is_unattached = !self.relays.is_empty() && !self.peers.iter().any(|peer| peer.is_relay);
        let unattached = is_unattached.then(|| {
            let all = self.relays.join(", ");
            let who = format!("{} {}", self.role, self.pid);
            format!("{who}: it is attached to none of its relays ({all}); see its log for why")
        });
        missing.chain(lost).chain(unregistered).chain(unattached)
    }
}

impl State {
    pub(crate) fn is_connected(&self) -> bool {
        self.state == "connected"
    }

    pub(crate) fn words(&self) -> String {
        match self.attempt {
            Some(attempt) => format!("{}, attempt {attempt}", self.state),
            None => self.state.clone(),
        }
    }
}

impl Carrier {
    /// What carries, for how long and why.
    pub(crate) fn sentence(&self, age: &str) -> String {
        let why = match self.state.as_str() {
            "leaving" => "; it carries again",
            "opening" => "; it is silent, and TCP is being opened",
            "waiting" => "; it is silent, and TCP could not be opened",
            "opened" => "; nothing has come by it yet",
            "tcp" => "; UDP is blocked",
            _ => "",
        };
        format!("by {} for {age}{why}", self.by.to_uppercase())
    }
}

impl Failure {
    /// What happened and what can be done about it.
    pub(crate) fn sentence(&self) -> String {
        let known = Code::ALL.iter().find(|code| code.as_str() == self.code);
        let next = known.unwrap_or(&Code::Unknown).suggestion();
        format!("{}: {}; {next}", self.code, self.detail)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A process as it tells of itself, with these peers.
    pub(crate) fn seen(peers: &Value) -> Seen {
        serde_json::from_value(json!({
            "role": "agent", "pid": 42, "version": "0.1.0", "later": "unknown keys do not matter",
            "started_at_ms": 1_770_113_472_000_u64, "uptime_ms": 11_520_000,
            "services": [],
            "forwards": [{"listen": "127.0.0.1:9000", "service": "web"}],
            "dials": [{"name": "hub", "address": "hub.example:4433"}],
            "peers": peers,
        }))
        .unwrap()
    }

    /// A peer as the core tells of it, in a state, with what is particular to it.
    pub(crate) fn peer(state: &Value, more: Value) -> Value {
        let mut peer = json!({
            "id": 1, "credential": null, "remote": "192.0.2.1:4433", "dialled": true,
            "state": state, "healthy": false, "latency": null, "rtt_ms": null,
            "transport": {"bytes_sent": 0, "bytes_received": 0, "packets_sent": 0, "packets_lost": 0},
            "streams": 0, "reconnections": 0, "last_failure": null,
        });
        let Value::Object(more) = more else { panic!("an object") };
        more.into_iter().for_each(|(key, value)| peer[key] = value);
        peer
    }

    /// A connection to a relay.
    pub(crate) fn relay(more: Value) -> Value {
        let mut relay = peer(&json!({"state": "connected", "age_ms": 5}), more);
        (relay["id"], relay["is_relay"]) = (json!(2), json!(true));
        relay["remote"] = json!("203.0.113.3:4433");
        relay
    }

    /// A path as the core tells of it.
    pub(crate) fn path(class: &str, to: &str) -> Value {
        json!({
            "class": class, "to": to, "age_ms": 182_000, "reason": "direct_proven",
            "sentence": "a direct way answered in both directions", "latency_ms": 12.34,
            "loss": 0.031_25, "mapping": "independent", "peer": {"mapping": "dependent"},
            "candidates": [{"kind": "host", "address": "10.0.0.5:4433"}],
            "ways": [
                {"class": "direct", "to": "192.0.2.1:4433", "kind": "reflexive", "in_use": true,
                 "sent": 40, "answered": 39, "latency_ms": 12.34, "loss": 0.031_25,
                 "verdict": "answers", "sentence": "it answers"},
                {"class": "relayed", "to": "channel 7 of peer 2", "kind": null, "in_use": false,
                 "sent": 4, "answered": 4, "latency_ms": 80.0, "loss": 0.0,
                 "verdict": "answers", "sentence": "it answers"},
                {"class": "direct", "to": "10.0.0.9:4433", "kind": "host", "in_use": false,
                 "sent": 12, "answered": 0, "latency_ms": null, "loss": 1.0,
                 "verdict": "no_answer", "sentence": "no answer ever came"},
            ],
        })
    }

    fn troubles(peers: &Value) -> Vec<String> {
        seen(peers).troubles().collect()
    }

    #[test]
    fn a_process_whose_peers_are_connected_has_no_trouble() {
        let up = peer(&json!({"state": "connected", "age_ms": 5}), json!({}));
        assert!(troubles(&json!([up])).is_empty());
    }

    #[test]
    fn a_process_that_has_nobody_yet_is_in_trouble_when_it_wants_somebody() {
        let said = "agent 42: hub at hub.example:4433 has no connection yet; \
                    see its log for what it waits for";
        assert_eq!(troubles(&json!([])), [said]);
        let idle = Seen { dials: Vec::new(), ..seen(&json!([])) };
        assert_eq!(idle.troubles().count(), 0);
    }

    #[test]
    fn a_lost_peer_is_named_with_its_failure_and_what_to_do() {
        let down = peer(
            &json!({"state": "reconnecting", "age_ms": 5, "attempt": 3}),
            json!({"last_failure": {"code": "timed_out", "detail": "no answer for 30 s"}}),
        );
        let said = "agent 42: hub at 192.0.2.1:4433 is reconnecting, attempt 3: timed_out: no \
                    answer for 30 s; check that the peer runs and that UDP reaches it";
        assert_eq!(troubles(&json!([down])), [said]);
        let first = peer(&json!({"state": "connecting", "age_ms": 5}), json!({}));
        assert_eq!(
            troubles(&json!([first])),
            ["agent 42: hub at 192.0.2.1:4433 is connecting; see its log"]
        );
    }

    #[test]
    fn a_peer_is_called_by_its_first_name_and_a_guest_by_what_it_is() {
        let credential = |standing, names: &[&str]| json!({"credential": {"standing": standing, "names": names, "not_after": null}});
        let up = json!({"state": "connected", "age_ms": 5});
        let name = |more| {
            let seen = seen(&json!([peer(&up, more)]));
            seen.name(&seen.peers[0]).to_owned()
        };
        assert_eq!(name(credential("member", &["laptop", "web"])), "laptop");
        assert_eq!(name(credential("member", &[])), "without a name");
        assert_eq!(name(credential("guest", &[])), "a guest");
        assert_eq!(name(json!({})), "hub");
        assert_eq!(name(json!({"dialled": false})), "unknown");
    }

    #[test]
    fn a_peer_behind_a_relay_is_where_its_packets_go() {
        let up = json!({"state": "connected", "age_ms": 5});
        let place = |path: Value| {
            let seen = seen(&json!([peer(&up, json!({"path": path})), relay(json!({}))]));
            seen.place(&seen.peers[0])
        };
        assert_eq!(place(path("direct", "192.0.2.1:4433")), "192.0.2.1:4433");
        assert_eq!(place(path("relayed", "channel 7 of peer 2")), "relay 203.0.113.3:4433");
        assert_eq!(place(path("relayed", "channel 7 of peer 3")), "channel 7 of peer 3");
        assert_eq!(place(Value::Null), "192.0.2.1:4433");
        let mut none = path("direct", "");
        (none["class"], none["to"]) = (Value::Null, Value::Null);
        assert_eq!(place(none), "nowhere");
    }

    #[test]
    fn a_connector_that_its_relay_does_not_have_is_in_trouble_and_an_agent_is_not() {
        let troubles = |relays: &[&str], more| {
            let relays = relays.iter().map(|&relay| relay.to_owned()).collect();
            Seen { relays, ..seen(&json!([relay(more)])) }.troubles().collect::<Vec<_>>()
        };
        let said = "agent 42: the relay at 203.0.113.3:4433 does not have its services; \
                    see its log for why";
        assert_eq!(troubles(&["relay.example:4433"], json!({})), [said]);
        assert!(troubles(&["relay.example:4433"], json!({"is_registered": true})).is_empty());
        assert!(troubles(&[], json!({})).is_empty());
        let lonely = Seen { relays: vec!["relay.example:4433".into()], ..seen(&json!([])) };
        let said = "agent 42: it is attached to none of its relays (relay.example:4433); see its \
                    log for why";
        assert_eq!(lonely.troubles().last().as_deref(), Some(said));
    }

    #[test]
    fn a_failure_that_this_version_does_not_know_is_shown_all_the_same() {
        let failure = Failure { code: "brand_new".into(), detail: "odd".into() };
        let said = "brand_new: odd; look at the detail, and at the peer's log";
        assert_eq!(failure.sentence(), said);
    }
}
