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
    /// The rules, below `[config]`.
    pub(crate) config: Config,
    /// What is trained, below `[model.LLM]`.
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
    /// Seconds that clients have to load the model at the beginning of an epoch; less than `epoch_time`.
    pub(crate) warmup_time: u64,
    /// Seconds at the end of an epoch, in which what was witnessed is applied and a checkpoint may be named; above 0.
    pub(crate) cooldown_time: u64,
    /// Seconds after which an epoch ends with the round that is being trained.
    pub(crate) epoch_time: u64,
    /// Seconds that a round lasts at most; it is over as soon as its witnesses have seen enough. Above 0, less than
    /// `epoch_time`.
    pub(crate) max_round_train_time: u64,
    /// Seconds that late witnesses of a round still have; above 0.
    pub(crate) round_witness_time: u64,
    /// Clients below which an epoch ends early; at least 1.
    pub(crate) min_clients: u16,
    /// Clients that an epoch begins with at least; from `min_clients` to 256.
    pub(crate) init_min_clients: u16,
    /// Witnesses of a round; 0 makes witnesses of all clients, up to 32. At most `min_clients`.
    pub(crate) witness_nodes: u16,
    /// Samples of a step at first; a run takes no more clients than that.
    pub(crate) global_batch_size_start: u16,
    /// Samples of a step after `global_batch_size_warmup_tokens`; not below the start.
    pub(crate) global_batch_size_end: u16,
    #[serde(default)]
    /// Tokens over which the batch grows; 0, the default, for a batch that stays.
    pub(crate) global_batch_size_warmup_tokens: u64,
    /// Steps after which the run is finished; above 0.
    pub(crate) total_steps: u32,
    /// Share of the clients that verify instead of training.
    pub(crate) verification_percent: u8,
    /// Seconds that an epoch's beginning is put off for further clients; above 0.
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
    /// What the checkpoint is; nodes train `HfLlama`.
    pub(crate) architecture: Architecture,
    /// What the data is.
    pub(crate) data_type: DataType,
    /// Tokens of a sample.
    pub(crate) max_seq_len: u32,
    #[serde(default)]
    /// Steps in which the rate rises anew after a pause; 0 by default.
    pub(crate) cold_start_warmup_steps: u32,
    /// Where the weights are: `Ephemeral`, or `Hub`, `Dummy`, `P2P` with a repository, or `Gcs`, `P2PGcs` with a bucket.
    pub(crate) checkpoint: Checkpoint,
    /// Where the data is: `Local` with a path, `Http` (below), or `Dummy`, `Server`, `WeightedHttp`, `Preprocessed`. Nodes
    /// that keep it elsewhere set `DATA_PATH`.
    pub(crate) data_location: DataLocation,
    /// How the learning rate goes: `Constant`, `Linear`, `Cosine` or `WarmupStableDecay`, with the fields below.
    pub(crate) lr_schedule: LrSchedule,
    /// How updates are made: `Distro` with the fields below; `AdamW` and `Dummy` can be written, but nodes don't train
    /// them.
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
    /// A folder below the nodes' `MODELS_DIR`, or a repository's name.
    pub(crate) repo_id: Text<64>,
    /// Its revision.
    pub(crate) revision: Option<Text<64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GcsRepo {
    /// The bucket's name.
    pub(crate) bucket: Text<64>,
    /// What names in the bucket begin with.
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
    /// `SingleUrl` with a URL, `NumberedFiles` or `Gcp`.
    pub(crate) location: HttpLocation,
    /// How wide the tokens are.
    pub(crate) token_size_in_bytes: TokenSize,
    /// `DontShuffle`, or `Seeded` with 32 bytes.
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
    /// The files' URL, with `{}` in the number's place.
    pub(crate) url_template: Text<64>,
    /// Number of the first file.
    pub(crate) start_index: u32,
    /// Digits that numbers are filled up to.
    pub(crate) n_left_pad_zeros: u8,
    /// How many files there are.
    pub(crate) num_files: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GcpFolder {
    /// The bucket's name.
    pub(crate) bucket_name: Text<64>,
    /// The folder in the bucket.
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
        /// Highest rate.
        base_lr: Finite,
        /// Steps in which it is reached.
        warmup_steps: u32,
        /// Rate of the first step.
        warmup_init_lr: Finite,
    },
    Linear {
        /// Highest rate.
        base_lr: Finite,
        /// Steps in which it is reached.
        warmup_steps: u32,
        /// Rate of the first step.
        warmup_init_lr: Finite,
        /// Steps after which the rate stays where it is.
        total_steps: u32,
        /// Rate then.
        final_lr: Finite,
    },
    Cosine {
        /// Highest rate.
        base_lr: Finite,
        /// Steps in which it is reached.
        warmup_steps: u32,
        /// Rate of the first step.
        warmup_init_lr: Finite,
        /// Steps after which the rate stays where it is.
        total_steps: u32,
        /// Rate then.
        final_lr: Finite,
    },
    WarmupStableDecay {
        /// Highest rate.
        base_lr: Finite,
        /// Steps in which it is reached.
        warmup_steps: u32,
        /// Rate of the first step.
        warmup_init_lr: Finite,
        /// Steps that the highest rate lasts.
        stable_steps: u32,
        /// Steps of the first decline, along a cosine.
        cosine_decay_steps: u32,
        /// Rate after it.
        cosine_decay_final_lr: Finite,
        /// Steps of the second decline, along a line.
        linear_decay_steps: u32,
        /// Rate after it.
        linear_decay_final_lr: Finite,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Optimizer {
    Dummy,
    AdamW {
        /// Decay of the two moments.
        betas: [Finite32; 2],
        /// Share of the weights that a step takes away, times the rate.
        weight_decay: Finite32,
        /// Smallest divisor.
        eps: Finite32,
        /// Largest norm of a gradient; unbounded without it.
        clip_grad_norm: Option<Finite32>,
    },
    Distro {
        /// Largest norm of a gradient; unbounded without it.
        clip_grad_norm: Option<Finite32>,
        /// Share of the weights that a step takes away, times the rate.
        weight_decay: Option<Finite32>,
        /// Share of the momentum that a step keeps.
        compression_decay: Finite32,
        /// Coefficients that are sent for each chunk.
        compression_topk: u16,
        /// Longest edge of a chunk, the square that is transformed at once: a chunk of 64 has 4,096 coefficients.
        compression_chunk: u16,
        /// Whether only the coefficients' signs are sent.
        quantize_1bit: bool,
    },
}
