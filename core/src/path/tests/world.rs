//! Two ends joined by relays and direct links, in virtual time. No QUIC: a packet is a number, and
//! each is acknowledged immediately by another that is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::{
    CandidateAddress, CandidateOffer, CandidateType, Dispatch, Mapping, PathAction, PathConfig,
    ProbeOutcome,
};
use super::super::{PathReason, PathRole, Paths};
use crate::id::{Channel, PeerId};
use crate::probe::{self, LEN, ProbeKey};
use crate::rng::Rng;
use crate::timer::anchor;
use crate::transmit::{NextHop, Route};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) const DIALLER: usize = 0;
pub(super) const ACCEPTOR: usize = 1;
/// No number is missing.
pub(super) const NONE: [u64; 0] = [];

pub(super) fn channel(number: u32) -> Channel {
    Channel { relay: PeerId(1), number }
}

pub(super) fn key(byte: u8) -> ProbeKey {
    ProbeKey::new([byte; 32])
}

/// A link between two addresses, or by a relay. Each direction can be cut alone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) delay: Duration,
    pub(super) up: [bool; 2],
    /// Every how many packets one is lost; 0 for none.
    pub(super) lose_every: u64,
    /// The largest datagram that passes from each end.
    pub(super) most: [usize; 2],
    /// Addresses of both ends; none for a relay.
    pub(super) addresses: Option<[SocketAddr; 2]>,
    /// Whether both ends drop what comes before they have sent.
    pub(super) is_filtered: bool,
    has_sent: [bool; 2],
    count: u64,
}

impl Link {
    pub(super) fn relay(delay: u64) -> Self {
        let (up, addresses) = ([true; 2], None);
        let has_sent = [false; 2];
        let delay = ms(delay);
        let (most, is_filtered) = ([usize::MAX; 2], false);
        Self { delay, up, lose_every: 0, most, addresses, is_filtered, has_sent, count: 0 }
    }

    pub(super) fn direct<T: AsRef<str>>(delay: u64, addresses: [T; 2]) -> Self {
        let addresses = Some(addresses.map(|it| it.as_ref().parse().unwrap()));
        Self { addresses, is_filtered: true, ..Self::relay(delay) }
    }

    fn carries(&mut self, from: usize) -> bool {
        self.has_sent[from] = true;
        self.count += 1;
        let is_lost = self.lose_every > 0 && self.count.is_multiple_of(self.lose_every);
        self.up[from] && !is_lost && (!self.is_filtered || self.has_sent[1 - from])
    }
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Probe([u8; LEN]),
    Data { number: u64, is_ack: bool },
    Offer(CandidateOffer),
}

/// A change of the active path, as its end reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: Duration,
    pub(super) to: NextHop,
    pub(super) reason: PathReason,
    pub(super) planned: bool,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) paths: Paths,
    pub(super) changes: Vec<Change>,
    pub(super) shrinks: usize,
    /// Numbers that came, in their order, with the time of the first.
    pub(super) got: Vec<u64>,
    pub(super) got_at: BTreeMap<u64, Duration>,
    pub(super) sent_at: BTreeMap<u64, Duration>,
    /// Packets that took two paths.
    pub(super) copied: Vec<(u64, Duration)>,
    pub(super) probes: u64,
    pub(super) heard: BTreeMap<String, u64>,
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    pub(super) links: Vec<Link>,
    queue: BTreeMap<(Instant, u64), (usize, NextHop, Body)>,
    sequence: u64,
    next_number: u64,
    /// Ends, the times between their packets, and when the next is sent.
    pub(super) traffic: Vec<(usize, Duration, Instant)>,
    /// Whether each end takes the other for one that answers no full-size probe.
    pub(super) is_earlier: bool,
    /// Everything that went over a link.
    pub(super) wire: Vec<(Duration, usize, NextHop, Body)>,
}

impl World {
    /// A relay of 40 ms in each direction, and a direct link of 10 ms in each direction, both NATs
    /// filtering.
    pub(super) fn new(seed: u8) -> Self {
        Self::with(
            seed,
            vec![Link::relay(40), Link::direct(10, ["198.51.100.1:4000", "203.0.113.1:5000"])],
        )
    }

    pub(super) fn with(seed: u8, links: Vec<Link>) -> Self {
        let start = anchor();
        let end = |role, seed: u8| End {
            paths: Paths::new(
                PathConfig::default(),
                role,
                channel(0),
                Rng::new([seed; 32], "path"),
                start,
            ),
            changes: Vec::new(),
            shrinks: 0,
            got: Vec::new(),
            got_at: BTreeMap::new(),
            sent_at: BTreeMap::new(),
            copied: Vec::new(),
            probes: 0,
            heard: BTreeMap::new(),
        };
        Self {
            start,
            now: start,
            ends: [end(PathRole::Dialler, seed), end(PathRole::Acceptor, seed.wrapping_add(100))],
            links,
            queue: BTreeMap::new(),
            sequence: 0,
            next_number: 0,
            traffic: Vec::new(),
            is_earlier: false,
            wire: Vec::new(),
        }
    }

    /// Both ends know their addresses and have keys.
    pub(super) fn meet(mut self) -> Self {
        for end in [DIALLER, ACCEPTOR] {
            self.set_local(end, Mapping::Independent);
            let [ours, theirs] = [end, 1 - end].map(|it| (it as u64 + 1, key(it as u8 + 1)));
            self.ends[end].paths.set_keys(ours, theirs, self.now);
        }
        self.settle();
        self
    }

    pub(super) fn set_local(&mut self, end: usize, mapping: Mapping) {
        let addresses = self.links.iter().filter_map(|link| link.addresses);
        let candidates: Vec<_> = addresses
            .map(|both| CandidateAddress { kind: CandidateType::Reflexive, address: both[end] })
            .collect();
        self.ends[end].paths.set_local(&candidates, mapping, self.now);
    }

    /// Returns the path of that link, as `end` sees it.
    pub(super) fn via(&self, link: usize, end: usize) -> NextHop {
        match self.links[link].addresses {
            Some(both) => NextHop::Direct(Route::to(both[1 - end])),
            None => NextHop::Relayed(channel(u32::try_from(link).unwrap())),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The link that `end` uses.
    pub(super) fn used(&self, end: usize) -> Option<usize> {
        let via = self.ends[end].paths.active.hop()?;
        (0..self.links.len()).find(|&link| self.via(link, end) == via)
    }

    fn link_of(&self, via: NextHop, from: usize) -> Option<usize> {
        (0..self.links.len()).find(|&link| match (self.via(link, from), via) {
            (NextHop::Direct(a), NextHop::Direct(b)) => a.remote == b.remote,
            (a, b) => a == b,
        })
    }

    pub(super) fn carry(&mut self, from: usize, via: NextHop, body: Body) {
        let Some(link) = self.link_of(via, from) else { return };
        self.wire.push((self.elapsed(), from, via, body.clone()));
        let size = match &body {
            Body::Probe(bytes) => probe::datagram(bytes).len(),
            Body::Data { .. } | Body::Offer(_) => 200,
        };
        if !self.links[link].carries(from) || size > self.links[link].most[from] {
            return;
        }
        let seen_as = self.via(link, 1 - from);
        self.sequence += 1;
        let at = self.now + self.links[link].delay;
        self.queue.insert((at, self.sequence), (1 - from, seen_as, body));
    }

    /// Sends one packet of `end`, and gives its number.
    pub(super) fn send(&mut self, end: usize) -> u64 {
        self.next_number += 1;
        let number = self.next_number;
        let elapsed = self.elapsed();
        self.ends[end].sent_at.insert(number, elapsed);
        self.dispatch(end, number, false);
        self.settle();
        number
    }

    fn dispatch(&mut self, end: usize, number: u64, is_ack: bool) {
        let bytes = [&number.to_be_bytes()[..], &[u8::from(is_ack)], &[0; 191]].concat();
        match self.ends[end].paths.dispatch(&bytes, None, self.now) {
            Dispatch::Send(via) => self.carry_data(end, via, number, is_ack),
            Dispatch::Both { first, copy } => {
                let elapsed = self.elapsed();
                self.ends[end].copied.push((number, elapsed));
                self.carry_data(end, first, number, is_ack);
                self.carry_data(end, copy, number, is_ack);
            }
            Dispatch::Held => {}
        }
    }

    fn carry_data(&mut self, end: usize, via: NextHop, number: u64, is_ack: bool) {
        if let NextHop::Direct(_) = via {
            let path = self.ends[end].paths.paths.get(via).expect("a known address");
            assert!(path.is_validated(), "data to an address that never answered");
        }
        self.carry(end, via, Body::Data { number, is_ack });
    }

    /// Does what both ends ask for, and checks what must hold after it.
    pub(super) fn settle(&mut self) {
        for end in [DIALLER, ACCEPTOR] {
            let mut turns = 0;
            while let Some(action) = self.ends[end].paths.poll(self.now) {
                turns += 1;
                assert!(turns < 10_000, "poll does not end");
                self.act(end, action);
            }
            if let Some((at, _)) = self.ends[end].paths.deadline() {
                assert!(at > self.now, "a deadline is in the past once poll is drained");
            }
        }
    }

    fn act(&mut self, end: usize, action: PathAction) {
        match action {
            PathAction::Probe { via, bytes } => {
                self.ends[end].probes += 1;
                self.carry(end, via, Body::Probe(bytes));
            }
            PathAction::Packets { via, bytes, .. } => {
                let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                if number == 0 {
                    return;
                }
                self.carry_data(end, via, number, bytes[8] == 1);
            }
            PathAction::Candidates(offer) => {
                // A packet of the connection like any other.
                match self.ends[end].paths.dispatch(&[0; 200], None, self.now) {
                    Dispatch::Send(via) => self.carry(end, via, Body::Offer(offer)),
                    Dispatch::Both { first, copy } => {
                        self.carry(end, first, Body::Offer(offer.clone()));
                        self.carry(end, copy, Body::Offer(offer));
                    }
                    Dispatch::Held => {}
                }
            }
            PathAction::Changed { to, reason, planned, .. } => {
                let at = self.elapsed();
                self.ends[end].changes.push(Change { at, to, reason, planned });
            }
            PathAction::Shrink => self.ends[end].shrinks += 1,
        }
    }

    fn deliver(&mut self, to: usize, via: NextHop, body: Body) {
        let (now, elapsed) = (self.now, self.elapsed());
        let end = &mut self.ends[to];
        match body {
            Body::Probe(bytes) => {
                let heard = end.paths.handle_probe(via, &probe::datagram(&bytes), now);
                *end.heard.entry(format!("{heard:?}")).or_default() += 1;
            }
            Body::Data { number, is_ack } => {
                end.paths.on_received(via, now);
                if !is_ack {
                    end.got.push(number);
                    end.got_at.entry(number).or_insert(elapsed);
                    self.dispatch(to, number, true);
                }
            }
            Body::Offer(mut offer) => {
                offer.has_full_probes &= !self.is_earlier;
                end.paths.on_received(via, now);
                end.paths.handle_candidates(&offer, now);
            }
        }
        self.settle();
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadlines = self.ends.iter().filter_map(|end| end.paths.deadline());
            let queued = self.queue.keys().next().map(|&(at, _)| at);
            let traffic = self.traffic.iter().map(|&(_, _, at)| at);
            let times = deadlines.map(|(at, _)| at).chain(queued).chain(traffic);
            let next = times.min().filter(|&at| at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if let Some(entry) = self.queue.first_entry().filter(|it| it.key().0 <= self.now) {
                let (to, via, body) = entry.remove();
                self.deliver(to, via, body);
            } else if let Some(due) = self.traffic.iter_mut().find(|it| it.2 <= next) {
                due.2 += due.1;
                let from = due.0;
                self.send(from);
            }
            self.settle();
        }
        self.now = end;
    }

    /// `end` sends a packet every so often, from now on.
    pub(super) fn keep_sending(&mut self, end: usize, every: Duration) {
        self.traffic.push((end, every, self.now));
    }

    /// Delivers bytes to `end` as if they came by `via`.
    pub(super) fn inject(&mut self, end: usize, via: NextHop, bytes: &[u8]) -> ProbeOutcome {
        let heard = self.ends[end].paths.handle_probe(via, bytes, self.now);
        self.settle();
        heard
    }

    /// Numbers that `from` sent before `until` and the other end never got.
    pub(super) fn missing(&self, from: usize, until: Duration) -> Vec<u64> {
        let got: BTreeSet<_> = self.ends[1 - from].got.iter().copied().collect();
        let sent = self.ends[from].sent_at.iter().filter(|&(_, &at)| at < until);
        sent.map(|(&number, _)| number).filter(|number| !got.contains(number)).collect()
    }

    /// The longest time in which `end` got nothing, of those that end after `from`.
    pub(super) fn longest_gap(&self, end: usize, from: Duration) -> Duration {
        let mut times: Vec<_> = self.ends[end].got_at.values().copied().collect();
        times.sort_unstable();
        let gaps = times.windows(2).filter(|pair| pair[1] > from).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    pub(super) fn cut(&mut self, link: usize) {
        self.links[link].up = [false; 2];
    }

    pub(super) fn mend(&mut self, link: usize) {
        self.links[link].up = [true; 2];
    }
}
