//! One agent and one connector in virtual time: what a user of the node sees, in life-cycle order.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU64;
use std::task::Poll;
use std::time::Duration;

use adit_core::config::Transport;
use adit_core::error::{Category, Code, Failure, Misuse};
use adit_core::event::Event;
use adit_core::id::{PeerId, RequestId, StreamId};
use adit_core::lifecycle::{State, StateKind, StateView};
use adit_core::node::{Input, PeerSnapshot, StreamError};
use adit_core::request::Request;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{self, Flow, Pair, is_connected};
use adit_core::testing::pki::{Issued, Pki, Role};
use adit_core::testing::world::World;
use bytes::Bytes;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_dialled_peer_and_an_accepted_one_know_each_others_names() {
    let mut pair = Pair::new(1);
    let (to_connector, to_agent) = pair.connect();
    let at_agent = pair.agent().peer_snapshot(to_connector).unwrap();
    let at_connector = pair.connector().peer_snapshot(to_agent).unwrap();
    let (connector, agent) = (at_agent.credential.unwrap(), at_connector.credential.unwrap());
    assert_eq!((connector.names, at_agent.dialled), (vec!["connector".into()], true));
    assert_eq!((agent.names, at_connector.dialled), (vec!["agent".into()], false));
    assert_eq!(at_connector.remote, pair::AGENT_ADDRESS);
}

#[test]
fn the_age_of_a_state_is_as_of_when_it_is_looked_at() {
    let mut pair = Pair::new(14);
    let (to_connector, _) = pair.connect();
    let age = |snapshot: &PeerSnapshot| {
        let StateView::Connected { age_ms, .. } = snapshot.state else {
            panic!("{:?}", snapshot.state)
        };
        age_ms
    };
    let (agent, now) = pair.world.node_mut(pair.agent);
    let before = age(&agent.peer_snapshot_at(to_connector, now).unwrap());
    let after = age(&agent.snapshot_at(now + SECOND).peers[0]);
    assert_eq!(after, before + 1_000);
}

#[test]
fn a_megabyte_in_each_direction_over_one_stream_frees_it() {
    let mut pair = Pair::new(2);
    let (to_connector, to_agent) = pair.connect();
    let (ours, theirs) = pair.open(to_connector, "db");
    let (a, c) = ((pair.agent, ours), (pair.connector, theirs));
    let (mut up, mut down) = (Flow::new(a, c, 1 << 20), Flow::new(c, a, 1 << 20));
    pair.wait("both megabytes", |world| up.advance(world) & down.advance(world));
    pair.wait("both to be acknowledged", |world| {
        let streams = |host, peer| world.node(host).peer_snapshot(peer).unwrap().streams;
        streams(a.0, to_connector) == 0 && streams(c.0, to_agent) == 0
    });
}

#[test]
fn a_reset_at_the_end_comes_after_the_last_byte() {
    for (seed, from_agent) in [(40, true), (41, false)] {
        let mut pair = Pair::new(seed);
        let (to_connector, _) = pair.connect();
        let (ours, theirs) = pair.open(to_connector, "db");
        let (agent, connector) = ((pair.agent, ours), (pair.connector, theirs));
        let (from, to) = if from_agent { (agent, connector) } else { (connector, agent) };
        write_and_reset(&mut pair, from);
        // It waits for its reader, who begins late.
        pair.world.run_for(SECOND);
        assert_eq!(pair.world.node_mut(from.0).0.stream(from.1).finished(), Poll::Pending);
        assert_eq!(read_to_reset(&mut pair, to), (100_000, Code::Cancelled));
        pair.wait("the reset", |world| {
            world.node_mut(from.0).0.stream(from.1).finished().is_ready()
        });
        pair.world.node_mut(to.0).0.stream(to.1).reset(Code::Cancelled);
        pair.world.node_mut(from.0).0.stream(from.1).stop(Code::Cancelled);
        settled(&mut pair);
    }
}

#[test]
fn a_reset_at_the_end_waits_for_room_to_announce_it() {
    let mut pair = Pair::with(42, Conditions::default(), |a| a, |c| c.transport(few_streams()));
    let (to_connector, _) = pair.connect();
    let (ours, theirs) = pair.open(to_connector, "db");
    while pair.agent().open(to_connector, "db".parse().unwrap()).unwrap().is_some() {}
    let (agent, connector) = (pair.agent, pair.connector);
    write_and_reset(&mut pair, (agent, ours));
    pair.world.run_for(SECOND);
    let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(connector)).collect();
    let offered = |event| {
        if let Event::StreamOffered { stream, .. } = event { Some(stream) } else { None }
    };
    let other = events.into_iter().find_map(offered).unwrap();
    pair.connector().refuse_stream(other, &Failure::new(Code::Overloaded, "full")).unwrap();
    assert_eq!(read_to_reset(&mut pair, (connector, theirs)), (100_000, Code::Cancelled));
}

#[test]
fn a_refused_stream_has_its_reason() {
    let mut pair = Pair::new(3);
    let (to_connector, to_agent) = pair.connect();
    let ours = pair.agent().open(to_connector, "nothing".parse().unwrap()).unwrap().unwrap();
    let connector = pair.connector;
    let failure = Failure::new(Code::NoSuchService, "no such thing");
    pair.wait("the offer", |world| {
        let Some(Event::StreamOffered { stream, .. }) = world.poll_event(connector) else {
            return false;
        };
        world.node_mut(connector).0.refuse_stream(stream, &failure).unwrap();
        true
    });
    let mut answer = Poll::Pending;
    let agent = pair.agent;
    pair.wait("the answer", |world| {
        answer = world.node_mut(agent).0.stream(ours).accepted();
        answer.is_ready()
    });
    let Poll::Ready(Err(StreamError::Refused(said))) = answer else { panic!("{answer:?}") };
    assert_eq!((said.code(), said.detail()), (Code::NoSuchService, "no such thing"));
    pair.agent().stream(ours).reset(Code::Cancelled);
    pair.agent().stream(ours).stop(Code::Cancelled);
    pair.world.run_for(SECOND);
    assert_eq!(pair.agent().peer_snapshot(to_connector).unwrap().streams, 0);
    assert_eq!(pair.connector().peer_snapshot(to_agent).unwrap().streams, 0);
}

#[test]
fn a_request_is_answered_whole() {
    let mut pair = Pair::new(4);
    let (to_connector, _) = pair.connect();
    let id = request(&mut pair, to_connector, Request::new("ping"));
    let offered = offer(&mut pair);
    let taken = pair.connector().offer(offered).unwrap();
    assert_eq!((&taken.body[..], pair.connector().offer(offered)), (&b"ping"[..], None));
    pair.connector().respond(offered, "pong".into()).unwrap();
    assert_eq!(answer(&mut pair, id), Ok(vec!["pong".into()]));
    settled(&mut pair);
}

#[test]
fn a_streamed_answer_of_four_megabytes_arrives_chunk_by_chunk() {
    let mut pair = Pair::new(5);
    let (to_connector, _) = pair.connect();
    let id = request(&mut pair, to_connector, Request::new("ping"));
    let offered = offer(&mut pair);
    let chunk = pair::pattern(0, 64 << 10);
    let (agent, connector) = (pair.agent, pair.connector);
    let (mut sent, mut got) = (0, 0);
    pair.wait("the answer", |world| {
        while sent < 64 {
            let (node, _) = world.node_mut(connector);
            match node.respond_chunk(offered, chunk.clone(), sent == 63) {
                Poll::Ready(Ok(())) => sent += 1,
                Poll::Ready(Err(misuse)) => panic!("{misuse}"),
                Poll::Pending => break,
            }
        }
        loop {
            match world.node_mut(agent).0.response(id) {
                Poll::Ready(Ok(Some(body))) => {
                    assert_eq!(body, chunk);
                    got += 1;
                }
                Poll::Ready(Ok(None)) => return true,
                Poll::Ready(Err(failure)) => panic!("{failure}"),
                Poll::Pending => return false,
            }
        }
    });
    assert_eq!((sent, got), (64, 64));
    settled(&mut pair);
}

#[test]
fn a_request_made_before_the_connection_waits_for_it() {
    let mut pair = Pair::new(6);
    let to_connector = pair.dial();
    let id = request(&mut pair, to_connector, Request::new("early"));
    let offered = offer(&mut pair);
    pair.connector().respond(offered, Bytes::new()).unwrap();
    assert_eq!(answer(&mut pair, id), Ok(vec![Bytes::new()]));
}

#[test]
fn an_unanswered_request_fails_at_its_deadline_on_both_sides() {
    let mut pair = Pair::new(7);
    let (to_connector, _) = pair.connect();
    let begin = pair.world.now();
    let id = request(&mut pair, to_connector, Request::new("ping").deadline(3 * SECOND));
    let offered = offer(&mut pair);
    assert_eq!(answer(&mut pair, id).unwrap_err(), Code::DeadlineExceeded);
    assert_eq!(pair.world.now() - begin, 3 * SECOND);
    pair.world.run_for(SECOND);
    assert!(pair.connector().respond(offered, "late".into()).is_err());
    settled(&mut pair);
}

#[test]
fn a_cancelled_request_is_taken_from_the_responder() {
    let mut pair = Pair::new(8);
    let (to_connector, _) = pair.connect();
    let id = request(&mut pair, to_connector, Request::new("ping"));
    let offered = offer(&mut pair);
    pair.agent().cancel(id).unwrap();
    pair.world.run_for(SECOND);
    assert!(pair.connector().respond(offered, "late".into()).is_err());
    settled(&mut pair);
}

#[test]
fn more_requests_than_the_stream_limit_are_answered_one_after_another() {
    let mut pair = Pair::with(20, Conditions::default(), |a| a, |c| c.transport(few_streams()));
    let (to_connector, _) = pair.connect();
    for _ in 0..50 {
        let id = request(&mut pair, to_connector, Request::new("ping"));
        let offered = offer(&mut pair);
        pair.connector().respond(offered, "pong".into()).unwrap();
        assert_eq!(answer(&mut pair, id), Ok(vec!["pong".into()]));
    }
    settled(&mut pair);
}

#[test]
fn more_streams_than_the_stream_limit_are_served_one_after_another() {
    let mut pair = Pair::with(21, Conditions::default(), |a| a, |c| c.transport(few_streams()));
    let (to_connector, _) = pair.connect();
    let (agent, connector) = (pair.agent, pair.connector);
    for _ in 0..50 {
        let (ours, theirs) = pair.open(to_connector, "db");
        let mut up = Flow::new((agent, ours), (connector, theirs), 1000);
        let mut down = Flow::new((connector, theirs), (agent, ours), 1000);
        pair.wait("the bytes", |world| up.advance(world) & down.advance(world));
    }
    settled(&mut pair);
}

#[test]
fn a_large_request_may_take_longer_than_a_stream_may_take_to_open() {
    let slow = Conditions { bandwidth: NonZeroU64::new(500_000), ..Conditions::default() };
    let mut pair = Pair::with(22, slow, |a| a, |c| c);
    let (to_connector, _) = pair.connect();
    let begin = pair.world.now();
    let body = pair::pattern(0, 10_000_000);
    let id = request(&mut pair, to_connector, Request::new(body.clone()));
    let offered = offer(&mut pair);
    assert!(pair.world.now() - begin > 15 * SECOND);
    assert_eq!(pair.connector().offer(offered).unwrap().body, body);
    pair.connector().respond(offered, "pong".into()).unwrap();
    assert_eq!(answer(&mut pair, id), Ok(vec!["pong".into()]));
    settled(&mut pair);
}

#[test]
fn a_datagram_arrives_once() {
    let mut pair = Pair::new(9);
    let (to_connector, to_agent) = pair.connect();
    pair.agent().send_datagram(to_connector, b"hello").unwrap();
    pair.world.run_for(SECOND);
    assert_eq!(pair.connector().recv_datagram(to_agent).as_deref(), Some(&b"hello"[..]));
    assert_eq!(pair.connector().recv_datagram(to_agent), None);
}

#[test]
fn heartbeats_measure_the_round_trip() {
    let mut pair = Pair::new(10);
    let (to_connector, _) = pair.connect();
    pair.world.run_for(65 * SECOND);
    let snapshot = pair.agent().peer_snapshot(to_connector).unwrap();
    assert_eq!((snapshot.heartbeats.sent, snapshot.heartbeats.acked), (3, 3));
    assert!(snapshot.healthy, "{snapshot:?}");
    let State::Connected { latency, .. } = *pair.agent().state(to_connector).unwrap() else {
        panic!("not connected")
    };
    let latency = latency.unwrap();
    assert!((20..=25).contains(&latency.as_millis()), "{latency:?}");
}

#[test]
fn a_partition_is_noticed_and_healed() {
    let mut pair = Pair::new(11);
    let (to_connector, _) = pair.connect();
    let (agent, connector) = (pair.agent, pair.connector);
    set_cut(&mut pair, true);
    pair.wait("the agent to notice", |world| {
        matches!(world.node(agent).state(to_connector), Some(State::Reconnecting { .. }))
    });
    pair.world.run_for(20 * SECOND);
    set_cut(&mut pair, false);
    pair.wait("the agent to come back", |world| is_connected(world, agent, to_connector));
    let kinds = transitions(&mut pair, agent, to_connector);
    assert_eq!(kinds[..3], [StateKind::Connecting, StateKind::Connected, StateKind::Reconnecting]);
    assert_eq!(kinds.last(), Some(&StateKind::Connected));
    pair.world.run_for(70 * SECOND);
    assert_eq!(pair.world.node(connector).snapshot().peers.len(), 1);
}

#[test]
fn a_device_that_starts_again_loses_its_silent_connection_within_seconds() {
    let mut pair = Pair::new(44);
    let (_, first) = pair.connect();
    // Its process was killed, and the next one has another port.
    pair.world.crash(pair.agent);
    let next = pair.world.add_host("192.0.2.77:7000".parse().unwrap());
    let config = pair::agent(pair.world.crypto(next)).build().unwrap();
    pair.world.start(next, config, 1);
    pair.agent = next;
    let (_, second) = pair.connect();
    pair.world.run_for(4 * SECOND);
    assert!(pair.connector().peer_snapshot(first).is_some(), "it has 5 s");
    pair.world.run_for(2 * SECOND);
    assert!(pair.connector().peer_snapshot(first).is_none());
    assert!(pair.connector().peer_snapshot(second).is_some());
}

#[test]
fn a_device_may_have_several_connections() {
    let mut pair = Pair::new(45);
    let (_, first) = pair.connect();
    let (_, second) = pair.connect();
    pair.world.run_for(20 * SECOND);
    assert!(pair.connector().peer_snapshot(first).is_some());
    assert!(pair.connector().peer_snapshot(second).is_some());
}

#[test]
fn a_disconnect_removes_the_peer_on_both_sides() {
    let mut pair = Pair::new(12);
    let (to_connector, to_agent) = pair.connect();
    let (agent, connector) = (pair.agent, pair.connector);
    let (node, now) = pair.world.node_mut(agent);
    node.disconnect(to_connector, now).unwrap();
    pair.world.run_for(60 * SECOND);
    for (host, peer) in [(agent, to_connector), (connector, to_agent)] {
        let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(host)).collect();
        let closed = events.iter().filter(|e| matches!(e, Event::Closed { .. })).count();
        assert_eq!(closed, 1, "{events:?}");
        let Some(Event::Closed { peer: last, failure }) = events.last() else { panic!() };
        assert_eq!((*last, failure.code()), (peer, Code::Closed));
    }
    nothing_is_left(&pair.world, agent);
    nothing_is_left(&pair.world, connector);
}

#[test]
fn a_connector_of_another_authority_is_not_trusted() {
    let issued = Pki::stranger().issue(pair::CONNECTOR, Role::Connector);
    assert_eq!(failure_of_dialling(&issued), (Code::Unauthenticated, Category::Authentication));
}

#[test]
fn an_expired_connector_and_one_not_yet_valid_are_not_trusted() {
    let pki = Pki::new();
    for issued in [
        pki.issue_expired(pair::CONNECTOR, Role::Connector),
        pki.issue_not_yet_valid(pair::CONNECTOR, Role::Connector),
        pki.issue("somebody-else", Role::Connector),
        pki.issue(pair::CONNECTOR, Role::Agent),
    ] {
        assert_eq!(failure_of_dialling(&issued).0, Code::Unauthenticated);
    }
}

#[test]
fn an_agent_that_the_connector_does_not_trust_fails_and_is_reported() {
    let pki = Pki::new();
    for issued in [
        Pki::stranger().issue("agent", Role::Agent),
        pki.issue_expired("agent", Role::Agent),
        pki.issue_not_yet_valid("agent", Role::Agent),
    ] {
        let mut pair = Pair::new(14);
        let agent = pair.agent;
        let config = pair::with_identity(pair.world.crypto(agent), &issued).build().unwrap();
        pair.world.start(agent, config, 1);
        let to_connector = pair.dial();
        pair.world.run_for(20 * SECOND);
        let State::Failed { error, .. } = pair.agent().state(to_connector).unwrap() else {
            panic!("{:?}", pair.agent().state(to_connector))
        };
        assert_eq!(error.code(), Code::Unauthenticated);
        let connector = pair.connector;
        let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(connector)).collect();
        let [Event::Rejected { remote, failure }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((*remote, failure.code()), (pair::AGENT_ADDRESS, Code::Unauthenticated));
        nothing_is_left(&pair.world, connector);
    }
}

#[test]
fn a_shutdown_drains_open_streams_and_notifies_the_peer() {
    let mut pair = Pair::new(15);
    let (to_connector, _) = pair.connect();
    let (ours, theirs) = pair.open(to_connector, "db");
    let (agent, connector) = (pair.agent, pair.connector);
    let (a, c) = ((agent, ours), (connector, theirs));
    let (node, now) = pair.world.node_mut(connector);
    node.shutdown(now);
    let (mut up, mut down) = (Flow::new(a, c, 1 << 20), Flow::new(c, a, 1 << 20));
    pair.wait("both megabytes", |world| up.advance(world) & down.advance(world));
    assert!(!pair.connector().is_shut_down());
    pair.wait("the connector", |world| world.node(connector).is_shut_down());
    let mut events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(connector)).collect();
    assert_eq!(events.pop(), Some(Event::ShutDown));
    pair.world.run_for(SECOND);
    let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(agent)).collect();
    assert!(events.contains(&Event::GoingAway { peer: to_connector }), "{events:?}");
    let Some(State::Reconnecting { last_error, .. }) = pair.agent().state(to_connector) else {
        panic!("{:?}", pair.agent().state(to_connector))
    };
    assert_eq!(last_error.code(), Code::ShuttingDown);
}

#[test]
fn a_shutdown_does_not_wait_longer_than_its_drain_time() {
    let mut pair = Pair::new(16);
    let (to_connector, _) = pair.connect();
    pair.open(to_connector, "db");
    let (connector, begin) = (pair.connector, pair.world.now());
    let (node, now) = pair.world.node_mut(connector);
    node.shutdown(now);
    pair.wait("the connector", |world| world.node(connector).is_shut_down());
    assert_eq!(pair.world.now() - begin, 5 * SECOND);
}

#[test]
fn a_second_shutdown_closes_in_the_middle_of_the_drain() {
    let mut pair = Pair::new(43);
    let (to_connector, _) = pair.connect();
    pair.open(to_connector, "db");
    let (agent, connector) = (pair.agent, pair.connector);
    let (node, now) = pair.world.node_mut(connector);
    node.shutdown(now);
    pair.world.run_for(SECOND);
    assert!(!pair.connector().is_shut_down());
    let (node, now) = pair.world.node_mut(connector);
    node.handle(Input::DrainEnded, now);
    assert!(pair.connector().is_shut_down());
    pair.world.run_for(SECOND);
    assert!(!is_connected(&pair.world, agent, to_connector));
}

#[test]
fn a_handshake_that_completes_during_a_shutdown_makes_no_peer() {
    for (step, expected) in [(5, 0), (25, 0), (45, 1)] {
        let mut pair = Pair::new(23);
        let (agent, connector) = (pair.agent, pair.connector);
        let to_connector = pair.dial();
        pair.world.run_for(Duration::from_millis(step));
        let (node, now) = pair.world.node_mut(connector);
        node.shutdown(now);
        pair.world.run_for(SECOND);
        let events: Vec<_> = std::iter::from_fn(|| pair.world.poll_event(connector)).collect();
        let accepted = events.iter().filter(|e| matches!(e, Event::Accepted { .. })).count();
        assert_eq!((accepted, events.last()), (expected, Some(&Event::ShutDown)), "{step} ms");
        assert!(pair.connector().snapshot().peers.is_empty());
        assert!(!is_connected(&pair.world, agent, to_connector));
    }
}

#[test]
fn a_deadline_beyond_the_range_of_time_is_refused() {
    let mut pair = Pair::new(24);
    let (to_connector, _) = pair.connect();
    let (node, now) = pair.world.node_mut(pair.agent);
    let request = Request::new("ping").deadline(Duration::MAX);
    assert_eq!(node.request(to_connector, request, now), Err(Misuse::OverLimit));
    assert_eq!(node.peer_snapshot(to_connector).unwrap().requests.queued, 0);
}

#[test]
fn a_hundred_connections_leave_no_state() {
    let mut pair = Pair::new(17);
    let (agent, connector) = (pair.agent, pair.connector);
    for _ in 0..100 {
        let (to_connector, _) = pair.connect();
        let (ours, theirs) = pair.open(to_connector, "db");
        let mut up = Flow::new((agent, ours), (connector, theirs), 10_000);
        pair.wait("the bytes", |world| up.advance(world));
        let (node, now) = pair.world.node_mut(agent);
        node.disconnect(to_connector, now).unwrap();
    }
    pair.world.run_for(60 * SECOND);
    nothing_is_left(&pair.world, agent);
    nothing_is_left(&pair.world, connector);
}

#[test]
fn two_runs_of_one_seed_are_the_same_byte_for_byte() {
    let run = |seed| {
        let mut pair = Pair::new(seed);
        let (to_connector, _) = pair.connect();
        let (ours, theirs) = pair.open(to_connector, "db");
        let mut up = Flow::new((pair.agent, ours), (pair.connector, theirs), 100_000);
        pair.wait("the bytes", |world| up.advance(world));
        pair.world.run_for(100 * SECOND);
        (pair.world.trace().items(), pair.world.trace().fingerprint())
    };
    assert_eq!(run(18), run(18));
    assert_ne!(run(18), run(19));
}

fn request(pair: &mut Pair, peer: PeerId, request: Request) -> RequestId {
    let (node, now) = pair.world.node_mut(pair.agent);
    node.request(peer, request, now).unwrap()
}

fn offer(pair: &mut Pair) -> RequestId {
    let (connector, mut offered) = (pair.connector, None);
    pair.wait("the request to be offered", |world| {
        while let Some(event) = world.poll_event(connector) {
            if let Event::RequestOffered { request, .. } = event {
                offered = Some(request);
            }
        }
        offered.is_some()
    });
    offered.unwrap()
}

fn answer(pair: &mut Pair, id: RequestId) -> Result<Vec<Bytes>, Code> {
    let (agent, mut parts) = (pair.agent, Vec::new());
    let mut result = Ok(());
    pair.wait("the answer", |world| {
        loop {
            match world.node_mut(agent).0.response(id) {
                Poll::Ready(Ok(Some(body))) => parts.push(body),
                Poll::Ready(Ok(None)) => return true,
                Poll::Ready(Err(failure)) => {
                    result = Err(failure.code());
                    return true;
                }
                Poll::Pending => return false,
            }
        }
    });
    result.map(|()| parts)
}

/// Checks that after a while no stream is left, and no byte of a body.
fn settled(pair: &mut Pair) {
    pair.world.run_for(SECOND);
    for host in [pair.agent, pair.connector] {
        pair.world.node(host).audit();
        for peer in pair.world.node(host).snapshot().peers {
            assert_eq!((peer.streams, peer.held_bytes, peer.requests.queued), (0, 0, 0));
        }
    }
}

fn few_streams() -> Transport {
    Transport::default().max_streams(4)
}

/// Writes 100,000 bytes, and resets the direction after the last of them.
fn write_and_reset(pair: &mut Pair, (host, stream): (HostId, StreamId)) {
    let mut data = Bytes::from(vec![7; 100_000]);
    pair.wait("the bytes to be written", |world| {
        let _ = world.node_mut(host).0.stream(stream).write(&mut data);
        data.is_empty()
    });
    pair.world.node_mut(host).0.stream(stream).reset_at_end(Code::Cancelled);
}

/// Reads a stream until it is reset. Returns how many bytes came before.
fn read_to_reset(pair: &mut Pair, (host, stream): (HostId, StreamId)) -> (usize, Code) {
    let (mut count, mut end) = (0, None);
    pair.wait("the reset", |world| {
        while let Poll::Ready(read) = world.node_mut(host).0.stream(stream).read(4096) {
            match read {
                Ok(Some(chunk)) => count += chunk.len(),
                Err(StreamError::Reset(code)) => {
                    end = Some(code);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        end.is_some()
    });
    (count, end.unwrap())
}

fn set_cut(pair: &mut Pair, is_cut: bool) {
    let (a, c) = (pair.agent, pair.connector);
    pair.world.net_mut().set_cut(a, c, is_cut);
    pair.world.net_mut().set_cut(c, a, is_cut);
}

fn transitions(pair: &mut Pair, host: HostId, peer: PeerId) -> Vec<StateKind> {
    let mut kinds = Vec::new();
    while let Some(event) = pair.world.poll_event(host) {
        if let Event::Transition { peer: whose, transition } = event
            && whose == peer
        {
            kinds.push(transition.to.kind());
        }
    }
    kinds
}

/// Returns how dialling a connector with this certificate fails.
fn failure_of_dialling(issued: &Issued) -> (Code, Category) {
    let mut pair = Pair::new(13);
    let connector = pair.connector;
    let config = pair::with_identity(pair.world.crypto(connector), issued).listening(true);
    pair.world.start(connector, config.build().unwrap(), 1);
    let to_connector = pair.dial();
    pair.world.run_for(20 * SECOND);
    let State::Failed { error, .. } = pair.agent().state(to_connector).unwrap() else {
        panic!("{:?}", pair.agent().state(to_connector))
    };
    let failure = (error.code(), error.category());
    nothing_is_left(&pair.world, connector);
    failure
}

fn nothing_is_left(world: &World, host: HostId) {
    world.node(host).audit();
    let snapshot = world.node(host).snapshot();
    assert_eq!((snapshot.connections, snapshot.peers.len()), (0, 0));
    assert_eq!(world.node(host).deadline(), None);
}
