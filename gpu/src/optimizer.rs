//! DisTrO on the pieces that one rank owns: f32 master weights, momentum, error feedback.
//!
//! Each step the momentum takes in the gradient, its strongest DCT coefficients are sent, and one step later what was
//! sent is taken out of the momentum again; what was not sent stays. The weights move only when results are applied,
//! by the same bits on every node.
//!
//! Between sending and applying, a rank trains on *looked-ahead* weights: those that its own momentum points to. They
//! exist only in the compute copies; the master weights are never perturbed.

use std::sync::Arc;

use crate::GpuError;
use crate::codec::{Layout, Selection, Threads, ValidPayload};
use crate::config::LlamaConfig;
use crate::exact::apply_payloads;
use crate::layout::NodeLayout;
use crate::snapshot::Settings;

#[cfg(test)]
mod tests;

/// Gradients with a larger norm count as not finite: their transform could overflow f32.
const GRADIENT_NORM_MAX: f64 = 1e30;
/// Largest learning rate that a plan may ask for.
pub(crate) const LEARNING_RATE_MAX: f32 = 1e3;

/// The settings of DisTrO that all nodes of a run share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerConfig {
    /// Share of the momentum that survives a step, in 0..=1.
    pub compression_decay: f32,
    /// Largest edge of a DCT chunk.
    pub compression_chunk: usize,
    /// Coefficients sent per chunk.
    pub compression_topk: usize,
    /// Whether only the signs of the coefficients are sent.
    pub quantize_1bit: bool,
    /// Largest L2 norm of the whole gradient; larger ones are scaled down to it.
    pub clip_grad_norm: Option<f32>,
}

impl OptimizerConfig {
    /// The payload layout of a model under these settings.
    ///
    /// # Errors
    /// Settings outside their ranges.
    pub fn layout(&self, config: &LlamaConfig) -> Result<Layout, GpuError> {
        let refuse = |problem: String| Err(GpuError::Optimizer { problem });
        if !(0.0..=1.0).contains(&self.compression_decay) {
            return refuse(format!("compression_decay {} is not in 0..=1", self.compression_decay));
        }
        match self.clip_grad_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                return refuse(format!("clip_grad_norm {norm} is not a finite number above 0"));
            }
            _ => {}
        }
        Ok(Layout::new(&config.parameters(), self.compression_chunk, self.compression_topk, self.quantize_1bit)?)
    }
}

/// What one rank owns of the model and of the optimiser's state.
pub(crate) struct Optimizer {
    layout: Arc<NodeLayout>,
    rank: usize,
    config: OptimizerConfig,
    threads: Threads,
    master: Vec<f32>,
    momentum: Vec<f32>,
    /// By piece, the unquantised coefficients of the last result, until they leave the momentum.
    sent: Option<Vec<Selection>>,
}

impl Optimizer {
    /// Starts without momentum from `master`, the rank's flat buffer.
    pub(crate) fn new(
        layout: Arc<NodeLayout>,
        rank: usize,
        config: OptimizerConfig,
        threads: Threads,
        master: Vec<f32>,
    ) -> Self {
        let momentum = vec![0.0; master.len()];
        Self { layout, rank, config, threads, master, momentum, sent: None }
    }

    /// The rank's pieces of the weights.
    pub(crate) fn master(&self) -> &Vec<f32> {
        &self.master
    }

    /// The rank's pieces of the momentum.
    pub(crate) fn momentum(&self) -> &Vec<f32> {
        &self.momentum
    }

    /// The rank's pieces of the weights, for tests that spoil them.
    #[cfg(test)]
    pub(crate) fn master_mut(&mut self) -> &mut Vec<f32> {
        &mut self.master
    }

    /// By piece, what was sent last and is still in the momentum.
    pub(crate) fn sent(&self) -> &Option<Vec<Selection>> {
        &self.sent
    }

    /// The settings that what is saved depends on.
    pub(crate) fn settings(&self) -> Settings {
        let OptimizerConfig { compression_chunk: chunk, compression_topk: topk, quantize_1bit, .. } = self.config;
        Settings { chunk, topk, quantize_1bit }
    }

    /// Goes on with another state: the rank's pieces of weights and momentum, and by piece what was sent.
    pub(crate) fn replace(&mut self, master: Vec<f32>, momentum: Vec<f32>, sent: Option<Vec<Selection>>) {
        debug_assert_eq!((master.len(), momentum.len()), (self.master.len(), self.momentum.len()));
        (self.master, self.momentum, self.sent) = (master, momentum, sent);
    }

    /// Forgets all momentum.
    pub(crate) fn reset_momentum(&mut self) {
        self.momentum.fill(0.0);
        self.sent = None;
    }

    /// Writes `master − lr · sign(momentum)` to `ahead`.
    pub(crate) fn look_ahead(&self, lr: f32, ahead: &mut [f32]) {
        for ((ahead, &weight), &momentum) in ahead.iter_mut().zip(&self.master).zip(&self.momentum) {
            // Without branches, so that it is vectorised; momentum is never NaN.
            let sign = f32::from(i8::from(momentum > 0.0) - i8::from(momentum < 0.0));
            *ahead = weight - lr * sign;
        }
    }

    /// The factor by which a gradient of L2 norm `norm` enters the momentum; none if it must not enter at all.
    pub(crate) fn gradient_scale(&self, norm: f64) -> Option<f32> {
        if !norm.is_finite() || norm > GRADIENT_NORM_MAX {
            return None;
        }
        let clip = self.config.clip_grad_norm.map_or(1.0, |max| f64::from(max) / (norm + 1e-6));
        Some(clip.min(1.0) as f32)
    }

    /// Takes `lr · scale · gradient` into the momentum and returns this rank's bytes of the result, by piece.
    ///
    /// # Errors
    /// None for finite input.
    pub(crate) fn step(&mut self, gradient: &[f32], scale: f32, lr: f32) -> Result<Vec<Vec<u8>>, GpuError> {
        let codec = &self.layout.codec;
        let pieces = self.layout.pieces(self.rank);
        if let Some(sent) = self.sent.take() {
            for (piece, selection) in pieces.iter().zip(&sent) {
                codec.subtract(&piece.part, selection, &mut self.momentum[piece.at.clone()], self.threads)?;
            }
        }
        let (decay, rate) = (self.config.compression_decay, lr * scale);
        for (momentum, gradient) in self.momentum.iter_mut().zip(gradient) {
            *momentum = decay * *momentum + rate * gradient;
        }
        let (mut sent, mut encoded) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
        for piece in pieces {
            let selection = codec.compress(&piece.part, &self.momentum[piece.at.clone()], self.threads)?;
            encoded.push(codec.encode_part(&piece.part, &selection)?);
            sent.push(selection);
        }
        self.sent = Some(sent);
        Ok(encoded)
    }

    /// Applies validated results to the rank's pieces: first the weight decay, one multiplication by a factor that is
    /// rounded to f32 once, then the exact update.
    ///
    /// # Errors
    /// Payloads of another layout.
    pub(crate) fn apply(&mut self, payloads: &[ValidPayload<'_>], lr: f32, weight_decay: f32) -> Result<(), GpuError> {
        if weight_decay != 0.0 {
            let factor = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
            self.master.iter_mut().for_each(|weight| *weight *= factor);
        }
        for piece in self.layout.pieces(self.rank) {
            let rows = &mut self.master[piece.at.clone()];
            apply_payloads(&self.layout.codec, &piece.part, payloads, rows, lr, self.threads)?;
        }
        Ok(())
    }
}
