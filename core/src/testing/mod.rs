//! A world in virtual time: seeded cryptography, certificates, a network and clocks; and the suite
//! that adapters to real time are held to.
//!
//! Everything here is for tests and fuzzing. The same seed gives the same world, byte for byte, and
//! no code outside [`conformance`] waits for real time to pass.

pub mod agenda;
mod asks;
mod climate;
pub mod clock;
pub mod conformance;
pub mod crypto;
mod flows;
pub mod fuzz_bytes;
pub mod fuzz_demux;
pub mod fuzz_identity;
pub mod fuzz_probe;
pub mod fuzz_records;
pub mod fuzz_relay;
pub mod fuzz_world;
pub mod host;
pub mod lab;
pub mod link;
mod lives;
pub mod marks;
pub mod nat;
pub mod net;
pub mod op;
pub mod pair;
mod phases;
pub mod pki;
pub mod play;
pub mod trace;
pub mod watch;
pub mod world;

/// Returns a seed of the length that the generators take.
#[must_use]
pub fn widen(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
