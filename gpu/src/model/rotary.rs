//! Rotary position embedding (RoPE).

use tch::{Device, Kind, Tensor};

use crate::GpuError;
use crate::config::LlamaConfig;
use crate::shim;

/// Cosines and sines of all positions' angles.
pub(super) struct Tables {
    /// `[sequence_len, 1, head_dim]`, each column twice.
    cosine: Tensor,
    /// The same, but for the first half of the columns with the sign that the rotation asks for.
    sine: Tensor,
}

impl Tables {
    /// Tables for positions below `sequence_len`.
    ///
    /// Frequencies and angles are rounded to f32 as Hugging Face rounds them: at position 100,000 that is a hundredth of a
    /// radian, to which a model trained there has got used.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(config: &LlamaConfig, sequence_len: usize, (kind, device): (Kind, Device)) -> Result<Self, GpuError> {
        // The loop for CPU devices computes in f32 whatever the activations are.
        let kind = if device == Device::Cpu { Kind::Float } else { kind };
        let frequencies = config.rope.frequencies(config.rope_theta, config.head_dim);
        let frequencies = Tensor::f_from_slice(&frequencies)?.f_to_kind(Kind::Float)?;
        let positions = Tensor::f_arange(sequence_len as i64, (Kind::Float, Device::Cpu))?;
        let angles = positions.f_outer(&frequencies)?.f_unsqueeze(1)?.f_to_kind(Kind::Double)?;
        let scaled = |values: Tensor| values.f_mul_scalar(config.rope.attention_factor());
        let (cosine, sine) = (scaled(angles.f_cos()?)?, scaled(angles.f_sin()?)?);
        let table = |halves: [&Tensor; 2]| Tensor::f_cat(&halves, -1)?.f_to_kind(kind)?.f_to_device(device);
        Ok(Self { cosine: table([&cosine, &cosine])?, sine: table([&sine.f_neg()?, &sine])? })
    }

    /// Turns each head by its position's angles; features `i` and `i + head_dim / 2` form a pair, as Hugging Face lays
    /// them out.
    ///
    /// # Shapes
    /// `heads` and the result: `[batch, seq, heads, head_dim]`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn rotate(&self, heads: &Tensor) -> Result<Tensor, GpuError> {
        if heads.device() == Device::Cpu {
            return shim::rotate(heads, &self.cosine, &self.sine);
        }
        let sequence = heads.size()[1];
        let (cosine, sine) = (self.cosine.f_narrow(0, 0, sequence)?, self.sine.f_narrow(0, 0, sequence)?);
        let halves = heads.f_chunk(2, -1)?;
        let swapped = Tensor::f_cat(&[&halves[1], &halves[0]], -1)?;
        Ok(heads.f_mul(&cosine)?.f_addcmul(&swapped, &sine)?)
    }
}
