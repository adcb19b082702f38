//! A network and an executor in virtual time for driven nodes. A task is polled only when it was
//! woken, and time moves only when no task is left to poll, so that a missing wake-up is detected.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use adit_core::drive::io::{Clock, Io};
use adit_core::fallback::ByteStreamId;
use adit_core::rng::Rng;
use adit_core::testing::clock;
use adit_core::transmit::{Datagram, Route, Transmit};

use super::tcp::{End, Tcp, Weather};

const DELAY: Duration = Duration::from_millis(5);

/// So many sends find a socket full that it never takes data again, nor wakes a task.
pub(crate) const FOREVER: usize = usize::MAX;

/// What all hosts share.
struct State {
    now: Instant,
    inboxes: BTreeMap<SocketAddr, VecDeque<(Instant, Datagram)>>,
    receivers: BTreeMap<SocketAddr, Waker>,
    sleeps: Vec<(Instant, Waker)>,
    /// Number of sends that find the socket full, by host, and the tasks that wait for it.
    blocks: BTreeMap<SocketAddr, usize>,
    writers: Vec<Waker>,
    /// Hosts from which no datagram leaves any more, though they are not notified.
    cut: Vec<SocketAddr>,
    sent: usize,
    /// True if datagrams from an unknown sender are always there to be received.
    is_flooded: bool,
    udp: Udp,
    chance: Rng,
    tcp: Tcp,
}

/// What the network does to datagrams, by the direction seen from the first host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Udp {
    pub(crate) is_up_blocked: bool,
    pub(crate) is_down_blocked: bool,
    /// Of those that are not blocked, this part is lost.
    pub(crate) loss: f64,
}

impl Udp {
    pub(crate) const OPEN: Self = Self { is_up_blocked: false, is_down_blocked: false, loss: 0.0 };
    pub(crate) const BLOCKED: Self = Self { is_up_blocked: true, is_down_blocked: true, loss: 0.0 };
}

/// The network.
#[derive(Clone)]
pub(crate) struct Lan(Arc<Mutex<State>>);

impl Lan {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            now: clock::origin(),
            inboxes: BTreeMap::new(),
            receivers: BTreeMap::new(),
            sleeps: Vec::new(),
            blocks: BTreeMap::new(),
            writers: Vec::new(),
            cut: Vec::new(),
            sent: 0,
            is_flooded: false,
            udp: Udp::OPEN,
            chance: Rng::new([0; 32], "lan"),
            tcp: Tcp::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the socket of host number `host`.
    pub(crate) fn socket(&self, host: u8) -> Socket {
        Socket { lan: self.clone(), address: address(host) }
    }

    /// Makes the next `count` sends of a host find its socket full.
    pub(crate) fn block(&self, host: u8, count: usize) {
        self.lock().blocks.insert(address(host), count);
    }

    /// Drops everything that a host sends.
    pub(crate) fn cut(&self, host: u8) {
        self.lock().cut.push(address(host));
    }

    /// From now on there is always a datagram of an unknown sender to receive.
    pub(crate) fn flood(&self) {
        let mut state = self.lock();
        state.is_flooded = true;
        std::mem::take(&mut state.receivers).into_values().for_each(Waker::wake);
    }

    /// What the network does to datagrams from now on.
    pub(crate) fn set_udp(&self, udp: Udp) {
        self.lock().udp = udp;
    }

    /// What it does to connections from now on.
    pub(crate) fn set_tcp(&self, weather: Weather) {
        self.lock().tcp.set_weather(weather);
    }

    /// A host takes connections.
    pub(crate) fn listen(&self, host: u8) {
        self.lock().tcp.listen(address(host));
    }

    /// Connects to a host without a node, and writes these bytes.
    pub(crate) fn knock(&self, host: u8, bytes: &[u8]) -> End {
        let mut state = self.lock();
        let now = state.now;
        state.tcp.knock(address(host), bytes, now).expect("the host listens")
    }

    pub(crate) fn hang_up(&self, end: End) {
        self.lock().tcp.hang_up(end);
    }

    /// Connections that both ends have.
    pub(crate) fn connections(&self) -> usize {
        self.lock().tcp.open()
    }

    /// Batches sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.lock().sent
    }

    /// Returns a future that is ready after a time.
    pub(crate) fn sleep(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let (lan, until) = (self.clone(), self.lock().now + time);
        std::future::poll_fn(move |cx| lan.poll_sleep(cx, until))
    }

    fn poll_sleep(&self, cx: &Context<'_>, until: Instant) -> Poll<()> {
        let mut state = self.lock();
        if until <= state.now {
            return Poll::Ready(());
        }
        state.sleeps.push((until, cx.waker().clone()));
        Poll::Pending
    }

    /// Lets full sockets take data again or, if there are none, lets time pass until a task wakes.
    fn pass(&self) {
        let mut state = self.lock();
        let writers = std::mem::take(&mut state.writers);
        if !writers.is_empty() {
            writers.into_iter().for_each(Waker::wake);
            return;
        }
        let next = state.sleeps.iter().map(|(at, _)| *at).min();
        let next = next.expect("nobody waits for time to pass: somebody was not woken");
        state.now = next;
        let (due, later) = std::mem::take(&mut state.sleeps).into_iter().partition(|s| s.0 <= next);
        state.sleeps = later;
        let due: Vec<(Instant, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

pub(crate) fn address(host: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, host).into(), 4433)
}

impl Clock for Lan {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn unix(&self) -> Duration {
        clock::HostClock::new(Duration::ZERO).unix(self.lock().now)
    }
}

pub(crate) struct Socket {
    lan: Lan,
    address: SocketAddr,
}

impl Io for Socket {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.lan.clone())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
        let mut state = self.lan.lock();
        if state.is_flooded {
            return Poll::Ready(Ok(()));
        }
        let now = state.now;
        let inbox = state.inboxes.entry(self.address).or_default();
        let next = inbox.front().map(|(at, _)| *at);
        if next.is_some_and(|at| at <= now) {
            sink(inbox.pop_front().expect("it was seen").1);
            return Poll::Ready(Ok(()));
        }
        state.receivers.insert(self.address, cx.waker().clone());
        state.sleeps.extend(next.map(|at| (at, cx.waker().clone())));
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>> {
        let mut state = self.lan.lock();
        if let Some(left) = state.blocks.get_mut(&self.address).filter(|left| **left > 0) {
            *left -= 1;
            if *left < FOREVER / 2 {
                state.writers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        state.sent += 1;
        if state.cut.contains(&self.address) {
            return Poll::Ready(Ok(()));
        }
        let is_up = self.address == address(1);
        let is_blocked = if is_up { state.udp.is_up_blocked } else { state.udp.is_down_blocked };
        let loss = state.udp.loss;
        if is_blocked || state.chance.unit() < loss {
            return Poll::Ready(Ok(()));
        }
        let datagram = Datagram {
            route: Route::to(self.address),
            ecn: transmit.ecn,
            segment_size: transmit.segment_size.unwrap_or(0),
            payload: payload.into(),
        };
        let (to, at) = (transmit.route.remote, state.now + DELAY);
        state.inboxes.entry(to).or_default().push_back((at, datagram));
        if let Some(receiver) = state.receivers.get(&to).cloned() {
            state.sleeps.push((at, receiver));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        self.lan.poll_sleep(cx, until)
    }

    fn max_segments(&self) -> usize {
        4
    }

    fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        let State { tcp, now, sleeps, .. } = &mut *self.lan.lock();
        tcp.poll_connect((self.address, id), to, cx, *now, sleeps)
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
    ) -> Poll<io::Result<SocketAddr>> {
        let State { tcp, now, sleeps, .. } = &mut *self.lan.lock();
        tcp.poll_accept((self.address, id), cx, *now, sleeps)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let State { tcp, now, sleeps, .. } = &mut *self.lan.lock();
        tcp.poll_read((self.address, id), buffer, cx, *now, sleeps)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let State { tcp, now, sleeps, .. } = &mut *self.lan.lock();
        tcp.poll_write((self.address, id), bytes, cx, *now, sleeps)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>, id: ByteStreamId) -> Poll<io::Result<()>> {
        let State { tcp, now, sleeps, .. } = &mut *self.lan.lock();
        tcp.finish((self.address, id), *now, sleeps);
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, id: ByteStreamId) {
        self.lan.lock().tcp.close((self.address, id));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.lan.lock().tcp.close_host(self.address);
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

/// Futures that run concurrently.
pub(crate) struct Tasks {
    lan: Lan,
    tasks: Vec<Task>,
}

impl Tasks {
    pub(crate) fn new(lan: &Lan) -> Self {
        Self { lan: lan.clone(), tasks: Vec::new() }
    }

    /// Adds a future. Returns a flag that is set once it has ended.
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> Rc<Cell<bool>> {
        let is_over = Rc::new(Cell::new(false));
        let over = is_over.clone();
        let future = Box::pin(async move {
            future.await;
            over.set(true);
        });
        self.tasks.push(Task { future, flag: Arc::new(Flag(AtomicBool::new(true))) });
        is_over
    }

    /// Runs until `main` is ready.
    ///
    /// # Panics
    /// When that takes ten minutes of the network's time, or a million turns without time passing.
    pub(crate) fn run<T>(&mut self, main: impl Future<Output = T>) -> T {
        let mut main = std::pin::pin!(main);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let until = self.lan.now() + Duration::from_secs(600);
        let mut turns = 0;
        loop {
            let mut is_idle = true;
            if flag.0.swap(false, Relaxed) {
                is_idle = false;
                let waker = Waker::from(flag.clone());
                if let Poll::Ready(done) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return done;
                }
            }
            self.tasks.retain_mut(|task| {
                if !task.flag.0.swap(false, Relaxed) {
                    return true;
                }
                is_idle = false;
                let waker = Waker::from(task.flag.clone());
                task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            if is_idle {
                turns = 0;
                self.lan.pass();
                assert!(self.lan.now() < until, "still waiting after ten minutes");
            }
            turns += 1;
            assert!(turns < 1_000_000, "somebody spins");
        }
    }
}
