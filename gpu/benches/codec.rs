//! Codec and exact apply on 2^20 parameters: a millisecond below is about a millisecond per million parameters.
//!
//! Each group has this crate's function beside `naive`, the textbook way to the same result (a matrix product in three
//! loops, a full sort, every term of the integer transform). At the end a table against the plain way in torch's
//! operations: DCT by matrix products, topk, scatter, inverse by matrix products, sign. Both run in turns in the same
//! process, so that a change of machine does not look like a change of code; index sets must be identical.
//!
//! `cargo bench -p psyche-gpu --bench codec -- table` prints the table only.

use std::hint::black_box;
use std::time::Instant;

use divan::Bencher;
use psyche_gpu::codec::{Layout, Part, Selection, Threads, dct_basis};
use psyche_gpu::config::ParameterSpec;
use psyche_gpu::digest::block_digests;
use psyche_gpu::exact::{Accumulator, COEFFICIENT_BITS, apply_payloads, integer_basis};
use tch::{Device, Kind, Tensor};

const SIDE: usize = 1024;
const CHUNK: usize = 64;
const TOP_K: usize = 8;
const SENDERS: usize = 4;
const LR: f32 = 4e-4;
/// Runs of which the table takes the best.
const RUNS: usize = 30;

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
        let mut order: Vec<u32> = (0..coefficients.len() as u32).collect();
        order.sort_by(|&a, &b| {
            let magnitude = |index: u32| coefficients[index as usize].abs();
            magnitude(b).total_cmp(&magnitude(a)).then(a.cmp(&b))
        });
        order.truncate(TOP_K);
        order.sort_unstable();
        selection.values.extend(order.iter().map(|&index| coefficients[index as usize]));
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
                let vote = &mut votes[selection.indices[at] as usize];
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

/// The plain way, in torch's operations.
struct Plain {
    basis: Tensor,
    momentum: Tensor,
}

impl Plain {
    fn new(case: &Case) -> Self {
        let basis: Vec<f32> = dct_basis(CHUNK).into_iter().map(|value| value as f32).collect();
        let edge = CHUNK as i64;
        let basis = must(Tensor::f_from_slice(&basis).and_then(|basis| basis.f_view([edge, edge])));
        let momentum = must(Tensor::f_from_slice(&case.momentum).and_then(|m| m.f_view([SIDE as i64, SIDE as i64])));
        Self { basis, momentum }
    }

    /// Chunks as a batch: `[chunks, edge, edge]`.
    fn chunks(tensor: &Tensor) -> Tensor {
        let (edge, across) = (CHUNK as i64, (SIDE / CHUNK) as i64);
        tensor.view([across, edge, across, edge]).permute([0, 2, 1, 3]).reshape([-1, edge, edge])
    }

    /// Indices and values of the top k of each chunk: `[chunks, k]`.
    fn compress(&self) -> (Tensor, Tensor) {
        let coefficients = self.basis.matmul(&Self::chunks(&self.momentum)).matmul(&self.basis.tr());
        let flat = coefficients.reshape([-1, (CHUNK * CHUNK) as i64]);
        let (_, indices) = flat.abs().topk(TOP_K as i64, -1, true, false);
        let values = flat.gather(-1, &indices, false);
        (indices, values)
    }

    /// `weights − lr · sign(inverse(mean over senders))`, the senders' results side by side.
    fn apply(&self, indices: &Tensor, values: &Tensor, weights: &mut Tensor) {
        let (edge, across) = (CHUNK as i64, (SIDE / CHUNK) as i64);
        let zeros = || Tensor::zeros([indices.size()[0], edge * edge], (Kind::Float, Device::Cpu));
        // What scatter_reduce with a mean that leaves the zeros out does inside; tch can't ask it to.
        let count = zeros().scatter_add_(-1, indices, &values.ones_like()).clamp_min_(1.0);
        let dense = zeros().scatter_add_(-1, indices, values).g_div_(&count);
        let update = self.basis.tr().matmul(&dense.view([-1, edge, edge])).matmul(&self.basis).sign();
        let update = update.view([across, across, edge, edge]).permute([0, 2, 1, 3]).reshape([SIDE as i64, SIDE as i64]);
        let _same = weights.g_sub_(&(update * f64::from(LR)));
    }
}

/// All senders' selections side by side, as the plain way takes them.
fn side_by_side(case: &Case) -> (Tensor, Tensor) {
    let chunks = (case.selections[0].indices.len() / TOP_K) as i64;
    let one = |selection: &Selection| {
        let indices: Vec<i64> = selection.indices.iter().map(|&index| i64::from(index)).collect();
        let shape = [chunks, TOP_K as i64];
        (Tensor::from_slice(&indices).view(shape), Tensor::from_slice(&selection.values).view(shape))
    };
    let (indices, values): (Vec<_>, Vec<_>) = case.selections.iter().map(one).unzip();
    (Tensor::cat(&indices, -1), Tensor::cat(&values, -1))
}

/// Checks that both ways choose the same coefficients, and apply alike but for the rounding of the plain one.
fn check(case: &Case, plain: &Plain) {
    let ours = case.compress();
    assert_eq!(naive_compress(case).indices, ours.indices, "the textbook must choose alike");
    let chosen: Vec<i64> = must(plain.compress().0.sort(-1, false).0.view(-1).try_into());
    assert!(chosen.iter().copied().eq(ours.indices.iter().map(|&index| i64::from(index))), "torch must choose alike");
    let [mut exact, mut naive] = [(); 2].map(|()| case.momentum.clone());
    case.apply(&mut exact);
    naive_apply(case, &mut naive);
    assert!(exact == naive, "the textbook must apply alike");
    let (indices, values) = side_by_side(case);
    let mut weights = plain.momentum.copy();
    plain.apply(&indices, &values, &mut weights);
    let weights: Vec<f32> = must(weights.view(-1).try_into());
    let differ = weights.iter().zip(&exact).filter(|(a, b)| a != b).count();
    assert!(differ < exact.len() / 100_000, "torch must apply alike but where the result is near zero: {differ} differ");
}

/// Encode, decode and apply by both ways in turns, and the digest, in nanoseconds per parameter and core.
#[expect(clippy::print_stdout, reason = "a bench reports to its caller's terminal")]
fn table() {
    let case = Case::new();
    let plain = Plain::new(&case);
    check(&case, &plain);
    let (indices, values) = side_by_side(&case);
    println!("ns per parameter and core, best of {RUNS}; {SENDERS} senders, {CHUNK} x {CHUNK} chunks, top {TOP_K}");
    println!("| threads | torch encode | ours | torch decode + apply | ours | torch in all | ours | times | digest |");
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for count in [1, 2] {
        let threads = Threads::new(count);
        tch::set_num_threads(count as i32);
        let mut best = [f64::INFINITY; 5];
        let mut weights = plain.momentum.copy();
        let mut rows = case.momentum.clone();
        for _ in 0..RUNS {
            let each: [&mut dyn FnMut(); 5] = [
                &mut || drop(black_box(plain.compress())),
                &mut || {
                    let chosen = must(case.layout.compress(&case.part, &case.momentum, threads));
                    black_box(must(case.layout.encode_part(&case.part, &chosen)));
                },
                &mut || plain.apply(&indices, &values, &mut weights),
                &mut || {
                    let valid = case.payloads.iter().map(|payload| must(case.layout.validate(payload)));
                    let valid: Vec<_> = valid.collect();
                    must(apply_payloads(&case.layout, &case.part, &valid, &mut rows, LR, threads));
                },
                &mut || drop(black_box(must(block_digests(&case.layout, &case.part, &case.momentum, threads)))),
            ];
            for (best, work) in best.iter_mut().zip(each) {
                let start = Instant::now();
                work();
                *best = best.min(start.elapsed().as_secs_f64() * 1e9 * count as f64 / (SIDE * SIDE) as f64);
            }
        }
        let [encode, our_encode, apply, our_apply, digest] = best;
        let (torch, ours) = (encode + apply, our_encode + our_apply);
        println!(
            "| {count} | {encode:.2} | {our_encode:.2} | {apply:.2} | {our_apply:.2} | {torch:.2} | {ours:.2} | {:.1} | {digest:.2} |",
            torch / ours
        );
        shares(count, (digest, ours));
    }
}

/// What digest and codec take of a step of 2,048 tokens: at most so much, as a step is more than its matrix products.
#[expect(clippy::print_stdout, reason = "a bench reports to its caller's terminal")]
fn shares(threads: usize, (digest, codec): (f64, f64)) {
    let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
    let (tokens, weights) = (random([2048, SIDE as i64]), random([SIDE as i64, SIDE as i64]));
    let mut product = f64::INFINITY;
    for _ in 0..RUNS / 3 {
        let start = Instant::now();
        drop(black_box(tokens.matmul(&weights)));
        product = product.min(start.elapsed().as_secs_f64() * 1e9 * threads as f64 / (SIDE * SIDE) as f64);
    }
    // One forward, two backward.
    let step = 3.0 * product;
    let [digest, codec] = [digest, codec].map(|part| 100.0 * part / step);
    println!("| {threads} | of a step of 2,048 tokens, {step:.0} ns: digest {digest:.2} %, codec and apply {codec:.2} % |");
}

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    // Before any tensor work, so that threads inherit it.
    let _threads = tch::get_num_threads();
    if !has("table") {
        divan::main();
    }
    if !has("--list") && !has("--test") {
        tch::no_grad(table);
    }
}
