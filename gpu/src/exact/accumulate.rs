//! The exact apply of a part of one tensor.

use super::inverse::Inverse;
use super::votes::Ballot;
use crate::codec::parallel::scoped;
use crate::codec::simd::{Kernel, Simd};
use crate::codec::{CodecError, Layout, ParameterLayout, Part, Selection, Threads, ValidPayload, check_selection};

/// Blocks per thread that [`apply_payloads`] decodes at a time, which bounds its memory.
const BLOCKS_AT_A_TIME: usize = 16;

/// Collects the accepted senders' selections of one part and applies them.
#[derive(Debug)]
pub struct Accumulator<'a> {
    parameter: &'a ParameterLayout,
    part: &'a Part,
    senders: Vec<&'a Selection>,
    simd: Simd,
}

impl<'a> Accumulator<'a> {
    /// Starts with no sender.
    ///
    /// # Errors
    /// A part of another layout.
    pub fn new(layout: &'a Layout, part: &'a Part) -> Result<Self, CodecError> {
        let parameter = layout.known(part)?;
        Ok(Self { parameter, part, senders: Vec::new(), simd: Simd::best() })
    }

    /// The same with another instruction set than the best.
    #[cfg(test)]
    pub(crate) fn with(self, simd: Simd) -> Self {
        Self { simd, ..self }
    }

    /// Adds one sender's selection; the order in which senders are added does not matter.
    ///
    /// # Errors
    /// A selection of another part, unordered indices, values that are not finite.
    pub fn add(&mut self, selection: &'a Selection) -> Result<(), CodecError> {
        check_selection(self.parameter, self.part, selection)?;
        if let Some(at) = selection.values.iter().position(|value| !value.is_finite()) {
            return Err(CodecError::NotFinite { chunk: at / self.parameter.k() });
        }
        self.senders.push(selection);
        Ok(())
    }

    /// `w ← w − lr · s` for every element of the part; without senders nothing changes.
    ///
    /// # Shapes
    /// `rows`: the part's elements.
    ///
    /// # Errors
    /// A buffer of another length.
    pub fn apply(&self, rows: &mut [f32], lr: f32, threads: Threads) -> Result<(), CodecError> {
        let expected = self.part.elements().len();
        if rows.len() != expected {
            return Err(CodecError::BufferLength { unit: "elements", expected, actual: rows.len() });
        }
        if self.senders.is_empty() {
            return Ok(());
        }
        let geometry = self.parameter.geometry();
        let share = threads.share(self.part.chunk_rows().len());
        let slabs = rows.chunks_mut(share * geometry.slab_len()).enumerate();
        scoped(slabs, |(index, rows)| {
            self.simd.run(ApplySlabs { all: self, first: index * share * geometry.chunks_per_row(), rows, lr });
        });
        Ok(())
    }

    /// Every sender's votes on one chunk.
    fn votes(&self, chunk: usize) -> impl Iterator<Item = (&[u16], &[f32])> + Clone {
        let range = chunk * self.parameter.k()..(chunk + 1) * self.parameter.k();
        self.senders.iter().map(move |sender| (&sender.indices[range.clone()], &sender.values[range.clone()]))
    }
}

/// Whole chunk rows, of which the first begins with chunk `first` of the part.
struct ApplySlabs<'a, 'b> {
    all: &'a Accumulator<'b>,
    first: usize,
    rows: &'a mut [f32],
    lr: f32,
}

impl Kernel for ApplySlabs<'_, '_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let geometry = self.all.parameter.geometry();
        let [vertical, horizontal] = self.all.parameter.transform().bases().map(|basis| &basis.integers);
        let mut ballot = Ballot::new(geometry.chunk_len(), geometry.chunk_width());
        let mut inverse = Inverse::new(geometry.chunk_height(), geometry.chunk_width());
        let mut chunks = self.first..;
        for slab in self.rows.chunks_exact_mut(geometry.slab_len()) {
            for (column, chunk) in chunks.by_ref().take(geometry.chunks_per_row()).enumerate() {
                ballot.count(self.all.votes(chunk));
                inverse.take(vertical, &ballot);
                let corner = &mut slab[column * geometry.chunk_width()..];
                inverse.step::<FUSED>(horizontal, corner, geometry.width(), self.lr);
            }
        }
    }
}

/// Applies whole payloads to one part, decoding a bounded number of chunks at a time.
///
/// # Shapes
/// `rows`: the part's elements.
///
/// # Errors
/// A buffer of another length, a part or payload of another layout.
pub fn apply_payloads(
    layout: &Layout,
    part: &Part,
    payloads: &[ValidPayload<'_>],
    rows: &mut [f32],
    lr: f32,
    threads: Threads,
) -> Result<(), CodecError> {
    let parameter = layout.parameter_of(part, rows.len())?;
    let at_a_time = BLOCKS_AT_A_TIME * threads.count();
    let pieces = part.blocks().step_by(at_a_time).zip(rows.chunks_mut(at_a_time * parameter.block_elements()));
    for (block, rows) in pieces {
        let piece = layout.part(part.parameter(), block..(block + at_a_time).min(part.blocks().end))?;
        let selections = payloads.iter().map(|payload| payload.decode(&piece)).collect::<Result<Vec<_>, _>>()?;
        let mut accumulator = Accumulator::new(layout, &piece)?;
        selections.iter().try_for_each(|selection| accumulator.add(selection))?;
        accumulator.apply(rows, lr, threads)?;
    }
    Ok(())
}
