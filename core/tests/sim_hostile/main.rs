//! Peers that mean harm, in virtual time against a real node: each is met by an event, a counter or
//! a closed connection with its cause, within its own limits, and disturbs nobody else.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod raw;

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::config::{Builder, Dial, Limits, Transport};
use adit_core::error::{Code, Failure};
use adit_core::event::Event;
use adit_core::frame;
use adit_core::id::{PeerId, StreamId};
use adit_core::message::{Heartbeat, Message, Open, Request};
use adit_core::node::PeerSnapshot;
use adit_core::request::Priority;
use adit_core::rng::Rng;
use adit_core::testing::clock::EPOCH;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{self, CONNECTOR, CONNECTOR_ADDRESS, Flow};
use adit_core::testing::pki::{Pki, Role};
use adit_core::testing::world::World;
use bytes::BytesMut;
use raw::Raw;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_control_frame_that_is_cut_short_closes_the_connection() {
    let mut scene = Scene::new(1);
    let control = scene.control();
    scene.raw.write(control, &[0x01, 0, 0, 0, 50, b'{']);
    scene.raw.finish(control);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_control_frame_of_four_gigabytes_closes_the_connection() {
    let mut scene = Scene::new(2);
    let control = scene.control();
    scene.raw.write(control, &[0x01, 0xff, 0xff, 0xff, 0xff]);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_control_frame_at_its_limit_is_taken_and_one_byte_more_is_not() {
    for (length, is_taken) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let mut scene = Scene::new(3);
        let control = scene.control();
        let frame = framed(0x7f, &vec![0; length]);
        let mut sent = 0;
        for _ in 0..100 {
            sent += scene.raw.write(control, &frame[sent..]);
            scene.run(Duration::from_millis(50));
        }
        if is_taken {
            assert_eq!(scene.peer().unwrap().unknown_frames, 1);
            scene.end();
        } else {
            scene.is_closed(Code::ProtocolViolation);
        }
    }
}

#[test]
fn control_frames_of_unknown_kinds_are_counted_and_skipped() {
    let mut scene = Scene::new(4);
    let control = scene.control();
    for kind in [0x00, 0x0f, 0x20, 0x7f, 0xff] {
        scene.raw.write(control, &framed(kind, b"whatever"));
    }
    scene.raw.write(control, &heartbeat(1));
    scene.run(SECOND);
    assert_eq!(scene.peer().unwrap().unknown_frames, 5);
    assert_eq!(scene.raw.read(control).first(), Some(&0x02), "the heartbeat is answered");
    scene.end();
}

#[test]
fn control_frames_that_say_nonsense_close_the_connection() {
    let nested = |n: usize| [b"{\"vitals\":".as_slice(), &b"[".repeat(n), b"}"].concat();
    let mut open = BytesMut::new();
    Message::Open(Open { service: "db".parse().unwrap() }).encode(&mut open).unwrap();
    for bytes in [
        framed(0x01, b"\xff\xfe{}"),
        framed(0x01, b"{\"device_id\":\"\xc3\x28\",\"timestamp\":1,\"sequence\":1}"),
        framed(0x01, &nested(200)),
        framed(0x01, &nested(60_000)),
        framed(0x01, b"[]"),
        framed(0x01, b""),
        framed(0x15, b"{"),
        open.to_vec(),
    ] {
        let mut scene = Scene::new(5);
        let control = scene.control();
        scene.raw.write(control, &bytes);
        scene.is_closed(Code::ProtocolViolation);
    }
}

#[test]
fn a_control_stream_that_is_reset_closes_the_connection() {
    let mut scene = Scene::new(6);
    let control = scene.control();
    scene.raw.reset(control);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_stopped_control_stream_closes_the_connection_when_there_is_something_to_say() {
    let mut scene = Scene::new(7);
    let control = scene.control();
    scene.raw.stop(control);
    scene.raw.write(control, &heartbeat(1));
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn heartbeats_without_end_and_never_an_answer_read_take_bounded_memory() {
    let mut scene = Scene::new(8);
    let control = scene.control();
    for sequence in 0..20_000 {
        scene.raw.write(control, &heartbeat(sequence));
        if sequence % 50 == 0 {
            scene.run(Duration::from_millis(20));
        }
    }
    scene.run(5 * SECOND);
    scene.end();
}

#[test]
fn heartbeats_in_datagrams_without_end_close_the_connection_of_a_peer_that_does_not_read() {
    let mut scene = Scene::new(23);
    scene.control();
    for sequence in 0..5_000 {
        scene.raw.send_datagram(&[&[0][..], &heartbeat(sequence)].concat());
    }
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_peer_that_falls_silent_is_lost_at_the_idle_timeout() {
    let mut scene = Scene::new(9);
    scene.control();
    // The victim's own keep-alive, sent after ten seconds, is the last thing that counts.
    scene.run_without(69 * SECOND);
    assert!(scene.peer().is_some());
    scene.run_without(2 * SECOND);
    assert!(scene.peer().is_none());
    assert_eq!(scene.closed.as_ref().unwrap().code(), Code::TimedOut);
    scene.end();
}

#[test]
fn first_frames_that_say_nonsense_are_refused_and_the_connection_stays() {
    let deep = [b"{\"service\":".as_slice(), &b"{\"a\":".repeat(700)].concat();
    for (bytes, code) in [
        (framed(0x7f, b""), "protocol_violation"),
        (framed(0x01, b"{}"), "protocol_violation"),
        (framed(0x10, b"{\"service\":\"\xff\"}"), "protocol_violation"),
        (framed(0x10, b"{\"service\":\"\"}"), "protocol_violation"),
        (framed(0x10, &deep), "protocol_violation"),
        (vec![0x10, 0xff, 0xff, 0xff, 0xff], "too_large"),
        (framed(0x10, &[b' '; 5_000]), "too_large"),
        (vec![0x12, 0x00, 0xa0, 0x00, 0x01], "too_large"),
        (framed(0x12, &[0xff; 3]), "protocol_violation"),
    ] {
        let mut scene = Scene::new(10);
        scene.control();
        let stream = scene.raw.open().unwrap();
        scene.raw.write(stream, &bytes);
        scene.run(SECOND);
        let answer = String::from_utf8_lossy(&scene.raw.read(stream)).into_owned();
        assert!(answer.contains(code), "{:x?}: {answer}", &bytes[..bytes.len().min(40)]);
        scene.raw.reset(stream);
        scene.is_idle();
        scene.end();
    }
}

#[test]
fn a_first_frame_that_is_cut_short_ends_its_stream_and_nothing_else() {
    let mut scene = Scene::new(11);
    scene.control();
    let whole = framed(0x10, b"{\"service\":\"db\"}");
    for length in 0..whole.len() {
        let stream = scene.raw.open().unwrap();
        scene.raw.write(stream, &whole[..length]);
        if length % 2 == 0 {
            scene.raw.finish(stream);
        } else {
            scene.raw.reset(stream);
        }
    }
    scene.is_idle();
    scene.end();
}

#[test]
fn a_stream_has_its_time_to_say_what_it_is_for_and_no_more() {
    let mut scene = Scene::new(12);
    scene.control();
    let stream = scene.raw.open().unwrap();
    scene.raw.write(stream, &[0x10]);
    scene.run(Duration::from_millis(10_009));
    assert!(scene.raw.read(stream).is_empty());
    scene.run(Duration::from_millis(21));
    let answer = String::from_utf8_lossy(&scene.raw.read(stream)).into_owned();
    assert!(answer.contains("timed_out"), "{answer}");
    scene.raw.reset(stream);
    scene.is_idle();
    scene.end();
}

#[test]
fn bodies_that_are_declared_and_never_sent_take_their_own_budget_only() {
    let mut scene = Scene::new(13);
    scene.control();
    let streams: Vec<_> = (0..1_000).map(|_| scene.raw.open().unwrap()).collect();
    for &stream in &streams {
        scene.raw.write(stream, &[&[0x12, 0x00, 0x9f, 0xff, 0xff][..], &[0; 100]].concat());
    }
    scene.run(30 * SECOND);
    let held = scene.peer().unwrap().held_bytes;
    assert!((1..=32 << 20).contains(&held), "{held}");
    for &stream in &streams {
        scene.raw.reset(stream);
    }
    scene.run(SECOND);
    let stream = scene.raw.open().unwrap();
    scene.raw.write(stream, &request(5 << 20)[..100_000]);
    scene.run(SECOND);
    scene.raw.reset(stream);
    scene.is_idle();
    scene.end();
}

#[test]
fn a_request_is_taken_after_four_bodies_were_broken_off() {
    let mut scene = Scene::new(14);
    scene.control();
    for _ in 0..4 {
        let stream = scene.raw.open().unwrap();
        scene.raw.write(stream, &[0x12, 0x00, 0x9f, 0xff, 0xff, 1, 2, 3]);
        scene.run(SECOND / 10);
        scene.raw.reset(stream);
        scene.run(SECOND / 10);
    }
    let (stream, whole) = (scene.raw.open().unwrap(), request(1 << 20));
    let mut sent = 0;
    while sent < whole.len() {
        sent += scene.raw.write(stream, &whole[sent..]);
        scene.run(Duration::from_millis(20));
    }
    scene.raw.finish(stream);
    scene.run(SECOND);
    assert_eq!(scene.requests, 1);
    assert!(String::from_utf8_lossy(&scene.raw.read(stream)).ends_with("taken"));
    scene.is_idle();
    scene.end();
}

#[test]
fn a_hundred_thousand_streams_that_misbehave_leave_no_window_and_no_entry_behind() {
    let transport =
        Transport { stream_window: 100_000, connection_window: 2_000_000, ..Transport::default() };
    let mut scene = Scene::with(15, |builder| builder.transport(transport));
    scene.control();
    let mut rng = Rng::new([15; 32], "misbehaviour");
    let mut opened = 0;
    while opened < 100_000 {
        opened += misbehave(&mut scene, &mut rng);
        assert!(scene.peer().unwrap().streams <= 1_024);
    }
    scene.is_idle();
    // Nobody reads this service: what can be sent is the window that is left. The transport
    // announces it again only when an eighth of it has come together.
    let open = framed(0x10, b"{\"service\":\"sink\"}");
    let streams: Vec<_> = (0..20).map(|_| scene.raw.open().unwrap()).collect();
    let mut sent = 0;
    for &stream in &streams {
        sent += scene.raw.write(stream, &open);
    }
    for _ in 0..100 {
        for &stream in &streams {
            sent += scene.raw.write(stream, &[7; 100_000]);
        }
        scene.run(Duration::from_millis(20));
    }
    assert!((1_750_000..=2_000_000).contains(&sent), "{sent}");
    for stream in streams {
        scene.raw.reset(stream);
    }
    scene.read_all();
    scene.is_idle();
    scene.end();
}

/// Opens streams in every way but the right one, and abandons them at random points.
fn misbehave(scene: &mut Scene, rng: &mut Rng) -> usize {
    let open = framed(0x10, b"{\"service\":\"db\"}");
    let streams: Vec<_> = std::iter::from_fn(|| scene.raw.open()).take(900).collect();
    for &stream in &streams {
        let length = rng.u64() as usize % 400;
        match rng.u64() % 4 {
            0 => scene.raw.write(stream, &open[..length % open.len()]),
            1 => scene.raw.write(stream, &[&open[..], &vec![7; length]].concat()),
            2 => scene.raw.write(stream, &request(length)),
            _ => scene.raw.write(stream, &[0x12, 0, 0x10, 0, 0, 1, 2, 3]),
        };
    }
    scene.run(Duration::from_millis(rng.u64() % 30));
    for &stream in &streams {
        if rng.u64().is_multiple_of(2) {
            scene.raw.stop(stream);
        }
        match rng.u64() % 3 {
            0 => scene.raw.finish(stream),
            _ => scene.raw.reset(stream),
        }
    }
    scene.run(Duration::from_millis(40));
    for &stream in &streams {
        scene.raw.reset(stream);
        scene.raw.stop(stream);
    }
    scene.run(Duration::from_millis(40));
    streams.len()
}

#[test]
fn a_peer_that_never_reads_holds_back_itself_alone() {
    let mut scene = Scene::new(16);
    scene.control();
    let open = framed(0x10, b"{\"service\":\"source\"}");
    for _ in 0..200 {
        let stream = scene.raw.open().unwrap();
        scene.raw.write(stream, &open);
    }
    scene.run(5 * SECOND);
    // The peer takes 200,000 bytes; the rest waits within the send window and the reserve.
    let written = scene.written;
    assert!((190_000..=(9 << 20) + 200_000).contains(&written), "{written}");
    scene.run(30 * SECOND);
    assert_eq!(scene.written, written);
    scene.end();
}

#[test]
fn a_peer_that_reads_slowly_gets_everything_in_its_own_time() {
    let mut scene = Scene::new(17);
    scene.control();
    let stream = scene.raw.open().unwrap();
    scene.raw.write(stream, &framed(0x10, b"{\"service\":\"source\"}"));
    let mut read = 0;
    for _ in 0..200 {
        scene.run(SECOND / 4);
        read += scene.raw.read(stream).len();
    }
    assert!((200 * 15_000..=200 * 20_005).contains(&read), "{read}");
    scene.end();
}

#[test]
fn bytes_that_come_one_by_one_are_put_together() {
    let mut scene = Scene::new(18);
    scene.control();
    let (stream, whole) = (scene.raw.open().unwrap(), request(3_000));
    for byte in &whole {
        scene.raw.write(stream, &[*byte]);
        scene.raw.pump(&mut scene.world);
    }
    scene.raw.finish(stream);
    scene.run(SECOND);
    assert_eq!(scene.requests, 1);
    scene.is_idle();
    scene.end();
}

#[test]
fn empty_frames_without_end_cost_nothing_that_stays() {
    let mut scene = Scene::new(19);
    let control = scene.control();
    for _ in 0..10_000 {
        scene.raw.write(control, &framed(0x7f, b""));
        scene.raw.send_datagram(b"");
        scene.raw.send_datagram(&[2, 3, 4]);
        scene.raw.send_datagram(&[0, 1, 0, 0]);
    }
    scene.run(10 * SECOND);
    let peer = scene.peer().unwrap();
    assert_eq!((peer.unknown_frames, peer.streams, peer.datagrams_dropped), (10_000, 0, 0));
    scene.end();
}

#[test]
fn datagrams_beyond_the_cap_push_out_the_oldest() {
    let mut scene = Scene::new(20);
    scene.control();
    for number in 0..3_000_u32 {
        scene.raw.send_datagram(&[&[1][..], &number.to_be_bytes(), &[0; 996]].concat());
        if number % 20 == 0 {
            scene.run(Duration::from_millis(20));
        }
    }
    scene.run(5 * SECOND);
    let dropped = scene.peer().unwrap().datagrams_dropped;
    let (node, _) = scene.world.node_mut(scene.victim);
    let kept: Vec<_> = std::iter::from_fn(|| node.recv_datagram(scene.raw_peer)).collect();
    assert!(kept.len() <= (1 << 20) / 1_000 && kept.len() > 900, "{}", kept.len());
    assert!(dropped >= 1_900, "{dropped}");
    assert_eq!(kept.last().unwrap()[..4], 2_999_u32.to_be_bytes());
    scene.end();
}

#[test]
fn no_certificate_that_is_wrong_gets_in_however_often_it_tries() {
    let pki = Pki::new();
    let mut scene = Scene::new(21);
    for n in 0..200 {
        let issued = match n % 3 {
            0 => Pki::stranger().issue("agent", Role::Agent),
            1 => pki.issue_expired("agent", Role::Agent),
            _ => pki.issue_not_yet_valid("agent", Role::Agent),
        };
        let host = scene.add_host();
        let mut raw = Raw::new(&mut scene.world, host, &issued);
        raw.run(&mut scene.world, SECOND / 10);
        scene.act();
        assert!(raw.end().is_some_and(|end| end.contains("aborted by peer")), "{:?}", raw.end());
    }
    scene.run(SECOND);
    assert_eq!(scene.rejected.len(), 200);
    assert!(scene.rejected.iter().all(|failure| failure.code() == Code::Unauthenticated));
    scene.end();
    assert_eq!(scene.world.node(scene.victim).snapshot().connections, 2);
}

#[test]
fn handshakes_that_are_begun_and_abandoned_are_forgotten_and_lock_nobody_out() {
    let mut scene = Scene::with(22, |builder| {
        builder.limits(Limits { handshakes_before_retry: 20, ..Limits::default() })
    });
    let agent = Pki::new().issue("agent", Role::Agent);
    for _ in 0..300 {
        let host = scene.add_host();
        Raw::new(&mut scene.world, host, &agent);
    }
    scene.run(SECOND);
    // Beyond the threshold an address has to prove itself before it takes any memory.
    let connections = scene.world.node(scene.victim).snapshot().connections;
    assert!(connections <= 2 + 20, "{connections}");
    let host = scene.add_host();
    let mut honest = Raw::new(&mut scene.world, host, &agent);
    honest.run(&mut scene.world, SECOND);
    assert_eq!(honest.end(), None);
    assert!(!honest.connection.is_handshaking());
    scene.run(70 * SECOND);
    assert!(scene.world.node(scene.victim).snapshot().connections <= 3);
    scene.end();
}

/// A connector, an agent that minds its own business, and somebody else.
struct Scene {
    world: World,
    victim: HostId,
    bystander: (HostId, PeerId),
    raw: Raw,
    raw_peer: PeerId,
    hosts: u16,
    /// How the connection of the hostile peer ended, at the victim.
    closed: Option<Failure>,
    rejected: Vec<Failure>,
    /// Streams to the service that reads nothing.
    sinks: Vec<StreamId>,
    /// Streams to the service that writes without end, and how much it wrote.
    sources: Vec<StreamId>,
    written: usize,
    /// Requests that were answered.
    requests: usize,
    /// The stream of the honest peer, when it was offered.
    honest: Option<StreamId>,
}

impl Scene {
    fn new(seed: u8) -> Self {
        Self::with(seed, |builder| builder)
    }

    fn with(seed: u8, change: impl FnOnce(Builder) -> Builder) -> Self {
        let mut world = World::new([seed; 32], Conditions::default());
        let victim = world.add_host(CONNECTOR_ADDRESS);
        let agent = world.add_host(pair::AGENT_ADDRESS);
        let host = world.add_host(SocketAddr::from(([10, 0, 1, 1], 666)));
        let config = change(pair::connector(world.crypto(victim))).build().unwrap();
        world.start(victim, config, 1);
        let config = pair::agent(world.crypto(agent)).build().unwrap();
        world.start(agent, config, 1);
        let (node, now) = world.node_mut(agent);
        let honest = node.dial(Dial::new(CONNECTOR_ADDRESS, CONNECTOR), now).unwrap();
        world.run_for(SECOND);
        while world.poll_event(victim).is_some() {}
        let issued = Pki::new().issue("hostile", Role::Agent);
        let mut raw = Raw::new(&mut world, host, &issued);
        raw.run(&mut world, SECOND);
        let accepted = std::iter::from_fn(|| world.poll_event(victim)).find_map(|e| match e {
            Event::Accepted { peer } => Some(peer),
            _ => None,
        });
        Self {
            world,
            victim,
            bystander: (agent, honest),
            raw,
            raw_peer: accepted.unwrap(),
            hosts: 1,
            closed: None,
            rejected: Vec::new(),
            sinks: Vec::new(),
            sources: Vec::new(),
            written: 0,
            requests: 0,
            honest: None,
        }
    }

    fn add_host(&mut self) -> HostId {
        let [a, b] = (0x200 + self.hosts).to_be_bytes();
        self.hosts += 1;
        self.world.add_host(SocketAddr::from(([10, 0, a, b], 666)))
    }

    /// The hostile peer opens its control stream.
    fn control(&mut self) -> quinn_proto::StreamId {
        let control = self.raw.open().unwrap();
        self.raw.write(control, &heartbeat(0));
        self.run(SECOND / 10);
        control
    }

    /// The hostile peer as the victim sees it.
    fn peer(&self) -> Option<PeerSnapshot> {
        self.world.node(self.victim).peer_snapshot(self.raw_peer)
    }

    fn run(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.raw.step(&mut self.world, until) {
            self.act();
        }
        self.act();
    }

    /// Lets time pass in which the hostile peer does nothing at all.
    fn run_without(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.world.step(until) {
            self.act();
        }
    }

    /// What the victim's application does.
    fn act(&mut self) {
        self.world.settle();
        while let Some(event) = self.world.poll_event(self.victim) {
            let (node, _) = self.world.node_mut(self.victim);
            match event {
                Event::StreamOffered { stream, service } => {
                    // It may have been broken off meanwhile.
                    let _ = node.accept_stream(stream);
                    match service.as_str() {
                        "sink" => self.sinks.push(stream),
                        "source" => self.sources.push(stream),
                        "honest" => self.honest = Some(stream),
                        _ => self.read(stream),
                    }
                }
                Event::StreamReadable { stream } => {
                    if !self.sinks.contains(&stream) && self.honest != Some(stream) {
                        self.read(stream);
                    }
                }
                Event::RequestOffered { request, .. } => {
                    self.requests += 1;
                    // It may have been given up meanwhile.
                    let _ = node.respond(request, "taken".into());
                }
                Event::Closed { peer, failure } if peer == self.raw_peer => {
                    assert_eq!(self.closed.replace(failure), None, "closed twice");
                }
                Event::Rejected { failure, .. } => self.rejected.push(failure),
                _ => {}
            }
        }
        for &stream in &self.sources {
            let mut bytes = pair::pattern(0, 16 << 10);
            let (node, _) = self.world.node_mut(self.victim);
            while let std::task::Poll::Ready(Ok(taken)) = node.stream(stream).write(&mut bytes) {
                self.written += taken;
                bytes = pair::pattern(0, 16 << 10);
            }
        }
        self.world.node(self.victim).audit();
    }

    /// Reads all there is; what ends is ended on this side too.
    fn read(&mut self, stream: StreamId) {
        let (node, _) = self.world.node_mut(self.victim);
        let mut stream = node.stream(stream);
        loop {
            match stream.read(1 << 20) {
                std::task::Poll::Ready(Ok(Some(_))) => {}
                std::task::Poll::Ready(Ok(None) | Err(_)) => {
                    return stream.reset(Code::Closed);
                }
                std::task::Poll::Pending => return,
            }
        }
    }

    fn read_all(&mut self) {
        self.run(SECOND);
        for stream in std::mem::take(&mut self.sinks) {
            self.read(stream);
        }
    }

    /// The hostile peer's connection was closed, for this reason, at both ends.
    fn is_closed(&mut self, code: Code) {
        self.run(SECOND);
        let failure = self.closed.clone().unwrap();
        assert_eq!(failure.code(), code, "{failure}");
        assert!(self.peer().is_none());
        assert!(self.raw.end().unwrap().contains(failure.detail()), "{:?}", self.raw.end());
        self.end();
        self.run(10 * SECOND);
        assert_eq!(self.world.node(self.victim).snapshot().connections, 1);
    }

    /// Nothing of the hostile peer's is left but its connection.
    fn is_idle(&mut self) {
        self.run(15 * SECOND);
        assert_eq!(self.closed, None);
        let peer = self.peer().unwrap();
        assert_eq!((peer.streams, peer.held_bytes), (0, 0), "{peer:?}");
    }

    /// The honest peer is as well served as ever.
    fn end(&mut self) {
        let (agent, honest) = self.bystander;
        let (node, _) = self.world.node_mut(agent);
        let ours = node.open(honest, "honest".parse().unwrap()).unwrap().unwrap();
        self.honest = None;
        self.run(SECOND / 10);
        let (a, v) = ((agent, ours), (self.victim, self.honest.unwrap()));
        let (mut up, mut down) = (Flow::new(a, v, 1 << 20), Flow::new(v, a, 1 << 20));
        let until = self.world.now() + 2 * SECOND;
        while !(up.advance(&mut self.world) & down.advance(&mut self.world)) {
            assert!(self.raw.step(&mut self.world, until), "the honest peer is held up");
            self.act();
        }
    }
}

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(kind, payload, &mut out).unwrap();
    out.to_vec()
}

fn heartbeat(sequence: u64) -> Vec<u8> {
    let timestamp = EPOCH.as_millis() as u64;
    let beat = Heartbeat { device_id: "hostile".into(), timestamp, sequence, vitals: None };
    let mut out = BytesMut::new();
    Message::Heartbeat(beat).encode(&mut out).unwrap();
    out.to_vec()
}

fn request(length: usize) -> Vec<u8> {
    let body = pair::pattern(0, length as u64);
    let (id, priority) = ("1".into(), Priority::Normal);
    let mut out = BytesMut::new();
    Message::Request(Request { id, deadline_ms: None, priority, body }).encode(&mut out).unwrap();
    out.to_vec()
}
