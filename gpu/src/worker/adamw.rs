//! AdamW on one device, to compare DisTrO with. It makes no results, so no network can be trained with it.

use std::ops::ControlFlow;

use super::{Rank, RankSetup, StepPlan, TrainOutcome, Trained, tokens_of};
use crate::shim::{AdamWRates, AdamWState};
use crate::{GpuError, transfer};

/// The settings of AdamW beside the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean and of the variance of the gradients.
    pub betas: (f64, f64),
    /// Share of the weights, times the learning rate, that is lost in a step.
    pub weight_decay: f64,
    /// What keeps the step finite where the variance vanishes.
    pub epsilon: f64,
}

impl Default for AdamWConfig {
    /// What language models are usually trained with, without weight decay.
    fn default() -> Self {
        Self { betas: (0.9, 0.95), weight_decay: 0.0, epsilon: 1e-8 }
    }
}

/// A model that AdamW trains on a single device: the same passes, clipping and checks as a [`Rank`]'s.
pub struct AdamWTrainer {
    /// Its compute copies are the weights; its own master weights only start them.
    pub(super) rank: Rank,
    config: AdamWConfig,
    state: AdamWState,
}

impl AdamWTrainer {
    /// Loads the weights. Of the optimiser's settings in `setup` only `clip_grad_norm` counts.
    ///
    /// # Errors
    /// As [`Rank::new`]; more than one rank.
    pub fn new(setup: RankSetup, config: AdamWConfig) -> Result<Self, GpuError> {
        let ranks = setup.mesh.topology().ranks();
        if ranks != 1 {
            return Err(GpuError::Layout { problem: format!("AdamW is compared on 1 device, not on {ranks}") });
        }
        let rank = Rank::new(setup)?;
        transfer::spread(&rank.mesh, &rank.layout, rank.optimizer.master().view(), rank.model.parameters())?;
        let state = AdamWState::new(rank.model.parameters())?;
        Ok(Self { rank, config, state })
    }

    /// Trains one step; its outcome never has a payload. The plan's `lr_previous` does not count.
    ///
    /// # Errors
    /// As [`Rank::train`].
    pub fn train(&mut self, plan: &StepPlan) -> Result<TrainOutcome, GpuError> {
        let rank = &mut self.rank;
        rank.check_samples(plan.step, &plan.samples)?;
        super::check_rates(plan.step, &[("lr", plan.lr)])?;
        let prepared = rank.within_memory(plan.step, |rank| match rank.pass(plan)? {
            ControlFlow::Continue(loss) => Ok(rank.gather_gradient()?.map_continue(|(norm, scale)| (loss, norm, scale))),
            ControlFlow::Break(outcome) => Ok(ControlFlow::Break(outcome)),
        })?;
        let (loss, gradient_norm, scale) = match prepared {
            ControlFlow::Continue(prepared) => prepared,
            ControlFlow::Break(outcome) => return Ok(outcome),
        };
        let mut gradients = Vec::new();
        for (parameter, gradient) in rank.model.parameters().iter().zip(rank.model.gradients()?) {
            gradients.push(match gradient {
                Some(gradient) => gradient.f_mul_scalar(f64::from(scale))?,
                None => parameter.f_detach()?.f_zeros_like()?,
            });
        }
        let AdamWConfig { betas, weight_decay, epsilon } = self.config;
        let rates = AdamWRates { lr: f64::from(plan.lr), betas, weight_decay, epsilon };
        self.state.step(rank.model.parameters(), &gradients, rates)?;
        rank.spikes.accept(loss);
        let (tokens, micro_batch_size) = (tokens_of(&plan.samples), rank.micro_batch_size);
        Ok(TrainOutcome::Trained(Trained { payload: None, loss, tokens, gradient_norm, micro_batch_size }))
    }

    /// Mean cross entropy per label over `samples`.
    ///
    /// # Errors
    /// As [`Rank::evaluate`].
    pub fn evaluate(&mut self, step: u64, samples: &[Vec<u32>]) -> Result<f64, GpuError> {
        self.rank.check_samples(step, samples)?;
        self.rank.within_memory(step, |rank| rank.mean_loss(samples))
    }
}
