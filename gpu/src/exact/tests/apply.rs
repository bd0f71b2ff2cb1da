use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::codec::simd::Simd;
use crate::codec::{Layout, Part, Selection, Threads};
use crate::config::ParameterSpec;

fn layout(shape: &[usize], chunk: usize, topk: usize, one_bit: bool) -> Layout {
    Layout::new(&[ParameterSpec { name: "p".into(), shape: shape.to_vec() }], chunk, topk, one_bit).unwrap()
}

/// Random weights of all magnitudes, made from integers.
fn weights(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || (rng.next_u32() as i32 as f32) / 2_147_483_648.0;
    (0..len).map(|i| draw() * [1.0, 0.0625, 16.0, 1e-6][i % 4]).collect()
}

/// A random selection: mostly indices that other senders choose too, so that votes meet.
fn selection(layout: &Layout, part: &Part, seed: u64) -> Selection {
    let parameter = &layout.parameters()[0];
    let (n, k) = (parameter.geometry().chunk_len(), parameter.k());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut selection = Selection::default();
    for _ in part.chunks() {
        let mut chosen = std::collections::BTreeSet::new();
        while chosen.len() < k {
            let range = if rng.next_u32() % 4 == 0 { n } else { n.min(3 * k) };
            chosen.insert((rng.next_u32() as usize % range) as u32);
        }
        selection.indices.extend(chosen);
    }
    let one_bit = layout.quantization() == crate::codec::Quantization::OneBit;
    selection.values = weights(seed ^ 1, selection.indices.len());
    if one_bit {
        selection.values.iter_mut().for_each(|value| *value = if *value < 0.0 { -1.0 } else { 1.0 });
    } else {
        selection.values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits() & 0xffff_0000));
    }
    selection
}

fn applied(layout: &Layout, senders: &[Selection], before: &[f32], lr: f32, threads: usize) -> Vec<f32> {
    applied_with(Simd::best(), layout, senders, before, (lr, threads))
}

fn applied_with(simd: Simd, layout: &Layout, senders: &[Selection], before: &[f32], (lr, threads): (f32, usize)) -> Vec<f32> {
    let part = layout.whole(0).unwrap();
    let mut accumulator = Accumulator::new(layout, &part).unwrap().with(simd);
    senders.iter().for_each(|sender| accumulator.add(sender).unwrap());
    let mut rows = before.to_vec();
    accumulator.apply(&mut rows, lr, Threads::new(threads)).unwrap();
    rows
}

/// The module's definition in integers, term by term.
fn sums_by_definition(layout: &Layout, senders: &[Selection], chunk: usize) -> Vec<i64> {
    let parameter = &layout.parameters()[0];
    let (h, w, k) = (parameter.geometry().chunk_height(), parameter.geometry().chunk_width(), parameter.k());
    let votes: Vec<(usize, f64)> = senders
        .iter()
        .flat_map(|s| s.indices[chunk * k..][..k].iter().zip(&s.values[chunk * k..][..k]))
        .map(|(&index, &value)| (index as usize, f64::from(value)))
        .collect();
    let largest = votes.iter().fold(0.0_f64, |most, (_, value)| most.max(value.abs()));
    let exponent = if largest == 0.0 { 0 } else { (-200..200).find(|&e| 2.0_f64.powi(e) >= largest).unwrap() };
    let round_half_away = |numerator: i64, denominator: i64| {
        let magnitude = (2 * numerator.abs() + denominator).div_euclid(2 * denominator);
        magnitude * numerator.signum()
    };
    let mut coefficients = vec![0_i64; h * w];
    for (at, coefficient) in coefficients.iter_mut().enumerate() {
        let sent = votes.iter().filter(|(index, _)| *index == at);
        let sent: Vec<i64> = sent.map(|(_, value)| (value * 2.0_f64.powi(20 - exponent)).round() as i64).collect();
        if !sent.is_empty() {
            *coefficient = round_half_away(sent.iter().sum(), sent.len() as i64);
        }
    }
    let (vertical, horizontal) = (integer_basis(h), integer_basis(w));
    let shifted = |i: usize, v: usize| {
        let sum: i64 = (0..h).map(|u| i64::from(vertical[u * h + i]) * coefficients[u * w + v]).sum();
        let (floor, rest) = (sum >> 20, sum & 0xf_ffff);
        floor + i64::from(rest > 0x8_0000 || rest == 0x8_0000 && floor & 1 == 1)
    };
    let half: Vec<i64> = (0..h * w).map(|at| shifted(at / w, at % w)).collect();
    let sum = |i: usize, j: usize| (0..w).map(|v| half[i * w + v] * i64::from(horizontal[v * w + j])).sum();
    (0..h * w).map(|at| sum(at / w, at % w)).collect()
}

fn applied_by_definition(layout: &Layout, senders: &[Selection], before: &[f32], lr: f32) -> Vec<f32> {
    let g = layout.parameters()[0].geometry();
    let mut rows = before.to_vec();
    let mut chunk = vec![0.0; g.chunk_len()];
    for number in 0..g.chunks() {
        let slab = &mut rows[number / g.chunks_per_row() * g.slab_len()..][..g.slab_len()];
        g.gather(slab, number % g.chunks_per_row(), &mut chunk);
        for (weight, sum) in chunk.iter_mut().zip(sums_by_definition(layout, senders, number)) {
            match sum.signum() {
                1 => *weight -= lr,
                -1 => *weight += lr,
                _ => {}
            }
        }
        g.scatter(&chunk, number % g.chunks_per_row(), slab);
    }
    rows
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn any_case() -> impl Strategy<Value = (Layout, u64, usize)> {
    let shape = prop::collection::vec(1..50_usize, 1..4);
    (shape, 1..25_usize, 1..9_usize, any::<bool>(), any::<u64>(), 1..7_usize)
        .prop_map(|(shape, chunk, topk, one_bit, seed, senders)| (layout(&shape, chunk, topk, one_bit), seed, senders))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_the_apply_is_its_integer_definition_for_any_threads_and_sender_order((layout, seed, count) in any_case()) {
        let part = layout.whole(0).unwrap();
        let mut senders: Vec<_> = (0..count as u64).map(|s| selection(&layout, &part, seed.wrapping_add(s))).collect();
        let before = weights(seed, part.elements().len());
        let expected = bits(&applied_by_definition(&layout, &senders, &before, 0.0123));
        for threads in 1..=8 {
            prop_assert_eq!(&bits(&applied(&layout, &senders, &before, 0.0123, threads)), &expected);
        }
        for simd in Simd::all() {
            prop_assert_eq!(&bits(&applied_with(simd, &layout, &senders, &before, (0.0123, 1))), &expected, "{:?}", simd);
        }
        senders.reverse();
        prop_assert_eq!(&bits(&applied(&layout, &senders, &before, 0.0123, 1)), &expected);
        senders.rotate_left(count / 2);
        prop_assert_eq!(&bits(&applied(&layout, &senders, &before, 0.0123, 1)), &expected);
    }
}

#[test]
fn full_size_chunks_follow_the_integer_definition() {
    for (shape, chunk, topk) in
        [([128, 64], 64, 8), ([256, 256], 256, 4), ([64, 100], 64, 32), ([257, 24], 257, 40), ([6, 300], 500, 7)]
    {
        let layout = layout(&shape, chunk, topk, true);
        let part = layout.whole(0).unwrap();
        let senders: Vec<_> = (0..5).map(|seed| selection(&layout, &part, seed)).collect();
        let before = weights(9, part.elements().len());
        let expected = applied_by_definition(&layout, &senders, &before, 3e-4);
        for (simd, threads) in Simd::all().into_iter().zip(1..) {
            let found = applied_with(simd, &layout, &senders, &before, (3e-4, threads));
            assert_eq!(bits(&found), bits(&expected), "{simd:?}");
        }
    }
}

#[test]
fn the_largest_sums_stay_exact() {
    // Every coefficient of the largest chunk with the same vote, or with the signs of one basis column.
    let layout = layout(&[256, 256], 256, 65_536, true);
    let column = integer_basis(256);
    let sign = |at: usize| if column[at * 256 + 3] < 0 { -1.0 } else { 1.0 };
    for aligned in [false, true] {
        let values = (0..65_536).map(|at| if aligned { sign(at / 256) * sign(at % 256) } else { 1.0 }).collect();
        let sender = [Selection { indices: (0..=65_535).collect(), values }];
        let before = weights(2, 65_536);
        let expected = applied_by_definition(&layout, &sender, &before, 0.5);
        for simd in Simd::all() {
            assert_eq!(bits(&applied_with(simd, &layout, &sender, &before, (0.5, 1))), bits(&expected), "{simd:?}");
        }
    }
}

#[test]
fn the_largest_sums_of_large_chunks_stay_exact() {
    // Every coefficient with the signs of one column of the basis: the largest sum that there is.
    let (h, w) = (257, 33);
    let layout = layout(&[h, w], 257, h * w, true);
    let (down, across) = (integer_basis(h), integer_basis(w));
    let sign = |value: i32| if value < 0 { -1.0 } else { 1.0 };
    let values = (0..h * w).map(|at| sign(down[at / w * h + 3]) * sign(across[at % w * w + 1])).collect();
    let sender = [Selection { indices: (0..(h * w) as u32).collect(), values }];
    let before = weights(2, h * w);
    let expected = applied_by_definition(&layout, &sender, &before, 0.5);
    for threads in [1, 3] {
        assert_eq!(bits(&applied(&layout, &sender, &before, 0.5, threads)), bits(&expected));
    }
}

#[test]
fn the_longest_chunk_that_a_run_may_ask_for_is_applied_by_the_definition() {
    let n = crate::codec::MAX_CHUNK;
    let layout = layout(&[n], n, 3, true);
    let senders = [
        Selection { indices: vec![0, 1, 65_534], values: vec![1.0, -1.0, 1.0] },
        Selection { indices: vec![1, 40_000, 65_534], values: vec![-1.0, 1.0, -1.0] },
    ];
    let before = weights(3, n);
    let found = applied(&layout, &senders, &before, 0.5, 2);
    let entry = |v: u64, j: u64| {
        let scale = if v == 0 { (1.0 / n as f64).sqrt() } else { (2.0 / n as f64).sqrt() };
        (scale * cos_pi_ratio((2 * j + 1) * v, n as u64) * f64::from(1 << basis_bits(n))).round() as i64
    };
    for (j, (found, before)) in found.iter().zip(&before).enumerate() {
        // Votes on the last coefficient cancel; with one row the first pass only rescales.
        let sum: i64 = [(0, 1), (1, -1), (40_000, 1)].iter().map(|&(v, vote)| vote * entry(v, j as u64)).sum();
        let expected = if sum > 0 {
            before - 0.5
        } else if sum < 0 {
            before + 0.5
        } else {
            *before
        };
        assert_eq!(found.to_bits(), expected.to_bits(), "{j}");
    }
}

#[test]
fn signs_agree_with_real_arithmetic_where_the_result_is_not_tiny() {
    let layout = layout(&[128, 128], 64, 8, true);
    let part = layout.whole(0).unwrap();
    let senders: Vec<_> = (0..4).map(|seed| selection(&layout, &part, 100 + seed)).collect();
    let moved = applied(&layout, &senders, &vec![0.0; 128 * 128], 1.0, 1);
    let g = layout.parameters()[0].geometry();
    let transform = layout.parameters()[0].transform();
    let [mut chunk, mut real] = [(); 2].map(|()| vec![0.0; 4096]);
    let mut compared = 0;
    for number in 0..4 {
        let mut votes = vec![(0.0_f32, 0.0_f32); 4096];
        for sender in &senders {
            for at in number * 8..(number + 1) * 8 {
                let vote = &mut votes[sender.indices[at] as usize];
                *vote = (vote.0 + sender.values[at], vote.1 + 1.0);
            }
        }
        let mean: Vec<f32> = votes.iter().map(|(sum, count)| if *count > 0.0 { sum / count } else { 0.0 }).collect();
        transform.inverse(&mean, &mut real);
        g.gather(&moved[number / 2 * g.slab_len()..][..g.slab_len()], number % 2, &mut chunk);
        for (moved, real) in chunk.iter().zip(&real).filter(|(_, real)| real.abs() > 1e-5) {
            assert_eq!(*moved, -real.signum());
            compared += 1;
        }
    }
    assert!(compared > 16_000, "{compared}");
}

#[test]
fn weights_without_a_vote_keep_their_bits() {
    let layout = layout(&[8, 8], 8, 2, true);
    let before: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { f32::from_bits(0x7fc0_1234) } else { -0.0 }).collect();
    assert_eq!(bits(&applied(&layout, &[], &before, 0.1, 2)), bits(&before));
    let yes = Selection { indices: vec![3, 5], values: vec![1.0, -1.0] };
    let no = Selection { indices: vec![3, 5], values: vec![-1.0, 1.0] };
    assert_eq!(bits(&applied(&layout, &[yes, no], &before, 0.1, 1)), bits(&before));
}

#[test]
fn a_constant_coefficient_moves_every_weight_by_one_rounded_operation() {
    let layout = layout(&[4, 4], 4, 1, true);
    let before = weights(5, 16);
    for (value, lr) in [(1.0, 1e-3_f32), (-1.0, 1e-3), (1.0, 0.0)] {
        let sender = Selection { indices: vec![0], values: vec![value] };
        let expected: Vec<f32> = before.iter().map(|weight| weight - value * lr).collect();
        assert_eq!(bits(&applied(&layout, &[sender], &before, lr, 1)), bits(&expected));
    }
}

#[test]
fn selections_and_rows_that_do_not_fit_are_refused() {
    let layout = layout(&[8, 8], 8, 2, true);
    let part = layout.whole(0).unwrap();
    let good = Selection { indices: vec![3, 5], values: vec![1.0, -1.0] };
    let bad = [
        Selection { indices: vec![3], values: vec![1.0] },
        Selection { indices: vec![5, 3], values: vec![1.0, 1.0] },
        Selection { indices: vec![3, 64], values: vec![1.0, 1.0] },
        Selection { indices: vec![3, 5], values: vec![1.0, f32::NAN] },
    ];
    let mut accumulator = Accumulator::new(&layout, &part).unwrap();
    bad.iter().for_each(|selection| assert!(accumulator.add(selection).is_err()));
    accumulator.add(&good).unwrap();
    assert!(accumulator.apply(&mut [0.0; 63], 0.1, Threads::ONE).is_err());
}

#[test]
fn payloads_applied_piece_by_piece_give_the_same_weights() {
    for one_bit in [true, false] {
        let layout = layout(&[1040, 24], 8, 4, one_bit);
        let part = layout.whole(0).unwrap();
        let senders: Vec<_> = (0..3).map(|seed| selection(&layout, &part, 40 + seed)).collect();
        let encode = |sender| layout.assemble(&[(part.clone(), layout.encode_part(&part, sender).unwrap())]).unwrap();
        let payloads: Vec<_> = senders.iter().map(encode).collect();
        let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
        let before = weights(6, part.elements().len());
        let expected = bits(&applied(&layout, &senders, &before, 0.01, 1));
        for threads in [1, 2, 4] {
            let mut rows = before.clone();
            apply_payloads(&layout, &part, &valid, &mut rows, 0.01, Threads::new(threads)).unwrap();
            assert_eq!(bits(&rows), expected);
        }
        let mut rows = before.clone();
        for part in layout.split(3).into_iter().flatten() {
            let range = part.elements();
            apply_payloads(&layout, &part, &valid, &mut rows[range], 0.01, Threads::ONE).unwrap();
        }
        assert_eq!(bits(&rows), expected);
    }
}

#[test]
fn the_apply_gives_the_committed_weights() {
    for one_bit in [true, false] {
        let mut hasher = blake3::Hasher::new();
        for (shape, chunk, topk) in [(&[128, 192][..], 64, 8), (&[3, 35, 22], 16, 5), (&[192], 64, 8), (&[256, 256], 256, 8)] {
            let layout = layout(shape, chunk, topk, one_bit);
            let part = layout.whole(0).unwrap();
            let senders: Vec<_> = (0..7).map(|seed| selection(&layout, &part, 1000 + seed)).collect();
            let before = weights(7, part.elements().len());
            let after = applied(&layout, &senders, &before, 0.000_4, 2);
            after.iter().for_each(|weight| _ = hasher.update(&weight.to_le_bytes()));
        }
        let key = if one_bit { "apply.one_bit" } else { "apply.bf16" };
        assert_eq!(hasher.finalize().to_hex().as_str(), golden(GOLDEN, key));
    }
}
