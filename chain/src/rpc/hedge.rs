//! When a read is sent to a second endpoint as well, and how often that may happen. Pure.

use std::time::Duration;

/// When to hedge while too little is known about an endpoint.
const HEDGE_AFTER_DEFAULT: Duration = Duration::from_millis(500);
/// Requests that pay for one hedge: hedging adds at most a tenth to the load in the long run.
const REQUESTS_PER_HEDGE: u32 = 10;
/// Hedges that can be saved up.
const SAVED_MAX: u32 = 10;

/// How long an endpoint is waited for before the next one is asked as well: its p95, within `min` and `max`.
pub(crate) fn hedge_after(p95: Option<Duration>, min: Duration, max: Duration) -> Duration {
    p95.unwrap_or(HEDGE_AFTER_DEFAULT).min(max).max(min)
}

/// A token bucket: requests fill it, hedges empty it.
#[derive(Debug)]
pub(crate) struct HedgeBudget {
    saved: u32,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self { saved: SAVED_MAX * REQUESTS_PER_HEDGE }
    }
}

impl HedgeBudget {
    /// Notes a request.
    pub(crate) fn earn(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX * REQUESTS_PER_HEDGE);
    }

    /// Whether a hedge may be sent; it is then paid for.
    pub(crate) fn spend(&mut self) -> bool {
        match self.saved.checked_sub(REQUESTS_PER_HEDGE) {
            Some(rest) => {
                self.saved = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hedge_is_sent_after_the_p95_within_bounds() {
        let ms = Duration::from_millis;
        let hedge_after = |p95| hedge_after(p95, ms(100), ms(2_000));
        assert_eq!(hedge_after(None), ms(500));
        for (p95, after) in [(0, 100), (99, 100), (100, 100), (101, 101), (2_000, 2_000), (2_001, 2_000), (60_000, 2_000)] {
            assert_eq!(hedge_after(Some(ms(p95))), ms(after));
        }
    }

    #[test]
    fn hedging_can_not_double_the_load_for_ever() {
        let mut budget = HedgeBudget::default();
        let hedged = (0..10_000)
            .filter(|_| {
                budget.earn();
                budget.spend()
            })
            .count();
        assert!((1_000..=1_011).contains(&hedged), "{hedged}");
    }

    proptest! {
        #[test]
        fn prop_hedges_never_exceed_a_tenth_of_the_requests_and_what_was_saved(steps: Vec<bool>) {
            let (mut budget, mut requests, mut hedges) = (HedgeBudget::default(), 0_u32, 0_u32);
            for hedge in steps {
                if hedge { hedges += u32::from(budget.spend()) } else { requests += 1; budget.earn() }
                prop_assert!(hedges <= requests / REQUESTS_PER_HEDGE + SAVED_MAX);
            }
        }
    }
}
