//! The relay: a node on a public address that connects agents and connectors and forwards what they
//! cannot send each other directly. It decides where it listens and how clients address it; the
//! core decides the permissions, and the relay cannot read what it forwards.

mod discovery;
mod identity;
mod tcp;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::pin::Pin;

use adit_tokio::core::config::Config;
use adit_tokio::core::relay::MAX_DISCOVERY;
use adit_tokio::core::relay::{self, ProbeResponder};
use adit_tokio::core::tls::{KeyDigest, Tls, Trust};
use serde::Serialize;

use self::discovery::DiscoveryResponder;
use self::identity::RelayIdentity;
pub(crate) use self::tcp::TcpPort;
use crate::address::{HostPort, RelayAddress, TCP_PORT};
use crate::base::exit::{Exit, ExitError, Obstacle};
use crate::base::patience::until_possible;
use crate::base::signals;
use crate::base::task::Background;
use crate::base::units;
use crate::config;
use crate::control::{self, ControlSocket};
use crate::homedir::Home;
use crate::net::node::{self, RunningNode};
use crate::net::{event_log, interfaces};
use crate::observe::process::Process;
use crate::roles::shutdown::shut_down;

/// Bytes in a megabit.
const BYTES_PER_MBIT: u64 = 125_000;

/// The part of a second's bytes that may come in one burst, above a gigabit a second.
const AT_ONCE: u64 = 60;

/// The plan of a relay.
#[derive(Debug)]
pub(crate) struct RelayPlan {
    pub(crate) listen: SocketAddr,
    /// The port of the second socket. The default is the port after the first.
    pub(crate) discovery_port: Option<u16>,
    pub(crate) tcp_port: TcpPort,
    /// Addresses at which clients reach it, if not at its own.
    pub(crate) advertise: Vec<HostPort>,
    /// The meshes whose members may use it. The default is every mesh.
    pub(crate) meshes: BTreeSet<KeyDigest>,
    /// The devices that may use it besides, whatever their mesh.
    pub(crate) keys: BTreeSet<KeyDigest>,
    /// Everyone may use it, and that is meant.
    pub(crate) is_open: bool,
    pub(crate) mbits_per_client: Option<NonZeroU32>,
    pub(crate) mbits_in_all: Option<NonZeroU32>,
}

/// How clients address a relay.
#[derive(Debug, Serialize)]
pub(crate) struct RelayAnnouncement {
    pub(crate) relay: RelayAddress,
    /// The same at each of its addresses.
    addresses: Vec<RelayAddress>,
    listen: SocketAddr,
    discovery: SocketAddr,
    /// The address at which it accepts TLS over TCP, if it does.
    tcp: Option<SocketAddr>,
}

/// A running relay.
pub(crate) struct RunningRelay {
    node: RunningNode,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    announcement: RelayAnnouncement,
    _discovery: DiscoveryResponder,
    _own: RelayIdentity,
    _control: Option<ControlSocket>,
    _log: Background<()>,
}

/// Starts a relay as planned.
///
/// # Errors
/// Which part of the plan cannot work.
pub(crate) async fn start(plan: RelayPlan, home: &Home) -> Result<RunningRelay, ExitError> {
    let own = RelayIdentity::open_or_create(home)?;
    let (users, is_warning) = users(&plan);
    until_possible(|| own_address(&plan)).await?;
    let tls = Tls::new(own.identity.clone(), Trust::anyone());
    // Before the first client gets its address: the second socket's port may be any.
    let second = SocketAddr::new(plan.listen.ip(), second_port(&plan));
    let discovery =
        until_possible(|| DiscoveryResponder::start(second, ProbeResponder::of(&tls))).await?;
    let settings = settings(&plan, plan.listen.port(), discovery.local.port()).await;
    let builder = Config::builder(tls).device_id("relay").relay(settings);
    let core = node::build(builder, config::HeartbeatSettings::default())?;
    let tcp_port = until_possible(|| tcp::open(plan.listen.ip(), plan.tcp_port)).await?;
    let tcp = tcp_port.as_ref().and_then(|tcp_port| tcp_port.local_addr().ok());
    let node = until_possible(|| {
        let tcp_port = tcp_port.as_ref().map(TcpListener::try_clone).transpose();
        let tcp_port =
            tcp_port.map_err(|error| ExitError::new(Exit::Degraded, error.to_string()))?;
        let tcp_port = tcp_port.map(|listener| (listener, own.identity.clone()));
        node::start_relay(plan.listen, core.clone(), tcp_port)
    })
    .await?;
    let ended = Box::pin(signals::asked_to_end()?);
    let announcement = announcement(&plan, own.key, (node.local, discovery.local, tcp))?;
    let handle = node.to_handle();
    let process = Process::new("relay").with_snapshots(move || Some(handle.snapshot()));
    let control = control::open(Ok(home), process).await;
    let log = Background::spawn(event_log::log(node.handle.clone()));
    match tcp {
        Some(tcp) => tracing::info!("the relay is up on UDP {} and TCP {tcp}", node.local),
        None => tracing::info!("the relay is up on UDP {}", node.local),
    }
    match is_warning {
        true => tracing::warn!("{users}"),
        false => tracing::info!("{users}"),
    }
    tracing::debug!("address discovery is up on UDP {}", discovery.local);
    Ok(RunningRelay {
        node,
        ended,
        announcement,
        _discovery: discovery,
        _own: own,
        _control: control,
        _log: log,
    })
}

impl RunningRelay {
    /// Returns how clients address it.
    pub(crate) const fn announcement(&self) -> &RelayAnnouncement {
        &self.announcement
    }

    /// Runs until a signal.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) async fn until_asked_to_end(mut self) -> Result<(), ExitError> {
        tokio::select! {
            stop = self.node.driver.ended() => Err(stop),
            () = self.ended => shut_down(&self.node.handle, None).await,
        }
    }
}

/// Returns the port after the first one, or any if the first is any.
fn second_port(plan: &RelayPlan) -> u16 {
    let next = match plan.listen.port() {
        0 | u16::MAX => 0,
        port => port + 1,
    };
    plan.discovery_port.unwrap_or(next)
}

/// Returns the settings for the core.
async fn settings(plan: &RelayPlan, port: u16, second: u16) -> relay::RelayConfig {
    let mut known = Vec::new();
    for name in &plan.advertise {
        match name.resolve().await {
            Ok(addresses) => known.extend(addresses.into_iter().map(|address| address.ip())),
            Err(error) => tracing::warn!("the advertised name {name} does not resolve: {error}"),
        }
    }
    if known.is_empty() {
        known.extend(interfaces::of_socket(plan.listen).into_iter().map(|address| address.ip()));
    }
    let mut discovery: Vec<_> = known
        .into_iter()
        .flat_map(|ip| [port, second].map(|port| SocketAddr::new(ip, port)))
        .collect();
    discovery.retain(|address| address.port() != 0);
    discovery.truncate(MAX_DISCOVERY);
    let usual = relay::RelayConfig::default();
    let bytes_per_second = plan
        .mbits_per_client
        .map_or(usual.bytes_per_second, |mbits| u64::from(mbits.get()) * BYTES_PER_MBIT);
    // At least the burst time of the default: a burst depends on a window, not on a rate.
    let at_once = usual.bytes_at_once.max(bytes_per_second / AT_ONCE);
    let in_all = plan.mbits_in_all.map(|mbits| u64::from(mbits.get()) * BYTES_PER_MBIT);
    usual
        .meshes((!plan.meshes.is_empty()).then(|| plan.meshes.clone()))
        .keys((!plan.keys.is_empty()).then(|| plan.keys.clone()))
        .bytes_per_second_in_all(in_all)
        .discovery(discovery)
        .bytes_at_once(at_once)
        .bytes_per_second(bytes_per_second)
}

/// Returns a sentence that names who may use the relay, and whether it is a warning: an open relay
/// at a public address forwards for strangers.
fn users(plan: &RelayPlan) -> (String, bool) {
    let count = |keys: &BTreeSet<KeyDigest>, thing: &str| {
        (!keys.is_empty()).then(|| units::count(keys.len(), thing))
    };
    let allowed = [count(&plan.meshes, "mesh key"), count(&plan.keys, "device key")];
    let allowed: Vec<String> = allowed.into_iter().flatten().collect();
    if !allowed.is_empty() {
        let allowed = allowed.join(" and ");
        let sentence = "and the guests of their connectors may use this relay";
        return (format!("holders of {allowed}, {sentence}"), false);
    }
    let own = || interfaces::of_socket(plan.listen).into_iter().map(|address| address.ip());
    let is_public = !plan.advertise.is_empty() || own().any(is_public);
    let next = "limit it with --allow-mesh KEY or --allow-key KEY";
    match (plan.is_open, is_public) {
        (false, _) => (format!("everyone may use this relay; {next}, or give --open"), is_public),
        (true, true) => (format!("everyone may use this relay, at a public address; {next}"), true),
        (true, false) => ("everyone may use this relay".to_owned(), false),
    }
}

/// Returns true for an address that the internet reaches, as far as the address shows.
const fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared)
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Returns the addresses of the relay: what it advertises or, without that, its own.
fn announcement(
    plan: &RelayPlan,
    key: KeyDigest,
    (listen, discovery, tcp): (SocketAddr, SocketAddr, Option<SocketAddr>),
) -> Result<RelayAnnouncement, ExitError> {
    let port = tcp.map_or(TCP_PORT, |tcp| tcp.port());
    let own = || interfaces::of_socket(listen).into_iter().map(HostPort::from).collect();
    let places: Vec<_> = if plan.advertise.is_empty() { own() } else { plan.advertise.clone() };
    let addresses: Vec<_> =
        places.into_iter().map(|at| RelayAddress { at, tcp: port, key }).collect();
    let relay = addresses.first().cloned().ok_or_else(no_address)?;
    Ok(RelayAnnouncement { relay, addresses, listen, discovery, tcp })
}

/// Checks that the relay has an address to print: a machine that boots may have none yet.
fn own_address(plan: &RelayPlan) -> Result<(), ExitError> {
    let is_known = !plan.advertise.is_empty() || !interfaces::of_socket(plan.listen).is_empty();
    if is_known { Ok(()) } else { Err(no_address()) }
}

fn no_address() -> ExitError {
    let sentence = "this machine has no address that others can reach; name one with --advertise";
    ExitError::usage(sentence).because_of(Obstacle::NoAddress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(listen: &str, discovery_port: Option<u16>) -> RelayPlan {
        let listen = listen.parse().unwrap();
        RelayPlan {
            listen,
            discovery_port,
            tcp_port: TcpPort::None,
            advertise: Vec::new(),
            meshes: BTreeSet::new(),
            keys: BTreeSet::new(),
            is_open: false,
            mbits_per_client: None,
            mbits_in_all: None,
        }
    }

    #[test]
    fn the_second_port_is_the_next_one_unless_it_was_named_or_there_is_none() {
        assert_eq!(second_port(&example("127.0.0.1:4433", None)), 4434);
        assert_eq!(second_port(&example("127.0.0.1:4433", Some(9))), 9);
        assert_eq!(second_port(&example("127.0.0.1:65534", None)), 65_535);
        assert_eq!(second_port(&example("127.0.0.1:65535", None)), 0);
        assert_eq!(second_port(&example("127.0.0.1:0", None)), 0);
    }

    #[test]
    fn a_relay_is_called_what_it_advertises_and_otherwise_by_its_address() {
        let (key, at) = (KeyDigest([9; 32]), "127.0.0.1:4433".parse().unwrap());
        let mut plan = example("127.0.0.1:4433", None);
        let address_of = |plan: &RelayPlan| {
            announcement(plan, key, (at, at, None)).unwrap().relay.at.to_string()
        };
        assert_eq!(address_of(&plan), "127.0.0.1:4433");
        plan.advertise = vec![HostPort::try_from("relay.example:9".to_owned()).unwrap()];
        assert_eq!(address_of(&plan), "relay.example:9");
        let at_tcp = |port| {
            let tcp = Some(SocketAddr::new(at.ip(), port));
            announcement(&plan, key, (at, at, tcp)).unwrap().relay.to_string()
        };
        assert!(at_tcp(443).starts_with("relay.example:9#"), "{}", at_tcp(443));
        assert!(at_tcp(444).starts_with("relay.example:9,tcp=444#"), "{}", at_tcp(444));
    }

    #[test]
    fn who_may_use_it_is_named_and_an_open_relay_at_a_public_address_warns() {
        let mut plan = example("127.0.0.1:4433", None);
        let sentence = "everyone may use this relay; limit it with --allow-mesh KEY or --allow-key KEY, \
                        or give --open";
        assert_eq!(users(&plan), (sentence.to_owned(), false));
        plan.advertise = vec![HostPort::try_from("relay.example:4433".to_owned()).unwrap()];
        assert!(users(&plan).1);
        plan.is_open = true;
        assert!(users(&plan).1 && users(&plan).0.contains("at a public address"));
        plan.advertise.clear();
        assert_eq!(users(&plan), ("everyone may use this relay".to_owned(), false));
        plan.meshes.insert(KeyDigest([1; 32]));
        plan.keys.extend([KeyDigest([2; 32]), KeyDigest([3; 32])]);
        let (named, is_warning) = users(&plan);
        assert!(named.starts_with("holders of 1 mesh key and 2 device keys, and"), "{named}");
        assert!(!is_warning);
        for (ip, public) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }

    #[tokio::test]
    async fn clients_receive_both_discovery_addresses() {
        let plan = example("127.0.0.1:4433", None);
        let found = settings(&plan, 4433, 4434).await;
        let both = ["127.0.0.1:4433", "127.0.0.1:4434"].map(|text| text.parse().unwrap());
        assert_eq!((found.discovery, found.meshes), (both.to_vec(), None));
    }

    #[tokio::test]
    async fn what_a_client_may_have_passed_on_is_as_it_was_asked_for() {
        let usual = relay::RelayConfig::default();
        let limit = |mbits| async move {
            let plan = RelayPlan {
                mbits_per_client: NonZeroU32::new(mbits),
                ..example("127.0.0.1:4433", None)
            };
            let found = settings(&plan, 4433, 4434).await;
            (found.bytes_per_second, found.bytes_at_once)
        };
        assert_eq!(limit(0).await, (usual.bytes_per_second, usual.bytes_at_once));
        assert_eq!(limit(1_000).await.0, usual.bytes_per_second);
        assert_eq!(limit(20).await, (2_500_000, usual.bytes_at_once));
        assert_eq!(limit(12_000).await, (1_500_000_000, 25_000_000));
    }
}
