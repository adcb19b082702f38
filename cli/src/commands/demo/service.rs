//! The private service of the demonstration: HTTP/1.1 on loopback with a small page, a large file,
//! and one that continues until it is ended, all the same on every run, so that a client knows what
//! must arrive.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::base::task::Background;

/// The small page.
pub(super) const PAGE: &str = "<!doctype html><title>adit</title>\
<h1>It works</h1><p>This page came from a private service, through a tunnel.</p>\n";

/// Size of the large file in bytes: 256 MiB.
pub(super) const LARGE: u64 = 256 << 20;

const BLOCK: usize = 1 << 20;

/// Time between two blocks of the file that continues: 67 Mbit/s.
const PACE: Duration = Duration::from_millis(125);

/// The running service, on a port of its own.
#[derive(Debug)]
pub(super) struct DemoService {
    address: SocketAddr,
    is_over: watch::Sender<bool>,
    _serving: Background<()>,
}

impl DemoService {
    /// Starts it.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (is_over, over) = watch::channel(false);
        let address = listener.local_addr()?;
        Ok(Self { address, is_over, _serving: Background::spawn(serve(listener, over)) })
    }

    /// Ends the file that continues after its present block.
    pub(super) fn end_live(&self) {
        self.is_over.send_replace(true);
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, over: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((tcp, _)) = listener.accept() => drop(connections.spawn(answer(tcp, over.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(tcp: TcpStream, over: watch::Receiver<bool>) {
    let _ = tcp.set_nodelay(true);
    let service = service_fn(|request| std::future::ready(respond(&request, &over)));
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = connection {
        tracing::debug!(%error, "a client of the demonstration's service went away");
    }
}

type HttpAnswer = Response<Either<Full<Bytes>, Either<LargeBody, LiveBody>>>;

fn respond(
    request: &Request<Incoming>,
    over: &watch::Receiver<bool>,
) -> Result<HttpAnswer, Infallible> {
    let (status, body) = match request.uri().path() {
        "/" => (StatusCode::OK, Either::Left(Full::from(PAGE))),
        "/large" => (StatusCode::OK, Either::Right(Either::Left(LargeBody::default()))),
        "/live" => (StatusCode::OK, Either::Right(Either::Right(LiveBody::new(over.clone())))),
        _ => (StatusCode::NOT_FOUND, Either::Left(Full::from("There is no such page.\n"))),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

/// Returns the hash of the large file, from its definition and not from any transfer.
pub(super) fn large_hash() -> blake3::Hash {
    hash_of(LARGE).expect("it is made of whole blocks")
}

/// Returns the hash of a file of this many bytes, or `None` if none ends there.
pub(super) fn hash_of(bytes: u64) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for index in 0..bytes / BLOCK as u64 {
        hasher.update(&block(index));
    }
    bytes.is_multiple_of(BLOCK as u64).then(|| hasher.finalize())
}

/// Returns one MiB of the large file: the same noise each time, beginning with its own number, so
/// that a block that is missing, doubled or out of order changes the hash.
fn block(index: u64) -> Bytes {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut noise = vec![0; BLOCK];
        blake3::Hasher::new().update(b"adit demo").finalize_xof().fill(&mut noise);
        noise
    });
    let mut block = BytesMut::from(noise.as_slice());
    block[..8].copy_from_slice(&index.to_be_bytes());
    block.freeze()
}

/// The body of the large file, made as it is sent.
#[derive(Debug, Default)]
struct LargeBody {
    next: u64,
}

impl Body for LargeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let block = block(self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.next * BLOCK as u64 >= LARGE
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(LARGE - self.next * BLOCK as u64)
    }
}

/// The body of the file that continues: its blocks come one by one, until it is ended.
#[derive(Debug)]
struct LiveBody {
    next: u64,
    pace: Interval,
    over: watch::Receiver<bool>,
}

impl LiveBody {
    fn new(over: watch::Receiver<bool>) -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { next: 0, pace, over }
    }
}

impl Body for LiveBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pace.poll_tick(cx));
        if *self.over.borrow() {
            return Poll::Ready(None);
        }
        let block = block(self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(block))))
    }
}
