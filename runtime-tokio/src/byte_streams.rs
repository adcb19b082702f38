//! TCP of tokio, as the core's TCP fallback asks for it. It decides nothing about who connects or
//! is accepted.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_core::fallback::ByteStreamId;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The listeners and streams of one node.
#[derive(Default)]
pub(crate) struct ByteStreams {
    listeners: Vec<TcpListener>,
    streams: BTreeMap<ByteStreamId, SystemStream>,
}

enum SystemStream {
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(TcpStream),
}

impl std::fmt::Debug for ByteStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStreams").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl ByteStreams {
    pub(crate) fn listen(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listeners.push(TcpListener::from_std(listener)?);
        Ok(())
    }

    pub(crate) fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        let begin = || SystemStream::Connecting(Box::pin(TcpStream::connect(to)));
        let stream = self.streams.entry(id).or_insert_with(begin);
        if let SystemStream::Connecting(connecting) = stream {
            let connected = ready!(connecting.as_mut().poll(cx))?;
            connected.set_nodelay(true)?;
            *stream = SystemStream::Open(connected);
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
    ) -> Poll<io::Result<SocketAddr>> {
        for at in 0..self.listeners.len() {
            let listener = &self.listeners[at];
            let Poll::Ready(accepted) = listener.poll_accept(cx) else { continue };
            // The others come first the next time.
            self.listeners.rotate_left(at + 1);
            let (stream, from) = accepted?;
            // Each record is a packet that somebody waits for. A connection that is gone already
            // refuses this, and shows it when it is read.
            let _ = stream.set_nodelay(true);
            self.streams.insert(id, SystemStream::Open(stream));
            return Poll::Ready(Ok(from));
        }
        Poll::Pending
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.open(id)?.poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open(id)?.poll_write(cx, bytes)
    }

    pub(crate) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
    ) -> Poll<io::Result<()>> {
        self.open(id)?.poll_shutdown(cx)
    }

    pub(crate) fn close(&mut self, id: ByteStreamId) {
        self.streams.remove(&id);
    }

    fn open(&mut self, id: ByteStreamId) -> io::Result<Pin<&mut TcpStream>> {
        match self.streams.get_mut(&id) {
            Some(SystemStream::Open(stream)) => Ok(Pin::new(stream)),
            Some(SystemStream::Connecting(_)) | None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
