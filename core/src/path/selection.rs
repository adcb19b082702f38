//! Which path is best, which is the backup, and when moving is worth it.
//!
//! It decides from what the owners know, and changes none of them: [`Paths`](super::Paths) carries
//! a [`PathSwitch`] out. The order of paths is that of [`Score`].

use std::time::{Duration, Instant};

use super::action::PathRole;
use super::candidate::CandidateType;
use super::liveness::ActivePath;
use super::path_set::PathSet;
use super::path_state::PathState;
use super::score::{Agreement, FateSharing, PathClass, PathHealth, Score};
use super::view::PathReason;
use crate::transmit::NextHop;

/// The least time between two changes among paths that all work: six a minute.
const DWELL: Duration = Duration::from_secs(10);

/// What a path is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be the active path.
    Active,
    /// To take over, and to carry copies, should the active path fail.
    Backup,
}

/// A change of the active path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathSwitch {
    pub(super) to: NextHop,
    pub(super) reason: PathReason,
    /// Whether the path before still works.
    pub(super) planned: bool,
}

/// What a selection is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) paths: &'a PathSet,
    pub(super) active: &'a ActivePath,
    pub(super) role: PathRole,
    /// The round trip of the active path, assumed where none was measured.
    pub(super) rtt: Duration,
}

impl Selection<'_> {
    /// Returns the move to a path that is better than the active one, if there is one now.
    pub(super) fn upgrade(&self, now: Instant) -> Option<PathSwitch> {
        let present = self.paths.get(self.active.hop()?)?;
        let present_score = self.score(present, Purpose::Active);
        let (score, to) = self.best(Purpose::Active, |path| self.is_selectable(path, now))?;
        if !score.is_worth_leaving(&present_score) {
            return None;
        }
        let reason = match (present_score.health, score.class, score.agreed) {
            (PathHealth::Silent, _, _) => PathReason::Silent,
            (PathHealth::Worse, PathClass::Relayed, _) => PathReason::DirectWorse,
            (_, PathClass::Direct, _) if present.class() == PathClass::Relayed => {
                PathReason::DirectProven
            }
            (_, _, Agreement::Yes) => PathReason::Agreed,
            (_, _, Agreement::No) => PathReason::Faster,
        };
        // The dialler dwells, and with it the end that follows.
        let is_urgent =
            matches!(reason, PathReason::Silent | PathReason::DirectProven | PathReason::Agreed);
        if !is_urgent && now.saturating_duration_since(self.active.since()) < DWELL {
            return None;
        }
        Some(PathSwitch { to, reason, planned: reason != PathReason::Silent })
    }

    /// Returns the move to where the peer's packets come from since its address has changed: an
    /// address that was unknown when the active path was selected, from which packets come and
    /// where it has answered, while nothing came on the active path.
    pub(super) fn follow_peer(&self) -> Option<PathSwitch> {
        let Some(NextHop::Direct(_)) = self.active.hop() else { return None };
        let is_new = |path: &&PathState| {
            path.kind() == Some(CandidateType::PeerReflexive)
                && path.created() > self.active.since()
                && path.track().streak() > 0
        };
        let is_moved = |path: &&PathState| {
            path.moved_here().is_some_and(|at| self.active.heard().is_none_or(|heard| heard < at))
        };
        let to = self.paths.iter().filter(is_new).find(is_moved)?.hop();
        Some(PathSwitch { to, reason: PathReason::PeerMoved, planned: false })
    }

    /// Returns the backup path: a relayed one where there is one, one that answers first.
    pub(super) fn backup(&self) -> Option<NextHop> {
        let is_usable = |path: &PathState| {
            !self.active.is(path.hop()) && (!path.is_direct() || path.is_proven())
        };
        self.best(Purpose::Backup, is_usable).map(|(_, hop)| hop)
    }

    /// Returns the move away from the active path, which has failed, if there is a path to move to.
    pub(super) fn failover(&self, reason: PathReason) -> Option<PathSwitch> {
        // A path that was silent at the same time is no better.
        let since = self.active.suspect_since().filter(|_| reason == PathReason::Silent);
        let is_alive = |path: &PathState| {
            let is_usable = !self.active.is(path.hop()) && (!path.is_direct() || path.is_proven());
            is_usable && since.is_none_or(|since| path.track().answered_sent() >= Some(since))
        };
        let (_, to) = self.best(Purpose::Backup, is_alive)?;
        // From a silent relay to one that never answered would be no better.
        let is_answering = self.paths.get(to).is_some_and(|path| path.track().is_answering());
        let is_silent = reason == PathReason::Silent && !self.active.is_direct();
        // The active path answers probes at least.
        let is_answered = matches!(reason, PathReason::TooNarrow | PathReason::Unacknowledged);
        let is_hopeless = (is_silent || is_answered) && !is_answering;
        (!is_hopeless).then_some(PathSwitch { to, reason, planned: false })
    }

    /// Returns the first of the best paths that `may` be taken for a purpose.
    fn best(&self, purpose: Purpose, may: impl Fn(&PathState) -> bool) -> Option<(Score, NextHop)> {
        let scored = self.paths.iter().filter(|path| may(path));
        scored.map(|path| (self.score(path, purpose), path.hop())).min_by_key(|&(score, _)| score)
    }

    /// Returns true if a path may become the active one.
    fn is_selectable(&self, path: &PathState, now: Instant) -> bool {
        if self.active.is(path.hop()) || !path.is_proven() {
            return false;
        }
        if let Some(suspected) = self.active.suspect_since() {
            // Earlier proofs may be void as well; a relay waits for the verdict, since copies go
            // there already.
            return path.is_direct() && path.track().last_answer().is_some_and(|at| at > suspected);
        }
        let is_held_off = !self.active.is_direct() && self.active.held_off_until(now).is_some();
        // The dialler, which leads, has waited as long as it had to.
        !(path.is_direct() && is_held_off && !self.is_agreed(path))
    }

    /// Returns true if this end follows the peer to that path.
    fn is_agreed(&self, path: &PathState) -> bool {
        self.role == PathRole::Acceptor && path.is_used_by_peer()
    }

    /// Returns how good a path is for a purpose.
    fn score(&self, path: &PathState, purpose: Purpose) -> Score {
        let latency = path.track().smoothed();
        match purpose {
            Purpose::Active => {
                let is_suspect = self.active.is(path.hop()) && self.active.is_suspect();
                let is_agreed = self.is_agreed(path);
                // The dialler leaves an agreed path first: on two paths, each end would miss the
                // other.
                let health = if is_suspect {
                    PathHealth::Silent
                } else if path.is_worse() && !is_agreed {
                    PathHealth::Worse
                } else {
                    PathHealth::Sound
                };
                Score {
                    fate: FateSharing::Independent,
                    health,
                    class: path.class(),
                    agreed: if is_agreed { Agreement::Yes } else { Agreement::No },
                    latency: latency.unwrap_or(self.rtt),
                }
            }
            Purpose::Backup => {
                let is_answering = path.track().is_answering();
                Score {
                    fate: if path.is_direct() {
                        FateSharing::Shared
                    } else {
                        FateSharing::Independent
                    },
                    health: if is_answering { PathHealth::Sound } else { PathHealth::Silent },
                    class: path.class(),
                    agreed: Agreement::No,
                    latency: latency.unwrap_or(Duration::MAX),
                }
            }
        }
    }
}
