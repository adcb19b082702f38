//! The core's streams behind tokio's traits. There is no buffer here: bytes go directly between the
//! caller's buffer and the core.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_core::drive::{self, RecvHalf, SendHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of a stream.
#[derive(Debug)]
pub struct Stream(drive::Stream);

/// The sending direction of a stream.
#[derive(Debug)]
pub struct SendStream(SendHalf);

/// The receiving direction of a stream.
#[derive(Debug)]
pub struct RecvStream(RecvHalf);

impl Stream {
    /// Splits the stream into its two directions.
    #[must_use]
    pub fn split(self) -> (SendStream, RecvStream) {
        let (send, recv) = self.0.split();
        (SendStream(send), RecvStream(recv))
    }
}

macro_rules! wraps {
    ($name:ident, $inner:ty) => {
        impl $name {
            /// Returns the core's stream, borrowed: chunks of `Bytes` without a copy, resets and
            /// stops.
            pub const fn inner(&mut self) -> &mut $inner {
                &mut self.0
            }

            /// Returns the core's stream.
            #[must_use]
            pub fn into_inner(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self(inner)
            }
        }
    };
}

wraps!(Stream, drive::Stream);
wraps!(SendStream, SendHalf);
wraps!(RecvStream, RecvHalf);

macro_rules! reads {
    ($name:ident, |$stream:ident| $half:expr) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let $stream = self.get_mut();
                if buf.remaining() > 0 {
                    let chunk = ready!($half.poll_read_chunk(cx, buf.remaining()))?;
                    buf.put_slice(&chunk.unwrap_or_default());
                }
                Poll::Ready(Ok(()))
            }
        }
    };
}

reads!(Stream, |stream| stream.0.recv());
reads!(RecvStream, |stream| stream.0);

macro_rules! writes {
    ($name:ident, |$stream:ident| $half:expr) => {
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $stream = self.get_mut();
                $half.poll_write(cx, bytes).map_err(Into::into)
            }

            /// Ready immediately: written bytes are sent without waiting for a flush.
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// Finishes the sending direction, without waiting until the peer has received
            /// everything.
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $stream = self.get_mut();
                Poll::Ready($half.finish().map_err(Into::into))
            }
        }
    };
}

writes!(Stream, |stream| stream.0.send());
writes!(SendStream, |stream| stream.0);
