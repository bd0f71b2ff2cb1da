//! One step of training: weights out, passes over micro-batches, gradients in, the result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::Tensor;

use super::Rank;
use super::plan::{SkipReason, StepDurations, StepPlan, TrainOutcome, Trained, tokens_of};
use crate::GpuError;
use crate::model::{Llama, Loss};
use crate::{shim, transfer};

/// Sums over the samples of one replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) loss_sum: f64,
    cancelled: bool,
}

impl Rank {
    /// Everything of a step that may have to be repeated, and then what may not.
    pub(super) fn attempt(&mut self, plan: &StepPlan) -> Result<TrainOutcome, GpuError> {
        let mut lap = laps();
        self.optimizer.look_ahead(plan.lr_previous, &mut self.scratch);
        transfer::spread(&self.mesh, &self.layout, (&self.scratch).into(), self.model.parameters())?;
        self.model.zero_gradients()?;
        let spread = lap();
        let tokens = tokens_of(&plan.samples);
        let scale = 1.0 / tokens as f64;
        let share = self.micro_batches(&plan.samples, &plan.cancel, |model, loss| model.backward(loss, scale))?;
        let model = lap();
        let total = self.sum_over_replicas(share)?;
        if total.cancelled {
            return Ok(TrainOutcome::Cancelled);
        }
        if !total.loss_sum.is_finite() {
            return Ok(TrainOutcome::Skipped { reason: SkipReason::LossNotFinite });
        }
        transfer::collect(&self.mesh, &self.layout, &self.model.gradients()?, (&mut self.scratch).into())?;
        let gradient_norm = self.gradient_norm()?;
        let Some(scale) = self.optimizer.gradient_scale(gradient_norm) else {
            return Ok(TrainOutcome::Skipped { reason: SkipReason::GradientNotFinite });
        };
        let collect = lap();
        let encoded = self.optimizer.step(&self.scratch, scale, plan.lr)?;
        let payload = self.assemble(&encoded)?;
        self.durations = StepDurations { spread, model, collect, encode: lap() };
        Ok(TrainOutcome::Trained(Trained {
            payload,
            loss: total.loss_sum / tokens as f64,
            tokens,
            gradient_norm,
            micro_batch_size: self.micro_batch_size,
        }))
    }

    /// Runs this replica's samples through the model and gives each micro-batch's loss to `use_loss`.
    pub(super) fn micro_batches(
        &mut self,
        samples: &[Vec<u32>],
        cancel: &AtomicBool,
        use_loss: impl Fn(&Llama, &mut Loss) -> Result<(), GpuError>,
    ) -> Result<Share, GpuError> {
        let (index, replicas) = (self.mesh.data_index(), self.mesh.topology().data_parallel());
        let mine = &samples[samples.len() * index / replicas..samples.len() * (index + 1) / replicas];
        let mut share = Share { loss_sum: 0.0, cancelled: false };
        for batch in mine.chunks(self.micro_batch_size) {
            let cancelled = self.mesh.agree_in_tensor_group(cancel.load(Ordering::Relaxed))?;
            if cancelled.contains(&true) {
                share.cancelled = true;
                break;
            }
            let before = shim::out_of_memory_count(self.model.device())?;
            let loss = self.micro_batch(batch, &use_loss);
            if loss.is_err() && shim::out_of_memory_count(self.model.device())? > before {
                return Err(GpuError::OutOfMemory { rank: self.mesh.rank() });
            }
            share.loss_sum += loss?;
        }
        Ok(share)
    }

    fn micro_batch(
        &self,
        batch: &[Vec<u32>],
        use_loss: impl Fn(&Llama, &mut Loss) -> Result<(), GpuError>,
    ) -> Result<f64, GpuError> {
        #[cfg(test)]
        if batch.len() > self.out_of_memory_above {
            return Err(GpuError::OutOfMemory { rank: self.mesh.rank() });
        }
        let length = batch.first().map_or(0, Vec::len) as i64;
        let tokens: Vec<i64> = batch.iter().flatten().map(|&token| i64::from(token)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_view([batch.len() as i64, length])?;
        let tokens = tokens.f_to_device(self.model.device())?;
        let inputs = tokens.f_narrow(1, 0, length - 1)?;
        let labels = tokens.f_narrow(1, 1, length - 1)?;
        let mut loss = self.model.loss_sum(&inputs, &labels)?;
        use_loss(&self.model, &mut loss)?;
        self.model.settle()?;
        loss.value()
    }

    /// Adds the replicas' shares in their order; the ranks of one replica have equal ones.
    pub(super) fn sum_over_replicas(&self, share: Share) -> Result<Share, GpuError> {
        let shares = self.mesh.agree(share)?;
        let replicas = || shares.iter().step_by(self.mesh.topology().tensor_parallel());
        Ok(Share { loss_sum: replicas().map(|share| share.loss_sum).sum(), cancelled: replicas().any(|share| share.cancelled) })
    }

    /// L2 norm of the gradient of which every rank now holds its pieces.
    fn gradient_norm(&self) -> Result<f64, GpuError> {
        let own: f64 = self.scratch.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        Ok(self.mesh.agree(own)?.iter().sum::<f64>().sqrt())
    }

    /// Strings the ranks' bytes together, on rank 0.
    fn assemble(&self, encoded: &Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, GpuError> {
        let payload = self.mesh.exchange(encoded, |all| {
            (self.mesh.rank() == 0).then(|| {
                let ranks = all.iter().enumerate();
                let parts: Vec<_> = ranks
                    .flat_map(|(rank, bytes)| self.layout.pieces(rank).iter().zip(bytes.iter()))
                    .map(|(piece, bytes)| (piece.part.clone(), bytes))
                    .collect();
                self.layout.codec.assemble(&parts)
            })
        })?;
        Ok(payload.transpose()?)
    }
}

/// A clock that returns the time since it was last read.
fn laps() -> impl FnMut() -> Duration {
    let mut last = Instant::now();
    move || {
        let now = Instant::now();
        now - std::mem::replace(&mut last, now)
    }
}
