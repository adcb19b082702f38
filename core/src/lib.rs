//! The tunnel's protocol as pure, deterministic state machines.
//!
//! Nothing here opens a socket, reads a clock, starts a thread or asks the operating system for
//! randomness: [`node::Node`] takes datagrams and time, and gives datagrams, events and the instant
//! at which it wants to be called again. The same seed and the same inputs give the same outputs.
//!
//! Layers, each importing only from those below it:
//!
//! | layer | modules | what is there |
//! |---|---|---|
//! | L5 | [`drive`] | one generic event loop over `std::task` and a trait of four methods |
//! | L4 | [`node`] | the composition root: a router of values between the machines |
//! | L3 | `quic` | the only place that names quinn-proto |
//! | L2 | [`session`], [`heartbeat`], [`retry`], [`request`], [`history`], [`quality`], [`admission`], [`path`], [`relay`], [`carrier`], `attach` | leaf machines |
//! | L1 | [`frame`], [`message`], [`probe`], [`record`], `envelope`, [`backoff`], [`bucket`], [`timer`] | bytes, probes, delays, rates, deadlines |
//! | L0 | [`config`], [`error`], [`event`], [`transmit`], [`id`], [`rng`], [`clock`] | plain values |

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("adit-core needs a TLS provider: enable the feature \"aws-lc-rs\" or \"ring\"");

pub mod admission;
mod attach;
pub mod backoff;
pub mod bucket;
pub mod carrier;
pub mod clock;
pub mod config;
pub mod drive;
mod envelope;
pub mod error;
pub mod event;
pub mod frame;
pub mod heartbeat;
pub mod history;
pub mod id;
pub mod message;
pub mod node;
pub mod path;
pub mod probe;
pub mod quality;
mod quic;
pub mod record;
pub mod relay;
pub mod request;
pub mod retry;
pub mod rng;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod tls;
pub mod transmit;
