//! Malicious peers, in virtual time against a real node: each causes an event, a counter or a
//! closed connection with its cause, within its own limits, and disturbs no other peer.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod control;
mod flood;
mod handshakes;
mod outsiders;
mod raw;
mod scene;
mod streams;
mod swarm;
