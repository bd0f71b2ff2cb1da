//! The integer inverse DCT of a few coefficients, and the step that its signs make.
//!
//! It computes in f64, whose integers are exact here (see the parent module). Basis functions are even or odd about the
//! middle of a chunk, as integers too: the odd ones are summed for the left half only and count there and, with the other
//! sign, on the right. What is left is a basis of half the length at twice the step, and so on, as often as halves are
//! whole vectors.

use super::votes::Ballot;
use super::{COEFFICIENT_BITS, ROUNDER, integer_basis};
use crate::codec::simd::{DOUBLES, Isa, LANES, TOGETHER, prefetch};

/// Rows that share a load of the basis.
const ROWS: usize = TOGETHER;
/// Vectors of one row of a chunk, and of the lanes beyond its end.
const LINE: usize = crate::codec::MAX_SMALL_EDGE / DOUBLES + 2;

/// The elements of a vector in memory.
type Doubles = [f64; DOUBLES];
type Lines = [[Doubles; LINE]; ROWS];

/// [`integer_basis`] in f64, its rows padded with zeros to whole vectors.
#[derive(Debug)]
pub(crate) struct IntegerBasis {
    /// Vectors of one row.
    stride: usize,
    rows: Vec<Doubles>,
}

impl IntegerBasis {
    pub(crate) fn new(n: usize) -> Self {
        let stride = n.div_ceil(DOUBLES);
        let mut rows = vec![[0.0; DOUBLES]; n * stride];
        for (row, integers) in rows.chunks_exact_mut(stride).zip(integer_basis(n).chunks_exact(n)) {
            row.as_flattened_mut().iter_mut().zip(integers).for_each(|(to, &from)| *to = f64::from(from));
        }
        Self { stride, rows }
    }

    /// Basis function `u`.
    fn row(&self, u: usize) -> &[Doubles] {
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
    /// `[columns, groups of ROWS rows]`: the first pass.
    passed: Vec<Doubles>,
    /// By how often their index can be halved, but no oftener than the vectors of a row can.
    columns: Vec<Vec<Column>>,
    /// Rows of the second pass, and what is odd in them.
    lines: Box<Lines>,
    odd: Box<Lines>,
}

impl Inverse {
    /// For chunks of `[height, width]`.
    pub(crate) fn new(height: usize, width: usize) -> Self {
        let halvings = if width.is_multiple_of(DOUBLES) { (width / DOUBLES).trailing_zeros() as usize } else { 0 };
        let lines = || Box::new([[[0.0; DOUBLES]; LINE]; ROWS]);
        let columns = vec![Vec::new(); halvings + 1];
        Self { height, width, passed: Vec::new(), columns, lines: lines(), odd: lines() }
    }

    /// Makes the first pass over the coefficients in `ballot`.
    #[inline(always)]
    pub(super) fn take<I: Isa>(&mut self, vertical: &IntegerBasis, ballot: &Ballot) {
        let halvings = self.columns.len() - 1;
        self.passed.clear();
        self.columns.iter_mut().for_each(Vec::clear);
        let (mut indices, mut means) = (&ballot.indices[..], &ballot.means[..]);
        while let Some(&first) = indices.first() {
            let v = usize::from(first) % self.width;
            let count = indices.iter().take_while(|&&index| usize::from(index) % self.width == v).count();
            let column = Column { index: v, at: self.passed.len() };
            self.columns[(v.trailing_zeros() as usize).min(halvings)].push(column);
            for block in 0..vertical.stride {
                let mut sum = I::zero_doubles();
                for (&index, &mean) in indices[..count].iter().zip(means) {
                    let basis = I::load_doubles(&vertical.row(usize::from(index) / self.width)[block]);
                    sum = I::multiply_add_doubles(f64::from(mean), basis, sum);
                }
                let mut rows = [0.0; DOUBLES];
                I::store_doubles(shift::<I>(sum), &mut rows);
                self.passed.push(rows);
            }
            (indices, means) = (&indices[count..], &means[count..]);
        }
    }

    /// Makes the second pass and moves the weights of the chunk that begins with `weights`: its rows start `stride`
    /// elements apart, and the chunk that is wanted next begins `next` elements later.
    #[inline(always)]
    pub(super) fn step<I: Isa>(
        &mut self,
        horizontal: &IntegerBasis,
        weights: &mut [f32],
        (stride, next): (usize, usize),
        lr: f32,
    ) {
        if self.passed.is_empty() {
            return;
        }
        for top in 0..self.height.div_ceil(ROWS) {
            let first = top * ROWS * stride;
            prefetch::<I>(weights.get(first + next..).unwrap_or_default(), ROWS, self.width, stride);
            self.rows::<I>(horizontal, top);
            let rows = weights[first..].chunks_mut(stride).take(self.height - top * ROWS);
            for (sums, row) in self.lines.iter().zip(rows) {
                step::<I>(&mut row[..self.width], sums, lr);
            }
        }
    }

    /// Makes the rows of group `top` of the result; those below the chunk are not meaningful.
    #[inline(always)]
    fn rows<I: Isa>(&mut self, horizontal: &IntegerBasis, top: usize) {
        let (halvings, passed) = (self.columns.len() - 1, &self.passed[top..]);
        sum::<I>(&self.columns[halvings], passed, horizontal, horizontal.stride >> halvings, &mut self.lines);
        for (level, columns) in self.columns[..halvings].iter().enumerate().rev() {
            let half = horizontal.stride >> (level + 1);
            if columns.is_empty() {
                for line in &mut *self.lines {
                    mirror::<I>(line, half);
                }
            } else {
                sum::<I>(columns, passed, horizontal, half, &mut self.odd);
                for (line, odd) in self.lines.iter_mut().zip(&*self.odd) {
                    unfold::<I>(line, odd, half);
                }
            }
        }
    }
}

/// Sums the columns of one level over the first `len` vectors of rows whose first passes begin at `passed`.
#[inline(always)]
fn sum<I: Isa>(columns: &[Column], passed: &[Doubles], horizontal: &IntegerBasis, len: usize, out: &mut Lines) {
    for place in 0..len {
        if I::SUMS == ROWS {
            sum_rows::<I, ROWS>(columns, passed, horizontal, (place, 0), out);
        } else {
            sum_rows::<I, 4>(columns, passed, horizontal, (place, 0), out);
            sum_rows::<I, 4>(columns, passed, horizontal, (place, 4), out);
        }
    }
}

/// The same for the vector at `place` of rows `first..`.
#[inline(always)]
fn sum_rows<I: Isa, const COUNT: usize>(
    columns: &[Column],
    passed: &[Doubles],
    horizontal: &IntegerBasis,
    (place, first): (usize, usize),
    out: &mut Lines,
) {
    let mut sums = [I::zero_doubles(); COUNT];
    for column in columns {
        let basis = I::load_doubles(&horizontal.rows[column.index * horizontal.stride + place]);
        for (sum, &factor) in sums.iter_mut().zip(&passed[column.at][first..first + COUNT]) {
            *sum = I::multiply_add_doubles(factor, basis, *sum);
        }
    }
    for (line, sum) in out[first..first + COUNT].iter_mut().zip(&sums) {
        I::store_doubles(*sum, &mut line[place]);
    }
}

/// Goes from `half` vectors, which are even about the middle, to twice as many.
#[inline(always)]
fn mirror<I: Isa>(line: &mut [Doubles; LINE], half: usize) {
    let (front, back) = line[..2 * half].split_at_mut(half);
    for (back, front) in back.iter_mut().rev().zip(front) {
        I::store_doubles(I::reverse(I::load_doubles(front)), back);
    }
}

/// The same, with what is odd about the middle.
#[inline(always)]
fn unfold<I: Isa>(line: &mut [Doubles; LINE], odd: &[Doubles; LINE], half: usize) {
    let (front, back) = line[..2 * half].split_at_mut(half);
    for ((front, back), odd) in front.iter_mut().zip(back.iter_mut().rev()).zip(&odd[..half]) {
        let (even, odd) = (I::load_doubles(front), I::load_doubles(odd));
        I::store_doubles(I::add_doubles(even, odd), front);
        I::store_doubles(I::reverse(I::sub_doubles(even, odd)), back);
    }
}

/// [`super::shift`].
#[inline(always)]
fn shift<I: Isa>(sum: I::Doubles) -> I::Doubles {
    // The product is exact, so that it does not matter whether both are fused.
    let rounder = I::load_doubles(&[ROUNDER; DOUBLES]);
    I::sub_doubles(I::multiply_add_doubles(1.0 / (1_u64 << COEFFICIENT_BITS) as f64, sum, rounder), rounder)
}

/// `w ← w − lr · sign(sum)`.
#[inline(always)]
fn step<I: Isa>(weights: &mut [f32], sums: &[Doubles; LINE], lr: f32) {
    let (whole, rest) = weights.as_chunks_mut::<LANES>();
    let (sums, _) = sums.as_chunks::<2>();
    for (weights, [front, back]) in whole.iter_mut().zip(sums) {
        let sums = I::narrow(I::load_doubles(front), I::load_doubles(back));
        I::store(I::step(I::load(weights), sums, lr), weights);
    }
    if let Some([front, back]) = sums.get(whole.len()).filter(|_| !rest.is_empty()) {
        let mut weights = [0.0; LANES];
        weights[..rest.len()].copy_from_slice(rest);
        let sums = I::narrow(I::load_doubles(front), I::load_doubles(back));
        I::store(I::step(I::load(&weights), sums, lr), &mut weights);
        rest.copy_from_slice(&weights[..rest.len()]);
    }
}
