//! The client's side: the `Io` of a node whose relays can be reached by TCP as well.
//!
//! It carries out what [`Carrier`] decides for each relay. Datagrams to any other address pass
//! through untouched.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use adit_core::drive::io::{Clock, Io};
use adit_core::rng::Rng;
use adit_core::transmit::{Datagram, Route, Transmit};
use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::relays::{Relays, canonical};

mod relay;

use self::relay::Relay;

/// News of all streams that may wait for the node: when it does not keep up, the streams wait.
const INBOX: usize = 64;

/// Reads of streams handed to the node in one turn, as many bytes as one receive by UDP gives.
const READS: usize = 16;

/// What a stream has to say. The number tells it from earlier streams of the same relay.
#[derive(Debug)]
struct News {
    relay: SocketAddr,
    stream: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Up,
    Datagrams(Vec<BytesMut>),
    Down(io::Error),
}

/// Wraps the `Io` of a node that dials relays, and gives what tells it of them.
///
/// # Errors
/// When the system gives no randomness.
pub fn client<I: Io>(io: I) -> io::Result<(Client<I>, Relays)> {
    let relays = Relays::default();
    let (sender, inbox) = mpsc::channel(INBOX);
    let client = Client {
        clock: io.clock(),
        inner: io,
        relays: relays.clone(),
        known: BTreeMap::new(),
        sender,
        inbox,
        rng: Rng::new(crate::system::seed()?, "carrier"),
        sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        armed: None,
    };
    Ok((client, relays))
}

/// An `Io` that reaches relays by UDP, or by TCP while UDP is blocked.
pub struct Client<I> {
    inner: I,
    clock: Arc<dyn Clock>,
    relays: Relays,
    known: BTreeMap<SocketAddr, Relay>,
    sender: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    rng: Rng,
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl<I> std::fmt::Debug for Client<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("relays", &self.known).finish_non_exhaustive()
    }
}

impl<I> Client<I> {
    /// The `Io` within.
    pub const fn inner(&mut self) -> &mut I {
        &mut self.inner
    }

    /// Takes over what was told meanwhile.
    fn follow(&mut self, cx: &Context<'_>) {
        let Some(targets) = self.relays.poll_change(cx) else { return };
        self.known.retain(|key, _| targets.contains_key(key));
        for (key, target) in targets {
            match self.known.get_mut(&key) {
                Some(relay) => relay.retarget(target),
                None => {
                    let rng = Rng::new(self.rng.seed(), "relay");
                    let relay = Relay::new(target, rng, self.sender.clone(), self.clock.now());
                    self.known.insert(key, relay);
                }
            }
        }
    }

    /// Hands over what streams have read; says whether there was anything for the node.
    fn receive_by_tcp(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Datagram)) -> bool {
        let mut has_any = false;
        for _ in 0..READS {
            let Poll::Ready(Some(news)) = self.inbox.poll_recv(cx) else { return has_any };
            let Some(relay) = self.known.get_mut(&news.relay) else { continue };
            let now = self.clock.now();
            match news.what {
                What::Up => relay.on_up(news.stream, now),
                What::Down(error) => relay.on_down(news.stream, &error, now),
                What::Datagrams(datagrams) => {
                    relay.on_heard_by_tcp(news.stream, now);
                    has_any = true;
                    for payload in datagrams {
                        let route = Route::to(relay.address());
                        sink(Datagram { route, ecn: None, segment_size: 0, payload });
                    }
                }
            }
        }
        // There may be more.
        cx.waker().wake_by_ref();
        has_any
    }

    /// Lets time pass for every relay, and waits for the next of their deadlines.
    fn keep_time(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = self.clock.now();
            let mut next = None;
            for (key, relay) in &mut self.known {
                relay.pass_time(now);
                next = next.into_iter().chain(relay.deadline()).min();
                if let Some(view) = relay.take_view() {
                    self.relays.show(*key, view);
                }
            }
            let Some(until) = next else { return };
            if self.armed != Some(until) {
                let left = until.saturating_duration_since(now);
                self.sleep.as_mut().reset(tokio::time::Instant::now() + left);
                self.armed = Some(until);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = None;
        }
    }
}

impl<I: Io> Io for Client<I> {
    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
        self.follow(cx);
        let has_any = self.receive_by_tcp(cx, sink);
        let (known, now) = (&mut self.known, self.clock.now());
        let received = self.inner.poll_recv(cx, &mut |datagram| {
            let relay = known.get_mut(&canonical(datagram.route.remote));
            if relay.is_none_or(|relay| relay.on_heard_by_udp(&datagram, now)) {
                sink(datagram);
            }
        });
        self.keep_time(cx);
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
        let Some(relay) = self.known.get_mut(&canonical(transmit.route.remote)) else {
            return self.inner.poll_send(cx, transmit, payload);
        };
        let now = self.clock.now();
        if !relay.is_by_tcp() {
            let sent = ready!(self.inner.poll_send(cx, transmit, payload));
            if let Err(error) = sent
                && !relay.on_refused(now)
            {
                return Poll::Ready(Err(error));
            }
        }
        if let Some(question) = relay.on_sent(transmit, payload, now) {
            let (size, route) = (question.len(), transmit.route);
            let trial = Transmit { route, ecn: None, segment_size: None, size };
            // One that is not sent is one that is not answered.
            let _ = self.inner.poll_send(cx, &trial, &question);
        }
        if relay.has_earlier_deadline(self.armed) {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        self.inner.poll_sleep(cx, until)
    }

    fn max_segments(&self) -> usize {
        self.inner.max_segments()
    }
}
