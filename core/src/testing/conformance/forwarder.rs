//! A NAT between a client and a server: it forwards datagrams, and can take another outside
//! address at any moment. It is made of two adapters, and so tests those too.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::drive::io::Io;
use crate::transmit::{Datagram, Route, Transmit};

use super::{Runtime, loopback};

/// A running forwarder; it ends when this is dropped.
pub(super) struct Forwarder<R: Runtime> {
    /// Where the client sends to.
    pub(super) inside: SocketAddr,
    ends: Arc<Mutex<Ends<R::Io>>>,
    _task: R::Task,
}

struct Ends<I> {
    inside: I,
    outside: I,
    server: SocketAddr,
    client: Option<SocketAddr>,
}

impl<R: Runtime> Forwarder<R> {
    pub(super) fn new(server: SocketAddr) -> Self {
        let (inside, addr) = R::io(loopback()).expect("a loopback port is free");
        let (outside, _) = R::io(loopback()).expect("a loopback port is free");
        let ends = Arc::new(Mutex::new(Ends { inside, outside, server, client: None }));
        let shared = ends.clone();
        let task = R::spawn(poll_fn(move |cx| {
            shared.lock().unwrap_or_else(PoisonError::into_inner).poll(cx)
        }));
        Self { inside: addr, ends, _task: task }
    }

    /// Takes another outside address, as a NAT does that lost its mapping. Datagrams for the old
    /// one are lost.
    pub(super) fn rebind(&self) -> SocketAddr {
        let (outside, addr) = R::io(loopback()).expect("a loopback port is free");
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).outside = outside;
        addr
    }
}

impl<I: Io> Ends<I> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut batches = Vec::new();
        while self.inside.poll_recv(cx, &mut |batch| batches.push(batch)).is_ready() {
            for batch in batches.drain(..) {
                self.client = Some(batch.route.remote);
                forward(&mut self.outside, cx, self.server, &batch);
            }
        }
        while self.outside.poll_recv(cx, &mut |batch| batches.push(batch)).is_ready() {
            for batch in batches.drain(..) {
                if let Some(client) = self.client {
                    forward(&mut self.inside, cx, client, &batch);
                }
            }
        }
        Poll::Pending
    }
}

/// Forwards each datagram of a batch; those that the socket does not accept immediately are lost.
fn forward<I: Io>(io: &mut I, cx: &mut Context<'_>, to: SocketAddr, batch: &Datagram) {
    for payload in batch.payload.chunks(batch.segment_size.max(1)) {
        let transmit = Transmit {
            route: Route::to(to),
            ecn: batch.ecn,
            segment_size: None,
            size: payload.len(),
        };
        let _lost = io.poll_send(cx, &transmit, payload).is_pending();
    }
}
