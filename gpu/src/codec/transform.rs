//! The orthonormal DCT-II of chunks, and its bases.
//!
//! `forward: C[u][v] = Σ_i Σ_j B_h[u][i] · X[i][j] · B_w[v][j]` with
//! `B_n[u][j] = √(1/n) · cos(π (2j + 1) u / 2n)`, times √2 for `u > 0`. The basis is computed in f64.

use std::sync::Arc;

use super::MAX_SMALL_EDGE;
#[cfg(test)]
use super::forward::Coefficients;
use super::forward::Plan;
#[cfg(test)]
use super::simd::{Isa, Kernel, Simd};
use super::wave::LargeTransform;
#[cfg(test)]
use super::wave::{Wave, inverse_rows};
use crate::exact::IntegerBasis;
use crate::exact::trig::cos_pi_ratio;

/// `B_n`: `[n, n]`, row `u` is the `u`-th basis function, in f64 with the same bits on every machine.
pub fn dct_basis(n: usize) -> Vec<f64> {
    let (constant, wave) = ((1.0 / n as f64).sqrt(), (2.0 / n as f64).sqrt());
    let entry = |u: usize, j: usize| {
        let scale = if u == 0 { constant } else { wave };
        scale * cos_pi_ratio((2 * j as u64 + 1) * u as u64, n as u64)
    };
    (0..n).flat_map(|u| (0..n).map(move |j| entry(u, j))).collect()
}

/// `B_n` in every form that is used.
#[derive(Debug)]
pub(crate) struct Basis {
    n: usize,
    /// `[u, j]`
    rows: Vec<f32>,
    /// How the forward transform goes about it.
    pub(super) plan: Plan,
    /// The integers of the exact apply.
    pub(crate) integers: IntegerBasis,
}

impl Basis {
    /// Basis function `u`.
    pub(super) fn row(&self, u: usize) -> &[f32] {
        &self.rows[u * self.n..(u + 1) * self.n]
    }

    fn new(n: usize) -> Self {
        let rows: Vec<f32> = dct_basis(n).into_iter().map(|value| value as f32).collect();
        Self { n, plan: Plan::new(n, &rows), rows, integers: IntegerBasis::new(n) }
    }
}

/// The transform of chunks of one size.
#[derive(Debug, Clone)]
pub struct Transform {
    height: usize,
    width: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Small { height: Arc<Basis>, width: Arc<Basis> },
    Large(Arc<LargeTransform>),
}

impl Transform {
    /// The transform of `[height, width]` chunks, both at least 1.
    pub fn new(height: usize, width: usize) -> Self {
        let kind = if height.max(width) > MAX_SMALL_EDGE {
            Kind::Large(Arc::new(LargeTransform::new(height, width)))
        } else {
            let width_basis = Arc::new(Basis::new(width));
            let height_basis = if height == width { Arc::clone(&width_basis) } else { Arc::new(Basis::new(height)) };
            Kind::Small { height: height_basis, width: width_basis }
        };
        Self { height, width, kind }
    }

    /// Elements of one chunk.
    pub fn chunk_len(&self) -> usize {
        self.height * self.width
    }

    /// The bases of a small chunk's height and of its width; none for large chunks.
    pub(crate) fn bases(&self) -> Option<[&Basis; 2]> {
        match &self.kind {
            Kind::Small { height, width } => Some([height, width]),
            Kind::Large(_) => None,
        }
    }

    /// How large chunks are transformed; none for small ones.
    pub(crate) fn large(&self) -> Option<&LargeTransform> {
        match &self.kind {
            Kind::Small { .. } => None,
            Kind::Large(large) => Some(large),
        }
    }

    /// Coefficients of one small chunk as a whole; [`Coefficients::write`] has them in order.
    ///
    /// # Shapes
    /// `from`: `height` rows of `width` elements, rows `stride` elements apart; `coefficients`: made for this size.
    ///
    /// # Panics
    /// Where a slice is too short.
    #[cfg(test)]
    pub(crate) fn forward(&self, simd: Simd, from: &[f32], stride: usize, coefficients: &mut Coefficients) {
        let bases = self.bases().expect("a small chunk");
        simd.run(Forward { bases, from, stride, coefficients });
    }

    /// The chunk of given coefficients, both `[height, width]`, by way of f64.
    #[cfg(test)]
    pub(crate) fn inverse(&self, coefficients: &[f32], chunk: &mut [f32]) {
        let entry = |(at, &value): (usize, &f32)| (at % self.width, at / self.width, f64::from(value));
        let mut entries: Vec<_> = coefficients.iter().enumerate().filter(|(_, value)| **value != 0.0).map(entry).collect();
        entries.sort_by_key(|entry| entry.0);
        let (vertical, horizontal) = (Wave::real(self.height), Wave::real(self.width));
        inverse_rows(
            [&vertical, &horizontal],
            &entries,
            |sum| sum,
            |i, sums| {
                chunk[i * self.width..].iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum as f32);
            },
        );
    }
}

/// One chunk's forward transform.
#[cfg(test)]
struct Forward<'a> {
    bases: [&'a Basis; 2],
    from: &'a [f32],
    stride: usize,
    coefficients: &'a mut Coefficients,
}

#[cfg(test)]
impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        self.coefficients.transform::<I>(self.bases, self.from, &[], self.stride);
    }
}
