//! The transform of large chunks: of any size, in f64, without a matrix for its basis.
//!
//! A basis function is looked up in one quarter of a wave. The forward transform is a Fourier transform of the same length
//! (Makhoul's order), and that a convolution by a chirp (Bluestein's), which takes `n log n` for every `n`, primes too. The
//! inverse of a few coefficients is summed strip by strip, so that its memory is a few rows.
//!
//! Everything is plain arithmetic on f64 in one order, so that it has the same bits on every processor.

use crate::exact::trig::cos_pi_ratio;

/// Rows that share the look-ups of a basis function.
const STRIP: usize = 16;

/// A basis of length `n`, real or in integers: `√(2/n) · cos(π t / 2n)` for `t` in `0..=n`, and `√(1/n)`.
#[derive(Debug)]
pub(crate) struct Wave {
    n: usize,
    constant: f64,
    quarter: Vec<f64>,
}

impl Wave {
    /// As [`super::dct_basis`].
    pub(super) fn real(n: usize) -> Self {
        let scale = (2.0 / n as f64).sqrt();
        let quarter = (0..=n as u64).map(|t| scale * cos_pi_ratio(t, n as u64)).collect();
        Self { n, constant: (1.0 / n as f64).sqrt(), quarter }
    }

    /// As [`crate::exact::integer_basis`].
    pub(crate) fn integers(n: usize) -> Self {
        let scale = f64::from(1_u32 << crate::exact::basis_bits(n));
        let Self { constant, quarter, .. } = Self::real(n);
        let integer = |value: f64| (value * scale).round();
        Self { n, constant: integer(constant), quarter: quarter.into_iter().map(integer).collect() }
    }

    /// Entry `j` of basis function `u`, both below `n`.
    pub(crate) fn at(&self, u: usize, j: usize) -> f64 {
        if u == 0 {
            return self.constant;
        }
        let turn = 4 * self.n;
        let angle = (2 * j + 1) * u % turn;
        let angle = angle.min(turn - angle);
        if angle > self.n { -self.quarter[2 * self.n - angle] } else { self.quarter[angle] }
    }
}

/// A coefficient of a chunk: its column, its row, its value.
pub(crate) type Entry = (usize, usize, f64);

/// Hands on the rows of the inverse transform of `entries`, which are sorted by column, then row: `put(i, row i)`.
///
/// The first pass, over the vertical index, goes through `between` before the second. No sum depends on the strips.
pub(crate) fn inverse_rows(
    [vertical, horizontal]: [&Wave; 2],
    entries: &[Entry],
    between: impl Fn(f64) -> f64,
    mut put: impl FnMut(usize, &[f64]),
) {
    let (h, w) = (vertical.n, horizontal.n);
    let strip = STRIP.min(h);
    let (mut basis, mut lines) = (vec![0.0; w], vec![0.0; strip * w]);
    for top in (0..h).step_by(strip) {
        lines.fill(0.0);
        for column in entries.chunk_by(|a, b| a.0 == b.0) {
            let v = column[0].0;
            basis.iter_mut().enumerate().for_each(|(j, basis)| *basis = horizontal.at(v, j));
            for (i, line) in (top..h).zip(lines.chunks_exact_mut(w)) {
                let factor = between(column.iter().map(|&(_, u, value)| vertical.at(u, i) * value).sum());
                line.iter_mut().zip(&basis).for_each(|(sum, basis)| *sum += factor * basis);
            }
        }
        (top..h).zip(lines.chunks_exact(w)).for_each(|(i, line)| put(i, line));
    }
}

/// Numbers as real and imaginary parts.
#[derive(Debug, Clone)]
struct Complex {
    re: Vec<f64>,
    im: Vec<f64>,
}

impl Complex {
    fn zeros(len: usize) -> Self {
        Self { re: vec![0.0; len], im: vec![0.0; len] }
    }

    fn set(&mut self, at: usize, (re, im): (f64, f64)) {
        (self.re[at], self.im[at]) = (re, im);
    }

    fn at(&self, at: usize) -> (f64, f64) {
        (self.re[at], self.im[at])
    }
}

fn product((a, b): (f64, f64), (c, d): (f64, f64)) -> (f64, f64) {
    (a * c - b * d, a * d + b * c)
}

/// `e^(iπ · numerator / 2 half)`.
fn turned(numerator: usize, half: usize) -> (f64, f64) {
    let (numerator, half) = ((numerator % (4 * half)) as u64, half as u64);
    (cos_pi_ratio(numerator, half), cos_pi_ratio(numerator + 3 * half, half))
}

/// The orthonormal DCT-II of lines of one length.
#[derive(Debug)]
struct Lines {
    n: usize,
    /// `[n]`: `e^(iπ m² / n)`.
    chirp: Complex,
    /// The transform of the chirp's conjugate, divided by its length, a power of two.
    filter: Complex,
    /// `[half that length]`: the roots of unity.
    roots: Complex,
    /// `[n]`: what makes cosines of a Fourier transform, scaled.
    turns: Complex,
}

impl Lines {
    fn new(n: usize) -> Self {
        let len = (2 * n).next_power_of_two();
        let of = |count: usize, value: &dyn Fn(usize) -> (f64, f64)| {
            let mut all = Complex::zeros(count);
            (0..count).for_each(|at| all.set(at, value(at)));
            all
        };
        let conjugate = |(re, im): (f64, f64)| (re, -im);
        let chirp = of(n, &|m| conjugate(turned(2 * (m * m % (2 * n)), n)));
        let roots = of(len / 2, &|at| conjugate(turned(4 * at, len)));
        let scale = |u: usize| if u == 0 { (1.0 / n as f64).sqrt() } else { (2.0 / n as f64).sqrt() };
        let turns = of(n, &|u| product(conjugate(turned(u, n)), (scale(u), 0.0)));
        let mut lines = Self { n, chirp, filter: Complex::zeros(len), roots, turns };
        let mut filter = Complex::zeros(len);
        for m in 0..n {
            let value = product(conjugate(lines.chirp.at(m)), (1.0 / len as f64, 0.0));
            filter.set(m, value);
            filter.set((len - m) % len, value);
        }
        lines.fourier(&mut filter);
        lines.filter = filter;
        lines
    }

    /// Transforms a line in place; `work` is as long as the filter.
    fn transform(&self, line: &mut [f64], work: &mut Complex) {
        work.re.fill(0.0);
        work.im.fill(0.0);
        let even = line.iter().step_by(2);
        let odd = line.iter().skip(1).step_by(2).rev();
        for (m, (&x, chirp)) in even.chain(odd).zip((0..self.n).map(|m| self.chirp.at(m))).enumerate() {
            work.set(m, product(chirp, (x, 0.0)));
        }
        self.fourier(work);
        for at in 0..work.re.len() {
            // Conjugated, so that the same transform goes back.
            let (re, im) = product(work.at(at), self.filter.at(at));
            work.set(at, (re, -im));
        }
        self.fourier(work);
        for (u, out) in line.iter_mut().enumerate() {
            let (re, im) = work.at(u);
            *out = product(product((re, -im), self.chirp.at(u)), self.turns.at(u)).0;
        }
    }

    /// The Fourier transform in place, of a power of two.
    fn fourier(&self, data: &mut Complex) {
        let len = data.re.len();
        for at in 0..len {
            let reversed = at.reverse_bits() >> (usize::BITS - len.ilog2());
            if at < reversed {
                data.re.swap(at, reversed);
                data.im.swap(at, reversed);
            }
        }
        let mut half = 1;
        while half < len {
            for start in (0..len).step_by(2 * half) {
                for (at, root) in (start..start + half).zip((0..).step_by(len / 2 / half)) {
                    let (re, im) = product(data.at(at + half), self.roots.at(root));
                    let (x, y) = data.at(at);
                    data.set(at, (x + re, y + im));
                    data.set(at + half, (x - re, y - im));
                }
            }
            half *= 2;
        }
    }
}

/// The transform of chunks of one size.
#[derive(Debug)]
pub(crate) struct LargeTransform {
    lines: [Lines; 2],
    real: [Wave; 2],
    integers: [Wave; 2],
}

/// One thread's buffers for one chunk after another.
pub(crate) struct LargeScratch {
    chunk: Vec<f64>,
    column: Vec<f64>,
    work: [Complex; 2],
    coefficients: Vec<f32>,
}

impl LargeTransform {
    /// For chunks of `[height, width]`.
    pub(super) fn new(height: usize, width: usize) -> Self {
        let both = [height, width];
        Self { lines: both.map(Lines::new), real: both.map(Wave::real), integers: both.map(Wave::integers) }
    }

    /// The bases in f64.
    pub(super) fn real(&self) -> [&Wave; 2] {
        self.real.each_ref()
    }

    /// The bases of the exact apply.
    pub(crate) fn integers(&self) -> [&Wave; 2] {
        self.integers.each_ref()
    }

    pub(super) fn scratch(&self) -> LargeScratch {
        let [height, width] = &self.lines;
        LargeScratch {
            chunk: vec![0.0; height.n * width.n],
            column: vec![0.0; height.n],
            work: self.lines.each_ref().map(|lines| Complex::zeros(lines.filter.re.len())),
            coefficients: vec![0.0; height.n * width.n],
        }
    }

    /// The coefficients, `[height, width]`, of the chunk that begins with `from`, its rows `stride` elements apart.
    pub(super) fn forward<'a>(&self, from: &[f32], stride: usize, scratch: &'a mut LargeScratch) -> &'a [f32] {
        let [vertical, horizontal] = &self.lines;
        let LargeScratch { chunk, column, work: [work_down, work_across], coefficients } = scratch;
        for (row, from) in chunk.chunks_exact_mut(horizontal.n).zip(from.chunks(stride)) {
            row.iter_mut().zip(from).for_each(|(to, &from)| *to = f64::from(from));
            horizontal.transform(row, work_across);
        }
        for v in 0..horizontal.n {
            let places = (v..).step_by(horizontal.n);
            column.iter_mut().zip(places.clone()).for_each(|(to, at)| *to = chunk[at]);
            vertical.transform(column, work_down);
            column.iter().zip(places).for_each(|(&from, at)| coefficients[at] = from as f32);
        }
        coefficients
    }
}
