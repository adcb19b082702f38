//! The node's handle: dial, accept, watch, shut down.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::peer::Peer;
use super::shared::{Shared, Subscriber};
use super::tcp_fallback::TcpFallback;
use crate::config::Dial;
use crate::error::Misuse;
use crate::event::Event;
use crate::history::Record;
use crate::message::Register;
use crate::node::{Input, Snapshot};
use crate::tls::{Tls, TlsError};

/// A handle to a driven node; clones refer to the same node.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns the address that the socket is bound to: with port 0 in the configuration, the port
    /// that the system selected.
    ///
    /// # Errors
    /// The system's error when the driver was created; `Unsupported` where the adapter has no
    /// address ([`Io::local_addr`](super::io::Io::local_addr)).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.local.map_err(Into::into)
    }

    /// Dials a peer and returns without waiting. It is dialled again whenever the connection is
    /// lost, without end unless the [`Policy`](crate::retry::Policy) of the dial or of the node
    /// limits the attempts; only [`Peer::disconnect`], a shutdown, or a refusal that another
    /// attempt cannot change ends it.
    ///
    /// # Errors
    /// [`Misuse`] as in [`Node::dial`](crate::node::Node::dial).
    pub fn dial(&self, dial: Dial) -> Result<Peer, Misuse> {
        let mut inner = self.shared.lock();
        if inner.over.is_some() {
            return Err(Misuse::ShuttingDown);
        }
        let id = inner.node.dial(dial, self.shared.clock.now())?;
        inner.offers.entry(id).or_default();
        inner.settle();
        drop(inner);
        Ok(Peer::new(self.shared.clone(), id))
    }

    /// Returns the next peer that connected to this node; `None` once it has shut down.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Peer>> {
        let mut inner = self.shared.lock();
        if let Some(id) = inner.accepted.pop_front() {
            drop(inner);
            return Poll::Ready(Some(Peer::new(self.shared.clone(), id)));
        }
        if inner.over.is_some() {
            return Poll::Ready(None);
        }
        inner.wakers.wait_accept(cx);
        Poll::Pending
    }

    /// Waits as [`Handle::poll_accept`] does.
    pub async fn accept(&self) -> Option<Peer> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Returns the lifecycle events of every peer from now on. Every subscriber sees the same, in
    /// the same order; one that does not fetch them loses the oldest beyond 1,024.
    #[must_use]
    pub fn events(&self) -> Events {
        let mut inner = self.shared.lock();
        let key = inner.next_subscriber;
        inner.next_subscriber += 1;
        inner.subscribers.insert(key, Subscriber::default());
        Events { shared: self.shared.clone(), key }
    }

    /// Returns the handle of the TCP fallback, for relays and their clients where UDP is blocked.
    #[must_use]
    pub fn tcp_fallback(&self) -> TcpFallback {
        TcpFallback::new(self.shared.clone())
    }

    /// All statistics as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().node.snapshot_at(self.shared.clock.now())
    }

    /// Returns the last hundred lifecycle events.
    #[must_use]
    pub fn history(&self) -> Vec<Record> {
        self.shared.lock().node.history().iter().cloned().collect()
    }

    /// Notifies the node that this machine's addresses changed: connections probe their paths
    /// immediately and waits are cut short.
    pub fn network_changed(&self) {
        let mut inner = self.shared.lock();
        inner.node.handle(Input::NetworkChanged, self.shared.clock.now());
        inner.settle();
    }

    /// Sets the addresses of this machine on its networks, each with the port of the socket. They
    /// are advertised to peers behind relays, so that they can connect directly.
    pub fn set_local_addresses(&self, addresses: Vec<SocketAddr>) {
        let mut inner = self.shared.lock();
        inner.node.handle(Input::LocalAddresses(addresses), self.shared.clock.now());
        inner.settle();
    }

    /// Sets the addresses that a gateway maps to the node's socket; an empty list withdraws them.
    /// They are advertised to peers behind relays, which verify each by a probe before they send
    /// other packets to it.
    pub fn set_mapped_addresses(&self, addresses: Vec<SocketAddr>) {
        let mut inner = self.shared.lock();
        inner.node.handle(Input::MappedAddresses(addresses), self.shared.clock.now());
        inner.settle();
    }

    /// Offers services through every relay that this node has dialled or will dial
    /// ([`Node::register`](crate::node::Node::register)).
    pub fn register(&self, offer: Option<Register>) {
        let mut inner = self.shared.lock();
        inner.node.register(offer, self.shared.clock.now());
        inner.settle();
    }

    /// Replaces the dial's own identity and trust, which it uses instead of the node's
    /// ([`Node::set_dial_tls`](crate::node::Node::set_dial_tls)).
    ///
    /// # Errors
    /// [`Misuse::UnknownPeer`] when there is no such peer, [`Misuse::UnusableIdentity`] when the
    /// identity cannot be used.
    pub fn set_dial_tls(&self, peer: &Peer, tls: &Tls) -> Result<(), Misuse> {
        self.shared.lock().node.set_dial_tls(peer.id(), tls)
    }

    /// Replaces the identity and the trust while running
    /// ([`Node::set_tls`](crate::node::Node::set_tls)).
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; the node is then unchanged.
    pub fn set_tls(&self, tls: Tls) -> Result<(), TlsError> {
        let mut inner = self.shared.lock();
        inner.node.set_tls(tls, self.shared.clock.now())?;
        inner.settle();
        Ok(())
    }

    /// Begins to shut down: peers are notified, work in progress may finish within the configured
    /// drain time, then the driver ends.
    pub fn shutdown(&self) {
        let mut inner = self.shared.lock();
        inner.node.shutdown(self.shared.clock.now());
        inner.wakers.wake_openers();
        inner.settle();
    }

    /// Shuts down without a drain, also in the middle of one.
    pub fn shutdown_now(&self) {
        let mut inner = self.shared.lock();
        inner.node.shutdown(self.shared.clock.now());
        inner.node.handle(Input::DrainEnded, self.shared.clock.now());
        inner.wakers.wake_openers();
        inner.settle();
    }

    /// Waits until the driver has ended: after a shutdown, every notice to the peers has been
    /// passed to the system.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            if inner.has_driver_ended {
                return Poll::Ready(());
            }
            inner.wakers.wait_accept(cx);
            Poll::Pending
        })
        .await;
    }
}

/// A subscription to lifecycle events.
pub struct Events {
    shared: Arc<Shared>,
    key: u64,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Events {
    /// Returns the next event; `None` once the node has shut down and everything was fetched.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut inner = self.shared.lock();
        let is_over = inner.over.is_some();
        let Some(subscriber) = inner.subscribers.get_mut(&self.key) else {
            return Poll::Ready(None);
        };
        if let Some(event) = subscriber.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if is_over {
            return Poll::Ready(None);
        }
        subscriber.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits as [`Events::poll_next`] does.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns how many events were lost because they were not fetched.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().subscribers.get(&self.key).map_or(0, |s| s.dropped)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.lock().subscribers.remove(&self.key);
    }
}
