//! Tests of registration and lookups, each rule at its threshold.

use std::time::{Duration, Instant};

use super::registration::{ANSWER, RETRY_DELAY};
use super::{LookupState, Registration, RegistrationAction, lookup};
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::testing::clock::origin;
use crate::tls::KeyDigest;

const TICK: Duration = Duration::from_nanos(1);
const REFRESH: Duration = Duration::from_secs(30);
const TAKE: Option<RegistrationAction> = Some(RegistrationAction::Register { takeover: true });
const YIELD: Option<RegistrationAction> = Some(RegistrationAction::Register { takeover: false });

fn held() -> (Registration, Instant) {
    let (mut registration, now) = (Registration::new(), origin());
    assert_eq!(registration.on_up(true, now), TAKE);
    assert!(registration.on_registered(REFRESH, now));
    (registration, now)
}

#[test]
fn a_registration_is_refreshed_when_the_relay_asked_for_it_and_not_before() {
    let (mut registration, now) = held();
    assert_eq!(registration.poll(now + REFRESH - TICK), None);
    assert_eq!(registration.poll(now + REFRESH), TAKE);
    assert!(!registration.on_registered(REFRESH, now + REFRESH), "no news");
    assert!(registration.is_held());
}

#[test]
fn a_relay_that_does_not_acknowledge_is_given_up() {
    let (mut registration, now) = (Registration::new(), origin());
    registration.on_up(true, now);
    assert!(!registration.is_held());
    assert_eq!(registration.poll(now + ANSWER - TICK), None);
    assert_eq!(registration.poll(now + ANSWER), Some(RegistrationAction::Dead));
}

#[test]
fn one_that_was_replaced_asks_again_and_never_takes_the_place_back() {
    let (mut registration, now) = held();
    registration.on_unregistered(&Failure::new(Code::Replaced, "elsewhere"), now);
    assert!(!registration.is_held());
    assert_eq!(registration.set(true, now), None, "the refusal stands");
    assert_eq!(registration.poll(now + RETRY_DELAY - TICK), None);
    assert_eq!(registration.poll(now + RETRY_DELAY), YIELD);
    registration.on_down();
    assert_eq!(registration.on_up(true, now), YIELD, "and not by dialling anew either");
    assert!(registration.on_registered(REFRESH, now));
    assert_eq!(registration.poll(now + REFRESH), TAKE, "until the place was free");
}

#[test]
fn a_refused_registration_is_repeated_after_the_requested_time() {
    let (mut registration, now) = held();
    let wait = Duration::from_secs(7);
    let failure = Failure::new(Code::Overloaded, "full").with_retry_after(wait);
    registration.on_unregistered(&failure, now);
    assert_eq!(registration.poll(now + wait - TICK), None);
    assert_eq!(registration.poll(now + wait), TAKE);
}

#[test]
fn nothing_is_registered_that_is_not_offered() {
    let (mut registration, now) = (Registration::new(), origin());
    assert_eq!(registration.on_up(false, now), None);
    assert_eq!((registration.deadline(), registration.set(true, now)), (None, TAKE));
    registration.on_registered(REFRESH, now);
    assert_eq!(registration.set(false, now), Some(RegistrationAction::Withdraw));
    assert_eq!((registration.deadline(), registration.set(false, now)), (None, None));
}

#[test]
fn a_lookup_fails_once_the_last_relay_refuses() {
    let (mut search, now) = (LookupState::default(), origin());
    let no = |what| Failure::new(Code::UnknownService, what);
    search.on_asked(PeerId(1), 1);
    search.on_asked(PeerId(2), 2);
    assert_eq!(search.on_unmatched(PeerId(1), no("first"), now), None);
    assert_eq!(search.on_unmatched(PeerId(2), no("second"), now), Some(no("first")));
    assert_eq!(search.verdict(true), no("first"));
}

#[test]
fn a_second_relay_has_to_find_the_same_connector() {
    let (mut search, now) = (LookupState::default(), origin());
    let (one, other) = (KeyDigest([1; 32]), KeyDigest([2; 32]));
    assert!(search.on_matched(PeerId(1), one, now));
    assert!(!search.on_matched(PeerId(2), other, now));
    assert_eq!(search.excluded(), [other]);
    assert!(!search.poll(now + lookup::FIRST_RETRY_DELAY - TICK));
    assert!(
        search.poll(now + lookup::FIRST_RETRY_DELAY)
            && !search.poll(now + lookup::FIRST_RETRY_DELAY)
    );
    assert!(search.on_matched(PeerId(2), one, now));
}

#[test]
fn lookups_repeat_immediately_three_times_quickly_then_every_five_seconds() {
    let (mut search, mut now) = (LookupState::default(), origin());
    assert!(search.on_matched(PeerId(1), KeyDigest([1; 32]), now));
    for _ in 0..2 {
        search.on_lost(PeerId(2), now);
        for wait in [
            lookup::LOST_RETRY_DELAY,
            lookup::FIRST_RETRY_DELAY,
            lookup::FIRST_RETRY_DELAY,
            lookup::FIRST_RETRY_DELAY,
            lookup::RETRY_DELAY,
            lookup::RETRY_DELAY,
        ] {
            assert!(!search.poll(now + wait - TICK));
            now += wait;
            assert!(search.poll(now));
            search.on_asked(PeerId(2), 1);
            let why = Failure::new(Code::UnknownService, "not yet");
            assert_eq!(search.on_unmatched(PeerId(2), why, now), None);
        }
        now += lookup::RETRY_DELAY;
        assert!(search.poll(now));
    }
}

#[test]
fn channels_lost_in_quick_succession_are_asked_for_at_a_bounded_rate() {
    let (mut search, mut now) = (LookupState::default(), origin());
    let mut asked = Vec::new();
    for _ in 0..3 {
        search.on_asked(PeerId(1), 1);
        assert!(search.on_matched(PeerId(1), KeyDigest([1; 32]), now));
        search.on_lost(PeerId(1), now);
        let (at, _) = search.deadline().unwrap();
        asked.push(at - now);
        now = at;
        assert!(search.poll(now));
    }
    let (quick, usual) = (lookup::LOST_RETRY_DELAY, lookup::FIRST_RETRY_DELAY);
    assert_eq!(asked, [quick, usual, quick]);
}
