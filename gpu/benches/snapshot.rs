//! What a snapshot costs: how long the ranks are kept from their work, and what is done beside it.
//!
//! A LLaMA of 42.5 M parameters; a snapshot of it holds 340 MB and more. `SNAPSHOT_FOLDER` names the folder to write to,
//! otherwise it is the system's temporary one. Times are medians of five; only the first is time that training loses.
#![allow(clippy::print_stdout, reason = "a benchmark's result")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use psyche_gpu::codec::Threads;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::{DeviceSpec, init_threads};
use psyche_gpu::init::init_model;
use psyche_gpu::mesh::{MeshRank, Topology, mesh};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_gpu::precision::Precision;
use psyche_gpu::snapshot::{SnapshotLabel, SnapshotStore, StoreSettings};
use psyche_gpu::worker::{Rank, RankSetup};
use psyche_messages::{Address, RoundKey};

const CONFIG: &str = r#"{ "model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 16384, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "tie_word_embeddings": false }"#;
const ROUNDS: usize = 5;
const PHASES: [&str; 5] = ["capture", "save", "save without a disk", "verify", "resume"];

fn main() {
    init_threads(1);
    let weights = must(tempfile::tempdir());
    must(init_model(CONFIG.as_bytes(), 1, weights.path()));
    let disk = std::env::var_os("SNAPSHOT_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let memory = PathBuf::from("/dev/shm");
    for ranks in [1, 2] {
        let topology = must(Topology::new(ranks, 1));
        let together = Barrier::new(ranks);
        std::thread::scope(|scope| {
            for place in mesh(topology, Duration::from_secs(60)) {
                let (weights, folders, together) = (weights.path(), [&*disk, &*memory], &together);
                scope.spawn(move || run(place, weights, folders, together));
            }
        });
    }
}

fn rank_of(place: MeshRank, weights: &Path) -> Rank {
    let device = must(DeviceSpec::Cpu(None).resolve(place.topology().ranks())).swap_remove(0);
    must(Rank::new(RankSetup {
        mesh: place,
        device,
        config: must(LlamaConfig::from_json(CONFIG.as_bytes())),
        optimizer: OptimizerConfig {
            compression_decay: 0.999,
            compression_chunk: 64,
            compression_topk: 8,
            quantize_1bit: true,
            clip_grad_norm: None,
        },
        sequence_len: 128,
        micro_batch_size: 1,
        precision: Precision::F32,
        checkpointing: false,
        spikes: None,
        threads: Threads::ONE,
        weights: weights.to_owned(),
    }))
}

fn run(place: MeshRank, weights: &Path, [disk, memory]: [&Path; 2], together: &Barrier) {
    let (first, ranks) = (place.rank() == 0, place.topology().ranks());
    let mut rank = rank_of(place, weights);
    let folders = [must(tempfile::tempdir_in(disk)), must(tempfile::tempdir_in(memory))];
    let stores = folders.each_ref().map(|folder| {
        must(SnapshotStore::open(StoreSettings {
            root: folder.path().to_owned(),
            run: Address([1; 32]),
            keep: NonZeroUsize::MIN,
            file_bytes_max: 64 << 20,
            source: None,
        }))
    });
    let mut times = [const { Vec::new() }; PHASES.len()];
    for round in 0..ROUNDS {
        let label = SnapshotLabel { round: RoundKey::new(0, u32::try_from(round).unwrap_or(0)), look_ahead_lr: 0.0 };
        together.wait();
        let mut last = Instant::now();
        let mut lap = |phase: usize| {
            times[phase].push(last.elapsed());
            last = Instant::now();
        };
        let captured = must(rank.capture());
        lap(0);
        let Some(captured) = captured else {
            // The others wait for rank 0, which saves, and then read along.
            together.wait();
            let stored = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            must(rank.resume(&must(stored.ok_or("nothing was verified"))));
            continue;
        };
        let stored = must(stores[0].save(&captured, &label));
        lap(1);
        must(stores[1].save(&captured, &label));
        lap(2);
        let verified = must(stored.verify(ranks));
        lap(3);
        *SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(verified.clone());
        together.wait();
        must(rank.resume(&verified));
        lap(4);
    }
    if first {
        println!("{ranks} rank(s)");
        for (phase, times) in PHASES.iter().zip(&mut times) {
            times.sort_unstable();
            println!("  {phase:<20} {:>6} ms", times[ROUNDS / 2].as_millis());
        }
    }
}

static SHARED: std::sync::Mutex<Option<psyche_gpu::snapshot::Verified>> = std::sync::Mutex::new(None);

fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}
