//! adit on tokio: the socket and the clock for the core's event loop, and its streams behind
//! tokio's traits.
//!
//! All decisions about the tunnel are made in [`core`]. It spawns no task: every function returns a
//! [`Handle`] to use and a [`Driver`] to run, wherever the caller chooses.
//!
//! ```no_run
//! use adit_tokio::core::config::{Config, Dial};
//! use adit_tokio::core::tls::{Identity, Tls, Trust};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::from_pem(&std::fs::read("cert.pem")?, &std::fs::read("key.pem")?)?;
//! let trust = Trust::from_pem(&std::fs::read("ca.pem")?)?;
//! let config = Config::builder(Tls::new(identity, trust)).build()?;
//!
//! let dial = Dial::new("192.0.2.7:4433".parse()?, "connector.example");
//! let (_handle, peer, driver) = adit_tokio::connect(config, dial)?;
//! tokio::spawn(driver);
//!
//! peer.connected().await?;
//! let mut stream = adit_tokio::Stream::from(peer.open("echo".parse()?).await?);
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod byte_streams;
mod io;
mod stream;

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, UdpSocket};

use adit_core::config::{Config, Dial};
use adit_system as system;

pub use adit_core as core;
pub use adit_core::drive::{Handle, Peer, TcpFallback};
pub use adit_system::{SystemClock, with_io};

pub use crate::io::TokioIo;
pub use crate::stream::{RecvStream, SendStream, Stream};

/// The future that runs a node; it ends when the node has shut down.
pub type Driver = adit_core::drive::Driver<TokioIo>;

/// Makes a node on a new socket bound to `addr`; an IPv6 wildcard accepts IPv4 as well.
///
/// # Errors
/// What the system reports about the address or the socket; `InvalidInput` if the configuration
/// cannot be used.
///
/// # Panics
/// Outside a tokio runtime that has its IO and time drivers on, as all functions here.
pub fn bind(addr: SocketAddr, config: Config) -> Result<(Handle, Driver)> {
    with_io(TokioIo::bind(addr)?, config)
}

/// Makes a node on a new socket bound to `addr` that accepts connections, whatever its
/// configuration sets. With port 0, [`Handle::local_addr`] returns the port that the system chose.
///
/// # Errors
/// As [`bind`].
///
/// # Panics
/// As [`bind`].
pub fn listen(addr: SocketAddr, config: Config) -> Result<(Handle, Driver)> {
    bind(addr, config.accepting())
}

/// Makes a node on the caller's socket, inherited or with options of its own.
///
/// # Errors
/// As [`bind`].
///
/// # Panics
/// As [`bind`].
pub fn from_socket(socket: UdpSocket, config: Config) -> Result<(Handle, Driver)> {
    with_io(TokioIo::new(socket)?, config)
}

/// Makes a node on a new socket that can reach `dial`, and dials its first peer.
///
/// # Errors
/// As [`bind`]; `InvalidInput` also if the address or the name cannot be dialled.
///
/// # Panics
/// As [`bind`].
pub fn connect(config: Config, dial: Dial) -> Result<(Handle, Peer, Driver)> {
    let (handle, driver) = bind(system::udp::wildcard_for(dial.address()), config)?;
    let peer = handle.dial(dial).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
    Ok((handle, peer, driver))
}
