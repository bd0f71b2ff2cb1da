//! What this crate's tests share: tiny models, and threads that play the ranks of a node.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;

use crate::codec::Threads;
use crate::config::LlamaConfig;
use crate::devices::{cuda_report, load_torch_cuda};
use crate::init::init_model;
use crate::mesh::{MeshRank, Topology, mesh};
use crate::optimizer::OptimizerConfig;
use crate::precision::Precision;
use crate::worker::{Rank, RankSetup, SpikeRule, StepPlan};

/// CUDA has to be there before the first tensor of any test is, so it is loaded before the tests begin, where there is any.
#[used]
#[unsafe(link_section = ".init_array")]
static LOAD_CUDA: extern "C" fn() = {
    extern "C" fn load() {
        let _unusable = cuda_device();
    }
    load
};

/// The first CUDA device, if libtorch can use it; a test that needs one says that there is none, and passes.
pub(crate) fn cuda_device() -> Option<tch::Device> {
    let usable = !cuda_report().devices().is_empty() && load_torch_cuda().is_ok();
    usable.then_some(tch::Device::Cuda(0))
}

/// Inputs per sample of the tests' plans.
pub(crate) const SEQUENCE: usize = 12;

/// A model of two layers with grouped queries whose sizes two ranks can share.
pub(crate) fn tiny_config() -> LlamaConfig {
    config_with(serde_json::json!({}))
}

/// The tiny model with some fields of its `config.json` replaced.
pub(crate) fn config_with(change: serde_json::Value) -> LlamaConfig {
    let mut value = serde_json::json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32, "tie_word_embeddings": false,
    });
    let object = value.as_object_mut().unwrap();
    object.extend(change.as_object().unwrap().clone());
    LlamaConfig::from_json(&serde_json::to_vec(&value).unwrap()).unwrap()
}

/// Runs `work` as every rank of a node on a thread of its own and returns the results by rank.
pub(crate) fn on_ranks<R: Send>(
    (data_parallel, tensor_parallel): (usize, usize),
    work: impl Fn(MeshRank) -> R + Sync,
) -> Vec<std::thread::Result<R>> {
    let topology = Topology::new(data_parallel, tensor_parallel).unwrap();
    let ranks = mesh(topology, Duration::from_secs(20));
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

/// Like [`on_ranks`], each rank with the weights of `folder`; every rank must succeed.
pub(crate) fn on_loaded_ranks<R: Send>(
    layout: (usize, usize),
    model: (&LlamaConfig, OptimizerConfig),
    folder: &Path,
    micro_batch_size: usize,
    work: impl Fn(&mut Rank) -> R + Sync,
) -> Vec<R> {
    on_changed_ranks(layout, model, folder, |setup| setup.micro_batch_size = micro_batch_size, work)
}

/// Like [`on_loaded_ranks`], with `change` made to what each rank starts with.
pub(crate) fn on_changed_ranks<R: Send>(
    layout: (usize, usize),
    model: (&LlamaConfig, OptimizerConfig),
    folder: &Path,
    change: impl Fn(&mut RankSetup) + Sync,
    work: impl Fn(&mut Rank) -> R + Sync,
) -> Vec<R> {
    crate::devices::init_threads(1);
    let results = on_ranks(layout, |mesh| {
        let mut setup = setup(mesh, model, folder);
        change(&mut setup);
        work(&mut Rank::new(setup).unwrap())
    });
    results.into_iter().map(|result| result.unwrap()).collect()
}

/// What a rank of a node on CPU devices starts with.
pub(crate) fn setup(mesh: MeshRank, (config, optimizer): (&LlamaConfig, OptimizerConfig), folder: &Path) -> RankSetup {
    RankSetup {
        mesh,
        device: tch::Device::Cpu,
        config: config.clone(),
        optimizer,
        sequence_len: SEQUENCE,
        micro_batch_size: 1,
        precision: Precision::F32,
        checkpointing: false,
        spikes: Some(SpikeRule::default()),
        threads: Threads::ONE,
        weights: folder.to_owned(),
    }
}

/// A folder with a model's initial weights.
pub(crate) fn weights_of(config: &LlamaConfig) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    init_model(&serde_json::to_vec(config).unwrap(), 7, folder.path()).unwrap();
    folder
}

/// Settings under which a few coefficients per chunk are sent by their signs.
pub(crate) fn one_bit() -> OptimizerConfig {
    OptimizerConfig {
        compression_decay: 0.9,
        compression_chunk: 16,
        compression_topk: 8,
        quantize_1bit: true,
        clip_grad_norm: None,
    }
}

/// A plan over `count` samples in which each token follows from the one before.
pub(crate) fn plan(step: u64, count: usize) -> StepPlan {
    let sample = |index: usize| {
        let mut token = (index as u32 * 29 + step as u32 * 17) % 128;
        (0..=SEQUENCE)
            .map(|_| {
                token = (token * 5 + 3) % 128;
                token
            })
            .collect()
    };
    StepPlan {
        step,
        samples: Arc::new((0..count).map(sample).collect()),
        lr: 0.003,
        lr_previous: 0.003,
        cancel: Arc::new(AtomicBool::new(false)),
    }
}
