//! Measures how many simulated worlds one core plays in a second: a handshake, a transfer and a
//! close with real TLS, and the random worlds of the sweep. It has no pass or fail.

use std::hint::black_box;
use std::time::Duration;

use adit_core::testing::pair::{Flow, Pair};
use adit_core::testing::play::play_random;
use criterion::{Criterion, Throughput};

/// Bytes transferred in one world.
const BYTES: u64 = 64 << 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("worlds");
    group.throughput(Throughput::Elements(1));
    let mut seed = 0;
    group.bench_function("connect, transfer 64 KiB, close", |b| {
        b.iter(|| {
            seed += 1;
            black_box(transfer(seed))
        });
    });
    group.bench_function("a hundred random operations, and healing", |b| {
        b.iter(|| {
            seed += 1;
            black_box(play_random(seed, 100))
        });
    });
    group.finish();
    criterion.final_summary();
}

fn transfer(seed: u64) -> u64 {
    let mut pair = Pair::new(seed);
    let (peer, _) = pair.connect();
    let (ours, theirs) = pair.open(peer, "db");
    let mut flow = Flow::new((pair.agent, ours), (pair.connector, theirs), BYTES);
    pair.wait("the bytes", |world| flow.advance(world));
    let (node, now) = pair.world.node_mut(pair.agent);
    node.disconnect(peer, now).expect("it is connected");
    pair.world.run_for(Duration::from_secs(10));
    assert_eq!(pair.world.next_at(), None, "nothing is left");
    pair.world.trace().fingerprint()
}
