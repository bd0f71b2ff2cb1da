//! LLaMA over libtorch: grouped-query attention with rotary embeddings, RMSNorm, SwiGLU; one rank's shard of it.
//!
//! The same code runs alone and tensor-parallel. In a group each rank has a part of the heads, of the feed-forward
//! width and of the vocabulary; activations between the split layers are whole on every rank. Logits are never whole on
//! any rank: the loss is computed from each rank's slice of the vocabulary.
//!
//! Compute copies and activations are f32 or bf16 ([`Precision`]); the loss and the sums of the gradients are f32 in
//! any case. With activation checkpointing only the inputs of the layers outlive the forward pass; the backward pass
//! runs each layer again. All ranks of a group do so in the same order, as their collectives ask.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::GpuError;
use crate::config::LlamaConfig;
use crate::layout::NodeLayout;
use crate::precision::Precision;
use crate::shim::{self, GradientSum, Region};

mod forward;
mod rotary;
#[cfg(test)]
mod tests;

/// How a rank computes; none of it changes what is computed, up to rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelOptions {
    /// Longest input.
    pub(crate) sequence_len: usize,
    /// Element type of compute copies and activations.
    pub(crate) precision: Precision,
    /// Whether layers run again in the backward pass instead of keeping what they computed.
    pub(crate) checkpointing: bool,
}

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
    options: ModelOptions,
    region: Arc<Region>,
    device: Device,
    parameters: Vec<Tensor>,
    /// By parameter.
    sums: Vec<GradientSum>,
    /// Which parameter the embedding is.
    embedding: usize,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    rotary: rotary::Tables,
}

/// A micro-batch's loss, and what its backward pass needs beside the graph.
pub(crate) struct Loss {
    sum: Tensor,
    rows: Rows,
    /// With activation checkpointing, the input of each layer.
    inputs: Vec<Tensor>,
    /// Input of the last norm.
    top: Tensor,
}

/// Rows that were looked up in the embedding: a leaf of the graph, because their gradient is added where it belongs
/// without ever making one for the whole table.
struct Rows {
    /// `[batch, seq]` i64: places in this rank's slice of the vocabulary.
    places: Tensor,
    /// `[batch, seq, 1]`: 1 where the token is in that slice, 0 elsewhere; none if the slice is all.
    mine: Option<Tensor>,
    /// `[batch, seq, hidden]`.
    output: Tensor,
}

impl Loss {
    /// Sum of the cross entropies.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn value(&self) -> Result<f64, GpuError> {
        Ok(self.sum.f_double_value(&[])?)
    }
}

impl Llama {
    /// A model of zeros; the weights come from their owners.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub(crate) fn new(
        config: &LlamaConfig,
        options: ModelOptions,
        layout: &NodeLayout,
        region: Arc<Region>,
        device: Device,
    ) -> Result<Self, GpuError> {
        let index = region.collective().rank();
        let kind = options.precision.kind();
        let parameters = (0..layout.codec.parameters().len())
            .map(|parameter| {
                let zeros = Tensor::f_zeros(layout.shard_shape(parameter, index), (kind, device))?;
                Ok(zeros.f_set_requires_grad(true)?)
            })
            .collect::<Result<Vec<Tensor>, GpuError>>()?;
        let sums = parameters.iter().map(GradientSum::of).collect::<Result<_, _>>()?;
        let place = |name: &str| {
            let position = layout.codec.parameters().iter().position(|parameter| parameter.spec().name == name);
            position.ok_or_else(|| GpuError::Layout { problem: format!("the model has no parameter {name}") })
        };
        let named = |name: &str| Ok(parameters[place(name)?].shallow_clone());
        let embedding = place("model.embed_tokens.weight")?;
        let head = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let (head, norm) = (named(head)?, named("model.norm.weight")?);
        let layers = (0..config.num_hidden_layers).map(|number| layer(number, &named)).collect::<Result<_, _>>()?;
        let rotary = rotary::Tables::new(config, options.sequence_len, (kind, device))?;
        let config = config.clone();
        Ok(Self { config, options, region, device, parameters, sums, embedding, layers, norm, head, rotary })
    }

    /// The compute copies by parameter, in canonical order: this rank's shard of each, leaves of the graph.
    pub(crate) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Sums of the gradients by parameter since the last [`Llama::zero_gradients`], contiguous f32; none where no
    /// backward pass reached it.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn gradients(&self) -> Result<Vec<Option<Tensor>>, GpuError> {
        let contiguous = |sum: &GradientSum| Ok(sum.get()?.map(|sum| sum.f_contiguous()).transpose()?);
        self.sums.iter().map(contiguous).collect()
    }

    /// Forgets all gradients, and gives their memory back.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn zero_gradients(&self) -> Result<(), GpuError> {
        self.sums.iter().try_for_each(|sum| sum.set(None))
    }

    /// Sum of the cross entropies (natural logarithm) of all labels.
    ///
    /// # Shapes
    /// `inputs`, `labels`: `[batch, seq]` i64, each below the vocabulary size; the result's value is equal on all ranks
    /// of the group.
    ///
    /// # Errors
    /// libtorch's; a broken mesh.
    pub(crate) fn loss_sum(&self, inputs: &Tensor, labels: &Tensor) -> Result<Loss, GpuError> {
        self.loss_of(inputs, labels).map_err(|error| self.region.cause_of(error))
    }

    /// Logits of this rank's slice of the vocabulary after every input; for comparisons and for looking at a model.
    ///
    /// # Shapes
    /// `inputs`: `[batch, seq]` i64, each below the vocabulary size; the result: `[batch, seq, slice]` f32.
    ///
    /// # Errors
    /// libtorch's; a broken mesh.
    pub(crate) fn logits(&self, inputs: &Tensor) -> Result<Tensor, GpuError> {
        let logits = || {
            let mut hidden = self.look_up(inputs)?.output;
            for layer in &self.layers {
                hidden = self.layer(layer, &hidden)?;
            }
            Ok(self.project(&hidden)?.f_to_kind(Kind::Float)?)
        };
        tch::no_grad(logits).map_err(|error| self.region.cause_of(error))
    }

    /// Adds `scale` times the gradient of `loss` to the gradients. A loss serves once.
    ///
    /// # Errors
    /// libtorch's; a broken mesh.
    pub(crate) fn backward(&self, loss: &mut Loss, scale: f64) -> Result<(), GpuError> {
        self.propagate(loss, scale).map_err(|error| self.region.cause_of(error))
    }

    /// Waits until the device has done what it was told; without this, a rank that reads a loss could wait for ever for
    /// one that is gone.
    ///
    /// # Errors
    /// A broken mesh; an error that the device reports.
    pub(crate) fn settle(&self) -> Result<(), GpuError> {
        self.region.collective().settle()
    }

    /// The device of the compute copies.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    fn loss_of(&self, inputs: &Tensor, labels: &Tensor) -> Result<Loss, GpuError> {
        let rows = self.look_up(inputs)?;
        let mut hidden = rows.output.shallow_clone();
        let mut inputs = Vec::new();
        for layer in &self.layers {
            if self.options.checkpointing {
                let output = tch::no_grad(|| self.layer(layer, &hidden))?.f_set_requires_grad(true)?;
                inputs.push(std::mem::replace(&mut hidden, output));
            } else {
                hidden = self.layer(layer, &hidden)?;
            }
        }
        let sum = self.cross_entropy(&self.project(&hidden)?, labels)?;
        Ok(Loss { sum, rows, inputs, top: hidden })
    }

    fn propagate(&self, loss: &mut Loss, scale: f64) -> Result<(), GpuError> {
        loss.sum.f_mul_scalar(scale)?.f_backward()?;
        loss.sum = loss.sum.f_detach()?;
        for layer in self.layers.iter().rev() {
            let Some(input) = loss.inputs.pop() else { break };
            let output = self.layer(layer, &input)?;
            shim::backward(&output, &loss.top.f_grad()?)?;
            loss.top = input;
        }
        self.add_rows(&loss.rows)
    }

    /// Adds the gradient of looked-up rows to that of the embedding.
    fn add_rows(&self, rows: &Rows) -> Result<(), GpuError> {
        let mut gradient = rows.output.f_grad()?.f_to_kind(Kind::Float)?;
        if let Some(mine) = &rows.mine {
            gradient = gradient.f_mul(mine)?;
        }
        let gradient = gradient.f_view([-1, self.config.hidden_size as i64])?;
        let places = rows.places.f_reshape([-1])?;
        let sum = &self.sums[self.embedding];
        let mut whole = match sum.get()? {
            Some(sum) => sum,
            None => {
                let zeros = self.parameters[self.embedding].f_zeros_like()?.f_to_kind(Kind::Float)?;
                sum.set(Some(&zeros))?;
                zeros
            }
        };
        // Each the operation that adds equal places up in the same order every time.
        let added = match self.device {
            Device::Cpu => whole.f_index_add_(0, &places, &gradient),
            _ => whole.f_index_put_(&[Some(places)], &gradient, true),
        };
        added.map(drop).map_err(GpuError::from)
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
