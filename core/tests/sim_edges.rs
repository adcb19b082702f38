//! Rare cases in virtual time, each of which failed once: handshakes that nearly fail, clocks that
//! jump, limits that are reached from two sides.

use std::time::Duration;

use adit_core::config::{Builder, Dial, Limits, Transport};
use adit_core::error::Code;
use adit_core::event::Event;
use adit_core::lifecycle::State;
use adit_core::node::Input;
use adit_core::retry::Policy;
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::pair::{self, CONNECTOR, Pair, is_connected};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn datagrams_that_overtake_the_end_of_the_handshake_are_received() {
    for seed in 0..40 {
        let lossy = Conditions { loss: Loss::Random(0.3), ..Conditions::default() };
        let mut pair = Pair::with(seed, lossy, |agent| agent, |connector| connector);
        let dialled = pair.dial();
        let (agent, connector, mut accepted) = (pair.agent, pair.connector, None);
        pair.wait("the connector to accept", |world| {
            accepted = std::iter::from_fn(|| world.poll_event(connector)).find_map(accepted_peer);
            accepted.is_some()
        });
        for _ in 0..40 {
            // The connection is lost only once the agent gives up, which takes longer.
            pair.connector().send_datagram(accepted.unwrap(), b"early").unwrap();
            pair.world.run_for(SECOND / 20);
        }
        pair.wait("the agent to be connected", |world| is_connected(world, agent, dialled));
        pair.world.run_for(SECOND);
        assert!(pair.agent().recv_datagram(dialled).is_some(), "seed {seed}");
    }
}

#[test]
fn unread_empty_datagrams_are_limited() {
    let small = Transport::default().datagram_receive_buffer(6_400);
    let mut pair =
        Pair::with(1, Conditions::default(), |agent| agent.transport(small), |connector| connector);
    let (dialled, accepted) = pair.connect();
    for _ in 0..200 {
        pair.connector().send_datagram(accepted, b"").unwrap();
        pair.world.run_for(SECOND / 100);
    }
    let agent = pair.agent();
    let dropped = agent.peer_snapshot(dialled).unwrap().datagrams_dropped;
    let kept = std::iter::from_fn(|| agent.recv_datagram(dialled)).count();
    assert_eq!((kept, dropped), (100, 100));
}

#[test]
fn a_leap_of_the_clock_longer_than_any_probe_timeout_is_survived() {
    let patient = Transport::default().idle_timeout(Duration::from_secs(86_400));
    let other = patient.clone();
    let mut pair = Pair::with(
        1,
        Conditions::default(),
        |agent| agent.transport(patient),
        |connector| connector.transport(other),
    );
    let (dialled, accepted) = pair.connect();
    pair.world.run_for(SECOND);
    pair.connector().send_datagram(accepted, b"unanswered").unwrap();
    pair.world.settle();
    let (node, now) = pair.world.node_mut(pair.connector);
    node.handle(Input::Tick, now + Duration::from_secs(40_000));
    while node.poll_output(&mut Vec::new(), now).is_some() {}
    assert!(pair.agent().state(dialled).is_some());
}

#[test]
fn a_handshake_that_goes_silent_is_reported_as_rejected() {
    let mut pair = Pair::new(1);
    pair.dial();
    let (agent, connector) = (pair.agent, pair.connector);
    pair.wait("the handshake to begin", |world| world.node(connector).snapshot().connections == 1);
    pair.world.net_mut().set_cut(agent, connector, true);
    pair.world.run_for(70 * SECOND);
    let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(connector)).collect();
    let [Event::Rejected { remote, failure }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*remote, failure.code()), (pair::AGENT_ADDRESS, Code::TimedOut));
}

#[test]
fn peers_being_dialled_count_against_the_limit_of_those_accepted() {
    let limits = Limits::default().peers(1);
    let mut pair =
        Pair::with(1, Conditions::default(), |agent| agent, |connector| connector.limits(limits));
    let (connector, agent) = (pair.connector, pair.agent);
    let nobody = "10.9.9.9:1".parse().unwrap();
    let (node, now) = pair.world.node_mut(connector);
    let once = Policy::builder().max_attempts(Some(0)).build().unwrap();
    node.dial(Dial { retry: Some(once), ..Dial::new(nobody, CONNECTOR) }, now).unwrap();
    // A peer that failed is a peer without a connection.
    pair.wait("the attempt to fail", |world| world.node(connector).snapshot().connections == 0);
    let dialled = pair.dial();
    pair.world.run_for(SECOND / 2);
    assert_eq!(pair.connector().snapshot().peers.len(), 1);
    assert!(!is_connected(&pair.world, agent, dialled));
}

#[test]
fn a_dialled_peer_is_tried_without_end_by_default() {
    let mut pair = Pair::new(1);
    cut(&mut pair, true);
    let dialled = pair.dial();
    pair.world.run_for(Duration::from_secs(2 * 3_600));
    assert!(failed_attempts(&mut pair) > 50);
    let state = pair.agent().state(dialled).cloned();
    assert!(matches!(state, Some(State::Connecting { .. })), "{state:?}");
    cut(&mut pair, false);
    // Longer than the longest wait between two attempts.
    pair.world.run_for(Duration::from_secs(90));
    assert!(is_connected(&pair.world, pair.agent, dialled));
}

#[test]
fn a_dialled_peer_fails_after_ten_attempts_when_its_policy_is_interactive() {
    let interactive = |agent: Builder| agent.retry(Policy::interactive());
    let mut pair = Pair::with(1, Conditions::default(), interactive, |connector| connector);
    cut(&mut pair, true);
    let dialled = pair.dial();
    pair.world.run_for(Duration::from_secs(2 * 3_600));
    assert_eq!(failed_attempts(&mut pair), 10);
    let state = pair.agent().state(dialled).cloned();
    assert!(matches!(state, Some(State::Failed { .. })), "{state:?}");
}

/// Cuts the link of a pair in both directions, or restores it.
fn cut(pair: &mut Pair, is_cut: bool) {
    let (agent, connector) = (pair.agent, pair.connector);
    pair.world.net_mut().set_cut(agent, connector, is_cut);
    pair.world.net_mut().set_cut(connector, agent, is_cut);
}

/// Returns how many attempts of the agent failed and were followed by another.
fn failed_attempts(pair: &mut Pair) -> usize {
    let agent = pair.agent;
    let events = std::iter::from_fn(|| pair.world.poll_event(agent));
    events.filter(|event| matches!(event, Event::AttemptFailed { .. })).count()
}

fn accepted_peer(event: Event) -> Option<adit_core::id::PeerId> {
    if let Event::Accepted { peer } = event { Some(peer) } else { None }
}
