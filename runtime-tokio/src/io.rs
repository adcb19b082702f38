//! Readiness and timers of tokio, for the core's event loop.
//!
//! It decides only what to wait for. The core decides what is sent, and when.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use adit_core::drive::io::{Clock, Io};
use adit_core::fallback::ByteStreamId;
use adit_core::transmit::{Datagram, Transmit};
use adit_system::SystemClock;
use adit_system::timer::{Alarm, Timer};
use adit_system::udp::{self, Udp};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use crate::byte_streams::ByteStreams;

/// A UDP socket, TCP streams and a clock for the core's event loop, on tokio.
#[derive(Debug)]
pub struct TokioIo {
    socket: UdpSocket,
    udp: Udp,
    byte_streams: ByteStreams,
    alarm: Alarm<TokioTimer>,
}

impl TokioIo {
    /// Takes ownership of a bound socket.
    ///
    /// # Errors
    /// What the system reports when it prepares the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime that has its IO and time drivers on.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let udp = Udp::new(&socket)?;
        let timer = TokioTimer(Box::pin(tokio::time::sleep(Duration::ZERO)));
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            udp,
            byte_streams: ByteStreams::default(),
            alarm: Alarm::new(Arc::new(SystemClock::new()), timer),
        })
    }

    /// Binds a new socket to `addr`; an IPv6 wildcard accepts IPv4 as well.
    ///
    /// # Errors
    /// What the system reports about the address or the socket.
    ///
    /// # Panics
    /// As [`TokioIo::new`].
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::new(udp::bind(addr)?)
    }

    /// Takes clients of the TCP fallback from a listener as well
    /// ([`TcpFallback::listen`](adit_core::drive::TcpFallback::listen)).
    ///
    /// # Errors
    /// What the system reports when it prepares the listener.
    ///
    /// # Panics
    /// As [`TokioIo::new`].
    pub fn listen_tcp(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        self.byte_streams.listen(listener)
    }

    /// Returns the address that the socket is bound to.
    ///
    /// # Errors
    /// What the system reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Io for TokioIo {
    fn clock(&self) -> Arc<dyn Clock> {
        self.alarm.clock()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let (socket, udp) = (&self.socket, &mut self.udp);
            match socket.try_io(Interest::READABLE, || udp.recv(socket.into(), sink)) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_send_ready(cx))?;
            let socket = &self.socket;
            let send = || self.udp.send(socket.into(), transmit, payload);
            match socket.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        self.alarm.poll(cx, until)
    }

    fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }

    fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        self.byte_streams.poll_connect(cx, id, to)
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
    ) -> Poll<io::Result<SocketAddr>> {
        self.byte_streams.poll_accept(cx, id)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.byte_streams.poll_read(cx, id, buffer)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.byte_streams.poll_write(cx, id, bytes)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, id: ByteStreamId) -> Poll<io::Result<()>> {
        self.byte_streams.poll_shutdown(cx, id)
    }

    fn close(&mut self, id: ByteStreamId) {
        self.byte_streams.close(id);
    }
}

#[derive(Debug)]
struct TokioTimer(Pin<Box<Sleep>>);

impl Timer for TokioTimer {
    fn set(&mut self, after: Duration) {
        self.0.as_mut().reset(tokio::time::Instant::now() + after);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
