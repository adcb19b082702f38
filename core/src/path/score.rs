//! How good a path is: one order for the best path, the backup and where copies go.
//!
//! It decides the order, and how much better is enough to move. It never moves.
//!
//! The order is that of the fields of [`Score`], and each field's that of its variants: best first.

use std::time::Duration;

/// The least by which a path of the same rank must be quicker, or a fifth if that is more: two
/// measurements of one path differ by less.
const QUICKER_BY: Duration = Duration::from_millis(5);
const QUICKER_SHARE: u32 = 5;

/// Whether a path depends on what may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FateSharing {
    /// It does not.
    Independent,
    /// A direct path, asked for as a backup: what ends one direct path most often ends them all.
    Shared,
}

/// Whether a path works as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathHealth {
    /// It does.
    Sound,
    /// A direct path that is really worse than a relay, see [`is_worse`].
    Worse,
    /// It does not answer at present.
    Silent,
}

/// What a path takes to carry a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// No relay is in between.
    Direct,
    /// Through a relay.
    Relayed,
}

impl PathClass {
    /// Returns the stable text of the class.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// Whether both ends use a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Agreement {
    /// The end that dialled sends here; the other one follows where it can, so that both directions
    /// are answered on one path.
    Yes,
    /// It does not, or this end has dialled.
    No,
}

/// How good a path is for its purpose; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    pub(super) fate: FateSharing,
    pub(super) health: PathHealth,
    pub(super) class: PathClass,
    pub(super) agreed: Agreement,
    /// The smoothed round trip.
    pub(super) latency: Duration,
}

impl Score {
    /// Returns true if it is so much better than `present` that moving is worth it.
    pub(super) fn is_worth_leaving(&self, present: &Self) -> bool {
        let rank = Self { latency: present.latency, ..*self };
        let margin = QUICKER_BY.max(present.latency / QUICKER_SHARE);
        rank < *present
            || (rank == *present && self.latency.saturating_add(margin) <= present.latency)
    }
}

/// What is compared of a direct path and of the best relayed one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathQuality {
    pub(super) latency: Duration,
    /// Share of probes lost, and of how many.
    pub(super) loss: (f64, u32),
}

/// Returns true if a direct path is really worse than a relayed one: it loses ten of a hundred
/// probes more (of at least 16), or takes more than twice as long and 50 ms. One that was worse
/// stays so until it loses no more than five more, and takes no longer than one and a half times
/// and 25 ms.
pub(super) fn is_worse(direct: PathQuality, relayed: PathQuality, was_worse: bool) -> bool {
    let (loss, latency) = if was_worse {
        (0.05, relayed.latency * 3 / 2 + Duration::from_millis(25))
    } else {
        (0.10, relayed.latency * 2 + Duration::from_millis(50))
    };
    let is_counted = direct.loss.1 >= 16;
    let loses = direct.loss.0 - relayed.loss.0;
    let is_lossy = is_counted && if was_worse { loses > loss } else { loses >= loss };
    is_lossy || direct.latency > latency
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANO: Duration = Duration::from_nanos(1);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn score(class: PathClass, latency: Duration) -> Score {
        Score {
            fate: FateSharing::Independent,
            health: PathHealth::Sound,
            class,
            agreed: Agreement::No,
            latency,
        }
    }

    #[test]
    fn a_working_path_ranks_before_a_direct_one_and_that_before_a_quick_one() {
        let direct = score(PathClass::Direct, ms(500));
        let relayed = score(PathClass::Relayed, ms(1));
        let worse = Score { health: PathHealth::Worse, ..direct };
        let silent = Score { health: PathHealth::Silent, ..direct };
        let agreed = Score { agreed: Agreement::Yes, latency: ms(600), ..direct };
        let mut all = [silent, relayed, worse, direct, agreed];
        all.sort();
        assert_eq!(all, [agreed, direct, relayed, worse, silent]);
        assert!(direct.is_worth_leaving(&relayed) && !relayed.is_worth_leaving(&direct));
        assert!(relayed.is_worth_leaving(&worse) && agreed.is_worth_leaving(&direct));
    }

    #[test]
    fn a_backup_shares_no_fate_then_answers_then_is_quick() {
        let relayed = score(PathClass::Relayed, ms(80));
        let silent = Score { health: PathHealth::Silent, ..score(PathClass::Relayed, ms(10)) };
        let direct = Score { fate: FateSharing::Shared, ..score(PathClass::Direct, ms(1)) };
        let mut all = [direct, silent, relayed];
        all.sort();
        assert_eq!(all, [relayed, silent, direct]);
    }

    #[test]
    fn a_path_of_the_same_rank_must_be_quicker_by_exactly_five_ms_or_a_fifth() {
        for (present, enough) in [(ms(10), ms(5)), (ms(25), ms(20)), (ms(100), ms(80))] {
            let present = score(PathClass::Direct, present);
            assert!(score(PathClass::Direct, enough).is_worth_leaving(&present));
            assert!(!score(PathClass::Direct, enough + NANO).is_worth_leaving(&present));
        }
    }

    fn figures(latency: Duration, loss: f64, of: u32) -> PathQuality {
        PathQuality { latency, loss: (loss, of) }
    }

    #[test]
    fn a_direct_path_is_worse_exactly_at_ten_in_a_hundred_more_lost() {
        let relayed = figures(ms(80), 0.0, 32);
        assert!(is_worse(figures(ms(20), 0.10, 16), relayed, false));
        assert!(!is_worse(figures(ms(20), 0.099, 16), relayed, false));
        assert!(!is_worse(figures(ms(20), 0.5, 15), relayed, false));
        assert!(!is_worse(figures(ms(20), 0.5, 32), figures(ms(80), 0.45, 32), false));
    }

    #[test]
    fn a_direct_path_is_worse_past_twice_the_time_and_fifty_ms() {
        let relayed = figures(ms(80), 0.0, 32);
        assert!(!is_worse(figures(ms(210), 0.0, 32), relayed, false));
        assert!(is_worse(figures(ms(210) + NANO, 0.0, 32), relayed, false));
    }

    #[test]
    fn one_that_was_worse_stays_so_until_it_is_clearly_better() {
        let relayed = figures(ms(80), 0.0, 32);
        assert!(is_worse(figures(ms(20), 0.0626, 32), relayed, true));
        assert!(!is_worse(figures(ms(20), 0.05, 32), relayed, true));
        assert!(is_worse(figures(ms(145) + NANO, 0.0, 32), relayed, true));
        assert!(!is_worse(figures(ms(145), 0.0, 32), relayed, true));
    }
}
