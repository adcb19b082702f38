//! Agents and connectors behind NATs with relays between them, in virtual time: which path they
//! find, how soon, and what live traffic observes of a change.
//!
//! | file | what |
//! |---|---|
//! | `figures` | stalls at switches and failures, time to the direct path |
//! | `punching` | every pair of NATs |
//! | `faults` | relays that fail, addresses that change, paths that flap |
//! | `evil` | a malicious relay |
//! | `attacks` | what a relay, a stranger and a peer cannot do |
//! | `pauses` | paths that pause together, NATs that rebind, a peer that is stopped often |
//! | `narrow` | paths that carry small packets only |
//! | `outages`, `outage_world`, `traffic` | outages of all paths under traffic |
//! | `sweep`, `world`, `wires` | random worlds and their invariants |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attacks;
mod evil;
mod faults;
mod figures;
mod narrow;
mod outage_world;
mod outages;
mod pauses;
mod punching;
mod scene;
#[path = "../seeds/mod.rs"]
mod seeds;
mod sweep;
mod traffic;
mod wires;
mod world;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// Returns this many milliseconds.
const fn ms(milliseconds: u64) -> std::time::Duration {
    std::time::Duration::from_millis(milliseconds)
}

/// Returns how many seeds a scenario plays: more if the environment sets it.
fn seeds_or(usual: u64) -> u64 {
    seeds::setting("ADIT_SEEDS", usual)
}
