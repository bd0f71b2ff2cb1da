#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::codec::Threads;
use crate::mesh::Topology;
use crate::testing::{one_bit, tiny_config};

/// An optimiser that owns the whole tiny model, of weights 1, in each store that needs no GPU.
fn everywhere(config: OptimizerConfig) -> [Optimizer; 2] {
    let host = || HostStore { threads: Threads::ONE };
    [whole(config, Box::new(host())), whole(config, Box::new(TensorStore { device: tch::Device::Cpu, host: host() }))]
}

fn whole(config: OptimizerConfig, store: Box<dyn Store>) -> Optimizer {
    let model = tiny_config();
    let topology = Topology::new(1, 1).unwrap();
    let layout = Arc::new(NodeLayout::new(&model, config.layout(&model).unwrap(), topology).unwrap());
    let master = vec![1.0; model.parameter_count() as usize];
    Optimizer::new(layout, 0, config, store, master).unwrap()
}

fn values(flat: &Flat) -> Vec<f32> {
    flat.to_host().unwrap().into_owned()
}

fn gradient(optimizer: &Optimizer, seed: usize) -> Flat {
    let elements = (0..optimizer.master.len()).map(|index| ((index * 31 + seed * 7) % 41) as f32 / 41.0 - 0.5);
    optimizer.store.keep(elements.collect()).unwrap()
}

#[test]
fn what_was_sent_leaves_the_momentum_one_step_later() {
    // Every coefficient is sent, so that only the newest gradient is left after the next step.
    for mut optimizer in everywhere(OptimizerConfig { compression_chunk: 8, compression_topk: 64, ..one_bit() }) {
        let (first, second) = (gradient(&optimizer, 1), gradient(&optimizer, 2));
        optimizer.step(&first, 1.0, 0.5).unwrap();
        assert!(values(&optimizer.momentum).iter().zip(values(&first)).all(|(m, g)| *m == 0.5 * g));
        optimizer.step(&second, 0.5, 0.5).unwrap();
        assert!(values(&optimizer.momentum).iter().zip(values(&second)).all(|(m, g)| (m - 0.25 * g).abs() < 1e-5));
        optimizer.reset_momentum().unwrap();
        assert!(values(&optimizer.momentum).iter().all(|m| *m == 0.0) && optimizer.sent().unwrap().is_none());
    }
}

#[test]
fn what_was_not_sent_decays_in_the_momentum() {
    for mut optimizer in everywhere(OptimizerConfig { compression_topk: 1, compression_decay: 0.5, ..one_bit() }) {
        let norm = |optimizer: &Optimizer| optimizer.square_sum(&optimizer.momentum).unwrap().sqrt();
        let zeros = optimizer.scratch().unwrap();
        optimizer.step(&gradient(&optimizer, 3), 1.0, 1.0).unwrap();
        let before = norm(&optimizer);
        optimizer.step(&zeros, 1.0, 1.0).unwrap();
        let after = norm(&optimizer);
        // One coefficient of a chunk carries little of it, so about half of all is left.
        assert!(after < 0.5 * before && after > 0.2 * before, "{before} became {after}");
    }
}

#[test]
fn look_ahead_moves_each_weight_against_its_momentum() {
    for mut optimizer in everywhere(one_bit()) {
        let mut momentum = values(&optimizer.momentum);
        momentum[..3].copy_from_slice(&[0.1, -2.0, 0.0]);
        optimizer.momentum = optimizer.store.keep(momentum).unwrap();
        let mut ahead = optimizer.scratch().unwrap();
        optimizer.look_ahead(0.25, &mut ahead).unwrap();
        assert_eq!(values(&ahead)[..3], [0.75, 1.25, 1.0]);
        assert!(values(&optimizer.master).iter().all(|weight| *weight == 1.0));
    }
}

#[test]
fn squares_are_added_up_in_f64() {
    for optimizer in everywhere(one_bit()) {
        let sum: f64 = values(&gradient(&optimizer, 5)).iter().map(|&g| f64::from(g).powi(2)).sum();
        let found = optimizer.square_sum(&gradient(&optimizer, 5)).unwrap();
        assert!((found / sum - 1.0).abs() < 1e-12, "{found}, not {sum}");
    }
}

#[test]
fn gradients_are_clipped_to_the_norm_and_refused_when_not_finite() {
    for optimizer in everywhere(OptimizerConfig { clip_grad_norm: Some(2.0), ..one_bit() }) {
        assert_eq!(optimizer.gradient_scale(1.0), Some(1.0));
        assert!((optimizer.gradient_scale(8.0).unwrap() - 0.25).abs() < 1e-6);
        assert!([f64::NAN, f64::INFINITY, 1e31].into_iter().all(|norm| optimizer.gradient_scale(norm).is_none()));
    }
    assert!(everywhere(one_bit()).iter().all(|optimizer| optimizer.gradient_scale(1e9) == Some(1.0)));
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
