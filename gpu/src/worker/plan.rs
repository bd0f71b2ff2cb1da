//! What ranks are told to do, how it ended, and what no rank would carry out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::GpuError;
use crate::optimizer::LEARNING_RATE_MAX;

/// Most samples of one plan.
pub const SAMPLES_MAX: usize = 1 << 20;

/// One step's work.
#[derive(Debug, Clone)]
pub struct StepPlan {
    /// The run's step, for messages.
    pub step: u64,
    /// Samples of equal length; inputs are all tokens but the last, labels all but the first.
    pub samples: Arc<Vec<Vec<u32>>>,
    /// Learning rate of this step.
    pub lr: f32,
    /// Learning rate of the step before, for the look-ahead.
    pub lr_previous: f32,
    /// Ends the step between two micro-batches once it is true.
    pub cancel: Arc<AtomicBool>,
}

/// Results to apply.
#[derive(Debug, Clone)]
pub struct ApplyPlan {
    /// The run's step, for messages.
    pub step: u64,
    /// Learning rate of this step.
    pub lr: f32,
    /// The weights lose `lr · weight_decay` of themselves, whether there are results or not.
    pub weight_decay: f32,
    /// The accepted results, in batch order.
    pub payloads: Arc<Vec<Arc<[u8]>>>,
}

/// How a step of training ended; equal on all ranks but for the payload.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainOutcome {
    /// The momentum took in the gradient.
    Trained(Trained),
    /// The step was given up; nothing but the compute copies changed.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
    /// The plan's token was set; nothing but the compute copies changed.
    Cancelled,
}

/// A finished step of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The whole result, on rank 0 only.
    pub payload: Option<Vec<u8>>,
    /// Mean cross entropy per label, in nats.
    pub loss: f64,
    /// Labels trained on.
    pub tokens: u64,
    /// L2 norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// Samples per forward pass that the device's memory held.
    pub micro_batch_size: usize,
}

/// Where the time of a rank's last finished step went, and of what came after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepDurations {
    /// Looking ahead and handing the weights to the ranks that compute with them.
    pub spread: Duration,
    /// Forward and backward passes.
    pub model: Duration,
    /// Waiting for the other replicas, and adding the gradients up.
    pub collect: Duration,
    /// Momentum, transform, selection and encoding.
    pub encode: Duration,
    /// Decoding and applying the last results.
    pub apply: Duration,
    /// The last digest of the weights.
    pub digest: Duration,
}

/// Why a step was given up: a phrase for people by `Display`.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SkipReason {
    /// The loss is NaN or infinite.
    #[error("the loss is not finite")]
    LossNotFinite,
    /// The loss lies far above those of the last steps; see [`SpikeRule`](super::SpikeRule).
    #[error("the loss of {loss} is a spike: more than {limit} is not usual")]
    LossSpike {
        /// The step's loss.
        loss: f32,
        /// The largest loss that would have been accepted.
        limit: f32,
    },
    /// The gradient is NaN, infinite, or too large to transform.
    #[error("the gradient is not finite")]
    GradientNotFinite,
}

/// Refuses samples that no pass can be made of.
pub(super) fn check_samples(
    step: u64,
    samples: &[Vec<u32>],
    (sequence_len, vocabulary): (usize, usize),
) -> Result<(), GpuError> {
    let refuse = |problem: String| Err(GpuError::Plan { step, problem });
    let Some(first) = samples.first() else { return refuse("it has no samples".to_owned()) };
    if samples.len() > SAMPLES_MAX {
        return refuse(format!("{} samples, the limit is {SAMPLES_MAX}", samples.len()));
    }
    if !(2..=sequence_len + 1).contains(&first.len()) {
        return refuse(format!("samples of {} tokens, not 2..={}", first.len(), sequence_len + 1));
    }
    if let Some(other) = samples.iter().find(|sample| sample.len() != first.len()) {
        return refuse(format!("samples of {} and of {} tokens", first.len(), other.len()));
    }
    match samples.iter().flatten().find(|&&token| token as usize >= vocabulary) {
        Some(token) => refuse(format!("token {token} is not in the vocabulary of {vocabulary}")),
        None => Ok(()),
    }
}

/// Refuses inputs that no forward pass can be made of.
pub(super) fn check_inputs(step: u64, inputs: &[Vec<u32>], (sequence_len, vocabulary): (usize, usize)) -> Result<(), GpuError> {
    let refuse = |problem: String| Err(GpuError::Plan { step, problem });
    let length = inputs.first().map_or(0, Vec::len);
    if inputs.len() > SAMPLES_MAX || !(1..=sequence_len).contains(&length) || inputs.iter().any(|input| input.len() != length) {
        let problem = format!("{} inputs, the first of {length} tokens, not equal ones of 1..={sequence_len}", inputs.len());
        return refuse(problem);
    }
    match inputs.iter().flatten().find(|&&token| token as usize >= vocabulary) {
        Some(token) => refuse(format!("token {token} is not in the vocabulary of {vocabulary}")),
        None => Ok(()),
    }
}

/// Refuses rates that no step is made with.
pub(super) fn check_rates(step: u64, rates: &[(&str, f32)]) -> Result<(), GpuError> {
    match rates.iter().find(|(_, rate)| !(0.0..=LEARNING_RATE_MAX).contains(rate)) {
        Some((name, rate)) => Err(GpuError::Plan { step, problem: format!("{name} {rate} is not in 0..={LEARNING_RATE_MAX}") }),
        None => Ok(()),
    }
}
/// Labels of samples of equal length.
pub(super) fn tokens_of(samples: &[Vec<u32>]) -> u64 {
    samples.iter().map(|sample| sample.len() as u64 - 1).sum()
}
