//! The real program behind real NATs: namespaces of the kernel, its own packet filter, and links that
//! delay and lose. Needs root and `nft`; where that is missing it says so and tests nothing.
//!
//! Everything is made by the test that uses it and goes with it. The kinds of NAT are tested
//! themselves first, since a lab that is not what it says would make every other result worthless.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "../common/mod.rs"]
mod common;
mod download;
mod gateway;
mod kinds;
mod namespace;
mod nat;
mod net;
mod probe;
mod program;
mod stage;
mod wire;
