//! The tunnel's protocol as pure, deterministic state machines.
//!
//! This crate opens no socket, reads no clock, starts no thread and asks the operating system for
//! no randomness: [`node::Node`] takes datagrams and time, and returns datagrams, events and its
//! next deadline. The same seed and the same inputs give the same outputs.
//!
//! A [`Node`] is driven by four calls: [`Node::handle`] takes what arrived, [`Node::poll_output`]
//! returns what to send and what happened, [`Node::deadline`] returns when it wants to be called
//! again, and the rest is what a caller asks for:
//!
//! ```
//! # #[cfg(feature = "pki")]
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use adit_core::lifecycle::State;
//! use adit_core::pki::{Authority, Role};
//! use adit_core::tls::Tls;
//! use adit_core::transmit::{Datagram, Route};
//! use adit_core::{Config, Dial, Event, Input, Node, Output, Start};
//! use std::time::{Duration, Instant, SystemTime};
//!
//! let (now, unix) = (Instant::now(), SystemTime::UNIX_EPOCH.elapsed()?);
//! let authority = Authority::new("example", unix)?;
//! let node = |name: &str, accepting, seed| -> Result<Node, Box<dyn std::error::Error>> {
//!     let identity = authority.issue(name, Role::Connector, unix)?.identity();
//!     let builder = Config::builder(Tls::new(identity, authority.trust()?));
//!     let config = builder.listening(accepting).build()?;
//!     Ok(Node::new(config, Start { seed: [seed; 32], now, unix })?)
//! };
//! let addresses = ["192.0.2.1:1000".parse()?, "192.0.2.2:4433".parse()?];
//! let mut nodes = [node("laptop", false, 1)?, node("server", true, 2)?];
//! let peer = nodes[0].dial(Dial::new(addresses[1], "server"), now)?;
//!
//! // What a socket would carry from one to the other.
//! let (mut buffer, mut is_accepted) = (Vec::new(), false);
//! for turn in 0..20 {
//!     let now = now + turn * Duration::from_millis(10);
//!     for (from, to) in [(0, 1), (1, 0)] {
//!         while let Some(output) = nodes[from].poll_output(&mut buffer, now) {
//!             match output {
//!                 Output::Transmit(_) => nodes[to].handle(
//!                     Input::Datagram(Datagram {
//!                         route: Route::to(addresses[from]),
//!                         ecn: None,
//!                         segment_size: 0,
//!                         payload: buffer[..].into(),
//!                     }),
//!                     now,
//!                 ),
//!                 Output::Event(event) => is_accepted |= matches!(event, Event::Accepted { .. }),
//!             }
//!         }
//!         nodes[from].handle(Input::Tick, now);
//!     }
//! }
//! assert!(is_accepted && matches!(nodes[0].state(peer), Some(State::Connected { .. })));
//! # Ok(())
//! # }
//! # #[cfg(feature = "pki")]
//! # example().unwrap();
//! ```
//!
//! Layers, each importing only from those below it:
//!
//! | layer | modules | what is there |
//! |---|---|---|
//! | L5 | [`drive`] | one generic event loop over `std::task` and the trait of an adapter |
//! | L4 | [`node`] | the composition root: a router of values between the machines |
//! | L3 | `quic` | the only place that names quinn-proto |
//! | L2 | [`lifecycle`], [`heartbeat`], [`retry`], [`request`], [`history`], [`latency`], [`admission`], [`path`], [`relay`], [`fallback`], `relay_client` | leaf machines |
//! | L1 | `frame`, `message`, `probe`, `datagram_framing`, `encapsulation`, [`backoff`], `token_bucket`, [`timer`] | bytes, probes, delays, rates, deadlines |
//! | L0 | [`config`], [`error`], [`event`], [`transmit`], [`id`], [`rng`], [`clock`] | plain values |

#![cfg_attr(
    not(any(test, feature = "testing")),
    allow(
        unreachable_pub,
        unused_imports,
        reason = "the modules of the wire format are public to this project's own tests only"
    )
)]

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("adit-core needs a TLS provider: enable the feature \"aws-lc-rs\" or \"ring\"");

pub mod admission;
pub mod backoff;
pub mod clock;
pub mod config;
#[cfg(any(test, feature = "testing"))]
pub mod datagram_framing;
#[cfg(not(any(test, feature = "testing")))]
mod datagram_framing;
pub mod drive;
mod encapsulation;
pub mod error;
pub mod event;
pub mod fallback;
#[cfg(any(test, feature = "testing"))]
pub mod frame;
#[cfg(not(any(test, feature = "testing")))]
mod frame;
pub mod heartbeat;
pub mod history;
pub mod id;
pub mod latency;
pub mod lifecycle;
#[cfg(any(test, feature = "testing"))]
pub mod message;
#[cfg(not(any(test, feature = "testing")))]
mod message;
pub mod node;
pub mod path;
#[cfg(any(test, feature = "pki"))]
pub mod pki;
#[cfg(any(test, feature = "testing"))]
pub mod probe;
#[cfg(not(any(test, feature = "testing")))]
mod probe;
mod quic;
pub mod relay;
mod relay_client;
pub mod request;
pub mod retry;
pub mod rng;
mod shares;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timer;
pub mod tls;
#[cfg(any(test, feature = "testing"))]
pub mod token_bucket;
#[cfg(not(any(test, feature = "testing")))]
mod token_bucket;
pub mod transmit;

pub use config::{Config, Dial};
pub use event::Event;
pub use message::{InvalidServiceName, ServiceName};
pub use node::{Input, Node, Output, Start};

// These crates are in the public signatures: a caller uses them here rather than add versions that
// have to agree.
pub use bytes;
pub use rustls;
pub use rustls_pki_types as pki_types;
