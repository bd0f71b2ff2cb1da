//! What a run trains: typed, with its two encodings.
//!
//! *Purpose*: the account stores the description as C unions ([`ModelRaw`]), instructions carry it in Borsh; both
//! decode into [`Model`]. In the raw layout a repository's optional part comes first (ABI section 1.2, trap 1),
//! and bytes that a variant does not use are garbage (trap 2).

mod borsh;
mod check;
mod raw;

pub use crate::layout::{Architecture, DataType, TokenSize};
pub use raw::{CheckpointRaw, DataLocationRaw, LrScheduleRaw, ModelRaw, OptimizerRaw};

use crate::layout::FixedString;
use crate::{F32Bits, F64Bits};

/// What a run trains. Only language models exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A language model.
    Llm(Llm),
}

impl Model {
    /// The language model's description.
    #[must_use]
    pub const fn llm(&self) -> &Llm {
        let Self::Llm(llm) = self;
        llm
    }
}

/// A language model: where it comes from, what it reads, how it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Llm {
    /// Tokens per sample.
    pub max_seq_len: u32,
    /// Steps over which the learning rate warms up after a pause.
    pub cold_start_warmup_steps: u32,
    /// Model family.
    pub architecture: Architecture,
    /// Where its weights are.
    pub checkpoint: Checkpoint,
    /// What the data is for.
    pub data_type: DataType,
    /// Where the data is.
    pub data_location: DataLocation,
    /// Learning rate by step.
    pub lr_schedule: LrSchedule,
    /// Optimiser.
    pub optimizer: Optimizer,
}

/// Where weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nowhere.
    Ephemeral,
    /// Pretended weights.
    Dummy(HubRepo),
    /// A model hub.
    Hub(HubRepo),
    /// The run's members; the hub repository is what to fall back to.
    P2P(HubRepo),
    /// A storage bucket.
    Gcs(GcsRepo),
    /// The run's members; the bucket is what to fall back to.
    P2PGcs(GcsRepo),
}

/// A repository on a model hub, or a folder on disk where it exists and no revision is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubRepo {
    /// `owner/name`, or a path.
    pub repo_id: FixedString<64>,
    /// Branch, tag or commit.
    pub revision: Option<FixedString<64>>,
}

/// A folder in a storage bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcsRepo {
    /// Bucket name.
    pub bucket: FixedString<64>,
    /// Folder within it.
    pub prefix: Option<FixedString<64>>,
}

/// Where training data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLocation {
    /// Pretended data.
    Dummy,
    /// A data server, `host:port`.
    Server(FixedString<64>),
    /// A folder on every node.
    Local(FixedString<192>),
    /// Token files over HTTP.
    Http(HttpLocation),
    /// The URL of a JSON list of locations with weights.
    WeightedHttp(FixedString<192>),
    /// A folder or repository of ready-made samples.
    Preprocessed(FixedString<192>),
}

/// Token files over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLocation {
    /// Which files.
    pub source: HttpSource,
    /// Bytes per token.
    pub token_size: TokenSize,
    /// Order of the samples.
    pub shuffle: Shuffle,
}

/// Which files, over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpSource {
    /// One file.
    SingleUrl(FixedString<192>),
    /// Numbered files.
    NumberedFiles {
        /// URL with `{}` where the number goes.
        url_template: FixedString<64>,
        /// First number.
        start_index: u32,
        /// Digits that a number has at least.
        n_left_pad_zeros: u8,
        /// How many files.
        num_files: u32,
    },
    /// Files of a bucket.
    Gcp {
        /// Bucket name.
        bucket_name: FixedString<64>,
        /// Folder; empty for all.
        filter_directory: FixedString<192>,
    },
}

/// Order of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// As they lie.
    DontShuffle,
    /// Shuffled from this seed.
    Seeded([u8; 32]),
}

/// Learning rate by step. All begin with a linear warm-up from `warmup_init_lr` to `base_lr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LrSchedule {
    /// Stays at the base rate.
    Constant {
        /// Base rate.
        base_lr: F64Bits,
        /// Rate at step 0 of the warm-up.
        warmup_init_lr: F64Bits,
        /// Length of the warm-up.
        warmup_steps: u32,
    },
    /// Falls in a straight line.
    Linear(DecayLr),
    /// Falls along half a cosine.
    Cosine(DecayLr),
    /// Stays, then falls along a cosine, then in a straight line.
    WarmupStableDecay {
        /// Base rate.
        base_lr: F64Bits,
        /// Rate at step 0 of the warm-up.
        warmup_init_lr: F64Bits,
        /// Rate after the cosine part.
        cosine_decay_final_lr: F64Bits,
        /// Rate after the linear part.
        linear_decay_final_lr: F64Bits,
        /// Length of the warm-up.
        warmup_steps: u32,
        /// Steps at the base rate.
        stable_steps: u32,
        /// Steps along the cosine.
        cosine_decay_steps: u32,
        /// Steps in a straight line.
        linear_decay_steps: u32,
    },
}

impl LrSchedule {
    /// Length of the warm-up.
    #[must_use]
    pub const fn warmup_steps(&self) -> u32 {
        match self {
            Self::Constant { warmup_steps, .. } | Self::WarmupStableDecay { warmup_steps, .. } => *warmup_steps,
            Self::Linear(decay) | Self::Cosine(decay) => decay.warmup_steps,
        }
    }
}

/// A rate that falls from `base_lr` to `final_lr` until `total_steps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecayLr {
    /// Base rate.
    pub base_lr: F64Bits,
    /// Rate at step 0 of the warm-up.
    pub warmup_init_lr: F64Bits,
    /// Rate at the end.
    pub final_lr: F64Bits,
    /// Length of the warm-up.
    pub warmup_steps: u32,
    /// Step at which the final rate is reached.
    pub total_steps: u32,
}

/// Optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// None; not accepted for a run.
    Dummy,
    /// AdamW.
    AdamW {
        /// Decay of the two moments.
        betas: [F32Bits; 2],
        /// Weight decay.
        weight_decay: F32Bits,
        /// Added to the denominator.
        eps: F32Bits,
        /// Longest gradient.
        clip_grad_norm: Option<F32Bits>,
    },
    /// DisTrO: momentum whose strongest frequencies are exchanged.
    Distro {
        /// Longest gradient.
        clip_grad_norm: Option<F32Bits>,
        /// Weight decay.
        weight_decay: Option<F32Bits>,
        /// Decay of the momentum.
        compression_decay: F32Bits,
        /// Coefficients kept per chunk.
        compression_topk: u16,
        /// Side of a chunk.
        compression_chunk: u16,
        /// Whether only signs are sent.
        quantize_1bit: bool,
    },
}
