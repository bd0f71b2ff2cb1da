use std::f64::consts::PI;

use proptest::prelude::*;

use super::super::forward::Coefficients;
use super::super::simd::Simd;
use super::*;

fn basis(n: usize, u: usize, j: usize) -> f64 {
    let scale = if u == 0 { (1.0 / n as f64).sqrt() } else { (2.0 / n as f64).sqrt() };
    scale * (PI * (2 * j + 1) as f64 * u as f64 / (2 * n) as f64).cos()
}

/// The definition, term by term, in f64.
pub(super) fn reference_dct(chunk: &[f64], h: usize, w: usize) -> Vec<f64> {
    let mut half = vec![0.0; h * w];
    for (i, row) in chunk.chunks(w).enumerate() {
        for v in 0..w {
            half[i * w + v] = row.iter().enumerate().map(|(j, &x)| x * basis(w, v, j)).sum();
        }
    }
    let sum = |u: usize, v: usize| (0..h).map(|i| half[i * w + v] * basis(h, u, i)).sum();
    (0..h * w).map(|at| sum(at / w, at % w)).collect()
}

/// The inverse, term by term, in f64; terms of coefficients that are zero are left out.
pub(super) fn reference_inverse_dct(coefficients: &[f64], h: usize, w: usize) -> Vec<f64> {
    let mut chunk = vec![0.0; h * w];
    for (index, &coefficient) in coefficients.iter().enumerate().filter(|(_, coefficient)| **coefficient != 0.0) {
        let across: Vec<f64> = (0..w).map(|j| coefficient * basis(w, index % w, j)).collect();
        for (i, row) in chunk.chunks_mut(w).enumerate() {
            let down = basis(h, index / w, i);
            row.iter_mut().zip(&across).for_each(|(sum, across)| *sum += down * across);
        }
    }
    chunk
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn reference_top_k(coefficients: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..coefficients.len() as u32).collect();
    order.sort_by(|&a, &b| {
        let magnitude = |i: u32| coefficients[i as usize].abs();
        magnitude(b).total_cmp(&magnitude(a)).then(a.cmp(&b))
    });
    order.truncate(k);
    order.sort_unstable();
    order
}

/// All coefficients of a chunk of `[height, width]`, whose rows start `stride` apart.
fn forward(transform: &Transform, from: &[f32], (height, width, stride): (usize, usize, usize)) -> Vec<f32> {
    let mut coefficients = Coefficients::new(height, width);
    transform.forward(Simd::best(), from, stride, &mut coefficients);
    let mut all = vec![0.0; height * width];
    coefficients.write(&mut all);
    all
}

const SIZES: [(usize, usize); 9] = [(64, 64), (1, 64), (43, 64), (64, 1), (1, 1), (7, 5), (16, 48), (33, 65), (256, 100)];

#[test]
fn the_forward_transform_agrees_with_its_definition_in_f64() {
    for (h, w) in SIZES {
        let chunk = noise(1, h * w);
        let transform = Transform::new(h, w);
        let coefficients = forward(&transform, &chunk, (h, w, w));
        for (at, (&found, expected)) in coefficients.iter().zip(reference_dct(&widened(&chunk), h, w)).enumerate() {
            assert!((f64::from(found) - expected).abs() < 2e-5, "{h}×{w} at {at}: {found} {expected}");
        }
    }
}

#[test]
fn the_inverse_restores_the_chunk() {
    for (h, w) in SIZES {
        let chunk = noise(2, h * w);
        let transform = Transform::new(h, w);
        let mut back = vec![0.0; h * w];
        let coefficients = forward(&transform, &chunk, (h, w, w));
        transform.inverse(&coefficients, &mut back);
        for (found, expected) in back.iter().zip(&chunk) {
            assert!((found - expected).abs() < 2e-5, "{h}×{w}: {found} {expected}");
        }
    }
}

#[test]
fn what_leaves_the_momentum_is_the_inverse_of_what_was_sent() {
    // Small chunks whose width is not a whole number of vectors, and large ones.
    for (shape, chunk, k) in [([64, 128], 64, 9), ([43, 37], 64, 9), ([7, 5], 7, 35), ([300, 40], 300, 9), ([2, 777], 777, 3)] {
        let layout = Layout::new(&[spec("a", &shape)], chunk, k, true).unwrap();
        let (part, g) = (layout.whole(0).unwrap(), *layout.parameters()[0].geometry());
        let (h, w, n) = (g.chunk_height(), g.chunk_width(), g.chunk_len());
        let indices: Vec<u32> = (0..g.chunks()).flat_map(|_| (0..k).map(move |i| (i * (n - 1) / (k - 1)) as u32)).collect();
        let selection = Selection { values: noise(3, indices.len()), indices };
        let mut rows = vec![0.0; g.elements()];
        layout.subtract(&part, &selection, &mut rows, Threads::new(2)).unwrap();
        let mut found = vec![0.0; n];
        for chunk in 0..g.chunks() {
            let mut dense = vec![0.0; n];
            for at in chunk * k..(chunk + 1) * k {
                dense[selection.indices[at] as usize] = f64::from(selection.values[at]);
            }
            let slab = &rows[chunk / g.chunks_per_row() * g.slab_len()..][..g.slab_len()];
            g.gather(slab, chunk % g.chunks_per_row(), &mut found);
            for (found, expected) in found.iter().zip(reference_inverse_dct(&dense, h, w)) {
                assert!((f64::from(-found) - expected).abs() < 1e-5, "{shape:?}: {found} {expected}");
            }
        }
    }
}

#[test]
fn large_chunks_transform_as_the_definition_says_for_lengths_of_every_kind() {
    // Powers of two, primes, one row, one column.
    for (h, w) in [(512, 1), (1, 509), (257, 2), (300, 8), (3, 1000)] {
        let layout = Layout::new(&[spec("a", &[h, w])], h.max(w), h * w, false).unwrap();
        assert!(layout.parameters()[0].geometry().is_large());
        let chunk = noise(1, h * w);
        let all = layout.compress(&layout.whole(0).unwrap(), &chunk, Threads::ONE).unwrap();
        assert!(all.indices.iter().copied().eq(0..(h * w) as u32));
        for (found, expected) in all.values.iter().zip(reference_dct(&widened(&chunk), h, w)) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{h}×{w}: {found} {expected}");
        }
    }
}

#[test]
fn a_chunk_inside_a_tensor_transforms_as_its_copy_does() {
    let g = Geometry::new(&[32, 96], 16).unwrap();
    let tensor = noise(4, g.elements());
    let transform = Transform::new(16, 16);
    let mut chunk = vec![0.0; 256];
    let slab = &tensor[g.slab_len()..];
    g.gather(slab, 3, &mut chunk);
    assert_eq!(forward(&transform, &slab[3 * 16..], (16, 16, g.width())), forward(&transform, &chunk, (16, 16, 16)));
}

#[test]
fn top_k_of_ties_takes_the_lower_indices() {
    let mut top = TopK::default();
    assert_eq!(top.select(&[1.0; 100], 3), [0, 1, 2]);
    let mut values = vec![0.5; 100];
    values[70] = -2.0;
    values[20] = 1.0;
    assert_eq!(top.select(&values, 4), [0, 1, 20, 70]);
    values[99] = f32::NAN;
    assert_eq!(top.select(&values, 1), [99]);
    assert_eq!(top.select(&[0.0, -0.0, 0.0], 3), [0, 1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn prop_selection_agrees_with_a_sort(
        // Few distinct values, so that ties are common.
        coefficients in prop::collection::vec((-6..6_i8).prop_map(f32::from), 1..300),
        share in 0.0..1.0_f64,
    ) {
        let k = 1 + (share * (coefficients.len() - 1) as f64) as usize;
        prop_assert_eq!(TopK::default().select(&coefficients, k).to_vec(), reference_top_k(&coefficients, k));
    }

    #[test]
    fn prop_selection_of_noise_agrees_with_a_sort(seed: u64, len in 1..5000_usize, k in 1..64_usize) {
        let coefficients = noise(seed, len);
        let k = k.min(len);
        prop_assert_eq!(TopK::default().select(&coefficients, k).to_vec(), reference_top_k(&coefficients, k));
    }
}

#[test]
fn compression_keeps_the_largest_coefficients_of_the_reference() {
    let layout = Layout::new(&[spec("a", &[128, 128])], 64, 8, true).unwrap();
    let part = layout.whole(0).unwrap();
    let tensor = noise(5, 128 * 128);
    let selection = layout.compress(&part, &tensor, Threads::ONE).unwrap();
    let g = *layout.parameters()[0].geometry();
    let mut chunk = vec![0.0; g.chunk_len()];
    for (number, (indices, values)) in selection.indices.chunks(8).zip(selection.values.chunks(8)).enumerate() {
        let slab = &tensor[number / 2 * g.slab_len()..];
        g.gather(&slab[..g.slab_len()], number % 2, &mut chunk);
        let reference: Vec<f32> = reference_dct(&widened(&chunk), 64, 64).into_iter().map(|value| value as f32).collect();
        assert_eq!(indices, reference_top_k(&reference, 8));
        for (&index, value) in indices.iter().zip(values) {
            assert!((reference[index as usize] - value).abs() < 2e-5);
        }
    }
}

#[test]
fn threads_and_owners_do_not_change_what_is_compressed() {
    let layout = mixed_layout(16, 5, true);
    for index in 0..layout.parameters().len() {
        let whole = layout.whole(index).unwrap();
        let rows = noise(6, whole.elements().len());
        let one = layout.compress(&whole, &rows, Threads::ONE).unwrap();
        for threads in [2, 3, 4, 64] {
            assert_eq!(layout.compress(&whole, &rows, Threads::new(threads)).unwrap(), one);
        }
        let mut joined = Selection::default();
        for block in whole.blocks() {
            let part = layout.part(index, block..block + 1).unwrap();
            let selection = layout.compress(&part, &rows[part.elements()], Threads::ONE).unwrap();
            joined.indices.extend(selection.indices);
            joined.values.extend(selection.values);
        }
        assert_eq!(joined, one);
    }
}

#[test]
fn instruction_sets_choose_alike_and_round_alike_where_they_fuse() {
    for chunk in [8, 16, 37, 64] {
        let layout = mixed_layout(chunk, 5, true);
        for index in 0..layout.parameters().len() {
            let whole = layout.whole(index).unwrap();
            let rows = noise(8, whole.elements().len());
            let best = layout.compress(&whole, &rows, Threads::ONE).unwrap();
            for simd in Simd::all() {
                let found = layout.compress_with(simd, &whole, &rows, Threads::ONE).unwrap();
                assert_eq!(found.indices, best.indices, "{simd:?}");
                if simd.fused() == Simd::best().fused() {
                    assert_eq!(found.values, best.values, "{simd:?}");
                }
                let close = found.values.iter().zip(&best.values).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(close, "{simd:?}");
            }
        }
    }
}

#[test]
fn subtracting_a_selection_removes_exactly_those_coefficients() {
    let layout = mixed_layout(16, 5, true);
    for index in 0..layout.parameters().len() {
        let part = layout.whole(index).unwrap();
        let rows = noise(7, part.elements().len());
        let selection = layout.compress(&part, &rows, Threads::ONE).unwrap();
        let mut rest = rows.clone();
        layout.subtract(&part, &selection, &mut rest, Threads::ONE).unwrap();
        let mut again = rows.clone();
        layout.subtract(&part, &selection, &mut again, Threads::new(3)).unwrap();
        assert_eq!(rest, again);
        // By Parseval the energy falls by the coefficients' squares.
        let energy = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        let expected = energy(&rows) - energy(&selection.values);
        assert!((energy(&rest) - expected).abs() < 1e-4 * energy(&rows), "{index}");
    }
}
