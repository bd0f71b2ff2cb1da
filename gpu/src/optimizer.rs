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
use crate::codec::{Layout, Part, Selection, ValidPayload};
use crate::config::LlamaConfig;
use crate::digest::BlockDigest;
use crate::flat::Flat;
use crate::layout::NodeLayout;
use crate::snapshot::Settings;
use store::{Intake, Sent};

mod store;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use store::{HostStore, KernelStore, TensorStore};
pub(crate) use store::{Store, store_of};

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
    store: Box<dyn Store>,
    master: Flat,
    momentum: Flat,
    /// By piece, the unquantised coefficients of the last result, until they leave the momentum.
    sent: Option<Vec<Sent>>,
}

impl Optimizer {
    /// Starts without momentum from `master`, the rank's flat buffer.
    ///
    /// # Errors
    /// Too little memory on the device.
    pub(crate) fn new(
        layout: Arc<NodeLayout>,
        rank: usize,
        config: OptimizerConfig,
        store: Box<dyn Store>,
        master: Vec<f32>,
    ) -> Result<Self, GpuError> {
        let momentum = store.keep(vec![0.0; master.len()])?;
        let master = store.keep(master)?;
        Ok(Self { layout, rank, config, store, master, momentum, sent: None })
    }

    /// A flat buffer of zeros, for [`Optimizer::look_ahead`] and for gradients.
    ///
    /// # Errors
    /// Too little memory on the device.
    pub(crate) fn scratch(&self) -> Result<Flat, GpuError> {
        self.store.keep(vec![0.0; self.master.len()])
    }

    /// The rank's pieces of the weights.
    pub(crate) fn master(&self) -> &Flat {
        &self.master
    }

    /// The rank's pieces of the momentum.
    pub(crate) fn momentum(&self) -> &Flat {
        &self.momentum
    }

    /// By piece, what was sent last and is still in the momentum.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn sent(&self) -> Result<Option<Vec<Selection>>, GpuError> {
        let Some(sent) = &self.sent else { return Ok(None) };
        let fetch = |sent: &Sent| Ok(sent.fetch()?.into_owned());
        Ok(Some(sent.iter().map(fetch).collect::<Result<_, GpuError>>()?))
    }

    /// The settings that what is saved depends on.
    pub(crate) fn settings(&self) -> Settings {
        let OptimizerConfig { compression_chunk: chunk, compression_topk: topk, quantize_1bit, .. } = self.config;
        Settings { chunk, topk, quantize_1bit }
    }

    /// Goes on with another state: the rank's pieces of weights and momentum, and by piece what was sent.
    ///
    /// # Errors
    /// Too little memory on the device; then nothing changes.
    pub(crate) fn replace(
        &mut self,
        master: Vec<f32>,
        momentum: Vec<f32>,
        sent: Option<Vec<Selection>>,
    ) -> Result<(), GpuError> {
        debug_assert_eq!((master.len(), momentum.len()), (self.master.len(), self.momentum.len()));
        let put = |sent: Vec<Selection>| -> Result<Vec<Sent>, GpuError> {
            let pieces = self.layout.pieces(self.rank).iter().zip(sent);
            pieces.map(|(piece, selection)| self.store.put(&self.layout.codec, &piece.part, selection)).collect()
        };
        let sent = sent.map(put).transpose()?;
        let (master, momentum) = (self.store.keep(master)?, self.store.keep(momentum)?);
        (self.master, self.momentum, self.sent) = (master, momentum, sent);
        Ok(())
    }

    /// Forgets all momentum.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn reset_momentum(&mut self) -> Result<(), GpuError> {
        self.sent = None;
        match &mut self.momentum {
            Flat::Host(elements) => elements.fill(0.0),
            Flat::Device(tensor) => tch::no_grad(|| tensor.f_zero_().map(drop))?,
        }
        Ok(())
    }

    /// Writes `master − lr · sign(momentum)` to `ahead`.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn look_ahead(&self, lr: f32, ahead: &mut Flat) -> Result<(), GpuError> {
        self.store.look_ahead(&self.master, &self.momentum, lr, ahead)
    }

    /// Sum of the squares of a flat buffer's elements.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn square_sum(&self, flat: &Flat) -> Result<f64, GpuError> {
        self.store.square_sum(flat)
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
    /// libtorch's; none of the codec's for finite input.
    pub(crate) fn step(&mut self, gradient: &Flat, scale: f32, lr: f32) -> Result<Vec<Vec<u8>>, GpuError> {
        let (codec, pieces) = (&self.layout.codec, self.layout.pieces(self.rank));
        let intake = Intake { gradient, decay: self.config.compression_decay, rate: lr * scale };
        let mut before = self.sent.take().into_iter().flatten();
        let (mut sent, mut encoded) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
        for piece in pieces {
            let chosen = self.store.compress(codec, piece, &mut self.momentum, intake, before.next())?;
            encoded.push(codec.encode_part(&piece.part, &*chosen.fetch()?)?);
            sent.push(chosen);
        }
        self.sent = Some(sent);
        Ok(encoded)
    }

    /// Applies validated results to the rank's pieces: first the weight decay, one multiplication by a factor that is
    /// rounded to f32 once, then the exact update.
    ///
    /// # Errors
    /// Payloads of another layout; libtorch's.
    pub(crate) fn apply(&mut self, payloads: &[ValidPayload<'_>], lr: f32, weight_decay: f32) -> Result<(), GpuError> {
        let factor = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
        for piece in self.layout.pieces(self.rank) {
            self.store.apply(&self.layout.codec, piece, payloads, &mut self.master, (lr, factor))?;
        }
        Ok(())
    }

    /// By piece, the digests of the blocks of the weights.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn block_digests(&self) -> Result<Vec<(Part, Vec<BlockDigest>)>, GpuError> {
        let digests = |piece: &crate::layout::Piece| {
            Ok((piece.part.clone(), self.store.block_digests(&self.layout.codec, piece, &self.master)?))
        };
        self.layout.pieces(self.rank).iter().map(digests).collect()
    }

    /// Changes the rank's pieces of the weights in the host's memory, for tests that spoil them.
    #[cfg(test)]
    pub(crate) fn edit_master(&mut self, edit: impl FnOnce(&mut [f32])) {
        let mut elements = self.master.to_host().unwrap().into_owned();
        edit(&mut elements);
        self.master = self.store.keep(elements).unwrap();
    }
}
