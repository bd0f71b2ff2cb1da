#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::mesh::Topology;
use crate::testing::{one_bit, tiny_config};

/// An optimiser that owns the whole tiny model, of weights 1.
fn whole(config: OptimizerConfig) -> Optimizer {
    let model = tiny_config();
    let topology = Topology::new(1, 1).unwrap();
    let layout = Arc::new(NodeLayout::new(&model, config.layout(&model).unwrap(), topology).unwrap());
    let master = vec![1.0; model.parameter_count() as usize];
    Optimizer::new(layout, 0, config, Threads::ONE, master)
}

fn gradient(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|index| ((index * 31 + seed * 7) % 41) as f32 / 41.0 - 0.5).collect()
}

#[test]
fn what_was_sent_leaves_the_momentum_one_step_later() {
    // Every coefficient is sent, so that only the newest gradient is left after the next step.
    let mut optimizer = whole(OptimizerConfig { compression_chunk: 8, compression_topk: 64, ..one_bit() });
    let (first, second) = (gradient(optimizer.master.len(), 1), gradient(optimizer.master.len(), 2));
    optimizer.step(&first, 1.0, 0.5).unwrap();
    assert!(optimizer.momentum.iter().zip(&first).all(|(m, g)| *m == 0.5 * g));
    optimizer.step(&second, 0.5, 0.5).unwrap();
    assert!(optimizer.momentum.iter().zip(&second).all(|(m, g)| (m - 0.25 * g).abs() < 1e-5));
    optimizer.reset_momentum();
    assert!(optimizer.momentum.iter().all(|m| *m == 0.0) && optimizer.sent().is_none());
}

#[test]
fn what_was_not_sent_decays_in_the_momentum() {
    let mut optimizer = whole(OptimizerConfig { compression_topk: 1, compression_decay: 0.5, ..one_bit() });
    let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let zeros = vec![0.0; optimizer.master.len()];
    optimizer.step(&gradient(zeros.len(), 3), 1.0, 1.0).unwrap();
    let before = norm(&optimizer.momentum);
    optimizer.step(&zeros, 1.0, 1.0).unwrap();
    let after = norm(&optimizer.momentum);
    // One coefficient of a chunk carries little of it, so about half of all is left.
    assert!(after < 0.5 * before && after > 0.2 * before, "{before} became {after}");
}

#[test]
fn look_ahead_moves_each_weight_against_its_momentum() {
    let mut optimizer = whole(one_bit());
    optimizer.momentum[..3].copy_from_slice(&[0.1, -2.0, 0.0]);
    let mut ahead = vec![0.0; optimizer.master.len()];
    optimizer.look_ahead(0.25, &mut ahead);
    assert_eq!(ahead[..3], [0.75, 1.25, 1.0]);
    assert!(optimizer.master.iter().all(|weight| *weight == 1.0));
}

#[test]
fn gradients_are_clipped_to_the_norm_and_refused_when_not_finite() {
    let optimizer = whole(OptimizerConfig { clip_grad_norm: Some(2.0), ..one_bit() });
    assert_eq!(optimizer.gradient_scale(1.0), Some(1.0));
    assert!((optimizer.gradient_scale(8.0).unwrap() - 0.25).abs() < 1e-6);
    assert!([f64::NAN, f64::INFINITY, 1e31].into_iter().all(|norm| optimizer.gradient_scale(norm).is_none()));
    assert_eq!(whole(one_bit()).gradient_scale(1e9), Some(1.0));
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = [
        OptimizerConfig { compression_decay: 1.5, ..one_bit() },
        OptimizerConfig { compression_decay: f32::NAN, ..one_bit() },
        OptimizerConfig { clip_grad_norm: Some(0.0), ..one_bit() },
        OptimizerConfig { compression_topk: 0, ..one_bit() },
        OptimizerConfig { compression_chunk: 0, ..one_bit() },
    ];
    assert!(refused.iter().all(|config| config.layout(&tiny_config()).is_err()));
}
