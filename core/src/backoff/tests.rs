//! Delays: the series, its bounds, and what jitter is for.

use super::{Backoff, BackoffConfig, BackoffConfigError, LONGEST};
use crate::rng::Rng;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::time::Duration;

const NANO: Duration = Duration::from_nanos(1);

fn backoff(config: BackoffConfig) -> Backoff {
    Backoff::new(config, Rng::new([1; 32], "backoff"))
}

#[test]
fn the_series_doubles_from_one_second_to_fifteen() {
    let mut exact = backoff(BackoffConfig::builder().jitter(0.0).build().unwrap());
    let delays: Vec<_> = (1..=8).map(|attempt| exact.delay(attempt).as_secs()).collect();
    assert_eq!(delays, [1, 2, 4, 8, 15, 15, 15, 15]);
    assert_eq!(exact.delay(0), exact.delay(1));
    assert_eq!(exact.delay(u32::MAX), Duration::from_secs(15));
}

#[test]
fn a_multiplier_of_one_keeps_the_delay_at_any_attempt() {
    let mut even = backoff(BackoffConfig::builder().multiplier(1.0).jitter(0.0).build().unwrap());
    assert_eq!(even.delay(u32::MAX), Duration::from_secs(1));
}

#[test]
fn the_cap_holds_before_jitter_and_not_after() {
    let mut capped = backoff(BackoffConfig::default());
    let delays: Vec<_> = (0..1_000).map(|_| capped.delay(20)).collect();
    assert!(delays.iter().any(|&delay| delay > Duration::from_secs(15)));
    assert!(delays.iter().all(|&delay| delay <= Duration::from_millis(19_500)));
    assert!(delays.iter().all(|&delay| delay >= Duration::from_millis(10_500)));
}

#[test]
fn a_thousand_clients_dropped_together_do_not_return_together() {
    // An even spread has 17 in each 10 ms of the first attempt's 0.6 s, 1.1 in those of 9 s; the
    // limits are what chance adds to that less than once in a million.
    for (attempt, at_most) in [(1, 40), (7, 12)] {
        let mut per_window = std::collections::BTreeMap::<u128, u32>::new();
        for client in 0..1_000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&client.to_le_bytes());
            let mut backoff = Backoff::new(BackoffConfig::default(), Rng::new(seed, "backoff"));
            *per_window.entry(backoff.delay(attempt).as_millis() / 10).or_default() += 1;
        }
        let most = per_window.values().max().copied().unwrap();
        assert!(most <= at_most, "{most} of 1,000 clients within 10 ms at attempt {attempt}");
    }
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let (mut a, mut b) = (backoff(BackoffConfig::default()), backoff(BackoffConfig::default()));
    for attempt in 1..100 {
        assert_eq!(a.delay(attempt), b.delay(attempt));
    }
}

#[test]
fn a_time_without_end_is_cut_to_a_day_before_its_jitter() {
    assert!(backoff(BackoffConfig::default()).at_least(Duration::MAX) <= LONGEST.mul_f64(1.3));
}

#[test]
fn a_first_delay_of_zero_is_refused_and_the_shortest_is_not() {
    assert_eq!(
        BackoffConfig::builder().initial(Duration::ZERO).build(),
        Err(BackoffConfigError::InitialZero)
    );
    assert!(BackoffConfig::builder().initial(NANO).build().is_ok());
}

#[test]
fn a_first_delay_at_the_cap_is_taken_and_one_past_it_refused() {
    let max = Duration::from_secs(15);
    assert!(BackoffConfig::builder().initial(max).build().is_ok());
    assert_eq!(
        BackoffConfig::builder().initial(max + NANO).build(),
        Err(BackoffConfigError::InitialAboveMax { initial: max + NANO, max })
    );
}

#[test]
fn a_cap_of_a_day_is_taken_and_one_past_it_refused() {
    assert!(BackoffConfig::builder().max(LONGEST).build().is_ok());
    assert_eq!(
        BackoffConfig::builder().max(LONGEST + NANO).build(),
        Err(BackoffConfigError::MaxTooLong(LONGEST + NANO))
    );
}

#[test]
fn a_multiplier_below_one_or_without_end_is_refused() {
    assert!(BackoffConfig::builder().multiplier(1.0).build().is_ok());
    for multiplier in [1.0 - f64::EPSILON, -2.0, f64::INFINITY, f64::NAN] {
        let refused = BackoffConfig::builder().multiplier(multiplier).build();
        assert!(matches!(refused, Err(BackoffConfigError::Multiplier(_))), "{multiplier}");
    }
}

#[test]
fn a_jitter_of_one_or_below_zero_is_refused() {
    assert!(BackoffConfig::builder().jitter(0.0).build().is_ok());
    assert!(BackoffConfig::builder().jitter(1.0 - f64::EPSILON).build().is_ok());
    for jitter in [1.0, -f64::EPSILON, f64::NAN] {
        let refused = BackoffConfig::builder().jitter(jitter).build();
        assert!(matches!(refused, Err(BackoffConfigError::Jitter(_))), "{jitter}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/backoff.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_delay_lies_within_its_bounds(
        initial in 1u64..LONGEST.as_millis() as u64,
        max in 1u64..LONGEST.as_millis() as u64,
        multiplier in prop_oneof![Just(1.0), Just(2.0), 1.0f64..1e9],
        jitter in 0.0f64..1.0,
        attempt in prop_oneof![0u32..40, any::<u32>()],
        seed: [u8; 32],
    ) {
        let (initial, max) = (Duration::from_millis(initial.min(max)), Duration::from_millis(max));
        let config = BackoffConfig::builder()
            .initial(initial).max(max).multiplier(multiplier).jitter(jitter).build().unwrap();
        let mut backoff = Backoff::new(config, Rng::new(seed, "backoff"));
        let base = backoff.base(attempt);
        prop_assert!(base >= initial.saturating_sub(NANO) && base <= max);
        prop_assert!(backoff.base(attempt.saturating_add(1)) >= base);
        let delay = backoff.delay(attempt);
        prop_assert!(delay >= base.mul_f64(1.0 - jitter).saturating_sub(NANO));
        prop_assert!(delay <= base.mul_f64(1.0 + jitter) + NANO);
    }

    #[test]
    fn what_a_peer_asked_for_is_never_cut_short(requested in 0u64..86_400_000, seed: [u8; 32]) {
        let requested = Duration::from_millis(requested);
        let delay = Backoff::new(BackoffConfig::default(), Rng::new(seed, "backoff")).at_least(requested);
        prop_assert!(delay >= requested && delay <= requested.mul_f64(1.3) + NANO);
    }

    #[test]
    fn a_delay_within_a_span_never_reaches_its_end(
        span in prop_oneof![1u64..10, any::<u64>()], seed: [u8; 32]
    ) {
        let span = Duration::from_nanos(span);
        let mut backoff = Backoff::new(BackoffConfig::default(), Rng::new(seed, "backoff"));
        prop_assert!(backoff.within(span) < span);
        prop_assert_eq!(backoff.within(Duration::ZERO), Duration::ZERO);
    }
}

#[test]
fn the_third_delay_is_four_seconds_with_jitter() {
    use crate::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    };
    use std::time::Duration;
    let mut backoff = Backoff::new(BackoffConfig::default(), Rng::new([0; 32], "backoff"));
    let third = backoff.delay(3);
    assert!(third >= Duration::from_millis(2_800) && third <= Duration::from_millis(5_200));
}
