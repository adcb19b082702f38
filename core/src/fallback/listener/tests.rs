//! Admission alone: every limit at it and one past it.

use super::*;
use crate::fallback::streams::FallbackStreams;
use crate::fallback::tls;
use crate::testing::pki::{Pki, Role};
use crate::timer::anchor;
use crate::tls::default_provider;

struct Rig {
    listener: Listener,
    streams: FallbackStreams,
}

impl Rig {
    fn new(limits: ListenerLimits) -> Self {
        let identity = Pki::new().issue("relay", Role::Connector).identity();
        let config = tls::server_config(&identity, default_provider()).unwrap();
        Self { listener: Listener::new(config, limits), streams: FallbackStreams::new() }
    }

    fn admit(&mut self, real: &str) -> Option<Admitted> {
        self.listener.admit(self.streams.next_id(), real.parse().unwrap())
    }

    fn stats(&self) -> ListenerStats {
        self.listener.stats(|_| 0)
    }
}

#[test]
fn places_are_given_up_to_the_limit_and_again_once_one_is_free() {
    let mut rig = Rig::new(ListenerLimits { streams: 2, ..ListenerLimits::default() });
    let one = rig.admit("192.0.2.1:1").unwrap();
    rig.admit("192.0.2.2:1").unwrap();
    assert!(rig.admit("192.0.2.3:1").is_none());
    rig.listener.handle_gone(one.address, 0);
    rig.admit("192.0.2.3:1").unwrap();
    let stats = rig.stats();
    assert_eq!((stats.refused, stats.failed, stats.open), (1, 1, 2));
}

#[test]
fn a_source_has_its_own_limit_which_is_a_network_in_ipv6() {
    let mut rig = Rig::new(ListenerLimits { per_source: 1, ..ListenerLimits::default() });
    let one = rig.admit("[2001:db8:1:2::1]:1").unwrap();
    assert!(rig.admit("[2001:db8:1:2:3::9]:2").is_none());
    let other = rig.admit("[2001:db8:1:3::1]:1").unwrap();
    let mapped = rig.admit("[::ffff:192.0.2.1]:1").unwrap();
    assert!(rig.admit("192.0.2.1:2").is_none(), "the same written otherwise");
    let networks = [one, other, mapped].map(|it| SourceNetwork::of(it.address.ip()));
    assert!(networks[0] != networks[1] && networks[1] != networks[2], "{networks:?}");
}

#[test]
fn no_address_is_given_twice_and_streams_of_a_source_share_a_network() {
    let mut rig = Rig::new(ListenerLimits::default());
    let one = rig.admit("192.0.2.1:1").unwrap().address;
    let two = rig.admit("192.0.2.1:2").unwrap().address;
    assert_eq!(SourceNetwork::of(one.ip()), SourceNetwork::of(two.ip()));
    rig.listener.handle_gone(one, 0);
    rig.listener.handle_gone(two, 0);
    let three = rig.admit("192.0.2.1:1").unwrap().address;
    assert!(one != two && two != three && one != three);
}

#[test]
fn the_oldest_that_is_opening_makes_room_and_an_open_one_does_not() {
    let mut rig = Rig::new(ListenerLimits { opening: 2, ..ListenerLimits::default() });
    let open = rig.admit("192.0.2.1:1").unwrap();
    assert_eq!(rig.listener.handle_opened(open.address), "192.0.2.1:1".parse().ok());
    assert!(rig.listener.handle_authenticated(open.address).is_some());
    let second = rig.streams.next_id();
    rig.listener.admit(second, "192.0.2.1:2".parse().unwrap()).unwrap();
    assert_eq!(rig.admit("192.0.2.1:3").unwrap().evicted, None);
    assert_eq!(rig.admit("192.0.2.1:4").unwrap().evicted, Some(second));
    assert_eq!(rig.listener.real_address(open.address), "192.0.2.1:1".parse().ok());
}

#[test]
fn a_tls_handshake_without_a_key_still_counts_as_opening() {
    let mut rig = Rig::new(ListenerLimits { opening: 2, ..ListenerLimits::default() });
    let first = rig.streams.next_id();
    let held = rig.listener.admit(first, "192.0.2.1:1".parse().unwrap()).unwrap();
    rig.listener.handle_opened(held.address);
    rig.admit("192.0.2.1:2").unwrap();
    // The source with the most makes room, and its oldest goes.
    assert_eq!(rig.admit("192.0.2.2:1").unwrap().evicted, Some(first));
}

#[test]
fn one_subscriber_leaves_room_for_others_however_many_networks_it_has() {
    let limits = ListenerLimits { per_source: 4, streams: 16, ..ListenerLimits::default() };
    let mut rig = Rig::new(limits);
    let network = |n: u32| format!("[2001:db8:0:{n:x}::1]:1");
    // A /58 has a quarter of a /56, which may have twice as many as a /64.
    let admitted = (0..64).filter(|n| rig.admit(&network(*n)).is_some()).count();
    assert_eq!(admitted, 8);
    let admitted = (64..1024).filter(|n| rig.admit(&network(*n)).is_some()).count();
    assert_eq!((admitted, rig.stats().open), (8, 16), "a /48 four times as many");
    let newcomer = rig.admit("192.0.2.1:1").unwrap();
    assert!(newcomer.displaced.is_some(), "all are taken");
    assert!(rig.admit(&network(2_000)).is_none());
}

#[test]
fn what_is_for_a_stream_that_is_gone_is_counted() {
    let mut rig = Rig::new(ListenerLimits::default());
    let one = rig.admit("192.0.2.1:1").unwrap();
    assert!(rig.listener.stream_of(one.address).is_some());
    rig.listener.handle_gone(one.address, 1);
    assert!(rig.listener.stream_of(one.address).is_none());
    assert_eq!(rig.stats().dropped, 2);
    assert_eq!(rig.listener.real_address(one.address), None);
}

#[test]
fn accepting_pauses_after_a_failure() {
    let (now, mut rig) = (anchor(), Rig::new(ListenerLimits::default()));
    rig.listener.handle_accept_failed(now);
    assert_eq!(rig.listener.deadline(), Some(now + PAUSE));
    assert!(!rig.listener.is_accepting(now + PAUSE - Duration::from_millis(1)));
    assert!(rig.listener.is_accepting(now + PAUSE));
    rig.listener.handle_timeout(now + PAUSE);
    assert_eq!(rig.listener.deadline(), None);
}
