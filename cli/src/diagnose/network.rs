//! Probes one relay. It decides how long each question may take; `report` interprets the answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::event::Event;
use adit_tokio::core::path::Mapping;
use adit_tokio::core::tls::{Identity, KeyDigest, Tls, Trust};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::report::{RelayReport, UdpResult};
use crate::address::{RELAY_NAME, RelayTarget};
use crate::base::exit::ExitError;
use crate::identity::invite::Secret;
use crate::net::interfaces;
use crate::net::node::{self, RunningNode};
use crate::net::port_mapping::{self, PortMappingState};
use crate::net::relay_transports::{TcpTargetGuard, TransportProtocol};

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a relay may take to answer: its first packet is sent again after 1 s and 3 s, and TCP
/// is tried after 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to determine the kind of NAT once a relay is connected: probes are few and go to two of its
/// ports.
const NAT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long closing the connection to a relay may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Interval at which the kind of NAT is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns everything about one relay.
///
/// # Errors
/// If this machine itself cannot send.
pub(crate) async fn relay(place: &RelayTarget) -> Result<RelayReport, ExitError> {
    let began = Instant::now();
    let resolved = timeout(RESOLVE_TIMEOUT, place.at.resolve()).await;
    let mut found = RelayReport::new(place, began.elapsed());
    let addresses = match resolved {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Ok(found.unresolved(error.to_string())),
        Err(_) => return Ok(found.unresolved("no answer within 5 s".to_owned())),
    };
    // The first of each family represents the family.
    let families = [SocketAddr::is_ipv4, SocketAddr::is_ipv6];
    let firsts = families.map(|is_it| addresses.iter().copied().find(is_it));
    for address in firsts.into_iter().flatten() {
        found.udp.push(udp(place, address).await?);
    }
    found.addresses = addresses.clone();
    found.tcp = tcp(&addresses, place.tcp).await;
    Ok(found)
}

/// Returns whether the gateway maps the port of a socket, which is open for that long.
pub(crate) async fn gateway() -> PortMappingState {
    let socket = tokio::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).await;
    match socket.as_ref().ok().and_then(|socket| socket.local_addr().ok()) {
        Some(bound) => port_mapping::probe(bound).await,
        None => PortMappingState::NotNeeded,
    }
}

async fn udp(place: &RelayTarget, address: SocketAddr) -> Result<UdpResult, ExitError> {
    let (identity, _) = Secret::new()?.identity()?;
    let asker = match RelayProbe::dial(place, address, identity) {
        Ok(asker) => asker,
        // This machine has no address of that family, or may not send.
        Err(stop) => return Ok(UdpResult::silent(address, stop.to_string())),
    };
    let answer = asker.ask(address, place.key.is_some()).await;
    // The relay is notified immediately; there is no need to wait until no packet is in flight.
    let _ = timeout(CLOSE_TIMEOUT, asker.node.end()).await;
    Ok(answer)
}

/// A node of its own for one address of a relay.
struct RelayProbe {
    node: RunningNode,
    peer: Peer,
    /// The relay by TCP, if it is known by its key.
    tcp_target: Option<TcpTargetGuard>,
    began: Instant,
}

impl RelayProbe {
    fn dial(
        place: &RelayTarget,
        address: SocketAddr,
        identity: Identity,
    ) -> Result<Self, ExitError> {
        // Without a given key no key is right, and the rejection is the answer.
        let trust = Trust::pinned_leaf(place.key.unwrap_or(KeyDigest([0; 32])));
        let tls = Tls::new(identity, trust);
        let wrong = |error: &dyn std::fmt::Display| ExitError::usage(format!("{address}: {error}"));
        let core = Config::builder(tls.clone()).build().map_err(|error| wrong(&error))?;
        let node = node::start_with_relays(node::local_for(address), core)?;
        let by_tcp = node.relay_transports.as_ref().zip(place.key);
        let tcp_target =
            by_tcp.map(|(relay_transports, key)| relay_transports.add(address, place.tcp, key));
        let addresses = interfaces::of_socket(node.local);
        node.handle.set_local_addresses(addresses);
        let began = Instant::now();
        let dial = Dial::relay(address, RELAY_NAME, tls);
        let peer = node.handle.dial(dial).map_err(|error| wrong(&error))?;
        Ok(Self { node, peer, tcp_target, began })
    }

    async fn ask(&self, address: SocketAddr, has_key: bool) -> UdpResult {
        let mut events = self.node.handle.events();
        match timeout(ANSWER_TIMEOUT, self.peer.connected()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) if is_about_key(&failure) => {
                return UdpResult::other_key(address, self.began.elapsed(), has_key);
            }
            Ok(Err(failure)) => {
                return UdpResult::silent(address, self.with_tcp(failure.to_string()));
            }
            Err(_) => {
                return UdpResult::silent(
                    address,
                    self.with_tcp("no answer within 5 s".to_owned()),
                );
            }
        }
        let connected = self.began.elapsed();
        if self
            .tcp_target
            .as_ref()
            .is_some_and(|tcp_target| tcp_target.transport() == TransportProtocol::Tcp)
        {
            return UdpResult::by_tcp(address, connected);
        }
        let observed = timeout(NAT_TIMEOUT, observed(&mut events)).await.ok().flatten();
        let mapping = timeout(NAT_TIMEOUT, self.mapping()).await.unwrap_or_default();
        let rtt_ms = self.peer.snapshot().and_then(|snapshot| snapshot.rtt_ms);
        UdpResult::answered(address, connected, rtt_ms, observed, mapping)
    }

    /// Returns a sentence about UDP with what was tried by TCP.
    fn with_tcp(&self, udp: String) -> String {
        let Some(tcp_target) = &self.tcp_target else { return udp };
        let by = match tcp_target.proxy() {
            Some(proxy) => format!("TCP through the HTTP proxy {proxy}"),
            None => "TCP".to_owned(),
        };
        match tcp_target.last_failure() {
            Some(failure) => format!("{udp}; {by}: {failure}"),
            None => udp,
        }
    }

    async fn mapping(&self) -> Mapping {
        loop {
            match self.node.handle.snapshot().mapping {
                Mapping::Unknown => sleep(POLL_INTERVAL).await,
                known @ (Mapping::None | Mapping::Independent | Mapping::Dependent) => {
                    return known;
                }
            }
        }
    }
}

async fn observed(events: &mut Events) -> Option<SocketAddr> {
    loop {
        if let Event::Observed { address, .. } = events.next().await? {
            return Some(address);
        }
    }
}

fn is_about_key(failure: &Failure) -> bool {
    failure.category() == Category::Authentication
}

/// Returns true if TLS over TCP reaches the relay's machine, where UDP does not.
async fn tcp(addresses: &[SocketAddr], port: u16) -> bool {
    for address in addresses {
        let to = SocketAddr::new(address.ip(), port);
        if matches!(timeout(Duration::from_secs(2), TcpStream::connect(to)).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}
