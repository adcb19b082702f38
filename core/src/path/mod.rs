//! The ways between two ends of one connection: which there are, which is used, and when to change.
//!
//! It decides what is probed, what is proven, by which way each packet goes, and what is sent again
//! when a way dies. It never sends, never reads a packet of the connection, and trusts an address
//! only when the peer has answered there: the connection above sees one address and validates none.
//!
//! One [`Paths`] is one connection. It begins on a relay. Once both ends share keys, they tell each
//! other their addresses ([`PathAction::Candidates`]), knock at them at the same time, and use what has
//! answered. [`AddressDiscovery`] belongs to the socket, and finds out what this end's addresses are.
//!
//! Source: docs/protocol.md, "Paths". Terms as in RFC 8445 and RFC 4787.
//!
//! | file | decides |
//! |---|---|
//! | candidate, nat | which addresses are worth a probe, and what cannot work |
//! | ways, probing | what is known of each way, and when it is probed |
//! | inbound, state, window | what a probe of the peer means |
//! | meeting | when both ends tell addresses and knock |
//! | score, choice | which way is best, and moving to it |
//! | select, pulse | whether the way in use answers, and how often that is asked |
//! | hold, replay | packets that wait, and packets that are sent again |

mod candidate;
mod config;
mod discovery;
mod liveness;
mod nat;
mod on_probe;
mod path_set;
mod probe_flags;
mod probe_pacing;
mod probe_track;
mod punching;
mod reorder;
mod replay_window;
mod resend;
mod score;
mod selection;
mod timers;
mod view;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::Channel;
use crate::probe::{LEN, ProbeKey};
use crate::rng::Rng;
use crate::timer;
use crate::token_bucket::{Bucket, Rate};
use crate::transmit::{NextHop, Route};

pub use candidate::{CandidateAddress, CandidateOffer, CandidateType, MAX_CANDIDATES};
pub use config::PathConfig;
pub use discovery::AddressDiscovery;
pub use liveness::MAX_SWITCHES;
pub use nat::Mapping;
pub use on_probe::ProbeOutcome;
pub use score::PathClass;
pub use view::{PathCounters, PathReason, PathVerdict, PathView, PathsView, PeerView};

use liveness::{ActivePath, SilenceLimits};
use path_set::{PathSet, PathState};
use probe_pacing::ProbePacing;
use punching::PunchingRounds;
use reorder::ReorderBuffer;
use replay_window::ReplayWindow;
use resend::ResendBuffer;

/// Probes that are answered: as many a second, and twice as many at once. Two ends that knock at
/// sixteen addresses of each other send 64 within a tenth of a second.
const ANSWERS: u32 = 64;

/// Actions that may wait to be fetched before a probe is no longer answered.
const MAX_ACTIONS: usize = 256;

/// The round trip that is assumed before any is known (RFC 9002 §6.2.2).
const UNKNOWN_RTT: Duration = Duration::from_millis(333);

/// Which end of the connection this is. One of the two has to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathRole {
    /// It dialled: it chooses, and knocks when it hears the other's addresses.
    Dialler,
    /// It was dialled: among ways of one class it follows, and knocks when it has told its own.
    Acceptor,
}

/// By which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Dispatch {
    /// By this one.
    Send(NextHop),
    /// By this one, and a copy by another: the first is in doubt. Packets are recognised when they
    /// come twice (RFC 9000 §12.3).
    Both {
        /// The way in use.
        first: NextHop,
        /// The way that would be used without it.
        copy: NextHop,
    },
    /// By none now: a copy is kept, and comes out of [`Paths::poll`].
    Held,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathAction {
    /// Send this probe.
    Probe {
        /// By this way.
        via: NextHop,
        /// Its bytes.
        bytes: [u8; LEN],
    },
    /// Send these packets, which waited or were sent before by a way that died.
    Packets {
        /// By this way.
        via: NextHop,
        /// The packets, back to back.
        bytes: Vec<u8>,
        /// Bytes of each, the last may be shorter; `None` is a single one.
        segment_size: Option<usize>,
    },
    /// Tell the peer, over the connection itself.
    Candidates(CandidateOffer),
    /// Another way is in use.
    Changed {
        /// The one before; `None` if there was none.
        from: Option<NextHop>,
        /// The one since.
        to: NextHop,
        /// Why.
        reason: PathReason,
        /// Whether it was chosen, in order and without loss; otherwise the one before had failed.
        planned: bool,
    },
    /// The way in use carries smaller packets than the one that failed: the connection's path is
    /// another one (RFC 9000 §14.3), and its size and congestion window are to be found anew.
    Shrink,
}

#[derive(Debug, Clone)]
struct ProbeKeys {
    ours: (u64, ProbeKey),
    theirs: (u64, ProbeKey),
}

/// The ways of one connection.
///
/// Times never go back: a caller's earlier `now` counts as the latest.
#[derive(Debug)]
pub struct Paths {
    config: PathConfig,
    role: PathRole,
    rng: Rng,
    now: Instant,
    epoch: Instant,
    keys: Option<ProbeKeys>,
    /// That of our last ping.
    transaction: u64,
    window: ReplayWindow,
    ways: PathSet,
    select: ActivePath,
    reason: PathReason,
    /// Where copies go while the way in use is in doubt.
    copy: Option<NextHop>,
    hold: ReorderBuffer,
    replay: ResendBuffer,
    meeting: PunchingRounds,
    pulse: ProbePacing,
    /// How often this end, and the peer, left a direct way that fell silent.
    left: u8,
    peer: probe_flags::ProbeFlags,
    /// The connection's own smoothed round trip.
    srtt: Option<Duration>,
    /// What an answer by the way in use takes.
    answer: Duration,
    answers: Bucket,
    answer_rate: Rate,
    counters: PathCounters,
    actions: VecDeque<PathAction>,
    /// The earliest of the times that change on the cold paths only.
    wake: Option<Instant>,
}

impl Paths {
    /// A connection whose first packets go by `first`.
    #[must_use]
    pub fn new(config: PathConfig, role: PathRole, first: Channel, rng: Rng, now: Instant) -> Self {
        let first = NextHop::Relayed(first);
        let patience = SilenceLimits::new(UNKNOWN_RTT, config.suspect_after, config.dead_after);
        let mut ways = PathSet::default();
        ways.add_relayed(first, now);
        Self {
            hold: ReorderBuffer::new(config.hold_bytes),
            replay: ResendBuffer::new(config.replay_bytes),
            select: ActivePath::new(first, patience, now),
            config,
            role,
            rng,
            now,
            epoch: now,
            keys: None,
            transaction: 0,
            window: ReplayWindow::default(),
            ways,
            reason: PathReason::First,
            copy: None,
            meeting: PunchingRounds::default(),
            pulse: ProbePacing::new(now),
            left: 0,
            peer: probe_flags::ProbeFlags::default(),
            srtt: None,
            answer: UNKNOWN_RTT,
            answers: Bucket::new(),
            answer_rate: Rate::per_second(ANSWERS, 2 * ANSWERS),
            counters: PathCounters::default(),
            actions: VecDeque::new(),
            wake: None,
        }
    }

    /// A packet, or several back to back, is to be sent: by which way? Everything that
    /// [`Paths::poll`] gives is to be sent before.
    #[inline]
    pub fn dispatch(
        &mut self,
        bytes: &[u8],
        segment_size: Option<usize>,
        now: Instant,
    ) -> Dispatch {
        if self.pulse.on_dispatch() {
            self.on_busy(now);
        }
        if self.hold.is_closed() {
            self.hold.push(bytes, segment_size, now);
            return Dispatch::Held;
        }
        let Some(first) = self.select.in_use() else { return Dispatch::Held };
        self.select.on_sent(false, now);
        if let Some(copy) = self.copy {
            return Dispatch::Both { first, copy };
        }
        self.replay.push(bytes, segment_size, now);
        Dispatch::Send(first)
    }

    /// A packet that asks whether its path carries larger ones (RFC 8899 §3): by which direct way? By
    /// none it is lost, which is an answer. It is never kept to be sent later or again, since it could
    /// go by a relay then, in parts, and would be answered for a path that it never took.
    pub fn dispatch_mtu_probe(&self) -> Option<Route> {
        match self.select.in_use() {
            Some(NextHop::Direct(route)) if !self.hold.is_closed() && self.copy.is_none() => {
                Some(route)
            }
            Some(NextHop::Direct(_) | NextHop::Relayed(_)) | None => None,
        }
    }

    /// Packets of the connection came by `via`, and the connection has authenticated one of them.
    /// Once for each batch is enough.
    #[inline]
    pub fn on_received(&mut self, via: NextHop, now: Instant) {
        if !self.select.is_in_use(via) {
            self.on_received_elsewhere(via, now);
            return;
        }
        if self.peer.is_deaf {
            // What comes is no answer: the peer has said that it hears nothing.
            return;
        }
        self.replay.on_received(self.answer, now);
        if self.select.on_heard(now) {
            self.refresh(now);
        }
    }

    /// The connection's smoothed round trip, which includes what queues.
    pub const fn note_rtt(&mut self, srtt: Duration) {
        self.srtt = Some(srtt);
    }

    /// What is to be done next, until `None`. After that, [`Paths::deadline`] is in the future.
    pub fn poll(&mut self, now: Instant) -> Option<PathAction> {
        let now = self.advance(now);
        // What one turn makes due at once is done in the next: a round that begins, packets that
        // came while others were on their way out.
        for _ in 0..4 {
            if !self.actions.is_empty() || self.due().is_none_or(|at| at > now) {
                break;
            }
            self.on_time(now);
        }
        self.actions.pop_front()
    }

    /// When [`Paths::poll`] is to be called again. Cheap enough to ask after every call.
    #[must_use]
    pub fn deadline(&self) -> Option<timer::Deadline> {
        let at = if self.actions.is_empty() { self.due() } else { Some(self.now) };
        at.map(|at| (at, timer::Reason::Path))
    }

    fn due(&self) -> Option<Instant> {
        [self.wake, self.select.check(), self.hold.deadline()].into_iter().flatten().min()
    }

    /// The time that holds.
    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// The way in use, unless there is none.
    fn in_use(&self) -> Option<&PathState> {
        self.ways.get(self.select.in_use()?)
    }

    /// The round trip by the way in use: the slower of what its probes and the connection say.
    fn rtt(&self) -> Duration {
        let probed = self.in_use().and_then(|way| way.track.smoothed());
        probed.max(self.srtt).unwrap_or(UNKNOWN_RTT)
    }
}

#[cfg(test)]
mod tests;
