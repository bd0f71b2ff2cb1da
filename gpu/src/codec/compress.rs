//! From momentum to the coefficients that are sent, and back into error feedback.

use super::forward::Coefficients;
use super::large;
use super::parallel::scoped;
use super::select::TopK;
use super::simd::{Isa, Kernel, Simd};
use super::subtract::Sent;
use super::{CodecError, Layout, ParameterLayout, Part, Threads};

/// The coefficients chosen from a part's chunks: `k` per chunk, chunk after chunk, indices ascending inside a chunk.
///
/// An own selection holds the coefficients themselves; one decoded from a 1-bit payload holds +1 and −1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Index of each coefficient inside its chunk: `[chunks, k]`.
    pub indices: Vec<u32>,
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
        let mut selection = Selection::of(parameter, part);
        let share = threads.worth(rows.len()).share(part.chunk_rows().len());
        let rows = rows.chunks(share * parameter.geometry().slab_len());
        scoped(rows.zip(selection.shares(parameter, share)), |(rows, kept)| {
            if let Some(large) = parameter.transform().large() {
                return large::compress(parameter, large, rows, kept);
            }
            simd.run(CompressSlabs { rows, choose: Choose::new(parameter, kept) });
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
        let share = threads.worth(rows.len()).share(part.chunk_rows().len());
        let rows = rows.chunks_mut(share * parameter.geometry().slab_len());
        scoped(rows.zip(selection.slabs(parameter, share)), |(rows, sent)| {
            if let Some(large) = parameter.transform().large() {
                return large::subtract(parameter, large, sent, rows);
            }
            Simd::best().run(SubtractSlabs { rows, sent: Sent::new(parameter, sent) });
        });
        Ok(())
    }

    /// Brings a part's momentum up to date and keeps the top-k coefficients of its chunks, in one pass over the memory:
    /// what was `sent` leaves the momentum as [`Self::subtract`] does it, the gradient comes in, and then
    /// [`Self::compress`].
    ///
    /// # Shapes
    /// `rows`, the intake's gradient: the part's elements; `sent`: of the same part.
    ///
    /// # Errors
    /// Buffers of another length, indices outside their chunk.
    pub fn advance(
        &self,
        part: &Part,
        rows: &mut [f32],
        intake: Intake<'_>,
        sent: Option<&Selection>,
        threads: Threads,
    ) -> Result<Selection, CodecError> {
        let parameter = self.parameter_of(part, rows.len())?;
        self.parameter_of(part, intake.gradient.len())?;
        sent.map_or(Ok(()), |sent| check_selection(parameter, part, sent))?;
        let mut selection = Selection::of(parameter, part);
        let share = threads.worth(rows.len()).share(part.chunk_rows().len());
        let len = share * parameter.geometry().slab_len();
        let mut sent = sent.map(|sent| sent.slabs(parameter, share));
        let shares = rows.chunks_mut(len).zip(intake.gradient.chunks(len)).zip(selection.shares(parameter, share));
        let shares = shares.map(|both| (both, sent.as_mut().and_then(Iterator::next)));
        scoped(shares, |(((rows, gradient), kept), sent)| {
            let intake = Intake { gradient, ..intake };
            if let Some(large) = parameter.transform().large() {
                sent.into_iter().for_each(|sent| large::subtract(parameter, large, sent, rows));
                large::take_in(rows, intake);
                return large::compress(parameter, large, rows, kept);
            }
            let sent = sent.map(|sent| Sent::new(parameter, sent));
            Simd::best().run(AdvanceSlabs { rows, intake, sent, choose: Choose::new(parameter, kept) });
        });
        Ok(selection)
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
        let inside = indices.last().is_some_and(|&last| (last as usize) < n);
        if !inside || !indices.is_sorted_by(|a, b| a < b) {
            return Err(CodecError::IndexOrder { chunk });
        }
    }
    Ok(())
}

/// A gradient on its way into the momentum: `momentum = decay · momentum + rate · gradient`.
#[derive(Debug, Clone, Copy)]
pub struct Intake<'a> {
    /// The part's elements.
    pub gradient: &'a [f32],
    /// Share of the momentum that survives.
    pub decay: f32,
    /// Factor of the gradient.
    pub rate: f32,
}

/// Indices and values of consecutive chunks.
pub(super) type Kept<'a> = (&'a [u32], &'a [f32]);
pub(super) type KeptMut<'a> = (&'a mut [u32], &'a mut [f32]);

impl Selection {
    /// Room for a part's coefficients.
    fn of(parameter: &ParameterLayout, part: &Part) -> Self {
        let kept = part.chunks().len() * parameter.k();
        Self { indices: vec![0; kept], values: vec![0.0; kept] }
    }

    /// What belongs to every `share` chunk rows.
    fn slabs(&self, parameter: &ParameterLayout, share: usize) -> impl Iterator<Item = Kept<'_>> {
        let kept = share * parameter.geometry().chunks_per_row() * parameter.k();
        self.indices.chunks(kept).zip(self.values.chunks(kept))
    }

    /// The same, to be written.
    fn shares(&mut self, parameter: &ParameterLayout, share: usize) -> impl Iterator<Item = KeptMut<'_>> {
        let kept = share * parameter.geometry().chunks_per_row() * parameter.k();
        self.indices.chunks_mut(kept).zip(self.values.chunks_mut(kept))
    }
}

/// Chooses the coefficients of one chunk row after another.
struct Choose<'a> {
    parameter: &'a ParameterLayout,
    coefficients: Coefficients,
    top: TopK,
    kept: KeptMut<'a>,
}

impl<'a> Choose<'a> {
    fn new(parameter: &'a ParameterLayout, kept: KeptMut<'a>) -> Self {
        let geometry = parameter.geometry();
        let coefficients = Coefficients::new(geometry.chunk_height(), geometry.chunk_width());
        Self { parameter, coefficients, top: TopK::default(), kept }
    }

    /// The chunk row with this number of whole chunk rows, which `kept` has room for.
    #[inline(always)]
    fn slab<I: Isa>(&mut self, number: usize, rows: &[f32]) {
        let (geometry, k) = (self.parameter.geometry(), self.parameter.k());
        let (Some(bases), coefficients) = (self.parameter.transform().bases(), &mut self.coefficients) else { return };
        for chunk in number * geometry.chunks_per_row()..(number + 1) * geometry.chunks_per_row() {
            let next = rows.get(geometry.corner(chunk + 1)..).unwrap_or_default();
            coefficients.transform::<I>(bases, &rows[geometry.corner(chunk)..], next, geometry.width());
            let chosen = self.top.select_placed::<I>(coefficients.kept(), k, |place| coefficients.index(place));
            let at = chunk * k;
            self.kept.0[at..at + k].copy_from_slice(chosen);
            for (value, &index) in self.kept.1[at..at + k].iter_mut().zip(chosen) {
                *value = coefficients.get(index);
            }
        }
    }
}

/// Whole chunk rows of a tensor that stays as it is.
struct CompressSlabs<'a> {
    rows: &'a [f32],
    choose: Choose<'a>,
}

impl Kernel for CompressSlabs<'_> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        for number in 0..self.rows.len() / self.choose.parameter.geometry().slab_len() {
            self.choose.slab::<I>(number, self.rows);
        }
    }
}

/// Whole chunk rows that what was sent leaves.
struct SubtractSlabs<'a> {
    rows: &'a mut [f32],
    sent: Sent<'a>,
}

impl Kernel for SubtractSlabs<'_> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        for (number, slab) in self.rows.chunks_exact_mut(self.sent.slab_len()).enumerate() {
            self.sent.leave::<I>(number, slab);
        }
    }
}

/// Whole chunk rows of momentum.
struct AdvanceSlabs<'a> {
    rows: &'a mut [f32],
    intake: Intake<'a>,
    sent: Option<Sent<'a>>,
    choose: Choose<'a>,
}

impl Kernel for AdvanceSlabs<'_> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let (len, Intake { gradient, decay, rate }) = (self.choose.parameter.geometry().slab_len(), self.intake);
        for (number, gradient) in gradient.chunks_exact(len).enumerate() {
            let slab = &mut self.rows[number * len..(number + 1) * len];
            if let Some(sent) = &mut self.sent {
                sent.leave::<I>(number, slab);
            }
            for (momentum, gradient) in slab.iter_mut().zip(gradient) {
                *momentum = decay * *momentum + rate * gradient;
            }
            self.choose.slab::<I>(number, self.rows);
        }
    }
}
