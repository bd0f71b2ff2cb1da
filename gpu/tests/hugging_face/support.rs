//! The Python peer as a child process, and one rank of ours beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use psyche_gpu::codec::Threads;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::init_threads;
use psyche_gpu::mesh::{Topology, mesh};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_gpu::precision::Precision;
use psyche_gpu::worker::{Rank, RankSetup};

/// Where `scripts/setup-python.sh` has put things, by name.
pub(crate) fn installed() -> HashMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup-python.sh");
    let output = Command::new(script).arg("--where").output().unwrap();
    // The script says which command fetches what is missing.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Runs the peer and returns what it prints.
pub(crate) fn peer<'a>(arguments: impl IntoIterator<Item = &'a Path>, command: &str) -> String {
    let installed = installed();
    let mut process = Command::new(&installed["PYTHON"]);
    // Packages of the person who runs this don't count; nothing is looked up on the network.
    process.args(["-s", "-B"]).env("PYTHONPATH", &installed["PYTHONPATH"]).env("HF_HUB_OFFLINE", "1");
    process.env("OMP_NUM_THREADS", "1").env("CUDA_VISIBLE_DEVICES", "");
    process.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hugging_face/peer.py")).arg(command).args(arguments);
    let output = process.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A model in Hugging Face's layout, and what the peer found out about it.
pub(crate) struct Model {
    pub(crate) folder: PathBuf,
    pub(crate) config: LlamaConfig,
}

impl Model {
    pub(crate) fn open(folder: &Path) -> Self {
        let config = LlamaConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        Self { folder: folder.to_owned(), config }
    }

    /// One rank that holds all of it.
    pub(crate) fn rank(&self, precision: Precision) -> Rank {
        init_threads(1);
        let place = mesh(Topology::new(1, 1).unwrap(), Duration::from_secs(60)).remove(0);
        Rank::new(RankSetup {
            mesh: place,
            device: tch::Device::Cpu,
            config: self.config.clone(),
            optimizer: optimizer(),
            sequence_len: self.config.max_position_embeddings.min(128),
            micro_batch_size: 8,
            precision,
            checkpointing: false,
            spikes: None,
            threads: Threads::ONE,
            weights: self.folder.clone(),
        })
        .unwrap()
    }
}

pub(crate) fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        compression_decay: 0.9,
        compression_chunk: 32,
        compression_topk: 8,
        quantize_1bit: true,
        clip_grad_norm: Some(1.0),
    }
}

/// Samples that lie beside a model.
pub(crate) fn tokens(folder: &Path) -> Vec<Vec<u32>> {
    serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap()
}

/// Logits that the peer has written.
pub(crate) fn logits(folder: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(folder.join(name)).unwrap();
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn largest(numbers: impl Iterator<Item = f32>) -> f32 {
    numbers.fold(0.0, |most, number| most.max(number.abs()))
}

/// Largest difference, relative to the largest logit.
pub(crate) fn distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    largest(ours.iter().zip(theirs).map(|(a, b)| a - b)) / largest(theirs.iter().copied())
}

/// Root of the mean square of the differences.
pub(crate) fn spread(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let sum: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / ours.len() as f64).sqrt()
}

/// The likeliest token of one position.
pub(crate) fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// How far the likeliest token is ahead of the second.
pub(crate) fn lead(logits: &[f32]) -> f32 {
    let first = likeliest(logits);
    let second = logits.iter().enumerate().filter(|(token, _)| *token != first).map(|(_, &logit)| logit);
    logits[first] - second.fold(f32::NEG_INFINITY, f32::max)
}
