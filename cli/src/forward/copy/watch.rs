//! What ends a connection while its bytes stand still: a broken socket, or a long silence.
//!
//! It decides how long the two directions may go on then; it copies nothing.

use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::{Broken, Totals};
use crate::forward::ACKNOWLEDGEMENT_POLL_INTERVAL;
use crate::forward::socket::StreamSocket;

/// How long nothing may move after the socket broke: what was read from it before is delivered, but
/// a tunnel or a service that takes nothing keeps no connection without an owner.
const STUCK: Duration = Duration::from_secs(10);

/// What the two directions have done, for each other and for the log.
#[derive(Default)]
pub(super) struct CopyProgress {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent_all: AtomicBool,
    pub(super) received_all: AtomicBool,
    is_broken: AtomicBool,
    error: Mutex<Option<io::Error>>,
}

impl CopyProgress {
    pub(super) fn totals(&self) -> Totals {
        Totals { sent: self.sent.load(Relaxed), received: self.received.load(Relaxed) }
    }

    /// Records the error of the socket. The system reports it once, to whichever call is first.
    pub(super) fn on_broken(&self, error: io::Error) {
        self.is_broken.store(true, Relaxed);
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Relaxed)
    }

    /// Returns true if the end of the socket that a read shows is an error which another call has
    /// reported. A broken pipe is none: the other end had ended its direction before.
    pub(super) fn is_reset(&self) -> bool {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.as_ref().is_some_and(|error| error.kind() != ErrorKind::BrokenPipe)
    }

    pub(super) fn to_broken(&self) -> Broken {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        Broken::Socket(error.unwrap_or_else(|| ErrorKind::BrokenPipe.into()))
    }
}

/// Waits until a connection has stood still for too long: half open for `half_open`, or for
/// [`STUCK`] with a broken socket. It is polled in the same task as the two directions, so that it
/// observes their progress without a waker.
pub(super) async fn watch(
    socket: &impl StreamSocket,
    progress: &CopyProgress,
    half_open: Duration,
) -> Broken {
    tokio::select! {
        broken = silence(progress, half_open) => broken,
        broken = breakage(socket, progress) => broken,
        broken = limit_silence(socket, progress) => broken,
    }
}

/// Lets the system notice that a host vanished while bytes are on the way to it. A connection to
/// which nothing was written is left to the keep-alive.
async fn limit_silence(socket: &impl StreamSocket, progress: &CopyProgress) -> Broken {
    let (mut before, mut waits) = (0, false);
    loop {
        tokio::time::sleep(ACKNOWLEDGEMENT_POLL_INTERVAL).await;
        let received = progress.received.load(Relaxed);
        if waits || received != before {
            waits = socket.limit_silence().await;
        }
        before = received;
    }
}

async fn silence(progress: &CopyProgress, half_open: Duration) -> Broken {
    poll_fn(|_| match progress.sent_all.load(Relaxed) || progress.received_all.load(Relaxed) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
    loop {
        let before = progress.totals();
        tokio::time::sleep(half_open).await;
        if progress.totals() == before {
            return Broken::HalfOpen;
        }
    }
}

async fn breakage(socket: &impl StreamSocket, progress: &CopyProgress) -> Broken {
    let reported = async {
        match socket.failed().await {
            Ok(Some(error)) | Err(error) => progress.on_broken(error),
            Ok(None) => pending().await,
        }
    };
    let noticed = poll_fn(|_| if progress.is_broken() { Poll::Ready(()) } else { Poll::Pending });
    tokio::select! {
        () = reported => {}
        () = noticed => {}
    }
    loop {
        let before = progress.totals();
        tokio::time::sleep(STUCK).await;
        if progress.totals() == before {
            return progress.to_broken();
        }
    }
}
