//! The fast forward transform, and how its coefficients are kept.
//!
//! A transform of length `n = 2^a · b`, `b` odd, halves its input `a` times: sums `x[j] + x[m−1−j]` go on to the next
//! halving, differences make the odd multiples of the current step, and what is left after the last halving makes the
//! multiples of `2^a`. Length 64 takes 1,366 products instead of 4,096, each of them with an entry of the orthonormal
//! basis, so that no rounding error grows.
//!
//! Each coefficient is one chain of multiply-adds in ascending order, so that its bits do not depend on vector lengths;
//! the CUDA kernels keep the same order.

use super::transform::Basis;

/// Lines that are transformed side by side.
pub(super) const LANES: usize = 16;
/// Coefficients that are summed side by side.
const TOGETHER: usize = 8;

/// One element of several lines.
pub(super) type Lanes = [f32; LANES];

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

    /// Transforms `lines`, of which it makes use, and hands each coefficient on.
    #[inline(always)]
    fn transform<const FUSED: bool>(&self, lines: &mut [Lanes], mut put: impl FnMut(usize, &Lanes)) {
        fold(&mut lines[..self.n]);
        for level in &self.levels {
            for (number, group) in level.groups.iter().enumerate() {
                let mut sums = [[0.0_f32; LANES]; TOGETHER];
                // Loops, not for_each, whose closure would not be compiled for the caller's instruction set: without it
                // each multiply-add is a call.
                if level.backwards {
                    for (entries, line) in group.iter().zip(lines[..=level.start].iter().rev()) {
                        add::<FUSED>(&mut sums, entries, line);
                    }
                } else {
                    for (entries, line) in group.iter().zip(&*lines) {
                        add::<FUSED>(&mut sums, entries, line);
                    }
                }
                for (row, sum) in (number * TOGETHER..level.rows).zip(&sums) {
                    put(level.first + row * level.step, sum);
                }
            }
        }
    }
}

/// Halves lines as often as their length allows: sums at the front, differences mirrored at the back.
#[inline(always)]
fn fold(lines: &mut [Lanes]) {
    let mut m = lines.len();
    while m.is_multiple_of(2) {
        let (front, back) = lines[..m].split_at_mut(m / 2);
        for (front, back) in front.iter_mut().zip(back.iter_mut().rev()) {
            for lane in 0..LANES {
                (front[lane], back[lane]) = (front[lane] + back[lane], front[lane] - back[lane]);
            }
        }
        m /= 2;
    }
}

#[inline(always)]
fn add<const FUSED: bool>(sums: &mut [Lanes; TOGETHER], entries: &[f32; TOGETHER], line: &Lanes) {
    for (sum, &entry) in sums.iter_mut().zip(entries) {
        for lane in 0..LANES {
            sum[lane] = if FUSED { entry.mul_add(line[lane], sum[lane]) } else { entry * line[lane] + sum[lane] };
        }
    }
}

/// Buffers of the forward transform of one thread, and the coefficients that it leaves behind.
#[derive(Debug)]
pub(crate) struct Coefficients {
    height: usize,
    width: usize,
    /// Lines per column of the two lists below: the height, rounded up to whole groups of lanes.
    stride: usize,
    lines: Vec<Lanes>,
    /// `[width, stride]`: the chunk after its first pass.
    half: Vec<f32>,
    /// `[width, stride]`: the coefficients by column; what lies beyond the height is zero.
    columns: Vec<f32>,
}

impl Coefficients {
    /// For chunks of `[height, width]`.
    pub(crate) fn new(height: usize, width: usize) -> Self {
        let stride = height.next_multiple_of(LANES);
        let list = || vec![0.0; width * stride];
        Self { height, width, stride, lines: vec![[0.0; LANES]; height.max(width)], half: list(), columns: list() }
    }

    /// Transforms the chunk whose rows start `stride` elements apart in `from`.
    #[inline(always)]
    pub(super) fn transform<const FUSED: bool>(&mut self, [vertical, horizontal]: [&Basis; 2], from: &[f32], stride: usize) {
        for start in (0..self.width).step_by(LANES) {
            let lanes = LANES.min(self.width - start);
            for (line, row) in self.lines.iter_mut().zip(from.chunks(stride)).take(self.height) {
                line[..lanes].copy_from_slice(&row[start..start + lanes]);
            }
            let half = &mut self.half[start * self.stride..(start + lanes) * self.stride];
            vertical.plan.transform::<FUSED>(&mut self.lines, |u, sums| {
                for (column, &sum) in half.chunks_exact_mut(self.stride).zip(sums) {
                    column[u] = sum;
                }
            });
        }
        for start in (0..self.height).step_by(LANES) {
            for (line, column) in self.lines.iter_mut().zip(self.half.chunks_exact(self.stride)) {
                line.copy_from_slice(&column[start..start + LANES]);
            }
            horizontal.plan.transform::<FUSED>(&mut self.lines, |v, sums| {
                self.columns[v * self.stride + start..][..LANES].copy_from_slice(sums);
            });
        }
    }

    /// All coefficients in the order in which they are kept, which is column by column and not without gaps.
    pub(super) fn kept(&self) -> &[f32] {
        &self.columns
    }

    /// The index inside the chunk of a place in [`Self::kept`]; none for a gap.
    pub(super) fn index(&self, place: usize) -> Option<u16> {
        let (v, u) = (place / self.stride, place % self.stride);
        (u < self.height).then_some((u * self.width + v) as u16)
    }

    /// The coefficient of an index inside the chunk.
    pub(super) fn get(&self, index: u16) -> f32 {
        let (u, v) = (usize::from(index) / self.width, usize::from(index) % self.width);
        self.columns[v * self.stride + u]
    }

    /// Writes all coefficients, `[height, width]`.
    #[cfg(test)]
    pub(crate) fn write(&self, to: &mut [f32]) {
        let len = self.height * self.width;
        to[..len].iter_mut().zip(0..).for_each(|(to, index)| *to = self.get(index));
    }
}
