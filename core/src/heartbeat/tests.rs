//! The schedule, the misses, the verdict, and a host that sleeps.

use super::{
    DeathCause, HeartbeatAction, HeartbeatConfig, HeartbeatConfigError, HeartbeatMonitor,
    HeartbeatStats, LEAP, LONGEST, MAX_GRACES, PROBE_SPACING,
};
use crate::error::{Code, Failure};
use crate::timer::{Reason, anchor};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::time::{Duration, Instant};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_heartbeat_is_immediate_and_alone() {
    let now = anchor();
    let mut heartbeat = HeartbeatMonitor::new(HeartbeatConfig::default());
    assert_eq!((heartbeat.poll(now), heartbeat.deadline()), (None, None));
    heartbeat.start(now);
    assert_eq!(heartbeat.deadline(), Some((now, Reason::Heartbeat)));
    assert_eq!(heartbeat.poll(now), Some(HeartbeatAction::Send { sequence: 1 }));
    assert_eq!(heartbeat.poll(now), None);
    assert_eq!(heartbeat.deadline(), Some((now + 10 * SECOND, Reason::HeartbeatAck)));
}

#[test]
fn the_next_heartbeat_is_due_exactly_one_interval_after_the_last() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    heartbeat.on_ack(1, start + SECOND).unwrap();
    assert_eq!(heartbeat.deadline(), Some((start + 30 * SECOND, Reason::Heartbeat)));
    assert_eq!(heartbeat.poll(start + 30 * SECOND - NANO), None);
    assert_eq!(heartbeat.poll(start + 30 * SECOND), Some(HeartbeatAction::Send { sequence: 2 }));
}

#[test]
fn an_answer_counts_exactly_at_its_limit_and_not_past_it() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    assert_eq!(heartbeat.on_ack(1, start + 10 * SECOND), Some(10 * SECOND));
    assert_eq!(heartbeat.stats(), HeartbeatStats { sent: 1, acked: 1, missed: 0, ignored: 0 });

    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    assert_eq!(heartbeat.on_ack(1, start + 10 * SECOND + NANO), None);
    assert_eq!(heartbeat.stats(), HeartbeatStats { sent: 1, acked: 0, missed: 1, ignored: 1 });
}

#[test]
fn a_heartbeat_is_missed_exactly_when_its_answer_was_due() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    assert_eq!(heartbeat.poll(start + 10 * SECOND - NANO), None);
    assert_eq!(heartbeat.stats().missed, 0);
    assert_eq!(heartbeat.poll(start + 10 * SECOND), None);
    assert_eq!(heartbeat.stats().missed, 1);
}

#[test]
fn unknown_repeated_and_old_answers_are_counted_and_give_no_sample() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    assert_eq!(heartbeat.on_ack(2, start), None);
    assert!(heartbeat.on_ack(1, start + NANO).is_some());
    assert_eq!(heartbeat.on_ack(1, start + NANO), None);
    assert_eq!(heartbeat.on_ack(0, start + NANO), None);
    assert_eq!(heartbeat.on_ack(u64::MAX, start + NANO), None);
    heartbeat.stop();
    assert_eq!(heartbeat.on_ack(1, start + NANO), None);
    assert_eq!(heartbeat.stats(), HeartbeatStats { sent: 1, acked: 1, missed: 0, ignored: 5 });
}

#[test]
fn silence_is_death_exactly_after_its_time_once() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    let (at, verdict) = run_until_dead(&mut heartbeat).unwrap();
    assert_eq!((at, verdict), (start + 45 * SECOND, DeathCause::Silent(45 * SECOND)));
    assert_eq!((heartbeat.poll(at), heartbeat.deadline()), (None, None));
    assert!(!heartbeat.is_running());
}

#[test]
fn a_peer_that_spoke_one_moment_before_the_verdict_lives_on() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    drive_to(&mut heartbeat, start + 45 * SECOND - NANO);
    heartbeat.on_heard(start + 45 * SECOND - NANO);
    assert_eq!(heartbeat.poll(start + 45 * SECOND), None);
    let (at, _) = run_until_dead(&mut heartbeat).unwrap();
    assert_eq!(at, start + 90 * SECOND - NANO);
}

#[test]
fn the_last_allowed_miss_is_death_before_silence_is() {
    let config = quick().build().unwrap();
    let (mut heartbeat, start) = started(config);
    let (at, verdict) = run_until_dead(&mut heartbeat).unwrap();
    assert_eq!((at, verdict), (start + 23 * SECOND, DeathCause::Missed(3)));
    assert_eq!(heartbeat.stats(), HeartbeatStats { sent: 3, acked: 0, missed: 3, ignored: 0 });
}

#[test]
fn a_packet_of_the_peer_resets_the_misses() {
    let (mut heartbeat, start) = started(quick().build().unwrap());
    drive_to(&mut heartbeat, start + 22 * SECOND);
    heartbeat.on_heard(start + 22 * SECOND);
    let (at, verdict) = run_until_dead(&mut heartbeat).unwrap();
    assert_eq!((at, verdict), (start + 53 * SECOND, DeathCause::Missed(3)));
    assert_eq!(heartbeat.stats().missed, 6, "the one it spoke over is a miss in the statistics");
}

#[test]
fn an_interval_that_ends_with_the_answer_time_still_comes_to_a_verdict() {
    let second =
        HeartbeatConfig::builder().interval(SECOND).ack_within(SECOND).dead_after(2 * SECOND);
    let (mut heartbeat, start) = started(second.build().unwrap());
    let (at, _) = run_until_dead(&mut heartbeat).unwrap();
    assert_eq!(at, start + 2 * SECOND);
}

#[test]
fn a_resumed_host_probes_before_its_verdict() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    let woke = start + Duration::from_secs(8 * 60 * 60);
    assert_eq!(heartbeat.poll(woke), Some(HeartbeatAction::Send { sequence: 2 }));
    assert_eq!(heartbeat.poll(woke), None);
    assert_eq!(heartbeat.deadline(), Some((woke + 10 * SECOND, Reason::HeartbeatAck)));
    assert_eq!(heartbeat.on_ack(1, woke + SECOND), None, "an answer from before the sleep");
    assert_eq!(heartbeat.on_ack(2, woke + SECOND), Some(SECOND));
}

#[test]
fn a_peer_that_does_not_answer_the_probe_is_dead_when_its_answer_was_due() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    let woke = start + Duration::from_secs(8 * 60 * 60);
    heartbeat.poll(woke).unwrap();
    assert_eq!(heartbeat.poll(woke + 10 * SECOND - NANO), None);
    let verdict = heartbeat.poll(woke + 10 * SECOND);
    assert!(matches!(verdict, Some(HeartbeatAction::Dead(DeathCause::Silent(_)))));
}

#[test]
fn a_call_is_a_leap_only_past_its_limit() {
    for (late, probed) in [(LEAP, false), (LEAP + NANO, true)] {
        let (mut heartbeat, start) = started(HeartbeatConfig::default());
        drive_to(&mut heartbeat, start + 44 * SECOND);
        let action = heartbeat.poll(start + 45 * SECOND + late);
        assert_eq!(matches!(action, Some(HeartbeatAction::Send { .. })), probed, "{late:?}");
        assert_eq!(matches!(action, Some(HeartbeatAction::Dead(_))), !probed, "{late:?}");
    }
}

#[test]
fn a_host_that_is_always_late_still_notices_a_dead_peer() {
    let (mut heartbeat, mut now) = started(HeartbeatConfig::default());
    let start = now;
    let late = 5 * SECOND;
    while heartbeat.is_running() {
        now = heartbeat.deadline().unwrap().0 + late;
        heartbeat.poll(now).unwrap();
    }
    assert_eq!(now - start, (MAX_GRACES + 1) * (10 * SECOND + late));
    assert_eq!(heartbeat.stats().sent, u64::from(MAX_GRACES) + 1);
}

#[test]
fn a_sign_of_the_peer_renews_the_patience_with_a_late_host() {
    let (mut heartbeat, _) = started(HeartbeatConfig::default());
    for leap in 0..3 * MAX_GRACES {
        let now = heartbeat.deadline().unwrap().0 + 60 * SECOND;
        assert!(
            matches!(heartbeat.poll(now), Some(HeartbeatAction::Send { .. })),
            "at leap {leap}"
        );
        if (leap + 1) % MAX_GRACES == 0 {
            heartbeat.on_heard(now);
        }
    }
}

#[test]
fn a_resume_puts_one_probe_ahead_of_the_verdict() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    drive_to(&mut heartbeat, start + 44 * SECOND);
    let woke = start + 45 * SECOND;
    heartbeat.on_resume(woke);
    heartbeat.on_resume(woke);
    assert_eq!(heartbeat.deadline(), Some((woke, Reason::Heartbeat)));
    assert_eq!(heartbeat.poll(woke), Some(HeartbeatAction::Send { sequence: 3 }));
    assert_eq!(heartbeat.poll(woke + 10 * SECOND - NANO), None);
    assert!(matches!(heartbeat.poll(woke + 10 * SECOND), Some(HeartbeatAction::Dead(_))));
}

#[test]
fn resuming_again_and_again_sends_no_burst() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    let mut sent = Vec::new();
    for tenth in 0..100u32 {
        let now = start + tenth * (SECOND / 10);
        heartbeat.on_resume(now);
        if let Some(HeartbeatAction::Send { sequence }) = heartbeat.poll(now) {
            sent.push(now);
            heartbeat.on_ack(sequence, now).unwrap();
        }
    }
    assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= PROBE_SPACING));
    assert!(sent.len() <= 10, "{} probes in ten seconds", sent.len());
}

#[test]
fn resuming_twice_before_the_probe_counts_once() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    let mut now = start + 40 * SECOND;
    for _ in 0..MAX_GRACES {
        now += 5 * SECOND;
        (0..5).for_each(|_| heartbeat.on_resume(now));
        assert!(matches!(heartbeat.poll(now), Some(HeartbeatAction::Send { .. })));
    }
    heartbeat.on_resume(now + 5 * SECOND);
    assert_eq!(heartbeat.deadline(), Some((now + 10 * SECOND, Reason::HeartbeatAck)));
}

#[test]
fn a_probe_is_not_later_than_the_heartbeat_that_was_due() {
    let tenth = SECOND / 10;
    let config = HeartbeatConfig::builder().interval(tenth).ack_within(tenth).build().unwrap();
    let (mut heartbeat, start) = started(config);
    heartbeat.on_resume(start + NANO);
    assert_eq!(heartbeat.deadline(), Some((start + tenth, Reason::Heartbeat)));
}

#[test]
fn endless_resumes_do_not_keep_a_dead_peer_alive() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    for second in 0..120 {
        let now = start + second * SECOND;
        heartbeat.on_resume(now);
        if matches!(heartbeat.poll(now), Some(HeartbeatAction::Dead(_))) {
            assert!(now - start <= 75 * SECOND);
            return;
        }
    }
    panic!("still alive after two minutes of silence");
}

#[test]
fn sequence_numbers_go_on_across_connections() {
    let (mut heartbeat, start) = started(HeartbeatConfig::default());
    heartbeat.stop();
    assert_eq!(heartbeat.poll(start), None);
    heartbeat.start(start + SECOND);
    assert_eq!(heartbeat.poll(start + SECOND), Some(HeartbeatAction::Send { sequence: 2 }));
    assert_eq!(heartbeat.on_ack(1, start + SECOND), None);
}

#[test]
fn every_death_cause_is_a_network_failure_with_detail() {
    let texts = [DeathCause::Missed(1), DeathCause::Missed(3), DeathCause::Silent(45 * SECOND)]
        .map(|v| {
            let failure = Failure::from(v);
            assert_eq!(failure.code(), Code::HeartbeatLost);
            failure.detail().to_owned()
        });
    assert_eq!(
        texts,
        [
            "a heartbeat went unanswered",
            "3 heartbeats in a row went unanswered",
            "nothing heard for 45.0 s"
        ]
    );
}

#[test]
fn relations_between_the_parameters_are_checked_at_their_edges() {
    let build = |interval, ack_within, dead_after| {
        let config = HeartbeatConfig::builder().interval(interval).ack_within(ack_within);
        config.dead_after(dead_after).build()
    };
    assert_eq!(build(SECOND, Duration::ZERO, SECOND), Err(HeartbeatConfigError::AckWithinZero));
    assert!(build(SECOND, NANO, SECOND + NANO).is_ok());
    assert!(build(SECOND, SECOND, 2 * SECOND).is_ok());
    assert_eq!(
        build(SECOND, SECOND + NANO, 9 * SECOND),
        Err(HeartbeatConfigError::AckWithinAboveInterval {
            ack_within: SECOND + NANO,
            interval: SECOND
        })
    );
    assert_eq!(
        build(SECOND, SECOND, 2 * SECOND - NANO),
        Err(HeartbeatConfigError::DeadAfterTooShort {
            dead_after: 2 * SECOND - NANO,
            least: 2 * SECOND
        })
    );
    assert!(build(SECOND, SECOND, LONGEST).is_ok());
    assert_eq!(
        build(SECOND, SECOND, LONGEST + NANO),
        Err(HeartbeatConfigError::TooLong(LONGEST + NANO))
    );
    assert_eq!(
        HeartbeatConfig::builder().max_missed(0).build(),
        Err(HeartbeatConfigError::MaxMissedZero)
    );
    assert!(HeartbeatConfig::builder().max_missed(1).build().is_ok());
    assert!(HeartbeatConfig::builder().build().is_ok());
}

#[derive(Debug, Clone)]
enum Op {
    ToDeadline,
    Early,
    Ack(u64),
    Heard,
    Resume,
    Sleep(u64),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => Just(Op::ToDeadline),
        2 => Just(Op::Early),
        4 => (0u64..3).prop_map(Op::Ack),
        2 => Just(Op::Heard),
        1 => Just(Op::Resume),
        1 => (0u64..100_000).prop_map(Op::Sleep),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 0..200)
}

fn configs() -> impl Strategy<Value = HeartbeatConfig> {
    (1u64..60_000, 0.001f64..=1.0, 1u32..6, 0u64..60_000).prop_map(|(ms, share, missed, more)| {
        let interval = Duration::from_millis(ms);
        let ack_within = interval.mul_f64(share).max(NANO).min(interval);
        HeartbeatConfig::builder()
            .interval(interval)
            .ack_within(ack_within)
            .max_missed(missed)
            .dead_after(interval + ack_within + Duration::from_millis(more))
            .build()
            .unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/heartbeat.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_peer_that_falls_silent_is_declared_dead_in_its_window(
        config in configs(), answered in 0u64..5, spoke in prop::option::of(0.0f64..1.0)
    ) {
        let (mut heartbeat, start) = started(config);
        let mut last_sign = start;
        for sequence in 1..=answered {
            prop_assert!(heartbeat.on_ack(sequence, last_sign).is_some());
            let (at, _) = heartbeat.deadline().unwrap();
            prop_assert_eq!(heartbeat.poll(at), Some(HeartbeatAction::Send { sequence: sequence + 1 }));
            last_sign = at;
        }
        if answered > 0 {
            last_sign -= config.interval();
        }
        if let Some(part) = spoke {
            let now = last_sign + config.interval() + config.ack_within().mul_f64(part);
            heartbeat.on_heard(now);
            last_sign = now;
        }
        let (at, _) = run_until_dead(&mut heartbeat).unwrap();
        let by_misses = config.interval() * (config.max_missed() - 1) + config.ack_within();
        let least = config.dead_after().min(by_misses);
        prop_assert!(at - last_sign >= least, "{:?} after the last sign", at - last_sign);
        prop_assert!(at - last_sign <= least + config.interval());
    }

    #[test]
    fn whatever_happens_questions_come_singly_and_before_verdicts(
        config in configs(), ops in ops()
    ) {
        let mut now = anchor();
        let mut heartbeat = HeartbeatMonitor::new(config);
        heartbeat.start(now);
        let (mut last_sent, mut last_heard): (Option<Instant>, _) = (None, now);
        let (mut sequence, mut abandoned) = (0, 0);
        for op in ops {
            match op {
                Op::ToDeadline => now = heartbeat.deadline().map_or(now, |(at, _)| at.max(now)),
                Op::Early => {
                    let at = heartbeat.deadline().map_or(now, |(at, _)| at);
                    now += at.saturating_duration_since(now) / 2;
                }
                Op::Sleep(ms) => now += Duration::from_millis(ms),
                Op::Resume => heartbeat.on_resume(now),
                Op::Ack(back) => {
                    heartbeat.on_ack(sequence - sequence.min(back), now);
                    last_heard = now;
                }
                Op::Heard => {
                    heartbeat.on_heard(now);
                    last_heard = now;
                }
                Op::Restart => {
                    heartbeat.stop();
                    heartbeat.start(now);
                    (last_sent, last_heard) = (None, now);
                }
            }
            let mut steps = 0;
            while let Some(action) = heartbeat.poll(now) {
                steps += 1;
                prop_assert!(steps <= 2, "a burst");
                match action {
                    HeartbeatAction::Send { sequence: next } => {
                        prop_assert_eq!(next, sequence + 1);
                        sequence = next;
                        let spacing = PROBE_SPACING.min(config.ack_within());
                        prop_assert!(last_sent.is_none_or(|last| now - last >= spacing));
                        last_sent = Some(now);
                    }
                    HeartbeatAction::Dead(_) => {
                        let sent = last_sent.expect("a verdict without a question");
                        prop_assert!(now - sent >= config.ack_within(), "no time to answer");
                        prop_assert!(now - last_heard >= config.ack_within(), "it spoke");
                        prop_assert!(!heartbeat.is_running());
                        heartbeat.start(now);
                        (last_sent, last_heard) = (None, now);
                    }
                }
            }
            let due = heartbeat.deadline().map(|(at, _)| at);
            prop_assert!(due.is_some_and(|at| at > now), "a deadline in the past");
            let stats = heartbeat.stats();
            let open = stats.sent - stats.acked - stats.missed;
            prop_assert!(open >= abandoned && stats.sent == sequence);
            abandoned = open.saturating_sub(1);
        }
    }

    #[test]
    fn sending_silence_never_passes_the_interval(
        config in configs(), answers in prop::collection::vec(any::<bool>(), 1..50)
    ) {
        let (mut heartbeat, start) = started(config);
        let (mut last_sent, mut sequence) = (start, 1);
        for answer in answers {
            if answer {
                heartbeat.on_ack(sequence, last_sent);
            }
            while let Some((at, _)) = heartbeat.deadline() {
                match heartbeat.poll(at) {
                    Some(HeartbeatAction::Send { sequence: next }) => {
                        prop_assert!(at - last_sent <= config.interval());
                        (last_sent, sequence) = (at, next);
                        break;
                    }
                    Some(HeartbeatAction::Dead(_)) => return Ok(()),
                    None => {}
                }
            }
        }
    }
}

fn quick() -> super::HeartbeatConfigBuilder {
    HeartbeatConfig::builder().interval(10 * SECOND).ack_within(3 * SECOND)
}

fn started(config: HeartbeatConfig) -> (HeartbeatMonitor, Instant) {
    let now = anchor();
    let mut heartbeat = HeartbeatMonitor::new(config);
    heartbeat.start(now);
    assert_eq!(heartbeat.poll(now), Some(HeartbeatAction::Send { sequence: 1 }));
    (heartbeat, now)
}

fn drive_to(heartbeat: &mut HeartbeatMonitor, until: Instant) {
    while let Some((at, _)) = heartbeat.deadline().filter(|&(at, _)| at <= until) {
        assert!(!matches!(heartbeat.poll(at), Some(HeartbeatAction::Dead(_))));
    }
}

fn run_until_dead(heartbeat: &mut HeartbeatMonitor) -> Option<(Instant, DeathCause)> {
    while let Some((at, _)) = heartbeat.deadline() {
        if let Some(HeartbeatAction::Dead(verdict)) = heartbeat.poll(at) {
            return Some((at, verdict));
        }
    }
    None
}

#[test]
fn a_heartbeat_and_its_answer() {
    use crate::heartbeat::{HeartbeatAction, HeartbeatConfig, HeartbeatMonitor};
    use std::time::Duration;
    let now = anchor();
    let mut heartbeat = HeartbeatMonitor::new(HeartbeatConfig::default());
    heartbeat.start(now);
    assert_eq!(heartbeat.poll(now), Some(HeartbeatAction::Send { sequence: 1 }));
    assert_eq!(heartbeat.poll(now), None);
    let later = now + Duration::from_millis(20);
    assert_eq!(heartbeat.on_ack(1, later), Some(Duration::from_millis(20)));
}
