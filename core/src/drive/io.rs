//! What an adapter supplies: a clock, datagrams in, datagrams out, and a sleep.
//!
//! It decides nothing: the [driver](super::Driver) calls it, and [`Io`] documents the contract
//! between the two.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::fallback::ByteStreamId;
use crate::transmit::{Datagram, Transmit};

/// The time of one runtime, shared between the driver and its handles.
pub trait Clock: Send + Sync {
    /// Returns the monotonic time, which should go on while the machine is suspended.
    fn now(&self) -> Instant;

    /// Returns the wall time since the Unix epoch.
    fn unix(&self) -> Duration;
}

/// The sockets of one runtime.
///
/// Each byte stream has a context of its own, whose waker names it: one that woke is asked again,
/// the others are not. A stream is read and written with the same waker.
///
/// The contract is that of `std::task`: a method that returns `Pending` has arranged for the waker
/// of its latest context to be called. The driver polls all methods from one task and never trusts
/// a wake-up: it compares the clock with the deadline. Waking too often costs time; missing a
/// wake-up stalls the node.
///
/// # Loops over readiness
///
/// Where the system reports that a socket is ready (epoll, kqueue), each method tries, and on
/// `WouldBlock` registers the waker and returns `Pending`.
///
/// # Loops over completion
///
/// Where the system takes an operation with its memory and reports its end later (`io_uring`, I/O
/// completion ports), five more rules matter:
///
/// - **Sending is over for the driver when the adapter has taken the batch**, not when the system
///   has sent it. [`Io::poll_send`] copies the payload into its own memory, submits it and returns
///   `Ready(Ok(()))`. The driver uses the payload again as soon as the call returns.
/// - **A batch answered with `Pending` was not taken, and is offered again**, with the same bytes,
///   at the next turn, before any other. An adapter returns `Pending` when it has no memory or no
///   place in its queue, and wakes the driver when a completion frees one. One that submits the
///   batch and returns `Pending` sends it twice.
/// - **An error belongs to the batch of the call that returns it.** The error of an earlier batch,
///   known on its completion, is dropped: the core learns of the loss from silence. An error that
///   ends the socket is returned from [`Io::poll_recv`].
/// - **Receiving runs ahead.** The adapter keeps at least one receive submitted with its own
///   buffer, queues what completes, wakes the driver and hands it over at the next call. When its
///   queue is full it submits no more: the system drops what its buffer cannot hold, as UDP does.
/// - **Submitted operations can outlast the driver.** Dropping the driver drops the adapter, which
///   cancels its operations or leaves their memory to them until they complete.
///
/// [`Io::poll_sleep`] is called with a new instant whenever the deadline moves, earlier or later:
/// the latest instant replaces the earlier ones. A loop that can wait with a timeout needs no
/// timer: it keeps the instant, and waits no longer than that.
///
/// ```
/// use std::collections::VecDeque;
/// use std::io;
/// use std::net::{SocketAddr, UdpSocket};
/// use std::sync::Arc;
/// use std::task::{Context, Poll, Waker};
/// use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
///
/// use adit_core::drive::io::{Clock, Io};
/// use adit_core::transmit::{Datagram, Route, Transmit};
///
/// struct SystemTimes;
///
/// impl Clock for SystemTimes {
///     fn now(&self) -> Instant {
///         Instant::now() // `adit_system::SystemClock` counts the time asleep as well
///     }
///
///     fn unix(&self) -> Duration {
///         SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
///     }
/// }
///
/// /// A queue of operations; `complete` stands for the system, which carries them out.
/// struct Queue {
///     socket: UdpSocket,
///     submitted: Option<(SocketAddr, Vec<u8>)>,
///     received: VecDeque<Datagram>,
///     until: Option<Instant>,
///     wakers: Vec<Waker>,
/// }
///
/// impl Io for Queue {
///     fn clock(&self) -> Arc<dyn Clock> {
///         Arc::new(SystemTimes)
///     }
///
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         self.socket.local_addr()
///     }
///
///     fn poll_recv(
///         &mut self,
///         cx: &mut Context<'_>,
///         sink: &mut dyn FnMut(Datagram),
///     ) -> Poll<io::Result<()>> {
///         if self.received.is_empty() {
///             self.wakers.push(cx.waker().clone());
///             return Poll::Pending;
///         }
///         self.received.drain(..).for_each(sink);
///         Poll::Ready(Ok(()))
///     }
///
///     fn poll_send(
///         &mut self,
///         cx: &mut Context<'_>,
///         transmit: &Transmit,
///         payload: &[u8],
///     ) -> Poll<io::Result<()>> {
///         if self.submitted.is_some() {
///             // The batch was not taken: the driver offers it again once it is woken.
///             self.wakers.push(cx.waker().clone());
///             return Poll::Pending;
///         }
///         self.submitted = Some((transmit.route.remote, payload.to_vec()));
///         Poll::Ready(Ok(()))
///     }
///
///     fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
///         if Instant::now() >= until {
///             return Poll::Ready(());
///         }
///         self.until = Some(until);
///         self.wakers.push(cx.waker().clone());
///         Poll::Pending
///     }
///
///     fn max_segments(&self) -> usize {
///         1
///     }
/// }
///
/// impl Queue {
///     fn complete(&mut self) {
///         let mut buffer = [0; 2_048];
///         let mut has_completed = self.submitted.is_some();
///         if let Some((to, bytes)) = self.submitted.take() {
///             let _too_late_to_report = self.socket.send_to(&bytes, to);
///         }
///         while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
///             self.received.push_back(Datagram {
///                 route: Route::to(from),
///                 ecn: None,
///                 segment_size: length,
///                 payload: buffer[..length].into(),
///             });
///             has_completed = true;
///         }
///         if has_completed || self.until.is_some_and(|until| until <= Instant::now()) {
///             self.wakers.drain(..).for_each(Waker::wake);
///         }
///     }
/// }
/// # impl Queue {
/// #     fn new() -> io::Result<Self> {
/// #         let socket = UdpSocket::bind("127.0.0.1:0")?;
/// #         socket.set_nonblocking(true)?;
/// #         let (received, wakers) = (VecDeque::new(), Vec::new());
/// #         Ok(Self { socket, submitted: None, received, until: None, wakers })
/// #     }
/// # }
/// #
/// # #[cfg(feature = "pki")]
/// # fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// # use adit_core::config::{Config, Dial};
/// # use adit_core::drive::drive;
/// # use adit_core::lifecycle::State;
/// # use adit_core::pki::{Authority, Role};
/// # use adit_core::tls::Tls;
/// # use std::pin::Pin;
/// # use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// # let now = SystemTimes.unix();
/// # let authority = Authority::new("example", now)?;
/// # let config = |name| -> Result<Config, Box<dyn std::error::Error>> {
/// #     let issued = authority.issue(name, Role::Connector, now)?;
/// #     Ok(Config::builder(Tls::new(issued.identity(), authority.trust()?)).build()?)
/// # };
/// # let (server, listening) = drive(Queue::new()?, config("server")?.accepting(), [1; 32])?;
/// # let (client, dialling) = drive(Queue::new()?, config("client")?, [2; 32])?;
/// # let peer = client.dial(Dial::new(server.local_addr()?, "server"))?;
/// # struct Flag(AtomicBool);
/// # impl std::task::Wake for Flag {
/// #     fn wake(self: Arc<Self>) {
/// #         self.0.store(true, Relaxed);
/// #     }
/// # }
/// # // A driver is polled when it was woken, and at no other time.
/// # let mut drivers = [listening, dialling].map(|d| (d, Arc::new(Flag(AtomicBool::new(true)))));
/// # let limit = Instant::now() + Duration::from_secs(20);
/// # while !matches!(peer.state(), State::Connected { .. }) {
/// #     assert!(Instant::now() < limit, "a wake-up is missing: {:?}", peer.state());
/// #     for (driver, flag) in &mut drivers {
/// #         driver.io().complete();
/// #         if flag.0.swap(false, Relaxed) {
/// #             let waker = Waker::from(flag.clone());
/// #             let _ = Pin::new(&mut *driver).poll(&mut Context::from_waker(&waker));
/// #         }
/// #     }
/// #     std::thread::sleep(Duration::from_millis(1));
/// # }
/// # Ok(())
/// # }
/// # #[cfg(feature = "pki")]
/// # connect()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Io {
    /// Returns the clock of every instant that is passed to this adapter.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns the address that the socket is bound to, which [`Handle::local_addr`] passes on. The
    /// driver asks once, when it is made.
    ///
    /// # Errors
    /// The system's error; `Unsupported` where an adapter has no address, which is the default.
    ///
    /// [`Handle::local_addr`]: super::Handle::local_addr
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Receives the available datagrams, at most one system call's worth, and passes each batch to
    /// `sink`.
    ///
    /// # Errors
    /// Only an error that ends the socket; the adapter drops an error that concerns one datagram
    /// alone.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>>;

    /// Sends one batch, all of it or none. `Pending` means none: the driver keeps the batch and
    /// offers it again, before any other.
    ///
    /// # Errors
    /// The system's error for this destination; the driver reports it to the core and goes on.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>>;

    /// Becomes ready at `until` or later.
    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()>;

    /// Returns the largest number of datagrams that one [`Io::poll_send`] takes (GSO); 1 where the
    /// system does not support it.
    fn max_segments(&self) -> usize;

    /// Connects a byte stream to a relay's TCP address. The first call with an id begins; it is
    /// called again with the same until it is ready. An adapter without TCP leaves this and what
    /// follows as it is: its node uses UDP alone.
    ///
    /// # Errors
    /// What the system reports; the stream is closed then.
    fn poll_connect(
        &mut self,
        _cx: &mut Context<'_>,
        _id: ByteStreamId,
        _to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Accepts a connection of any listener that the adapter was given, as the stream `id`, and
    /// returns where it comes from. The id is new in every call.
    ///
    /// # Errors
    /// What the system reports; the driver tries again a moment later.
    fn poll_accept(
        &mut self,
        _cx: &mut Context<'_>,
        _id: ByteStreamId,
    ) -> Poll<io::Result<SocketAddr>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Reads from a byte stream. Zero bytes are its end.
    ///
    /// # Errors
    /// What the system reports; the stream is closed then.
    fn poll_read(
        &mut self,
        _cx: &mut Context<'_>,
        _id: ByteStreamId,
        _buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Writes some of these bytes to a byte stream, without delay (`TCP_NODELAY`). After `Pending`
    /// the same bytes are offered again.
    ///
    /// # Errors
    /// What the system reports; the stream is closed then.
    fn poll_write(
        &mut self,
        _cx: &mut Context<'_>,
        _id: ByteStreamId,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Shuts down the writing direction of a byte stream, behind all that was written.
    ///
    /// # Errors
    /// What the system reports; the stream is closed then.
    fn poll_shutdown(&mut self, _cx: &mut Context<'_>, _id: ByteStreamId) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Drops a byte stream. It may be unknown: refused, or never begun.
    fn close(&mut self, _id: ByteStreamId) {}
}
