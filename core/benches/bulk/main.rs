//! One bulk stream within one thread, without sockets: what the protocol alone costs.
//!
//! It decides sizes and rounds, and prints medians. It never judges them.
//!
//! ```text
//! cargo bench -p adit-core --bench bulk
//! ```

mod bare;
mod node;
#[path = "../stream/mod.rs"]
mod stream;

use std::error::Error;
use std::time::Duration;

/// Bytes moved in one round.
const BYTES: u64 = 256 << 20;
/// Rounds of each size; the median counts.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    // Only `cargo bench` passes this; test runners start benchmarks too, and want no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    println!("{:<32}{:>12}{:>12}", "256 MiB on one stream", "GB/s", "Gbit/s");
    for mtu in [1_452, 8_900, 65_000] {
        let config = bare::Config::of_mtu(mtu);
        let (mut bare, mut nodes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (floor, ours) = (bare::bulk(BYTES, &config)?, node::bulk(BYTES, &config)?);
            ratios.push(floor.as_secs_f64() / ours.as_secs_f64());
            bare.push(floor);
            nodes.push(ours);
        }
        show(&format!("bare quinn-proto, {mtu} B packets"), bare);
        show(&format!("two nodes, {mtu} B packets"), nodes);
        ratios.sort_unstable_by(f64::total_cmp);
        println!("{:<32}{:>12.2}", "ratio, pair by pair", ratios[ratios.len() / 2]);
    }
    Ok(())
}

fn show(name: &str, mut rounds: Vec<Duration>) {
    rounds.sort_unstable();
    let per_second = BYTES as f64 / rounds[rounds.len() / 2].as_secs_f64() / 1e9;
    println!("{name:<32}{per_second:>12.2}{:>12.1}", per_second * 8.0);
}
