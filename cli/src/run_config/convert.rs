//! From the TOML's types to the protocol's.

use psyche_protocol::layout::{self, FixedString};
use psyche_protocol::model as protocol;
use psyche_protocol::{F32Bits, F64Bits};

use super::{
    Architecture, Checkpoint, Config, DataLocation, DataType, Finite, Finite32, GcsRepo, Http, HttpLocation, HubRepo, Llm,
    LrSchedule, Model, Optimizer, Shuffle, Text, TokenSize,
};

impl From<&Config> for layout::Config {
    fn from(from: &Config) -> Self {
        Self {
            warmup_time: from.warmup_time,
            cooldown_time: from.cooldown_time,
            max_round_train_time: from.max_round_train_time,
            round_witness_time: from.round_witness_time,
            global_batch_size_warmup_tokens: from.global_batch_size_warmup_tokens,
            epoch_time: from.epoch_time,
            total_steps: from.total_steps,
            init_min_clients: from.init_min_clients,
            min_clients: from.min_clients,
            witness_nodes: from.witness_nodes,
            global_batch_size_start: from.global_batch_size_start,
            global_batch_size_end: from.global_batch_size_end,
            verification_percent: from.verification_percent,
            waiting_for_members_extra_time: from.waiting_for_members_extra_time,
        }
    }
}

impl From<&Model> for protocol::Model {
    fn from(Model::Llm(from): &Model) -> Self {
        Self::Llm(from.as_ref().into())
    }
}

impl From<&Llm> for protocol::Llm {
    fn from(from: &Llm) -> Self {
        Self {
            max_seq_len: from.max_seq_len,
            cold_start_warmup_steps: from.cold_start_warmup_steps,
            architecture: match from.architecture {
                Architecture::HfLlama => protocol::Architecture::HfLlama,
                Architecture::HfDeepseek => protocol::Architecture::HfDeepseek,
                Architecture::HfAuto => protocol::Architecture::HfAuto,
                Architecture::Torchtitan => protocol::Architecture::Torchtitan,
            },
            checkpoint: (&from.checkpoint).into(),
            data_type: match from.data_type {
                DataType::Pretraining => protocol::DataType::Pretraining,
                DataType::Finetuning => protocol::DataType::Finetuning,
            },
            data_location: (&from.data_location).into(),
            lr_schedule: (&from.lr_schedule).into(),
            optimizer: (&from.optimizer).into(),
        }
    }
}

impl From<&Checkpoint> for protocol::Checkpoint {
    fn from(from: &Checkpoint) -> Self {
        match from {
            Checkpoint::Ephemeral => Self::Ephemeral,
            Checkpoint::Dummy(repo) => Self::Dummy(repo.into()),
            Checkpoint::Hub(repo) => Self::Hub(repo.into()),
            Checkpoint::P2P(repo) => Self::P2P(repo.into()),
            Checkpoint::Gcs(repo) => Self::Gcs(repo.into()),
            Checkpoint::P2PGcs(repo) => Self::P2PGcs(repo.into()),
        }
    }
}

impl From<&HubRepo> for protocol::HubRepo {
    fn from(from: &HubRepo) -> Self {
        Self { repo_id: fixed(&from.repo_id), revision: from.revision.as_ref().map(fixed) }
    }
}

impl From<&GcsRepo> for protocol::GcsRepo {
    fn from(from: &GcsRepo) -> Self {
        Self { bucket: fixed(&from.bucket), prefix: from.prefix.as_ref().map(fixed) }
    }
}

impl From<&DataLocation> for protocol::DataLocation {
    fn from(from: &DataLocation) -> Self {
        match from {
            DataLocation::Dummy => Self::Dummy,
            DataLocation::Server(address) => Self::Server(fixed(address)),
            DataLocation::Local(path) => Self::Local(fixed(path)),
            DataLocation::Http(http) => Self::Http(http.into()),
            DataLocation::WeightedHttp(url) => Self::WeightedHttp(fixed(url)),
            DataLocation::Preprocessed(path) => Self::Preprocessed(fixed(path)),
        }
    }
}

impl From<&Http> for protocol::HttpLocation {
    fn from(from: &Http) -> Self {
        Self {
            source: match &from.location {
                HttpLocation::SingleUrl(url) => protocol::HttpSource::SingleUrl(fixed(url)),
                HttpLocation::NumberedFiles(files) => protocol::HttpSource::NumberedFiles {
                    url_template: fixed(&files.url_template),
                    start_index: files.start_index,
                    n_left_pad_zeros: files.n_left_pad_zeros,
                    num_files: files.num_files,
                },
                HttpLocation::Gcp(folder) => protocol::HttpSource::Gcp {
                    bucket_name: fixed(&folder.bucket_name),
                    filter_directory: fixed(&folder.filter_directory),
                },
            },
            token_size: match from.token_size_in_bytes {
                TokenSize::TwoBytes => protocol::TokenSize::TwoBytes,
                TokenSize::FourBytes => protocol::TokenSize::FourBytes,
            },
            shuffle: match from.shuffle {
                Shuffle::DontShuffle => protocol::Shuffle::DontShuffle,
                Shuffle::Seeded(seed) => protocol::Shuffle::Seeded(seed),
            },
        }
    }
}

impl From<&LrSchedule> for protocol::LrSchedule {
    fn from(from: &LrSchedule) -> Self {
        match *from {
            LrSchedule::Constant { base_lr, warmup_steps, warmup_init_lr } => {
                Self::Constant { base_lr: f64_bits(base_lr), warmup_init_lr: f64_bits(warmup_init_lr), warmup_steps }
            }
            LrSchedule::Linear { base_lr, warmup_steps, warmup_init_lr, total_steps, final_lr } => {
                Self::Linear(decay([base_lr, warmup_init_lr, final_lr], warmup_steps, total_steps))
            }
            LrSchedule::Cosine { base_lr, warmup_steps, warmup_init_lr, total_steps, final_lr } => {
                Self::Cosine(decay([base_lr, warmup_init_lr, final_lr], warmup_steps, total_steps))
            }
            LrSchedule::WarmupStableDecay {
                base_lr,
                warmup_steps,
                warmup_init_lr,
                stable_steps,
                cosine_decay_steps,
                cosine_decay_final_lr,
                linear_decay_steps,
                linear_decay_final_lr,
            } => Self::WarmupStableDecay {
                base_lr: f64_bits(base_lr),
                warmup_init_lr: f64_bits(warmup_init_lr),
                cosine_decay_final_lr: f64_bits(cosine_decay_final_lr),
                linear_decay_final_lr: f64_bits(linear_decay_final_lr),
                warmup_steps,
                stable_steps,
                cosine_decay_steps,
                linear_decay_steps,
            },
        }
    }
}

impl From<&Optimizer> for protocol::Optimizer {
    fn from(from: &Optimizer) -> Self {
        match *from {
            Optimizer::Dummy => Self::Dummy,
            Optimizer::AdamW { betas, weight_decay, eps, clip_grad_norm } => Self::AdamW {
                betas: betas.map(f32_bits),
                weight_decay: f32_bits(weight_decay),
                eps: f32_bits(eps),
                clip_grad_norm: clip_grad_norm.map(f32_bits),
            },
            Optimizer::Distro {
                clip_grad_norm,
                weight_decay,
                compression_decay,
                compression_topk,
                compression_chunk,
                quantize_1bit,
            } => Self::Distro {
                clip_grad_norm: clip_grad_norm.map(f32_bits),
                weight_decay: weight_decay.map(f32_bits),
                compression_decay: f32_bits(compression_decay),
                compression_topk,
                compression_chunk,
                quantize_1bit,
            },
        }
    }
}

fn decay([base_lr, warmup_init_lr, final_lr]: [Finite; 3], warmup_steps: u32, total_steps: u32) -> protocol::DecayLr {
    protocol::DecayLr {
        base_lr: f64_bits(base_lr),
        warmup_init_lr: f64_bits(warmup_init_lr),
        final_lr: f64_bits(final_lr),
        warmup_steps,
        total_steps,
    }
}

fn f64_bits(number: Finite) -> F64Bits {
    F64Bits(number.0.to_bits())
}

fn f32_bits(number: Finite32) -> F32Bits {
    F32Bits(number.0.to_bits())
}

/// Both hold at most `N` bytes, so nothing is lost; see [`Text`].
fn fixed<const N: usize>(text: &Text<N>) -> FixedString<N> {
    FixedString::new(text.as_str()).unwrap_or_default()
}
