//! The reference: the smallest TCP forwarder that quinn allows, tuned within its public settings.
//!
//! One QUIC connection, one bidirectional stream for each TCP connection, one thread for each end,
//! mutual TLS 1.3, AES-128-GCM. It only forwards: no reconnecting, no limits, no allow list, no
//! logs. docs/benchmarks.md lists what is tuned, and the difference it makes.

mod settings;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// First bytes of an agent on each stream, so that the connector dials immediately.
const PREAMBLE: [u8; 5] = *b"\x04bulk";
/// Bytes moved in one call between a socket and a stream.
const COPY: usize = 64 * 1024;

/// Accepts streams on `quic` and dials `backend` for each.
pub(crate) fn connector(dir: &Path, quic: SocketAddr, backend: SocketAddr) -> Result<()> {
    run(async {
        let endpoint = settings::endpoint(quic, Some(settings::server(dir)?))?;
        while let Some(incoming) = endpoint.accept().await {
            let connection = incoming.await?;
            tokio::spawn(async move {
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(serve(send, recv, backend));
                }
            });
        }
        Ok(())
    })
}

/// Listens on `entry` and opens a stream for each connection.
pub(crate) fn agent(dir: &Path, quic: SocketAddr, entry: SocketAddr) -> Result<()> {
    run(async {
        let endpoint = settings::endpoint((Ipv4Addr::LOCALHOST, 0).into(), None)?;
        let client = settings::client(dir)?;
        let connection = loop {
            match endpoint.connect_with(client.clone(), quic, "connector")?.await {
                Ok(connection) => break connection,
                Err(e) => eprintln!("connecting again: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let listener = TcpListener::bind(entry).await?;
        loop {
            let (tcp, _) = listener.accept().await?;
            tokio::spawn(open(connection.clone(), tcp));
        }
    })
}

fn run(end: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(end)
}

async fn open(connection: Connection, tcp: TcpStream) -> Result<()> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&PREAMBLE).await?;
    splice(tcp, send, recv).await
}

async fn serve(send: SendStream, mut recv: RecvStream, backend: SocketAddr) -> Result<()> {
    let mut preamble = [0; PREAMBLE.len()];
    recv.read_exact(&mut preamble).await?;
    let tcp = TcpStream::connect(backend).await.context("dialling the backend")?;
    splice(tcp, send, recv).await
}

/// Copies in both directions until both have ended; an error of either ends both.
async fn splice(mut tcp: TcpStream, mut send: SendStream, mut recv: RecvStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let (reader, writer) = tcp.split();
    let stopped = send.stopped();
    let to_stream = async {
        // A write that waits for credit of the connection is not notified that the peer has stopped
        // the stream, and may wait indefinitely.
        tokio::select! {
            biased;
            ended = to_stream(reader, &mut send) => ended,
            _ = stopped => bail!("the peer has stopped the stream"),
        }
    };
    let result = tokio::try_join!(to_stream, to_socket(&mut recv, writer));
    if result.is_err() {
        // Either fails only if that direction has ended already, which is the intention.
        let _ = send.reset(VarInt::from_u32(1));
        let _ = recv.stop(VarInt::from_u32(1));
    }
    result.map(|((), ())| ())
}

async fn to_stream(mut tcp: ReadHalf<'_>, send: &mut SendStream) -> Result<()> {
    let mut buffer = vec![0; COPY];
    loop {
        match tcp.read(&mut buffer).await? {
            0 => break,
            n => send.write_all(&buffer[..n]).await?,
        }
    }
    send.finish()?;
    Ok(())
}

async fn to_socket(recv: &mut RecvStream, mut tcp: WriteHalf<'_>) -> Result<()> {
    let mut buffer = vec![0; COPY];
    while let Some(n) = recv.read(&mut buffer).await? {
        tcp.write_all(&buffer[..n]).await?;
    }
    tcp.shutdown().await?;
    Ok(())
}
