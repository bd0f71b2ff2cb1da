#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::sync::atomic::AtomicBool;

use super::*;
use crate::testing::{on_loaded_ranks, one_bit, plan, tiny_config, weights_of};

mod adamw;
mod determinism;
mod memory;
mod reference;
mod skips;
mod stores;

const LAYOUTS: [(usize, usize); 6] = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (7, 1)];

/// Everything of a momentum is sent, so that results can be compared coefficient by coefficient.
fn send_all() -> OptimizerConfig {
    OptimizerConfig { compression_chunk: 8, compression_topk: 64, ..one_bit() }
}

fn trained(outcome: TrainOutcome) -> Trained {
    match outcome {
        TrainOutcome::Trained(trained) => trained,
        other => panic!("expected a trained step, got {other:?}"),
    }
}

fn apply_plan(payloads: &[&[u8]], weight_decay: f32) -> ApplyPlan {
    let payloads = payloads.iter().map(|&payload| payload.into()).collect();
    ApplyPlan { step: 1, lr: 0.01, weight_decay, payloads: Arc::new(payloads) }
}

/// The rank's momentum.
fn momentum(rank: &Rank) -> Vec<f32> {
    rank.optimizer.momentum().to_host().unwrap().into_owned()
}

/// The rank's weights.
fn master(rank: &Rank) -> Vec<f32> {
    rank.optimizer.master().to_host().unwrap().into_owned()
}

/// Largest difference relative to the largest element.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).fold(0.0_f32, |most, (x, y)| most.max((x - y).abs())) / largest
}

#[test]
fn any_layout_and_micro_batch_gives_the_same_step_up_to_rounding() {
    for tied in [false, true] {
        let config = crate::testing::config_with(serde_json::json!({ "tie_word_embeddings": tied }));
        let folder = weights_of(&config);
        let run = |layout, micro_batch_size| {
            let ranks = on_loaded_ranks(layout, (&config, send_all()), folder.path(), micro_batch_size, |rank| {
                rank.train(&plan(0, 5)).unwrap();
                let second = trained(rank.train(&plan(1, 5)).unwrap());
                // Pieces ascend with the rank, so that the ranks' buffers strung together are the whole model.
                (second, momentum(rank))
            });
            let momentum: Vec<f32> = ranks.iter().flat_map(|(_, momentum)| momentum.clone()).collect();
            (ranks.into_iter().map(|(trained, _)| trained).collect::<Vec<_>>(), momentum)
        };
        let (alone, momentum) = run((1, 1), 5);
        assert_eq!(alone[0].tokens, 5 * crate::testing::SEQUENCE as u64);
        for layout in LAYOUTS {
            for micro_batch_size in [1, 2, 8] {
                let (ranks, other) = run(layout, micro_batch_size);
                for (index, rank) in ranks.iter().enumerate() {
                    assert!((rank.loss / alone[0].loss - 1.0).abs() < 1e-5, "{layout:?}: loss {}", rank.loss);
                    assert!((rank.gradient_norm / alone[0].gradient_norm - 1.0).abs() < 1e-4, "{layout:?}");
                    assert_eq!((rank.tokens, rank.payload.is_some()), (alone[0].tokens, index == 0));
                }
                assert!(difference(&momentum, &other) < 1e-4, "{layout:?}, micro-batches of {micro_batch_size}");
            }
        }
    }
}

#[test]
fn payloads_of_different_layouts_choose_the_same_coefficients() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let codec = one_bit().layout(&config).unwrap();
    let payload = |layout| {
        let ranks = on_loaded_ranks(layout, (&config, one_bit()), folder.path(), 2, |rank| rank.train(&plan(0, 3)).unwrap());
        trained(ranks.into_iter().next().unwrap()).payload.unwrap()
    };
    let (alone, split) = (payload((1, 1)), payload((2, 2)));
    assert_eq!((alone.len(), split.len()), (codec.payload_len(), codec.payload_len()));
    let (alone, split) = (codec.validate(&alone).unwrap(), codec.validate(&split).unwrap());
    let (mut same, mut all) = (0, 0);
    for parameter in 0..codec.parameters().len() {
        let part = codec.whole(parameter).unwrap();
        let (alone, split) = (alone.decode(&part).unwrap(), split.decode(&part).unwrap());
        let signed = |s: &crate::codec::Selection| s.indices.iter().copied().zip(s.values.clone()).collect::<Vec<_>>();
        same += signed(&alone).iter().zip(signed(&split)).filter(|(a, b)| **a == *b).count();
        all += alone.indices.len();
    }
    assert!(same * 100 > all * 99, "{same} of {all} coefficients agree");
}

#[test]
fn the_loss_falls_while_a_node_applies_its_own_results() {
    let config = tiny_config();
    let folder = weights_of(&config);
    for quantize_1bit in [true, false] {
        let optimizer = OptimizerConfig { quantize_1bit, clip_grad_norm: Some(1.0), ..one_bit() };
        let losses = on_loaded_ranks((2, 2), (&config, optimizer), folder.path(), 2, |rank| {
            let losses: Vec<f64> = (0..30)
                .map(|step| {
                    let lr = 0.008;
                    let trained = trained(rank.train(&StepPlan { lr, lr_previous: lr, ..plan(step, 6) }).unwrap());
                    // What rank 0 made reaches the others as it would reach other nodes.
                    let payload = rank.mesh.exchange(&trained.payload, |all| all[0].clone()).unwrap().unwrap();
                    let payloads = Arc::new(vec![payload.into()]);
                    rank.apply(&ApplyPlan { step, lr, weight_decay: 0.0, payloads }).unwrap();
                    trained.loss
                })
                .collect();
            losses
        });
        assert!(losses.iter().all(|other| *other == losses[0]));
        let (first, last) = (losses[0][0], losses[0][29]);
        assert!(first > 4.5 && last < 0.6 * first, "loss went from {first} to {last}");
    }
}

#[test]
fn applying_the_same_results_gives_the_same_bits_on_every_layout() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let first = on_loaded_ranks((1, 1), (&config, one_bit()), folder.path(), 2, |rank| {
        [0, 1].map(|step| trained(rank.train(&plan(step, 2)).unwrap()).payload.unwrap())
    });
    let payloads: Vec<&[u8]> = first[0].iter().map(Vec::as_slice).collect();
    let digests: Vec<Vec<[u8; 32]>> = LAYOUTS
        .into_iter()
        .flat_map(|layout| {
            on_loaded_ranks(layout, (&config, one_bit()), folder.path(), 1, |rank| {
                let mut digests = vec![rank.digest().unwrap()];
                for plan in [apply_plan(&payloads, 0.1), apply_plan(&[], 0.0), apply_plan(&[], 0.1)] {
                    rank.apply(&plan).unwrap();
                    digests.push(rank.digest().unwrap());
                }
                digests
            })
        })
        .collect();
    assert!(digests.iter().all(|other| *other == digests[0]));
    let [before, applied, unchanged, decayed] = digests[0][..] else { panic!("four digests") };
    assert!(before != applied && applied == unchanged && unchanged != decayed);
}

#[test]
fn evaluation_uses_the_applied_weights_without_look_ahead() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let losses = |layout| {
        on_loaded_ranks(layout, (&config, one_bit()), folder.path(), 2, |rank| {
            let samples = plan(9, 3).samples;
            let before = rank.evaluate(0, &samples).unwrap();
            rank.train(&plan(0, 3)).unwrap();
            rank.train(&plan(1, 3)).unwrap();
            assert_eq!(rank.evaluate(0, &samples).unwrap(), before);
            before
        })
    };
    let (alone, split) = (losses((1, 1))[0], losses((2, 2)));
    assert!(split.iter().all(|loss| (loss / alone - 1.0).abs() < 1e-5));
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused_and_change_nothing() {
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((2, 1), (&config, one_bit()), folder.path(), 1, |rank| {
        let with = |samples: Vec<Vec<u32>>| StepPlan { samples: Arc::new(samples), ..plan(0, 1) };
        let refused = [
            with(vec![]),
            with(vec![vec![1]]),
            with(vec![vec![1; 14]]),
            with(vec![vec![1; 5], vec![1; 6]]),
            with(vec![vec![1, 2, 128]]),
            StepPlan { lr: f32::NAN, ..plan(0, 1) },
            StepPlan { lr_previous: -1.0, ..plan(0, 1) },
        ];
        for plan in &refused {
            assert!(matches!(rank.train(plan), Err(GpuError::Plan { step: 0, .. })), "{plan:?}");
        }
        let malformed = ApplyPlan { payloads: Arc::new(vec![Arc::new([1_u8; 5])]), ..apply_plan(&[], 0.5) };
        let before = rank.digest().unwrap();
        assert!(matches!(rank.apply(&malformed), Err(GpuError::Codec(_))));
        assert!(rank.apply(&ApplyPlan { weight_decay: f32::INFINITY, ..apply_plan(&[], 0.5) }).is_err());
        assert_eq!(rank.digest().unwrap(), before);
        trained(rank.train(&plan(0, 1)).unwrap());
    });
}

#[test]
fn a_rank_that_dies_ends_the_others_steps_with_a_typed_error() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let outcomes = on_loaded_ranks((2, 2), (&config, one_bit()), folder.path(), 1, |rank| {
        if rank.mesh.rank() == 3 {
            return None;
        }
        Some(rank.train(&plan(0, 4)).unwrap_err())
    });
    let errors: Vec<GpuError> = outcomes.into_iter().flatten().collect();
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|error| matches!(error, GpuError::MeshPoisoned { .. })), "{errors:?}");
}

#[test]
fn logits_are_whole_and_the_same_on_every_rank_of_every_layout() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let inputs: Vec<Vec<u32>> = plan(0, 2).samples.iter().map(|sample| sample[..6].to_vec()).collect();
    let logits = |layout| {
        on_loaded_ranks(layout, (&config, one_bit()), folder.path(), 2, |rank| {
            let refused = rank.logits(0, &[vec![1, 2], vec![1]]).unwrap_err();
            assert!(matches!(refused, GpuError::Plan { .. }), "{refused}");
            assert!(rank.logits(0, &[vec![128]]).is_err() && rank.logits(0, &[]).is_err());
            rank.logits(0, &inputs).unwrap()
        })
    };
    let alone = logits((1, 1)).remove(0);
    assert_eq!(alone.len(), 2 * 6 * 128);
    for layout in [(1, 2), (2, 2)] {
        for other in logits(layout) {
            assert!(difference(&alone, &other) < 1e-5, "{layout:?}");
        }
    }
}
