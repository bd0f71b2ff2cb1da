//! When to report while the own batch is still in training.
//!
//! A report takes part of a second to land, then the chain waits for its witness time and for a tick. A result is witnessed one
//! round later, so nothing of that has to wait for it: who reports so much before the end of its training that the next round
//! begins when training ends loses no time to the chain. Everything here is measured by this node on itself: how long its batches
//! take for each sample, how long its reports take to be seen in the account, and how long the chain stays in RoundWitness.
//! Whether others are ready is not its matter: the slowest of them decides when the round goes on, by the same rule.

use std::collections::VecDeque;

use psyche_messages::RoundKey;

/// Measurements that are remembered.
const REMEMBERED: usize = 8;
/// With fewer of any kind, a node reports after its training.
const NEEDED: usize = 2;
/// Times of a sample are kept in so many parts of a millisecond.
const PARTS: u64 = 1_024;

/// What this node knows of its own training and of the chain's part of a round.
#[derive(Debug, Default)]
pub(super) struct Lead {
    training: Option<Training>,
    reported: Option<(RoundKey, u64)>,
    sample_times: Times,
    landing_ms: Times,
    witness_ms: Times,
}

#[derive(Clone, Copy, Debug)]
struct Training {
    round: RoundKey,
    began_ms: u64,
    samples: u64,
}

impl Lead {
    /// A batch of `samples` is in training from now on.
    pub(super) const fn begin_training(&mut self, round: RoundKey, samples: u64, now_ms: u64) {
        self.training = Some(Training { round, began_ms: now_ms, samples });
    }

    /// Training has ended; its time says something about the next one only where it was trained to the end.
    pub(super) fn end_training(&mut self, round: RoundKey, whole: bool, now_ms: u64) {
        let Some(training) = self.training.take_if(|training| training.round == round) else { return };
        if whole && training.samples > 0 {
            self.sample_times.note(now_ms.saturating_sub(training.began_ms).saturating_mul(PARTS) / training.samples);
        }
    }

    /// A report is handed over to be sent.
    pub(super) fn report_sent(&mut self, round: RoundKey, now_ms: u64) {
        if self.reported.is_none_or(|(reported, _)| reported != round) {
            self.reported = Some((round, now_ms));
        }
    }

    /// The account shows this node's report.
    pub(super) fn report_seen(&mut self, round: RoundKey, now_ms: u64) {
        if let Some((_, sent_ms)) = self.reported.take_if(|(reported, _)| *reported == round) {
            self.landing_ms.note(now_ms.saturating_sub(sent_ms));
        }
    }

    /// The chain went from RoundWitness on to the next round after `lasted_ms`.
    pub(super) fn witness_phase_over(&mut self, lasted_ms: u64) {
        self.witness_ms.note(lasted_ms);
    }

    /// Whether the next round would begin about when the batch of `round` is trained, if this node reported now.
    pub(super) fn is_time(&self, round: RoundKey, now_ms: u64) -> bool {
        let Some(training) = self.training.filter(|training| training.round == round) else { return false };
        let Some(lead_ms) = self.lead_ms() else { return false };
        let Some(sample) = self.sample_times.at_quartile(1) else { return false };
        let ends_ms = training.began_ms.saturating_add(sample.saturating_mul(training.samples) / PARTS);
        now_ms.saturating_add(lead_ms) >= ends_ms
    }

    /// Reporting too late costs time, and reporting too early costs nothing: the result is only needed in the round after. So
    /// the chain is taken to need rather long, and training rather short.
    fn lead_ms(&self) -> Option<u64> {
        Some(self.landing_ms.at_quartile(3)?.saturating_add(self.witness_ms.at_quartile(3)?))
    }
}

/// The newest of a kind of measurement.
#[derive(Debug, Default)]
struct Times(VecDeque<u64>);

impl Times {
    fn note(&mut self, time: u64) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(time);
    }

    /// The time that this share of the others does not exceed; none where too little is known.
    fn at_quartile(&self, quartile: usize) -> Option<u64> {
        let mut times: Vec<u64> = self.0.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len().saturating_sub(1).saturating_mul(quartile).div_ceil(4)).copied().filter(|_| times.len() >= NEEDED)
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::{Epoch, Step};

    use super::*;

    fn round(step: u32) -> RoundKey {
        RoundKey { epoch: Epoch(0), step: Step(step) }
    }

    /// Rounds of 10 samples at 100 ms, reports that land after 500 ms, 1,500 ms in RoundWitness.
    fn known(rounds: u32) -> Lead {
        let mut lead = Lead::default();
        for step in 0..rounds {
            let at_ms = u64::from(step) * 10_000;
            lead.begin_training(round(step), 10, at_ms);
            lead.end_training(round(step), true, at_ms + 1_000);
            lead.report_sent(round(step), at_ms + 1_000);
            lead.report_seen(round(step), at_ms + 1_500);
            lead.witness_phase_over(1_500);
        }
        lead
    }

    #[test]
    fn a_report_goes_out_so_early_that_the_next_round_begins_when_training_ends() {
        let mut lead = known(3);
        // 100 samples take ten seconds, of which the chain needs the last two.
        lead.begin_training(round(9), 100, 50_000);
        assert!(!lead.is_time(round(9), 50_000));
        assert!(!lead.is_time(round(9), 57_999));
        assert!(lead.is_time(round(9), 58_000));
        assert!(!lead.is_time(round(8), 70_000), "another round's batch is not in training");
    }

    #[test]
    fn a_round_shorter_than_the_chains_part_is_reported_at_once() {
        let mut lead = known(3);
        lead.begin_training(round(9), 10, 50_000);
        assert!(lead.is_time(round(9), 50_000));
    }

    #[test]
    fn nothing_is_foretold_from_a_single_round() {
        let mut lead = known(1);
        lead.begin_training(round(9), 10, 50_000);
        assert!(!lead.is_time(round(9), 1_000_000));
        let mut lead = known(2);
        lead.begin_training(round(9), 10, 50_000);
        assert!(lead.is_time(round(9), 1_000_000));
    }

    #[test]
    fn cancelled_training_and_reports_of_other_rounds_teach_nothing() {
        let mut lead = Lead::default();
        for step in 0..5 {
            lead.begin_training(round(step), 10, 0);
            lead.end_training(round(step), false, 1_000);
            lead.report_sent(round(step), 0);
            lead.report_seen(round(step + 1), 100);
        }
        assert_eq!((lead.sample_times.at_quartile(1), lead.landing_ms.at_quartile(3)), (None, None));
    }

    #[test]
    fn a_report_that_is_repeated_is_measured_from_its_first_sending() {
        let mut lead = known(0);
        for step in 0..3 {
            lead.report_sent(round(step), 1_000);
            lead.report_sent(round(step), 3_000);
            lead.report_seen(round(step), 3_500);
        }
        assert_eq!(lead.landing_ms.at_quartile(3), Some(2_500));
    }

    #[test]
    fn a_slower_machine_is_learnt() {
        let mut lead = known(8);
        for step in 10..17 {
            lead.begin_training(round(step), 10, 0);
            lead.end_training(round(step), true, 5_000);
        }
        lead.begin_training(round(20), 10, 100_000);
        assert!(!lead.is_time(round(20), 102_999));
        assert!(lead.is_time(round(20), 103_000));
    }
}
