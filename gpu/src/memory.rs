//! How much memory a rank needs, before it asks for any: what it holds all the time, and what a micro-batch adds.
//!
//! The formula stands in docs/OPERATORS.md, term by term as here. What is held all the time is exact: it follows from the
//! division of the model over the ranks. What a micro-batch adds is a bound that is met within a few parts in a hundred
//! where one kind of tensor dominates: it counts what the graph keeps for the backward pass, and the temporaries beside
//! it at the two places where most is alive, the loss and the backward pass of one layer. Tests compare both with what
//! libtorch allocates.

use std::fmt;

use serde::Serialize;

use crate::GpuError;
use crate::config::LlamaConfig;
use crate::layout::NodeLayout;
use crate::mesh::Topology;
use crate::optimizer::OptimizerConfig;
use crate::precision::Precision;
use crate::worker::SAMPLES_MAX;

mod fit;
#[cfg(test)]
mod tests;

pub use fit::{check_fit, largest_micro_batch};

/// Bytes of an f32.
const F32: u64 = 4;
/// Bytes of a coefficient that was sent: its value, and its index inside its chunk.
const COEFFICIENT: u64 = 8;

/// What decides how much memory the ranks of a node need.
#[derive(Debug, Clone, Copy)]
pub struct MemorySetup<'a> {
    /// The network.
    pub config: &'a LlamaConfig,
    /// The run's optimiser settings.
    pub optimizer: &'a OptimizerConfig,
    /// How the node's ranks divide the work.
    pub topology: Topology,
    /// Inputs of the longest sample.
    pub sequence_len: usize,
    /// Element type of the compute copies and activations.
    pub precision: Precision,
    /// Whether layers run again in the backward pass.
    pub checkpointing: bool,
    /// Whether the rank computes on the CPU. Those without instructions for bf16 sum a product of bf16 tensors up in f32, as
    /// large as the result, before they round it.
    pub on_cpu: bool,
}

impl MemorySetup<'_> {
    /// Bytes an element of a product takes on top of the result until it is rounded.
    fn sum(&self) -> u64 {
        if self.on_cpu && self.precision == Precision::Bf16 { F32 } else { 0 }
    }
}

/// What one rank needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RankMemory {
    /// The shard's weights as the model computes with them.
    pub compute_copies: u64,
    /// Cosines and sines of all positions.
    pub rotary_tables: u64,
    /// Sums of the shard's gradients in f32.
    pub gradient_sums: u64,
    /// The owned pieces of the weights in f32.
    pub master: u64,
    /// The owned pieces of the momentum in f32.
    pub momentum: u64,
    /// Looked-ahead weights before the backward pass, gradients after it: as large as the owned pieces.
    pub scratch: u64,
    /// Coefficients that were sent and are still in the momentum.
    pub sent: u64,
    /// Temporaries that do not grow with the micro-batch: the gradient of the largest parameter, from its product to its sum.
    pub temporaries: u64,
    /// Activations of one sample.
    pub per_sample: u64,
}

impl RankMemory {
    /// What every rank of a node needs, by rank.
    ///
    /// # Errors
    /// Devices that the model can't be split over, settings out of range.
    pub fn of(setup: &MemorySetup<'_>) -> Result<Vec<Self>, GpuError> {
        let layout = NodeLayout::new(setup.config, setup.optimizer.layout(setup.config)?, setup.topology)?;
        Ok((0..setup.topology.ranks()).map(|rank| of_rank(setup, &layout, rank)).collect())
    }

    /// What is held all the time.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.compute_copies + self.rotary_tables + self.gradient_sums + self.optimizer_state()
    }

    /// Of it, the optimiser's part, which the node's ranks share among them.
    #[must_use]
    pub fn optimizer_state(&self) -> u64 {
        self.master + self.momentum + self.scratch + self.sent
    }

    /// What a copy for a snapshot takes in the host's memory until it is written, whatever the device.
    #[must_use]
    pub fn snapshot_copy(&self) -> u64 {
        self.master + self.momentum + self.sent
    }

    /// What training with micro-batches of this size takes at most.
    #[must_use]
    pub fn training(&self, micro_batch_size: usize) -> u64 {
        let activations = self.per_sample.saturating_mul(micro_batch_size as u64);
        self.state().saturating_add(self.temporaries).saturating_add(activations)
    }

    /// The largest micro-batch that fits into `available` bytes; none if not even one sample does.
    #[must_use]
    pub fn largest_micro_batch(&self, available: u64) -> Option<usize> {
        let left = available.checked_sub(self.training(0))?;
        let samples = left.checked_div(self.per_sample).map_or(SAMPLES_MAX, |n| usize::try_from(n).unwrap_or(SAMPLES_MAX));
        Some(samples.min(SAMPLES_MAX)).filter(|&samples| samples > 0)
    }
}

impl fmt::Display for RankMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = crate::devices::gib;
        let (state, optimizer) = (gib(self.state()), gib(self.optimizer_state()));
        write!(f, "{state} all the time, {optimizer} of it the optimiser's, and {} a sample", gib(self.per_sample))
    }
}

fn of_rank(setup: &MemorySetup<'_>, layout: &NodeLayout, rank: usize) -> RankMemory {
    let element = setup.precision.bytes() as u64;
    let tensor_index = setup.topology.tensor_index(rank);
    let shard = |parameter| layout.shard_shape(parameter, tensor_index).iter().product::<i64>().unsigned_abs();
    let parameters = 0..layout.codec.parameters().len();
    let (held, largest) = parameters.map(shard).fold((0, 0), |(sum, largest), n| (sum + n, n.max(largest)));
    let pieces = layout.pieces(rank);
    let owned = F32 * pieces.iter().map(|piece| piece.at.len() as u64).sum::<u64>();
    let kept = |part: &crate::codec::Part| part.chunks().len() * layout.codec.parameters()[part.parameter()].k();
    RankMemory {
        compute_copies: element * held,
        rotary_tables: F32 * 2 * (setup.sequence_len * setup.config.head_dim) as u64,
        gradient_sums: F32 * held,
        master: owned,
        momentum: owned,
        scratch: owned,
        sent: COEFFICIENT * pieces.iter().map(|piece| kept(&piece.part) as u64).sum::<u64>(),
        temporaries: (element + setup.sum()) * largest,
        per_sample: setup.sequence_len as u64 * per_token(setup),
    }
}

/// Widths of one rank's activations, in elements per token.
struct Widths {
    hidden: u64,
    query: u64,
    key: u64,
    feed_forward: u64,
    vocabulary: u64,
    heads: u64,
}

impl Widths {
    fn of(config: &LlamaConfig, tensor_parallel: usize) -> Self {
        let split = |n: usize| (n / tensor_parallel) as u64;
        Self {
            hidden: config.hidden_size as u64,
            query: split(config.num_attention_heads * config.head_dim),
            key: split(config.num_key_value_heads * config.head_dim),
            feed_forward: split(config.intermediate_size),
            vocabulary: split(config.vocab_size),
            heads: split(config.num_attention_heads),
        }
    }
}

/// Bytes of activations per token at the place where most is alive.
fn per_token(setup: &MemorySetup<'_>) -> u64 {
    let (w, element) = (Widths::of(setup.config, setup.topology.tensor_parallel()), setup.precision.bytes() as u64);
    let layers = setup.config.num_hidden_layers as u64;
    let (alone, f32) = (setup.topology.tensor_parallel() == 1, setup.precision == Precision::F32);
    // Two norms keep their input and output; attention keeps query, output, key and value; the feed-forward layer gate, up
    // and what they make; attention and norms keep an f32 per head and per token each.
    let kept = 4 * w.hidden + 2 * w.query + 2 * w.key + 3 * w.feed_forward;
    let layer = element * kept + F32 * w.heads + 2 * F32;
    // The loss: logarithms of the logits, and the gradients of both in f32; where the vocabulary is split and the logits are
    // bf16, these too.
    let loss = if f32 || alone { 12 } else { 14 } * w.vocabulary + 2 * element * w.hidden;
    // The backward pass of a layer: gradients of its widest activations, and of the stream through it.
    let norm = if f32 { 8 } else { 5 } * w.hidden;
    let wide = (3 * w.feed_forward).max(2 * (w.query + w.key));
    // A product with its sum: the gradient of the stream, of the queries or of the feed-forward layer.
    let product = element + setup.sum();
    let stream = product * w.hidden + 2 * element * w.feed_forward;
    let products = stream.max(product * w.query).max((element + product) * w.feed_forward);
    let made = (element * wide).max(2 * element * w.feed_forward + norm).max(products);
    let backward = made + 2 * element * w.hidden + 3 * F32;
    // Tokens and labels, and where the vocabulary is split what is looked up in its slices.
    let tokens = if alone { 16 } else { 80 };
    if setup.checkpointing {
        // The input of every layer, and one layer at a time.
        tokens + element * (layers + 1) * w.hidden + loss.max(layer + backward)
    } else {
        tokens + layers * layer + loss.max(backward)
    }
}
