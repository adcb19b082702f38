//! From a connector to the service behind it: by TCP, each address of the name in turn, or by a
//! Unix socket. It decides how long that may take and reports why it failed.

use std::fmt::Display;
use std::future::Future;
use std::io;
#[cfg(unix)]
use std::path::Path;

use adit_tokio::core::error::{Code, Failure};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::address::HostPort;
use crate::forward::{CONNECT_TIMEOUT, prepare};

pub(super) async fn tcp(address: &HostPort) -> Result<TcpStream, Failure> {
    let connected = async {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in address.resolve().await? {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let tcp = in_time(address, connected).await?;
    prepare(&tcp);
    Ok(tcp)
}

#[cfg(unix)]
pub(super) async fn unix(path: &Path) -> Result<UnixStream, Failure> {
    in_time(path.display(), UnixStream::connect(path)).await
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
