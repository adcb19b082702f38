//! Peers that mean harm, in virtual time against a real node: each is met by an event, a counter or
//! a closed connection with its cause, within its own limits, and disturbs nobody else.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod control;
mod flood;
mod handshakes;
mod outsiders;
mod raw;
mod scene;
mod streams;
mod swarm;
