use super::*;
use crate::timer::anchor;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

fn address(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

fn ticket(verdict: AdmissionDecision) -> Ticket {
    match verdict {
        AdmissionDecision::Accept(ticket) => ticket,
        other @ (AdmissionDecision::Retry
        | AdmissionDecision::Refuse
        | AdmissionDecision::Displace(_)
        | AdmissionDecision::Ignore) => panic!("{other:?}"),
    }
}

/// Begins a handshake from each of `count` different sources that have proven their addresses.
fn fill(admission: &mut Admission, count: u32, now: Instant) -> Vec<Ticket> {
    (0..count).map(|n| ticket(admission.decide(address(1_000_000 + n), true, 0, now))).collect()
}

#[test]
fn an_address_need_not_prove_itself_while_few_handshakes_are_under_way() {
    let now = anchor();
    let mut admission = Admission::new(&Limits { handshakes_before_retry: 3, ..Limits::default() });
    let mut tickets: Vec<_> =
        (0..3).map(|n| ticket(admission.decide(address(n), false, 0, now))).collect();
    assert_eq!(admission.decide(address(9), false, 0, now), AdmissionDecision::Retry);
    admission.release(tickets.remove(0), now);
    tickets.push(ticket(admission.decide(address(9), false, 0, now)));
    assert_eq!(admission.stats().under_way, 3);
}

#[test]
fn addresses_that_are_not_proven_have_one_rate_together() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    for n in 0..128 {
        let ticket = ticket(admission.decide(address(n), false, 0, now));
        admission.release(ticket, now);
    }
    assert_eq!(admission.decide(address(128), false, 0, now), AdmissionDecision::Retry);
    let back = now + SECOND / 64;
    assert_eq!(admission.decide(address(129), false, 0, back - TICK), AdmissionDecision::Retry);
    let _ = ticket(admission.decide(address(129), false, 0, back));
    // A source that proves its address is not subject to this limit.
    let _ = ticket(admission.decide(address(130), true, 0, back));
}

#[test]
fn a_proven_source_may_have_its_share_under_way_and_not_one_more() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    let mut tickets: Vec<_> =
        (0..32).map(|_| ticket(admission.decide(address(1), true, 0, now))).collect();
    assert_eq!(admission.decide(address(1), true, 0, now), AdmissionDecision::Ignore);
    let _ = ticket(admission.decide(address(2), true, 0, now));
    admission.release(tickets.remove(0), now);
    let _ = ticket(admission.decide(address(1), true, 0, now));
    assert_eq!(admission.decide(address(1), true, 0, now), AdmissionDecision::Ignore);
}

#[test]
fn a_proven_source_may_begin_as_many_a_second_as_its_rate_and_not_one_more() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    for _ in 0..128 {
        let ticket = ticket(admission.decide(address(1), true, 0, now));
        admission.release(ticket, now);
    }
    assert_eq!(admission.decide(address(1), true, 0, now), AdmissionDecision::Ignore);
    let other = ticket(admission.decide(address(2), true, 0, now));
    admission.release(other, now);
    let back = now + SECOND / 64;
    assert_eq!(admission.decide(address(1), true, 0, back - TICK), AdmissionDecision::Ignore);
    let _ = ticket(admission.decide(address(1), true, 0, back));
}

#[test]
fn the_share_of_a_source_shrinks_with_what_is_free_and_is_never_nothing() {
    let now = anchor();
    for (taken, share) in [(0, 32), (16, 31), (256, 16), (448, 4), (495, 2), (496, 1), (511, 1)] {
        let mut admission = Admission::new(&Limits::default());
        let _held = fill(&mut admission, taken, now);
        let mut began = 0;
        while let AdmissionDecision::Accept(_) = admission.decide(address(1), true, 0, now) {
            began += 1;
        }
        assert_eq!(began, share, "with {taken} of others under way");
    }
}

#[test]
fn nothing_is_taken_up_beyond_the_handshakes_in_all() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    let mut held = fill(&mut admission, 511, now);
    held.push(ticket(admission.decide(address(1), true, 0, now)));
    assert_eq!(admission.decide(address(1), true, 0, now), AdmissionDecision::Ignore);
    assert_eq!(admission.decide(address(3), false, 0, now), AdmissionDecision::Retry);
    // The oldest makes room for a source that has none.
    let oldest = held[0].number();
    let displaced = AdmissionDecision::Displace(oldest);
    assert_eq!(admission.decide(address(2), true, 0, now), displaced);
    assert_eq!(admission.stats().under_way, 512);
    admission.release(held.remove(0), now);
    let _ = ticket(admission.decide(address(2), true, 0, now));
    assert_eq!(admission.stats().under_way, 512);
}

#[test]
fn the_source_with_the_most_handshakes_makes_room() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    let network = |n: u8| IpAddr::from([0x2001, 0xdb8, 0, u16::from(n) << 7, 0, 0, 0, 1]);
    let of_one_subscriber = ticket(admission.decide(network(0), true, 0, now));
    let _more: Vec<_> =
        (1..4).map(|n| ticket(admission.decide(network(n), true, 0, now))).collect();
    let _held = fill(&mut admission, 508, now);
    let expected = AdmissionDecision::Displace(of_one_subscriber.number());
    assert_eq!(admission.decide(address(2), true, 0, now), expected);
    // A network of the same subscriber takes it from itself.
    assert_eq!(admission.decide(network(9), true, 0, now), expected);
}

#[test]
fn connections_at_the_limit_of_peers_leave_no_room_for_another() {
    let (now, mut admission) =
        (anchor(), Admission::new(&Limits { peers: 5, ..Limits::default() }));
    let _ = ticket(admission.decide(address(1), false, 4, now));
    for is_proven in [false, true] {
        assert_eq!(admission.decide(address(1), is_proven, 5, now), AdmissionDecision::Refuse);
    }
}

#[test]
fn forged_addresses_fill_no_table() {
    let (mut now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    let mut held = Vec::new();
    for n in 0..100_000 {
        now += Duration::from_micros(600);
        if let AdmissionDecision::Accept(ticket) = admission.decide(address(n), false, 0, now) {
            held.push(ticket);
        }
    }
    let stats = admission.stats();
    assert_eq!((held.len(), stats.under_way, stats.sources), (128, 128, 0));
    assert_eq!(stats.retried, 100_000 - 128);
}

#[test]
fn a_source_is_remembered_until_its_bucket_is_full() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    let ticket = ticket(admission.decide(address(1), true, 0, now));
    let full = now + SECOND / 64;
    admission.release(ticket, full - TICK);
    assert_eq!(admission.stats().sources, 1);
    let _ = admission.decide(address(2), false, 0, full - TICK);
    assert_eq!(admission.stats().sources, 1);
    let _ = admission.decide(address(2), false, 0, full);
    assert_eq!(admission.stats().sources, 0);
}

#[test]
fn the_source_that_would_be_forgotten_first_goes_when_there_are_too_many() {
    let (now, mut admission) = (anchor(), Admission::new(&Limits::default()));
    for n in 0..MAX_SOURCES as u32 {
        let ticket = ticket(admission.decide(address(n), true, 0, now + TICK * n));
        admission.release(ticket, now + TICK * n);
    }
    let (second, later) = (address(1), now + SECOND / 128);
    assert_eq!(admission.stats().sources, MAX_SOURCES - 1);
    for n in 0..200 {
        let ticket = ticket(admission.decide(address(70_000 + n), true, 0, later));
        admission.release(ticket, later);
        assert!(admission.stats().sources < MAX_SOURCES);
    }
    assert!(!admission.sources.contains_key(&SourceNetwork::of(second)));
    assert!(admission.sources.contains_key(&SourceNetwork::of(address(70_199))));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/admission.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_comes_the_counts_agree_and_stay_within_their_limits(
        ops in prop::collection::vec((0u32..6, any::<bool>(), any::<bool>(), 0u64..40), 0..400),
    ) {
        let limits = Limits {
            handshakes: 12,
            handshakes_before_retry: 5,
            handshakes_per_source: 4,
            handshakes_per_second: 10,
            ..Limits::default()
        };
        let (mut admission, mut now, mut held) = (Admission::new(&limits), anchor(), Vec::new());
        for (who, is_proven, ends, wait) in ops {
            now += Duration::from_millis(wait);
            if ends && !held.is_empty() {
                admission.release(held.swap_remove(who as usize % held.len()), now);
            } else if let AdmissionDecision::Accept(ticket) = admission.decide(address(who), is_proven, 0, now) {
                prop_assert_eq!(ticket.0, is_proven.then(|| SourceNetwork::of(address(who))));
                held.push(ticket);
            }
            prop_assert_eq!(admission.stats().under_way, held.len());
            prop_assert!(held.len() <= limits.handshakes);
            for (source, entry) in &admission.sources {
                let under_way = held.iter().filter(|ticket| ticket.0 == Some(*source)).count();
                prop_assert_eq!(entry.under_way, under_way);
                prop_assert!(under_way <= limits.handshakes_per_source);
                let is_idle = admission.idle.iter().any(|(_, idle)| idle == source);
                prop_assert_eq!(is_idle, under_way == 0);
            }
            prop_assert!(admission.idle.iter().all(|(_, source)| admission.sources.contains_key(source)));
        }
        for ticket in held {
            admission.release(ticket, now);
        }
        admission.forget(now + 3 * SECOND);
        prop_assert_eq!((admission.sources.len(), admission.idle.len()), (0, 0));
    }
}

#[test]
fn sources_are_addresses_and_ipv6_networks() {
    use crate::admission::SourceNetwork;
    let of = |text: &str| SourceNetwork::of(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}
