//! The relay's side: the `Io` of a node whose clients may come by TCP as well.
//!
//! Each stream has an address of its own, under a prefix that exists nowhere else. The node answers
//! to it as to any other, and follows a client from there to UDP and back.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use adit_core::drive::io::{Clock, Io};
use adit_core::fallback::is_carried;
use adit_core::transmit::{Datagram, Route, Transmit};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::accept::{Read, accept};
use super::registry::{Limits, Registry, Streams};
use super::tls::Identity;

/// Reads of all streams that may wait for the node: 4 MiB. When it does not keep up, the streams
/// wait, each for its turn.
const INBOX: usize = 256;

/// Reads handed to the node in one turn, as many bytes as one receive by UDP gives.
const READS: usize = 32;

/// Wraps the `Io` of a node that accepts, which takes clients from these listeners as well; and gives
/// what tells of them.
///
/// # Errors
/// What the system says when it prepares a listener.
///
/// # Panics
/// Outside a tokio runtime that has its IO and time drivers on.
pub fn server<I: Io>(
    io: I,
    listeners: impl IntoIterator<Item = TcpListener>,
    identity: &Identity,
    limits: Limits,
) -> io::Result<(Server<I>, Streams)> {
    let registry = Arc::new(Registry::new(limits));
    let (sender, inbox) = mpsc::channel(INBOX);
    let mut doors = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = identity.acceptor();
        doors.push(tokio::spawn(accept(listener, acceptor, registry.clone(), sender.clone())));
    }
    let streams = Streams(registry.clone());
    Ok((Server { inner: io, registry, inbox, doors }, streams))
}

/// An `Io` whose clients come by UDP or by TCP.
#[derive(Debug)]
pub struct Server<I> {
    inner: I,
    registry: Arc<Registry>,
    inbox: mpsc::Receiver<Read>,
    doors: Vec<JoinHandle<()>>,
}

impl<I> Server<I> {
    /// The `Io` within.
    pub const fn inner(&mut self) -> &mut I {
        &mut self.inner
    }
}

impl<I> Drop for Server<I> {
    fn drop(&mut self) {
        for door in &self.doors {
            door.abort();
        }
        self.registry.finish();
    }
}

impl<I: Io> Io for Server<I> {
    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
        let received = self.inner.poll_recv(cx, &mut |datagram| {
            // Nobody is there: it is a forged source, and its answer would go to a stream.
            if !is_carried(datagram.route.remote) {
                sink(datagram);
            }
        });
        let mut has_any = false;
        for _ in 0..READS {
            let Poll::Ready(Some((address, datagrams))) = self.inbox.poll_recv(cx) else { break };
            has_any = true;
            for payload in datagrams {
                let route = Route::to(address);
                sink(Datagram { route, ecn: None, segment_size: 0, payload });
            }
        }
        match received {
            Poll::Pending if has_any => Poll::Ready(Ok(())),
            Poll::Pending | Poll::Ready(_) => received,
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>> {
        if !is_carried(transmit.route.remote) {
            return self.inner.poll_send(cx, transmit, payload);
        }
        self.registry.push(transmit.route.remote, payload, transmit.segment_size);
        Poll::Ready(Ok(()))
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        self.inner.poll_sleep(cx, until)
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }
}
