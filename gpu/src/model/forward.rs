//! The forward pass: embedding, layers, head and loss.

use tch::{Device, Kind, Reduction, Tensor};

use super::{Layer, Llama, Rows};
use crate::GpuError;
use crate::{mesh, shim};

/// Label of a position that does not count; never occurs, because every token of a sample counts.
const IGNORED_LABEL: i64 = -100;
const NO_BIAS: Option<&Tensor> = None;

impl Llama {
    /// Token embeddings, of which this rank holds the rows of its slice of the vocabulary.
    pub(super) fn look_up(&self, tokens: &Tensor) -> Result<Rows, GpuError> {
        let table = &self.parameters[self.embedding];
        let look_up = || {
            if self.region.collective().size() == 1 {
                let output = Tensor::f_embedding(table, tokens, -1, false, false)?;
                return Ok(Rows { places: tokens.shallow_clone(), mine: None, output });
            }
            let (places, mine) = self.local_tokens(tokens)?;
            let mine = mine.f_unsqueeze(-1)?;
            let rows = Tensor::f_embedding(table, &places, -1, false, false)?;
            let output = self.region.leave(rows.f_mul(&mine.f_to_kind(rows.kind())?)?)?;
            Ok::<_, GpuError>(Rows { places, mine: Some(mine), output })
        };
        let rows = tch::no_grad(look_up)?;
        Ok(Rows { output: rows.output.f_set_requires_grad(true)?, ..rows })
    }

    /// Each token's place in this rank's slice of the vocabulary (0 if elsewhere), and 1.0 or 0.0 for whether it is there.
    fn local_tokens(&self, tokens: &Tensor) -> Result<(Tensor, Tensor), GpuError> {
        let slice = self.head.size()[0];
        let local = tokens.f_sub_scalar(slice * self.region.collective().rank() as i64)?;
        let mine = local.f_ge(0)?.f_logical_and(&local.f_lt(slice)?)?;
        Ok((local.f_mul(&mine)?, mine.f_to_kind(Kind::Float)?))
    }

    /// # Shapes
    /// `hidden` and the result: `[batch, seq, hidden]`.
    pub(super) fn layer(&self, layer: &Layer, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let hidden = hidden.f_add(&self.attention(layer, hidden)?)?;
        Ok(hidden.f_add(&self.feed_forward(layer, &hidden)?)?)
    }

    fn rms_norm(&self, hidden: &Tensor, weight: &Tensor) -> Result<Tensor, GpuError> {
        if self.device == Device::Cpu {
            return shim::rms_norm(hidden, weight, self.config.rms_norm_eps);
        }
        Ok(hidden.f_rms_norm([self.config.hidden_size as i64], Some(weight), self.config.rms_norm_eps)?)
    }

    fn attention(&self, layer: &Layer, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let input = self.rms_norm(hidden, &layer.attention_norm)?;
        let [query, key, value] = self.region.columns(&input, [&layer.query, &layer.key, &layer.value])?;
        let (batch, sequence) = (hidden.size()[0], hidden.size()[1]);
        let by_head = |projected: &Tensor| -> Result<Tensor, GpuError> {
            Ok(projected.f_view([batch, sequence, -1, self.config.head_dim as i64])?)
        };
        let query = self.rotary.rotate(&by_head(&query)?)?.f_transpose(1, 2)?;
        let key = self.rotary.rotate(&by_head(&key)?)?.f_transpose(1, 2)?;
        let value = by_head(&value)?.f_transpose(1, 2)?;
        let grouped = query.size()[1] != key.size()[1];
        let mixed = Tensor::f_scaled_dot_product_attention(&query, &key, &value, NO_BIAS, 0.0, true, None, grouped)?;
        let mixed = mixed.f_transpose(1, 2)?.f_reshape([batch, sequence, -1])?;
        self.region.leave(mixed.f_linear(&layer.attention_output, NO_BIAS)?)
    }

    fn feed_forward(&self, layer: &Layer, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let input = self.rms_norm(hidden, &layer.feed_forward_norm)?;
        let [gate, up] = self.region.columns(&input, [&layer.gate, &layer.up])?;
        let inner = shim::swiglu(&gate, &up)?;
        self.region.leave(inner.f_linear(&layer.down, NO_BIAS)?)
    }

    /// Logits of this rank's slice of the vocabulary.
    ///
    /// # Shapes
    /// `hidden`: `[batch, seq, hidden]`; the result: `[batch, seq, slice]`.
    pub(super) fn project(&self, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let [logits] = self.region.columns(&self.rms_norm(hidden, &self.norm)?, [&self.head])?;
        Ok(logits)
    }

    /// Sum of `log Σ exp(logits) − logit of the label`, over slices of the vocabulary, in f32.
    ///
    /// # Shapes
    /// `logits`: `[batch, seq, slice]`; `labels`: `[batch, seq]`; the result: `[]` f32.
    pub(super) fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, GpuError> {
        let logits = logits.f_view([-1, self.head.size()[0]])?.f_to_kind(Kind::Float)?;
        let labels = labels.f_reshape([-1])?;
        let group = self.region.collective();
        if group.size() == 1 {
            return Ok(logits.f_cross_entropy_loss(&labels, NO_BIAS, Reduction::Sum, IGNORED_LABEL, 0.0)?);
        }
        // Shifting by the maximum changes neither value nor gradient, so that it need not be differentiated.
        let mut maximum = tch::no_grad(|| logits.f_amax([-1_i64], true))?;
        group.all_reduce(&mut maximum, mesh::Reduction::Max)?;
        let shifted = logits.f_sub(&maximum)?;
        let sum_of_exponentials = shifted.f_exp()?.f_sum_dim_intlist([-1_i64].as_slice(), false, None)?;
        let log_sum = self.region.leave(sum_of_exponentials)?.f_log()?;
        let (local, mine) = self.local_tokens(&labels)?;
        let picked = shifted.f_gather(-1, &local.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?;
        let picked = self.region.leave(picked.f_mul(&mine)?)?;
        Ok(log_sum.f_sub(&picked)?.f_sum(None)?)
    }
}
