//! The handle of a node's TCP fallback: which relays take TCP, how each is reached, and which
//! clients came by it. It decides nothing; the machine is [`fallback`](crate::fallback).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::Shared;
use crate::fallback::{FallbackStatus, FallbackTarget, ListenerLimits, ListenerStats};
use crate::tls::{Identity, TlsError};

/// The TCP fallback of a driven node; clones name the same one. It works while the driver runs, on
/// an adapter that has byte streams.
#[derive(Clone)]
pub struct TcpFallback {
    shared: Arc<Shared>,
}

impl fmt::Debug for TcpFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpFallback").finish_non_exhaustive()
    }
}

impl TcpFallback {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Adds a relay that may be reached by TCP, or changes its TCP address, name or key from the
    /// next stream on.
    pub fn add(&self, target: FallbackTarget) {
        self.shared.fallback().add(target, self.shared.clock.now());
        self.shared.use_fallback();
    }

    /// Removes a relay that is not needed any more; its stream, if there is one, is closed.
    pub fn remove(&self, relay: SocketAddr) {
        self.shared.fallback().remove(relay, self.shared.clock.now());
        self.shared.lock().wake_driver();
    }

    /// Returns how each relay is reached, by its UDP address: IPv4 as such, never mapped.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<SocketAddr, FallbackStatus> {
        self.shared.fallback().statuses()
    }

    /// Takes clients by TCP, from the listeners that the adapter was given. They are shown this
    /// identity; a certificate that signs itself will do.
    ///
    /// # Errors
    /// [`TlsError`] when the identity cannot be used.
    pub fn listen(&self, identity: &Identity, limits: ListenerLimits) -> Result<(), TlsError> {
        self.shared.fallback().listen(identity, limits)?;
        self.shared.use_fallback();
        Ok(())
    }

    /// Returns the address from which a client on TCP came, by the address that the node has for
    /// it; `None` for any other address, and once its stream is gone.
    #[must_use]
    pub fn real_address(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.shared.fallback().real_address(address)
    }

    /// Returns what became of the clients on TCP.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        self.shared.fallback().stats()
    }
}
