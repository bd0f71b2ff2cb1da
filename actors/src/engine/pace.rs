//! How long each trainer usually takes, so that witnesses know from when on one is overdue.
//!
//! Times run from the moment at which this node saw a round begin to the moment at which the trainer's result was here and
//! well-formed. Each trainer is measured against itself: whoever is slow but steady is waited for, whoever stops is not.

use std::collections::{BTreeMap, VecDeque};

use psyche_messages::Address;

/// Rounds of a trainer that are remembered.
const REMEMBERED: usize = 16;
/// With fewer, nothing can be said.
const NEEDED: usize = 4;
/// Most trainers that are followed: an epoch's clients, and those of the epoch before.
const TRAINERS_MAX: usize = 512;
/// A result is overdue when it is later than usual by this many median deviations.
const DEVIATIONS: u64 = 6;
/// And by at least the usual time divided by this.
const LEAST_PART: u64 = 4;

/// The trainers' past times.
#[derive(Debug, Default)]
pub(super) struct Pace {
    times: BTreeMap<Address, VecDeque<u64>>,
}

impl Pace {
    /// Notes that a result of `trainer` came `after_ms` after its round had begun.
    pub(super) fn note(&mut self, trainer: Address, after_ms: u64) {
        if self.times.len() >= TRAINERS_MAX && !self.times.contains_key(&trainer) {
            return;
        }
        let times = self.times.entry(trainer).or_default();
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back(after_ms);
    }

    /// How long after a round's beginning a result of `trainer` is overdue; `grace_ms` is the least that is added to the
    /// usual time. None where too little is known.
    pub(super) fn deadline_ms(&self, trainer: &Address, grace_ms: u64) -> Option<u64> {
        let times = self.times.get(trainer).filter(|times| times.len() >= NEEDED)?;
        let usual = median(times.iter().copied());
        let deviation = median(times.iter().map(|time| time.abs_diff(usual)));
        let slack = deviation.saturating_mul(DEVIATIONS).max(usual / LEAST_PART).max(grace_ms);
        Some(usual.saturating_add(slack))
    }

    /// Forgets trainers that `is_here` does not know.
    pub(super) fn keep(&mut self, is_here: impl Fn(&Address) -> bool) {
        self.times.retain(|trainer, _| is_here(trainer));
    }
}

/// The middle of a list that is not empty; of two, the later.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRAINER: Address = Address([1; 32]);

    fn pace(times: &[u64]) -> Pace {
        let mut pace = Pace::default();
        times.iter().for_each(|time| pace.note(TRAINER, *time));
        pace
    }

    #[test]
    fn nothing_is_said_of_a_trainer_that_is_hardly_known() {
        assert_eq!(pace(&[5, 5, 5]).deadline_ms(&TRAINER, 0), None);
        assert_eq!(pace(&[5, 5, 5, 5]).deadline_ms(&Address([2; 32]), 0), None);
    }

    #[test]
    fn a_steady_trainer_is_overdue_soon_and_an_unsteady_one_later() {
        assert_eq!(pace(&[1_000; 8]).deadline_ms(&TRAINER, 0), Some(1_250));
        assert_eq!(pace(&[1_000; 8]).deadline_ms(&TRAINER, 4_000), Some(5_000));
        let unsteady = pace(&[600, 800, 1_000, 1_200, 1_400]).deadline_ms(&TRAINER, 0);
        assert_eq!(unsteady, Some(1_000 + 6 * 200));
    }

    #[test]
    fn a_single_late_round_changes_little_and_a_slower_device_is_learnt() {
        let mut pace = pace(&[1_000; 15]);
        pace.note(TRAINER, 60_000);
        assert_eq!(pace.deadline_ms(&TRAINER, 0), Some(1_250));
        (0..12).for_each(|_| pace.note(TRAINER, 3_000));
        assert_eq!(pace.deadline_ms(&TRAINER, 0), Some(3_750));
    }

    #[test]
    fn the_number_of_trainers_is_bounded() {
        let mut pace = Pace::default();
        for number in 0..4 * TRAINERS_MAX {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            (0..100).for_each(|_| pace.note(Address(key), 1));
        }
        assert_eq!(pace.times.len(), TRAINERS_MAX);
        assert!(pace.times.values().all(|times| times.len() == REMEMBERED));
        pace.keep(|trainer| trainer.0[0] == 7);
        assert_eq!(pace.times.len(), 2);
    }

    proptest! {
        #[test]
        fn prop_a_deadline_is_never_before_most_of_the_times_that_it_comes_from(
            times in prop::collection::vec(0_u64..100_000, NEEDED..=REMEMBERED),
            grace_ms in 0_u64..10_000,
        ) {
            let deadline_ms = pace(&times).deadline_ms(&TRAINER, grace_ms).unwrap_or(0);
            let within = times.iter().filter(|time| **time <= deadline_ms).count();
            prop_assert!(2 * within > times.len());
        }
    }
}
