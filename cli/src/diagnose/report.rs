//! The result of a network check, in words, as JSON, and as an exit code. Values in, text out.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::path::Mapping;
use serde::Serialize;

use crate::address::RelayTarget;
use crate::base::exit::{Exit, ExitError};
use crate::base::units::millis;
use crate::net::port_mapping::{self, PortMappingState};
use crate::observe::render::nat;

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkReport {
    relays: Vec<RelayReport>,
    /// The kind of NAT, as far as any relay has shown it.
    mapping: Mapping,
    /// True if a relay was reached over IPv6.
    ipv6: bool,
    /// What the gateway of this network maps, if it was asked.
    port_mapping: PortMappingState,
}

/// The results for one relay.
#[derive(Debug, Serialize)]
pub(crate) struct RelayReport {
    relay: String,
    resolved_ms: f64,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Why the name has no address.
    unresolved: Option<String>,
    pub(crate) udp: Vec<UdpResult>,
    /// The port at which it accepts TLS over TCP.
    tcp_port: u16,
    /// True if a process accepts connections there.
    pub(crate) tcp: bool,
}

/// The result for one address.
#[derive(Debug, Serialize)]
pub(crate) struct UdpResult {
    address: SocketAddr,
    answer: UdpAnswer,
    /// From the first packet to a connection.
    connected_ms: Option<f64>,
    rtt_ms: Option<f64>,
    /// This machine's address as the relay sees it.
    observed: Option<SocketAddr>,
    mapping: Mapping,
    /// Why there is no answer.
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum UdpAnswer {
    /// It is the relay.
    Relay,
    /// It is the relay, and it is reachable only by TCP.
    Tcp,
    /// A peer answered, and no key was given to verify it.
    Unverified,
    /// A peer answered with another key.
    OtherKey,
    None,
}

impl RelayReport {
    pub(crate) fn new(place: &RelayTarget, took: Duration) -> Self {
        Self {
            relay: place.at.to_string(),
            resolved_ms: millis(took),
            addresses: Vec::new(),
            unresolved: None,
            udp: Vec::new(),
            tcp_port: place.tcp,
            tcp: false,
        }
    }

    pub(crate) fn unresolved(mut self, why: String) -> Self {
        self.unresolved = Some(why);
        self
    }

    fn has(&self, answer: UdpAnswer) -> bool {
        self.udp.iter().any(|udp| udp.answer == answer)
    }
}

impl UdpResult {
    fn new(address: SocketAddr, answer: UdpAnswer) -> Self {
        Self {
            address,
            answer,
            connected_ms: None,
            rtt_ms: None,
            observed: None,
            mapping: Mapping::Unknown,
            why: None,
        }
    }

    pub(crate) fn silent(address: SocketAddr, why: String) -> Self {
        Self { why: Some(why), ..Self::new(address, UdpAnswer::None) }
    }

    /// Returns a result by TCP. Its first round trips include the wait for UDP, so that they do not
    /// describe TCP.
    pub(crate) fn by_tcp(address: SocketAddr, connected: Duration) -> Self {
        Self { connected_ms: Some(millis(connected)), ..Self::new(address, UdpAnswer::Tcp) }
    }

    pub(crate) fn other_key(address: SocketAddr, took: Duration, has_key: bool) -> Self {
        let answer = if has_key { UdpAnswer::OtherKey } else { UdpAnswer::Unverified };
        Self { connected_ms: Some(millis(took)), ..Self::new(address, answer) }
    }

    pub(crate) fn answered(
        address: SocketAddr,
        connected: Duration,
        rtt_ms: Option<f64>,
        observed: Option<SocketAddr>,
        mapping: Mapping,
    ) -> Self {
        let connected_ms = Some(millis(connected));
        Self { connected_ms, rtt_ms, observed, mapping, ..Self::new(address, UdpAnswer::Relay) }
    }
}

impl NetworkReport {
    pub(crate) fn new(relays: Vec<RelayReport>) -> Self {
        let all = || relays.iter().flat_map(|relay| &relay.udp);
        let mapping = all().map(|udp| udp.mapping).find(|mapping| *mapping != Mapping::Unknown);
        let ipv6 = all().any(|udp| udp.answer != UdpAnswer::None && udp.address.is_ipv6());
        let (mapping, port_mapping) = (mapping.unwrap_or_default(), PortMappingState::default());
        Self { mapping, ipv6, port_mapping, relays }
    }

    /// Returns true if a relay sees this machine at another address than its own.
    pub(crate) fn sees_nat(&self) -> bool {
        let seen = self.relays.iter().flat_map(|relay| &relay.udp).filter_map(|udp| udp.observed);
        self.mapping != Mapping::None && seen.into_iter().any(port_mapping::is_translated)
    }

    /// Returns the same with the result for the gateway.
    pub(crate) fn with_port_mapping(self, port_mapping: PortMappingState) -> Self {
        Self { port_mapping, ..self }
    }

    /// Checks that the network is good enough.
    ///
    /// # Errors
    /// What is not good enough, and the next step.
    pub(crate) fn verdict(&self) -> Result<(), ExitError> {
        let any = |answer| self.relays.iter().any(|relay| relay.has(answer));
        if any(UdpAnswer::Relay) {
            let is_mapped = matches!(self.port_mapping, PortMappingState::Mapped { .. });
            if self.mapping == Mapping::Dependent && !self.ipv6 && !is_mapped {
                return Err(ExitError::new(
                    Exit::Degraded,
                    "the relay works, and direct paths are unlikely: the NAT here uses another address \
                     for each destination; IPv6, or forwarding a port, would help",
                ));
            }
            return Ok(());
        }
        if any(UdpAnswer::Tcp) {
            return Err(ExitError::new(
                Exit::Degraded,
                "the relay works over TCP only, and direct paths are unlikely: UDP is blocked; allow \
                 it out of this network, and in at the relay",
            ));
        }
        if any(UdpAnswer::OtherKey) {
            return Err(ExitError::new(
                Exit::Authentication,
                "the relay answers with another key than the one given; ask its owner for the line that \
                 adit relay prints now",
            ));
        }
        if any(UdpAnswer::Unverified) {
            return Ok(());
        }
        let next = match self.relays.iter().any(|relay| relay.unresolved.is_none()) {
            true => "check that it runs, and that UDP leaves this network and reaches its port",
            false => "check how its name is written, and that this machine resolves names",
        };
        Err(ExitError::new(Exit::Unreachable, format!("no relay can be reached; {next}")))
    }
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for relay in &self.relays {
            write!(f, "{relay}")?;
        }
        writeln!(f, "NAT: {}", nat(self.mapping.as_str()))?;
        writeln!(f, "port mapping: {}", self.port_mapping)?;
        write!(f, "IPv6: {}", if self.ipv6 { "works" } else { "reaches no relay" })
    }
}

impl fmt::Display for RelayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "relay {}", self.relay)?;
        if let Some(why) = &self.unresolved {
            return writeln!(f, "  name: no address: {why}");
        }
        let addresses: Vec<_> = self.addresses.iter().map(|a| a.ip().to_string()).collect();
        writeln!(f, "  name: {} in {:.0} ms", addresses.join(", "), self.resolved_ms)?;
        for udp in &self.udp {
            writeln!(f, "  UDP to {}: {udp}", udp.address)?;
        }
        let tcp = if self.tcp { "open, for networks without UDP" } else { "nothing answers" };
        writeln!(f, "  TCP to port {}: {tcp}", self.tcp_port)
    }
}

impl fmt::Display for UdpResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.connected_ms.unwrap_or_default();
        match self.answer {
            UdpAnswer::Relay | UdpAnswer::Tcp => {
                let how = match self.answer {
                    UdpAnswer::Tcp => "no answer, but TCP works",
                    UdpAnswer::Relay
                    | UdpAnswer::Unverified
                    | UdpAnswer::OtherKey
                    | UdpAnswer::None => "works",
                };
                write!(f, "{how}, connected in {took:.0} ms")?;
                if let Some(rtt) = self.rtt_ms {
                    write!(f, ", round trip {rtt:.1} ms")?;
                }
                self.observed.map_or(Ok(()), |at| write!(f, ", it sees this machine at {at}"))
            }
            UdpAnswer::Unverified => {
                f.write_str("something answers; give the relay's key to verify it")
            }
            UdpAnswer::OtherKey => {
                f.write_str("something answers, with another key than the one given")
            }
            UdpAnswer::None => {
                write!(f, "no answer: {}", self.why.as_deref().unwrap_or("no packet arrived"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::layout::{self, tests::assert_fits};

    fn found(udp: Vec<UdpResult>) -> RelayReport {
        let place = "relay.example".parse().unwrap();
        let addresses = vec!["192.0.2.7:4433".parse().unwrap()];
        let new = RelayReport::new(&place, Duration::from_millis(12));
        RelayReport { addresses, udp, ..new }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn works(address: &str, mapping: Mapping) -> UdpResult {
        let observed = Some(at("198.51.100.9:40000"));
        UdpResult::answered(at(address), Duration::from_millis(41), Some(20.04), observed, mapping)
    }

    fn exit(relays: Vec<RelayReport>) -> Option<Exit> {
        NetworkReport::new(relays).verdict().err().map(|stop| stop.exit())
    }

    #[test]
    fn a_report_lists_results_with_latency() {
        let relay = found(vec![works("192.0.2.7:4433", Mapping::Independent)]);
        assert_eq!(
            NetworkReport::new(vec![relay]).to_string(),
            "\
relay relay.example:4433
  name: 192.0.2.7 in 12 ms
  UDP to 192.0.2.7:4433: works, connected in 41 ms, round trip 20.0 ms, it sees this machine at 198.51.100.9:40000
  TCP to port 443: nothing answers
NAT: the same address for all destinations, so direct paths are likely
port mapping: not asked for: no relay sees a NAT here
IPv6: reaches no relay"
        );
    }

    #[test]
    fn long_names_and_addresses_fit_80_columns() {
        let six = "[2001:db8:1234:5678:9abc:def0:1234:5678]:44330";
        let place = format!("{}:4433", "a-very-long-name.".repeat(9)).parse().unwrap();
        let new = RelayReport::new(&place, Duration::from_millis(12));
        let observed = Some(at(six));
        let udp = UdpResult::answered(
            at(six),
            Duration::from_millis(41),
            Some(20.04),
            observed,
            Mapping::Dependent,
        );
        let relay = RelayReport { addresses: vec![at(six); 4], udp: vec![udp], ..new };
        let why = vec!["PCP: no answer within the time allowed".to_owned(); 3];
        let none = PortMappingState::None { gateway: [192, 168, 1, 1].into(), why };
        let report = NetworkReport::new(vec![relay]).with_port_mapping(none);
        assert_fits(&layout::wrap(&report.to_string(), layout::WIDTH));
    }

    #[test]
    fn one_relay_that_works_is_enough_and_a_nat_that_cannot_be_met_is_not_good() {
        let silent = || found(vec![UdpResult::silent(at("192.0.2.7:4433"), "nothing".into())]);
        let good = |mapping| found(vec![works("192.0.2.7:4433", mapping)]);
        assert_eq!(exit(vec![silent(), good(Mapping::Independent)]), None);
        assert_eq!(exit(vec![good(Mapping::Unknown)]), None);
        assert_eq!(exit(vec![good(Mapping::Dependent)]), Some(Exit::Degraded));
        let six = found(vec![works("[2001:db8::7]:4433", Mapping::Dependent)]);
        assert_eq!(exit(vec![six]), None);
        assert_eq!(exit(vec![silent()]), Some(Exit::Unreachable));
    }

    #[test]
    fn a_gateway_mapping_makes_a_dependent_nat_reachable() {
        let report =
            || NetworkReport::new(vec![found(vec![works("192.0.2.7:4433", Mapping::Dependent)])]);
        let gateway = [192, 168, 1, 1].into();
        let (protocol, external) = (port_mapping::Protocol::Pcp, at("203.0.113.5:7000"));
        let mapped =
            report().with_port_mapping(PortMappingState::Mapped { protocol, gateway, external });
        assert!(mapped.verdict().is_ok());
        let line = "port mapping: 203.0.113.5:7000 leads here, by PCP of the gateway 192.168.1.1\n";
        assert!(mapped.to_string().contains(line), "{mapped}");
        let json = serde_json::to_value(&mapped).unwrap();
        assert_eq!(json["port_mapping"]["protocol"], "pcp");
        assert_eq!(json["port_mapping"]["external"], "203.0.113.5:7000");
        let why = vec!["PCP: silent".to_owned()];
        let none = report().with_port_mapping(PortMappingState::None { gateway, why });
        assert!(none.to_string().contains("none by the gateway 192.168.1.1: PCP: silent"));
        assert_eq!(none.verdict().unwrap_err().exit(), Exit::Degraded);
    }

    #[test]
    fn a_relay_that_tcp_alone_reaches_is_worse_than_one_by_udp_and_better_than_none() {
        let by_tcp = || UdpResult::by_tcp(at("192.0.2.7:4433"), Duration::from_millis(2_100));
        let shown = found(vec![by_tcp()]).to_string();
        let line = "UDP to 192.0.2.7:4433: no answer, but TCP works, connected in 2100 ms\n";
        assert!(shown.contains(line), "{shown}");
        assert_eq!(exit(vec![found(vec![by_tcp()])]), Some(Exit::Degraded));
        let udp = works("192.0.2.8:4433", Mapping::Independent);
        assert_eq!(exit(vec![found(vec![by_tcp(), udp])]), None);
        let other = UdpResult::other_key(at("192.0.2.8:4433"), Duration::from_millis(5), true);
        assert_eq!(exit(vec![found(vec![other, by_tcp()])]), Some(Exit::Degraded));
    }

    #[test]
    fn another_key_is_not_the_relay_and_without_a_key_an_answer_is_an_answer() {
        let other = |has_key| {
            found(vec![UdpResult::other_key(
                at("192.0.2.7:4433"),
                Duration::from_millis(5),
                has_key,
            )])
        };
        assert_eq!(exit(vec![other(true)]), Some(Exit::Authentication));
        assert_eq!(exit(vec![other(false)]), None);
    }

    #[test]
    fn a_name_without_address_differs_from_a_silent_relay() {
        let lost = found(Vec::new()).unresolved("no such host".into());
        let report = NetworkReport::new(vec![lost]);
        assert!(report.to_string().contains("  name: no address: no such host\n"), "{report}");
        let said = report.verdict().unwrap_err().to_string();
        assert!(said.contains("check how its name is written"), "{said}");
    }
}
