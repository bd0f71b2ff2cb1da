//! Text from a trained model, token by token: for looking at what it has learned, not for serving it.
//!
//! Each token takes a whole forward pass over the tokens before it, on the CPU: nothing is cached, so that the model's own
//! forward pass, the one that trains, says what comes next.

use std::path::Path;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::{Device, Kind, Tensor};

use crate::GpuError;
use crate::codec::Layout;
use crate::config::{CONFIG_BYTES_MAX, LlamaConfig};
use crate::layout::NodeLayout;
use crate::mesh::{Group, Topology, mesh};
use crate::model::{Llama, ModelOptions};
use crate::precision::Precision;
use crate::shim::Region;
use crate::weights::{MODEL_FILES, WeightFiles};

#[cfg(test)]
mod tests;

/// Tokens that a forward pass sees at most, whatever the model allows.
const CONTEXT_MAX: usize = 4096;
/// A mesh of one rank waits for nobody.
const NOBODY_TO_WAIT_FOR: Duration = Duration::from_secs(60);
/// Any layout of payloads serves a model that makes none.
const CHUNK: usize = 64;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token, always.
    pub temperature: f32,
    /// Only so many of the likeliest tokens are drawn from; none: from all.
    pub top_k: Option<usize>,
    /// The same seed draws the same tokens from the same logits.
    pub seed: u64,
}

/// A model on the CPU that says which token comes next.
pub struct Generator {
    model: Llama,
    config: LlamaConfig,
    context: usize,
}

impl Generator {
    /// Loads the model in `folder`: a `config.json` and its weights as safetensors, as snapshots and checkpoints have them.
    ///
    /// # Errors
    /// Files that are missing, malformed, or don't fit each other.
    pub fn open(folder: &Path) -> Result<Self, GpuError> {
        let path = folder.join("config.json");
        let length = std::fs::metadata(&path).map_err(GpuError::io(&path))?.len();
        if length > CONFIG_BYTES_MAX as u64 {
            let problem = format!("a configuration of {length} bytes, the limit is {CONFIG_BYTES_MAX}");
            return Err(GpuError::Weights { path, problem });
        }
        let config = LlamaConfig::from_json(&std::fs::read(&path).map_err(GpuError::io(&path))?)?;
        let files = WeightFiles::open(folder, MODEL_FILES)?;
        files.check(&config)?;
        let context = config.max_position_embeddings.min(CONTEXT_MAX);
        let model = empty(&config, context)?;
        for (spec, parameter) in config.parameters().iter().zip(model.parameters()) {
            let mut elements = vec![0.0; spec.len()];
            files.read_f32(&spec.name, 0, &mut elements)?;
            let weights = Tensor::f_from_slice(&elements)?.f_view(&*parameter.size())?;
            tch::no_grad(|| parameter.shallow_clone().f_copy_(&weights))?;
        }
        Ok(Self { model, config, context })
    }

    /// The network.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Logits of the token after `tokens`, one for each entry of the vocabulary; only the newest tokens count, as many as the
    /// model takes.
    ///
    /// # Errors
    /// No token, or one outside the vocabulary; libtorch's.
    pub fn next_logits(&self, tokens: &[u32]) -> Result<Vec<f32>, GpuError> {
        let refuse = |problem| Err(GpuError::Generate { problem });
        let seen = &tokens[tokens.len().saturating_sub(self.context)..];
        if seen.is_empty() {
            return refuse("there is no token to go on from".to_owned());
        }
        if let Some(token) = seen.iter().find(|token| **token as usize >= self.config.vocab_size) {
            return refuse(format!("token {token} is outside the model's vocabulary of {}", self.config.vocab_size));
        }
        let inputs: Vec<i64> = seen.iter().map(|&token| i64::from(token)).collect();
        let inputs = Tensor::f_from_slice(&inputs)?.f_view([1, inputs.len() as i64])?;
        let last = self.model.logits(&inputs)?.f_select(1, -1)?.f_view([-1])?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut logits = vec![0.0_f32; last.numel()];
        let count = logits.len();
        last.f_copy_data(&mut logits, count)?;
        match logits.iter().position(|logit| !logit.is_finite()) {
            Some(token) => refuse(format!("the model's logit of token {token} is not a finite number")),
            None => Ok(logits),
        }
    }

    /// `count` tokens that follow `prompt`, fewer if the token `end` comes: it is the last one then. `going` is asked before
    /// each token whether to go on.
    ///
    /// # Errors
    /// As [`Self::next_logits`]; a temperature that is no finite number from 0.
    pub fn generate(
        &self,
        prompt: &[u32],
        count: usize,
        sampling: Sampling,
        end: Option<u32>,
        going: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u32>, GpuError> {
        if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
            let problem = format!("temperature {} is no finite number from 0", sampling.temperature);
            return Err(GpuError::Generate { problem });
        }
        let mut dice = ChaCha8Rng::seed_from_u64(sampling.seed);
        let mut tokens = prompt.to_vec();
        while tokens.len() < prompt.len().saturating_add(count) && going() {
            let token = choose(&self.next_logits(&tokens)?, sampling, &mut dice);
            tokens.push(token);
            if Some(token) == end {
                break;
            }
        }
        Ok(tokens.split_off(prompt.len()))
    }
}

/// A model of zeros on one CPU device.
fn empty(config: &LlamaConfig, context: usize) -> Result<Llama, GpuError> {
    let topology = Topology::new(1, 1)?;
    let codec = Layout::new(&config.parameters(), CHUNK, 1, true)?;
    let layout = NodeLayout::new(config, codec, topology)?;
    let Some(rank) = mesh(topology, NOBODY_TO_WAIT_FOR).into_iter().next() else {
        return Err(GpuError::Layout { problem: "a mesh of one rank has none".to_owned() });
    };
    let region = Region::new(rank.connect(Group::Tensor, Device::Cpu)?);
    let options = ModelOptions { sequence_len: context, precision: Precision::F32, checkpointing: false };
    Llama::new(config, options, &layout, region, Device::Cpu)
}

/// The token that `sampling` draws from finite `logits`, of which there is at least one.
fn choose(logits: &[f32], sampling: Sampling, dice: &mut ChaCha8Rng) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // The likeliest first; of equal ones the lowest token.
    order.sort_unstable_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(sampling.top_k.unwrap_or(usize::MAX).max(1));
    let Some(&best) = order.first() else { return 0 };
    if sampling.temperature == 0.0 {
        return best as u32;
    }
    let weight = |&token: &usize| (f64::from(logits[token] - logits[best]) / f64::from(sampling.temperature)).exp();
    let total: f64 = order.iter().map(weight).sum();
    // 53 bits: every such number is an f64.
    let mut at = (dice.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * total;
    for token in &order {
        at -= weight(token);
        if at < 0.0 {
            return *token as u32;
        }
    }
    best as u32
}
