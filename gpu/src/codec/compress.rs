//! From momentum to the coefficients that are sent, and back into error feedback.

use super::forward::Coefficients;
use super::parallel::scoped;
use super::select::TopK;
use super::simd::{Kernel, Simd};
use super::transform::SparseScratch;
use super::{CodecError, Layout, ParameterLayout, Part, Threads};

/// The coefficients chosen from a part's chunks: `k` per chunk, chunk after chunk, indices ascending inside a chunk.
///
/// An own selection holds the coefficients themselves; one decoded from a 1-bit payload holds +1 and −1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Index of each coefficient inside its chunk: `[chunks, k]`.
    pub indices: Vec<u16>,
    /// Value of each coefficient: `[chunks, k]`.
    pub values: Vec<f32>,
}

impl Layout {
    /// Transforms a part of a tensor and keeps the top-k coefficients of each chunk, unquantised.
    ///
    /// # Shapes
    /// `rows`: the part's elements.
    ///
    /// # Errors
    /// A buffer of another length.
    pub fn compress(&self, part: &Part, rows: &[f32], threads: Threads) -> Result<Selection, CodecError> {
        self.compress_with(Simd::best(), part, rows, threads)
    }

    /// [`Self::compress`] with a chosen instruction set.
    pub(crate) fn compress_with(
        &self,
        simd: Simd,
        part: &Part,
        rows: &[f32],
        threads: Threads,
    ) -> Result<Selection, CodecError> {
        let parameter = self.parameter_of(part, rows.len())?;
        let kept = part.chunks().len() * parameter.k();
        let mut selection = Selection { indices: vec![0; kept], values: vec![0.0; kept] };
        let share = threads.share(part.chunk_rows().len());
        let slab_kept = parameter.geometry().chunks_per_row() * parameter.k();
        let rows = rows.chunks(share * parameter.geometry().slab_len());
        let indices = selection.indices.chunks_mut(share * slab_kept);
        let values = selection.values.chunks_mut(share * slab_kept);
        scoped(rows.zip(indices.zip(values)), |(rows, (indices, values))| {
            simd.run(CompressSlabs { parameter, rows, indices, values });
        });
        Ok(selection)
    }

    /// Subtracts the inverse transform of `selection` from a part of a tensor: what was sent leaves the momentum.
    ///
    /// # Shapes
    /// `rows`: the part's elements; `selection`: of the same part.
    ///
    /// # Errors
    /// A buffer of another length, indices outside their chunk.
    pub fn subtract(&self, part: &Part, selection: &Selection, rows: &mut [f32], threads: Threads) -> Result<(), CodecError> {
        let parameter = self.parameter_of(part, rows.len())?;
        check_selection(parameter, part, selection)?;
        let share = threads.share(part.chunk_rows().len());
        let slab_kept = parameter.geometry().chunks_per_row() * parameter.k();
        let rows = rows.chunks_mut(share * parameter.geometry().slab_len());
        let indices = selection.indices.chunks(share * slab_kept);
        let values = selection.values.chunks(share * slab_kept);
        scoped(rows.zip(indices.zip(values)), |(rows, (indices, values))| {
            subtract_slabs(parameter, indices, values, rows);
        });
        Ok(())
    }

    /// The part's parameter, once `len` is the part's number of elements.
    pub(crate) fn parameter_of(&self, part: &Part, len: usize) -> Result<&ParameterLayout, CodecError> {
        let parameter = self.known(part)?;
        let expected = part.elements().len();
        if len != expected {
            return Err(CodecError::BufferLength { unit: "elements", expected, actual: len });
        }
        Ok(parameter)
    }

    /// The part's parameter, once the part is one of this layout's.
    pub(crate) fn known(&self, part: &Part) -> Result<&ParameterLayout, CodecError> {
        let (parameter, blocks) = (part.parameter(), part.blocks());
        let outside = CodecError::OutsideLayout { parameter, start: blocks.start, end: blocks.end };
        let same = self.part(parameter, blocks).is_ok_and(|own| own == *part);
        self.parameters().get(parameter).filter(|_| same).ok_or(outside)
    }
}

/// Checks lengths, and that every chunk's indices ascend strictly inside the chunk.
pub(crate) fn check_selection(parameter: &ParameterLayout, part: &Part, selection: &Selection) -> Result<(), CodecError> {
    let expected = part.chunks().len() * parameter.k();
    for actual in [selection.indices.len(), selection.values.len()] {
        if actual != expected {
            return Err(CodecError::BufferLength { unit: "coefficients", expected, actual });
        }
    }
    let n = parameter.geometry().chunk_len();
    for (chunk, indices) in selection.indices.chunks_exact(parameter.k()).enumerate() {
        let inside = indices.last().is_some_and(|&last| usize::from(last) < n);
        if !inside || !indices.is_sorted_by(|a, b| a < b) {
            return Err(CodecError::IndexOrder { chunk });
        }
    }
    Ok(())
}

/// Whole chunk rows, and where what is kept of their chunks goes.
struct CompressSlabs<'a> {
    parameter: &'a ParameterLayout,
    rows: &'a [f32],
    indices: &'a mut [u16],
    values: &'a mut [f32],
}

impl Kernel for CompressSlabs<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let (geometry, k) = (self.parameter.geometry(), self.parameter.k());
        let bases = self.parameter.transform().bases();
        let mut coefficients = Coefficients::new(geometry.chunk_height(), geometry.chunk_width());
        let mut top = TopK::default();
        let mut kept = self.indices.chunks_exact_mut(k).zip(self.values.chunks_exact_mut(k));
        for slab in self.rows.chunks_exact(geometry.slab_len()) {
            for (column, (indices, values)) in kept.by_ref().take(geometry.chunks_per_row()).enumerate() {
                coefficients.transform::<FUSED>(bases, &slab[column * geometry.chunk_width()..], geometry.width());
                let chosen = top.select_placed(coefficients.kept(), k, |place| coefficients.index(place));
                indices.copy_from_slice(chosen);
                values.iter_mut().zip(chosen).for_each(|(value, &index)| *value = coefficients.get(index));
            }
        }
    }
}

fn subtract_slabs(parameter: &ParameterLayout, indices: &[u16], values: &[f32], rows: &mut [f32]) {
    let (geometry, transform, k) = (parameter.geometry(), parameter.transform(), parameter.k());
    let mut chunk = vec![0.0; geometry.chunk_len()];
    let mut scratch = SparseScratch::default();
    let mut kept = indices.chunks_exact(k).zip(values.chunks_exact(k));
    for slab in rows.chunks_exact_mut(geometry.slab_len()) {
        for (column, (indices, values)) in kept.by_ref().take(geometry.chunks_per_row()).enumerate() {
            transform.inverse_sparse(indices, values, &mut chunk, &mut scratch);
            let start = column * geometry.chunk_width();
            let lines = slab.chunks_exact_mut(geometry.width()).zip(chunk.chunks_exact(geometry.chunk_width()));
            for (line, sent) in lines {
                line[start..].iter_mut().zip(sent).for_each(|(element, sent)| *element -= sent);
            }
        }
    }
}
