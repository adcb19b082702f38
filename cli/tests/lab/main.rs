//! The real program behind real NATs: namespaces of the kernel, its own packet filter, and links
//! that delay and lose. Needs root and `nft`; where they are missing, it prints so and skips the
//! tests.
//!
//! Each test makes everything that it uses, and removes it. The kinds of NAT are tested themselves,
//! since a lab with wrong NATs would make every other result worthless.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "../common/mod.rs"]
mod common;
mod download;
mod gateway;
mod kinds;
mod moves;
mod namespace;
mod nat;
mod net;
mod probe;
mod program;
mod proxy;
mod recovery;
mod stage;
mod wire;
