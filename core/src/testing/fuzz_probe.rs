//! The invariants for any probes and any order of calls: the body of the fuzz target `probes`.
//!
//! Decides what counts as a failure, and fails by panicking. Never makes up input: that comes from
//! the fuzzer, or from the corpus that the tests replay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{Channel, PeerId};
use crate::path::{
    CandidateAddress, CandidateOffer, CandidateType, Dispatch, MAX_CANDIDATES, Mapping, PathAction,
    PathConfig, PathRole, Paths, ProbeOutcome,
};
use crate::probe::{self, FULL_LEN, LEN, Probe, ProbeKey, ProbeKind};
use crate::rng::Rng;
use crate::transmit::{NextHop, Route};

const OURS: (u64, u8) = (1, 11);
const THEIRS: (u64, u8) = (2, 22);

fn key((_, byte): (u64, u8)) -> ProbeKey {
    ProbeKey::new([byte; 32])
}

/// Decodes any bytes as a probe, and makes any calls on one end of a connection.
///
/// The first byte of `data` chooses the end; the rest are calls, three bytes each: which, and two
/// arguments. Data goes only to addresses that have answered, a probe counts only if it is the
/// peer's, no collection grows beyond its bound, and once drained no deadline is in the past.
pub fn probes(data: &[u8]) {
    raw(data);
    let Some((&first, calls)) = data.split_first() else { return };
    let role = if first & 1 == 0 { PathRole::Dialler } else { PathRole::Acceptor };
    let mut run = Run::new(role);
    for call in calls.chunks_exact(3).take(2_000) {
        run.call(call[0], call[1], call[2]);
        run.drain();
    }
}

/// Checks that the encoding of a decoded probe is exactly its bytes.
fn raw(data: &[u8]) {
    let key = key(THEIRS);
    if let Some(probe) = Probe::decode(data, &key) {
        assert_eq!(probe::datagram(&probe.encode(&key)), data, "a second form of one probe");
        assert_eq!(Probe::session(data), Some(probe.session));
    }
    assert!(Probe::session(data).is_none() || [LEN, FULL_LEN].contains(&data.len()));
}

struct Run {
    paths: Paths,
    now: Instant,
    asked: Vec<(NextHop, Probe)>,
    answered: Vec<SocketAddr>,
}

fn via(number: u8) -> NextHop {
    match number.checked_sub(64) {
        Some(relay) => NextHop::Relayed(channel(relay)),
        None => NextHop::Direct(Route::to(address(number))),
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4_000))
}

fn channel(number: u8) -> Channel {
    Channel { relay: PeerId(1), number: u32::from(number) % 8 }
}

fn mapping(number: u8) -> Mapping {
    match number % 4 {
        0 => Mapping::None,
        1 => Mapping::Independent,
        2 => Mapping::Dependent,
        _ => Mapping::Unknown,
    }
}

fn candidates(first: u8, count: u8) -> Vec<CandidateAddress> {
    let kinds = [
        CandidateType::Host,
        CandidateType::Mapped,
        CandidateType::Reflexive,
        CandidateType::PeerReflexive,
    ];
    let numbers = (0..count).map(|i| first.wrapping_add(i));
    let one = |number: u8| {
        let kind = kinds[usize::from(number) % kinds.len()];
        CandidateAddress { kind, address: address(number) }
    };
    numbers.map(one).collect()
}

impl Run {
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn new(role: PathRole) -> Self {
        let now = Instant::now();
        let rng = Rng::new([1; 32], "path");
        let paths = Paths::new(PathConfig::default(), role, channel(0), rng, now);
        Self { paths, now, asked: Vec::new(), answered: Vec::new() }
    }

    fn call(&mut self, which: u8, a: u8, b: u8) {
        let now = self.now;
        match which % 16 {
            0 => self.now += Duration::from_millis(u64::from(a) * 2),
            1 => self.now += Duration::from_secs(u64::from(a) * u64::from(b)),
            2 => self.paths.set_keys((OURS.0, key(OURS)), (THEIRS.0, key(THEIRS)), now),
            3 => self.paths.set_local(&candidates(200, a % 20), mapping(b), now),
            4 => {
                let offer = CandidateOffer {
                    candidates: candidates(a, b % 40),
                    mapping: mapping(b),
                    round: u32::from(a),
                    has_full_probes: b & 0x40 == 0,
                };
                self.paths.handle_candidates(&offer, now);
            }
            5 => self.paths.add_relayed(channel(a), now),
            6 => self.paths.remove_relayed(channel(a), now),
            7 => self.answer(a, None),
            8 => self.answer(a, Some(via(b))),
            9 => self.ping(via(a % 72), u64::from(b), a ^ b),
            10 => self.ping(via(a % 72), u64::from(b) << 56, b),
            11 => self.flipped(a, b),
            12 => self.paths.on_received(via(a % 72), now),
            13 if a & 1 == 0 => self.paths.on_network_changed(now),
            13 => self.paths.on_send_failed(Route::to(address(b)), now),
            14 => self.paths.note_rtt(Duration::from_millis(u64::from(a) * u64::from(b))),
            _ => self.dispatch(usize::from(a) * usize::from(b)),
        }
    }

    fn ping(&mut self, via: NextHop, transaction: u64, state: u8) {
        let kind = ProbeKind::Ping;
        let ping = Probe { kind, session: THEIRS.0, transaction, sent: 0, observed: None, state };
        self.paths.handle_probe(via, &ping.encode(&key(THEIRS)), self.now);
    }

    /// Answers one of the latest questions, from where it was asked or from elsewhere.
    fn answer(&mut self, back: u8, from: Option<NextHop>) {
        let back = usize::from(back % 16);
        let Some(&(asked, ping)) = self.asked.iter().rev().nth(back) else { return };
        let state = u8::from(matches!(asked, NextHop::Direct(_)));
        let pong = Probe { kind: ping.kind.answer(), session: THEIRS.0, state, ..ping };
        let from = from.unwrap_or(asked);
        let pong = probe::datagram(&pong.encode(&key(THEIRS)));
        let heard = self.paths.handle_probe(from, &pong, self.now);
        if heard == ProbeOutcome::Pong {
            assert_eq!(from, asked, "an answer counted from where nothing was asked");
            if let NextHop::Direct(route) = from {
                self.answered.push(route.remote);
            }
        }
    }

    /// Handles a probe with one flipped bit, and one of this end's own.
    fn flipped(&mut self, from: u8, bit: u8) {
        let kind = ProbeKind::Ping;
        let probe = Probe {
            kind,
            session: THEIRS.0,
            transaction: u64::MAX,
            sent: 0,
            observed: None,
            state: 1,
        };
        let mut bytes = probe.encode(&key(THEIRS));
        bytes[usize::from(bit) % LEN] ^= 1 << (from % 8);
        let heard = self.paths.handle_probe(via(from % 64), &bytes, self.now);
        assert!(
            matches!(
                heard,
                ProbeOutcome::Forged | ProbeOutcome::Reflected | ProbeOutcome::TooEarly
            ),
            "{heard:?}"
        );
        let own = Probe { session: OURS.0, ..probe }.encode(&key(OURS));
        let heard = self.paths.handle_probe(via(from % 64), &own, self.now);
        assert!(matches!(heard, ProbeOutcome::Reflected | ProbeOutcome::TooEarly), "{heard:?}");
    }

    fn dispatch(&mut self, length: usize) {
        match self.paths.dispatch(&vec![0; length], None, self.now) {
            Dispatch::Send(via) => self.may_carry(via),
            Dispatch::Both { first, copy } => {
                assert_ne!(first, copy, "two copies by one way");
                self.may_carry(first);
                self.may_carry(copy);
            }
            Dispatch::Held => {}
        }
    }

    fn may_carry(&self, via: NextHop) {
        if let NextHop::Direct(route) = via {
            assert!(self.answered.contains(&route.remote), "data to an unproven address");
        }
    }

    fn drain(&mut self) {
        for turn in 0.. {
            assert!(turn < 5_000, "poll does not end");
            let Some(action) = self.paths.poll(self.now) else { break };
            match action {
                PathAction::Probe { via, bytes } => {
                    let bytes = probe::datagram(&bytes);
                    let probe = Probe::decode(&bytes, &key(OURS)).expect("a probe of this end");
                    if probe.kind.is_ping() {
                        self.asked.push((via, probe));
                    }
                }
                PathAction::Packets { via, .. } => self.may_carry(via),
                PathAction::Changed { from, to, .. } => {
                    assert_ne!(from, Some(to), "a change that is none");
                    self.may_carry(to);
                }
                PathAction::Candidates(offer) => assert!(offer.candidates.len() <= MAX_CANDIDATES),
                PathAction::Shrink => {}
            }
        }
        let late = self.paths.deadline().is_some_and(|(at, _)| at <= self.now);
        assert!(!late, "a deadline in the past");
        assert!(self.paths.view(self.now).paths.len() <= 28, "more paths than are kept");
    }
}
