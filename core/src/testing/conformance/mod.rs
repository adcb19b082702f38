//! What every adapter must do, as one suite: a runtime implements [`Runtime`] in its tests and
//! names [`conformance!`](crate::conformance) once, which makes each case a test of its own.
//!
//! The cases use real sockets on loopback and real time, each wait bounded. They decide what is
//! right; how a runtime gets there is its adapter's business.

mod socket;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::drive::io::Io;

pub use socket::*;

/// Longest that any wait of a case may take. The slowest step is a handshake or a reconnect, both
/// well below a second on an idle machine; the rest is for machines that are not.
pub const LIMIT: Duration = Duration::from_secs(30);

/// One runtime and its adapter.
pub trait Runtime: 'static {
    /// The adapter's socket and clock.
    type Io: Io + Send + Unpin + 'static;
    /// A spawned future; dropping it drops the future, sooner or later.
    type Task: Send;

    /// Runs a case.
    fn block_on<F: Future>(future: F) -> F::Output;

    /// Runs a future beside the case.
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self::Task;

    /// Waits in real time.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send;

    /// A socket at an address, as the adapter drives it, and where it is bound.
    ///
    /// # Errors
    /// What the system says.
    fn io(addr: SocketAddr) -> io::Result<(Self::Io, SocketAddr)>;
}
/// Makes each case of the suite a test, run on the [`Runtime`] that is named.
#[macro_export]
macro_rules! conformance {
    ($runtime:ty) => {
        $crate::conformance! { $runtime:
            a_batch_arrives_whole_and_in_order
            a_batch_larger_than_the_path_is_a_loss
            a_port_nobody_listens_at_does_not_end_the_socket
            a_wildcard_socket_shows_ipv4_peers_as_ipv4
            a_sleep_ends_at_its_deadline_and_not_before
        }
    };
    ($runtime:ty: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::conformance::$case::<$runtime>();
            }
        )*
    };
}

fn run<R: Runtime>(case: impl Future<Output = ()>) {
    R::block_on(within::<R, _>(LIMIT, case));
}

const fn loopback() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// Bytes that show when they are lost, repeated or moved.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

async fn within<R: Runtime, F: Future>(limit: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut sleep = pin!(R::sleep(limit));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        assert!(sleep.as_mut().poll(cx).is_pending(), "still waiting after {limit:?}");
        Poll::Pending
    })
    .await
}

async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Asks again every 10 ms until the answer is there.
async fn until<R: Runtime, T>(mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        R::sleep(Duration::from_millis(10)).await;
    }
}
