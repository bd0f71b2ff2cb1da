//! The exact apply of a part of one tensor.

use crate::codec::matmul::{Sizes, Strided, transposed_product};
use crate::codec::parallel::scoped;
use crate::codec::{CodecError, Layout, ParameterLayout, Part, Selection, Threads, ValidPayload, check_selection};
use crate::exact::COEFFICIENT_BITS;

/// Blocks per thread that [`apply_payloads`] decodes at a time, which bounds its memory.
const BLOCKS_AT_A_TIME: usize = 16;

/// Collects the accepted senders' selections of one part and applies them.
#[derive(Debug)]
pub struct Accumulator<'a> {
    parameter: &'a ParameterLayout,
    part: &'a Part,
    senders: Vec<&'a Selection>,
}

impl<'a> Accumulator<'a> {
    /// Starts with no sender.
    ///
    /// # Errors
    /// A part of another layout.
    pub fn new(layout: &'a Layout, part: &'a Part) -> Result<Self, CodecError> {
        let parameter = layout.known(part)?;
        Ok(Self { parameter, part, senders: Vec::new() })
    }

    /// Adds one sender's selection; the order in which senders are added does not matter.
    ///
    /// # Errors
    /// A selection of another part, unordered indices, values that are not finite.
    pub fn add(&mut self, selection: &'a Selection) -> Result<(), CodecError> {
        check_selection(self.parameter, self.part, selection)?;
        if let Some(at) = selection.values.iter().position(|value| !value.is_finite()) {
            return Err(CodecError::NotFinite { chunk: at / self.parameter.k() });
        }
        self.senders.push(selection);
        Ok(())
    }

    /// `w ← w − lr · s` for every element of the part; without senders nothing changes.
    ///
    /// # Shapes
    /// `rows`: the part's elements.
    ///
    /// # Errors
    /// A buffer of another length.
    pub fn apply(&self, rows: &mut [f32], lr: f32, threads: Threads) -> Result<(), CodecError> {
        let expected = self.part.elements().len();
        if rows.len() != expected {
            return Err(CodecError::BufferLength { unit: "elements", expected, actual: rows.len() });
        }
        if self.senders.is_empty() {
            return Ok(());
        }
        let geometry = self.parameter.geometry();
        let share = threads.share(self.part.chunk_rows().len());
        let slabs = rows.chunks_mut(share * geometry.slab_len()).enumerate();
        scoped(slabs, |(index, rows)| self.apply_slabs(index * share * geometry.chunks_per_row(), rows, lr));
        Ok(())
    }

    /// Applies to whole chunk rows, of which the first begins with chunk `chunk` of the part.
    fn apply_slabs(&self, mut chunk: usize, rows: &mut [f32], lr: f32) {
        let geometry = self.parameter.geometry();
        let mut work = Work::new(geometry.chunk_height(), geometry.chunk_width());
        for slab in rows.chunks_exact_mut(geometry.slab_len()) {
            for column in 0..geometry.chunks_per_row() {
                self.collect(chunk, &mut work);
                work.transform(self.parameter.transform().integer_bases());
                let start = column * geometry.chunk_width();
                let signs = work.sums.chunks_exact(geometry.chunk_width());
                for (line, sums) in slab.chunks_exact_mut(geometry.width()).zip(signs) {
                    step(&mut line[start..start + geometry.chunk_width()], sums, lr);
                }
                chunk += 1;
            }
        }
    }

    /// Fills `work` with every sender's votes on one chunk.
    fn collect(&self, chunk: usize, work: &mut Work) {
        let range = chunk * self.parameter.k()..(chunk + 1) * self.parameter.k();
        let votes = self.senders.iter().map(|s| (&s.indices[range.clone()], &s.values[range.clone()]));
        let largest = votes.clone().flat_map(|(_, values)| values).fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = fixed_point_scale(largest);
        for (indices, values) in votes {
            for (&index, &value) in indices.iter().zip(values) {
                work.vote(index, round_half_away(f64::from(value) * scale));
            }
        }
    }
}

/// Applies whole payloads to one part, decoding a bounded number of chunks at a time.
///
/// # Shapes
/// `rows`: the part's elements.
///
/// # Errors
/// A buffer of another length, a part or payload of another layout.
pub fn apply_payloads(
    layout: &Layout,
    part: &Part,
    payloads: &[ValidPayload<'_>],
    rows: &mut [f32],
    lr: f32,
    threads: Threads,
) -> Result<(), CodecError> {
    let parameter = layout.parameter_of(part, rows.len())?;
    let at_a_time = BLOCKS_AT_A_TIME * threads.count();
    let pieces = part.blocks().step_by(at_a_time).zip(rows.chunks_mut(at_a_time * parameter.block_elements()));
    for (block, rows) in pieces {
        let piece = layout.part(part.parameter(), block..(block + at_a_time).min(part.blocks().end))?;
        let selections = payloads.iter().map(|payload| payload.decode(&piece)).collect::<Result<Vec<_>, _>>()?;
        let mut accumulator = Accumulator::new(layout, &piece)?;
        selections.iter().try_for_each(|selection| accumulator.add(selection))?;
        accumulator.apply(rows, lr, threads)?;
    }
    Ok(())
}

/// One thread's buffers; between chunks every vote is zero.
struct Work {
    chunk_height: usize,
    chunk_width: usize,
    /// Sum and number of votes per coefficient.
    votes: Vec<(i64, i64)>,
    /// Coefficients with votes.
    voted: Vec<u16>,
    /// Position of a chunk column in `passed` and `basis`, where it has a coefficient.
    position: Vec<Option<usize>>,
    /// `[columns, chunk_height]`: the first pass.
    passed: Vec<f64>,
    /// `[columns, chunk_width]`: the basis functions of the second pass.
    basis: Vec<f64>,
    /// `[chunk_height, chunk_width]`: the result, of which only the sign counts.
    sums: Vec<f64>,
}

impl Work {
    fn new(chunk_height: usize, chunk_width: usize) -> Self {
        let len = chunk_height * chunk_width;
        Self {
            chunk_height,
            chunk_width,
            votes: vec![(0, 0); len],
            voted: Vec::new(),
            position: vec![None; chunk_width],
            passed: Vec::new(),
            basis: Vec::new(),
            sums: vec![0.0; len],
        }
    }

    fn vote(&mut self, index: u16, value: i64) {
        let vote = &mut self.votes[usize::from(index)];
        if vote.1 == 0 {
            self.voted.push(index);
        }
        vote.0 += value;
        vote.1 += 1;
    }

    /// Turns the votes into `sums`, and clears them.
    fn transform(&mut self, [vertical, horizontal]: [&[f64]; 2]) {
        let (h, w) = (self.chunk_height, self.chunk_width);
        self.passed.clear();
        self.basis.clear();
        self.position.fill(None);
        for &index in &self.voted {
            let index = usize::from(index);
            let (sum, count) = std::mem::take(&mut self.votes[index]);
            let mean = mean(sum, count);
            if mean == 0.0 {
                continue;
            }
            let (u, v) = (index / w, index % w);
            let at = *self.position[v].get_or_insert_with(|| {
                self.passed.resize(self.passed.len() + h, 0.0);
                self.basis.extend_from_slice(&horizontal[v * w..][..w]);
                self.passed.len() - h
            });
            let column = &mut self.passed[at..at + h];
            column.iter_mut().zip(&vertical[u * h..][..h]).for_each(|(sum, basis)| *sum += basis * mean);
        }
        self.voted.clear();
        self.passed.iter_mut().for_each(|sum| *sum = shift(*sum));
        let sizes = Sizes { depth: self.passed.len() / h, height: h, width: w };
        let passed = Strided { data: &self.passed[..], stride: h };
        transposed_product(sizes, passed, Strided { data: &self.basis[..], stride: w }, &mut self.sums);
    }
}

/// `2^(F − E)`, with `2^E` the smallest power of two not below `largest`; 0 where nothing but zeros was sent.
fn fixed_point_scale(largest: f32) -> f64 {
    if largest == 0.0 {
        return 0.0;
    }
    // Every finite f32 is a normal f64, so exponent and mantissa lie open.
    let bits = f64::from(largest).to_bits();
    let power_of_two = bits & ((1 << 52) - 1) == 0;
    let exponent = (bits >> 52) as i64 - 1023 + i64::from(!power_of_two);
    f64::from_bits(((i64::from(COEFFICIENT_BITS) - exponent + 1023) as u64) << 52)
}

/// Nearest integer, halves away from zero; for magnitudes of at most `2^F` that came from an f32.
fn round_half_away(value: f64) -> i64 {
    // 24 significant bits plus one half fit a f64: the sum is exact.
    let magnitude = (value.abs() + 0.5) as i64;
    if value < 0.0 { -magnitude } else { magnitude }
}

/// `sum / count`, halves away from zero, as an integer-valued f64.
fn mean(sum: i64, count: i64) -> f64 {
    let magnitude = (2 * sum.abs() + count) / (2 * count);
    (if sum < 0 { -magnitude } else { magnitude }) as f64
}

/// `sum / 2^F` rounded to nearest, ties to even, for integers below 2^53 / 2.
fn shift(sum: f64) -> f64 {
    // At 1.5 · 2^52 neighbouring f64 lie 1 apart, so adding it rounds to an integer, by the default rounding mode.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    let scaled = sum * (1.0 / (1_u64 << COEFFICIENT_BITS) as f64);
    (scaled + ROUNDER) - ROUNDER
}

/// `w ← w − lr · sign(sum)`.
fn step(weights: &mut [f32], sums: &[f64], lr: f32) {
    for (weight, &sum) in weights.iter_mut().zip(sums) {
        let (down, up) = (*weight - lr, *weight + lr);
        *weight = if sum > 0.0 {
            down
        } else if sum < 0.0 {
            up
        } else {
            *weight
        };
    }
}
