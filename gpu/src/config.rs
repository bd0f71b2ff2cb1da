//! A LLaMA model's `config.json`: what the network may look like, checked before any tensor exists.
//!
//! The file comes from a checkpoint, hence from outside: every number is bounded, every field that would change the
//! arithmetic in a way this crate does not implement is refused by name, and all refusals are reported at once. Fields
//! that LLaMA itself ignores are ignored here too. This module is pure Rust: the codec sizes payloads from it on
//! machines without libtorch.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use rope::{Llama3, Rope, Yarn};

mod rope;
#[cfg(test)]
mod tests;

/// Largest `config.json` that is parsed, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Upper bound of each dimension of a tensor (vocabulary, hidden, intermediate).
pub const DIMENSION_MAX: usize = 1 << 24;
/// Upper bound of `num_hidden_layers`.
pub const LAYERS_MAX: usize = 1 << 10;
/// Upper bound of the number of parameters of a whole model.
pub const PARAMETERS_MAX: u64 = 1 << 42;

/// One tensor of a model: its Hugging Face name and its unsharded shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Unsharded shape, outermost dimension first; one or two dimensions for LLaMA.
    pub shape: Vec<usize>,
}

impl ParameterSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element; never true for a validated configuration.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One field of `config.json` that this crate refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigViolation {
    /// The field's name as the file spells it, `outer.inner` inside an object.
    pub field: Cow<'static, str>,
    /// What it holds and what would be accepted.
    pub problem: String,
}

impl fmt::Display for ConfigViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a required field is missing or of another type.
    #[error("parse the model's config.json")]
    Parse(#[from] serde_json::Error),
    /// The file is larger than [`CONFIG_BYTES_MAX`].
    #[error("accept a config.json of {bytes} bytes: the limit is {CONFIG_BYTES_MAX}")]
    TooLarge {
        /// Size found.
        bytes: usize,
    },
    /// Values that this crate does not support; all of them.
    #[error("use the model's config.json: {}", list(.violations))]
    Unsupported {
        /// Every refused field.
        violations: Vec<ConfigViolation>,
    },
}

fn list(violations: &[ConfigViolation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The file as Hugging Face writes it, with that library's defaults for absent fields.
#[derive(Debug, Deserialize)]
struct RawConfig {
    architectures: Option<Vec<String>>,
    auto_map: Option<serde_json::Value>,
    model_type: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    original_max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    attention_dropout: Option<f64>,
    pretraining_tp: Option<u64>,
    partial_rotary_factor: Option<f64>,
    rope_interleaved: Option<bool>,
    sliding_window: Option<u64>,
    quantization_config: Option<serde_json::Value>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    bos_token_id: Option<serde_json::Value>,
    eos_token_id: Option<serde_json::Value>,
}

/// A validated LLaMA configuration.
///
/// Serialises to a `config.json` that Hugging Face loads and that [`LlamaConfig::from_json`] accepts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LlamaConfig {
    architectures: [&'static str; 1],
    model_type: &'static str,
    hidden_act: &'static str,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even, because RoPE rotates pairs.
    pub head_dim: usize,
    /// Number of tokens of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Kind of the rotary embedding.
    #[serde(rename = "rope_scaling", skip_serializing_if = "Rope::is_default")]
    pub rope: Rope,
    /// Whether the head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Element type that the checkpoint declares; weights are converted to f32 on loading.
    pub torch_dtype: String,
    /// Carried through unchanged for inference tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token_id: Option<serde_json::Value>,
    /// Carried through unchanged for inference tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    eos_token_id: Option<serde_json::Value>,
}

/// Collects violations so that a file's author sees all of them.
#[derive(Default)]
struct Violations(Vec<ConfigViolation>);

impl Violations {
    fn check(&mut self, holds: bool, field: impl Into<Cow<'static, str>>, problem: impl FnOnce() -> String) {
        if !holds {
            self.0.push(ConfigViolation { field: field.into(), problem: problem() });
        }
    }

    fn dimension(&mut self, field: &'static str, value: usize, max: usize) {
        self.check((1..=max).contains(&value), field, || format!("{value} is not in 1..={max}"));
    }

    fn absent_or<T: PartialEq + fmt::Debug>(&mut self, field: &'static str, value: &Option<T>, accepted: T) {
        if let Some(found) = value {
            self.check(*found == accepted, field, || format!("{found:?} is not supported, only {accepted:?}"));
        }
    }
}

impl LlamaConfig {
    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`]: not JSON, too large, or (all at once) every field that is out of bounds or unsupported.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { bytes: text.len() });
        }
        let raw: RawConfig = serde_json::from_slice(text)?;
        let mut violations = Violations::default();
        check_architecture(&raw, &mut violations);
        let max_position_embeddings = raw.max_position_embeddings.unwrap_or(2048);
        let (rope_theta, rope) = rope::read(&raw, max_position_embeddings, &mut violations);
        let config = Self {
            architectures: ["LlamaForCausalLM"],
            model_type: "llama",
            hidden_act: "silu",
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim.unwrap_or_else(|| raw.hidden_size.checked_div(raw.num_attention_heads).unwrap_or(0)),
            vocab_size: raw.vocab_size,
            max_position_embeddings,
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            torch_dtype: raw.torch_dtype.or(raw.dtype).unwrap_or_else(|| "float32".to_owned()),
            bos_token_id: raw.bos_token_id,
            eos_token_id: raw.eos_token_id,
        };
        check_sizes(&config, &mut violations);
        if violations.0.is_empty() { Ok(config) } else { Err(ConfigError::Unsupported { violations: violations.0 }) }
    }

    /// The same configuration for checkpoints that hold another element type (`float32`, `bfloat16`, `float16`).
    pub fn with_dtype(&self, dtype: &str) -> Self {
        Self { torch_dtype: dtype.to_owned(), ..self.clone() }
    }

    /// Every trainable tensor in canonical order: ascending by the bytes of its name.
    ///
    /// Payloads, digests and snapshots all use this order, which no layout of devices changes.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let (hidden, ff) = (self.hidden_size, self.intermediate_size);
        let (query, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut parameters = Vec::with_capacity(self.num_hidden_layers * 9 + 3);
        let mut add = |name: String, shape: &[usize]| parameters.push(ParameterSpec { name, shape: shape.to_vec() });
        add("model.embed_tokens.weight".into(), &[self.vocab_size, hidden]);
        add("model.norm.weight".into(), &[hidden]);
        if !self.tie_word_embeddings {
            add("lm_head.weight".into(), &[self.vocab_size, hidden]);
        }
        for layer in 0..self.num_hidden_layers {
            let prefix = format!("model.layers.{layer}");
            add(format!("{prefix}.input_layernorm.weight"), &[hidden]);
            add(format!("{prefix}.post_attention_layernorm.weight"), &[hidden]);
            add(format!("{prefix}.self_attn.q_proj.weight"), &[query, hidden]);
            add(format!("{prefix}.self_attn.k_proj.weight"), &[kv, hidden]);
            add(format!("{prefix}.self_attn.v_proj.weight"), &[kv, hidden]);
            add(format!("{prefix}.self_attn.o_proj.weight"), &[hidden, query]);
            add(format!("{prefix}.mlp.gate_proj.weight"), &[ff, hidden]);
            add(format!("{prefix}.mlp.up_proj.weight"), &[ff, hidden]);
            add(format!("{prefix}.mlp.down_proj.weight"), &[hidden, ff]);
        }
        parameters.sort_by(|a, b| a.name.cmp(&b.name));
        parameters
    }

    /// Number of trainable parameters of the whole model.
    pub fn parameter_count(&self) -> u64 {
        let [hidden, ff, vocab] = [self.hidden_size, self.intermediate_size, self.vocab_size].map(|n| n as u128);
        let heads = self.num_attention_heads as u128 + self.num_key_value_heads as u128;
        let layer = hidden * (2 * heads * self.head_dim as u128 + 3 * ff + 2);
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let total = layer * self.num_hidden_layers as u128 + tables * vocab * hidden + hidden;
        u64::try_from(total).unwrap_or(u64::MAX)
    }
}

fn check_architecture(raw: &RawConfig, violations: &mut Violations) {
    violations.absent_or("model_type", &raw.model_type, "llama".to_owned());
    violations.absent_or("hidden_act", &raw.hidden_act, "silu".to_owned());
    violations.absent_or("attention_bias", &raw.attention_bias, false);
    violations.absent_or("mlp_bias", &raw.mlp_bias, false);
    violations.absent_or("attention_dropout", &raw.attention_dropout, 0.0);
    violations.absent_or("pretraining_tp", &raw.pretraining_tp, 1);
    violations.absent_or("partial_rotary_factor", &raw.partial_rotary_factor, 1.0);
    violations.absent_or("rope_interleaved", &raw.rope_interleaved, false);
    if let Some(architectures) = &raw.architectures {
        let known = architectures.iter().any(|name| name == "LlamaForCausalLM");
        violations.check(known, "architectures", || format!("{architectures:?} does not hold \"LlamaForCausalLM\""));
    }
    for (field, present) in [
        ("auto_map", raw.auto_map.is_some()),
        ("sliding_window", raw.sliding_window.is_some()),
        ("quantization_config", raw.quantization_config.is_some()),
    ] {
        violations.check(!present, field, || "is not supported, only null".to_owned());
    }
    for (field, dtype) in [("torch_dtype", &raw.torch_dtype), ("dtype", &raw.dtype)] {
        if let Some(dtype) = dtype {
            let known = ["float32", "bfloat16", "float16"].contains(&dtype.as_str());
            violations.check(known, field, || format!("{dtype:?} is not float32, bfloat16 or float16"));
        }
    }
}

fn check_sizes(config: &LlamaConfig, violations: &mut Violations) {
    let c = config;
    violations.dimension("hidden_size", c.hidden_size, DIMENSION_MAX);
    violations.dimension("intermediate_size", c.intermediate_size, DIMENSION_MAX);
    violations.dimension("vocab_size", c.vocab_size, DIMENSION_MAX);
    violations.dimension("max_position_embeddings", c.max_position_embeddings, DIMENSION_MAX);
    violations.dimension("num_hidden_layers", c.num_hidden_layers, LAYERS_MAX);
    violations.dimension("num_attention_heads", c.num_attention_heads, c.hidden_size.max(1));
    violations.dimension("num_key_value_heads", c.num_key_value_heads, c.num_attention_heads.max(1));
    violations.dimension("head_dim", c.head_dim, 1 << 12);
    violations.check(c.head_dim.is_multiple_of(2), "head_dim", || format!("{} is odd", c.head_dim));
    // Also where head_dim is given: transformers refuses such a file.
    let divides = c.num_attention_heads != 0 && c.hidden_size.is_multiple_of(c.num_attention_heads);
    violations.check(divides, "hidden_size", || {
        format!("{} is not a multiple of the {} attention heads", c.hidden_size, c.num_attention_heads)
    });
    let divides = c.num_key_value_heads != 0 && c.num_attention_heads.is_multiple_of(c.num_key_value_heads);
    violations.check(divides, "num_key_value_heads", || {
        format!("{} does not divide the {} attention heads", c.num_key_value_heads, c.num_attention_heads)
    });
    let eps = c.rms_norm_eps;
    violations.check(eps.is_finite() && eps > 0.0, "rms_norm_eps", || format!("{eps} is not a finite number above 0"));
    if violations.0.is_empty() {
        let count = c.parameter_count();
        violations.check(count <= PARAMETERS_MAX, "num_hidden_layers", || {
            format!("the model would have {count} parameters, the limit is {PARAMETERS_MAX}")
        });
    }
}
