//! The forward transform as matrix products of libtorch, several times as fast as plain Rust.
//!
//! What a node sends is its own choice, so that the rounding of its device does not matter here; what everybody
//! applies goes through [`crate::exact`].

use std::collections::HashMap;

use tch::Tensor;

use crate::GpuError;
use crate::codec::{Layout, ParameterLayout, Part, Selection, TopK, dct_basis};

#[cfg(test)]
mod tests;

/// Elements that are transformed at a time, unless one chunk row has more.
const ELEMENTS_AT_A_TIME: usize = 1 << 20;

/// The orthonormal DCT bases of a model's chunk edges, transposed: `[j, u]` f32.
pub(crate) struct Bases(HashMap<usize, Tensor>);

impl Bases {
    /// The bases of all chunks of `layout`.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn new(layout: &Layout) -> Result<Self, GpuError> {
        let mut bases = HashMap::new();
        for geometry in layout.parameters().iter().map(ParameterLayout::geometry) {
            for n in [geometry.chunk_height(), geometry.chunk_width()] {
                if bases.contains_key(&n) {
                    continue;
                }
                let basis: Vec<f32> = dct_basis(n).into_iter().map(|value| value as f32).collect();
                let basis = Tensor::f_from_slice(&basis)?.f_view([n as i64, n as i64])?;
                bases.insert(n, basis.f_transpose(0, 1)?.f_contiguous()?);
            }
        }
        Ok(Self(bases))
    }

    /// The top-k coefficients of each chunk of a part, unquantised.
    ///
    /// # Shapes
    /// `rows`: the part's elements.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn compress(&self, layout: &Layout, part: &Part, rows: &[f32]) -> Result<Selection, GpuError> {
        let parameter = &layout.parameters()[part.parameter()];
        let (geometry, k) = (parameter.geometry(), parameter.k());
        let kept = part.chunks().len() * k;
        let mut selection = Selection { indices: Vec::with_capacity(kept), values: Vec::with_capacity(kept) };
        let mut top = TopK::default();
        let slabs = (ELEMENTS_AT_A_TIME / geometry.slab_len()).max(1);
        for rows in rows.chunks(slabs * geometry.slab_len()) {
            let coefficients = Vec::<f32>::try_from(self.forward(parameter, rows)?)?;
            for chunk in coefficients.chunks_exact(geometry.chunk_len()) {
                let indices = top.select(chunk, k);
                selection.values.extend(indices.iter().map(|&index| chunk[usize::from(index)]));
                selection.indices.extend_from_slice(indices);
            }
        }
        Ok(selection)
    }

    /// Coefficients of whole chunk rows, chunk after chunk: `[elements]`.
    fn forward(&self, parameter: &ParameterLayout, rows: &[f32]) -> Result<Tensor, GpuError> {
        let geometry = parameter.geometry();
        let [h, w, columns] = [geometry.chunk_height(), geometry.chunk_width(), geometry.chunks_per_row()].map(|n| n as i64);
        // Along the rows all chunks are one matrix product, across them one per chunk row.
        let along = Tensor::f_from_slice(rows)?.f_view([-1, w])?.f_matmul(&self.0[&geometry.chunk_width()])?;
        if h == 1 {
            return Ok(along.f_view(-1)?);
        }
        let vertical = self.0[&geometry.chunk_height()].f_transpose(0, 1)?;
        let both = vertical.f_matmul(&along.f_view([-1, h, columns * w])?)?;
        Ok(both.f_view([-1, h, columns, w])?.f_transpose(1, 2)?.f_reshape(-1)?)
    }
}
