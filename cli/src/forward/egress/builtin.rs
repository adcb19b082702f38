//! The services that every connector has of its own, to measure a tunnel. They connect to no
//! backend. It decides how much of the connector's resources one stream may use.

use std::future::poll_fn;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_tokio::core::drive::{RecvHalf, SendHalf, StreamError};
use adit_tokio::core::error::Code;
use bytes::{Bytes, BytesMut};

use crate::forward::copy::TURN;

/// How long one stream may last: longer than any measurement, shorter than people wait.
const LIFE: Duration = Duration::from_secs(60);

/// Bytes that one stream of [`Builtin::Source`] sends: what 10 Gbit/s carry in [`LIFE`].
const MOST: u64 = 64 << 30;

/// Bytes of one read, and those that an echo buffers.
const PIECE: usize = 16 * 1024;

/// Bytes of one write.
const BLOCK: usize = 256 * 1024;

/// Incompressible noise, shared by all streams, which thus hold none of their own.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = vec![0; BLOCK];
    blake3::Hasher::new().update(b"adit.source").finalize_xof().fill(&mut noise);
    noise.into()
});

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// Sends back what it receives.
    Echo,
    /// Sends noise until it is stopped.
    Source,
    /// Discards what it receives, and at its end or reset answers how many bytes that was.
    Sink,
}

impl Builtin {
    const ALL: [Self; 3] = [Self::Echo, Self::Source, Self::Sink];

    /// Returns the name of its service.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "adit.echo",
            Self::Source => "adit.source",
            Self::Sink => "adit.sink",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Serves one stream until it has ended, or its time is over.
    pub(super) async fn serve(self, send: SendHalf, recv: RecvHalf) -> Result<(), StreamError> {
        self.serve_for(LIFE, send, recv).await
    }

    async fn serve_for(
        self,
        life: Duration,
        mut send: SendHalf,
        mut recv: RecvHalf,
    ) -> Result<(), StreamError> {
        let served = async {
            match self {
                Self::Echo => echo(&mut send, &mut recv).await,
                Self::Source => source(&mut send).await,
                Self::Sink => sink(&mut send, &mut recv).await,
            }
        };
        if let Ok(result) = tokio::time::timeout(life, served).await {
            return result;
        }
        send.reset(Code::TimedOut);
        recv.stop(Code::TimedOut);
        Ok(())
    }
}

async fn echo(send: &mut SendHalf, recv: &mut RecvHalf) -> Result<(), StreamError> {
    let mut turn = TurnBudget::default();
    while let Some(piece) = poll_fn(|cx| poll_piece(recv, cx)).await? {
        let count = piece.len();
        send.write_all(piece).await?;
        turn.on_bytes(count).await;
    }
    send.finish()
}

/// Takes what is there as one copy: if a byte were passed on as it came, it would keep its packet
/// in memory until it is acknowledged.
fn poll_piece(
    recv: &mut RecvHalf,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, StreamError>> {
    let mut piece = BytesMut::new();
    while piece.len() < PIECE {
        match recv.poll_read_chunk(cx, PIECE - piece.len()) {
            Poll::Ready(Ok(Some(chunk))) => piece.extend_from_slice(&chunk),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(None)) if piece.is_empty() => return Poll::Ready(Ok(None)),
            Poll::Pending if piece.is_empty() => return Poll::Pending,
            Poll::Ready(Ok(None)) | Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(Some(piece.freeze())))
}

async fn source(send: &mut SendHalf) -> Result<(), StreamError> {
    let mut turn = TurnBudget::default();
    for _ in 0..MOST / BLOCK as u64 {
        let mut block = NOISE.clone();
        while !block.is_empty() {
            let before = block.len();
            poll_fn(|cx| send.poll_write_chunk(cx, &mut block)).await?;
            turn.on_bytes(before - block.len()).await;
        }
    }
    send.finish()
}

async fn sink(send: &mut SendHalf, recv: &mut RecvHalf) -> Result<(), StreamError> {
    let (mut turn, mut count) = (TurnBudget::default(), 0_u64);
    loop {
        match recv.read_chunk(PIECE).await {
            Ok(Some(chunk)) => {
                count += chunk.len() as u64;
                turn.on_bytes(chunk.len()).await;
            }
            Ok(None) | Err(StreamError::Reset(_)) => break,
            Err(error) => return Err(error),
        }
    }
    send.write_all(Bytes::copy_from_slice(&count.to_be_bytes())).await?;
    send.finish()
}

/// What one stream copies before the others of its thread have a turn.
#[derive(Default)]
struct TurnBudget(usize);

impl TurnBudget {
    async fn on_bytes(&mut self, count: usize) {
        self.0 += count;
        if self.0 >= TURN {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;
