//! What a caller may do about an error, and how long it waits: data, so that schedules can be asserted.

use core::time::Duration;

use thiserror::Error;

/// An error's advice to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Trying again gives the same answer.
    Never,
    /// The same call may work after a pause.
    After(Backoff),
    /// The same call may work elsewhere, at once.
    NextEndpoint,
}

/// Why a backoff schedule is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BackoffError {
    /// The first delay is zero or above the cap.
    #[error("accept a first delay of {first:?} under a cap of {cap:?}")]
    First {
        /// Delay before the first retry.
        first: Duration,
        /// The longest delay.
        cap: Duration,
    },
    /// The growth factor is zero.
    #[error("accept a growth of 0 percent")]
    Growth,
}

/// An exponential schedule of delays with a cap and proportional jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    growth_percent: u32,
    jitter_percent: u32,
}

impl Backoff {
    /// Delays that start at `first`, grow by `growth_percent` (200 doubles) up to `cap`; [`Backoff::delay`] then adds up to
    /// `jitter_percent` of the delay.
    ///
    /// # Errors
    /// [`BackoffError`] for a schedule that would not wait, or not grow towards its cap.
    pub const fn new(first: Duration, cap: Duration, growth_percent: u32, jitter_percent: u32) -> Result<Self, BackoffError> {
        if first.is_zero() || first.as_nanos() > cap.as_nanos() {
            return Err(BackoffError::First { first, cap });
        }
        if growth_percent == 0 {
            return Err(BackoffError::Growth);
        }
        Ok(Self { first, cap, growth_percent, jitter_percent })
    }

    /// The delay before retry number `attempt` (from 0). `jitter` in 0..=65535 picks a point of the jitter's range, so that
    /// callers bring the randomness.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: u16) -> Duration {
        let cap = self.cap.as_micros();
        let mut delay = self.first.as_micros();
        for _ in 0..attempt.min(64) {
            delay = delay.saturating_mul(u128::from(self.growth_percent)) / 100;
            if delay >= cap {
                delay = cap;
                break;
            }
        }
        let spread = delay.saturating_mul(u128::from(self.jitter_percent)) / 100;
        let extra = spread.saturating_mul(u128::from(jitter)) / u128::from(u16::MAX);
        Duration::from_micros(u64::try_from(delay.saturating_add(extra)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn delays_double_up_to_the_cap() {
        let backoff = Backoff::new(MS(100), MS(1000), 200, 0).unwrap();
        let delays: Vec<_> = (0..6).map(|n| backoff.delay(n, 0)).collect();
        assert_eq!(delays, [MS(100), MS(200), MS(400), MS(800), MS(1000), MS(1000)]);
        assert_eq!(backoff.delay(u32::MAX, 0), MS(1000));
    }

    #[test]
    fn jitter_adds_at_most_its_share() {
        let backoff = Backoff::new(MS(100), MS(1000), 200, 50).unwrap();
        assert_eq!(backoff.delay(0, 0), MS(100));
        assert_eq!(backoff.delay(0, u16::MAX), MS(150));
    }

    #[test]
    fn schedules_that_do_not_wait_are_refused() {
        assert!(Backoff::new(Duration::ZERO, MS(1), 200, 0).is_err());
        assert!(Backoff::new(MS(2), MS(1), 200, 0).is_err());
        assert_eq!(Backoff::new(MS(1), MS(1), 0, 0), Err(BackoffError::Growth));
    }
}
