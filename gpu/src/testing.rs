//! What this crate's tests share: tiny models, and threads that play the ranks of a node.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::time::Duration;

use crate::config::LlamaConfig;
use crate::mesh::{MeshRank, Topology, mesh};

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
