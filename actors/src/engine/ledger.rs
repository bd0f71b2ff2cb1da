//! A node's own log of what it applied, in memory: consecutive steps, bounded.

use std::collections::VecDeque;

use psyche_messages::{AppliedStep, Digest, Step};

/// Most steps that a log reaches back.
pub const LEDGER_STEPS_MAX: usize = 512;

/// What a node applied, oldest first; every step follows the one before.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    steps: VecDeque<AppliedStep>,
}

impl Ledger {
    /// Notes a step. What was noted of it and later ones before, and differs, is forgotten: the parameters went back. A step
    /// that does not follow the last one begins the log anew.
    pub fn append(&mut self, step: AppliedStep) {
        if self.steps.iter().any(|known| *known == step) {
            return;
        }
        while self.steps.back().is_some_and(|last| last.round.step >= step.round.step) {
            self.steps.pop_back();
        }
        if self.steps.back().is_some_and(|last| !step.follows(last)) {
            self.steps.clear();
        }
        self.steps.push_back(step);
        while self.steps.len() > LEDGER_STEPS_MAX {
            self.steps.pop_front();
        }
    }

    /// Forgets the steps before `first`.
    pub fn forget_before(&mut self, first: Step) {
        while self.steps.front().is_some_and(|step| step.round.step < first) {
            self.steps.pop_front();
        }
    }

    /// The steps, oldest first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &AppliedStep> + ExactSizeIterator {
        self.steps.iter()
    }

    /// The first and the last step with the digest after it; `None` of an empty log.
    #[must_use]
    pub fn range(&self) -> Option<(Step, Step, Digest)> {
        let (first, last) = (self.steps.front()?, self.steps.back()?);
        Some((first.round.step, last.round.step, last.after))
    }

    /// The steps from `first` on; none if the log does not reach back that far.
    #[must_use]
    pub fn since(&self, first: Step) -> Vec<AppliedStep> {
        if self.steps.front().is_none_or(|step| step.round.step > first) {
            return Vec::new();
        }
        self.steps.iter().filter(|step| step.round.step >= first).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::RoundKey;

    use super::*;

    fn step(number: u32, before: u8, after: u8) -> AppliedStep {
        AppliedStep {
            round: RoundKey::new(0, number),
            cold_start: None,
            results: Vec::new(),
            before: Digest([before; 32]),
            after: Digest([after; 32]),
        }
    }

    fn numbers(ledger: &Ledger) -> Vec<u32> {
        ledger.steps().map(|step| step.round.step.0).collect()
    }

    #[test]
    fn a_step_that_is_known_changes_nothing_and_another_one_replaces_what_followed() {
        let mut ledger = Ledger::default();
        for number in 3..7 {
            ledger.append(step(number, number as u8, number as u8 + 1));
        }
        ledger.append(step(4, 4, 5));
        assert_eq!(numbers(&ledger), [3, 4, 5, 6]);
        ledger.append(step(5, 5, 99));
        assert_eq!(numbers(&ledger), [3, 4, 5]);
        assert_eq!(ledger.range(), Some((Step(3), Step(5), Digest([99; 32]))));
        assert_eq!(ledger.since(Step(2)), []);
        assert_eq!(ledger.since(Step(4)).len(), 2);
    }

    #[test]
    fn a_gap_begins_the_log_anew() {
        let mut ledger = Ledger::default();
        ledger.append(step(3, 3, 4));
        ledger.append(step(9, 9, 10));
        assert_eq!(numbers(&ledger), [9]);
        ledger.append(step(10, 77, 11));
        assert_eq!(numbers(&ledger), [10], "it follows other parameters");
    }

    #[test]
    fn the_log_is_bounded() {
        let mut ledger = Ledger::default();
        for number in 0..LEDGER_STEPS_MAX as u32 + 40 {
            ledger.append(step(number, number as u8, (number + 1) as u8));
        }
        assert_eq!(ledger.steps().len(), LEDGER_STEPS_MAX);
        ledger.forget_before(Step(500));
        assert_eq!(numbers(&ledger).first(), Some(&500));
    }
}
