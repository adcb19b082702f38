//! Which relays a client's node has that can be reached by TCP, and how each is reached now: told
//! and asked while the node runs. It decides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use adit_core::fallback::State;
use adit_core::tls::KeyDigest;

/// One relay and its door on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its UDP address, which is the one that the node dials and sees.
    pub relay: SocketAddr,
    /// Where it listens for TLS on TCP.
    pub tcp: SocketAddr,
    /// The name that TLS asks for, which a firewall may want to see; an address is not told.
    pub name: String,
    /// The digest of its leaf's public key, where it is known.
    pub pin: Option<KeyDigest>,
}

/// How a relay is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What carries.
    pub state: State,
    /// Since when, by the clock of the `Io`.
    pub since: Instant,
    /// Streams opened, or tried to be.
    pub opened: u64,
    /// Datagrams that no stream took.
    pub dropped: u64,
}

/// A way to tell a [`Client`](super::Client) its relays while it runs; clones tell the same one.
#[derive(Debug, Clone, Default)]
pub struct Relays(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    targets: BTreeMap<SocketAddr, Target>,
    has_changed: bool,
    views: BTreeMap<SocketAddr, View>,
    waker: Option<Waker>,
}

impl Relays {
    /// Adds a relay, or tells that its door has another address, name or key.
    pub fn add(&self, target: Target) {
        let mut inner = self.lock();
        let key = canonical(target.relay);
        if inner.targets.get(&key) != Some(&target) {
            inner.targets.insert(key, target);
            inner.on_change();
        }
    }

    /// A relay is not needed any more: its stream, if there is one, is closed.
    pub fn remove(&self, relay: SocketAddr) {
        let mut inner = self.lock();
        if inner.targets.remove(&canonical(relay)).is_some() {
            inner.views.remove(&canonical(relay));
            inner.on_change();
        }
    }

    /// How each relay is reached now, by its UDP address; one that was just added is not among them.
    #[must_use]
    pub fn views(&self) -> BTreeMap<SocketAddr, View> {
        self.lock().views.clone()
    }

    /// All targets, if they have changed since the last time.
    pub(super) fn poll_change(&self, cx: &Context<'_>) -> Option<BTreeMap<SocketAddr, Target>> {
        let mut inner = self.lock();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        std::mem::take(&mut inner.has_changed).then(|| inner.targets.clone())
    }

    pub(super) fn show(&self, relay: SocketAddr, view: View) {
        let mut inner = self.lock();
        if inner.targets.contains_key(&relay) {
            inner.views.insert(relay, view);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn on_change(&mut self) {
        self.has_changed = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// An address as the core sees it: IPv4 as such, and neither scope nor flow.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
