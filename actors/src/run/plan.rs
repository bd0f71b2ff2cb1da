//! What a run's account says about training, in the terms of the crates that do it.

use std::path::{Path, PathBuf};

use psyche_data::TokenConfig;
use psyche_gpu::codec;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::exact::{ColdStart, LrSchedule};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_messages::Step;
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::model::{self as protocol, Checkpoint, DataLocation, Optimizer, Shuffle, TokenSize};
use thiserror::Error;

use crate::engine::StepSchedule;

/// What describes a model's network, in its folder.
const CONFIG_FILE: &str = "config.json";

/// Why this node can't train what the run trains.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The account's model can't be decoded.
    #[error("read the run's model: its description on chain is malformed")]
    Malformed,
    /// The run asks for something that this version does not do.
    #[error("train this run: {what} is not supported by this version")]
    Unsupported {
        /// What it asks for.
        what: String,
    },
    /// The model's folder or its configuration can't be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The checkpoint that the run names is not on this machine.
    #[error(
        "find the run's checkpoint {repo_id:?}: {} is no folder with a config.json; put the model there, or set MODELS_DIR",
        path.display()
    )]
    NoCheckpoint {
        /// As the run names it.
        repo_id: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The model's configuration can't be used.
    #[error(transparent)]
    Config(#[from] psyche_gpu::config::ConfigError),
    /// The optimiser's configuration does not fit the model.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// The learning rate schedule makes no sense.
    #[error(transparent)]
    Schedule(#[from] psyche_gpu::exact::LrScheduleError),
}

/// DisTrO's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distro {
    /// Longest gradient, if it is limited.
    pub clip_grad_norm: Option<f32>,
    /// Weight decay, if there is one.
    pub weight_decay: Option<f32>,
    /// Decay of the momentum.
    pub compression_decay: f32,
    /// Coefficients kept per chunk.
    pub topk: u16,
    /// Side of a chunk.
    pub chunk: u16,
    /// Whether only signs are sent.
    pub quantize_1bit: bool,
}

/// Everything that training needs to know of the run.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Folder of the checkpoint that the run names: config.json and, unless the weights come from peers, the weights. A node
    /// with a snapshot of its own does without it.
    pub checkpoint: PathBuf,
    /// The network.
    pub model: LlamaConfig,
    /// The payload's layout.
    pub layout: codec::Layout,
    /// The optimiser.
    pub distro: Distro,
    /// Tokens per sample.
    pub seq_len: usize,
    /// Where the tokens are.
    pub data: PathBuf,
    /// Bytes of a token, where the run says it; otherwise the vocabulary does.
    pub token_size: Option<TokenSize>,
    /// Order of the samples.
    pub shuffle: Shuffle,
    pub(super) schedule: LrSchedule,
}

impl RunPlan {
    /// Reads what `account` says. Relative checkpoints are looked up in `models_dir`; `data_path` replaces the run's
    /// data location. What the run names may change while it trains: if that is not on this machine, the network is that of
    /// the snapshot in the folder `own`, if there is one.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn of(
        account: &CoordinatorAccount,
        models_dir: &Path,
        data_path: Option<&Path>,
        own: impl FnOnce() -> Option<PathBuf>,
    ) -> Result<Self, PlanError> {
        let model = account.state.coordinator.model.get().map_err(|_| PlanError::Malformed)?;
        let llm = model.llm();
        let distro = distro(&llm.optimizer)?;
        let repo_id = checkpoint(&llm.checkpoint)?;
        // `join` keeps an absolute path as it is.
        let checkpoint = models_dir.join(repo_id);
        let described_in = if checkpoint.join(CONFIG_FILE).is_file() { Some(checkpoint.clone()) } else { own() };
        let Some(described_in) = described_in else {
            return Err(PlanError::NoCheckpoint { repo_id: repo_id.to_owned(), path: checkpoint });
        };
        let config_path = described_in.join(CONFIG_FILE);
        let json = std::fs::read(&config_path).map_err(|source| PlanError::Read { path: config_path, source })?;
        let config = LlamaConfig::from_json(&json)?;
        let layout = codec::Layout::new(
            &config.parameters(),
            usize::from(distro.chunk),
            usize::from(distro.topk),
            distro.quantize_1bit,
        )?;
        let (data, token_size, shuffle) = data(&llm.data_location, data_path)?;
        let schedule = schedule(&llm.lr_schedule);
        schedule.validate()?;
        let seq_len = usize::try_from(llm.max_seq_len).unwrap_or(usize::MAX);
        Ok(Self { checkpoint, model: config, layout, distro, seq_len, data, token_size, shuffle, schedule })
    }

    /// Where the samples come from.
    #[must_use]
    pub fn token_source(&self) -> TokenConfig {
        let vocab_size = u32::try_from(self.model.vocab_size).unwrap_or(u32::MAX);
        // A run that does not say how wide tokens are uses the smaller width that holds them all.
        let narrow = if vocab_size <= 1 << 16 { TokenSize::TwoBytes } else { TokenSize::FourBytes };
        TokenConfig {
            path: self.data.clone(),
            token_size: self.token_size.unwrap_or(narrow),
            seq_len: u32::try_from(self.seq_len).unwrap_or(u32::MAX),
            vocab_size,
            shuffle: self.shuffle,
        }
    }

    /// The optimiser's settings, as devices take them.
    #[must_use]
    pub fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig {
            compression_chunk: usize::from(self.distro.chunk),
            compression_topk: usize::from(self.distro.topk),
            compression_decay: self.distro.compression_decay,
            quantize_1bit: self.distro.quantize_1bit,
            clip_grad_norm: self.distro.clip_grad_norm,
        }
    }

    /// The learning rate of `step`.
    #[must_use]
    pub fn rate(&self, step: Step, schedule: &StepSchedule) -> f32 {
        let cold = schedule.cold_start.map(|(from, to)| ColdStart { start_step: from.0, steps: to.since(from) });
        self.schedule.rate(step.0, cold)
    }
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Unsupported { what: what.into() })
}

fn distro(optimizer: &Optimizer) -> Result<Distro, PlanError> {
    match optimizer {
        Optimizer::Distro {
            clip_grad_norm,
            weight_decay,
            compression_decay,
            compression_topk,
            compression_chunk,
            quantize_1bit,
        } => Ok(Distro {
            clip_grad_norm: clip_grad_norm.map(|bits| f32::from_bits(bits.0)),
            weight_decay: weight_decay.map(|bits| f32::from_bits(bits.0)).filter(|decay| *decay != 0.0),
            compression_decay: f32::from_bits(compression_decay.0),
            topk: *compression_topk,
            chunk: *compression_chunk,
            quantize_1bit: *quantize_1bit,
        }),
        Optimizer::AdamW { .. } => unsupported("the AdamW optimiser, under which replicas would drift apart,"),
        Optimizer::Dummy => unsupported("the dummy optimiser"),
    }
}

fn checkpoint(checkpoint: &Checkpoint) -> Result<&str, PlanError> {
    let repo = match checkpoint {
        Checkpoint::Hub(repo) | Checkpoint::P2P(repo) => repo,
        Checkpoint::Gcs(_) | Checkpoint::P2PGcs(_) => return unsupported("a checkpoint in a storage bucket"),
        Checkpoint::Ephemeral | Checkpoint::Dummy(_) => return unsupported("a run without a checkpoint"),
    };
    if repo.revision.is_some() {
        return unsupported("a checkpoint with a revision on a model hub");
    }
    Ok(repo.repo_id.as_str())
}

/// Path, bytes of a token, order.
type DataPlace = (PathBuf, Option<TokenSize>, Shuffle);

fn data(location: &DataLocation, data_path: Option<&Path>) -> Result<DataPlace, PlanError> {
    let path = match (location, data_path) {
        (DataLocation::Local(_) | DataLocation::Http(_), Some(path)) => path.to_owned(),
        (DataLocation::Local(path), None) => PathBuf::from(path.as_str()),
        (DataLocation::Http(_), None) => return unsupported("data over HTTP (set DATA_PATH to a local copy)"),
        (DataLocation::Server(_), _) => return unsupported("a data server"),
        (DataLocation::WeightedHttp(_), _) => return unsupported("weighted data over HTTP"),
        (DataLocation::Preprocessed(_), _) => return unsupported("preprocessed data"),
        (DataLocation::Dummy, _) => return unsupported("dummy data"),
    };
    Ok(match location {
        DataLocation::Http(http) => (path, Some(http.token_size), http.shuffle),
        _ => (path, None, Shuffle::DontShuffle),
    })
}

fn schedule(schedule: &protocol::LrSchedule) -> LrSchedule {
    let f = |bits: psyche_protocol::F64Bits| f64::from_bits(bits.0);
    match *schedule {
        protocol::LrSchedule::Constant { base_lr, warmup_init_lr, warmup_steps } => {
            LrSchedule::Constant { base: f(base_lr), warmup_init: f(warmup_init_lr), warmup_steps }
        }
        protocol::LrSchedule::Linear(decay) => LrSchedule::Linear {
            base: f(decay.base_lr),
            warmup_init: f(decay.warmup_init_lr),
            final_rate: f(decay.final_lr),
            warmup_steps: decay.warmup_steps,
            total_steps: decay.total_steps,
        },
        protocol::LrSchedule::Cosine(decay) => LrSchedule::Cosine {
            base: f(decay.base_lr),
            warmup_init: f(decay.warmup_init_lr),
            final_rate: f(decay.final_lr),
            warmup_steps: decay.warmup_steps,
            total_steps: decay.total_steps,
        },
        protocol::LrSchedule::WarmupStableDecay {
            base_lr,
            warmup_init_lr,
            cosine_decay_final_lr,
            linear_decay_final_lr,
            warmup_steps,
            stable_steps,
            cosine_decay_steps,
            linear_decay_steps,
        } => LrSchedule::WarmupStableDecay {
            base: f(base_lr),
            warmup_init: f(warmup_init_lr),
            cosine_final: f(cosine_decay_final_lr),
            linear_final: f(linear_decay_final_lr),
            warmup_steps,
            stable_steps,
            cosine_steps: cosine_decay_steps,
            linear_steps: linear_decay_steps,
        },
    }
}
