//! The lifecycles of all peers of a world, as a naive reader of events understands them.
//!
//! It decides whether a sequence of events is possible: every edge is in the table, each begins
//! where the last one ended, and none follows the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::marks::{Mark, Marks};
use super::op::Side;
use crate::error::{Category, Code, Failure};
use crate::history::{self, History};
use crate::id::PeerId;
use crate::lifecycle::{State, StateKind, Transition};

/// Every edge there is.
const EDGES: [(StateKind, StateKind); 12] = [
    (StateKind::Disconnected, StateKind::Connecting),
    (StateKind::Connecting, StateKind::Connected),
    (StateKind::Connecting, StateKind::Failed),
    (StateKind::Connecting, StateKind::Disconnected),
    (StateKind::Connected, StateKind::Reconnecting),
    (StateKind::Connected, StateKind::Disconnected),
    (StateKind::Reconnecting, StateKind::Reconnecting),
    (StateKind::Reconnecting, StateKind::Connected),
    (StateKind::Reconnecting, StateKind::Failed),
    (StateKind::Reconnecting, StateKind::Disconnected),
    (StateKind::Failed, StateKind::Connecting),
    (StateKind::Failed, StateKind::Disconnected),
];

/// A peer at the n-th start of a node.
pub(super) type StartedPeer = (Side, u64, PeerId);

#[derive(Debug)]
struct Life {
    state: StateKind,
    at: Option<Instant>,
    since: Option<Instant>,
    is_closed: bool,
    was_up: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Lives {
    lives: BTreeMap<StartedPeer, Life>,
    /// The transitions of each node, in order.
    seen: BTreeMap<(Side, u64), Vec<(PeerId, StateKind)>>,
    /// Whether a peer may be given up for another reason than its certificate or configuration.
    gives_up: bool,
    /// When a caller last wanted a connection to each peer.
    wanted: BTreeMap<StartedPeer, Instant>,
}

impl Lives {
    pub(super) const fn new(gives_up: bool) -> Self {
        Self { lives: BTreeMap::new(), seen: BTreeMap::new(), gives_up, wanted: BTreeMap::new() }
    }

    /// A caller wants a connection to a peer, if one does: attempts follow each other faster for 10 s.
    pub(super) fn on_demand(
        &mut self,
        (side, start): (Side, u64),
        peer: Option<PeerId>,
        now: Instant,
    ) {
        self.wanted.extend(peer.map(|peer| ((side, start, peer), now)));
    }

    pub(super) fn on_transition(
        &mut self,
        who: StartedPeer,
        transition: &Transition,
        marks: &mut Marks,
    ) {
        let life = self.lives.entry(who).or_insert(Life {
            state: StateKind::Disconnected,
            at: None,
            since: None,
            is_closed: false,
            was_up: false,
        });
        let (from, to) = (transition.from.kind(), transition.to.kind());
        assert!(!life.is_closed, "{who:?}: {to} after the end");
        assert_eq!(life.state, from, "{who:?}: the transition to {to} begins elsewhere");
        assert!(EDGES.contains(&(from, to)), "{who:?}: {from} to {to} is no edge");
        assert!(life.at.is_none_or(|at| at <= transition.at), "{who:?}: time went back");
        (life.state, life.at) = (to, Some(transition.at));
        self.seen.entry((who.0, who.1)).or_default().push((who.2, to));
        match &transition.to {
            State::Connected { .. } => {
                marks.hit(if life.was_up { Mark::Reconnected } else { Mark::Connected });
                life.was_up = true;
            }
            State::Reconnecting { attempt, last_error, since } => {
                if from == StateKind::Reconnecting {
                    assert_eq!(life.since, Some(*since), "{who:?}: the loss has moved");
                } else {
                    assert_eq!(*since, transition.at);
                    mark_loss(last_error, marks);
                }
                assert!(*attempt > 0);
                life.since = Some(*since);
            }
            State::Failed { error, .. } => {
                let is_final = match error.category() {
                    Category::Authentication | Category::Configuration => true,
                    Category::Network
                    | Category::Server
                    | Category::Protocol
                    | Category::Unknown => false,
                };
                assert!(is_final || self.gives_up, "{who:?}: given up because of {error}");
                marks.hit(Mark::GaveUp);
                if error.code() == Code::Unauthenticated {
                    marks.hit(Mark::Unauthenticated);
                }
            }
            State::Connecting { .. } => {
                if from == StateKind::Failed {
                    marks.hit(Mark::DialledAgain);
                }
            }
            State::Disconnected => {}
        }
    }

    /// Checks that the wait before an attempt is within the default back-off, or shorter if a caller
    /// wants the connection.
    pub(super) fn on_attempt_failed(
        &self,
        who: StartedPeer,
        (failure, attempt, retry_in): (&Failure, u32, Duration),
        now: Instant,
    ) {
        let nominal = 2.0_f64.powi(attempt.saturating_sub(1).min(10) as i32).min(15.0);
        let is_wanted =
            self.wanted.get(&who).is_some_and(|at| now <= *at + Duration::from_secs(10));
        let is_requested = failure.retry_after().is_some() || failure.code() == Code::Overloaded;
        let (least, most) = if failure.code() == Code::Reset && attempt == 1 {
            // The peer is up, since it answered, and only forgot.
            (0.0, 0.1)
        } else {
            let least = if is_wanted { 0.0 } else { 0.699 * nominal };
            (least, if is_requested { 5000.0 } else { 1.301 * nominal })
        };
        let wait = retry_in.as_secs_f64();
        assert!((least..=most).contains(&wait), "attempt {attempt} in {wait} s: {failure}");
    }

    pub(super) fn on_closed(&mut self, who: StartedPeer) {
        let life = self.lives.get_mut(&who).expect("a peer begins before it ends");
        assert!(!life.is_closed, "{who:?} is closed twice");
        assert_eq!(life.state, StateKind::Disconnected, "{who:?} is closed in mid-life");
        life.is_closed = true;
    }

    /// Checks that the history of a node matches its events.
    pub(super) fn check_history(&self, side: Side, start: u64, history: &History) {
        let seen = self.seen.get(&(side, start)).map_or(&[][..], Vec::as_slice);
        assert_eq!(history.len(), seen.len().min(history::CAPACITY));
        for (record, (peer, kind)) in history.iter().rev().zip(seen.iter().rev()) {
            assert_eq!((record.peer, record.kind.as_str()), (*peer, kind.as_str()));
        }
    }

    /// Returns the peers of one node that are not closed, in order of their ids.
    pub(super) fn of(&self, side: Side, start: u64) -> Vec<PeerId> {
        let open = |(who, life): (&StartedPeer, &Life)| {
            (who.0 == side && who.1 == start && !life.is_closed).then_some(who.2)
        };
        self.lives.iter().filter_map(open).collect()
    }
}

fn mark_loss(failure: &Failure, marks: &mut Marks) {
    let known = [
        (Code::HeartbeatLost, Mark::HeartbeatLost),
        (Code::TimedOut, Mark::IdleTimeout),
        (Code::Reset, Mark::StatelessReset),
    ];
    known.into_iter().filter(|(code, _)| *code == failure.code()).for_each(|(_, m)| marks.hit(m));
}
