//! Datagrams in TLS over TCP, for where UDP is blocked between a client and its relay.
//!
//! [`client`] and [`server`] wrap the [`Io`](adit_core::drive::io::Io) of a node, which notices
//! nothing: a client's node sees one address of its relay, the relay's node sees an address that
//! changes, as that of any client that moves (RFC 9000 §9). When TCP carries is decided by
//! [`adit_core::fallback`]; here are the sockets, the TLS sessions and the queues.
//!
//! Each TCP connection is served by a task of its own, the only ones that this crate spawns; they end
//! with the `Io` they belong to. Nothing here waits for a stream that does not take what it should:
//! its queue drops what is oldest, as a router would.
//!
//! A relay:
//!
//! ```no_run
//! use adit_tokio::carrier::{self, Identity, Limits};
//! use adit_tokio::core::config::Config;
//!
//! # async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
//! let io = adit_tokio::TokioIo::bind("[::]:4433".parse()?)?;
//! let listener = std::net::TcpListener::bind("[::]:443")?;
//! let identity = Identity::from_pem(&std::fs::read("relay.pem")?, &std::fs::read("relay.key")?)?;
//! let (io, streams) = carrier::server(io, [listener], &identity, Limits::default())?;
//! let (handle, driver) = adit_tokio::with_io(io, config.accepting())?;
//! tokio::spawn(driver);
//! println!("{} clients on TCP", streams.stats().open);
//! # Ok(()) }
//! ```
//!
//! Its client:
//!
//! ```no_run
//! use adit_tokio::carrier::{self, Target};
//! use adit_tokio::core::config::{Config, Dial};
//!
//! # async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
//! let relay = "192.0.2.7:4433".parse()?;
//! let tcp = "192.0.2.7:443".parse()?;
//! let (io, relays) = carrier::client(adit_tokio::TokioIo::bind("0.0.0.0:0".parse()?)?)?;
//! relays.add(Target { relay, tcp, name: "relay.example".into(), pin: None });
//! let (handle, driver) = adit_tokio::with_io(io, config)?;
//! tokio::spawn(driver);
//! handle.dial(Dial::new(relay, "relay.example"))?.connected().await?;
//! println!("by {:?}", relays.views()[&relay].state);
//! # Ok(()) }
//! ```

mod accept;
mod client;
mod pump;
mod queue;
mod registry;
mod relays;
mod server;
mod tls;

pub use self::client::{Client, client};
pub use self::registry::{Limits, Stats, Streams};
pub use self::relays::{Relays, Target, View};
pub use self::server::{Server, server};
pub use self::tls::Identity;
