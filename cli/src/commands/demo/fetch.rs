//! An ordinary HTTP client that is unaware of the tunnel: it is given a TCP port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::base::task::Background;

/// The response.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) hash: blake3::Hash,
    pub(super) bytes: u64,
    /// From the call to the first byte of the response.
    pub(super) first_byte: Duration,
    /// From the call to the last byte.
    pub(super) total: Duration,
}

/// Fetches a path on a connection of its own. It hashes the body and reports its length as it
/// arrives.
///
/// # Errors
/// If anything but a complete response with status 200 arrived.
pub(super) async fn get(
    address: SocketAddr,
    path: &str,
    mut on_progress: impl FnMut(u64),
) -> anyhow::Result<Fetched> {
    let start = Instant::now();
    let tcp = TcpStream::connect(address).await.context("the local port does not answer")?;
    tcp.set_nodelay(true)?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    let _connection = Background::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .context("not a path")?;
    let response = client.send_request(request).await.context("no answer")?;
    let first_byte = start.elapsed();
    ensure!(response.status().is_success(), "status {}", response.status());

    let mut body = response.into_body();
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the answer broke off")?.into_data() {
            bytes += data.len() as u64;
            hasher.update(&data);
            on_progress(bytes);
        }
    }
    Ok(Fetched { hash: hasher.finalize(), bytes, first_byte, total: start.elapsed() })
}
