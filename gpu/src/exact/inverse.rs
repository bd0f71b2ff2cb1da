//! The integer inverse DCT of a few coefficients, and the step that its signs make.
//!
//! It computes in f64, whose integers are exact here (see the parent module). Basis functions are even or odd about the
//! middle of a chunk, as integers too: the odd ones are summed for the left half only and count there and, with the other
//! sign, on the right. What is left is a basis of half the length at twice the step, and so on, as often as the length
//! can be halved.

use super::votes::Ballot;
use super::{COEFFICIENT_BITS, integer_basis};

/// Elements that are summed side by side.
const LANES: usize = 8;
/// Rows that share a load of the basis.
const ROWS: usize = 4;
/// Room for one row of a chunk, and for the lanes beyond its end.
const LINE: usize = crate::codec::MAX_CHUNK + LANES;

/// [`integer_basis`] in f64, its rows padded with zeros.
#[derive(Debug)]
pub(crate) struct IntegerBasis {
    n: usize,
    stride: usize,
    rows: Vec<f64>,
}

impl IntegerBasis {
    pub(crate) fn new(n: usize) -> Self {
        let stride = n.next_multiple_of(LANES);
        let mut rows = vec![0.0; n * stride];
        for (row, integers) in rows.chunks_exact_mut(stride).zip(integer_basis(n).chunks_exact(n)) {
            row.iter_mut().zip(integers).for_each(|(to, &from)| *to = f64::from(from));
        }
        Self { n, stride, rows }
    }

    /// Elements `start..` of basis function `u`; both are inside by the caller's bounds.
    #[inline(always)]
    fn lanes(&self, u: usize, start: usize) -> &[f64; LANES] {
        const NONE: &[f64; LANES] = &[0.0; LANES];
        self.rows.get(u * self.stride + start..).and_then(|rows| rows.first_chunk()).unwrap_or(NONE)
    }

    /// Basis function `u`, and zeros up to a multiple of [`LANES`].
    fn row(&self, u: usize) -> &[f64] {
        &self.rows[u * self.stride..(u + 1) * self.stride]
    }
}

/// A chunk column with coefficients.
#[derive(Debug, Clone, Copy)]
struct Column {
    index: usize,
    /// Where its sums begin in `passed`.
    at: usize,
}

/// One thread's buffers for the inverse transform of one chunk after another.
#[derive(Debug)]
pub(crate) struct Inverse {
    height: usize,
    width: usize,
    /// `[columns, height + ROWS]`: the first pass.
    passed: Vec<f64>,
    /// By how often their index can be halved, but no oftener than the width can.
    columns: Vec<Vec<Column>>,
    /// Rows of the second pass, and what is odd in them.
    lines: Box<[[f64; LINE]; ROWS]>,
    odd: Box<[[f64; LINE]; ROWS]>,
}

impl Inverse {
    /// For chunks of `[height, width]`.
    pub(crate) fn new(height: usize, width: usize) -> Self {
        let halvings = width.trailing_zeros() as usize;
        let lines = || Box::new([[0.0; LINE]; ROWS]);
        let columns = vec![Vec::new(); halvings + 1];
        Self { height, width, passed: Vec::new(), columns, lines: lines(), odd: lines() }
    }

    /// Makes the first pass over the coefficients in `ballot`.
    #[inline(always)]
    pub(super) fn take(&mut self, vertical: &IntegerBasis, ballot: &Ballot) {
        let (halvings, stride) = (self.columns.len() - 1, self.height + ROWS);
        self.passed.clear();
        self.columns.iter_mut().for_each(Vec::clear);
        let mut last = None;
        for (&index, &mean) in ballot.indices.iter().zip(&ballot.means) {
            let (u, v) = (usize::from(index) / self.width, usize::from(index) % self.width);
            if last != Some(v) {
                let column = Column { index: v, at: self.passed.len() };
                self.columns[(v.trailing_zeros() as usize).min(halvings)].push(column);
                self.passed.resize(column.at + stride, 0.0);
                last = Some(v);
            }
            let at = self.passed.len() - stride;
            for (sum, basis) in self.passed[at..at + self.height].iter_mut().zip(vertical.row(u)) {
                *sum += basis * f64::from(mean);
            }
        }
        for sum in &mut self.passed {
            *sum = shift(*sum);
        }
    }

    /// Makes the second pass and moves the chunk's weights: rows of `weights` that start `stride` elements apart.
    #[inline(always)]
    pub(super) fn step<const FUSED: bool>(&mut self, horizontal: &IntegerBasis, weights: &mut [f32], stride: usize, lr: f32) {
        if self.passed.is_empty() {
            return;
        }
        debug_assert_eq!(horizontal.n, self.width);
        for top in (0..self.height).step_by(ROWS) {
            self.rows::<FUSED>(horizontal, top);
            let rows = weights.chunks_mut(stride).skip(top).take(ROWS.min(self.height - top));
            for (row, sums) in rows.zip(&*self.lines) {
                step(&mut row[..self.width], &sums[..self.width], lr);
            }
        }
    }

    /// Makes rows `top..` of the result; those below the chunk are not meaningful.
    #[inline(always)]
    fn rows<const FUSED: bool>(&mut self, horizontal: &IntegerBasis, top: usize) {
        let halvings = self.columns.len() - 1;
        sum::<FUSED>(&self.columns[halvings], &self.passed[top..], horizontal, self.width >> halvings, &mut self.lines);
        for (level, columns) in self.columns[..halvings].iter().enumerate().rev() {
            let half = self.width >> (level + 1);
            if columns.is_empty() {
                for line in &mut *self.lines {
                    mirror(line, half);
                }
            } else {
                sum::<FUSED>(columns, &self.passed[top..], horizontal, half, &mut self.odd);
                for (line, odd) in self.lines.iter_mut().zip(&*self.odd) {
                    unfold(line, odd, half);
                }
            }
        }
    }
}

/// Sums the columns of one level over the first `len` elements of rows whose first passes begin at `passed`.
#[inline(always)]
fn sum<const FUSED: bool>(
    columns: &[Column],
    passed: &[f64],
    horizontal: &IntegerBasis,
    len: usize,
    out: &mut [[f64; LINE]; ROWS],
) {
    for start in (0..len).step_by(LANES) {
        let mut sums = [[0.0_f64; LANES]; ROWS];
        for column in columns {
            let basis: &[f64; LANES] = horizontal.lanes(column.index, start);
            let Some(factors) = passed.get(column.at..).and_then(|passed| passed.first_chunk::<ROWS>()) else { continue };
            for (sums, &factor) in sums.iter_mut().zip(factors) {
                for (sum, &basis) in sums.iter_mut().zip(basis) {
                    *sum = if FUSED { factor.mul_add(basis, *sum) } else { factor * basis + *sum };
                }
            }
        }
        for (line, sums) in out.iter_mut().zip(&sums) {
            line[start..start + LANES].copy_from_slice(sums);
        }
    }
}

/// Goes from `half` elements, which are even about the middle, to twice as many.
#[inline(always)]
fn mirror(line: &mut [f64; LINE], half: usize) {
    let (front, back) = line[..2 * half].split_at_mut(half);
    for (back, front) in back.iter_mut().rev().zip(front) {
        *back = *front;
    }
}

/// The same, with what is odd about the middle.
#[inline(always)]
fn unfold(line: &mut [f64; LINE], odd: &[f64; LINE], half: usize) {
    let (front, back) = line[..2 * half].split_at_mut(half);
    for ((front, back), odd) in front.iter_mut().zip(back.iter_mut().rev()).zip(&odd[..half]) {
        (*front, *back) = (*front + odd, *front - odd);
    }
}

/// `sum / 2^F` rounded to nearest, ties to even, for integers below 2^53 / 2.
#[inline(always)]
fn shift(sum: f64) -> f64 {
    // At 1.5 · 2^52 neighbouring f64 lie 1 apart, so adding it rounds to an integer, by the default rounding mode.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    let scaled = sum * (1.0 / (1_u64 << COEFFICIENT_BITS) as f64);
    (scaled + ROUNDER) - ROUNDER
}

/// `w ← w − lr · sign(sum)`.
#[inline(always)]
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
