//! Whether a run was what it must be, from the nodes' records alone.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::Phase;

use super::record::{Record, Trained};

#[cfg(test)]
mod tests;

/// The loss is compared over so many steps at a run's end, as a share of all: one third.
const COMPARED_SHARE: usize = 3;
/// Standard errors by which two means of equal runs may differ.
const ERRORS_MAX: f64 = 4.0;
/// What a step without one of five results may cost in loss, as a share: updates are voted on, so that a step with fewer votes is
/// a noisier one of the same length, and who was killed trains nothing for two or three rounds.
const SHARE_MAX: f64 = 0.02;

/// Mean loss by step, over all samples that any node trained in it.
pub(crate) fn losses(records: &[Record]) -> Vec<f64> {
    let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (step, trained) in records.iter().flat_map(|record| &record.trained) {
        #[expect(clippy::cast_precision_loss, reason = "samples of a batch are few")]
        let samples = trained.samples as f64;
        let (loss, count) = sums.entry(*step).or_default();
        *loss += trained.loss * samples;
        *count += samples;
    }
    sums.into_values().map(|(loss, count)| loss / count).collect()
}

/// What of a finished run contradicts what every node promises.
pub(crate) fn contradictions(records: &[Record]) -> Vec<String> {
    let mut found = Vec::new();
    let mut digests: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (step, seen) in records.iter().flat_map(|record| &record.held) {
        digests.entry(*step).or_default().extend(seen.iter().map(ToString::to_string));
    }
    let differing: Vec<u32> = digests.iter().filter(|(_, seen)| seen.len() > 1).map(|(step, _)| *step).collect();
    if let Some(first) = differing.first() {
        found.push(format!("digests differ after {} steps, first after step {first}", differing.len()));
    }
    let last = digests.keys().next_back().copied();
    for (number, record) in (1..).zip(records) {
        let own = record.held.keys().next_back().copied();
        if own.is_none() || own != last {
            found.push(format!("node {number} ends after step {own:?}, the run after {last:?}"));
        }
        if !matches!(record.position, Some((_, Phase::Finished, _))) {
            found.push(format!("node {number} did not see the end of the run: {:?}", record.position));
        }
        if record.trained.is_empty() {
            found.push(format!("node {number} trained nothing"));
        }
    }
    let snapshots: BTreeSet<_> = records.iter().map(|record| record.snapshot.clone()).collect();
    if snapshots.len() != 1 {
        found.push(format!("the last snapshots are not one: {snapshots:?}"));
    }
    found
}

/// How two runs' losses at the end compare.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Comparison {
    pub(crate) undisturbed: f64,
    pub(crate) disturbed: f64,
    /// By how much the second may be above the first.
    pub(crate) tolerance: f64,
}

impl Comparison {
    pub(crate) fn holds(&self) -> bool {
        self.disturbed - self.undisturbed <= self.tolerance
    }
}

/// Compares the last third of two runs' steps.
pub(crate) fn compare(undisturbed: &[f64], disturbed: &[f64]) -> Comparison {
    let tail = |losses: &[f64]| losses[losses.len() - losses.len() / COMPARED_SHARE..].to_vec();
    let (calm, wild) = (tail(undisturbed), tail(disturbed));
    let noise = ERRORS_MAX * (squared_error(&calm) + squared_error(&wild)).sqrt();
    let (calm, wild) = (mean(&calm), mean(&wild));
    Comparison { undisturbed: calm, disturbed: wild, tolerance: noise + SHARE_MAX * calm }
}

#[expect(clippy::cast_precision_loss, reason = "steps are few")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The squared standard error of the mean, from how neighbours differ, so that a falling loss is no noise.
#[expect(clippy::cast_precision_loss, reason = "steps are few")]
fn squared_error(values: &[f64]) -> f64 {
    let differences: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).powi(2) / 2.0).collect();
    if differences.is_empty() { 0.0 } else { mean(&differences) / values.len() as f64 }
}

/// How much of the time in rounds the nodes trained.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Utilisation {
    /// Rounds of all nodes that were trained, and followed by another round.
    pub(crate) rounds: usize,
    /// Mean length of a round, from one beginning to train to the next.
    pub(crate) round_s: f64,
    /// Mean training time of a round.
    pub(crate) training_s: f64,
    /// The second by the first.
    pub(crate) utilisation: f64,
}

#[expect(clippy::cast_precision_loss, reason = "minutes")]
const fn milliseconds(ms: u64) -> f64 {
    ms as f64
}

impl Trained {
    /// The part of the training, in milliseconds, that lies between two times.
    fn within(&self, from_ms: u64, to_ms: u64) -> f64 {
        let ended = milliseconds(self.ended_ms);
        (ended.min(milliseconds(to_ms)) - (ended - self.took_ms).max(milliseconds(from_ms))).max(0.0)
    }
}

/// Training time by wall time, over every round that is followed by another one of its epoch. Warmup and Cooldown are no rounds.
pub(crate) fn utilisation(records: &[Record]) -> Option<Utilisation> {
    let (mut wall_ms, mut training_ms, mut rounds) = (0.0, 0.0, 0_usize);
    for record in records {
        let kept = |phase| matches!(phase, Phase::RoundTrain | Phase::Cooldown);
        let begun: Vec<_> = record.phases.iter().filter(|(.., phase)| kept(*phase)).collect();
        for pair in begun.windows(2) {
            let ((from, step, phase), (to, next, ends)) = (pair[0], pair[1]);
            let follows = *phase == Phase::RoundTrain && *ends == Phase::RoundTrain && *next == step + 1;
            if follows && record.trained.contains_key(step) {
                wall_ms += milliseconds(to.saturating_sub(*from));
                // A node reports before its batch is done, so training reaches over the round's end.
                training_ms += record.trained.values().map(|trained| trained.within(*from, *to)).sum::<f64>();
                rounds += 1;
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
    let each = |ms: f64| ms / 1000.0 / rounds as f64;
    (rounds > 0).then(|| Utilisation {
        rounds,
        round_s: each(wall_ms),
        training_s: each(training_ms),
        utilisation: training_ms / wall_ms,
    })
}
