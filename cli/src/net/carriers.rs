//! How a node's relays are reached: by UDP, or by TCP where UDP is blocked. It tells the node's socket
//! where the relays take TCP, and tells people what carries now; when TCP is used is the core's to
//! decide.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use adit_tokio::TcpFallback;
use adit_tokio::core::drive::io::Clock;
use adit_tokio::core::fallback::{FallbackState, FallbackStatus, FallbackTarget};
use adit_tokio::core::tls::KeyDigest;

use crate::address::RELAY_NAME;
use crate::base::units::as_ms;

/// The relays that a node may reach by TCP.
#[derive(Clone)]
pub(crate) struct Carriers {
    relays: TcpFallback,
    clock: Arc<dyn Clock>,
}

/// How one relay is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carrier {
    /// What the next packet goes by.
    pub(crate) by: By,
    pub(crate) state: FallbackState,
    /// How long that has been so.
    pub(crate) age_ms: u64,
}

/// What carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

impl Carriers {
    pub(crate) const fn new(relays: TcpFallback, clock: Arc<dyn Clock>) -> Self {
        Self { relays, clock }
    }

    /// The relay at this UDP address, with this key, takes TCP at a port of the same machine; for as
    /// long as the value lives.
    pub(crate) fn add(&self, relay: SocketAddr, port: u16, key: KeyDigest) -> TcpTargetGuard {
        let tcp = SocketAddr::new(relay.ip(), port);
        self.relays.add(FallbackTarget { relay, tcp, name: RELAY_NAME.to_owned(), pin: Some(key) });
        TcpTargetGuard { relays: self.relays.clone(), relay }
    }

    /// How each relay is reached.
    pub(crate) fn told(&self) -> BTreeMap<SocketAddr, Carrier> {
        let now = self.clock.now();
        let told = |view: FallbackStatus| Carrier {
            by: By::of(view.state),
            state: view.state,
            age_ms: as_ms(now.saturating_duration_since(view.since)),
        };
        self.relays.statuses().into_iter().map(|(relay, view)| (relay, told(view))).collect()
    }
}

impl fmt::Debug for Carriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Carriers").field(&self.relays).finish()
    }
}

impl Carrier {
    /// Returns the state as programs know it.
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

impl By {
    /// Returns the word that programs know it by.
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

/// A relay that may be reached by TCP; with this value it is forgotten.
#[derive(Debug)]
pub(crate) struct TcpTargetGuard {
    relays: TcpFallback,
    relay: SocketAddr,
}

impl TcpTargetGuard {
    /// What the relay is reached by now.
    pub(crate) fn by(&self) -> By {
        let plain = SocketAddr::new(self.relay.ip().to_canonical(), self.relay.port());
        self.relays.statuses().get(&plain).map_or(By::Udp, |view| By::of(view.state))
    }
}

impl Drop for TcpTargetGuard {
    fn drop(&mut self) {
        self.relays.remove(self.relay);
    }
}
