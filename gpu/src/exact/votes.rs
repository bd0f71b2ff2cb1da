//! Senders' votes on the coefficients of a part, counted: what the apply starts from, on any device.

use crate::codec::parallel::scoped;
use crate::codec::wave::Entry;
use crate::codec::{CodecError, Layout, Part, Threads, ValidPayload};
use crate::exact::COEFFICIENT_BITS;

/// The integer coefficients of a part with small chunks that are not zero, as sparse lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Votes {
    /// `[chunks + 1]`: where each chunk's entries begin in the two lists below.
    pub(crate) starts: Vec<u64>,
    /// Index inside the chunk; each chunk's entries are sorted by column, then row.
    pub(crate) indices: Vec<u16>,
    /// The coefficient, at most `2^F` in size.
    pub(crate) means: Vec<i32>,
}

impl Votes {
    /// Counts the votes of all payloads on the chunks of `part`.
    ///
    /// # Errors
    /// A part or payload of another layout.
    pub(crate) fn count(
        layout: &Layout,
        part: &Part,
        payloads: &[ValidPayload<'_>],
        threads: Threads,
    ) -> Result<Self, CodecError> {
        let blocks = part.blocks();
        let share = threads.share(blocks.len());
        let piece = |start: usize| layout.part(part.parameter(), start..(start + share).min(blocks.end));
        let pieces = blocks.clone().step_by(share).map(piece).collect::<Result<Vec<_>, _>>()?;
        let mut counted: Vec<_> = pieces.iter().map(|_| Ok(Self::default())).collect();
        scoped(pieces.iter().zip(&mut counted), |(piece, counted)| *counted = Self::count_alone(layout, piece, payloads));
        let mut all = Self { starts: vec![0], ..Self::default() };
        for counted in counted {
            let counted = counted?;
            let before = all.indices.len() as u64;
            all.starts.extend(counted.starts.iter().map(|start| before + start));
            all.indices.extend(counted.indices);
            all.means.extend(counted.means);
        }
        Ok(all)
    }

    /// The starts lack the leading 0.
    fn count_alone(layout: &Layout, part: &Part, payloads: &[ValidPayload<'_>]) -> Result<Self, CodecError> {
        let parameter = layout.known(part)?;
        let (geometry, k) = (parameter.geometry(), parameter.k());
        let senders = payloads.iter().map(|payload| payload.decode(part)).collect::<Result<Vec<_>, _>>()?;
        let mut ballot = Ballot::new(geometry.chunk_len(), geometry.chunk_width());
        let mut votes = Self::default();
        for chunk in 0..part.chunks().len() {
            let range = chunk * k..(chunk + 1) * k;
            ballot.count(senders.iter().map(|sender| (&sender.indices[range.clone()], &sender.values[range.clone()])));
            votes.indices.extend(&ballot.indices);
            votes.means.extend(&ballot.means);
            votes.starts.push(votes.indices.len() as u64);
        }
        Ok(votes)
    }
}

/// The coefficients of one chunk with rows of `width`, of any size, that are not zero; sorted by column, then row.
pub(super) fn count_sparse<'a>(votes: impl Iterator<Item = (&'a [u32], &'a [f32])> + Clone, width: usize) -> Vec<Entry> {
    let scale = scale_of(votes.clone());
    let vote = |(&index, &value): (&u32, &f32)| {
        let at = index as usize;
        (at % width, at / width, round_half_away(f64::from(value) * scale))
    };
    let mut all: Vec<(usize, usize, i64)> =
        votes.flat_map(|(indices, values)| indices.iter().zip(values).map(vote).collect::<Vec<_>>()).collect();
    all.sort_unstable();
    let coefficient = |votes: &[(usize, usize, i64)]| {
        let (v, u, _) = votes[0];
        let mean = mean(votes.iter().map(|vote| vote.2).sum(), votes.len() as i64);
        (mean != 0).then(|| (v, u, f64::from(mean)))
    };
    all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter_map(coefficient).collect()
}

/// One thread's table for counting the votes on one chunk after another.
#[derive(Debug)]
pub(crate) struct Ballot {
    width: usize,
    /// Sum and number of votes per coefficient; all zero between chunks.
    table: Vec<(i64, i64)>,
    /// Coefficients that were voted on, by column and row.
    voted: Vec<u32>,
    /// Coefficients that are not zero, sorted by column, then row.
    pub(crate) indices: Vec<u16>,
    /// What they are.
    pub(crate) means: Vec<i32>,
}

impl Ballot {
    /// For small chunks of `len` coefficients in rows of `width`.
    pub(crate) fn new(len: usize, width: usize) -> Self {
        Self { width, table: vec![(0, 0); len], voted: Vec::new(), indices: Vec::new(), means: Vec::new() }
    }

    /// Replaces the result by what the senders voted on a chunk; indices must lie inside it.
    pub(crate) fn count<'a>(&mut self, votes: impl Iterator<Item = (&'a [u32], &'a [f32])> + Clone) {
        let scale = scale_of(votes.clone());
        self.voted.clear();
        for (indices, values) in votes {
            for (&index, &value) in indices.iter().zip(values) {
                let at = index as usize;
                let (sum, count) = &mut self.table[at];
                if *count == 0 {
                    self.voted.push((((at % self.width) << 16) | (at / self.width)) as u32);
                }
                *sum += round_half_away(f64::from(value) * scale);
                *count += 1;
            }
        }
        self.voted.sort_unstable();
        self.indices.clear();
        self.means.clear();
        for &voted in &self.voted {
            let at = (voted & 0xffff) as usize * self.width + (voted >> 16) as usize;
            let (sum, count) = std::mem::take(&mut self.table[at]);
            let mean = mean(sum, count);
            if mean != 0 {
                self.indices.push(at as u16);
                self.means.push(mean);
            }
        }
    }
}

/// The scale of a chunk's votes.
fn scale_of<'a>(votes: impl Iterator<Item = (&'a [u32], &'a [f32])>) -> f64 {
    fixed_point_scale(votes.flat_map(|(_, values)| values).fold(0.0_f32, |most, value| most.max(value.abs())))
}

/// `2^(F − E)`, with `2^E` the smallest power of two not below `largest`; 0 where nothing but zeros was sent.
fn fixed_point_scale(largest: f32) -> f64 {
    if largest == 0.0 {
        return 0.0;
    }
    // Every finite f32 is a normal f64, so exponent and mantissa lie open.
    let bits = f64::from(largest).to_bits();
    let power_of_two = bits & ((1 << 52) - 1) == 0;
    let exponent = (bits >> 52) as i64 - 1023 + i64::from(!power_of_two);
    f64::from_bits(((i64::from(COEFFICIENT_BITS) - exponent + 1023) as u64) << 52)
}

/// Nearest integer, halves away from zero; for magnitudes of at most `2^F` that came from an f32.
fn round_half_away(value: f64) -> i64 {
    // 24 significant bits plus one half fit a f64: the sum is exact.
    let magnitude = (value.abs() + 0.5) as i64;
    if value < 0.0 { -magnitude } else { magnitude }
}

/// `sum / count`, halves away from zero; no larger than the largest vote, `2^F`.
fn mean(sum: i64, count: i64) -> i32 {
    let magnitude = (2 * sum.abs() + count) / (2 * count);
    (if sum < 0 { -magnitude } else { magnitude }) as i32
}
