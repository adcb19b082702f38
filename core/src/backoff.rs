//! How long to wait before an attempt: exponential, capped, with jitter.
//!
//! It decides delays from attempt numbers. It never counts attempts, never reads a clock, and
//! never decides whether an attempt is made.

use crate::rng::Rng;
use std::time::Duration;

/// The longest delay that can be configured: a longer one is better expressed as "do not try
/// again".
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// An error in a [`BackoffConfig`].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffConfigError {
    /// The first delay is zero: attempts would follow each other without a pause.
    #[error("the initial delay must be longer than zero")]
    InitialZero,
    /// The first delay is longer than the cap.
    #[error("the initial delay {initial:?} is longer than the maximum {max:?}")]
    InitialAboveMax {
        /// The requested first delay.
        initial: Duration,
        /// The requested cap.
        max: Duration,
    },
    /// The cap is longer than a day.
    #[error("the maximum delay {0:?} is longer than a day")]
    MaxTooLong(Duration),
    /// The factor is below 1, infinite or not a number: delays would shrink.
    #[error("the multiplier must be a finite number of at least 1, not {0}")]
    Multiplier(f64),
    /// The jitter is outside `0.0..1.0`: at 1, a delay could be zero.
    #[error("the jitter must be at least 0 and below 1, not {0}")]
    Jitter(f64),
}

/// Parameters of the delays; every value of this type is usable.
///
/// ```
/// use adit_core::backoff::BackoffConfig;
/// use std::time::Duration;
/// let config = BackoffConfig::builder().max(Duration::from_secs(30)).build()?;
/// assert_eq!(config.max(), Duration::from_secs(30));
/// assert!(BackoffConfig::builder().jitter(1.0).build().is_err());
/// # Ok::<(), adit_core::backoff::BackoffConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackoffConfig {
    initial: Duration,
    multiplier: f64,
    max: Duration,
    jitter: f64,
}

impl BackoffConfig {
    /// Returns a builder that holds the defaults.
    pub const fn builder() -> BackoffConfigBuilder {
        BackoffConfigBuilder(Self {
            initial: Duration::from_secs(1),
            multiplier: 2.0,
            max: Duration::from_secs(15),
            jitter: 0.3,
        })
    }

    /// Returns the delays of a link that others wait for: from 250 ms they grow by a twentieth each,
    /// so that none in the first minute is much longer than 3 s, up to the usual cap.
    pub(crate) const fn steady() -> Self {
        let initial = Duration::from_millis(250);
        Self { initial, multiplier: 1.05, max: Duration::from_secs(15), jitter: 0.3 }
    }

    /// Returns the delay before the first attempt.
    #[must_use]
    pub const fn initial(&self) -> Duration {
        self.initial
    }

    /// Returns the factor from one attempt to the next.
    #[must_use]
    pub const fn multiplier(&self) -> f64 {
        self.multiplier
    }

    /// Returns the cap, before jitter.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Returns how far a delay strays to either side, as a fraction of itself.
    #[must_use]
    pub const fn jitter(&self) -> f64 {
        self.jitter
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self::builder().0
    }
}

/// Collects the parameters of a [`BackoffConfig`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct BackoffConfigBuilder(BackoffConfig);

impl BackoffConfigBuilder {
    /// Sets the delay before the first attempt. Default 1 s: longer than the round trips that a
    /// handshake needs, short enough that a person who watches waits.
    pub const fn initial(mut self, initial: Duration) -> Self {
        self.0.initial = initial;
        self
    }

    /// Sets the factor from one attempt to the next. Default 2: five attempts reach the cap, and the
    /// load of a crowd that keeps failing halves with each round.
    pub const fn multiplier(mut self, multiplier: f64) -> Self {
        self.0.multiplier = multiplier;
        self
    }

    /// Sets the cap, before jitter. Default 15 s: a peer that returns after hours of absence is
    /// found again within 20 s, which is the cap with its jitter.
    pub const fn max(mut self, max: Duration) -> Self {
        self.0.max = max;
        self
    }

    /// Sets how far a delay strays to either side, as a fraction of itself. Default 0.3: the first
    /// attempts of clients that were dropped together spread over 0.6 s, the later ones over 9 s.
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.0.jitter = jitter;
        self
    }

    /// Returns the configuration.
    ///
    /// # Errors
    /// When a parameter is out of its range, or the first delay is longer than the cap.
    pub fn build(self) -> Result<BackoffConfig, BackoffConfigError> {
        let BackoffConfig { initial, multiplier, max, jitter } = self.0;
        if initial.is_zero() {
            return Err(BackoffConfigError::InitialZero);
        }
        if max > LONGEST {
            return Err(BackoffConfigError::MaxTooLong(max));
        }
        if initial > max {
            return Err(BackoffConfigError::InitialAboveMax { initial, max });
        }
        if !multiplier.is_finite() || multiplier < 1.0 {
            return Err(BackoffConfigError::Multiplier(multiplier));
        }
        if !(0.0..1.0).contains(&jitter) {
            return Err(BackoffConfigError::Jitter(jitter));
        }
        Ok(self.0)
    }
}

/// A source of delays with its own generator.
///
/// The cap holds before jitter: the longest delay is `max * (1 + jitter)`. Were it to hold after,
/// half of all clients at the cap would return at exactly the same time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    config: BackoffConfig,
    rng: Rng,
}

impl Backoff {
    /// Delays of these parameters, with jitter from this generator.
    #[must_use]
    pub(crate) const fn new(config: BackoffConfig, rng: Rng) -> Self {
        Self { config, rng }
    }

    /// Returns the delay before attempt number `attempt`, counted from 1 (0 is taken as 1):
    /// `min(max, initial * multiplier^(attempt - 1)) * (1 ± jitter)`.
    pub(crate) fn delay(&mut self, attempt: u32) -> Duration {
        let stray = self.config.jitter * (2.0 * self.rng.unit() - 1.0);
        self.base(attempt).mul_f64(1.0 + stray)
    }

    /// Returns a delay of at least `requested`, increased by up to the jitter: for a time that a
    /// peer named to many clients together. `requested` counts as [`LONGEST`] at most.
    pub(crate) fn at_least(&mut self, requested: Duration) -> Duration {
        let stray = self.config.jitter * self.rng.unit();
        let requested = requested.min(LONGEST);
        requested.saturating_add(requested.mul_f64(stray))
    }

    /// Returns a delay anywhere from zero up to, not including, `span`.
    pub(crate) fn within(&mut self, span: Duration) -> Duration {
        let at = span.mul_f64(self.rng.unit());
        at.min(span.saturating_sub(Duration::from_nanos(1)))
    }

    fn base(&self, attempt: u32) -> Duration {
        let factor = power(self.config.multiplier, attempt.saturating_sub(1));
        let seconds = self.config.initial.as_secs_f64() * factor;
        if seconds >= self.config.max.as_secs_f64() {
            return self.config.max;
        }
        Duration::from_secs_f64(seconds)
    }
}

/// Computes `base^exponent` by squaring, at most 32 rounds; becomes infinite rather than overflow.
/// Unlike `f64::powi`, its result is the same on every platform.
fn power(mut base: f64, mut exponent: u32) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests;
