//! The requirements for every adapter, as one suite: a runtime implements [`Runtime`] in its tests
//! and names [`conformance!`](crate::conformance) once, which makes each case a separate test.
//!
//! The cases use real sockets on loopback and real time, each wait bounded. They decide the correct
//! results; the adapter decides how its runtime reaches them.

mod fallback;
mod forwarder;
mod identities;
mod lifecycle;
mod requests;
mod socket;
mod streams;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::config::{Builder, Config, Dial};
use crate::drive::io::Io;
use crate::drive::{Driver, Handle, Peer, Stream, StreamError};
use crate::message::ServiceName;

use identities::{Identities, SERVER_NAME};

pub use fallback::*;
pub use lifecycle::*;
pub use requests::*;
pub use socket::*;
pub use streams::*;

/// Longest that a case may take. On an idle machine each takes a few seconds at most; the rest is
/// for machines that are not.
pub const LIMIT: Duration = Duration::from_secs(120);

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

    /// Returns a socket at an address, as the adapter drives it, and where it is bound.
    ///
    /// # Errors
    /// The error of the system.
    fn io(addr: SocketAddr) -> io::Result<(Self::Io, SocketAddr)>;

    /// Gives an adapter a listener for the TCP fallback.
    ///
    /// # Errors
    /// What the system says.
    fn listen_tcp(io: &mut Self::Io, listener: TcpListener) -> io::Result<()>;

    /// A node at an address, made by the adapter, and where it is bound.
    ///
    /// # Errors
    /// The error of the system.
    fn bind(addr: SocketAddr, config: Config)
    -> io::Result<(Handle, SocketAddr, Driver<Self::Io>)>;

    /// Writes all of `bytes` through the runtime's own traits, closes that direction, and reads to
    /// the end of the other.
    fn exchange(stream: Stream, bytes: Vec<u8>)
    -> impl Future<Output = io::Result<Vec<u8>>> + Send;
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
            two_nodes_connect_and_know_each_other
            a_client_of_another_authority_is_refused_for_good
            a_server_of_another_authority_is_refused_for_good
            an_expired_certificate_is_refused_for_good
            a_certificate_not_yet_valid_is_refused_for_good
            an_address_the_system_cannot_send_to_is_tried_again
            a_peer_that_was_killed_is_found_again_when_it_returns
            a_connection_outlives_a_change_of_address
            a_shutdown_finishes_what_is_under_way
            a_disconnected_peer_closes_at_both_ends
            a_dropped_driver_leaves_nobody_waiting
            a_finished_direction_leaves_the_other_open
            a_stream_through_the_runtimes_traits_carries_every_byte
            a_reset_reaches_the_reader
            a_stop_reaches_the_writer
            a_refused_stream_tells_its_opener_why
            a_stream_that_is_over_leaves_nothing_behind
            a_thousand_streams_are_open_at_once
            datagrams_go_both_ways
            a_request_is_answered
            a_failed_request_tells_its_caller_why
            a_request_ends_at_its_deadline
            a_streamed_response_waits_for_its_reader
            a_connection_moves_to_tcp_and_back_as_udp_is_blocked_and_opened
            a_relay_that_shows_another_key_on_tcp_is_not_used
            thousands_of_half_open_connections_keep_nobody_out
            with_udp_open_no_stream_is_opened
            a_shutdown_reaches_the_peer_by_tcp
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

/// A node that runs until it is dropped.
struct Running<R: Runtime> {
    handle: Handle,
    addr: SocketAddr,
    driver: R::Task,
}

/// Two nodes, connected to each other.
struct Connected<R: Runtime> {
    server: Running<R>,
    client: Running<R>,
    /// The client, as the server sees it.
    accepted: Peer,
    /// The server, as the client sees it.
    dialled: Peer,
}

fn run<R: Runtime>(case: impl Future<Output = ()>) {
    R::block_on(within::<R, _>(LIMIT, case));
}

const fn loopback() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

fn start<R: Runtime>(config: Builder) -> Running<R> {
    start_at(loopback(), config).expect("a loopback port is free")
}

fn start_at<R: Runtime>(addr: SocketAddr, config: Builder) -> io::Result<Running<R>> {
    let config = config.build().expect("the configuration of a case can work");
    let (handle, addr, driver) = R::bind(addr, config)?;
    let driver = R::spawn(async move {
        if let Err(error) = driver.await {
            panic!("the driver failed: {error}");
        }
    });
    Ok(Running { handle, addr, driver })
}

async fn connect<R: Runtime>() -> Connected<R> {
    let identities = Identities::new();
    connect_with(identities.server(), identities.client()).await
}

async fn connect_with<R: Runtime>(server: Builder, client: Builder) -> Connected<R> {
    let server = start::<R>(server.listening(true));
    let client = start::<R>(client);
    let dialled = dial(&client, server.addr);
    let (up, accepted) = both(dialled.connected(), server.handle.accept()).await;
    up.expect("the server is there and the certificates are good");
    let accepted = accepted.expect("the server is not shutting down");
    Connected { server, client, accepted, dialled }
}

fn dial<R: Runtime>(client: &Running<R>, addr: SocketAddr) -> Peer {
    client.handle.dial(Dial::new(addr, SERVER_NAME)).expect("a loopback address can be dialled")
}

fn echo_service() -> ServiceName {
    "echo".parse().expect("a plain word is a service name")
}

/// Accepts streams and sends back their data, until the peer is closed.
async fn serve_echo<R: Runtime>(peer: Peer) {
    let mut tasks = Vec::new();
    while let Some(incoming) = peer.accept_stream().await {
        assert_eq!(incoming.service(), &echo_service());
        tasks.push(R::spawn(echo(incoming.accept())));
    }
}

async fn echo(mut stream: Stream) {
    while let Ok(Some(chunk)) = read(&mut stream).await {
        if write(&mut stream, chunk).await.is_err() {
            return;
        }
    }
    // The client may be closed by now, and a failed send is then expected.
    let _ = stream.send().finish();
}

async fn read(stream: &mut Stream) -> Result<Option<Bytes>, StreamError> {
    stream.recv().read_chunk(usize::MAX).await
}

async fn write(stream: &mut Stream, bytes: impl Into<Bytes>) -> Result<(), StreamError> {
    stream.send().write_all(bytes).await
}

async fn read_to_end(stream: &mut Stream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = read(stream).await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Returns bytes that show when they are lost, repeated or moved.
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
