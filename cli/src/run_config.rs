//! A run's TOML: `[config]` and `[model]` of the coordinator account, field by field.
//!
//! Unknown keys, missing keys, values out of range and texts that are too long are errors with line and column, as the
//! TOML reader reports them.

mod convert;
mod load;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Deserializer, de};

pub(crate) use load::load;
#[cfg(test)]
pub(crate) use tests::FULL as EXAMPLE;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    pub(crate) config: Config,
    pub(crate) model: Model,
}

/// A text of at most `N` bytes without NUL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > N {
            return Err(de::Error::custom(format!("the text has {} bytes; the account holds {N}", text.len())));
        }
        if text.contains('\0') {
            return Err(de::Error::custom("the text holds a NUL character"));
        }
        Ok(Self(text))
    }
}

/// A finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finite(pub(crate) f64);

impl<'de> Deserialize<'de> for Finite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number.is_finite() { Ok(Self(number)) } else { Err(de::Error::custom("the number is not finite")) }
    }
}

/// A finite number of half the precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finite32(pub(crate) f32);

impl<'de> Deserialize<'de> for Finite32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f32::deserialize(deserializer)?;
        if number.is_finite() { Ok(Self(number)) } else { Err(de::Error::custom("the number is not finite in 32 bits")) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) warmup_time: u64,
    pub(crate) cooldown_time: u64,
    pub(crate) epoch_time: u64,
    pub(crate) max_round_train_time: u64,
    pub(crate) round_witness_time: u64,
    pub(crate) min_clients: u16,
    pub(crate) init_min_clients: u16,
    pub(crate) witness_nodes: u16,
    pub(crate) global_batch_size_start: u16,
    pub(crate) global_batch_size_end: u16,
    #[serde(default)]
    pub(crate) global_batch_size_warmup_tokens: u64,
    pub(crate) total_steps: u32,
    pub(crate) verification_percent: u8,
    pub(crate) waiting_for_members_extra_time: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Model {
    #[serde(rename = "LLM")]
    Llm(Box<Llm>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Llm {
    pub(crate) architecture: Architecture,
    pub(crate) data_type: DataType,
    pub(crate) max_seq_len: u32,
    #[serde(default)]
    pub(crate) cold_start_warmup_steps: u32,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) data_location: DataLocation,
    pub(crate) lr_schedule: LrSchedule,
    pub(crate) optimizer: Optimizer,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Architecture {
    HfLlama,
    HfDeepseek,
    HfAuto,
    Torchtitan,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum DataType {
    Pretraining,
    Finetuning,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Checkpoint {
    Ephemeral,
    Dummy(HubRepo),
    Hub(HubRepo),
    P2P(HubRepo),
    Gcs(GcsRepo),
    P2PGcs(GcsRepo),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HubRepo {
    pub(crate) repo_id: Text<64>,
    pub(crate) revision: Option<Text<64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GcsRepo {
    pub(crate) bucket: Text<64>,
    pub(crate) prefix: Option<Text<64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum DataLocation {
    Dummy,
    Server(Text<64>),
    Local(Text<192>),
    Http(Http),
    WeightedHttp(Text<192>),
    Preprocessed(Text<192>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) location: HttpLocation,
    pub(crate) token_size_in_bytes: TokenSize,
    pub(crate) shuffle: Shuffle,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum HttpLocation {
    SingleUrl(Text<192>),
    NumberedFiles(NumberedFiles),
    Gcp(GcpFolder),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NumberedFiles {
    pub(crate) url_template: Text<64>,
    pub(crate) start_index: u32,
    pub(crate) n_left_pad_zeros: u8,
    pub(crate) num_files: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GcpFolder {
    pub(crate) bucket_name: Text<64>,
    pub(crate) filter_directory: Text<192>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum TokenSize {
    TwoBytes,
    FourBytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Shuffle {
    DontShuffle,
    Seeded([u8; 32]),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum LrSchedule {
    Constant {
        base_lr: Finite,
        warmup_steps: u32,
        warmup_init_lr: Finite,
    },
    Linear {
        base_lr: Finite,
        warmup_steps: u32,
        warmup_init_lr: Finite,
        total_steps: u32,
        final_lr: Finite,
    },
    Cosine {
        base_lr: Finite,
        warmup_steps: u32,
        warmup_init_lr: Finite,
        total_steps: u32,
        final_lr: Finite,
    },
    WarmupStableDecay {
        base_lr: Finite,
        warmup_steps: u32,
        warmup_init_lr: Finite,
        stable_steps: u32,
        cosine_decay_steps: u32,
        cosine_decay_final_lr: Finite,
        linear_decay_steps: u32,
        linear_decay_final_lr: Finite,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Optimizer {
    Dummy,
    AdamW {
        betas: [Finite32; 2],
        weight_decay: Finite32,
        eps: Finite32,
        clip_grad_norm: Option<Finite32>,
    },
    Distro {
        clip_grad_norm: Option<Finite32>,
        weight_decay: Option<Finite32>,
        compression_decay: Finite32,
        compression_topk: u16,
        compression_chunk: u16,
        quantize_1bit: bool,
    },
}
