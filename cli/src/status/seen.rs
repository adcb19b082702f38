//! What people are shown of a process's status. It reads what it needs and passes over the rest, so
//! that processes of an earlier or later version of `adit` are shown as well.

use std::time::Duration;

use adit_tokio::core::error::Code;
use serde::Deserialize;

/// A process.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    pub(super) role: String,
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) started_at_ms: u64,
    pub(super) uptime_ms: u64,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) forwards: Vec<Forward>,
    #[serde(default)]
    pub(super) dials: Vec<Dial>,
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Forward {
    pub(super) listen: String,
    pub(super) service: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dial {
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Peer {
    pub(super) credential: Option<Credential>,
    pub(super) remote: String,
    pub(super) dialled: bool,
    pub(super) state: State,
    pub(super) latency: Option<Latency>,
    pub(super) rtt_ms: Option<f64>,
    pub(super) transport: Transport,
    pub(super) streams: u64,
    pub(super) reconnections: u64,
    pub(super) last_failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Credential {
    standing: String,
    names: Vec<String>,
    pub(super) not_after: Option<Duration>,
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    state: String,
    pub(super) age_ms: Option<u64>,
    attempt: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Latency {
    pub(super) smoothed_ms: f64,
    pub(super) p99_ms: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Transport {
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) packets_sent: u64,
    pub(super) packets_lost: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    code: String,
    detail: String,
}

impl Seen {
    /// What a peer is called: as its certificate says and, before it showed one, as it was dialled.
    pub(super) fn name<'a>(&'a self, peer: &'a Peer) -> &'a str {
        match &peer.credential {
            Some(credential) if credential.standing == "guest" => "a guest",
            Some(credential) => credential.names.first().map_or("without a name", String::as_str),
            None => match &self.dials[..] {
                [dial] if peer.dialled => &dial.name,
                _ => "unknown",
            },
        }
    }

    /// A sentence about everything that does not work, with what can be done.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> {
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
        missing.chain(lost)
    }
}

impl State {
    pub(super) fn is_connected(&self) -> bool {
        self.state == "connected"
    }

    pub(super) fn words(&self) -> String {
        match self.attempt {
            Some(attempt) => format!("{}, attempt {attempt}", self.state),
            None => self.state.clone(),
        }
    }
}

impl Failure {
    /// What happened and what can be done about it.
    pub(super) fn sentence(&self) -> String {
        let known = Code::ALL.iter().find(|code| code.as_str() == self.code);
        let next = known.unwrap_or(&Code::Unknown).suggestion();
        format!("{}: {}; {next}", self.code, self.detail)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A process as it tells of itself, with these peers.
    pub(in super::super) fn seen(peers: &Value) -> Seen {
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
    pub(in super::super) fn peer(state: &Value, more: Value) -> Value {
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
    fn a_failure_that_this_version_does_not_know_is_shown_all_the_same() {
        let failure = Failure { code: "brand_new".into(), detail: "odd".into() };
        let said = "brand_new: odd; look at the detail, and at the peer's log";
        assert_eq!(failure.sentence(), said);
    }
}
