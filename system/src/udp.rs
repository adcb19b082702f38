//! A UDP socket without a runtime: how it is made, and how its batches appear to the core.
//!
//! It decides which errors concern one datagram alone and are therefore losses, as in UDP. It never
//! waits: what the socket cannot do without waiting is `WouldBlock`.
//!
//! ```
//! use adit_core::transmit::{Route, Transmit};
//! use adit_system::udp::{self, Udp};
//!
//! let (a, b) = (udp::bind("127.0.0.1:0".parse()?)?, udp::bind("127.0.0.1:0".parse()?)?);
//! let (from, mut to) = (Udp::new(&a)?, Udp::new(&b)?);
//! let route = Route::to(b.local_addr()?);
//! from.send((&a).into(), &Transmit { route, ecn: None, segment_size: None, size: 5 }, b"hello")?;
//!
//! let mut received = Vec::new();
//! while received.is_empty() {
//!     match to.recv((&b).into(), &mut |datagram| received.push(datagram)) {
//!         Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {} // an adapter waits here
//!         done => done?,
//!     }
//! }
//! assert_eq!(&received[0].payload[..], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use adit_core::transmit::{Datagram, Ecn, Route, Transmit};
use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use quinn_udp::UdpSockRef;

/// Batches received by one system call. Each buffer holds a whole GRO batch, so eight of them are
/// up to 512 datagrams and half a megabyte per socket; quinn-udp's 32 would be two megabytes, and
/// the kernel's receive buffer rarely holds that much.
const BUFFERS: usize = 8;

/// Largest UDP payload, and with it the largest GRO batch.
const BUFFER_SIZE: usize = 65_535;

/// Receive buffer requested from the kernel: 10 ms of 3 Gbit/s, so that a driver that was not
/// scheduled for one time slice loses no datagram. The kernel may grant less.
const RECV_SPACE: usize = 4 * 1024 * 1024;

/// Send buffer requested from the kernel: sixteen of the largest GSO batches, about one turn's
/// worth.
const SEND_SPACE: usize = 1024 * 1024;

/// The system's error for a datagram that does not fit its interface (`EMSGSIZE`).
#[cfg(unix)]
const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
#[cfg(windows)]
const TOO_LONG: i32 = 10_040;

/// Binds a socket; an IPv6 wildcard address accepts IPv4 as well.
///
/// # Errors
/// What the system reports about the address.
pub fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        // Systems without dual-stack sockets refuse this, and then only IPv6 is available.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Returns the wildcard address, any port, from which `remote` can be reached, or the default if
/// there is none.
pub fn wildcard_for(remote: Option<SocketAddr>) -> SocketAddr {
    let ip = match remote {
        Some(SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(SocketAddr::V6(_)) | None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// State for sending and receiving on one socket, besides the socket.
#[derive(Debug)]
pub struct Udp {
    state: UdpSocketState,
    buffers: [Box<[u8]>; BUFFERS],
    is_ipv6: bool,
}

impl Udp {
    /// Prepares `socket`: non-blocking, with offloads and larger buffers where the system has them.
    ///
    /// # Errors
    /// What the system reports about the socket.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        let options = SockRef::from(socket);
        // More space is optional: a system that refuses it still carries datagrams.
        if options.recv_buffer_size().is_ok_and(|size| size < RECV_SPACE) {
            let _ = options.set_recv_buffer_size(RECV_SPACE);
        }
        if options.send_buffer_size().is_ok_and(|size| size < SEND_SPACE) {
            let _ = options.set_send_buffer_size(SEND_SPACE);
        }
        Ok(Self {
            state: UdpSocketState::new(socket.into())?,
            buffers: std::array::from_fn(|_| vec![0; BUFFER_SIZE].into()),
            is_ipv6: socket.local_addr()?.is_ipv6(),
        })
    }

    /// Returns how many datagrams one [`Udp::send`] takes. It falls to 1 when the system refuses
    /// GSO.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receives the datagrams of one system call.
    ///
    /// # Errors
    /// `WouldBlock`, and errors that end the socket.
    pub fn recv(
        &mut self,
        socket: UdpSockRef<'_>,
        sink: &mut dyn FnMut(Datagram),
    ) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BUFFERS];
        let mut slices = self.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let count = match self.state.recv(socket, &mut slices, &mut metas) {
            Ok(count) => count,
            Err(e) if is_about_one_datagram(e.kind()) => 0,
            Err(e) => return Err(e),
        };
        for (meta, buffer) in metas.iter().zip(&self.buffers).take(count) {
            if meta.len > 0 {
                sink(datagram(meta, buffer));
            }
        }
        Ok(())
    }

    /// Sends one batch. A batch that is too large for the interface is lost, as it would be further
    /// on: this is how path MTU discovery finds the limit (RFC 8899 §3).
    ///
    /// # Errors
    /// `WouldBlock`, and what the system reports about the destination.
    pub fn send(
        &self,
        socket: UdpSockRef<'_>,
        transmit: &Transmit,
        payload: &[u8],
    ) -> io::Result<()> {
        let remote = transmit.route.remote;
        let sent = self.state.try_send(
            socket,
            &quinn_udp::Transmit {
                destination: SocketAddr::new(self.native(remote.ip()), remote.port()),
                ecn: transmit.ecn.map(to_codepoint),
                contents: payload,
                segment_size: transmit.segment_size,
                src_ip: transmit.route.local_ip.map(|ip| self.native(ip)),
            },
        );
        match sent {
            Err(e) if e.raw_os_error() == Some(TOO_LONG) => Ok(()),
            // The batch showed that this system cannot segment; the next ones are single datagrams.
            Err(e)
                if e.kind() != ErrorKind::WouldBlock
                    && transmit.segment_size.is_some()
                    && self.max_segments() == 1 =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Returns an address in this socket's family: an IPv6 socket reaches IPv4 by mapped ones.
    fn native(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.is_ipv6 => IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V4(_) | IpAddr::V6(_) => ip,
        }
    }
}

/// Returns a batch in memory of its own size. Passing on the whole buffer and clearing a new one
/// takes as long as the copy, about 1 µs for 64 KiB, and would pin 64 KiB for every unread byte.
fn datagram(meta: &RecvMeta, buffer: &[u8]) -> Datagram {
    Datagram {
        route: Route {
            remote: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
            local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
        },
        ecn: meta.ecn.map(from_codepoint),
        segment_size: meta.stride,
        payload: BytesMut::from(&buffer[..meta.len]),
    }
}

/// Returns true for ICMP errors about an earlier datagram, which some systems report on the next
/// receive. They concern one destination, and the core detects the loss from silence.
fn is_about_one_datagram(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

fn to_codepoint(ecn: Ecn) -> EcnCodepoint {
    match ecn {
        Ecn::Ect0 => EcnCodepoint::Ect0,
        Ecn::Ect1 => EcnCodepoint::Ect1,
        Ecn::Ce => EcnCodepoint::Ce,
    }
}

fn from_codepoint(ecn: EcnCodepoint) -> Ecn {
    match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    }
}
