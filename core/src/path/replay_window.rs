//! The anti-replay window: which transactions of a peer have been seen (as in RFC 4303 §3.4.3).
//!
//! It decides whether a number is new. It never decides what an old one means.

/// Numbers that may arrive late: the probes of four seconds on all paths together are fewer, and a
/// relay delays them by less.
pub(super) const WIDTH: u64 = 1024;

const WORDS: usize = (WIDTH / 64) as usize;

/// What a number is to a [`ReplayWindow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Above all that were seen.
    Newest,
    /// Not seen, and below one that was.
    Late,
    /// Seen, or so far below that this is not recorded.
    Old,
}

/// The numbers seen of one peer.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayWindow {
    newest: Option<u64>,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Records `number`, and returns whether it is new.
    pub(super) fn take(&mut self, number: u64) -> Freshness {
        let Some(newest) = self.newest else {
            self.newest = Some(number);
            self.mark(number);
            return Freshness::Newest;
        };
        if number > newest {
            if number - newest >= WIDTH {
                self.seen = [0; WORDS];
            } else {
                (newest + 1..number).for_each(|skipped| self.clear(skipped));
            }
            self.newest = Some(number);
            self.mark(number);
            return Freshness::Newest;
        }
        if newest - number >= WIDTH || self.is_marked(number) {
            return Freshness::Old;
        }
        self.mark(number);
        Freshness::Late
    }

    const fn place(number: u64) -> (usize, u64) {
        let at = number % WIDTH;
        ((at / 64) as usize, 1 << (at % 64))
    }

    const fn mark(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] |= bit;
    }

    const fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] &= !bit;
    }

    const fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.seen[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence::Direct;
    use std::collections::BTreeSet;

    #[test]
    fn a_number_is_new_once() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.take(5), Freshness::Newest);
        assert_eq!(window.take(5), Freshness::Old);
        assert_eq!(window.take(3), Freshness::Late);
        assert_eq!(window.take(3), Freshness::Old);
        assert_eq!(window.take(6), Freshness::Newest);
    }

    #[test]
    fn a_late_number_counts_exactly_to_the_end_of_the_window() {
        let mut window = ReplayWindow::default();
        window.take(2 * WIDTH);
        assert_eq!(window.take(WIDTH + 1), Freshness::Late);
        assert_eq!(window.take(WIDTH), Freshness::Old);
    }

    #[test]
    fn a_leap_beyond_the_window_forgets_all_and_the_last_number_is_the_last() {
        let mut window = ReplayWindow::default();
        window.take(1);
        assert_eq!(window.take(u64::MAX), Freshness::Newest);
        assert_eq!(window.take(u64::MAX - 1), Freshness::Late);
        assert_eq!(window.take(u64::MAX), Freshness::Old);
        assert_eq!(window.take(0), Freshness::Old);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(Direct(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/path_window.txt"
            )))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_window_agrees_with_a_set_of_all_numbers(
            numbers in prop::collection::vec(prop_oneof![0u64..64, 900u64..4000], 1..300)
        ) {
            let (mut window, mut seen) = (ReplayWindow::default(), BTreeSet::new());
            for number in numbers {
                let newest = seen.last().copied();
                let expected = match newest {
                    Some(newest) if number <= newest => {
                        let is_old = newest - number >= WIDTH || seen.contains(&number);
                        if is_old { Freshness::Old } else { Freshness::Late }
                    }
                    Some(_) | None => Freshness::Newest,
                };
                prop_assert_eq!(window.take(number), expected);
                seen.insert(number);
            }
        }
    }
}
