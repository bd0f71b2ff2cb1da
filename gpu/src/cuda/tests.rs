#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::codec::dct_basis;
use crate::codec::simd::Simd;
use crate::config::ParameterSpec;
use crate::digest;
use crate::exact::apply_payloads;
use crate::golden;

/// Shape, chunk edge and top-k: registers and scratch memory, odd and prime edges, rank 1 and 3, all coefficients, more
/// columns than fit into shared memory.
const CASES: [(&[usize], usize, usize); 9] = [
    (&[128, 192], 64, 8),
    (&[64, 64], 64, 4096),
    (&[64, 256], 64, 33),
    (&[3, 35, 22], 16, 5),
    (&[192], 64, 8),
    (&[131], 64, 4),
    (&[86, 64], 64, 8),
    (&[40, 48], 48, 2000),
    (&[100, 100], 100, 700),
];

/// The kernels on the CPU with threads in either order, and on a CUDA device wherever there is one.
fn everywhere() -> Vec<Kernels> {
    let mut all = vec![Kernels::on_host(false), Kernels::on_host(true)];
    if tch::Cuda::is_available() {
        all.push(Kernels::load(Device::Cuda(0), None).expect("kernels load where there is a device"));
    } else {
        eprintln!("no CUDA device here: the kernels run on the CPU only");
    }
    all
}

fn layout(shape: &[usize], chunk: usize, topk: usize, one_bit: bool) -> Layout {
    Layout::new(&[ParameterSpec { name: "model.norm".into(), shape: shape.to_vec() }], chunk, topk, one_bit).unwrap()
}

/// Reproducible values in (−1, 1).
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (rng.next_u32() as i32 as f32) / 2_147_483_648.0).collect()
}

fn put(kernels: &Kernels, values: &[f32]) -> Tensor {
    kernels.upload(values).unwrap().copy()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn bits_of(tensor: &Tensor) -> Vec<u32> {
    bits(&Vec::<f32>::try_from(tensor.to_device(Device::Cpu)).unwrap())
}

fn same(found: &Selection, expected: &Selection) -> bool {
    found.indices == expected.indices && bits(&found.values) == bits(&expected.values)
}

#[test]
fn the_basis_in_the_source_is_the_transforms() {
    unsafe extern "C" {
        fn psyche_host_basis_64(u: u32, j: u32) -> f32;
    }
    let basis = dct_basis(64);
    for (at, expected) in basis.into_iter().enumerate() {
        let (u, j) = (at as u32 / 64, at as u32 % 64);
        // SAFETY: takes and gives numbers only.
        let found = unsafe { psyche_host_basis_64(u, j) };
        assert_eq!(found.to_bits(), (expected as f32).to_bits(), "{u} {j}");
    }
}

#[test]
fn elementwise_kernels_give_the_cpus_bits() {
    for kernels in everywhere() {
        for len in [1, 255, 256, 5000] {
            let (master, mut momentum) = (noise(1, len), noise(2, len));
            momentum[0] = 0.0;
            let ahead = put(&kernels, &vec![7.0; len]);
            kernels.look_ahead(&put(&kernels, &master), &put(&kernels, &momentum), 3e-4, &ahead).unwrap();
            let sign = |m: f32| if m == 0.0 { 0.0 } else { m.signum() };
            let expected: Vec<f32> = master.iter().zip(&momentum).map(|(w, m)| w - 3e-4 * sign(*m)).collect();
            assert_eq!(bits_of(&ahead), bits(&expected));
            kernels.scale(&ahead, 0.999).unwrap();
            assert_eq!(bits_of(&ahead), bits(&expected.iter().map(|w| w * 0.999).collect::<Vec<_>>()));
        }
    }
}

/// Two steps on the CPU: momentum, then what was chosen, after each.
fn two_steps(layout: &Layout, part: &Part, gradients: &[Vec<f32>; 2]) -> [(Vec<f32>, Selection); 2] {
    let mut momentum = noise(3, part.elements().len());
    let mut sent: Option<Selection> = None;
    gradients.each_ref().map(|gradient| {
        if let Some(sent) = &sent {
            layout.subtract(part, sent, &mut momentum, Threads::ONE).unwrap();
        }
        momentum.iter_mut().zip(gradient).for_each(|(m, g)| *m = 0.75 * *m + 0.3 * g);
        let chosen = layout.compress(part, &momentum, Threads::ONE).unwrap();
        sent = Some(chosen.clone());
        (momentum.clone(), chosen)
    })
}

#[test]
fn momentum_and_selections_of_two_steps_are_the_cpus_to_the_last_bit() {
    if !Simd::best().fused() {
        eprintln!("no fused multiply-add here: coefficients may be rounded otherwise");
        return;
    }
    for mut kernels in everywhere() {
        for (shape, chunk, topk) in CASES {
            let layout = layout(shape, chunk, topk, true);
            let part = layout.whole(0).unwrap();
            let len = part.elements().len();
            let gradients = [noise(4, len), noise(5, len)];
            let expected = two_steps(&layout, &part, &gradients);
            let momentum = put(&kernels, &noise(3, len));
            let mut sent = None;
            for (gradient, (after, chosen)) in gradients.iter().zip(&expected) {
                let gradient = put(&kernels, gradient);
                let intake = Intake { gradient: &gradient, decay: 0.75, rate: 0.3 };
                let found = kernels.compress(&layout, &part, &momentum, Some(intake), sent.as_ref()).unwrap();
                assert_eq!(bits_of(&momentum), bits(after), "{shape:?}");
                let fetched = found.fetch().unwrap();
                assert!(same(&fetched, chosen), "{shape:?}");
                sent = Some(kernels.put_selection(&layout, &part, &fetched).unwrap());
            }
        }
    }
}

#[test]
fn ties_go_to_the_lower_index_as_on_the_cpu() {
    for mut kernels in everywhere() {
        for (shape, chunk, topk) in [(&[64, 64][..], 64, 8), (&[64, 128], 64, 700), (&[24, 24], 12, 5)] {
            let layout = layout(shape, chunk, topk, true);
            let part = layout.whole(0).unwrap();
            let len = part.elements().len();
            // No momentum at all, a constant, and one spike, whose spectrum is symmetric.
            let mut spike = vec![0.0; len];
            spike[0] = 1.0;
            for momentum in [vec![0.0; len], vec![0.25; len], spike] {
                let expected = layout.compress(&part, &momentum, Threads::ONE).unwrap();
                let momentum = put(&kernels, &momentum);
                let found = kernels.compress(&layout, &part, &momentum, None, None).unwrap().fetch().unwrap();
                assert_eq!(found.indices, expected.indices, "{shape:?}");
            }
        }
    }
}

#[test]
fn the_apply_gives_the_cpus_bits() {
    for mut kernels in everywhere() {
        for (shape, chunk, topk) in CASES {
            for one_bit in [true, false] {
                let layout = layout(shape, chunk, topk, one_bit);
                let part = layout.whole(0).unwrap();
                let len = part.elements().len();
                let payload = |seed| {
                    let selection = layout.compress(&part, &noise(seed, len), Threads::ONE).unwrap();
                    layout.assemble(&[(part.clone(), layout.encode_part(&part, &selection).unwrap())]).unwrap()
                };
                let payloads: Vec<_> = (10..13).map(payload).collect();
                let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
                let mut expected = noise(20, len);
                let weights = put(&kernels, &expected);
                kernels.apply(&layout, &part, &valid, &weights, (3e-4, 0.99), Threads::new(2)).unwrap();
                expected.iter_mut().for_each(|weight| *weight *= 0.99);
                apply_payloads(&layout, &part, &valid, &mut expected, 3e-4, Threads::ONE).unwrap();
                assert_eq!(bits_of(&weights), bits(&expected), "{shape:?}");
                kernels.apply(&layout, &part, &[], &weights, (3e-4, 0.5), Threads::ONE).unwrap();
                assert_eq!(bits_of(&weights), bits(&expected.iter().map(|w| w * 0.5).collect::<Vec<_>>()));
            }
        }
    }
}

#[test]
fn digests_are_the_cpus() {
    for kernels in everywhere() {
        for (shape, chunk) in [(&[96, 64][..], 8), (&[48], 8), (&[24, 80], 8), (&[1], 1), (&[300, 7], 7), (&[64, 64], 64)] {
            let layout = layout(shape, chunk, 2, true);
            let parameter = &layout.parameters()[0];
            let half = parameter.blocks() / 2;
            for blocks in [0..parameter.blocks(), half..parameter.blocks()] {
                let part = layout.part(0, blocks).unwrap();
                let rows = noise(6, part.elements().len());
                let expected = digest::block_digests(&layout, &part, &rows, Threads::ONE).unwrap();
                assert_eq!(kernels.block_digests(&layout, &part, &put(&kernels, &rows)).unwrap(), expected, "{shape:?}");
            }
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let mut kernels = everywhere().remove(0);
    let layout = layout(&[64, 64], 64, 8, true);
    let part = layout.whole(0).unwrap();
    let (good, short) = (put(&kernels, &[0.5; 4096]), put(&kernels, &[0.5; 4095]));
    let wide = good.to_kind(Kind::Double);
    let strided = good.view([64, 64]).tr();
    for bad in [&short, &wide, &strided] {
        assert!(kernels.compress(&layout, &part, bad, None, None).is_err());
        let intake = Intake { gradient: bad, decay: 0.5, rate: 0.5 };
        assert!(kernels.compress(&layout, &part, &good, Some(intake), None).is_err());
        assert!(kernels.block_digests(&layout, &part, bad).is_err());
        assert!(kernels.look_ahead(&good, bad, 0.1, &good).is_err());
    }
    let selection = Selection { indices: vec![0; 8], values: vec![0.0; 8] };
    assert!(kernels.put_selection(&layout, &part, &selection).is_err());
    assert!(Kernels::load(Device::Cpu, None).is_err());
}

#[test]
fn large_chunks_are_refused_before_anything_runs() {
    let mut kernels = everywhere().remove(0);
    for (shape, edge, large) in
        [(&[256, 512][..], 256, false), (&[256, 257], 257, true), (&[257, 4], 257, true), (&[300], 300, true)]
    {
        let layout = layout(shape, edge, 8, true);
        let part = layout.whole(0).unwrap();
        assert_eq!(Kernels::take(&layout, &part), !large, "{shape:?}");
        let rows = noise(1, part.elements().len());
        let chosen = layout.compress(&part, &rows, Threads::ONE).unwrap();
        let tensor = put(&kernels, &rows);
        assert_eq!(kernels.compress(&layout, &part, &tensor, None, None).is_err(), large);
        assert_eq!(kernels.put_selection(&layout, &part, &chosen).is_err(), large);
        assert_eq!(kernels.apply(&layout, &part, &[], &tensor, (0.1, 1.0), Threads::ONE).is_err(), large);
    }
}

#[test]
fn golden_updates_are_the_committed_ones_on_every_device() {
    for mut kernels in everywhere() {
        for case in golden::cases() {
            let (layout, part) = case.layout();
            if layout.parameters()[0].geometry().is_large() {
                continue;
            }
            let payloads = case.payload_bytes();
            let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
            let weights = put(&kernels, &golden::generated(case.weights_seed, part.elements().len()));
            let rates = (f32::from_bits(case.lr_bits), f32::from_bits(case.factor_bits));
            kernels.apply(&layout, &part, &valid, &weights, rates, Threads::ONE).unwrap();
            let after = Vec::<f32>::try_from(weights.to_device(Device::Cpu)).unwrap();
            let (hash, model) = golden::Case::digests(&layout, &part, &after, Threads::ONE);
            assert_eq!((hash, model), (case.weights_blake3, case.model_digest), "{:?}", case.shape);
            let blocks = kernels.block_digests(&layout, &part, &weights).unwrap();
            assert_eq!(blocks, digest::block_digests(&layout, &part, &after, Threads::ONE).unwrap());
            for (seed, payload) in case.momentum_seeds.into_iter().zip(&valid) {
                let momentum = put(&kernels, &golden::generated(seed, part.elements().len()));
                let chosen = kernels.compress(&layout, &part, &momentum, None, None).unwrap().fetch().unwrap();
                assert_eq!(chosen.indices, payload.decode(&part).unwrap().indices, "{:?}", case.shape);
            }
        }
    }
}
