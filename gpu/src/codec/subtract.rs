//! What was sent leaves the momentum: the inverse transform of a few coefficients per chunk, subtracted in place.
//!
//! Each element's sum is one chain of multiply-adds in the order of the coefficients, as in the CUDA kernels.

use super::ParameterLayout;
use super::compress::Kept;
use super::simd::{Isa, LANES, Lanes};

/// Vectors of a row that share a load of a factor.
const TOGETHER: usize = 4;

/// What was sent of consecutive chunk rows, and buffers for one small chunk after another.
pub(super) struct Sent<'a> {
    parameter: &'a ParameterLayout,
    kept: Kept<'a>,
    /// `[k, height]`: each coefficient times its vertical basis function.
    columns: Vec<f32>,
    /// `[vectors of a row, k]`: each coefficient's horizontal basis function.
    basis: Vec<Lanes>,
}

impl<'a> Sent<'a> {
    pub(super) fn new(parameter: &'a ParameterLayout, kept: Kept<'a>) -> Self {
        Self { parameter, kept, columns: Vec::new(), basis: Vec::new() }
    }

    /// Elements of a chunk row.
    pub(super) fn slab_len(&self) -> usize {
        self.parameter.geometry().slab_len()
    }

    /// Subtracts what was sent of the chunk row with this number.
    #[inline(always)]
    pub(super) fn leave<I: Isa>(&mut self, number: usize, slab: &mut [f32]) {
        let (geometry, k) = (self.parameter.geometry(), self.parameter.k());
        for column in 0..geometry.chunks_per_row() {
            let at = (number * geometry.chunks_per_row() + column) * k;
            self.spread(at..at + k);
            let corner = &mut slab[column * geometry.chunk_width()..];
            for (i, row) in corner.chunks_mut(geometry.width()).take(geometry.chunk_height()).enumerate() {
                self.row::<I>(i, &mut row[..geometry.chunk_width()]);
            }
        }
    }

    /// Fills the buffers with the basis functions of some of the coefficients.
    #[inline(always)]
    fn spread(&mut self, range: std::ops::Range<usize>) {
        let (w, k) = (self.parameter.geometry().chunk_width(), range.len());
        let Some([vertical, horizontal]) = self.parameter.transform().bases() else { return };
        self.columns.clear();
        self.basis.resize(w.div_ceil(LANES) * k, [0.0; LANES]);
        let (indices, values) = (&self.kept.0[range.clone()], &self.kept.1[range]);
        for (p, (&index, &value)) in indices.iter().zip(values).enumerate() {
            let (u, v) = (index as usize / w, index as usize % w);
            self.columns.extend(vertical.row(u).iter().map(|basis| basis * value));
            for (lanes, basis) in self.basis[p..].iter_mut().step_by(k).zip(horizontal.row(v).chunks(LANES)) {
                lanes[..basis.len()].copy_from_slice(basis);
            }
        }
    }

    /// Row `i` of a chunk.
    #[inline(always)]
    fn row<I: Isa>(&self, i: usize, row: &mut [f32]) {
        let (h, k) = (self.parameter.geometry().chunk_height(), self.parameter.k());
        let mut bases = self.basis.chunks(TOGETHER * k);
        for (row, bases) in row.chunks_mut(TOGETHER * LANES).zip(bases.by_ref()) {
            let mut sums = [I::zero(); TOGETHER];
            if bases.len() == TOGETHER * k {
                for p in 0..k {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = I::multiply_add(self.columns[p * h + i], I::load(&bases[vector * k + p]), *sum);
                    }
                }
            } else {
                for (sum, bases) in sums.iter_mut().zip(bases.chunks_exact(k)) {
                    for (p, basis) in bases.iter().enumerate() {
                        *sum = I::multiply_add(self.columns[p * h + i], I::load(basis), *sum);
                    }
                }
            }
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            for (elements, sum) in whole.iter_mut().zip(&sums) {
                I::store(I::sub(I::load(elements), *sum), elements);
            }
            if let Some(sum) = sums.get(whole.len()).filter(|_| !rest.is_empty()) {
                let mut sent = [0.0; LANES];
                I::store(*sum, &mut sent);
                rest.iter_mut().zip(sent).for_each(|(element, sent)| *element -= sent);
            }
        }
    }
}
