#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::codec::Threads;
use crate::shim::Meter;
use crate::testing::{config_with, on_ranks, one_bit, tiny_config, weights_of};
use crate::worker::{Rank, RankSetup, StepPlan};

/// Of a prediction, the part that a measured peak has at least.
const TIGHT: f64 = 0.8;

fn setup<'a>(config: &'a LlamaConfig, optimizer: &'a OptimizerConfig, (dp, tp): (usize, usize)) -> MemorySetup<'a> {
    MemorySetup {
        config,
        optimizer,
        topology: Topology::new(dp, tp).unwrap(),
        sequence_len: 64,
        precision: Precision::F32,
        checkpointing: false,
        on_cpu: true,
    }
}

fn predicted(config: &LlamaConfig, layout: (usize, usize)) -> Vec<RankMemory> {
    RankMemory::of(&setup(config, &one_bit(), layout)).unwrap()
}

/// A model in which one kind of activation or another dominates.
fn model(
    hidden: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    feed_forward: usize,
    vocabulary: usize,
) -> LlamaConfig {
    config_with(serde_json::json!({
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "intermediate_size": feed_forward, "vocab_size": vocabulary, "max_position_embeddings": 64, "num_hidden_layers": 3,
    }))
}

/// What a rank held once it was loaded (in tensors) and after two micro-batches (tensors, the optimiser's buffers), and the
/// most that it held in tensors meanwhile.
struct Measured {
    loaded: u64,
    trained: u64,
    optimizer: [usize; 4],
    peak: u64,
}

fn measure(setup: &MemorySetup<'_>, weights: &Path, micro_batch_size: usize) -> Vec<Measured> {
    crate::devices::init_threads(1);
    let layout = (setup.topology.data_parallel(), setup.topology.tensor_parallel());
    let vocabulary = u32::try_from(setup.config.vocab_size).unwrap();
    let ranks = on_ranks(layout, |mesh| {
        let watch = Meter::start().unwrap();
        let mut rank = Rank::new(RankSetup {
            mesh,
            device: tch::Device::Cpu,
            config: setup.config.clone(),
            optimizer: *setup.optimizer,
            sequence_len: setup.sequence_len,
            micro_batch_size,
            precision: setup.precision,
            checkpointing: setup.checkpointing,
            spikes: None,
            threads: Threads::ONE,
            weights: weights.to_owned(),
        })
        .unwrap();
        let bytes = || u64::try_from(watch.read().0).unwrap();
        let loaded = bytes();
        // Two micro-batches, so that sums of gradients are there while the second one's activations are.
        let sample = |first: usize| (0..=setup.sequence_len).map(|at| (first + 7 * at) as u32 % vocabulary).collect();
        let count = 2 * micro_batch_size * layout.0;
        let plan = StepPlan { samples: std::sync::Arc::new((0..count).map(sample).collect()), ..crate::testing::plan(0, 1) };
        rank.train(&plan).unwrap();
        Measured { loaded, trained: bytes(), optimizer: rank.optimizer_bytes(), peak: u64::try_from(watch.read().1).unwrap() }
    });
    ranks.into_iter().map(|rank| rank.unwrap()).collect()
}

#[test]
fn what_a_rank_holds_all_the_time_is_predicted_to_the_byte() {
    for (change, layouts) in [
        (serde_json::json!({}), [(1, 1), (2, 1), (1, 2), (2, 2)]),
        (serde_json::json!({"tie_word_embeddings": true, "num_hidden_layers": 1}), [(3, 1), (1, 2), (5, 1), (3, 2)]),
    ] {
        let config = config_with(change);
        let (weights, optimizer) = (weights_of(&config), one_bit());
        for layout in layouts {
            for precision in [Precision::F32, Precision::Bf16] {
                let setup = MemorySetup { precision, sequence_len: 24, ..setup(&config, &optimizer, layout) };
                let predicted = RankMemory::of(&setup).unwrap();
                for (memory, measured) in predicted.iter().zip(measure(&setup, weights.path(), 1)) {
                    assert_eq!(measured.loaded, memory.compute_copies + memory.rotary_tables, "{layout:?} {precision}");
                    assert_eq!(measured.trained, measured.loaded + memory.gradient_sums, "{layout:?} {precision}");
                    let buffers = [memory.master, memory.momentum, memory.scratch, memory.sent];
                    assert_eq!(measured.optimizer.map(|bytes| bytes as u64), buffers, "{layout:?} {precision}");
                }
            }
        }
    }
}

#[test]
fn two_replicas_halve_the_optimisers_memory_and_nothing_else() {
    let config = model(64, (4, 2, 16), 192, 512);
    let [one, two] = [predicted(&config, (1, 1)), predicted(&config, (2, 1))];
    for memory in &two {
        let share = memory.optimizer_state() as f64 / one[0].optimizer_state() as f64;
        assert!((0.49..0.51).contains(&share), "{share}");
        assert_eq!((memory.compute_copies, memory.gradient_sums), (one[0].compute_copies, one[0].gradient_sums));
        assert_eq!(memory.per_sample, one[0].per_sample);
    }
    assert_eq!(two.iter().map(|memory| memory.master).sum::<u64>(), one[0].master);
}

#[test]
fn tensor_parallelism_divides_weights_gradients_and_the_wide_activations() {
    let config = model(64, (4, 4, 16), 1024, 4096);
    let [one, two] = [predicted(&config, (1, 1)), predicted(&config, (1, 2))];
    for (part, whole) in [
        (two[1].compute_copies, one[0].compute_copies),
        (two[1].gradient_sums, one[0].gradient_sums),
        (two[1].per_sample, one[0].per_sample),
    ] {
        let share = part as f64 / whole as f64;
        assert!((0.5..0.6).contains(&share), "{share}");
    }
}

#[test]
fn activations_stay_within_what_is_predicted_and_come_near_to_it() {
    let optimizer = one_bit();
    let models = [
        ("vocabulary", model(64, (4, 4, 16), 96, 8192)),
        ("feed-forward", model(64, (4, 4, 16), 1024, 128)),
        ("attention", model(64, (8, 4, 64), 96, 128)),
        ("stream", model(384, (4, 4, 16), 96, 128)),
    ];
    for (name, config) in &models {
        let weights = weights_of(config);
        for layout in [(1, 1), (1, 2)] {
            for (precision, checkpointing) in
                [(Precision::F32, false), (Precision::F32, true), (Precision::Bf16, false), (Precision::Bf16, true)]
            {
                let setup = MemorySetup { precision, checkpointing, ..setup(config, &optimizer, layout) };
                let memory = RankMemory::of(&setup).unwrap()[0];
                // The optimiser's buffers are no tensors.
                let predicted = memory.training(4) - memory.optimizer_state();
                let peak = measure(&setup, weights.path(), 4)[0].peak;
                let share = peak as f64 / predicted as f64;
                assert!((TIGHT..=1.0).contains(&share), "{name} {layout:?} {precision} {checkpointing}: {peak} of {predicted}");
            }
        }
    }
}

#[test]
fn checkpointing_makes_room_that_grows_with_the_layers() {
    let deep = config_with(serde_json::json!({"num_hidden_layers": 24}));
    let optimizer = one_bit();
    let all = RankMemory::of(&setup(&deep, &optimizer, (1, 1))).unwrap()[0];
    let few = RankMemory::of(&MemorySetup { checkpointing: true, ..setup(&deep, &optimizer, (1, 1)) }).unwrap()[0];
    assert_eq!(all.state(), few.state());
    assert!(few.per_sample * 4 < all.per_sample, "{} and {}", few.per_sample, all.per_sample);
    let room = all.training(2);
    assert!(few.largest_micro_batch(room) > all.largest_micro_batch(room));
}

#[test]
fn a_model_that_can_not_be_split_has_no_memory_to_predict() {
    let error = RankMemory::of(&setup(&tiny_config(), &one_bit(), (1, 3))).unwrap_err();
    assert!(matches!(error, GpuError::Layout { .. }), "{error:?}");
}

proptest! {
    #[test]
    fn prop_the_largest_micro_batch_fits_and_a_larger_one_does_not(available in 0_u64..1 << 30) {
        let memory = predicted(&tiny_config(), (1, 1))[0];
        match memory.largest_micro_batch(available) {
            None => prop_assert!(memory.training(1) > available),
            Some(size) => {
                prop_assert!(memory.training(size) <= available);
                prop_assert!(size == SAMPLES_MAX || memory.training(size + 1) > available);
            }
        }
    }
}
