//! The transport of a node's packets to its relays: UDP, or TCP where UDP is blocked. It gives the
//! node's socket the TCP addresses of the relays, and logs changes between the two; the core
//! decides when TCP is used.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::TcpFallback;
use adit_tokio::core::drive::io::Clock;
use adit_tokio::core::fallback::{FallbackState, FallbackStatus, FallbackTarget};
use adit_tokio::core::tls::KeyDigest;

use super::http_proxy::ProxySettings;
use crate::address::RELAY_NAME;
use crate::base::task::Background;
use crate::base::units::as_ms;

/// The time between two lookups of the name of a proxy that has no address.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// The relays that a node may reach by TCP.
#[derive(Clone)]
pub(crate) struct RelayTransports {
    relays: TcpFallback,
    clock: Arc<dyn Clock>,
    proxy: Option<ProxySettings>,
}

/// The transport to one relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayTransport {
    /// The protocol of the next packet.
    pub(crate) transport: TransportProtocol,
    pub(crate) state: FallbackState,
    /// How long that has been so.
    pub(crate) age_ms: u64,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportProtocol {
    Udp,
    Tcp,
}

impl RelayTransports {
    /// Returns no relays yet. They are reached through the HTTP proxy of the environment, if it
    /// names one.
    pub(crate) fn new(relays: TcpFallback, clock: Arc<dyn Clock>) -> Self {
        Self { relays, clock, proxy: ProxySettings::from_environment() }
    }

    /// Registers TCP for the relay at this UDP address, with this key, at a port of the same
    /// machine, for the life of the returned value.
    pub(crate) fn add(&self, relay: SocketAddr, port: u16, key: KeyDigest) -> TcpTargetGuard {
        let tcp = SocketAddr::new(relay.ip(), port);
        let target = FallbackTarget::new(relay, tcp, RELAY_NAME).pin(Some(key));
        self.relays.add(target.clone());
        let proxy = self.proxy.clone().filter(|proxy| proxy.applies_to(tcp.ip()));
        let lookup = proxy
            .clone()
            .map(|proxy| Background::spawn(use_proxy(self.relays.clone(), target, proxy)));
        TcpTargetGuard { relays: self.relays.clone(), relay, proxy, _lookup: lookup }
    }

    /// Returns the transport to each relay.
    pub(crate) fn statuses(&self) -> BTreeMap<SocketAddr, RelayTransport> {
        let now = self.clock.now();
        let status = |view: FallbackStatus| RelayTransport {
            transport: TransportProtocol::of(view.state),
            state: view.state,
            age_ms: as_ms(now.saturating_duration_since(view.since)),
        };
        self.relays.statuses().into_iter().map(|(relay, view)| (relay, status(view))).collect()
    }
}

impl fmt::Debug for RelayTransports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelayTransports").field(&self.relays).finish()
    }
}

impl RelayTransport {
    /// Returns the state's name for programs.
    pub(crate) const fn word(&self) -> &'static str {
        match self.state {
            FallbackState::Udp => "udp",
            FallbackState::Leaving => "leaving",
            FallbackState::Opening => "opening",
            FallbackState::Waiting => "waiting",
            FallbackState::Opened => "opened",
            FallbackState::Tcp => "tcp",
        }
    }
}

impl TransportProtocol {
    /// Returns its name for programs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    const fn of(state: FallbackState) -> Self {
        match state {
            FallbackState::Udp
            | FallbackState::Leaving
            | FallbackState::Opening
            | FallbackState::Waiting => Self::Udp,
            FallbackState::Opened | FallbackState::Tcp => Self::Tcp,
        }
    }
}

/// Changes a relay to be reached through a proxy, once the proxy's name has an address.
async fn use_proxy(relays: TcpFallback, target: FallbackTarget, proxy: ProxySettings) {
    loop {
        match proxy.resolve().await {
            Ok(found) => return relays.add(target.proxy(Some(found))),
            Err(error) => tracing::warn!("the HTTP proxy {proxy} has no address: {error}"),
        }
        tokio::time::sleep(LOOKUP_INTERVAL).await;
    }
}

/// A relay that may be reached by TCP; it is deregistered with this value.
#[derive(Debug)]
pub(crate) struct TcpTargetGuard {
    relays: TcpFallback,
    relay: SocketAddr,
    proxy: Option<ProxySettings>,
    _lookup: Option<Background<()>>,
}

impl TcpTargetGuard {
    /// Returns the protocol of the relay's next packet.
    pub(crate) fn transport(&self) -> TransportProtocol {
        self.status().map_or(TransportProtocol::Udp, |view| TransportProtocol::of(view.state))
    }

    /// Returns true if nothing is heard from the relay by UDP, nor by TCP so far.
    pub(crate) fn is_silent(&self) -> bool {
        self.status().is_some_and(|view| match view.state {
            FallbackState::Opening | FallbackState::Waiting | FallbackState::Opened => true,
            FallbackState::Udp | FallbackState::Leaving | FallbackState::Tcp => false,
        })
    }

    /// Returns why the last stream ended or did not open, if one did.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.status()?.last_failure
    }

    /// Returns the HTTP proxy through which TCP goes, if there is one.
    pub(crate) const fn proxy(&self) -> Option<&ProxySettings> {
        self.proxy.as_ref()
    }

    fn status(&self) -> Option<FallbackStatus> {
        let plain = SocketAddr::new(self.relay.ip().to_canonical(), self.relay.port());
        self.relays.statuses().remove(&plain)
    }
}

impl Drop for TcpTargetGuard {
    fn drop(&mut self) {
        self.relays.remove(self.relay);
    }
}
