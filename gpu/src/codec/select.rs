//! The `k` coefficients of largest magnitude of a chunk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Coefficients compared against the threshold at a time.
const LANES: usize = 16;

/// Chooses top-k coefficients; keeps its buffers from chunk to chunk.
#[derive(Debug, Default)]
pub struct TopK {
    /// Keys of the best so far, worst on top: magnitude bits, then the complement of the index.
    best: BinaryHeap<Reverse<u64>>,
    chosen: Vec<u16>,
}

impl TopK {
    /// The indices of the `k` largest magnitudes, ascending; ties go to the lower index, NaN counts as the largest.
    ///
    /// # Shapes
    /// `coefficients`: one chunk, at most 2^16 long and at least `k`; the result has length `k`.
    pub fn select(&mut self, coefficients: &[f32], k: usize) -> &[u16] {
        self.select_placed(coefficients, k, |place| Some(place as u16))
    }

    /// As [`Self::select`], where the coefficients lie in another order than their indices and with gaps between them.
    #[inline(always)]
    pub(super) fn select_placed(&mut self, kept: &[f32], k: usize, index: impl Fn(usize) -> Option<u16>) -> &[u16] {
        self.best.clear();
        for (block, values) in kept.chunks(LANES).enumerate() {
            let full = self.best.len() >= k;
            let threshold = self.best.peek().filter(|_| full).map_or(0, |worst| (worst.0 >> 32) as i32);
            if values.iter().fold(false, |any, &value| any | (magnitude(value) >= threshold)) {
                for (offset, &value) in values.iter().enumerate() {
                    if magnitude(value) >= threshold
                        && let Some(index) = index(block * LANES + offset)
                    {
                        self.offer(key(value, usize::from(index)), k);
                    }
                }
            }
        }
        self.chosen.clear();
        self.chosen.extend(self.best.drain().map(|kept| !(kept.0 as u32) as u16));
        self.chosen.sort_unstable();
        &self.chosen
    }

    fn offer(&mut self, key: u64, k: usize) {
        if self.best.len() < k {
            self.best.push(Reverse(key));
        } else if let Some(mut worst) = self.best.peek_mut()
            && key > worst.0
        {
            *worst = Reverse(key);
        }
    }
}

/// Bits of the absolute value, which order as the values do; signed, as vector units compare.
fn magnitude(value: f32) -> i32 {
    (value.to_bits() & 0x7fff_ffff) as i32
}

fn key(value: f32, index: usize) -> u64 {
    (magnitude(value) as u64) << 32 | u64::from(!(index as u32))
}
