#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::codec::Threads;
use crate::config::ParameterSpec;
use crate::cuda::Kernels;
use crate::layout::Piece;
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

/// What a step leaves: the momentum, what was chosen, and the weights.
type Stepped = (Vec<f32>, Selection, Vec<f32>);

/// Two steps of one parameter in a store: by step the momentum, what was chosen and the weights; and whether all that was
/// chosen lay in the host's memory.
fn two_steps(store: &mut dyn Store, layout: &Layout) -> (Vec<Stepped>, bool) {
    let part = layout.whole(0).unwrap();
    let len = part.elements().len();
    let piece = Piece { at: 0..len, part };
    let made = |seed: usize| (0..len).map(|at| ((at * 31 + seed * 7) % 1009) as f32 / 1009.0 - 0.5).collect::<Vec<_>>();
    let [mut momentum, mut master] = [1, 2].map(|seed| store.keep(made(seed)).unwrap());
    let (mut sent, mut steps, mut on_host) = (None, Vec::new(), true);
    for step in 0..2 {
        let gradient = store.keep(made(3 + step)).unwrap();
        let intake = Intake { gradient: &gradient, decay: 0.75, rate: 0.25 };
        let chosen = store.compress(layout, &piece, &mut momentum, intake, sent.take()).unwrap();
        on_host &= matches!(chosen, Sent::Host(_));
        let selection = chosen.fetch().unwrap().into_owned();
        let bytes = layout.encode_part(&piece.part, &selection).unwrap();
        let payload = layout.assemble(&[(piece.part.clone(), bytes)]).unwrap();
        let valid = layout.validate(&payload).unwrap();
        store.apply(layout, &piece, &[valid], &mut master, (0.125, 0.5)).unwrap();
        steps.push((values(&momentum), selection.clone(), values(&master)));
        // As after a snapshot was loaded.
        sent = Some(store.put(layout, &piece.part, selection).unwrap());
    }
    (steps, on_host)
}

#[test]
fn parameters_with_large_chunks_are_the_hosts_and_all_others_the_kernels() {
    for (shape, edge, large) in [(vec![64, 128], 64, false), (vec![2, 300], 512, true), (vec![600, 8], 600, true)] {
        let layout = Layout::new(&[ParameterSpec { name: "p".into(), shape }], edge, 5, true).unwrap();
        let host = || HostStore { threads: Threads::new(2) };
        let tensors = TensorStore { device: tch::Device::Cpu, host: host() };
        let mut kernels = KernelStore { kernels: Kernels::on_host(false), tensors };
        let (expected, _) = two_steps(&mut host(), &layout);
        let (found, on_host) = two_steps(&mut kernels, &layout);
        assert_eq!(on_host, large);
        if crate::codec::simd::Simd::best().fused() {
            assert!(found == expected);
        }
    }
}
