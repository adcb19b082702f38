//! From a connector to the service behind it: by TCP, to the first address of the name that
//! answers, or by a Unix socket. It decides how long that may take and reports why it failed.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::time::Duration;

use adit_tokio::core::error::{Code, Failure};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::lookup::Lookups;
use crate::address::HostPort;
use crate::forward::origin::{Origins, OwnOrigin};
use crate::forward::{CONNECT_TIMEOUT, prepare};
use crate::net::happy_eyeballs::{self, HEAD_START};
use crate::net::names::in_turn;

/// Pause before a Unix socket with a full queue is asked again.
#[cfg(unix)]
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Connects to a service. The mark of the connection is known for as long as it is kept.
pub(super) async fn tcp(
    address: &HostPort,
    lookups: &Lookups,
    origins: &Origins,
) -> Result<(TcpStream, Option<OwnOrigin>), Failure> {
    let connected = async {
        let addresses = in_turn(&lookups.resolve(address).await?);
        let connected = happy_eyeballs::first(
            addresses,
            |_| HEAD_START,
            |address| Ok(connect(address, origins.clone())),
            |_, later| later,
        );
        connected.await.map_err(|error| error.unwrap_or_else(|| ErrorKind::NotFound.into()))
    };
    let (tcp, origin) = in_time(address, connected).await?;
    prepare(&tcp);
    Ok((tcp, origin))
}

/// Connects as the runtime does, but keeps a connection whose other end has written and reset it
/// already: the runtime takes that error for a failed attempt, and drops what was written.
async fn connect(
    address: SocketAddr,
    origins: Origins,
) -> io::Result<(TcpStream, Option<OwnOrigin>)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.connect(&address.into())
        && !is_under_way(&error)
    {
        return Err(error);
    }
    let tcp = TcpStream::from_std(socket.into())?;
    // Before the other end can have passed the connection on.
    let origin = tcp.local_addr().ok().map(|local| origins.enter(local, address));
    tcp.writable().await?;
    let mut first = [std::mem::MaybeUninit::uninit()];
    match SockRef::from(&tcp).peek(&mut first) {
        // The end of the other direction, or bytes: it was connected.
        Ok(_) => Ok((tcp, origin)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok((tcp, origin)),
        Err(error) => Err(error),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    let is_under_way = error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    #[cfg(not(unix))]
    let is_under_way = false;
    is_under_way || error.kind() == ErrorKind::WouldBlock
}

#[cfg(unix)]
pub(super) async fn unix(path: &Path) -> Result<UnixStream, Failure> {
    let connected = async {
        loop {
            match UnixStream::connect(path).await {
                // The queue of the listener is full, and will have room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                ended => return ended,
            }
        }
    };
    in_time(path.display(), connected).await
}

async fn in_time<S>(
    at: impl Display,
    connected: impl Future<Output = io::Result<S>>,
) -> Result<S, Failure> {
    let unavailable =
        |why: &dyn Display| Failure::new(Code::BackendUnavailable, format!("{at}: {why}"));
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(unavailable(&error)),
        Err(_) => Err(unavailable(&format_args!("no answer within {CONNECT_TIMEOUT:?}"))),
    }
}
