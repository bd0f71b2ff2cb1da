//! Which losses are spikes: steps whose gradient would do more harm than good.
//!
//! A loss is a spike if it lies above both `median + deviations · spread` and `ratio · median` of the last accepted
//! losses, where the spread is 1.4826 times their median absolute deviation (the standard deviation, if they are
//! normal). Nothing is a spike before there are [`ACCEPTED_MIN`] accepted losses, and after [`SpikeRule::in_a_row`]
//! spikes the next loss is the new normal, whatever it is: a node whose data or weights have changed for good is never
//! locked out.

use std::collections::VecDeque;

/// Accepted losses that the rule looks back at.
const WINDOW: usize = 64;
/// Accepted losses without which nothing counts as a spike.
pub const ACCEPTED_MIN: usize = 16;
/// The standard deviation of a normal distribution, in median absolute deviations.
const DEVIATIONS_PER_MAD: f64 = 1.4826;

/// What counts as a loss spike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpikeRule {
    /// How many standard deviations above the median a loss is unusual.
    pub deviations: f64,
    /// How many times the median a loss is unusual; at least 1.
    pub ratio: f64,
    /// After that many spikes in a row the next loss is accepted.
    pub in_a_row: usize,
}

impl Default for SpikeRule {
    /// Losses fluctuate by a tenth of themselves from one small batch to the next, so that half as much again is no
    /// fluctuation; three steps are soon made up for.
    fn default() -> Self {
        Self { deviations: 8.0, ratio: 1.5, in_a_row: 3 }
    }
}

/// The losses of one node so far, and its verdict on the next. Ranks that are told the same losses agree.
#[derive(Debug, Clone)]
pub(super) struct SpikeGuard {
    rule: Option<SpikeRule>,
    accepted: VecDeque<f64>,
    spikes: usize,
}

impl SpikeGuard {
    /// Without a rule everything is accepted.
    pub(super) fn new(rule: Option<SpikeRule>) -> Self {
        Self { rule, accepted: VecDeque::with_capacity(WINDOW), spikes: 0 }
    }

    /// The limit that a finite `loss` exceeds, if it is a spike; that is counted. An ordinary loss has to be
    /// [accepted](Self::accept) when its step is finished.
    pub(super) fn exceeds(&mut self, loss: f64) -> Option<f64> {
        let rule = self.rule?;
        let limit = self.limit(rule).filter(|&limit| loss > limit)?;
        if self.spikes >= rule.in_a_row {
            // The new normal: what was usual before says nothing about it.
            self.forget();
            return None;
        }
        self.spikes += 1;
        Some(limit)
    }

    /// Takes the loss of a finished step into account.
    pub(super) fn accept(&mut self, loss: f64) {
        if self.accepted.len() == WINDOW {
            self.accepted.pop_front();
        }
        self.accepted.push_back(loss);
        self.spikes = 0;
    }

    /// As at the start of a run.
    pub(super) fn forget(&mut self) {
        self.accepted.clear();
        self.spikes = 0;
    }

    fn limit(&self, rule: SpikeRule) -> Option<f64> {
        if self.accepted.len() < ACCEPTED_MIN {
            return None;
        }
        let median = median(self.accepted.iter().copied());
        let spread = DEVIATIONS_PER_MAD * self::median(self.accepted.iter().map(|loss| (loss - median).abs()));
        Some((median + rule.deviations * spread).max(rule.ratio.max(1.0) * median))
    }
}

/// The upper median of at least one value.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses that fall from 8 to 4 and scatter by a few hundredths.
    fn usual(count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(|step| 4.0 + 4.0 / (1.0 + step as f64 / 20.0) + ((step * 37) % 11) as f64 / 100.0)
    }

    fn after(count: usize, rule: Option<SpikeRule>) -> SpikeGuard {
        let mut guard = SpikeGuard::new(rule);
        for loss in usual(count) {
            assert_eq!(guard.exceeds(loss), None, "{loss}");
            guard.accept(loss);
        }
        guard
    }

    #[test]
    fn a_loss_far_above_the_usual_is_a_spike_and_a_falling_loss_never_is() {
        let mut guard = after(300, Some(SpikeRule::default()));
        assert_eq!(guard.exceeds(5.0), None);
        let limit = guard.exceeds(9.0);
        assert!(limit.is_some_and(|limit| (5.0..9.0).contains(&limit)), "{limit:?}");
        assert_eq!(guard.exceeds(4.3), None);
    }

    #[test]
    fn nothing_is_a_spike_in_the_first_steps_or_without_a_rule() {
        assert_eq!(after(ACCEPTED_MIN - 1, Some(SpikeRule::default())).exceeds(1e9), None);
        assert!(after(ACCEPTED_MIN, Some(SpikeRule::default())).exceeds(1e9).is_some());
        assert_eq!(after(300, None).exceeds(1e9), None);
    }

    #[test]
    fn after_several_spikes_in_a_row_the_next_loss_is_the_new_normal() {
        let rule = SpikeRule::default();
        let mut guard = after(100, Some(rule));
        for _ in 0..rule.in_a_row {
            assert!(guard.exceeds(20.0).is_some());
        }
        assert_eq!(guard.exceeds(20.0), None);
        guard.accept(20.0);
        // What was usual before is forgotten.
        assert_eq!(guard.exceeds(35.0), None);
    }

    #[test]
    fn an_accepted_loss_between_spikes_starts_their_count_anew() {
        let mut guard = after(100, Some(SpikeRule::default()));
        for _ in 0..10 {
            assert!(guard.exceeds(20.0).is_some() && guard.exceeds(20.0).is_some());
            guard.accept(4.7);
        }
    }

    #[test]
    fn losses_that_scatter_widely_raise_the_limit() {
        let mut guard = SpikeGuard::new(Some(SpikeRule::default()));
        for step in 0..64 {
            guard.accept(if step % 2 == 0 { 2.0 } else { 4.0 });
        }
        assert_eq!(guard.exceeds(6.5), None);
    }
}
