//! Thousands of random worlds, each with everything that can go wrong, and their invariants.
//!
//! `ADIT_SEEDS` worlds are played (2,000 by default), beginning at `ADIT_FIRST_SEED`, and the first
//! `ADIT_TWINS` of them (50) twice. A world that fails prints its seed.

mod seeds;

use adit_core::testing::marks::Marks;
use adit_core::testing::op::{Op, Side};
use adit_core::testing::play::{play, play_random};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use seeds::{replay, setting, sweep};

/// Operations of one world.
const LENGTH: usize = 100;

#[test]
fn random_faults_heal_and_leave_no_state() {
    let (first, count) = (setting("ADIT_FIRST_SEED", 0), setting("ADIT_SEEDS", 2_000));
    let (held, failed) = sweep((first, count), |seed| play_random(seed, LENGTH).marks);
    let mut marks = Marks::new();
    held.iter().for_each(|seen| marks.merge(seen));
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    if count >= 1_000 {
        assert_eq!(marks.missing(), [], "the worlds never came to this: {marks:#?}");
    }
}

#[test]
fn worlds_that_failed_once_hold() {
    let failed = replay("sim_sweep.seeds", 8, |seed| play_random(seed, LENGTH));
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
fn a_pending_request_is_reported_when_its_peer_is_disconnected() {
    let ask = Op::Request { side: Side::Connector, nth: 0, manner: 7 };
    let end = Op::Disconnect { side: Side::Connector, nth: 0 };
    let _ = play(1, &[Op::Dial, Op::Advance { power: 8 }, ask, end]);
}

#[test]
fn a_world_without_faults_connects_and_ends() {
    assert!(play(0, &[]).fingerprint.1 > 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/sim_sweep.txt"
        )))),
        ..ProptestConfig::default()
    })]

    /// A failure shrinks to few operations, which become a named test.
    #[test]
    fn any_operations_leave_a_world_that_heals(
        seed in 0_u64..1_000,
        ops in proptest::collection::vec(any::<[u8; 4]>().prop_map(Op::decode), 0..40),
    ) {
        let ops = [&[Op::Dial, Op::Advance { power: 8 }], &ops[..]].concat();
        let _ = play(seed, &ops);
    }
}
