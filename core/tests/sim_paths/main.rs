//! Agents and connectors behind NATs with relays between them, in virtual time: which way they find,
//! how soon, and what live traffic notices of a change.
//!
//! | file | what |
//! |---|---|
//! | `figures` | stalls at switches and failures, time to the direct way |
//! | `punching` | every pair of NATs |
//! | `faults` | relays that die, addresses that change, ways that flap |
//! | `evil` | a relay that does wrong on purpose |
//! | `attacks` | what a relay, a stranger and a peer cannot do |
//! | `sweep`, `world`, `wires` | random worlds: what must hold, holds |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attacks;
mod evil;
mod faults;
mod figures;
mod punching;
mod scene;
#[path = "../seeds/mod.rs"]
mod seeds;
mod sweep;
mod wires;
mod world;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// So many milliseconds.
const fn ms(milliseconds: u64) -> std::time::Duration {
    std::time::Duration::from_millis(milliseconds)
}

/// How many seeds a scenario plays: more when it is asked for.
fn seeds_or(usual: u64) -> u64 {
    seeds::setting("ADIT_SEEDS", usual)
}
