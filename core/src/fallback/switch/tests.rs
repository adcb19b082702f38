//! The machine alone at its thresholds, and with a network and a relay in virtual time.

use std::collections::BTreeMap;

use super::*;
use crate::timer::anchor;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn switch() -> TransportSwitch {
    TransportSwitch::new(Rng::new([3; 32], "switch"))
}

/// A switch in each state, with what is due next in the far future.
fn in_state(state: FallbackState, now: Instant) -> TransportSwitch {
    let mut it = switch();
    it.handle_sent(now);
    if state == FallbackState::Udp {
        return it;
    }
    assert_eq!(it.handle_refused(now), Some(SwitchAction::Open));
    match state {
        FallbackState::Udp | FallbackState::Opening => {}
        FallbackState::Waiting => it.handle_down(now),
        FallbackState::Opened | FallbackState::Tcp | FallbackState::Leaving => {
            assert_eq!(it.handle_up(now), None);
            if state != FallbackState::Opened {
                it.handle_heard(Heard::Tcp, now);
            }
            if state == FallbackState::Leaving {
                it.handle_heard(Heard::Trial, now);
            }
        }
    }
    assert_eq!(it.state(), state);
    it
}

#[test]
fn every_state_has_an_answer_to_every_input() {
    let now = anchor();
    let mut table = String::new();
    for state in [
        FallbackState::Udp,
        FallbackState::Leaving,
        FallbackState::Opening,
        FallbackState::Waiting,
        FallbackState::Opened,
        FallbackState::Tcp,
    ] {
        type Input = (&'static str, fn(&mut TransportSwitch, Instant) -> Option<SwitchAction>);
        let inputs: [Input; 7] = [
            ("udp", |it, now| it.handle_heard(Heard::Udp, now)),
            ("tcp", |it, now| it.handle_heard(Heard::Tcp, now)),
            ("trial", |it, now| it.handle_heard(Heard::Trial, now)),
            ("refused", |it, now| it.handle_refused(now)),
            ("up", |it, now| it.handle_up(now)),
            ("down", |it, now| {
                it.handle_down(now);
                None
            }),
            ("time", |it, now| it.deadline().and_then(|at| it.handle_timeout(at.max(now)))),
        ];
        for (name, input) in inputs {
            let mut it = in_state(state, now);
            let action = input(&mut it, now).map_or(String::new(), |it| format!(" {it:?}"));
            table += &format!("{state:?} {name}: {:?}{action}\n", it.state());
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn two_seconds_of_silence_are_allowed_at_the_start_and_no_more() {
    let (now, mut it) = (anchor(), switch());
    it.handle_sent(now);
    it.handle_sent(now + SECOND);
    assert_eq!(it.deadline(), Some(now + FIRST_SILENCE));
    assert_eq!(it.handle_timeout(now + FIRST_SILENCE - MS), None);
    assert_eq!(it.handle_timeout(now + FIRST_SILENCE), Some(SwitchAction::Open));
    assert_eq!(it.state(), FallbackState::Opening);
}

#[test]
fn five_seconds_are_allowed_once_udp_was_heard() {
    let (now, mut it) = (anchor(), switch());
    it.handle_sent(now);
    it.handle_heard(Heard::Udp, now);
    let later = now + SECOND;
    it.handle_sent(later);
    assert_eq!(it.handle_timeout(later + SILENCE - MS), None);
    assert_eq!(it.handle_timeout(later + SILENCE), Some(SwitchAction::Open));
}

#[test]
fn the_first_datagrams_and_those_after_half_a_second_without_an_answer_are_worth_keeping() {
    let (now, mut it) = (anchor(), switch());
    assert!(it.is_suspect(now));
    it.handle_sent(now);
    it.handle_heard(Heard::Udp, now);
    assert!(!it.is_suspect(now));
    let later = now + SECOND;
    it.handle_sent(later);
    assert!(!it.is_suspect(later + SUSPECT_AFTER));
    assert!(it.is_suspect(later + SUSPECT_AFTER + MS));
    it.handle_heard(Heard::Udp, later + SECOND);
    assert!(!it.is_suspect(later + 2 * SECOND));
}

#[test]
fn an_acknowledgement_wants_no_answer_and_anything_later_does() {
    let (now, mut it) = (anchor(), switch());
    it.handle_sent(now);
    it.handle_heard(Heard::Udp, now);
    it.handle_sent(now + ACKNOWLEDGING);
    assert_eq!(it.deadline(), None);
    it.handle_sent(now + ACKNOWLEDGING + MS);
    assert_eq!(it.deadline(), Some(now + ACKNOWLEDGING + MS + SILENCE));
}

#[test]
fn trials_go_immediately_and_each_second_until_tcp_is_in_use() {
    let (now, mut it) = (anchor(), switch());
    assert!(!it.handle_sent(now));
    it.handle_timeout(now + FIRST_SILENCE);
    let suspected = now + FIRST_SILENCE;
    assert!(it.handle_sent(suspected));
    assert!(!it.handle_sent(suspected + OPENING_TRIAL_GAP - MS));
    assert!(it.handle_sent(suspected + OPENING_TRIAL_GAP));
    it.handle_up(suspected + OPENING_TRIAL_GAP);
    it.handle_heard(Heard::Tcp, suspected + OPENING_TRIAL_GAP);
    assert!(!it.handle_sent(suspected + OPENING_TRIAL_GAP + TRIAL_GAP - MS));
    assert!(it.handle_sent(suspected + OPENING_TRIAL_GAP + TRIAL_GAP));
}

#[test]
fn a_node_that_sends_nothing_more_has_no_stream_for_long() {
    for state in [
        FallbackState::Leaving,
        FallbackState::Opening,
        FallbackState::Waiting,
        FallbackState::Opened,
        FallbackState::Tcp,
    ] {
        let now = anchor();
        let mut it = in_state(state, now);
        let mut steps = 0;
        while let Some(at) = it.deadline() {
            assert!(at <= now + IDLE_TIMEOUT, "{state:?}");
            it.handle_timeout(at);
            if it.state() == FallbackState::Opening && at < now + IDLE_TIMEOUT {
                it.handle_down(at);
            }
            steps += 1;
            assert!(steps < 100, "{state:?} does not come to rest");
        }
        assert_eq!(it.state(), FallbackState::Udp);
    }
}

#[test]
fn while_udp_carries_nothing_is_ever_opened() {
    let mut world = World::new(1, Traffic::Bulk);
    world.run(600 * SECOND);
    assert_eq!(world.states, []);
    assert!(world.longest_stall_since(1) < SECOND);
}

#[test]
fn a_quiet_connection_is_not_taken_for_a_blocked_one() {
    for traffic in [Traffic::KeepAlive, Traffic::Answering] {
        let mut world = World::new(2, traffic);
        world.run(600 * SECOND);
        assert_eq!(world.states, [], "{traffic:?}");
    }
}

#[test]
fn where_udp_is_blocked_the_first_answer_comes_by_tcp() {
    for seed in 0..100 {
        let mut world = World::new(seed, Traffic::Bulk);
        world.net.udp_up = seed % 2 == 0;
        world.net.udp_down = seed % 2 == 1;
        world.net.trials = false;
        world.run(120 * SECOND);
        assert_eq!(
            world.states_only(),
            [FallbackState::Opening, FallbackState::Opened, FallbackState::Tcp],
            "{seed}"
        );
        assert!(world.answers[0] < FIRST_SILENCE + 2 * SECOND, "{seed}");
    }
}

#[test]
fn tcp_is_left_once_udp_is_open_and_taken_again_once_it_is_not() {
    for seed in 0..100 {
        let mut world = World::new(seed, Traffic::Bulk);
        world.block(true);
        world.run(20 * SECOND);
        assert_eq!(world.switch.state(), FallbackState::Tcp);
        let so_far = world.answers.len();
        world.block(false);
        world.run(TRIAL_GAP + LINGER + SECOND);
        assert_eq!(world.switch.state(), FallbackState::Udp);
        assert!(!world.has_stream(), "the stream is closed");
        assert!(world.longest_stall_since(so_far) < SECOND, "{seed}: leaving is not felt");

        world.run(STABLE_AFTER + SECOND);
        let so_far = world.answers.len();
        world.block(true);
        world.run(10 * SECOND);
        assert_eq!(world.switch.state(), FallbackState::Tcp);
        assert!(world.longest_stall_since(so_far - 1) < SILENCE + 2 * SECOND, "{seed}");
    }
}

#[test]
fn udp_that_answers_trials_alone_is_tried_less_and_less() {
    let mut world = World::new(7, Traffic::Bulk);
    world.block(true);
    world.net.trials = true;
    world.run(3_600 * SECOND);
    let left = world.states_only().iter().filter(|it| **it == FallbackState::Leaving).count();
    assert!((5..=18).contains(&left), "{left} times in an hour");
    let first = world.answers[0];
    assert!(first < 2 * FIRST_SILENCE + 2 * SECOND, "{first:?}");
    assert!(
        world.longest_stall_since(1) < CONFIRM_TIMEOUT + 2 * SECOND,
        "{:?}",
        world.longest_stall_since(1)
    );
}

#[test]
fn with_nothing_to_be_reached_streams_are_tried_at_most_about_once_a_minute() {
    let mut world = World::new(8, Traffic::Bulk);
    world.block(true);
    world.net.tcp = false;
    world.run(3_600 * SECOND);
    let opened = world.states_only().iter().filter(|it| **it == FallbackState::Opening).count();
    assert!((40..=120).contains(&opened), "{opened}");
}

#[test]
fn a_relay_that_hangs_behind_an_open_stream_gets_another() {
    let mut world = World::new(9, Traffic::Bulk);
    world.block(true);
    world.run(20 * SECOND);
    world.net.hangs = true;
    world.run(60 * SECOND);
    assert!(world.opened > 1);
    world.net.hangs = false;
    world.run(60 * SECOND);
    assert_eq!(world.switch.state(), FallbackState::Tcp);
}

#[test]
fn whatever_the_network_does_the_relay_is_found_again_and_changes_are_few() {
    for seed in 0..100 {
        let mut world = World::new(seed, Traffic::Bulk);
        let mut rng = Rng::new([seed as u8; 32], "weather");
        for _ in 0..20 {
            let word = rng.u64();
            world.net.udp_up = word & 3 != 0;
            world.net.udp_down = word & 12 != 0;
            world.net.trials = world.net.udp_up && world.net.udp_down || word & 48 == 0;
            world.net.tcp = word & 192 != 0;
            world.net.hangs = word & 0xf00 == 0;
            world.run(SECOND.mul_f64(40.0 * rng.unit()));
        }
        world.net = Net::OPEN;
        world.run(90 * SECOND);
        let so_far = world.answers.len();
        world.run(60 * SECOND);
        assert!(world.longest_stall_since(so_far - 1) < SECOND, "{seed}: {:?}", world.states);
        let elapsed = world.elapsed().as_secs_f64();
        assert!(world.states.len() as f64 <= elapsed / 2.0, "{seed}: {:?}", world.states);
    }
}

/// Who begins to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// The client, all the time.
    Bulk,
    /// The client, every ten seconds.
    KeepAlive,
    /// The relay, every ten seconds; the client acknowledges.
    Answering,
}

#[derive(Debug, Clone, Copy)]
struct Net {
    udp_up: bool,
    udp_down: bool,
    trials: bool,
    tcp: bool,
    hangs: bool,
}

impl Net {
    const OPEN: Self = Self { udp_up: true, udp_down: true, trials: true, tcp: true, hangs: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Send,
    RelaySends,
    AtRelay(u64, Heard),
    Answer(Heard),
    Up(u64),
    Down(u64),
}

/// A client with the machine, a network, and a relay that answers by whatever brought it the newest
/// datagram, as QUIC's does.
struct World {
    start: Instant,
    now: Instant,
    switch: TransportSwitch,
    net: Net,
    traffic: Traffic,
    agenda: BTreeMap<(Instant, u64), Happens>,
    order: u64,
    number: u64,
    newest: u64,
    pause: Duration,
    stream: Option<u64>,
    is_up: bool,
    opened: u64,
    states: Vec<(Duration, FallbackState)>,
    answers: Vec<Duration>,
}

impl World {
    const HALF: Duration = Duration::from_millis(25);

    fn new(seed: u64, traffic: Traffic) -> Self {
        let (start, mut bytes) = (anchor(), [0; 32]);
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut world = Self {
            start,
            now: start,
            switch: TransportSwitch::new(Rng::new(bytes, "switch")),
            net: Net::OPEN,
            traffic,
            agenda: BTreeMap::new(),
            order: 0,
            number: 0,
            newest: 0,
            pause: SECOND,
            stream: None,
            is_up: false,
            opened: 0,
            states: Vec::new(),
            answers: Vec::new(),
        };
        world.after(Duration::ZERO, Happens::Send);
        if traffic == Traffic::Answering {
            world.after(10 * SECOND, Happens::RelaySends);
        }
        world
    }

    fn block(&mut self, is_blocked: bool) {
        let open = !is_blocked;
        self.net = Net { udp_up: open, udp_down: open, trials: open, ..self.net };
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let before = self.switch.state();
            let next = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let due = self.switch.deadline();
            let Some(at) = next.into_iter().chain(due).min().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            if due.is_some_and(|due| due <= self.now) {
                let action = self.switch.handle_timeout(self.now);
                self.act(action);
            } else if let Some((_, happens)) = self.agenda.pop_first() {
                self.happen(happens);
            }
            if self.switch.state() != before {
                self.states.push((self.elapsed(), self.switch.state()));
            }
        }
        self.now = end;
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Send => self.send(),
            Happens::RelaySends => {
                self.answer(Heard::Udp);
                self.after(10 * SECOND, Happens::RelaySends);
            }
            Happens::AtRelay(number, by) => {
                if number > self.newest && !self.net.hangs {
                    self.newest = number;
                    self.answer(by);
                }
            }
            Happens::Answer(by) => {
                let action = self.switch.handle_heard(by, self.now);
                self.act(action);
                if by != Heard::Trial {
                    self.answers.push(self.elapsed());
                    self.pause = 100 * MS;
                    if self.traffic == Traffic::Answering {
                        self.after(25 * MS, Happens::Send);
                    }
                }
            }
            Happens::Up(stream) if self.stream == Some(stream) => {
                self.is_up = true;
                let action = self.switch.handle_up(self.now);
                self.act(action);
            }
            Happens::Down(stream) if self.stream == Some(stream) => {
                self.stream = None;
                self.switch.handle_down(self.now);
            }
            Happens::Up(_) | Happens::Down(_) => {}
        }
    }

    fn send(&mut self) {
        self.number += 1;
        let by_tcp = self.switch.is_by_tcp();
        if !by_tcp && self.net.udp_up {
            self.after(Self::HALF, Happens::AtRelay(self.number, Heard::Udp));
        }
        if by_tcp && self.net.tcp && self.has_stream() {
            self.after(Self::HALF + MS, Happens::AtRelay(self.number, Heard::Tcp));
        }
        if self.switch.handle_sent(self.now) && self.net.trials && !self.net.hangs {
            self.after(2 * Self::HALF, Happens::Answer(Heard::Trial));
        }
        match self.traffic {
            Traffic::Bulk => {
                // Acknowledged a moment ago: on with it; or else a probe, each later than the last.
                let recent = self.answers.last().is_some_and(|&at| self.elapsed() < at + 100 * MS);
                let pause = if recent { 20 * MS } else { self.pause };
                self.pause = if recent { 100 * MS } else { (2 * self.pause).min(20 * SECOND) };
                self.after(pause, Happens::Send);
            }
            Traffic::KeepAlive => self.after(10 * SECOND, Happens::Send),
            Traffic::Answering => {}
        }
    }

    fn answer(&mut self, by: Heard) {
        let arrives = match by {
            Heard::Udp => self.net.udp_down,
            Heard::Tcp => self.net.tcp && self.has_stream(),
            Heard::Trial => false,
        };
        // The client's first datagram alone is answered where it only acknowledges.
        if arrives && (self.traffic != Traffic::Answering || self.newest <= 1) {
            self.after(Self::HALF, Happens::Answer(by));
        }
    }

    fn act(&mut self, action: Option<SwitchAction>) {
        match action {
            Some(SwitchAction::Open) => {
                self.opened += 1;
                self.stream = Some(self.opened);
                self.is_up = false;
                match self.net.tcp {
                    true => self.after(4 * Self::HALF, Happens::Up(self.opened)),
                    false => self.after(2 * Self::HALF, Happens::Down(self.opened)),
                }
            }
            Some(SwitchAction::Close) => {
                self.stream = None;
                self.is_up = false;
            }
            None => {}
        }
    }

    const fn has_stream(&self) -> bool {
        self.stream.is_some() && self.is_up
    }

    fn after(&mut self, delay: Duration, happens: Happens) {
        self.order += 1;
        self.agenda.insert((self.now + delay, self.order), happens);
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn states_only(&self) -> Vec<FallbackState> {
        self.states.iter().map(|(_, state)| *state).collect()
    }

    /// The longest time between two answers from the `first` on, or since the last.
    fn longest_stall_since(&self, first: usize) -> Duration {
        let answers = self.answers[first..].iter().copied().chain([self.elapsed()]);
        let answers: Vec<_> = answers.collect();
        answers.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }
}
