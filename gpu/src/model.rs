//! LLaMA over libtorch: grouped-query attention with rotary embeddings, RMSNorm, SwiGLU; one rank's shard of it.
//!
//! The same code runs alone and tensor-parallel. In a group each rank has a part of the heads, of the feed-forward
//! width and of the vocabulary; activations between the split layers are whole on every rank. Logits are never whole on
//! any rank: the loss is computed from each rank's slice of the vocabulary.

use std::sync::Arc;

use tch::{Device, Kind, Reduction, Tensor};

use crate::GpuError;
use crate::config::LlamaConfig;
use crate::layout::NodeLayout;
use crate::mesh;
use crate::shim::Region;

#[cfg(test)]
mod tests;

/// Label of a position that does not count; never occurs, because every token of a sample counts.
const IGNORED_LABEL: i64 = -100;
const NO_BIAS: Option<&Tensor> = None;

struct Layer {
    attention_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_output: Tensor,
    feed_forward_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// One rank's shard of a LLaMA model: compute copies of the weights, and the forward pass.
pub(crate) struct Llama {
    config: LlamaConfig,
    region: Arc<Region>,
    device: Device,
    parameters: Vec<Tensor>,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    /// `[sequence_len, head_dim]` f32 each.
    rotary: (Tensor, Tensor),
}

impl Llama {
    /// A model of zeros for sequences of up to `sequence_len` inputs; the weights come from their owners.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub(crate) fn new(
        config: &LlamaConfig,
        sequence_len: usize,
        layout: &NodeLayout,
        region: Arc<Region>,
        device: Device,
    ) -> Result<Self, GpuError> {
        let index = region.collective().rank();
        let parameters = (0..layout.codec.parameters().len())
            .map(|parameter| {
                let zeros = Tensor::f_zeros(layout.shard_shape(parameter, index), (Kind::Float, device))?;
                Ok(zeros.f_set_requires_grad(true)?)
            })
            .collect::<Result<Vec<Tensor>, GpuError>>()?;
        let named = |name: &str| {
            let position = layout.codec.parameters().iter().position(|parameter| parameter.spec().name == name);
            let tensor = position.map(|position| parameters[position].shallow_clone());
            tensor.ok_or_else(|| GpuError::Layout { problem: format!("the model has no parameter {name}") })
        };
        let embedding = named("model.embed_tokens.weight")?;
        let head = if config.tie_word_embeddings { embedding.shallow_clone() } else { named("lm_head.weight")? };
        let norm = named("model.norm.weight")?;
        let layers = (0..config.num_hidden_layers).map(|number| layer(number, &named)).collect::<Result<_, _>>()?;
        let rotary = rotary_tables(config, sequence_len, device)?;
        Ok(Self { config: config.clone(), region, device, parameters, embedding, layers, norm, head, rotary })
    }

    /// The compute copies by parameter, in canonical order: this rank's shard of each, f32, leaves of the graph.
    pub(crate) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Gradients by parameter since the last [`Llama::zero_gradients`]; none where no backward pass reached it.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn gradients(&self) -> Result<Vec<Option<Tensor>>, GpuError> {
        let gradient = |parameter: &Tensor| {
            let gradient = parameter.f_grad()?;
            Ok(if gradient.defined() { Some(gradient.f_contiguous()?) } else { None })
        };
        self.parameters.iter().map(gradient).collect()
    }

    /// Forgets all gradients.
    pub(crate) fn zero_gradients(&mut self) {
        self.parameters.iter_mut().for_each(Tensor::zero_grad);
    }

    /// Sum of the cross entropies (natural logarithm) of all labels.
    ///
    /// # Shapes
    /// `inputs`, `labels`: `[batch, seq]` i64, each below the vocabulary size; the result: `[]` f32, equal on all ranks
    /// of the group.
    ///
    /// # Errors
    /// libtorch's; a broken mesh.
    pub(crate) fn loss_sum(&self, inputs: &Tensor, labels: &Tensor) -> Result<Tensor, GpuError> {
        self.forward(inputs, labels).map_err(|error| self.region.cause_of(error))
    }

    /// Adds `scale` times the gradient of `loss` to the gradients.
    ///
    /// # Errors
    /// libtorch's; a broken mesh.
    pub(crate) fn backward(&self, loss: &Tensor, scale: f64) -> Result<(), GpuError> {
        let scaled = loss.f_mul_scalar(scale)?;
        scaled.f_backward().map_err(|error| self.region.cause_of(error.into()))
    }

    /// The device of the compute copies.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    fn forward(&self, inputs: &Tensor, labels: &Tensor) -> Result<Tensor, GpuError> {
        let mut hidden = self.embed(inputs)?;
        for layer in &self.layers {
            hidden = hidden.f_add(&self.attention(layer, &hidden)?)?;
            hidden = hidden.f_add(&self.feed_forward(layer, &hidden)?)?;
        }
        let hidden = self.region.enter(&self.rms_norm(&hidden, &self.norm)?)?;
        let vocabulary = self.head.size()[0];
        let logits = hidden.f_linear(&self.head, NO_BIAS)?.f_reshape([-1, vocabulary])?;
        self.cross_entropy(&logits, &labels.f_reshape([-1])?)
    }

    /// Token embeddings, of which this rank holds the rows of its slice of the vocabulary.
    fn embed(&self, tokens: &Tensor) -> Result<Tensor, GpuError> {
        if self.region.collective().size() == 1 {
            return Ok(Tensor::f_embedding(&self.embedding, tokens, -1, false, false)?);
        }
        let (local, mine) = self.local_tokens(tokens)?;
        let rows = Tensor::f_embedding(&self.embedding, &local, -1, false, false)?;
        self.region.leave(&rows.f_mul(&mine.f_unsqueeze(-1)?)?)
    }

    /// Each token's place in this rank's slice of the vocabulary (0 if elsewhere), and 1.0 or 0.0 for whether it is there.
    fn local_tokens(&self, tokens: &Tensor) -> Result<(Tensor, Tensor), GpuError> {
        let slice = self.head.size()[0];
        let local = tokens.f_sub_scalar(slice * self.region.collective().rank() as i64)?;
        let mine = local.f_ge(0)?.f_logical_and(&local.f_lt(slice)?)?;
        Ok((local.f_mul(&mine)?, mine.f_to_kind(Kind::Float)?))
    }

    fn rms_norm(&self, hidden: &Tensor, weight: &Tensor) -> Result<Tensor, GpuError> {
        Ok(hidden.f_rms_norm([self.config.hidden_size as i64], Some(weight), self.config.rms_norm_eps)?)
    }

    fn attention(&self, layer: &Layer, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let input = self.region.enter(&self.rms_norm(hidden, &layer.attention_norm)?)?;
        let (batch, sequence) = (hidden.size()[0], hidden.size()[1]);
        let by_head = |weight: &Tensor| {
            let projected = input.f_linear(weight, NO_BIAS)?;
            projected.f_view([batch, sequence, -1, self.config.head_dim as i64])?.f_transpose(1, 2)
        };
        let query = self.rotate(&by_head(&layer.query)?)?;
        let key = self.rotate(&by_head(&layer.key)?)?;
        let value = by_head(&layer.value)?;
        let grouped = query.size()[1] != key.size()[1];
        let mixed = Tensor::f_scaled_dot_product_attention(&query, &key, &value, NO_BIAS, 0.0, true, None, grouped)?;
        let mixed = mixed.f_transpose(1, 2)?.f_reshape([batch, sequence, -1])?;
        self.region.leave(&mixed.f_linear(&layer.attention_output, NO_BIAS)?)
    }

    /// Rotary position embedding; features `i` and `i + head_dim / 2` form a pair, as Hugging Face lays them out.
    ///
    /// # Shapes
    /// `heads`: `[batch, heads, seq, head_dim]`.
    fn rotate(&self, heads: &Tensor) -> Result<Tensor, tch::TchError> {
        let sequence = heads.size()[2];
        let (cosine, sine) = (self.rotary.0.f_narrow(0, 0, sequence)?, self.rotary.1.f_narrow(0, 0, sequence)?);
        let halves = heads.f_chunk(2, -1)?;
        let turned = Tensor::f_cat(&[&halves[1].f_neg()?, &halves[0]], -1)?;
        heads.f_mul(&cosine)?.f_add(&turned.f_mul(&sine)?)
    }

    fn feed_forward(&self, layer: &Layer, hidden: &Tensor) -> Result<Tensor, GpuError> {
        let input = self.region.enter(&self.rms_norm(hidden, &layer.feed_forward_norm)?)?;
        let gate = input.f_linear(&layer.gate, NO_BIAS)?.f_silu()?;
        let inner = gate.f_mul(&input.f_linear(&layer.up, NO_BIAS)?)?;
        self.region.leave(&inner.f_linear(&layer.down, NO_BIAS)?)
    }

    /// Sum of `log Σ exp(logits) − logit of the label`, over slices of the vocabulary.
    ///
    /// # Shapes
    /// `logits`: `[tokens, vocabulary of this rank]`; `labels`: `[tokens]`.
    fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, GpuError> {
        let group = self.region.collective();
        if group.size() == 1 {
            return Ok(logits.f_cross_entropy_loss(labels, NO_BIAS, Reduction::Sum, IGNORED_LABEL, 0.0)?);
        }
        // Shifting by the maximum changes neither value nor gradient, so that it need not be differentiated.
        let mut maximum = tch::no_grad(|| logits.f_amax([-1_i64], true))?;
        group.all_reduce(&mut maximum, mesh::Reduction::Max)?;
        let shifted = logits.f_sub(&maximum)?;
        let sum_of_exponentials = shifted.f_exp()?.f_sum_dim_intlist([-1_i64].as_slice(), false, None)?;
        let log_sum = self.region.leave(&sum_of_exponentials)?.f_log()?;
        let (local, mine) = self.local_tokens(labels)?;
        let picked = shifted.f_gather(-1, &local.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?;
        let picked = self.region.leave(&picked.f_mul(&mine)?)?;
        Ok(log_sum.f_sub(&picked)?.f_sum(None)?)
    }
}

fn layer(number: usize, named: &impl Fn(&str) -> Result<Tensor, GpuError>) -> Result<Layer, GpuError> {
    let weight = |name: &str| named(&format!("model.layers.{number}.{name}.weight"));
    Ok(Layer {
        attention_norm: weight("input_layernorm")?,
        query: weight("self_attn.q_proj")?,
        key: weight("self_attn.k_proj")?,
        value: weight("self_attn.v_proj")?,
        attention_output: weight("self_attn.o_proj")?,
        feed_forward_norm: weight("post_attention_layernorm")?,
        gate: weight("mlp.gate_proj")?,
        up: weight("mlp.up_proj")?,
        down: weight("mlp.down_proj")?,
    })
}

/// Cosine and sine of `position · theta^(−2i / head_dim)`, each column twice, computed in f64 once.
fn rotary_tables(config: &LlamaConfig, sequence_len: usize, device: Device) -> Result<(Tensor, Tensor), GpuError> {
    let width = config.head_dim;
    let frequencies: Vec<f64> = (0..width / 2).map(|pair| config.rope_theta.powf(-2.0 * pair as f64 / width as f64)).collect();
    let frequencies = Tensor::f_from_slice(&frequencies)?;
    let positions = Tensor::f_arange(sequence_len as i64, (Kind::Double, Device::Cpu))?;
    let angles = positions.f_outer(&frequencies)?;
    let angles = Tensor::f_cat(&[&angles, &angles], -1)?;
    let table = |values: Tensor| values.f_to_kind(Kind::Float)?.f_to_device(device);
    Ok((table(angles.f_cos()?)?, table(angles.f_sin()?)?))
}
