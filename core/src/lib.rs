//! The tunnel's protocol as pure, deterministic state machines.
//!
//! This crate opens no socket, reads no clock, starts no thread and asks the operating system for
//! no randomness: [`node::Node`] takes datagrams and time, and returns datagrams, events and its
//! next deadline. The same seed and the same inputs give the same outputs.
//!
//! Layers, each importing only from those below it:
//!
//! | layer | modules | what is there |
//! |---|---|---|
//! | L5 | [`drive`] | one generic event loop over `std::task` and a trait of four methods |
//! | L4 | [`node`] | the composition root: a router of values between the machines |
//! | L3 | `quic` | the only place that names quinn-proto |
//! | L2 | [`lifecycle`], [`heartbeat`], [`retry`], [`request`], [`history`], [`latency`], [`admission`], [`path`], [`relay`], [`fallback`], `relay_client` | leaf machines |
//! | L1 | [`frame`], [`message`], [`probe`], [`datagram_framing`], `encapsulation`, [`backoff`], [`token_bucket`], [`timer`] | bytes, probes, delays, rates, deadlines |
//! | L0 | [`config`], [`error`], [`event`], [`transmit`], [`id`], [`rng`], [`clock`] | plain values |

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("adit-core needs a TLS provider: enable the feature \"aws-lc-rs\" or \"ring\"");

pub mod admission;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod datagram_framing;
pub mod drive;
mod encapsulation;
pub mod error;
pub mod event;
pub mod fallback;
pub mod frame;
pub mod heartbeat;
pub mod history;
pub mod id;
pub mod latency;
pub mod lifecycle;
pub mod message;
pub mod node;
pub mod path;
#[cfg(feature = "pki")]
pub mod pki;
pub mod probe;
mod quic;
pub mod relay;
mod relay_client;
pub mod request;
pub mod retry;
pub mod rng;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timer;
pub mod tls;
pub mod token_bucket;
pub mod transmit;

// These crates are in the public signatures: a caller uses them here rather than add versions that
// have to agree.
pub use bytes;
pub use rustls;
pub use rustls_pki_types as pki_types;
