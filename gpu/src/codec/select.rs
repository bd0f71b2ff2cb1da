//! The `k` coefficients of largest magnitude of a chunk, without sorting it.
//!
//! The k-th largest of the maxima of disjoint groups is a threshold that the k largest of all reach, and few others do.

use std::cmp::Reverse;

use super::simd::{Isa, Kernel, LANES, Lanes, Simd};

/// Chooses top-k coefficients; keeps its buffers from chunk to chunk.
#[derive(Debug, Default)]
pub struct TopK {
    /// Largest magnitudes of groups.
    maxima: Vec<Lanes>,
    magnitudes: Vec<i32>,
    /// Keys of those that reach the threshold: magnitude bits, then the complement of the index.
    candidates: Vec<u64>,
    chosen: Vec<u32>,
}

impl TopK {
    /// The indices of the `k` largest magnitudes, ascending; ties go to the lower index, NaN counts as the largest.
    ///
    /// # Shapes
    /// `coefficients`: one chunk, at most 2^32 long and at least `k`; the result has length `k`.
    pub fn select(&mut self, coefficients: &[f32], k: usize) -> &[u32] {
        let mut kept = vec![[0.0; LANES]; coefficients.len().div_ceil(LANES)];
        kept.as_flattened_mut()[..coefficients.len()].copy_from_slice(coefficients);
        Simd::best().run(Select { top: self, kept: &kept, len: coefficients.len(), k });
        &self.chosen
    }

    /// As [`Self::select`], where the coefficients lie in another order than their indices and with gaps between them;
    /// gaps are zero and have no index.
    #[inline(always)]
    pub(super) fn select_placed<I: Isa>(&mut self, kept: &[Lanes], k: usize, index: impl Fn(usize) -> Option<u32>) -> &[u32] {
        let threshold = self.threshold::<I>(kept, k);
        self.candidates.clear();
        for (block, values) in kept.iter().enumerate() {
            let mut reached = I::reach(I::load(values), threshold);
            while reached != 0 {
                let lane = reached.trailing_zeros() as usize;
                reached &= reached - 1;
                if let Some(index) = index(block * LANES + lane) {
                    self.candidates.push(key(values[lane], index));
                }
            }
        }
        if self.candidates.len() > k {
            self.candidates.select_nth_unstable_by_key(k - 1, |&key| Reverse(key));
            self.candidates.truncate(k);
        }
        self.chosen.clear();
        self.chosen.extend(self.candidates.iter().map(|&key| !(key as u32)));
        self.chosen.sort_unstable();
        &self.chosen
    }

    /// A magnitude that at least `k` places reach; 0 where a better one would cost as much as it saves.
    #[inline(always)]
    fn threshold<I: Isa>(&mut self, kept: &[Lanes], k: usize) -> i32 {
        // Twice as many groups as are chosen, so that most of those that are chosen have a group of their own.
        let vectors = (2 * k).div_ceil(LANES);
        if kept.len() < 2 * vectors {
            return 0;
        }
        self.magnitudes.clear();
        if vectors == 1 {
            let mut largest = I::zero();
            for values in kept {
                largest = I::larger_magnitude(largest, I::load(values));
            }
            let mut magnitudes = [0.0; LANES];
            I::store(largest, &mut magnitudes);
            self.magnitudes.extend(magnitudes.map(magnitude));
        } else {
            self.maxima.clear();
            self.maxima.resize(vectors, [0.0; LANES]);
            for values in kept.chunks(vectors) {
                for (largest, values) in self.maxima.iter_mut().zip(values) {
                    I::store(I::larger_magnitude(I::load(largest), I::load(values)), largest);
                }
            }
            self.magnitudes.extend(self.maxima.as_flattened().iter().copied().map(magnitude));
        }
        *self.magnitudes.select_nth_unstable_by_key(k - 1, |&magnitude| Reverse(magnitude)).1
    }
}

/// Selection from a slice without gaps.
struct Select<'a> {
    top: &'a mut TopK,
    kept: &'a [Lanes],
    len: usize,
    k: usize,
}

impl Kernel for Select<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        self.top.select_placed::<I>(self.kept, self.k, |place| (place < self.len).then_some(place as u32));
    }
}

/// Bits of the absolute value, which order as the values do; signed, as vector units compare.
fn magnitude(value: f32) -> i32 {
    (value.to_bits() & 0x7fff_ffff) as i32
}

fn key(value: f32, index: u32) -> u64 {
    (magnitude(value) as u64) << 32 | u64::from(!index)
}
