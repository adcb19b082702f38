//! Measures the cost of the path layer, within one thread and without sockets: a relay's forwarding
//! of packets, and bulk on the direct path compared with the same between two nodes without paths.
//!
//! It decides sizes and rounds, and prints medians. It never judges them.
//!
//! ```text
//! cargo bench -p adit-core --bench paths
//! ```

#[path = "../stream/mod.rs"]
mod stream;
mod trio;

use std::error::Error;
use std::time::Duration;

use trio::{PathKind, Trio};

/// Bytes moved in one round.
const BYTES: u64 = 256 << 20;
/// Bytes moved through the relay in one round.
const RELAYED: u64 = 64 << 20;
/// Rounds; the median counts.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    // Only `cargo bench` passes this; test runners start benchmarks too, and want no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    relayed()?;
    for mtu in [1_452, 8_900, 16_336] {
        direct(mtu)?;
    }
    Ok(())
}

/// Prints the packets that a relay forwards in a second of its own time.
fn relayed() -> Result<(), Box<dyn Error>> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let mut trio = Trio::new(PathKind::Relayed, 1_452)?;
        trio.bulk(RELAYED)?;
        let seconds = trio.relay_time().as_secs_f64();
        rates.push(trio.forwarded()? as f64 / seconds);
    }
    rates.sort_unstable_by(f64::total_cmp);
    println!("{:<48}{:>12.0}", "packets a second through a relay, one core", rates[ROUNDS / 2]);
    Ok(())
}

fn direct(mtu: u16) -> Result<(), Box<dyn Error>> {
    let (mut plain, mut direct, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = Trio::new(PathKind::Plain, mtu)?.bulk(BYTES)?;
        let with = Trio::new(PathKind::Direct, mtu)?.bulk(BYTES)?;
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
        plain.push(without);
        direct.push(with);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("{:<48}{:>12.2} GB/s", format!("without paths, {mtu} B packets"), rate(plain));
    println!("{:<48}{:>12.2} GB/s", format!("direct path, {mtu} B packets"), rate(direct));
    println!("{:<48}{:>12.2}", "ratio, pair by pair", ratios[ROUNDS / 2]);
    Ok(())
}

fn rate(mut rounds: Vec<Duration>) -> f64 {
    rounds.sort_unstable();
    BYTES as f64 / rounds[rounds.len() / 2].as_secs_f64() / 1e9
}
