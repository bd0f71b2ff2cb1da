//! What tests across crates share.

use psyche_protocol::layout::{Architecture, DataType, FixedString};
use psyche_protocol::model::{Checkpoint, DataLocation, HubRepo, Llm, LrSchedule, Model, Optimizer};
use psyche_protocol::{F32Bits, F64Bits};

/// A description of a model that every check of the coordinator accepts; nobody trains it.
///
/// # Panics
/// Never: its texts fit.
#[must_use]
#[expect(clippy::unwrap_used, reason = "the texts are constants that fit")]
pub fn tiny_model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 64,
        cold_start_warmup_steps: 0,
        architecture: Architecture::HfLlama,
        checkpoint: Checkpoint::Hub(HubRepo { repo_id: FixedString::new("models/tiny").unwrap(), revision: None }),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Local(FixedString::new("data").unwrap()),
        lr_schedule: LrSchedule::Constant { base_lr: F64Bits(4e-4_f64.to_bits()), warmup_init_lr: F64Bits(0), warmup_steps: 0 },
        optimizer: Optimizer::Distro {
            clip_grad_norm: None,
            weight_decay: None,
            compression_decay: F32Bits(0.999_f32.to_bits()),
            compression_topk: 8,
            compression_chunk: 64,
            quantize_1bit: true,
        },
    })
}
