//! The two ends of a forwarded connection: TCP, or a Unix stream socket. It defines how each is
//! read, written, ended and broken off; it makes no decision.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::VANISHED;
#[cfg(target_os = "linux")]
use super::kernel;

/// A connected stream socket.
pub(super) trait StreamSocket {
    /// Completes when a read is worth trying.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Completes when a write is worth trying.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Completes when the other end broke the socket, with the reason, if the system has it.
    fn failed(&self) -> impl Future<Output = io::Result<Option<io::Error>>> + Send;
    /// Reads what is there into the room that `buffer` has; 0 is the end.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize>;
    /// Writes what there is room for.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ends this direction: the other end reads to the end.
    fn shutdown_write(&self) -> io::Result<()>;
    /// Completes once the system has sent all that was written.
    fn drained(&self) -> impl Future<Output = ()> + Send;
    /// Lets the system end the connection after [`VANISHED`] if bytes wait for an acknowledgement
    /// now; returns true if they do. A reader that stands still may do so for as long as it likes.
    fn limit_silence(&self) -> impl Future<Output = bool> + Send;
    /// Makes the socket send a reset instead of an end when it is dropped, where there is a
    /// difference.
    fn break_off(&self);
    /// Makes the socket end without a reset when it is dropped.
    fn end_orderly(&self);
}

impl StreamSocket for TcpStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.readable()
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.writable()
    }

    async fn failed(&self) -> io::Result<Option<io::Error>> {
        self.ready(Interest::ERROR).await?;
        self.take_error()
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(slices)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    async fn drained(&self) {
        // With this option a socket is writable when nothing is unsent. A copy of the descriptor
        // begins without the readiness that the runtime remembers of the other.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let socket = SockRef::from(self);
            let copy = socket.set_tcp_notsent_lowat(1).and_then(|()| socket.try_clone());
            if let Ok(copy) = copy.and_then(|copy| Self::from_std(copy.into())) {
                let _ = copy.writable().await;
            }
        }
    }

    async fn limit_silence(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            let waits = kernel::is_retransmitting(self.as_raw_fd()).await;
            let _ = SockRef::from(self).set_tcp_user_timeout(waits.then_some(VANISHED));
            waits
        }
        #[cfg(not(target_os = "linux"))]
        false
    }

    fn break_off(&self) {
        let _ = self.set_zero_linger();
    }

    fn end_orderly(&self) {
        let _ = SockRef::from(self).set_linger(None);
    }
}

#[cfg(unix)]
impl StreamSocket for UnixStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.readable()
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.writable()
    }

    async fn failed(&self) -> io::Result<Option<io::Error>> {
        self.ready(Interest::ERROR).await?;
        self.take_error()
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(slices)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    async fn drained(&self) {
        // What is written is in the queue of the other end.
    }

    async fn limit_silence(&self) -> bool {
        // The other end is on this machine.
        false
    }

    fn break_off(&self) {
        // There is no reset: the other end sees a close.
    }

    fn end_orderly(&self) {}
}
