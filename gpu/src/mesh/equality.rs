//! However a step is laid out over devices, it is the step of one device.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::codec::Threads;
use crate::config::LlamaConfig;
use crate::precision::Precision;
use crate::shim::results_with_dimension;
use crate::testing::{config_with, on_ranks, one_bit, weights_of};
use crate::worker::{ApplyPlan, Rank, RankSetup, StepPlan, TrainOutcome, Trained};

/// All ways to lay out up to four devices.
const LAYOUTS: [(usize, usize); 8] = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3), (1, 4)];

/// A model, its batch, and how one node divides them.
#[derive(Debug, Clone)]
struct Case {
    layout: (usize, usize),
    config: serde_json::Value,
    sequence: usize,
    samples: usize,
    micro_batch: usize,
    seed: u32,
}

/// Sizes that a layout can divide, and nothing else about them even.
fn cases() -> impl Strategy<Value = Case> {
    let model = (1..3_usize, 1..3_usize, 1..5_usize, 1..6_usize, 0..4_usize, 0..5_usize, any::<bool>());
    let batch = (2..12_usize, 1..10_usize, 1..6_usize, any::<u32>());
    (0..LAYOUTS.len(), model, batch).prop_map(|(layout, model, (sequence, samples, micro_batch, seed))| {
        let layout = LAYOUTS[layout];
        let (layers, groups, half_head, narrow, inner, vocabulary, tied) = model;
        let tensor_parallel = layout.1;
        let config = serde_json::json!({
            "num_hidden_layers": layers, "tie_word_embeddings": tied, "head_dim": 2 * half_head,
            "num_key_value_heads": tensor_parallel, "num_attention_heads": tensor_parallel * groups,
            "hidden_size": tensor_parallel * groups * (5 + 2 * narrow), "intermediate_size": tensor_parallel * (5 + 2 * inner),
            "vocab_size": tensor_parallel * (17 + 2 * vocabulary),
        });
        Case { layout, config, sequence, samples, micro_batch, seed }
    })
}

/// What a rank has to show after one step.
struct Shown {
    trained: Trained,
    /// Its pieces of the node's gradient.
    gradient: Vec<f32>,
    digest: [u8; 32],
    /// By parameter, its compute copies of the weights as applied.
    copies: Vec<Vec<f32>>,
}

fn plan(case: &Case, vocabulary: usize) -> StepPlan {
    let mut state = u64::from(case.seed) | 1;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary as u64) as u32
    };
    let samples: Vec<Vec<u32>> = (0..case.samples).map(|_| (0..=case.sequence).map(|_| token()).collect()).collect();
    let (lr, cancel) = (0.003, Arc::new(AtomicBool::new(false)));
    StepPlan { step: 0, samples: Arc::new(samples), lr, lr_previous: 0.0, cancel }
}

fn rank_of(mesh: MeshRank, config: &LlamaConfig, folder: &Path, case: &Case, precision: Precision) -> Rank {
    let setup = RankSetup {
        mesh,
        device: Device::Cpu,
        config: config.clone(),
        optimizer: one_bit(),
        sequence_len: case.sequence,
        micro_batch_size: case.micro_batch,
        precision,
        checkpointing: case.seed.is_multiple_of(2),
        spikes: None,
        threads: Threads::ONE,
        weights: folder.to_owned(),
    };
    Rank::new(setup).unwrap()
}

/// One step and its application on every rank.
fn run(case: &Case, layout: (usize, usize), config: &LlamaConfig, folder: &Path, precision: Precision) -> Vec<Shown> {
    let plan = plan(case, config.vocab_size);
    let results = on_ranks(layout, |mesh| {
        let mut rank = rank_of(mesh, config, folder, case, precision);
        let TrainOutcome::Trained(trained) = rank.train(&plan).unwrap() else { panic!("a sound step is not skipped") };
        let gradient = rank.gradient();
        let all = rank.mesh().exchange(&trained.payload, |all| all[0].clone()).unwrap().unwrap();
        let payloads = Arc::new(vec![all.into()]);
        rank.apply(&ApplyPlan { step: 0, lr: 0.01, weight_decay: 0.1, payloads }).unwrap();
        rank.evaluate(1, &plan.samples).unwrap();
        let flat = |copy: &Tensor| Vec::<f32>::try_from(copy.to_kind(Kind::Float).reshape([-1])).unwrap();
        let copies = tch::no_grad(|| rank.compute_copies().iter().map(flat).collect());
        Shown { trained, gradient, digest: rank.digest().unwrap(), copies }
    });
    results.into_iter().map(|result| result.unwrap()).collect()
}

/// The length of the difference, in lengths of what is expected.
fn distance(expected: &[f32], other: &[f32]) -> f64 {
    assert_eq!(expected.len(), other.len());
    let length = |of: &mut dyn Iterator<Item = f64>| of.map(|x| x * x).sum::<f64>().sqrt();
    let difference = length(&mut expected.iter().zip(other).map(|(a, b)| f64::from(a - b)));
    difference / length(&mut expected.iter().map(|&x| f64::from(x)))
}

fn check(case: &Case, precision: Precision, (loss_tolerance, gradient_tolerance): (f64, f64)) {
    let config = config_with(case.config.clone());
    let folder = weights_of(&config);
    crate::devices::init_threads(1);
    let alone = run(case, (1, 1), &config, folder.path(), precision);
    let node = run(case, case.layout, &config, folder.path(), precision);
    // Pieces ascend with the rank, so that the ranks' buffers strung together are the whole gradient.
    let gradient: Vec<f32> = node.iter().flat_map(|rank| rank.gradient.clone()).collect();
    let difference = distance(&alone[0].gradient, &gradient);
    assert!(difference < gradient_tolerance, "{case:?}: the gradient is off by {difference:e}");
    for (number, rank) in node.iter().enumerate() {
        let (one, other) = (&alone[0].trained, &rank.trained);
        assert!((other.loss / one.loss - 1.0).abs() < loss_tolerance, "{case:?}: loss {} and {}", one.loss, other.loss);
        assert_eq!(other.tokens, (case.samples * case.sequence) as u64);
        assert_eq!(rank.digest, node[0].digest);
        let same_part = number % case.layout.1;
        assert!(rank.copies == node[same_part].copies, "{case:?}: the copies of rank {number} differ from its replica's");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn prop_a_node_of_any_layout_has_the_loss_and_gradients_of_one_device(case in cases()) {
        check(&case, Precision::F32, (1e-5, 2e-5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn prop_so_it_has_in_bf16_within_its_rounding(case in cases()) {
        check(&case, Precision::Bf16, (1e-2, 6e-2));
    }
}

#[test]
fn more_ranks_than_samples_leave_some_without_any() {
    for samples in [1, 2, 3, 5] {
        let config = serde_json::json!({});
        check(
            &Case { layout: (4, 1), config, sequence: 7, samples, micro_batch: 2, seed: samples as u32 },
            Precision::F32,
            (1e-5, 2e-5),
        );
    }
}

#[test]
fn no_rank_of_a_group_ever_makes_a_tensor_as_wide_as_the_vocabulary() {
    const VOCABULARY: i64 = 206;
    for tied in [false, true] {
        let config = config_with(serde_json::json!({ "vocab_size": VOCABULARY, "tie_word_embeddings": tied }));
        let folder = weights_of(&config);
        for precision in [Precision::F32, Precision::Bf16] {
            let case = Case { layout: (1, 2), config: serde_json::json!({}), sequence: 9, samples: 3, micro_batch: 2, seed: 5 };
            let wide = |tensor_parallel| {
                let results = on_ranks((1, tensor_parallel), |mesh| {
                    let mut rank = rank_of(mesh, &config, folder.path(), &case, precision);
                    let step = || {
                        rank.train(&plan(&case, VOCABULARY as usize)).unwrap();
                        rank.evaluate(0, &plan(&case, VOCABULARY as usize).samples).unwrap();
                    };
                    let ((), results, wide) = results_with_dimension(VOCABULARY, step).unwrap();
                    assert!(results > 100, "only {results} tensors were seen");
                    wide
                });
                results.into_iter().map(|result| result.unwrap()).max().unwrap()
            };
            assert!(wide(1) > 0, "one device makes whole logits: the observer must see them");
            assert_eq!(wide(2), 0);
        }
    }
}
