//! Tests of waiting and giving up: by cause, by count, by the peer's request and by network
//! changes.

use super::{
    ABSENT_DELAYS, Attempt, DEMAND_INTERVAL, DEMAND_LASTS, LONGEST_RETRY_AFTER,
    NETWORK_CHANGE_INTERVAL, NETWORK_CHANGE_SPREAD, OVERLOADED_WAIT, Policy, PolicyError, Retry,
    RetryDecision,
};
use crate::backoff;
use crate::error::{Category, Code, Failure};
use crate::rng::Rng;
use crate::timer::{Reason, anchor};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::time::{Duration, Instant};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lost_link_is_tried_again_after_the_first_delay_and_once() {
    let now = anchor();
    let mut retry = exact(limited());
    retry.on_up(now);
    let until = now + SECOND;
    assert_eq!(retry.on_down(&silence(), now), RetryDecision::Wait { attempt: 1, until });
    assert_eq!(retry.deadline(), Some((until, Reason::Reconnect)));
    assert_eq!(retry.poll(until - NANO), None);
    assert_eq!(retry.poll(until), Some(Attempt { number: 1 }));
    assert_eq!(retry.poll(until), None);
    assert_eq!(retry.deadline(), None);
}

#[test]
fn a_first_reset_retries_immediately_and_a_second_backs_off() {
    let now = anchor();
    let mut retry = exact(limited());
    let reset = Failure::new(Code::Reset, "");
    let first = wait(&mut retry, &reset, now);
    assert!(first < super::RESET_SPREAD, "{first:?}");
    let again = now + first;
    retry.poll(again).unwrap();
    assert_eq!(wait(&mut retry, &reset, again), Duration::from_secs(2));
}

#[test]
fn an_interactive_agent_gives_up_after_its_tenth_attempt_and_not_before() {
    let mut now = anchor();
    let mut retry = exact(limited());
    let mut verdict = retry.on_attempt_failed(&silence(), now);
    for number in 1..=10 {
        let RetryDecision::Wait { attempt, until } = verdict else {
            panic!("gave up before {number}")
        };
        assert_eq!(attempt, number);
        now = until;
        assert_eq!(retry.poll(now), Some(Attempt { number }));
        verdict = retry.on_attempt_failed(&silence(), now);
    }
    assert_eq!(verdict, RetryDecision::GiveUp(silence()));
    assert_eq!((retry.attempts(), retry.deadline(), retry.poll(now)), (0, None, None));
}

#[test]
fn the_default_is_without_end_and_a_limit_is_asked_for() {
    let limits = |policy: Policy| (policy.max_attempts(), policy.max_unavailable());
    for policy in [Policy::default(), Policy::persistent(), Policy::builder().build().unwrap()] {
        assert_eq!(limits(policy), (None, None));
    }
    assert_eq!(limits(Policy::interactive()), (Some(10), Some(5)));
}

#[test]
fn a_persistent_link_never_gives_up_on_the_network() {
    let mut now = anchor();
    let mut retry = Retry::new(Policy::persistent(), Rng::new([3; 32], "retry"));
    for code in [Code::TimedOut, Code::ShuttingDown].iter().cycle().take(1_000) {
        let verdict = retry.on_attempt_failed(&Failure::new(*code, ""), now);
        let RetryDecision::Wait { until, .. } = verdict else { panic!("gave up") };
        now = until;
        assert!(retry.poll(now).is_some());
    }
}

#[test]
fn no_attempt_allowed_means_giving_up_immediately() {
    let mut retry = exact(limited().max_attempts(Some(0)));
    assert_eq!(retry.on_down(&silence(), anchor()), RetryDecision::GiveUp(silence()));
}

#[test]
fn every_cause_has_its_verdict() {
    let now = anchor();
    for &code in Code::ALL {
        let failure = Failure::new(code, "");
        let verdict =
            Retry::new(Policy::persistent(), Rng::new([0; 32], "retry")).on_down(&failure, now);
        match code.category() {
            Category::Authentication | Category::Configuration => {
                assert_eq!(verdict, RetryDecision::GiveUp(failure));
            }
            Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
                assert!(
                    matches!(verdict, RetryDecision::Wait { attempt: 1, .. }),
                    "{}",
                    code.as_str()
                );
            }
        }
    }
}

#[test]
fn an_unavailable_peer_is_asked_five_times_more_and_no_sixth() {
    let mut now = anchor();
    let mut retry = exact(limited());
    let away = Failure::new(Code::BackendUnavailable, "");
    for _ in 0..5 {
        let RetryDecision::Wait { until, .. } = retry.on_attempt_failed(&away, now) else {
            panic!("gave up early")
        };
        now = until;
        retry.poll(now).unwrap();
    }
    assert_eq!(retry.on_attempt_failed(&away, now), RetryDecision::GiveUp(away));
}

#[test]
fn an_overloaded_peer_is_retried_as_requested_or_after_a_minute() {
    let now = anchor();
    let overloaded = Failure::new(Code::Overloaded, "");
    assert_eq!(wait(&mut exact(limited()), &overloaded, now), OVERLOADED_WAIT);
    let told = overloaded.with_retry_after(7 * SECOND);
    assert_eq!(wait(&mut exact(limited()), &told, now), 7 * SECOND);
}

#[test]
fn a_stable_link_resets_the_unavailable_count() {
    let away = Failure::new(Code::ShuttingDown, "");
    for cancelled in [false, true] {
        let mut now = anchor();
        let mut retry = exact(limited());
        for _ in 0..2 {
            for _ in 0..5 {
                now += wait(&mut retry, &away, now);
                retry.poll(now).unwrap();
            }
            if cancelled {
                retry.cancel();
            } else {
                retry.on_up(now);
                now += 10 * SECOND;
            }
        }
    }
}

#[test]
fn overload_does_not_count_as_unavailable() {
    let mut now = anchor();
    let mut retry = exact(limited());
    for _ in 0..10 {
        now += wait(&mut retry, &Failure::new(Code::Overloaded, ""), now);
        retry.poll(now).unwrap();
    }
    assert_eq!(retry.attempts(), 10);
}

#[test]
fn a_peers_request_is_a_floor_and_not_a_short_cut() {
    let now = anchor();
    let soon = silence().with_retry_after(SECOND - NANO);
    assert_eq!(wait(&mut exact(limited()), &soon, now), SECOND);
    let later = silence().with_retry_after(SECOND + NANO);
    assert_eq!(wait(&mut exact(limited()), &later, now), SECOND + NANO);
}

#[test]
fn a_peers_request_is_honoured_for_an_hour_and_no_longer() {
    let now = anchor();
    for told in [LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER + NANO, Duration::MAX] {
        let told = silence().with_retry_after(told);
        assert_eq!(wait(&mut exact(limited()), &told, now), LONGEST_RETRY_AFTER);
    }
}

#[test]
fn clients_with_one_retry_after_return_spread_out() {
    let now = anchor();
    let told = Failure::new(Code::Overloaded, "").with_retry_after(30 * SECOND);
    let mut per_window = std::collections::BTreeMap::<u128, u32>::new();
    for client in 0..1_000u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&client.to_le_bytes());
        let mut retry = Retry::new(Policy::interactive(), Rng::new(seed, "retry"));
        let wait = wait(&mut retry, &told, now);
        assert!(wait >= 30 * SECOND && wait <= 39 * SECOND);
        *per_window.entry(wait.as_millis() / 100).or_default() += 1;
    }
    // An even spread over 9 s has 11 in each 100 ms.
    assert!(per_window.values().all(|&clients| clients < 30));
}

#[test]
fn a_link_is_stable_exactly_after_its_time_and_not_before() {
    let start = anchor();
    for (up_for, next) in [(10 * SECOND - NANO, 2), (10 * SECOND, 1)] {
        let mut retry = exact(limited());
        wait(&mut retry, &silence(), start);
        let up = start + SECOND;
        retry.poll(up).unwrap();
        retry.on_up(up);
        assert_eq!(retry.deadline(), Some((up + 10 * SECOND, Reason::Stable)));
        let verdict = retry.on_down(&silence(), up + up_for);
        assert!(matches!(verdict, RetryDecision::Wait { attempt, .. } if attempt == next));
    }
}

#[test]
fn a_stable_link_shows_no_attempts_and_asks_for_no_more_calls() {
    let now = anchor();
    let mut retry = exact(limited());
    wait(&mut retry, &silence(), now);
    retry.on_up(now);
    assert_eq!(retry.attempts(), 1);
    assert_eq!(retry.poll(now + 10 * SECOND), None);
    assert_eq!((retry.attempts(), retry.deadline()), (0, None));
}

#[test]
fn hearing_twice_that_the_link_is_up_does_not_delay_stability() {
    let now = anchor();
    let mut retry = exact(limited());
    retry.on_up(now);
    retry.on_up(now + SECOND);
    assert_eq!(retry.deadline(), Some((now + 10 * SECOND, Reason::Stable)));
}

#[test]
fn news_of_an_old_attempt_during_a_wait_changes_nothing() {
    let now = anchor();
    let mut retry = exact(limited());
    let first = retry.on_down(&silence(), now);
    assert_eq!(retry.on_attempt_failed(&silence(), now + NANO), first);
    let refused = Failure::new(Code::Unauthenticated, "");
    assert_eq!(retry.on_down(&refused, now + NANO), first);
}

#[test]
fn a_cancelled_wait_yields_no_attempt_and_a_fresh_count() {
    let now = anchor();
    let mut retry = exact(limited());
    wait(&mut retry, &silence(), now);
    assert!(retry.is_waiting());
    retry.cancel();
    assert!(!retry.is_waiting());
    assert_eq!((retry.poll(now + 60 * SECOND), retry.deadline()), (None, None));
    assert_eq!(
        retry.on_attempt_failed(&silence(), now),
        RetryDecision::Wait { attempt: 1, until: now + SECOND }
    );
}

#[test]
fn a_network_change_brings_a_long_wait_forward() {
    let now = anchor();
    let mut retry = waiting_long(now);
    let sooner = retry.on_network_change(now + SECOND).unwrap();
    assert!(sooner >= now + SECOND && sooner < now + SECOND + NETWORK_CHANGE_SPREAD);
    assert_eq!(retry.deadline(), Some((sooner, Reason::Reconnect)));
    assert!(retry.poll(sooner).is_some());
}

#[test]
fn a_network_change_never_makes_a_wait_longer() {
    let now = anchor();
    let mut retry = exact(limited());
    wait(&mut retry, &silence(), now);
    assert_eq!(retry.on_network_change(now + SECOND), None);
    assert_eq!(retry.deadline(), Some((now + SECOND, Reason::Reconnect)));
}

#[test]
fn a_network_change_does_not_override_what_the_peer_asked_for() {
    let now = anchor();
    let mut retry = exact(limited());
    wait(&mut retry, &Failure::new(Code::Overloaded, ""), now);
    assert_eq!(retry.on_network_change(now), None);
    assert_eq!(retry.deadline(), Some((now + OVERLOADED_WAIT, Reason::Reconnect)));
}

#[test]
fn a_second_network_change_waits_for_its_interval_and_is_not_lost() {
    let now = anchor();
    let mut retry = waiting_long(now);
    let first = retry.on_network_change(now).unwrap();
    assert_eq!(retry.on_network_change(now), None, "the wait is short already");
    retry.poll(first).unwrap();
    wait(&mut retry, &silence(), first);
    let second = retry.on_network_change(first + NANO).unwrap();
    assert!(second >= first + NETWORK_CHANGE_INTERVAL);
    assert!(second < first + NETWORK_CHANGE_INTERVAL + NETWORK_CHANGE_SPREAD);
}

#[test]
fn a_network_change_outside_a_wait_does_nothing() {
    let now = anchor();
    let mut retry = exact(limited());
    assert_eq!(retry.on_network_change(now), None);
    retry.on_up(now);
    assert_eq!(retry.on_network_change(now), None);
}

#[test]
fn no_wait_is_longer_than_twenty_seconds_without_a_request_of_the_peer() {
    for seed in 0..100 {
        let mut now = anchor();
        let mut retry = Retry::new(Policy::default(), Rng::new([seed; 32], "retry"));
        for _ in 0..20 {
            let wait = wait(&mut retry, &silence(), now);
            assert!(wait <= 20 * SECOND, "{wait:?}");
            now += wait;
            retry.poll(now).unwrap();
        }
    }
}

#[test]
fn a_demand_makes_the_attempt_now() {
    let now = anchor();
    let mut retry = waiting_long(now);
    let sooner = retry.on_demand(now + SECOND).unwrap();
    assert!(sooner >= now + SECOND && sooner < now + SECOND + super::RESET_SPREAD);
    assert_eq!(retry.deadline(), Some((sooner, Reason::Reconnect)));
    assert!(retry.poll(sooner).is_some());
}

#[test]
fn attempts_on_demand_are_two_seconds_apart() {
    let now = anchor();
    let mut retry = waiting_long(now);
    let first = retry.on_demand(now).unwrap();
    retry.poll(first).unwrap();
    for failed_after in [Duration::ZERO, SECOND, DEMAND_INTERVAL - NANO] {
        let mut retry = retry.clone();
        let failed = first + failed_after;
        let next = failed + wait(&mut retry, &silence(), failed);
        assert!(next >= first + DEMAND_INTERVAL, "{failed_after:?}");
        assert!(next < first + DEMAND_INTERVAL + super::RESET_SPREAD, "{failed_after:?}");
        // Further demand in that time brings no attempt before it.
        let again = retry.on_demand(failed).unwrap_or(next);
        assert!(again >= first + DEMAND_INTERVAL);
    }
}

#[test]
fn a_demand_lasts_ten_seconds_and_not_longer() {
    let now = anchor();
    for (failed_after, is_hurried) in [(DEMAND_LASTS - NANO, true), (DEMAND_LASTS, false)] {
        let mut retry = waiting_long(now);
        let first = retry.on_demand(now).unwrap();
        retry.poll(first).unwrap();
        let wait = wait(&mut retry, &silence(), now + failed_after);
        assert_eq!(wait < super::RESET_SPREAD, is_hurried, "{failed_after:?}: {wait:?}");
    }
}

#[test]
fn a_link_that_is_waited_for_never_waits_ten_seconds() {
    for seed in 0..50 {
        let mut now = anchor();
        let mut retry = Retry::new(Policy::default(), Rng::new([seed; 32], "retry"));
        for _ in 0..50 {
            retry.on_demand(now);
            let wait = wait(&mut retry, &silence(), now);
            assert!(wait <= 10 * SECOND, "{wait:?}");
            now += wait;
            retry.poll(now).unwrap();
            now += 3 * SECOND;
        }
    }
}

#[test]
fn a_demand_does_not_override_what_the_peer_asked_for() {
    let now = anchor();
    let mut retry = exact(limited());
    retry.on_demand(now);
    let wait = wait(&mut retry, &silence().with_retry_after(7 * SECOND), now);
    assert_eq!(wait, 7 * SECOND);
    assert_eq!(retry.on_demand(now + SECOND), None);
    assert_eq!(retry.deadline(), Some((now + 7 * SECOND, Reason::Reconnect)));
}

#[test]
fn a_lost_link_that_is_waited_for_is_dialled_within_a_tenth_of_a_second() {
    let now = anchor();
    let mut retry = exact(limited());
    retry.on_up(now);
    retry.on_demand(now);
    let RetryDecision::Wait { until, .. } = retry.on_down(&silence(), now + SECOND) else {
        panic!("gave up")
    };
    assert!(until < now + SECOND + super::RESET_SPREAD);
}

#[test]
fn an_absent_connector_is_asked_for_again_and_no_attempt_counts() {
    let mut now = anchor();
    let mut retry = exact(limited().max_attempts(Some(1)));
    retry.on_up(now);
    let RetryDecision::Wait { until, .. } = retry.on_down(&silence(), now) else {
        panic!("gave up")
    };
    now = until;
    let absent = Failure::new(Code::UnknownService, "");
    for delay in ABSENT_DELAYS {
        retry.poll(now).unwrap();
        assert_eq!(wait(&mut retry, &absent, now), delay);
        now += delay;
    }
    assert_eq!(ABSENT_DELAYS.map(|delay| delay.as_secs()), [1, 1, 1, 5]);
    retry.poll(now).unwrap();
    assert_eq!(retry.on_attempt_failed(&absent, now), RetryDecision::GiveUp(absent));
}

#[test]
fn a_connector_that_was_never_there_is_asked_for_as_often_as_the_policy_allows() {
    let mut now = anchor();
    let mut retry = exact(limited().max_attempts(Some(2)));
    let absent = Failure::new(Code::UnknownService, "");
    for delay in &ABSENT_DELAYS[..2] {
        assert_eq!(wait(&mut retry, &absent, now), *delay);
        now += *delay;
        retry.poll(now).unwrap();
    }
    assert_eq!(retry.on_attempt_failed(&absent, now), RetryDecision::GiveUp(absent));
}

#[test]
fn the_time_to_become_stable_lies_above_zero_and_within_a_day() {
    let build = |after| Policy::builder().stable_after(after).build();
    assert_eq!(build(Duration::ZERO), Err(PolicyError::StableAfterZero));
    assert!(build(NANO).is_ok());
    assert!(build(backoff::LONGEST).is_ok());
    let too_long = backoff::LONGEST + NANO;
    assert_eq!(build(too_long), Err(PolicyError::StableAfterTooLong(too_long)));
}

#[derive(Debug, Clone)]
enum Op {
    Up,
    Down(Code),
    AttemptFailed(Code, Option<u64>),
    NetworkChange,
    Demand,
    Cancel,
    Pass(u64),
    ToDeadline,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let code = prop::sample::select(Code::ALL.to_vec());
    let op = prop_oneof![
        1 => Just(Op::Up),
        2 => code.clone().prop_map(Op::Down),
        4 => (code, prop::option::of(0u64..10_000))
            .prop_map(|(code, told)| Op::AttemptFailed(code, told)),
        3 => Just(Op::NetworkChange),
        2 => Just(Op::Demand),
        1 => Just(Op::Cancel),
        3 => (0u64..20_000).prop_map(Op::Pass),
        6 => Just(Op::ToDeadline),
    ];
    prop::collection::vec(op, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/retry.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_attempt_for_each_wait_within_its_bounds_whatever_happens(ops in ops(), seed: [u8; 32]) {
        let mut now = anchor();
        let mut retry = Retry::new(Policy::interactive(), Rng::new(seed, "retry"));
        let mut standing: Option<(u32, Instant)> = None;
        for op in ops {
            let verdict = match op {
                Op::Down(code) => Some(retry.on_down(&Failure::new(code, ""), now)),
                Op::AttemptFailed(code, told) => {
                    let mut failure = Failure::new(code, "");
                    if let Some(told) = told {
                        failure = failure.with_retry_after(Duration::from_millis(told));
                    }
                    Some(retry.on_attempt_failed(&failure, now))
                }
                Op::Up => {
                    retry.on_up(now);
                    standing = None;
                    None
                }
                Op::Cancel => {
                    retry.cancel();
                    standing = None;
                    None
                }
                Op::NetworkChange => {
                    if let Some(sooner) = retry.on_network_change(now) {
                        let (attempt, until) = standing.expect("only a wait can be shortened");
                        prop_assert!(sooner >= now && sooner < until);
                        standing = Some((attempt, sooner));
                    }
                    None
                }
                Op::Demand => {
                    if let Some(sooner) = retry.on_demand(now) {
                        let (attempt, until) = standing.expect("only a wait can be shortened");
                        prop_assert!(sooner >= now && sooner < until);
                        standing = Some((attempt, sooner));
                    }
                    None
                }
                Op::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    None
                }
                Op::ToDeadline => {
                    now = retry.deadline().map_or(now, |(at, _)| at.max(now));
                    None
                }
            };
            match verdict {
                Some(RetryDecision::Wait { attempt, until }) => {
                    prop_assert!((1..=10).contains(&attempt));
                    match standing {
                        Some(standing) => prop_assert_eq!((attempt, until), standing),
                        None => prop_assert!(until >= now && until <= now + 78 * SECOND),
                    }
                    standing = Some((attempt, until));
                }
                Some(RetryDecision::GiveUp(_)) => {
                    prop_assert_eq!(standing, None);
                    prop_assert_eq!(retry.deadline(), None);
                }
                None => {}
            }
            match retry.poll(now) {
                Some(Attempt { number }) => {
                    let (attempt, until) = standing.take().expect("an attempt without a wait");
                    prop_assert!(number == attempt && until <= now);
                }
                None => prop_assert!(standing.is_none_or(|(_, until)| until > now)),
            }
            prop_assert_eq!(retry.poll(now), None);
            prop_assert!(retry.deadline().is_none_or(|(at, _)| at > now), "a deadline in the past");
            prop_assert_eq!(retry.is_waiting(), standing.is_some());
        }
    }

    #[test]
    fn attempts_per_window_stay_bounded_under_a_flapping_network(
        flaps in prop::collection::vec(1u64..3_000, 100), seed: [u8; 32]
    ) {
        let start = anchor();
        let mut now = start;
        let mut retry = Retry::new(Policy::persistent(), Rng::new(seed, "retry"));
        let mut attempts = 0u32;
        retry.on_down(&silence(), now);
        for pause in flaps {
            now += Duration::from_millis(pause);
            if retry.poll(now).is_some() {
                attempts += 1;
                retry.on_attempt_failed(&silence(), now);
            }
            let _ = retry.on_network_change(now);
        }
        let elapsed = now.duration_since(start).as_secs_f64();
        let hurried = elapsed / NETWORK_CHANGE_INTERVAL.as_secs_f64() + 1.0;
        let by_backoff = 5.0 + elapsed / 10.5;
        prop_assert!(f64::from(attempts) <= hurried + by_backoff, "{attempts} in {elapsed} s");
    }
}

/// Returns the limits of an interactive agent, to change or to build.
fn limited() -> super::PolicyBuilder {
    let policy = Policy::interactive();
    Policy::builder().max_attempts(policy.max_attempts()).max_unavailable(policy.max_unavailable())
}

fn silence() -> Failure {
    Failure::new(Code::TimedOut, "")
}

fn exact(policy: super::PolicyBuilder) -> Retry {
    let backoff = backoff::BackoffConfig::builder().jitter(0.0).build().unwrap();
    Retry::new(policy.backoff(backoff).build().unwrap(), Rng::new([0; 32], "retry"))
}

fn wait(retry: &mut Retry, failure: &Failure, now: Instant) -> Duration {
    match retry.on_attempt_failed(failure, now) {
        RetryDecision::Wait { until, .. } => until.duration_since(now),
        RetryDecision::GiveUp(failure) => panic!("gave up: {failure}"),
    }
}

fn waiting_long(now: Instant) -> Retry {
    let long = backoff::BackoffConfig::builder().initial(60 * SECOND).max(60 * SECOND);
    let backoff = long.jitter(0.0).build().unwrap();
    let policy = Policy::builder().backoff(backoff).build().unwrap();
    let mut retry = Retry::new(policy, Rng::new([0; 32], "retry"));
    wait(&mut retry, &silence(), now);
    retry
}

#[test]
fn an_unproven_refusal_ends_a_first_dial_and_no_link_that_had_been_up() {
    let (mut retry, now) = (exact(limited()), anchor());
    let proven = Failure::new(Code::Unauthenticated, "unknown CA");
    let unproven = proven.clone().unproven();
    assert_eq!(retry.on_attempt_failed(&unproven, now), RetryDecision::GiveUp(unproven.clone()));
    retry.on_up(now);
    let RetryDecision::Wait { attempt: 1, until } = retry.on_down(&unproven, now) else {
        panic!("it is tried again")
    };
    assert!(until <= now + super::RESET_SPREAD, "the next certificate may be there by now");
    retry.poll(until).unwrap();
    let RetryDecision::Wait { attempt: 2, until } = retry.on_attempt_failed(&unproven, until)
    else {
        panic!("it is tried again")
    };
    retry.poll(until).unwrap();
    assert_eq!(retry.on_attempt_failed(&proven, until), RetryDecision::GiveUp(proven));
    assert_eq!(retry.on_attempt_failed(&unproven, until), RetryDecision::GiveUp(unproven));
}

#[test]
fn a_reset_is_repaired_and_a_bad_certificate_is_not() {
    use crate::error::{Code, Failure};
    use crate::retry::{Attempt, Policy, Retry, RetryDecision};
    use crate::rng::Rng;
    let now = anchor();
    let mut retry = Retry::new(Policy::interactive(), Rng::new([0; 32], "retry"));
    retry.on_up(now);
    let RetryDecision::Wait { attempt: 1, until } =
        retry.on_down(&Failure::new(Code::Reset, ""), now)
    else {
        panic!("a reset is repaired")
    };
    assert_eq!(retry.poll(now), None);
    assert_eq!(retry.poll(until), Some(Attempt { number: 1 }));
    let refused = Failure::new(Code::Unauthenticated, "certificate expired");
    assert_eq!(retry.on_attempt_failed(&refused, until), RetryDecision::GiveUp(refused));
}

#[test]
fn a_steady_policy_keeps_its_pace_for_a_minute_and_then_backs_off_to_the_cap() {
    use super::{STEADY_ATTEMPTS, STEADY_TIMEOUT};
    let usual = 30 * SECOND;
    for takes in [NANO, STEADY_TIMEOUT] {
        let start = anchor();
        let (mut now, mut longest) = (start, Duration::ZERO);
        let mut retry = Retry::new(Policy::steady(), Rng::new([3; 32], "retry"));
        let mut attempts = 0;
        while now < start + 60 * SECOND {
            let is_short = attempts < STEADY_ATTEMPTS;
            let expected = if is_short { STEADY_TIMEOUT } else { usual };
            assert_eq!(retry.attempt_timeout(usual), expected, "attempt {attempts}");
            now += takes;
            let waited = wait(&mut retry, &silence(), now);
            longest = longest.max(waited);
            now += waited;
            retry.poll(now).unwrap();
            attempts += 1;
        }
        assert!(longest < Duration::from_millis(4_500), "{longest:?}");
        assert!((20..90).contains(&attempts), "{attempts} attempts in a minute");
        for _ in 0..100 {
            now += wait(&mut retry, &silence(), now);
            retry.poll(now).unwrap();
        }
        assert!((10 * SECOND..20 * SECOND).contains(&wait(&mut retry, &silence(), now)));
    }
    assert_eq!(exact(limited()).attempt_timeout(usual), usual);
}
