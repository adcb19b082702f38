//! A client's machine and a relay's, joined by byte streams in memory: cases that have names.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::fallback::{FallbackState, StreamAction, TRIAL_LEN};
use crate::testing::pki::{Issued, Pki, Role};
use crate::timer::anchor;
use crate::tls::{KeyDigest, default_provider};

const SECOND: Duration = Duration::from_secs(1);

fn udp() -> SocketAddr {
    "192.0.2.7:4433".parse().unwrap()
}

fn tcp() -> SocketAddr {
    "192.0.2.7:443".parse().unwrap()
}

fn certificate() -> Issued {
    Pki::new().issue("relay", Role::Connector)
}

/// A relay that listens, a client that knows it, and at most one stream between them.
struct Rig {
    now: Instant,
    client: Fallback,
    relay: Fallback,
    /// The stream at the client and at the relay.
    stream: Option<(ByteStreamId, ByteStreamId)>,
    /// Bytes that one write takes.
    chunk: usize,
    /// The client takes nothing from its stream.
    is_stalled: bool,
    at_client: VecDeque<Vec<u8>>,
    at_relay: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Rig {
    fn new(limits: ListenerLimits, pin: Option<KeyDigest>) -> Self {
        let (now, mut client) = (anchor(), Fallback::new(default_provider(), [1; 32]));
        let target = FallbackTarget::new(udp(), tcp(), "relay").pin(pin);
        client.add(target, now);
        let mut relay = Fallback::new(default_provider(), [2; 32]);
        relay.listen(&certificate().identity(), limits).unwrap();
        Self {
            now,
            client,
            relay,
            stream: None,
            chunk: usize::MAX,
            is_stalled: false,
            at_client: VecDeque::new(),
            at_relay: VecDeque::new(),
        }
    }

    /// One whose client sends by TCP.
    fn by_tcp(limits: ListenerLimits) -> Self {
        let pin = KeyDigest::of_certificate(&certificate().chain()[0]);
        let mut rig = Self::new(limits, pin);
        rig.send(b"hello");
        rig.pass(2 * SECOND);
        assert_eq!(rig.state(), FallbackState::Opened);
        rig
    }

    fn state(&self) -> FallbackState {
        self.client.statuses()[&udp()].state
    }

    fn accept(&mut self, real: &str) -> ByteStreamId {
        let id = self.relay.next_id();
        self.relay.handle_accepted(id, real.parse().unwrap(), self.now);
        id
    }

    /// The client's node sends a datagram to the relay. Returns what goes along by UDP.
    fn send(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let question = self.client.handle_sent(&batch(udp(), datagram), datagram, self.now);
        self.pump();
        question
    }

    /// The relay's node sends a datagram to the client at its address on TCP.
    fn answer(&mut self, to: SocketAddr, datagram: &[u8]) {
        assert!(self.relay.is_by_tcp(to));
        self.relay.handle_sent(&batch(to, datagram), datagram, self.now);
        self.pump();
    }

    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let dues = [&self.client, &self.relay].map(Fallback::deadline);
            let next = dues.into_iter().flatten().map(|(at, _)| at).min();
            self.now = next.filter(|at| *at <= end).unwrap_or(end).max(self.now);
            self.client.handle_timeout(self.now);
            self.relay.handle_timeout(self.now);
            self.pump();
            if self.now == end {
                return;
            }
        }
    }

    /// Does what both machines want until neither wants anything.
    fn pump(&mut self) {
        loop {
            let mut is_quiet = true;
            while let Some(action) = self.client.poll_action() {
                is_quiet = false;
                self.act(action);
            }
            while let Some(action) = self.relay.poll_action() {
                is_quiet = false;
                if let StreamAction::Close(id) = action
                    && let Some((near, _)) = self.stream.take_if(|(_, far)| *far == id)
                {
                    self.client.handle_ended(near, None, self.now);
                }
            }
            is_quiet &= !self.carry();
            while self.client.poll_writable().is_some() {}
            while self.relay.poll_writable().is_some() {}
            if is_quiet {
                return;
            }
        }
    }

    fn act(&mut self, action: StreamAction) {
        match action {
            StreamAction::Connect(id, to) => {
                assert_eq!(to, tcp());
                let far = self.accept("198.51.100.1:50000");
                self.stream = Some((id, far));
                self.client.handle_connected(id);
            }
            StreamAction::Close(id) => {
                if let Some((_, far)) = self.stream.take_if(|(near, _)| *near == id) {
                    self.relay.handle_ended(far, None, self.now);
                }
            }
        }
    }

    /// Moves bytes both ways. Returns whether there were any.
    fn carry(&mut self) -> bool {
        let Some((near, far)) = self.stream else { return false };
        let mut is_any = false;
        if let Some(bytes) = take(&mut self.client, near, self.chunk, self.now) {
            is_any = true;
            let found = &mut self.at_relay;
            self.relay.handle_bytes(far, &bytes, self.now, &mut |it| {
                found.push_back((it.route.remote, it.payload.to_vec()));
            });
        }
        if self.is_stalled {
            self.relay.poll_output(far, self.now);
            return is_any;
        }
        if let Some(bytes) = take(&mut self.relay, far, self.chunk, self.now) {
            is_any = true;
            let found = &mut self.at_client;
            self.client.handle_bytes(near, &bytes, self.now, &mut |it| {
                assert_eq!(it.route.remote, udp());
                found.push_back(it.payload.to_vec());
            });
        }
        is_any
    }
}

/// What a machine writes to a stream at once, if anything.
fn take(from: &mut Fallback, id: ByteStreamId, chunk: usize, now: Instant) -> Option<Vec<u8>> {
    match from.poll_output(id, now)? {
        StreamOutput::Bytes(bytes) => {
            let taken = bytes.len().min(chunk);
            from.handle_written(id, taken);
            Some(bytes[..taken].to_vec())
        }
        StreamOutput::Shutdown => {
            from.handle_shut_down(id, now);
            None
        }
    }
}

fn batch(remote: SocketAddr, datagram: &[u8]) -> Transmit {
    Transmit { route: Route::to(remote), ecn: None, segment_size: None, size: datagram.len() }
}

fn from(remote: SocketAddr, payload: &[u8]) -> Datagram {
    Datagram { route: Route::to(remote), ecn: None, segment_size: 0, payload: payload.into() }
}

/// The Version Negotiation packet that answers a question.
fn answer_to(question: &[u8]) -> Vec<u8> {
    assert_eq!(question.len(), TRIAL_LEN);
    let (theirs, ours) = (&question[6..14], &question[15..23]);
    [&[0xca, 0, 0, 0, 0, 8][..], ours, &[8], theirs, &[0, 0, 0, 1]].concat()
}

#[test]
fn answers_to_a_stranger_keep_no_stream_open() {
    let mut rig = Rig::by_tcp(ListenerLimits::default());
    let (address, _) = rig.at_relay.pop_front().unwrap();
    // A node answers any unknown version, and any packet of a connection that it does not have.
    for _ in 0..9 {
        rig.answer(address, b"version negotiation");
        rig.pass(SECOND);
    }
    assert_eq!(rig.relay.stats().open, 1);
    rig.pass(SECOND);
    assert_eq!(rig.relay.real_address(address), None);
}

#[test]
fn lost_udp_falls_to_tcp_and_returns_to_udp() {
    let mut rig = Rig::by_tcp(ListenerLimits::default());
    // What was sent before is sent again.
    let (address, first) = rig.at_relay.pop_front().unwrap();
    assert_eq!(first, b"hello");
    assert!(is_tcp_client_address(address));
    assert_eq!(rig.relay.real_address(address), "198.51.100.1:50000".parse().ok());
    rig.answer(address, b"welcome");
    assert_eq!(
        (rig.at_client.pop_front().unwrap(), rig.state()),
        (b"welcome".into(), FallbackState::Tcp)
    );

    rig.relay.handle_authenticated(address, rig.now);
    rig.pass(20 * SECOND);
    assert!(rig.client.is_by_tcp(udp()));
    let question = rig.send(b"more").unwrap();
    let answer = answer_to(&question);
    assert!(!rig.client.handle_datagram(&from(udp(), &answer), rig.now), "not for the node");
    assert_eq!(rig.state(), FallbackState::Leaving);
    assert!(!rig.client.is_by_tcp(udp()));
    assert!(rig.client.handle_datagram(&from(udp(), b"by UDP"), rig.now));
    rig.pass(4 * SECOND);
    assert_eq!((rig.state(), rig.stream), (FallbackState::Udp, None));
    assert_eq!((rig.relay.stats().open, rig.relay.stats().opened), (0, 1));
    assert!(rig.client.is_idle() && rig.relay.is_idle());
}

#[test]
fn streams_work_however_their_bytes_are_cut() {
    for chunk in [1, 3, 100] {
        let pin = KeyDigest::of_certificate(&certificate().chain()[0]);
        let mut rig = Rig::new(ListenerLimits::default(), pin);
        rig.chunk = chunk;
        rig.send(b"hello");
        rig.pass(2 * SECOND);
        let (address, _) = rig.at_relay.pop_front().unwrap();
        rig.answer(address, &[7; 1_200]);
        assert_eq!(rig.at_client.pop_front().unwrap(), [7; 1_200]);
    }
}

#[test]
fn a_relay_that_shows_another_key_is_not_used() {
    let mut rig = Rig::new(ListenerLimits::default(), Some(KeyDigest([7; 32])));
    rig.send(b"hello");
    rig.pass(10 * SECOND);
    assert!(rig.client.statuses()[&udp()].opened >= 2);
    assert_ne!(rig.state(), FallbackState::Opened);
    assert_eq!((rig.relay.stats().opened, rig.at_relay.len()), (0, 0));
}

#[test]
fn a_half_open_flood_does_not_lock_out_an_honest_client() {
    let limits = ListenerLimits { per_source: 10_000, opening: 64, ..ListenerLimits::default() };
    let mut rig = Rig::by_tcp(limits);
    let (address, _) = rig.at_relay.pop_front().unwrap();
    rig.stream.take();
    for number in 0..3_000_u32 {
        let id = rig.accept("198.51.100.9:1000");
        // Silent ones, half a ClientHello, and no TLS at all.
        let bytes = match number % 3 {
            0 => Vec::new(),
            1 => vec![0x16, 3, 1, 2, 0, 1, 0],
            _ => number.to_be_bytes().repeat(64),
        };
        rig.relay.handle_bytes(id, &bytes, rig.now, &mut |_| panic!("no datagram"));
        assert!(rig.relay.stats().open <= 65);
    }
    // One that was open stays, and another gets in.
    assert!(rig.relay.real_address(address).is_some());
    let mut client = Rig::new(limits, None);
    client.relay = rig.relay;
    client.send(b"hello");
    client.pass(2 * SECOND);
    assert_eq!(client.state(), FallbackState::Opened);
    assert_eq!(client.at_relay.len(), 1);
    assert!(client.relay.stats().failed >= 2_900);
}

#[test]
fn a_reader_that_stalls_fills_its_queue_and_no_more() {
    let limits = ListenerLimits { queue: 10_000, ..ListenerLimits::default() };
    let mut rig = Rig::by_tcp(limits);
    let (address, _) = rig.at_relay.pop_front().unwrap();
    rig.is_stalled = true;
    for _ in 0..10_000 {
        rig.answer(address, &[1; 998]);
    }
    assert_eq!(rig.relay.stats().dropped, 10_000 - 1 - 10);
    rig.pass(11 * SECOND);
    assert_eq!(rig.relay.real_address(address), None, "the client has given up");
    rig.relay.handle_sent(&batch(address, b"late"), b"late", rig.now);
    assert_eq!(rig.relay.stats().dropped, 10_000 - 10);
}

#[test]
fn a_client_whose_node_has_no_answer_is_closed() {
    let limits = ListenerLimits { open_within: 5 * SECOND, ..ListenerLimits::default() };
    let mut rig = Rig::by_tcp(limits);
    rig.pass(4 * SECOND);
    assert_eq!(rig.relay.stats().open, 1);
    rig.pass(SECOND);
    assert_eq!(rig.relay.stats().open, 0);
}

#[test]
fn udp_from_the_address_of_a_client_on_tcp_is_forged() {
    let mut rig = Rig::by_tcp(ListenerLimits::default());
    let (address, _) = rig.at_relay.pop_front().unwrap();
    assert!(!rig.relay.handle_datagram(&from(address, b"forged"), rig.now));
    assert!(rig.relay.handle_datagram(&from(udp(), b"honest"), rig.now));
}

#[test]
fn a_connection_beyond_a_limit_is_closed() {
    let mut rig = Rig::new(ListenerLimits { streams: 1, ..ListenerLimits::default() }, None);
    rig.accept("198.51.100.1:1");
    let second = rig.accept("198.51.100.2:1");
    assert_eq!(rig.relay.poll_action(), Some(StreamAction::Close(second)));
    assert_eq!(rig.relay.stats().refused, 1);
}

#[test]
fn finishing_writes_what_is_queued_and_then_nothing_is_left() {
    let mut rig = Rig::by_tcp(ListenerLimits::default());
    let (address, _) = rig.at_relay.pop_front().unwrap();
    rig.relay.handle_sent(&batch(address, b"goodbye"), b"goodbye", rig.now);
    rig.relay.finish(rig.now);
    assert!(!rig.relay.is_accepting(rig.now));
    rig.pump();
    assert_eq!(rig.at_client.pop_front().unwrap(), b"goodbye");
    rig.pass(3 * SECOND);
    assert!(rig.relay.is_idle(), "{:?} {:?}", rig.relay.stats(), rig.relay.deadline());
}

#[test]
fn a_relay_that_is_removed_leaves_no_stream() {
    let mut rig = Rig::by_tcp(ListenerLimits::default());
    rig.client.remove(udp(), rig.now);
    rig.pump();
    rig.pass(3 * SECOND);
    assert!(rig.client.is_idle() && rig.client.deadline().is_none());
    assert_eq!(rig.relay.stats().open, 0);
}
