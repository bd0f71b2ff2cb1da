//! The exact apply of a part of one tensor.

use std::ops::Range;

use super::inverse::Inverse;
use super::shift;
use super::votes::{Ballot, count_sparse};
use crate::codec::parallel::{scoped, try_scoped};
use crate::codec::simd::{Isa, Kernel, Simd};
use crate::codec::wave::{Wave, inverse_rows};
use crate::codec::{CodecError, Geometry, Layout, ParameterLayout, Part, Selection, Threads, ValidPayload, check_selection};

/// Blocks that each thread of [`apply_payloads`] decodes at a time, which bounds their memory.
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
        let share = threads.worth(rows.len()).share(self.part.chunk_rows().len());
        let slabs = rows.chunks_mut(share * geometry.slab_len()).enumerate();
        scoped(slabs, |(index, rows)| {
            self.apply_slabs(index * share * geometry.chunks_per_row(), rows, lr, &mut None);
        });
        Ok(())
    }

    /// Moves whole chunk rows, of which the first begins with chunk `first` of the part; `buffers` are made when needed.
    fn apply_slabs(&self, first: usize, rows: &mut [f32], lr: f32, buffers: &mut Option<Buffers>) {
        let geometry = self.parameter.geometry();
        match self.parameter.transform().large() {
            Some(large) => self.apply_large(large.integers(), first, rows, lr),
            None => {
                let buffers = buffers.get_or_insert_with(|| Buffers::new(geometry));
                self.simd.run(ApplySlabs { all: self, first, rows, lr, buffers });
            }
        }
    }

    /// The same with large chunks.
    fn apply_large(&self, bases: [&Wave; 2], first: usize, rows: &mut [f32], lr: f32) {
        let geometry = self.parameter.geometry();
        for chunk in 0..rows.len() / geometry.chunk_len() {
            let entries = count_sparse(self.votes(first + chunk), geometry.chunk_width());
            let corner = geometry.corner(chunk);
            inverse_rows(bases, &entries, shift, |i, sums| {
                let row = &mut rows[corner + i * geometry.width()..][..geometry.chunk_width()];
                for (weight, &sum) in row.iter_mut().zip(sums) {
                    if sum > 0.0 {
                        *weight -= lr;
                    } else if sum < 0.0 {
                        *weight += lr;
                    }
                }
            });
        }
    }

    /// Every sender's votes on one chunk.
    fn votes(&self, chunk: usize) -> impl Iterator<Item = (&[u32], &[f32])> + Clone {
        let range = chunk * self.parameter.k()..(chunk + 1) * self.parameter.k();
        self.senders.iter().map(move |sender| (&sender.indices[range.clone()], &sender.values[range.clone()]))
    }
}

/// One thread's buffers for one chunk after another.
#[derive(Debug)]
struct Buffers {
    ballot: Ballot,
    inverse: Inverse,
}

impl Buffers {
    fn new(geometry: &Geometry) -> Self {
        Self {
            ballot: Ballot::new(geometry.chunk_len(), geometry.chunk_width()),
            inverse: Inverse::new(geometry.chunk_height(), geometry.chunk_width()),
        }
    }
}

/// Whole chunk rows, of which the first begins with chunk `first` of the part.
struct ApplySlabs<'a, 'b> {
    all: &'a Accumulator<'b>,
    first: usize,
    rows: &'a mut [f32],
    lr: f32,
    buffers: &'a mut Buffers,
}

impl Kernel for ApplySlabs<'_, '_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let geometry = self.all.parameter.geometry();
        let Some(bases) = self.all.parameter.transform().bases() else { return };
        let [vertical, horizontal] = bases.map(|basis| &basis.integers);
        let Buffers { ballot, inverse } = self.buffers;
        let chunks = self.rows.len() / geometry.chunk_len();
        for chunk in 0..chunks {
            ballot.count(self.all.votes(self.first + chunk));
            inverse.take::<I>(vertical, ballot);
            let next = geometry.corner(chunk + 1) - geometry.corner(chunk);
            inverse.step::<I>(horizontal, &mut self.rows[geometry.corner(chunk)..], (geometry.width(), next), self.lr);
        }
    }
}

/// Applies whole payloads to one part, each thread to blocks of its own, of which it decodes a bounded number at a time.
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
    if payloads.is_empty() {
        return Ok(());
    }
    let blocks = part.blocks();
    let share = threads.worth(rows.len()).share(blocks.len());
    let shares = blocks.clone().step_by(share).zip(rows.chunks_mut(share * parameter.block_elements()));
    try_scoped(shares, |(first, rows)| {
        apply_blocks(layout, (part.parameter(), first..(first + share).min(blocks.end)), payloads, rows, lr)
    })
}

/// Applies payloads to blocks of a parameter in the caller's thread.
fn apply_blocks(
    layout: &Layout,
    (parameter, blocks): (usize, Range<usize>),
    payloads: &[ValidPayload<'_>],
    rows: &mut [f32],
    lr: f32,
) -> Result<(), CodecError> {
    let part = layout.part(parameter, blocks.clone())?;
    let parameter = layout.parameter_of(&part, rows.len())?;
    let mut buffers = None;
    let mut selections = vec![Selection::default(); payloads.len()];
    let pieces = blocks.clone().step_by(BLOCKS_AT_A_TIME).zip(rows.chunks_mut(BLOCKS_AT_A_TIME * parameter.block_elements()));
    for (block, rows) in pieces {
        let piece = layout.part(part.parameter(), block..(block + BLOCKS_AT_A_TIME).min(blocks.end))?;
        let mut accumulator = Accumulator::new(layout, &piece)?;
        payloads.iter().zip(&mut selections).try_for_each(|(payload, selection)| payload.decode_into(&piece, selection))?;
        selections.iter().try_for_each(|selection| accumulator.add(selection))?;
        accumulator.apply_slabs(0, rows, lr, &mut buffers);
    }
    Ok(())
}
