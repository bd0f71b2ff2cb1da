//! One step of training: weights out, passes over micro-batches, gradients in, the result.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::Tensor;

use super::Rank;
use super::plan::{SkipReason, StepDurations, StepPlan, TrainOutcome, Trained, tokens_of};
use crate::GpuError;
use crate::model::{Llama, Loss};
use crate::transfer;

/// Sums over the samples of one replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) loss_sum: f64,
    cancelled: bool,
}

/// What a step's passes and the exchange of its gradient gave; the gradient itself is in the scratch buffers.
pub(super) struct Prepared {
    loss: f64,
    gradient_norm: f64,
    scale: f32,
    durations: StepDurations,
}

impl Rank {
    /// Everything of a step that may be repeated: only the compute copies and the scratch buffer change.
    pub(super) fn prepare(&mut self, plan: &StepPlan) -> Result<ControlFlow<TrainOutcome, Prepared>, GpuError> {
        let mut lap = laps();
        self.optimizer.look_ahead(plan.lr_previous, &mut self.scratch)?;
        transfer::spread(&self.mesh, &self.layout, self.scratch.view(), self.model.parameters())?;
        let spread = lap();
        let loss = match self.pass(plan)? {
            ControlFlow::Continue(loss) => loss,
            ControlFlow::Break(outcome) => return Ok(ControlFlow::Break(outcome)),
        };
        let model = lap();
        let gradient = self.gather_gradient()?;
        let durations = StepDurations { spread, model, collect: lap(), ..self.durations };
        Ok(gradient.map_continue(|(gradient_norm, scale)| Prepared { loss, gradient_norm, scale, durations }))
    }

    /// What must happen once: the gradient enters the momentum, and the result is made of it.
    pub(super) fn commit(&mut self, plan: &StepPlan, prepared: Prepared) -> Result<Trained, GpuError> {
        let Prepared { loss, gradient_norm, scale, durations } = prepared;
        let mut lap = laps();
        let encoded = self.optimizer.step(&self.scratch, scale, plan.lr)?;
        let payload = self.assemble(&encoded)?;
        self.spikes.accept(loss);
        self.durations = StepDurations { encode: lap(), ..durations };
        let (tokens, micro_batch_size) = (tokens_of(&plan.samples), self.micro_batch_size);
        Ok(Trained { payload, loss, tokens, gradient_norm, micro_batch_size })
    }

    /// Forward and backward passes with the compute copies as they are: the mean loss, and the gradient in the model.
    pub(super) fn pass(&mut self, plan: &StepPlan) -> Result<ControlFlow<TrainOutcome, f64>, GpuError> {
        self.model.zero_gradients()?;
        let tokens = tokens_of(&plan.samples) as f64;
        let share = self.micro_batches(&plan.samples, &plan.cancel, |model, loss| model.backward(loss, 1.0 / tokens))?;
        let total = self.sum_over_replicas(share)?;
        if total.cancelled {
            return Ok(ControlFlow::Break(TrainOutcome::Cancelled));
        }
        let loss = total.loss_sum / tokens;
        let skipped = |reason| Ok(ControlFlow::Break(TrainOutcome::Skipped { reason }));
        if !loss.is_finite() {
            return skipped(SkipReason::LossNotFinite);
        }
        match self.spikes.exceeds(loss) {
            Some(limit) => skipped(SkipReason::LossSpike { loss: loss as f32, limit: limit as f32 }),
            None => Ok(ControlFlow::Continue(loss)),
        }
    }

    /// The gradient from where it was computed to its owners' scratch buffers: its norm, and the factor that clips it.
    pub(super) fn gather_gradient(&mut self) -> Result<ControlFlow<TrainOutcome, (f64, f32)>, GpuError> {
        transfer::collect(&self.mesh, &self.layout, &self.model.gradients()?, self.scratch.view_mut())?;
        let norm = self.gradient_norm()?;
        Ok(match self.optimizer.gradient_scale(norm) {
            Some(scale) => ControlFlow::Continue((norm, scale)),
            None => ControlFlow::Break(TrainOutcome::Skipped { reason: SkipReason::GradientNotFinite }),
        })
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
        #[cfg(test)]
        let mut numbers = 0..;
        for batch in mine.chunks(self.micro_batch_size) {
            let cancelled = self.mesh.agree_in_tensor_group(cancel.load(Ordering::Relaxed))?;
            if cancelled.contains(&true) {
                share.cancelled = true;
                break;
            }
            share.loss_sum += self.micro_batch(batch, &use_loss)?;
            #[cfg(test)]
            if let Some((hook, number)) = self.after_micro_batch.as_ref().zip(numbers.next()) {
                hook(number);
            }
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

    /// Mean cross entropy per label over `samples`, with the compute copies as they are.
    pub(super) fn mean_loss(&mut self, samples: &[Vec<u32>]) -> Result<f64, GpuError> {
        let never = AtomicBool::new(false);
        let share = tch::no_grad(|| self.micro_batches(samples, &never, |_, _| Ok(())))?;
        Ok(self.sum_over_replicas(share)?.loss_sum / tokens_of(samples) as f64)
    }

    /// Adds the replicas' shares in their order; the ranks of one replica have equal ones.
    pub(super) fn sum_over_replicas(&self, share: Share) -> Result<Share, GpuError> {
        let shares = self.mesh.agree(share)?;
        let replicas = || shares.iter().step_by(self.mesh.topology().tensor_parallel());
        Ok(Share { loss_sum: replicas().map(|share| share.loss_sum).sum(), cancelled: replicas().any(|share| share.cancelled) })
    }

    /// L2 norm of the gradient of which every rank now holds its pieces.
    fn gradient_norm(&self) -> Result<f64, GpuError> {
        let own = self.optimizer.square_sum(&self.scratch)?;
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
pub(super) fn laps() -> impl FnMut() -> Duration {
    let mut last = Instant::now();
    move || {
        let now = Instant::now();
        now - std::mem::replace(&mut last, now)
    }
}
