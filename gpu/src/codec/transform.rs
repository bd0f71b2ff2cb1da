//! The orthonormal DCT-II of chunks, forward and inverse, in f32.
//!
//! `forward: C[u][v] = Σ_i Σ_j B_h[u][i] · X[i][j] · B_w[v][j]` with
//! `B_n[u][j] = √(1/n) · cos(π (2j + 1) u / 2n)`, times √2 for `u > 0`. The basis is computed in f64.

use std::sync::Arc;

#[cfg(test)]
use super::forward::Coefficients;
use super::forward::Plan;
use super::matmul::{Sizes, Strided, transposed_product};
#[cfg(test)]
use super::simd::{Isa, Kernel, Simd};
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
    height: Arc<Basis>,
    width: Arc<Basis>,
}

impl Transform {
    /// The transform of `[height, width]` chunks, both at least 1.
    pub fn new(height: usize, width: usize) -> Self {
        let width_basis = Arc::new(Basis::new(width));
        let height = if height == width { Arc::clone(&width_basis) } else { Arc::new(Basis::new(height)) };
        Self { height, width: width_basis }
    }

    /// Elements of one chunk.
    pub fn chunk_len(&self) -> usize {
        self.height.n * self.width.n
    }

    /// The bases of the chunk's height and of its width.
    pub(crate) fn bases(&self) -> [&Basis; 2] {
        [&self.height, &self.width]
    }

    /// Coefficients of one chunk as a whole; [`Coefficients::write`] has them in order.
    ///
    /// # Shapes
    /// `from`: `height` rows of `width` elements, rows `stride` elements apart; `coefficients`: made for this size.
    ///
    /// # Panics
    /// Where a slice is too short.
    #[cfg(test)]
    pub(crate) fn forward(&self, simd: Simd, from: &[f32], stride: usize, coefficients: &mut Coefficients) {
        simd.run(Forward { transform: self, from, stride, coefficients });
    }

    /// The chunk of given coefficients.
    ///
    /// # Shapes
    /// `coefficients`, `chunk`, `scratch`: one chunk each.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn inverse(&self, coefficients: &[f32], chunk: &mut [f32], scratch: &mut [f32]) {
        let (h, w) = (self.height.n, self.width.n);
        let first = Sizes { depth: h, height: w, width: h };
        let coefficients = Strided { data: coefficients, stride: w };
        transposed_product(first, coefficients, Strided { data: &self.height.rows, stride: h }, scratch);
        let second = Sizes { depth: w, height: h, width: w };
        let half = Strided { data: &*scratch, stride: h };
        transposed_product(second, half, Strided { data: &self.width.rows, stride: w }, chunk);
    }

    /// The chunk of a few coefficients, the rest being zero; the cost grows with their number.
    ///
    /// # Shapes
    /// `indices`, `values`: the coefficients (`index = u · width + v`); `chunk`: one chunk.
    ///
    /// # Panics
    /// Where an index or a slice does not fit the chunk.
    pub fn inverse_sparse(&self, indices: &[u16], values: &[f32], chunk: &mut [f32], scratch: &mut SparseScratch) {
        let (h, w) = (self.height.n, self.width.n);
        scratch.columns.clear();
        scratch.basis.clear();
        for (&index, &value) in indices.iter().zip(values) {
            let (u, v) = (usize::from(index) / w, usize::from(index) % w);
            scratch.columns.extend(self.height.rows[u * h..][..h].iter().map(|basis| basis * value));
            scratch.basis.extend_from_slice(&self.width.rows[v * w..][..w]);
        }
        let sizes = Sizes { depth: indices.len(), height: h, width: w };
        let columns = Strided { data: &scratch.columns[..], stride: h };
        transposed_product(sizes, columns, Strided { data: &scratch.basis[..], stride: w }, chunk);
    }
}

/// One chunk's forward transform.
#[cfg(test)]
struct Forward<'a> {
    transform: &'a Transform,
    from: &'a [f32],
    stride: usize,
    coefficients: &'a mut Coefficients,
}

#[cfg(test)]
impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        self.coefficients.transform::<I>(self.transform.bases(), self.from, &[], self.stride);
    }
}

/// Buffers of [`Transform::inverse_sparse`], reused from chunk to chunk.
#[derive(Debug, Default)]
pub struct SparseScratch {
    /// `[k, height]`: each coefficient times its vertical basis function.
    columns: Vec<f32>,
    /// `[k, width]`: each coefficient's horizontal basis function.
    basis: Vec<f32>,
}
