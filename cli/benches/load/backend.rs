//! The service behind both tunnels, in this process. The first byte of a connection selects what it
//! does.
//!
//! | first byte | service |
//! |---|---|
//! | [`SOURCE`] | writes until the other side closes |
//! | [`SINK`] | reads until the other side ends |
//! | [`REQUEST`] | answers every [`REQUEST_BYTES`] with [`RESPONSE_BYTES`] |
//! | any other | echoes, that byte included |
//!
//! One event loop on one thread serves small messages, and a blocking thread for each connection
//! serves bulk, so that the two compete in the scheduler only. It never measures.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) const SOURCE: u8 = b's';
pub(super) const SINK: u8 = b'k';
pub(super) const REQUEST: u8 = b'r';
pub(super) const ECHO: u8 = b'e';
pub(super) const REQUEST_BYTES: usize = 128;
pub(super) const RESPONSE_BYTES: usize = 1024;

/// Bytes moved by one system call of a bulk thread.
const BULK: usize = 256 * 1024;
/// Bytes read in one call by the event loop; no message is longer.
const SMALL: usize = 16 * 1024;
/// How long bulk connections of one round may outlive it.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Bulk connections that earlier rounds left open.
    given_up: AtomicUsize,
}

#[derive(Default)]
struct Shared {
    sunk: AtomicU64,
    bulk: AtomicUsize,
}

impl Backend {
    /// Serves on a port of its own for the life of the process.
    pub(crate) fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = shared.clone();
        std::thread::Builder::new().name("backend".into()).spawn(move || {
            if let Err(e) = runtime.block_on(accept(listener, of_thread)) {
                eprintln!("the backend has ended: {e}");
            }
        })?;
        Ok(Self { addr, shared, given_up: AtomicUsize::new(0) })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the bytes that all sinks have read so far.
    pub(super) fn sunk(&self) -> u64 {
        self.shared.sunk.load(Ordering::Relaxed)
    }

    /// Waits until the bulk connections of a round have ended; fails, once, for those that do not.
    pub(crate) fn settle(&self) -> Result<()> {
        let given_up = self.given_up.load(Ordering::Relaxed);
        let deadline = Instant::now() + SETTLE;
        let left = loop {
            let left = self.shared.bulk.load(Ordering::Relaxed);
            if left <= given_up || Instant::now() > deadline {
                break left;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.given_up.store(left, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        match left.saturating_sub(given_up) {
            0 => Ok(()),
            stuck => {
                bail!("{stuck} streams were not closed within {SETTLE:?} of their client's end")
            }
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, shared.clone()));
    }
}

/// Errors end the connection, and the load at its other end reports the effect.
async fn serve(mut stream: tokio::net::TcpStream, shared: Arc<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; SMALL];
    let mut n = stream.read(&mut buffer).await?;
    match buffer[0] {
        _ if n == 0 => return Ok(()),
        SOURCE => return spawn_bulk(stream, shared, source),
        SINK => return spawn_bulk(stream, shared, sink),
        REQUEST => {
            let response = [b'r'; RESPONSE_BYTES];
            let mut pending = 0;
            while n > 0 {
                pending += n;
                while pending >= REQUEST_BYTES {
                    pending -= REQUEST_BYTES;
                    stream.write_all(&response).await?;
                }
                n = stream.read(&mut buffer).await?;
            }
        }
        _ => {
            while n > 0 {
                stream.write_all(&buffer[..n]).await?;
                n = stream.read(&mut buffer).await?;
            }
        }
    }
    Ok(())
}

fn spawn_bulk(
    stream: tokio::net::TcpStream,
    shared: Arc<Shared>,
    service: fn(TcpStream, &Shared),
) -> Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    shared.bulk.fetch_add(1, Ordering::Relaxed);
    std::thread::Builder::new().name("bulk service".into()).spawn(move || {
        service(stream, &shared);
        shared.bulk.fetch_sub(1, Ordering::Relaxed);
    })?;
    Ok(())
}

fn source(mut stream: TcpStream, _: &Shared) {
    let block = vec![0x5a; BULK];
    while stream.write_all(&block).is_ok() {}
}

fn sink(mut stream: TcpStream, shared: &Shared) {
    let mut block = vec![0; BULK];
    while let Ok(n @ 1..) = stream.read(&mut block) {
        shared.sunk.fetch_add(n as u64, Ordering::Relaxed);
    }
}
