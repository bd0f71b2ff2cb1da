//! The models that are measured, and what a contestant is told about its job.

use std::path::{Path, PathBuf};

use psyche_gpu::init::init_model;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::BenchError;

/// Learning rate of all contestants.
pub(crate) const LEARNING_RATE: f32 = 4e-4;
const SEED: u64 = 1;

/// A model and the batch that it is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// For trying the benchmark itself.
    Tiny,
    /// 5.3 M parameters, a step of 2,048 tokens: about a second on one core.
    Small,
    /// The shape of Llama-3.2-1B, with plain rotary embeddings, which cost the same.
    Billion,
}

impl Size {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self::Tiny),
            "small" => Some(Self::Small),
            "1b" => Some(Self::Billion),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Billion => "1b",
        }
    }

    /// Inputs of a sample, samples of a step, samples of a forward pass.
    pub(crate) fn batch(self) -> (usize, usize, usize) {
        match self {
            Self::Tiny => (32, 4, 2),
            Self::Small => (256, 8, 8),
            Self::Billion => (2048, 8, 2),
        }
    }

    pub(crate) fn tokens(self) -> usize {
        let (sequence, samples, _) = self.batch();
        sequence * samples
    }

    /// The model's `config.json`.
    pub(crate) fn config(self) -> Value {
        let (hidden, inner, layers, heads, groups, vocabulary) = match self {
            Self::Tiny => (32, 96, 2, 4, 2, 256),
            Self::Small => (256, 688, 4, 4, 4, 4096),
            Self::Billion => (2048, 8192, 16, 32, 8, 128_256),
        };
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": groups, "vocab_size": vocabulary, "max_position_embeddings": self.batch().0,
            "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": self == Self::Billion,
        })
    }

    /// Operations of one token's forward and backward passes: two for each weight of a matrix product, the head
    /// included, and four for each of the inputs that a token attends to (half of the sequence, on average), times three.
    pub(crate) fn flop_per_token(self) -> f64 {
        let config = self.config();
        let size = |name: &str| config[name].as_u64().unwrap_or_default() as f64;
        let (hidden, layers) = (size("hidden_size"), size("num_hidden_layers"));
        let groups = size("num_key_value_heads") / size("num_attention_heads");
        let attention = hidden * hidden * (2.0 + 2.0 * groups);
        let feed_forward = 3.0 * hidden * size("intermediate_size");
        let weights = layers * (attention + feed_forward) + hidden * size("vocab_size");
        let attended = layers * hidden * size("max_position_embeddings") / 2.0;
        3.0 * (2.0 * weights + 4.0 * attended)
    }

    /// Writes the model's initial weights to a folder of `work`, unless they are there.
    ///
    /// # Errors
    /// Files that can't be written.
    pub(crate) fn weights(self, work: &Path) -> Result<PathBuf, BenchError> {
        let folder = work.join(self.name());
        if !folder.join("config.json").exists() {
            init_model(&serde_json::to_vec(&self.config())?, SEED, &folder).map_err(BenchError::Init)?;
        }
        Ok(folder)
    }
}

/// What a contestant that trains is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) weights: PathBuf,
    /// As `--device` spells it for ours, as PyTorch does for peers; both know `cpu` and `cuda:0`.
    pub(crate) device: String,
    /// `f32` or `bf16`.
    pub(crate) precision: String,
    pub(crate) threads: usize,
    pub(crate) data_parallel: usize,
    pub(crate) tensor_parallel: usize,
    pub(crate) sequence: usize,
    pub(crate) samples: usize,
    pub(crate) micro_batch: usize,
    pub(crate) learning_rate: f32,
    /// For peers: the back end of `torch.compile`, if it is to be used.
    pub(crate) compile: Option<String>,
    /// For ours: AdamW in the place of DisTrO.
    pub(crate) adamw: bool,
}

impl Job {
    /// The job for one device.
    pub(crate) fn new(size: Size, weights: PathBuf, device: &str, precision: &str, threads: usize) -> Self {
        let (sequence, samples, micro_batch) = size.batch();
        Self {
            weights,
            device: device.to_owned(),
            precision: precision.to_owned(),
            threads,
            data_parallel: 1,
            tensor_parallel: 1,
            sequence,
            samples,
            micro_batch,
            learning_rate: LEARNING_RATE,
            compile: None,
            adamw: false,
        }
    }
}

/// What a contestant that reduces is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Reduction {
    pub(crate) ranks: usize,
    pub(crate) elements: usize,
    pub(crate) repeats: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_gpu::config::LlamaConfig;

    use super::*;

    #[test]
    fn every_size_is_a_model_that_the_node_takes() {
        for size in [Size::Tiny, Size::Small, Size::Billion] {
            let config = LlamaConfig::from_json(&serde_json::to_vec(&size.config()).unwrap()).unwrap();
            assert_eq!(Size::of(size.name()), Some(size));
            let (sequence, samples, micro_batch) = size.batch();
            assert_eq!(config.max_position_embeddings, sequence);
            assert_eq!(samples % micro_batch, 0, "all passes of {size:?} are of one size");
        }
    }

    #[test]
    fn a_token_costs_six_operations_a_weight_and_a_little_for_attention() {
        let config = LlamaConfig::from_json(&serde_json::to_vec(&Size::Billion.config()).unwrap()).unwrap();
        let parameters = config.parameters().iter().map(|parameter| parameter.len() as f64).sum::<f64>();
        assert!((1.23e9..1.24e9).contains(&parameters), "{parameters} parameters");
        let share = Size::Billion.flop_per_token() / (6.0 * parameters);
        assert!((1.0..1.1).contains(&share), "{share}");
    }
}
