//! The door: connections are admitted, TLS is spoken, and each becomes a stream of datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::pump::{disuse, pump};
use super::registry::{Place, Registry};

/// A pause when the system has no more descriptors: some come free meanwhile.
const BREATH: Duration = Duration::from_millis(100);

/// The datagrams of one read, and whose they are.
pub(super) type Read = (SocketAddr, Vec<BytesMut>);

/// Accepts until it is aborted.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    registry: Arc<Registry>,
    sender: mpsc::Sender<Read>,
) {
    loop {
        match listener.accept().await {
            Ok((tcp, real)) => {
                if let Some(place) = registry.admit(real) {
                    tokio::spawn(serve(tcp, real, place, acceptor.clone(), sender.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a TCP connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// The life of one connection.
async fn serve(
    tcp: TcpStream,
    real: SocketAddr,
    mut place: Place,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<Read>,
) {
    let (limits, address) = (place.limits(), place.address);
    let opened = tokio::select! {
        opened = open(tcp, &acceptor) => opened,
        () = tokio::time::sleep(limits.open_within) => Err(io::ErrorKind::TimedOut.into()),
        _ = &mut place.lost => Err(io::Error::other("it made way for others")),
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%real, %error, "no TLS on TCP"),
    };
    place.open();
    tracing::debug!(%real, %address, "a stream on TCP");
    let queue = place.queue.clone();
    let pumped =
        pump(stream, &queue, async |datagrams| sender.send((address, datagrams)).await.is_ok());
    tokio::select! {
        ended = pumped => tracing::debug!(%real, %address, ?ended, "the stream ended"),
        () = disuse(&queue, limits.open_within, limits.idle) => {
            tracing::debug!(%real, %address, "the stream is closed: the node does not use it");
        }
    }
}

async fn open(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    // Each record is a packet that somebody waits for.
    tcp.set_nodelay(true)?;
    acceptor.accept(tcp).await
}
