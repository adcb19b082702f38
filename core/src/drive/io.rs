//! What an adapter supplies: a clock, a way in, a way out, and a sleep. Nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::transmit::{Datagram, Transmit};

/// The time of one runtime, shared between the driver and its handles.
pub trait Clock: Send + Sync {
    /// Monotonic time, which should go on while the machine is suspended.
    fn now(&self) -> Instant;

    /// Wall time since the Unix epoch.
    fn unix(&self) -> Duration;
}

/// The socket of one runtime.
///
/// The contract is that of `std::task`: whoever returns `Pending` has arranged for the context's
/// waker to be called. The driver never trusts a wake-up: it compares the clock with the deadline.
pub trait Io {
    /// The clock that every instant passed to this adapter comes from.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns the address that the socket is bound to, which [`Handle::local_addr`] passes on. The
    /// driver asks once, when it is made.
    ///
    /// # Errors
    /// What the system reports; `Unsupported` where an adapter has no address, which is the default.
    ///
    /// [`Handle::local_addr`]: super::Handle::local_addr
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Receives what is there, at most one system call's worth, and hands each batch to `sink`.
    ///
    /// # Errors
    /// Only what ends the socket; what concerns one datagram alone is the adapter's to swallow.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>>;

    /// Sends one batch, all of it or none.
    ///
    /// # Errors
    /// What the system said about this destination; the driver reports it to the core and goes on.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>>;

    /// Ready at `until` or later.
    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()>;

    /// Largest number of datagrams one [`Io::poll_send`] takes at once (GSO); 1 where the system
    /// has no such thing.
    fn max_segments(&self) -> usize;
}
