//! Any order of calls: what must hold after each.

use super::super::context::MAX_ACTIONS;
use super::super::path_set::{MAX_DIRECT, MAX_RELAYED};
use super::super::reorder::WITHOUT_PATH;
use super::super::{
    CandidateAddress, CandidateOffer, CandidateType, Dispatch, Mapping, PathAction, PathConfig,
    PathRole, Paths,
};
use super::world::{channel, key, ms};
use crate::probe::{self, Probe, ProbeKind};
use crate::rng::Rng;
use crate::timer::anchor;
use crate::transmit::{NextHop, Route};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Leap(u64),
    Back(u64),
    Keys,
    Local(u8, u8),
    Offer {
        addresses: u8,
        mapping: u8,
        round: u8,
    },
    AddRelay(u8),
    RemoveRelay(u8),
    /// Answers the latest ping of ours, from where it was sent or from elsewhere.
    Answer {
        from: Option<u8>,
        back: u8,
    },
    Ping {
        from: u8,
        transaction: u16,
        state: u8,
    },
    Garbage(u8),
    Received(u8),
    Network,
    SendFailed(u8),
    Rtt(u16),
    Dispatch(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u64..400).prop_map(Op::Wait),
        1 => (1u64..100_000).prop_map(Op::Leap),
        1 => (0u64..1_000).prop_map(Op::Back),
        1 => Just(Op::Keys),
        1 => (0u8..5, 0u8..4).prop_map(|(count, mapping)| Op::Local(count, mapping)),
        2 => (0u8..40, 0u8..4, any::<u8>())
            .prop_map(|(addresses, mapping, round)| Op::Offer { addresses, mapping, round }),
        1 => (0u8..6).prop_map(Op::AddRelay),
        1 => (0u8..6).prop_map(Op::RemoveRelay),
        8 => (prop::option::weighted(0.1, 0u8..40), 0u8..4)
            .prop_map(|(from, back)| Op::Answer { from, back }),
        3 => (0u8..45, any::<u16>(), any::<u8>())
            .prop_map(|(from, transaction, state)| Op::Ping { from, transaction, state }),
        1 => any::<u8>().prop_map(Op::Garbage),
        3 => (0u8..45).prop_map(Op::Received),
        1 => Just(Op::Network),
        1 => (0u8..40).prop_map(Op::SendFailed),
        1 => any::<u16>().prop_map(Op::Rtt),
        6 => (1u16..2_000).prop_map(Op::Dispatch),
    ]
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4_000))
}

/// Below 40 a direct address, above it a relay.
fn via(number: u8) -> NextHop {
    match number.checked_sub(40) {
        Some(relay) => NextHop::Relayed(channel(relay.into())),
        None => NextHop::Direct(Route::to(address(number))),
    }
}

const MAPPINGS: [Mapping; 4] =
    [Mapping::None, Mapping::Independent, Mapping::Dependent, Mapping::Unknown];

struct Run {
    paths: Paths,
    now: Instant,
    pings: VecDeque<(NextHop, Probe)>,
    answered: Vec<SocketAddr>,
}

impl Run {
    fn apply(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Wait(time) => self.now += ms(time),
            Op::Leap(seconds) => self.now += Duration::from_secs(seconds),
            Op::Back(time) => {
                let back = now.checked_sub(ms(time)).unwrap_or(now);
                let _ = self.paths.poll(back).map(|action| self.act(action));
                let _ = self.paths.dispatch(&[0; 10], None, back);
                self.paths.on_received(via(0), back);
            }
            Op::Keys => self.paths.set_keys((1, key(1)), (2, key(2)), now),
            Op::Local(count, mapping) => {
                let candidate = |number| CandidateAddress {
                    kind: CandidateType::Host,
                    address: address(number),
                };
                let all: Vec<_> = (100..100 + count).map(candidate).collect();
                self.paths.set_local(&all, MAPPINGS[usize::from(mapping)], now);
            }
            Op::Offer { addresses, mapping, round } => {
                let kinds = [CandidateType::Host, CandidateType::Reflexive, CandidateType::Mapped];
                let candidate = |number: u8| CandidateAddress {
                    kind: kinds[usize::from(number) % 3],
                    address: address(number),
                };
                let candidates = (0..addresses).map(candidate).collect();
                let mapping = MAPPINGS[usize::from(mapping)];
                let has_full_probes = addresses % 2 == 0;
                let round = round.into();
                let offer = CandidateOffer { candidates, mapping, round, has_full_probes };
                self.paths.handle_candidates(&offer, now);
            }
            Op::AddRelay(number) => self.paths.add_relayed(channel(number.into()), now),
            Op::RemoveRelay(number) => self.paths.remove_relayed(channel(number.into()), now),
            Op::Answer { from, back } => self.answer(from, back),
            Op::Ping { from, transaction, state } => {
                let (kind, transaction) = (ProbeKind::Ping, transaction.into());
                let ping = Probe { kind, session: 2, transaction, sent: 0, observed: None, state };
                self.paths.handle_probe(via(from), &ping.encode(&key(2)), now);
            }
            Op::Garbage(byte) => {
                self.paths.handle_probe(via(1), &[byte; 64], now);
            }
            Op::Received(from) => self.paths.on_received(via(from), now),
            Op::Network => self.paths.on_network_changed(now),
            Op::SendFailed(number) => {
                self.paths.on_send_failed(Route::to(address(number)), now);
            }
            Op::Rtt(ms_) => self.paths.note_rtt(ms(ms_.into())),
            Op::Dispatch(length) => {
                let bytes = vec![0; length.into()];
                match self.paths.dispatch(&bytes, None, now) {
                    Dispatch::Send(via) => self.check_via(via),
                    Dispatch::Both { first, copy } => {
                        assert_ne!(first, copy);
                        self.check_via(first);
                        self.check_via(copy);
                    }
                    Dispatch::Held => {}
                }
            }
        }
    }

    fn answer(&mut self, from: Option<u8>, back: u8) {
        let Some((asked, ping)) = self.pings.iter().rev().nth(back.into()).copied() else { return };
        let state = u8::from(matches!(asked, NextHop::Direct(_)));
        let pong = Probe { kind: ping.kind.answer(), session: 2, state, ..ping };
        let pong = probe::datagram(&pong.encode(&key(2)));
        let from = from.map_or(asked, via);
        let heard = self.paths.handle_probe(from, &pong, self.now);
        if let (NextHop::Direct(route), super::super::ProbeOutcome::Pong) = (from, heard) {
            assert_eq!(from, asked, "an answer counted from where nothing was asked");
            self.answered.push(route.remote);
        }
    }

    fn check_via(&self, via: NextHop) {
        if let NextHop::Direct(route) = via {
            assert!(self.answered.contains(&route.remote), "data to an unproven address");
        }
    }

    fn act(&mut self, action: PathAction) {
        match action {
            PathAction::Probe { via, bytes } => {
                let bytes = probe::datagram(&bytes);
                let probe = Probe::decode(&bytes, &key(1)).expect("one of ours");
                if probe.kind.is_ping() {
                    self.pings.push_back((via, probe));
                    self.pings.truncate(10_000);
                }
            }
            PathAction::Packets { via, .. } => self.check_via(via),
            PathAction::Changed { from, to, .. } => {
                assert_ne!(from, Some(to));
                self.check_via(to);
            }
            PathAction::Candidates(_) | PathAction::Shrink => {}
        }
    }

    fn check(&mut self) {
        let mut turns = 0;
        while let Some(action) = self.paths.poll(self.now) {
            turns += 1;
            assert!(turns < 5_000, "poll does not end");
            self.act(action);
        }
        if let Some((at, _)) = self.paths.deadline() {
            assert!(at > self.now, "a deadline in the past");
        }
        let direct = self.paths.paths.iter().filter(|path| path.is_direct()).count();
        assert!(direct <= MAX_DIRECT);
        assert!(self.paths.paths.iter().count() - direct <= MAX_RELAYED);
        assert!(self.paths.paths.iter().all(|path| path.track().pending() <= 8));
        assert!(self.paths.cx.waiting() <= MAX_ACTIONS);
        let config = PathConfig::default();
        let most = 2 * config.reorder_bytes + config.resend_bytes + WITHOUT_PATH;
        let view = self.paths.view(self.now);
        assert!(view.kept_bytes <= most);
        serde_json::to_string(&view).expect("a view serialises");
    }
}

fn run(ops: &[Op], role: PathRole) -> Run {
    let now = anchor();
    let rng = Rng::new([7; 32], "path");
    let paths = Paths::new(PathConfig::default(), role, channel(0), rng, now);
    let mut run = Run { paths, now, pings: VecDeque::new(), answered: Vec::new() };
    for op in ops {
        run.apply(op);
        run.check();
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/path.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn data_goes_to_proven_addresses_only_and_nothing_grows_or_is_late(
        ops in prop::collection::vec(op(), 1..150),
        is_dialler in any::<bool>(),
    ) {
        let role = if is_dialler { PathRole::Dialler } else { PathRole::Acceptor };
        let mut all = vec![Op::Keys, Op::Local(2, 1)];
        all.extend(ops);
        run(&all, role);
    }
}
