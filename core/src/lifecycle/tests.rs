//! The whole table of the lifecycle, and what random walks through it may never show.

use super::*;
use crate::error::Code;
use crate::timer::anchor;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::fmt::Write as _;

const EVENTS: [LifecycleEvent; 6] = [
    LifecycleEvent::Connect,
    LifecycleEvent::Connected,
    LifecycleEvent::Lost,
    LifecycleEvent::AttemptFailed,
    LifecycleEvent::Fail,
    LifecycleEvent::Disconnect,
];

#[test]
fn the_whole_table() {
    let now = anchor();
    let mut table = String::new();
    for state in states(now) {
        for event in EVENTS {
            let mut lifecycle = Lifecycle { state: state.clone() };
            let outcome = match apply(&mut lifecycle, event, now) {
                Ok(transition) => {
                    assert_eq!(transition.from, state);
                    assert_eq!(&transition.to, lifecycle.state());
                    describe(&transition.to)
                }
                Err(refused) => {
                    assert_eq!(refused, Refused { event, state: state.kind() });
                    assert_eq!(lifecycle.state(), &state, "a refusal changed the state");
                    "refused".to_owned()
                }
            };
            writeln!(table, "{:<17}{:<16}{outcome}", describe(&state), event.as_str()).unwrap();
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

#[test]
fn an_outage_begins_with_the_loss_and_later_attempts_keep_that() {
    let start = anchor();
    let mut lifecycle = connected(start);
    let lost = start + Duration::from_secs(5);
    lifecycle.lost(failure(), 0, lost).unwrap();
    for attempt in 2..5 {
        let transition =
            lifecycle.attempt_failed(failure(), lost + Duration::from_secs(9)).unwrap();
        let expected = State::Reconnecting { attempt, last_error: failure(), since: lost };
        assert_eq!(transition.to, expected);
    }
}

#[test]
fn attempts_stop_counting_at_the_largest_number() {
    let now = anchor();
    let mut lifecycle = connected(now);
    lifecycle.lost(failure(), u32::MAX, now).unwrap();
    let transition = lifecycle.attempt_failed(failure(), now).unwrap();
    assert!(matches!(transition.to, State::Reconnecting { attempt: u32::MAX, .. }));
}

#[test]
fn healthy_is_connected_with_a_known_latency_below_half_a_second() {
    let now = anchor();
    let mut lifecycle = connected(now);
    assert!(!lifecycle.is_healthy(), "nothing has been measured");
    lifecycle.set_latency(HEALTHY_BELOW);
    assert!(!lifecycle.is_healthy());
    lifecycle.set_latency(HEALTHY_BELOW - Duration::from_nanos(1));
    assert!(lifecycle.is_healthy());
    lifecycle.lost(failure(), 1, now).unwrap();
    assert!(!lifecycle.is_healthy());
}

#[test]
fn a_latency_is_kept_only_while_connected() {
    let now = anchor();
    for state in states(now) {
        let mut lifecycle = Lifecycle { state: state.clone() };
        lifecycle.set_latency(Duration::from_millis(7));
        match state.kind() {
            StateKind::Connected => {
                let latency = Some(Duration::from_millis(7));
                assert_eq!(lifecycle.state, State::Connected { since: now, latency });
            }
            StateKind::Disconnected
            | StateKind::Connecting
            | StateKind::Reconnecting
            | StateKind::Failed => {
                assert_eq!(lifecycle.state, state);
            }
        }
    }
}

#[test]
fn a_new_connection_starts_without_the_latency_of_the_old_one() {
    let now = anchor();
    let mut lifecycle = connected(now);
    lifecycle.set_latency(Duration::from_millis(7));
    lifecycle.lost(failure(), 1, now).unwrap();
    let transition = lifecycle.connected(now).unwrap();
    assert_eq!(transition.to, State::Connected { since: now, latency: None });
}

#[test]
fn states_and_transitions_have_a_form_for_json() {
    let start = anchor();
    let views: Vec<_> = states(start)
        .iter()
        .map(|state| state.view(start + Duration::from_millis(1_500)))
        .collect();
    let mut lifecycle = connected(start);
    lifecycle.set_latency(Duration::from_micros(12_500));
    let at = start + Duration::from_secs(1);
    let transition = lifecycle.lost(failure(), 1, at).unwrap();
    let transition = transition.view(at + Duration::from_secs(1));
    insta::assert_json_snapshot!((views, transition));
}

#[test]
fn a_view_from_before_the_state_shows_no_age() {
    let now = anchor();
    let state = State::Connecting { since: now + Duration::from_secs(1) };
    assert_eq!(state.view(now), StateView::Connecting { age_ms: 0 });
}

#[test]
fn a_refusal_names_the_event_and_the_state() {
    let refused = Lifecycle::default().fail(failure(), anchor()).unwrap_err();
    assert_eq!(refused.to_string(), "fail is not possible while disconnected");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/session.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn only_legal_edges_are_walked_and_transitions_form_a_chain(
        walk in prop::collection::vec((prop::sample::select(EVENTS.to_vec()), 0u64..100), 0..200)
    ) {
        let mut now = anchor();
        let mut lifecycle = Lifecycle::new();
        for (event, wait) in walk {
            now += Duration::from_millis(wait);
            let before = lifecycle.state().clone();
            match apply(&mut lifecycle, event, now) {
                Ok(Transition { from, to, at }) => {
                    prop_assert_eq!(&from, &before);
                    prop_assert_eq!(&to, lifecycle.state());
                    prop_assert_eq!(at, now);
                    prop_assert!(LEGAL.contains(&(from.kind(), to.kind())));
                }
                Err(_) => prop_assert_eq!(&before, lifecycle.state()),
            }
        }
        if lifecycle.state().kind() != StateKind::Disconnected {
            prop_assert!(lifecycle.disconnect(now).is_ok(), "stop is one step from anywhere");
        }
    }
}

const LEGAL: [(StateKind, StateKind); 12] = [
    (StateKind::Disconnected, StateKind::Connecting),
    (StateKind::Connecting, StateKind::Connected),
    (StateKind::Connecting, StateKind::Failed),
    (StateKind::Connecting, StateKind::Disconnected),
    (StateKind::Connected, StateKind::Reconnecting),
    (StateKind::Connected, StateKind::Disconnected),
    (StateKind::Reconnecting, StateKind::Connected),
    (StateKind::Reconnecting, StateKind::Reconnecting),
    (StateKind::Reconnecting, StateKind::Failed),
    (StateKind::Reconnecting, StateKind::Disconnected),
    (StateKind::Failed, StateKind::Connecting),
    (StateKind::Failed, StateKind::Disconnected),
];

fn failure() -> Failure {
    Failure::new(Code::TimedOut, "no answer")
}

fn connected(now: Instant) -> Lifecycle {
    let mut lifecycle = Lifecycle::new();
    lifecycle.connect(now).unwrap();
    lifecycle.connected(now).unwrap();
    lifecycle
}

fn states(now: Instant) -> [State; 5] {
    [
        State::Disconnected,
        State::Connecting { since: now },
        State::Connected { since: now, latency: None },
        State::Reconnecting { attempt: 3, last_error: failure(), since: now },
        State::Failed { error: failure(), at: now },
    ]
}

fn apply(
    lifecycle: &mut Lifecycle,
    event: LifecycleEvent,
    now: Instant,
) -> Result<Transition, Refused> {
    match event {
        LifecycleEvent::Connect => lifecycle.connect(now),
        LifecycleEvent::Connected => lifecycle.connected(now),
        LifecycleEvent::Lost => lifecycle.lost(failure(), 1, now),
        LifecycleEvent::AttemptFailed => lifecycle.attempt_failed(failure(), now),
        LifecycleEvent::Fail => lifecycle.fail(failure(), now),
        LifecycleEvent::Disconnect => lifecycle.disconnect(now),
    }
}

fn describe(state: &State) -> String {
    match state {
        State::Reconnecting { attempt, .. } => format!("{}({attempt})", state.kind()),
        State::Disconnected
        | State::Connecting { .. }
        | State::Connected { .. }
        | State::Failed { .. } => state.kind().to_string(),
    }
}

#[test]
fn a_view_serialises_with_its_age() -> Result<(), Refused> {
    use crate::lifecycle::Lifecycle;
    use std::time::Duration;
    let now = anchor();
    let mut lifecycle = Lifecycle::new();
    lifecycle.connect(now)?;
    let view = lifecycle.state().view(now + Duration::from_secs(2));
    assert_eq!(serde_json::to_string(&view).unwrap(), r#"{"state":"connecting","age_ms":2000}"#);
    Ok(())
}

#[test]
fn a_peer_that_connects() -> Result<(), Refused> {
    use crate::lifecycle::{Lifecycle, LifecycleEvent, StateKind};
    let now = anchor();
    let mut lifecycle = Lifecycle::new();
    assert_eq!(lifecycle.connected(now).unwrap_err().event, LifecycleEvent::Connected);
    lifecycle.connect(now)?;
    let made = lifecycle.connected(now)?;
    assert_eq!((made.from.kind(), made.to.kind()), (StateKind::Connecting, StateKind::Connected));
    Ok(())
}
