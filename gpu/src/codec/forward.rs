//! The fast forward transform, and how its coefficients are kept.
//!
//! A transform of length `n = 2^a · b`, `b` odd, halves its input `a` times: sums `x[j] + x[m−1−j]` go on to the next
//! halving, differences make the odd multiples of the current step, and what is left after the last halving makes the
//! multiples of `2^a`. Length 64 takes 1,366 products instead of 4,096, each of them with an entry of the orthonormal
//! basis, so that no rounding error grows.
//!
//! Each coefficient is one chain of multiply-adds in ascending order, so that its bits do not depend on vector lengths;
//! the CUDA kernels keep the same order.

use super::simd::{Isa, LANES, Lanes, TOGETHER, prefetch};
use super::transform::Basis;

/// The odd multiples of one step, or after the last halving all of them.
#[derive(Debug)]
struct Level {
    /// Coefficient of the first row, and the distance to the next.
    first: usize,
    step: usize,
    rows: usize,
    /// Where the terms lie in the folded line: `start`, `start − 1`, … or `0`, `1`, ….
    start: usize,
    backwards: bool,
    /// For each group of [`TOGETHER`] rows, by term, the entries of the basis; rows that are missing are zero.
    groups: Vec<Vec<[f32; TOGETHER]>>,
}

/// How a line of one length is transformed.
#[derive(Debug)]
pub(super) struct Plan {
    n: usize,
    levels: Vec<Level>,
}

impl Plan {
    /// For lines as long as `rows: [n, n]`, the basis.
    pub(super) fn new(n: usize, rows: &[f32]) -> Self {
        let level = |m: usize, step: usize| {
            let odd = m % 2 == 1;
            let (terms, first, distance) = if odd { (m, 0, step) } else { (m / 2, step, 2 * step) };
            let entry = |row: usize, j: usize| if row < terms { rows[(first + distance * row) * n + j] } else { 0.0 };
            let group = |q: usize| (0..terms).map(|j| std::array::from_fn(|r| entry(q * TOGETHER + r, j))).collect();
            let groups = (0..terms.div_ceil(TOGETHER)).map(group).collect();
            let start = if odd { 0 } else { m - 1 };
            Level { first, step: distance, rows: terms, start, backwards: !odd, groups }
        };
        let (mut levels, mut m, mut step) = (Vec::new(), n, 1);
        loop {
            levels.push(level(m, step));
            if m % 2 == 1 {
                return Self { n, levels };
            }
            (m, step) = (m / 2, 2 * step);
        }
    }

    /// Transforms `lines`, of which it makes use; coefficient `u` goes to place `u · stride` of `out`.
    #[inline(always)]
    fn transform<I: Isa>(&self, lines: &mut [Lanes], out: &mut [Lanes], stride: usize) {
        let lines = &mut lines[..self.n];
        fold::<I>(lines);
        for level in &self.levels {
            let mut rows = (level.first..).step_by(level.step).take(level.rows);
            for group in &level.groups {
                let sums = if level.backwards {
                    sum::<I, _>(group, lines[..=level.start].iter().rev())
                } else {
                    sum::<I, _>(group, lines.iter())
                };
                for (sum, row) in sums.iter().zip(rows.by_ref().take(TOGETHER)) {
                    I::store(*sum, &mut out[row * stride]);
                }
            }
        }
    }
}

/// Halves lines as often as their length allows: sums at the front, differences mirrored at the back.
#[inline(always)]
fn fold<I: Isa>(lines: &mut [Lanes]) {
    let mut m = lines.len();
    while m.is_multiple_of(2) {
        let (front, back) = lines[..m].split_at_mut(m / 2);
        for (front, back) in front.iter_mut().zip(back.iter_mut().rev()) {
            let (x, y) = (I::load(front), I::load(back));
            I::store(I::add(x, y), front);
            I::store(I::sub(x, y), back);
        }
        m /= 2;
    }
}

/// `Σ entries[r] · line` over the terms of a group, for each of its rows.
#[inline(always)]
fn sum<'a, I: Isa, L: Iterator<Item = &'a Lanes> + Clone>(group: &[[f32; TOGETHER]], lines: L) -> [I::Floats; TOGETHER] {
    if I::SUMS == TOGETHER {
        return sum_rows::<I, L, TOGETHER>(group, 0, lines);
    }
    let [a, b, c, d] = sum_rows::<I, L, 4>(group, 0, lines.clone());
    let [e, f, g, h] = sum_rows::<I, L, 4>(group, 4, lines);
    [a, b, c, d, e, f, g, h]
}

#[inline(always)]
fn sum_rows<'a, I: Isa, L: Iterator<Item = &'a Lanes>, const ROWS: usize>(
    group: &[[f32; TOGETHER]],
    first: usize,
    lines: L,
) -> [I::Floats; ROWS] {
    let mut sums = [I::zero(); ROWS];
    for (entries, line) in group.iter().zip(lines) {
        let line = I::load(line);
        for (sum, &entry) in sums.iter_mut().zip(&entries[first..first + ROWS]) {
            *sum = I::multiply_add(entry, line, *sum);
        }
    }
    sums
}

/// Buffers of the forward transform of one thread, and the coefficients that it leaves behind.
///
/// Columns count in groups of [`LANES`], and so do the rows after the first pass; what lies beyond the chunk is zero or
/// not used.
#[derive(Debug)]
pub(crate) struct Coefficients {
    height: usize,
    width: usize,
    /// Groups of rows.
    row_groups: usize,
    /// `[column group, height + 1]`: the chunk. With a whole power of two between them, groups would meet in the cache.
    chunk: Vec<Lanes>,
    /// `[column group, height in whole groups]`: the chunk after its first pass.
    half: Vec<Lanes>,
    /// The columns of a group of rows.
    lines: Vec<Lanes>,
    /// `[width, row group]`: the coefficients by column; what lies beyond the height is zero.
    columns: Vec<Lanes>,
}

impl Coefficients {
    /// For chunks of `[height, width]`.
    pub(crate) fn new(height: usize, width: usize) -> Self {
        let (row_groups, column_groups) = (height.div_ceil(LANES), width.div_ceil(LANES));
        let list = |len: usize| vec![[0.0; LANES]; len];
        Self {
            height,
            width,
            row_groups,
            chunk: list(column_groups * (height + 1)),
            half: list(column_groups * row_groups * LANES),
            lines: list(column_groups * LANES),
            columns: list(width * row_groups),
        }
    }

    /// Transforms the chunk that begins with `from`, its rows `stride` elements apart; the one that begins with `next` is
    /// expected to be wanted next.
    #[inline(always)]
    pub(super) fn transform<I: Isa>(&mut self, [vertical, horizontal]: [&Basis; 2], from: &[f32], next: &[f32], stride: usize) {
        self.take(from, stride);
        let half_len = self.row_groups * LANES;
        for (chunk, half) in self.chunk.chunks_exact_mut(self.height + 1).zip(self.half.chunks_exact_mut(half_len)) {
            vertical.plan.transform::<I>(chunk, half, 1);
        }
        for group in 0..self.row_groups {
            prefetch::<I>(next.get(group * LANES * stride..).unwrap_or_default(), LANES, self.width, stride);
            let (lines, _) = self.lines.as_chunks_mut::<LANES>();
            for (lines, half) in lines.iter_mut().zip(self.half.chunks_exact(half_len)) {
                let mut rows = [I::zero(); LANES];
                for (row, half) in rows.iter_mut().zip(&half[group * LANES..]) {
                    *row = I::load(half);
                }
                let columns = I::transpose(rows);
                for (line, column) in lines.iter_mut().zip(&columns) {
                    I::store(*column, line);
                }
            }
            horizontal.plan.transform::<I>(&mut self.lines, &mut self.columns[group..], self.row_groups);
        }
    }

    /// Copies the chunk row by row.
    #[inline(always)]
    fn take(&mut self, from: &[f32], stride: usize) {
        for (i, row) in from.chunks(stride).take(self.height).enumerate() {
            let (whole, rest) = row[..self.width].as_chunks::<LANES>();
            let mut places = self.chunk.iter_mut().skip(i).step_by(self.height + 1);
            for (lanes, place) in whole.iter().zip(places.by_ref()) {
                *place = *lanes;
            }
            if let Some(place) = places.next() {
                place[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// All coefficients in the order in which they are kept, which is column by column and not without gaps.
    pub(super) fn kept(&self) -> &[Lanes] {
        &self.columns
    }

    /// The index inside the chunk of a place in [`Self::kept`]; none for a gap.
    pub(super) fn index(&self, place: usize) -> Option<u32> {
        let stride = self.row_groups * LANES;
        let (v, u) = (place / stride, place % stride);
        (u < self.height).then_some((u * self.width + v) as u32)
    }

    /// The coefficient of an index inside the chunk.
    pub(super) fn get(&self, index: u32) -> f32 {
        let (u, v) = (index as usize / self.width, index as usize % self.width);
        self.columns[v * self.row_groups + u / LANES][u % LANES]
    }

    /// Writes all coefficients, `[height, width]`.
    #[cfg(test)]
    pub(crate) fn write(&self, to: &mut [f32]) {
        let len = self.height * self.width;
        to[..len].iter_mut().zip(0..).for_each(|(to, index)| *to = self.get(index));
    }
}
