//! Codec and exact apply on 2^20 parameters: a millisecond below is about a millisecond per million parameters.
//!
//! Each group has this crate's function beside `naive`, the textbook way to the same result (a matrix product in three
//! loops, a full sort, every term of the integer transform). At the end the ratios of the two, so that a change of
//! machine does not look like a change of code.

use std::hint::black_box;
use std::time::{Duration, Instant};

use divan::Bencher;
use psyche_gpu::codec::{Layout, Part, Selection, Threads, dct_basis};
use psyche_gpu::config::ParameterSpec;
use psyche_gpu::digest::block_digests;
use psyche_gpu::exact::{Accumulator, COEFFICIENT_BITS, apply_payloads, integer_basis};

const SIDE: usize = 1024;
const CHUNK: usize = 64;
const TOP_K: usize = 8;
const SENDERS: usize = 4;
const LR: f32 = 4e-4;

/// One tensor, what its senders chose, and their payloads.
struct Case {
    layout: Layout,
    part: Part,
    momentum: Vec<f32>,
    selections: Vec<Selection>,
    payloads: Vec<Vec<u8>>,
}

impl Case {
    fn new() -> Self {
        let specs = [ParameterSpec { name: "weight".into(), shape: vec![SIDE, SIDE] }];
        let layout = must(Layout::new(&specs, CHUNK, TOP_K, true));
        let part = must(layout.whole(0));
        let tensor = |seed| noise(seed, SIDE * SIDE);
        let compress = |seed| must(layout.compress(&part, &tensor(seed), Threads::ONE));
        let selections: Vec<Selection> = (0..SENDERS as u32).map(compress).collect();
        let encode = |selection| must(layout.assemble(&[(part.clone(), must(layout.encode_part(&part, selection)))]));
        let payloads = selections.iter().map(encode).collect();
        let signs = |selection: Selection| Selection {
            values: selection.values.into_iter().map(|v| if v < 0.0 { -1.0 } else { 1.0 }).collect(),
            ..selection
        };
        let selections = selections.into_iter().map(signs).collect();
        Self { momentum: tensor(9), layout, part, selections, payloads }
    }

    fn compress(&self) -> Selection {
        must(self.layout.compress(&self.part, &self.momentum, Threads::ONE))
    }

    fn apply(&self, rows: &mut [f32]) {
        let mut accumulator = must(Accumulator::new(&self.layout, &self.part));
        self.selections.iter().for_each(|selection| must(accumulator.add(selection)));
        must(accumulator.apply(rows, LR, Threads::ONE));
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod compress {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.bench_local(|| case.compress());
    }

    #[divan::bench(sample_count = 3)]
    fn naive(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.bench_local(|| naive_compress(&case));
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod apply_four_senders {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.with_inputs(|| case.momentum.clone()).bench_local_refs(|rows| case.apply(rows));
    }

    #[divan::bench]
    fn from_payloads(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        let valid: Vec<_> = case.payloads.iter().map(|payload| must(case.layout.validate(payload))).collect();
        let apply = |rows: &mut Vec<f32>| must(apply_payloads(&case.layout, &case.part, &valid, rows, LR, Threads::ONE));
        bencher.with_inputs(|| case.momentum.clone()).bench_local_refs(apply);
    }

    #[divan::bench(sample_count = 3)]
    fn naive(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.with_inputs(|| case.momentum.clone()).bench_local_refs(|rows| naive_apply(&case, rows));
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod bytes {
    use super::*;

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.bench_local(|| must(case.layout.encode_part(&case.part, &case.selections[0])));
    }

    #[divan::bench]
    fn validate(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.bench_local(|| must(case.layout.validate(&case.payloads[0])));
    }

    #[divan::bench]
    fn decode(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        let valid = must(case.layout.validate(&case.payloads[0]));
        bencher.bench_local(|| must(valid.decode(&case.part)));
    }

    #[divan::bench]
    fn subtract_own(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        let subtract = |rows: &mut Vec<f32>| {
            must(case.layout.subtract(&case.part, &case.selections[0], rows, Threads::ONE));
        };
        bencher.with_inputs(|| case.momentum.clone()).bench_local_refs(subtract);
    }

    #[divan::bench]
    fn digest(bencher: Bencher<'_, '_>) {
        let case = Case::new();
        bencher.bench_local(|| must(block_digests(&case.layout, &case.part, &case.momentum, Threads::ONE)));
    }
}

/// The definition of transform and selection, loop by loop.
fn naive_compress(case: &Case) -> Selection {
    let basis: Vec<f32> = dct_basis(CHUNK).into_iter().map(|value| value as f32).collect();
    let mut selection = Selection::default();
    let (mut half, mut coefficients) = (vec![0.0; CHUNK * CHUNK], vec![0.0_f32; CHUNK * CHUNK]);
    for (top, left) in chunks() {
        for i in 0..CHUNK {
            for v in 0..CHUNK {
                let line = &case.momentum[(top + i) * SIDE + left..][..CHUNK];
                half[i * CHUNK + v] = line.iter().zip(&basis[v * CHUNK..]).map(|(x, b)| x * b).sum();
            }
        }
        for u in 0..CHUNK {
            for v in 0..CHUNK {
                coefficients[u * CHUNK + v] = (0..CHUNK).map(|i| basis[u * CHUNK + i] * half[i * CHUNK + v]).sum();
            }
        }
        let mut order: Vec<u16> = (0..coefficients.len() as u16).collect();
        order.sort_by(|&a, &b| {
            let magnitude = |index: u16| coefficients[usize::from(index)].abs();
            magnitude(b).total_cmp(&magnitude(a)).then(a.cmp(&b))
        });
        order.truncate(TOP_K);
        order.sort_unstable();
        selection.values.extend(order.iter().map(|&index| coefficients[usize::from(index)]));
        selection.indices.extend(order);
    }
    selection
}

/// The definition of the apply: every term of both passes, in i64.
fn naive_apply(case: &Case, rows: &mut [f32]) {
    let basis: Vec<i64> = integer_basis(CHUNK).into_iter().map(i64::from).collect();
    let mut half = vec![0_i64; CHUNK * CHUNK];
    for (number, (top, left)) in chunks().enumerate() {
        let mut votes = vec![(0_i64, 0_i64); CHUNK * CHUNK];
        for selection in &case.selections {
            for at in number * TOP_K..(number + 1) * TOP_K {
                let vote = &mut votes[usize::from(selection.indices[at])];
                *vote = (vote.0 + selection.values[at] as i64, vote.1 + 1);
            }
        }
        let mean = |(sum, count): (i64, i64)| {
            let doubled = (2 * sum.abs()) << COEFFICIENT_BITS;
            if count == 0 { 0 } else { (doubled + count) / (2 * count) * sum.signum() }
        };
        let coefficients: Vec<i64> = votes.into_iter().map(mean).collect();
        for i in 0..CHUNK {
            for v in 0..CHUNK {
                let sum: i64 = (0..CHUNK).map(|u| basis[u * CHUNK + i] * coefficients[u * CHUNK + v]).sum();
                let (floor, rest) = (sum >> COEFFICIENT_BITS, sum & ((1 << COEFFICIENT_BITS) - 1));
                let tie = 1 << (COEFFICIENT_BITS - 1);
                half[i * CHUNK + v] = floor + i64::from(rest > tie || rest == tie && floor & 1 == 1);
            }
        }
        for i in 0..CHUNK {
            for j in 0..CHUNK {
                let sum: i64 = (0..CHUNK).map(|v| half[i * CHUNK + v] * basis[v * CHUNK + j]).sum();
                rows[(top + i) * SIDE + left + j] -= LR * sum.signum() as f32;
            }
        }
    }
}

/// Top left corners of the chunks.
fn chunks() -> impl Iterator<Item = (usize, usize)> {
    let across = SIDE / CHUNK;
    (0..across * across).map(move |number| (number / across * CHUNK, number % across * CHUNK))
}

/// Reproducible values in (−1, 1).
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i32 as f32 / 2_147_483_648.0
    };
    (0..len).map(|_| draw()).collect()
}

#[expect(clippy::expect_used, reason = "the inputs are the bench's own")]
fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("the bench fits its layout")
}

/// The fastest of a few runs.
fn best_of(runs: usize, mut work: impl FnMut()) -> Duration {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..runs).map(run).min().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a bench reports to its caller's terminal")]
fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let case = Case::new();
    assert_eq!(naive_compress(&case).indices, case.compress().indices, "both must choose alike");
    let (mut ours, mut naive) = (case.momentum.clone(), case.momentum.clone());
    case.apply(&mut ours);
    naive_apply(&case, &mut naive);
    assert!(ours == naive, "both must apply alike");
    let compress = best_of(10, || drop(black_box(case.compress())));
    let naive_compress = best_of(2, || drop(black_box(naive_compress(&case))));
    let apply = best_of(10, || case.apply(black_box(&mut ours)));
    let naive_apply = best_of(2, || naive_apply(&case, black_box(&mut naive)));
    for (name, fast, slow) in [("compress", compress, naive_compress), ("apply", apply, naive_apply)] {
        println!("{name}: {:.1} times as fast as naive", slow.as_secs_f64() / fast.as_secs_f64());
    }
}
