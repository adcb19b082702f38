//! A status in words: the names of peers, where their packets go, and what does not work. It
//! decides no columns and does no IO.

use std::fmt::Display;

use adit_tokio::core::error::Code;

use super::schema::{
    DialTarget, FailureStatus, LifecycleStatus, PeerStatus, PortMapping, ProcessStatus,
    RelayTransportStatus,
};

impl ProcessStatus {
    /// Returns the name of a peer: the one in its certificate or, before it presented one, the one
    /// that was dialled.
    pub(crate) fn name<'a>(&'a self, peer: &'a PeerStatus) -> &'a str {
        if let Some(title) = &peer.title {
            return title;
        }
        match &peer.credential {
            Some(credential) if credential.standing == "guest" => "a guest",
            Some(credential) => credential.names.first().map_or("without a name", String::as_str),
            None if peer.is_relay => "relay",
            // It may be dialled at several addresses, under one name.
            None => match &self.dials[..] {
                [dial, rest @ ..] if peer.dialled && rest.iter().all(|d| d.name == dial.name) => {
                    dial.title()
                }
                _ => "unknown",
            },
        }
    }

    /// Returns where packets to a peer go: its address, or that of the relay which forwards them.
    pub(crate) fn place(&self, peer: &PeerStatus) -> String {
        match &peer.path {
            None => peer.remote.to_string(),
            Some(path) => path.to.as_deref().map_or_else(
                || "nowhere".to_owned(),
                |to| self.endpoint(path.class.as_deref().unwrap_or_default(), to),
            ),
        }
    }

    /// Returns the address that a path leads to, or the relay that it goes through.
    pub(crate) fn endpoint(&self, class: &str, to: &str) -> String {
        if class == "direct" {
            return to.to_owned();
        }
        // A channel is named with the relay among the peers.
        let is_named = |peer: &PeerStatus| to.ends_with(&format!(" of {}", peer.id));
        let relay = self.peers.iter().find(|peer| peer.is_relay && is_named(peer));
        relay.map_or_else(|| to.to_owned(), |relay| format!("relay {}", relay.remote))
    }

    /// Returns a sentence about everything that does not work, with the next step.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> {
        let who = |name: &str, address: &dyn Display| {
            format!("{} {}: {name} at {address}", self.role, self.pid)
        };
        let is_waiting = self.peers.is_empty();
        let missing = self.dials.iter().filter(move |_| is_waiting).map(move |dial| {
            let next = "see its log for what it waits for";
            format!("{} has no connection yet; {next}", who(dial.title(), &dial.address))
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
            format!("{who}: it is connected to none of its relays ({all}); see its log for why")
        });
        missing.chain(lost).chain(unregistered).chain(unattached)
    }
}

impl DialTarget {
    /// Returns what people call it.
    pub(crate) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

impl LifecycleStatus {
    pub(crate) fn is_connected(&self) -> bool {
        self.state == "connected"
    }

    pub(crate) fn words(&self) -> String {
        match self.attempt {
            Some(attempt) => format!("{}, attempt {attempt}", self.state),
            None => self.state.clone().into_owned(),
        }
    }
}

impl RelayTransportStatus {
    /// Returns what carries the packets, for how long and why.
    pub(crate) fn sentence(&self, age: &str) -> String {
        let why = match &*self.state {
            "leaving" => "; it works again",
            "opening" => "; it does not answer, and a TCP connection is being opened",
            "waiting" => "; it does not answer, and no TCP connection could be opened",
            "opened" => "; no packet has arrived yet",
            "tcp" => "; UDP is blocked",
            _ => "",
        };
        format!("by {} for {age}{why}", self.transport.to_uppercase())
    }
}

impl FailureStatus {
    /// Returns what happened and the next step.
    pub(crate) fn sentence(&self) -> String {
        let known = Code::ALL.iter().find(|code| code.as_str() == self.code);
        let next = known.unwrap_or(&Code::Unknown).suggestion();
        format!("{}: {}; {next}", self.code, self.detail)
    }
}

impl PortMapping {
    /// Returns true if a gateway was asked.
    pub(crate) fn is_news(&self) -> bool {
        matches!(&*self.state, "mapped" | "none")
    }

    pub(crate) fn words(&self) -> String {
        let gateway = self.gateway.as_deref().unwrap_or("unknown");
        match (&*self.state, self.external) {
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

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns the status of a process with these peers.
    pub(crate) fn status(peers: &Value) -> ProcessStatus {
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

    /// Returns a peer in a state, with its other fields.
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

    /// Returns a connection to a relay.
    pub(crate) fn relay(more: Value) -> Value {
        let mut relay = peer(&json!({"state": "connected", "age_ms": 5}), more);
        (relay["id"], relay["is_relay"]) = (json!(2), json!(true));
        relay["remote"] = json!("203.0.113.3:4433");
        relay
    }

    /// Returns a path.
    pub(crate) fn path(class: &str, to: &str) -> Value {
        json!({
            "class": class, "to": to, "age_ms": 182_000, "reason": "direct_proven",
            "sentence": "a direct path answered in both directions", "latency_ms": 12.34,
            "loss": 0.031_25, "mapping": "independent", "peer": {"mapping": "dependent"},
            "candidates": [{"kind": "host", "address": "10.0.0.5:4433"}],
            "candidate_pairs": [
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
        status(peers).troubles().collect()
    }

    #[test]
    fn a_process_whose_peers_are_connected_has_no_trouble() {
        let up = peer(&json!({"state": "connected", "age_ms": 5}), json!({}));
        assert!(troubles(&json!([up])).is_empty());
    }

    #[test]
    fn a_process_without_its_wanted_peers_is_in_trouble() {
        let said = "agent 42: hub at hub.example:4433 has no connection yet; \
                    see its log for what it waits for";
        assert_eq!(troubles(&json!([])), [said]);
        let idle = ProcessStatus { dials: Vec::new(), ..status(&json!([])) };
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
            let status = status(&json!([peer(&up, more)]));
            status.name(&status.peers[0]).to_owned()
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
            let status = status(&json!([peer(&up, json!({"path": path})), relay(json!({}))]));
            status.place(&status.peers[0])
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
            ProcessStatus { relays, ..status(&json!([relay(more)])) }.troubles().collect::<Vec<_>>()
        };
        let said = "agent 42: the relay at 203.0.113.3:4433 does not have its services; \
                    see its log for why";
        assert_eq!(troubles(&["relay.example:4433"], json!({})), [said]);
        assert!(troubles(&["relay.example:4433"], json!({"is_registered": true})).is_empty());
        assert!(troubles(&[], json!({})).is_empty());
        let lonely =
            ProcessStatus { relays: vec!["relay.example:4433".into()], ..status(&json!([])) };
        let said = "agent 42: it is connected to none of its relays (relay.example:4433); see its \
                    log for why";
        assert_eq!(lonely.troubles().last().as_deref(), Some(said));
    }

    #[test]
    fn a_failure_that_this_version_does_not_know_is_shown_all_the_same() {
        let failure =
            FailureStatus { code: "brand_new".into(), detail: "odd".into(), retry_after: None };
        let said = "brand_new: odd; look at the detail, and at the peer's log";
        assert_eq!(failure.sentence(), said);
    }
}
