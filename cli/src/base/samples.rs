//! Statistics of measured times: the arithmetic alone.

use std::time::Duration;

/// Times in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Samples(Vec<Duration>);

impl From<Vec<Duration>> for Samples {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }
}

impl Samples {
    /// Returns their number.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the shortest.
    pub(crate) fn min(&self) -> Option<Duration> {
        self.0.first().copied()
    }

    /// Returns the longest.
    pub(crate) fn max(&self) -> Option<Duration> {
        self.0.last().copied()
    }

    /// Returns the arithmetic mean.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let sum: Duration = self.0.iter().sum();
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        sum.checked_div(count)
    }

    /// Returns the shortest time that `percent` of all do not exceed: the nearest rank.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: impl IntoIterator<Item = u64>) -> Samples {
        millis.into_iter().map(Duration::from_millis).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let hundred = samples((1..=100).rev());
        assert_eq!(hundred.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(hundred.percentile(99), Some(Duration::from_millis(99)));
        assert_eq!(hundred.percentile(100), hundred.max());
        assert_eq!(samples([7]).percentile(50), Some(Duration::from_millis(7)));
        assert_eq!(samples([1, 9]).percentile(50), Some(Duration::from_millis(1)));
        assert_eq!(samples([1, 9]).percentile(51), Some(Duration::from_millis(9)));
    }

    #[test]
    fn the_least_the_mean_and_the_most_are_of_all() {
        let three = samples([9, 1, 2]);
        let all = (three.min(), three.mean(), three.max());
        let expected = [1, 4, 9].map(|millis| Some(Duration::from_millis(millis)));
        assert_eq!(all, expected.into());
    }

    #[test]
    fn no_samples_give_no_summary() {
        let none = Samples::default();
        assert_eq!((none.min(), none.mean(), none.percentile(50)), (None, None, None));
    }
}
