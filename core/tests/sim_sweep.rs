//! Thousands of random worlds, each with everything that can go wrong: what must hold, holds.
//!
//! `ADIT_SEEDS` worlds are played (2,000 unless told otherwise), beginning at `ADIT_FIRST_SEED`, and
//! the first `ADIT_TWINS` of them (50) twice. A world that fails names its seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use adit_core::testing::marks::Marks;
use adit_core::testing::op::{Op, Side};
use adit_core::testing::play::{play, play_random};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;

/// Operations of one world.
const LENGTH: usize = 100;

#[test]
fn whatever_happens_to_two_nodes_the_tunnel_heals_and_nothing_is_left() {
    let (first, count) = (setting("ADIT_FIRST_SEED", 0), setting("ADIT_SEEDS", 2_000));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let part =
            |n| scope.spawn(move || sweep((first..first + count).filter(|s| s % threads == n)));
        let workers: Vec<_> = (0..threads).map(part).collect();
        workers.into_iter().map(|worker| worker.join().expect("panics are caught")).collect()
    });
    let mut marks = Marks::new();
    let mut failed: Vec<u64> = Vec::new();
    for (seen, seeds) in parts {
        marks.merge(&seen);
        failed.extend(seeds);
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    if count >= 1_000 {
        assert_eq!(marks.missing(), [], "the worlds never came to this: {marks:#?}");
    }
}

#[test]
fn worlds_that_failed_once_hold() {
    let seeds = include_str!("../../proptest-regressions/sim_sweep.seeds");
    let seeds = seeds.lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = seeds
        .map(|line| line.split(' ').next().and_then(|s| s.parse().ok()).expect("a seed"))
        .collect();
    assert!(seeds.len() >= 8, "a failure that was found is not forgotten");
    let (_, failed) = sweep(seeds.into_iter());
    assert!(failed.is_empty(), "seeds that failed again: {failed:?}");
}

#[test]
fn the_same_world_is_the_same_byte_for_byte() {
    for seed in 0..setting("ADIT_TWINS", 50) {
        let [one, two] = [(); 2].map(|()| play_random(seed, LENGTH));
        assert_eq!(one.fingerprint, two.fingerprint, "seed {seed}");
        assert_eq!((one.marks, one.time), (two.marks, two.time), "seed {seed}");
    }
}

#[test]
fn a_request_under_way_is_reported_when_its_peer_is_disconnected() {
    let ask = Op::Request { side: Side::Connector, nth: 0, manner: 7 };
    let end = Op::Disconnect { side: Side::Connector, nth: 0 };
    let _ = play(1, &[Op::Dial, Op::Advance { power: 8 }, ask, end]);
}

#[test]
fn a_world_in_which_nothing_happens_connects_and_ends() {
    assert!(play(0, &[]).fingerprint.1 > 0);
}

fn sweep(seeds: impl Iterator<Item = u64>) -> (Marks, Vec<u64>) {
    let (mut marks, mut failed) = (Marks::new(), Vec::new());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| play_random(seed, LENGTH))) {
            Ok(report) => marks.merge(&report.marks),
            Err(_) => {
                eprintln!("seed {seed} failed");
                failed.push(seed);
            }
        }
        if failed.len() > 5 {
            break;
        }
    }
    (marks, failed)
}

#[expect(clippy::disallowed_methods, reason = "a sweep is as long as whoever runs it wants")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/sim_sweep.txt"
        )))),
        ..ProptestConfig::default()
    })]

    /// A failure shrinks to few operations: from here it becomes a named test.
    #[test]
    fn any_operations_leave_a_world_that_heals(
        seed in 0_u64..1_000,
        ops in proptest::collection::vec(any::<[u8; 4]>().prop_map(Op::decode), 0..40),
    ) {
        let ops = [&[Op::Dial, Op::Advance { power: 8 }], &ops[..]].concat();
        let _ = play(seed, &ops);
    }
}
