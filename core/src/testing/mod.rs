//! Simulation.

pub mod fuzz_bytes;
