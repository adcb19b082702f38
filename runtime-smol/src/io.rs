//! Readiness and timers of smol, as the core's event loop asks for them.
//!
//! It decides only what to wait for. What is sent, and when, is the core's to decide.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use adit_core::drive::io::{Clock, Io};
use adit_core::transmit::{Datagram, Transmit};
use smol::{Async, Timer};

use adit_system::clock::SystemClock;
use adit_system::udp::Udp;

/// A UDP socket and a clock for the core's event loop, on smol.
#[derive(Debug)]
pub struct SmolIo {
    socket: Async<UdpSocket>,
    udp: Udp,
    clock: Arc<SystemClock>,
    timer: Timer,
    armed: Option<Instant>,
}

impl SmolIo {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// What the system says when it prepares the socket.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let udp = Udp::new(&socket)?;
        Ok(Self {
            socket: Async::new(socket)?,
            udp,
            clock: Arc::new(SystemClock::new()),
            timer: Timer::never(),
            armed: None,
        })
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }
}

impl Io for SmolIo {
    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
        loop {
            match self.udp.recv(self.socket.get_ref().into(), sink) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            ready!(self.socket.poll_readable(cx))?;
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>> {
        loop {
            match self.udp.send(self.socket.get_ref().into(), transmit, payload) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            ready!(self.socket.poll_writable(cx))?;
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            let left = until.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            if self.armed != Some(until) {
                self.timer.set_after(left);
                self.armed = Some(until);
            }
            ready!(Pin::new(&mut self.timer).poll(cx));
            self.armed = None;
        }
    }

    fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }
}
