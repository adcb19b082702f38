//! TCP of smol, as the core's TCP fallback asks for it. It decides nothing about who connects or is
//! accepted.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_core::fallback::ByteStreamId;
use smol::Async;
use smol::io::{AsyncRead as _, AsyncWrite as _};

/// The listeners and streams of one node.
#[derive(Default)]
pub(crate) struct ByteStreams {
    listeners: Vec<Async<TcpListener>>,
    streams: BTreeMap<ByteStreamId, SystemStream>,
}

enum SystemStream {
    Connecting(Pin<Box<dyn Future<Output = io::Result<Async<TcpStream>>> + Send>>),
    Open(Async<TcpStream>),
}

impl std::fmt::Debug for ByteStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStreams").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl ByteStreams {
    pub(crate) fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        self.listeners.push(Async::new(listener)?);
        Ok(())
    }

    pub(crate) fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        to: SocketAddr,
    ) -> Poll<io::Result<()>> {
        let begin = || SystemStream::Connecting(Box::pin(Async::<TcpStream>::connect(to)));
        let stream = self.streams.entry(id).or_insert_with(begin);
        if let SystemStream::Connecting(connecting) = stream {
            let connected = ready!(connecting.as_mut().poll(cx))?;
            connected.get_ref().set_nodelay(true)?;
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
            let Poll::Ready(accepted) = poll_one(listener, cx) else { continue };
            // The others come first the next time.
            self.listeners.rotate_left(at + 1);
            let (stream, from) = accepted?;
            // Each record is a packet that somebody waits for. A connection that is gone already
            // refuses this, and shows it when it is read.
            let _ = stream.get_ref().set_nodelay(true);
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
        Pin::new(self.open(id)?).poll_read(cx, buffer)
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        id: ByteStreamId,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.open(id)?).poll_write(cx, bytes)
    }

    pub(crate) fn shutdown(&mut self, id: ByteStreamId) -> io::Result<()> {
        self.open(id)?.get_ref().shutdown(Shutdown::Write)
    }

    pub(crate) fn close(&mut self, id: ByteStreamId) {
        self.streams.remove(&id);
    }

    fn open(&mut self, id: ByteStreamId) -> io::Result<&mut Async<TcpStream>> {
        match self.streams.get_mut(&id) {
            Some(SystemStream::Open(stream)) => Ok(stream),
            Some(SystemStream::Connecting(_)) | None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn poll_one(
    listener: &Async<TcpListener>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(Async<TcpStream>, SocketAddr)>> {
    loop {
        match listener.get_ref().accept() {
            Ok((stream, from)) => return Poll::Ready(Ok((Async::new(stream)?, from))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        ready!(listener.poll_readable(cx))?;
    }
}
