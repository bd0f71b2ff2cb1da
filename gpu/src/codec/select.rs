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
        self.best.clear();
        let (head, tail) = coefficients.split_at(k.min(coefficients.len()));
        self.best.extend(head.iter().enumerate().map(|(index, &value)| Reverse(key(value, index))));
        for (block, values) in tail.chunks(LANES).enumerate() {
            // A later index never wins a tie, so only strictly larger magnitudes matter.
            let threshold = self.best.peek().map_or(i32::MAX, |worst| (worst.0 >> 32) as i32);
            if values.iter().fold(false, |any, &value| any | (magnitude(value) > threshold)) {
                let start = head.len() + block * LANES;
                for (offset, &value) in values.iter().enumerate() {
                    self.offer(key(value, start + offset));
                }
            }
        }
        self.chosen.clear();
        self.chosen.extend(self.best.drain().map(|kept| !(kept.0 as u32) as u16));
        self.chosen.sort_unstable();
        &self.chosen
    }

    fn offer(&mut self, key: u64) {
        if let Some(mut worst) = self.best.peek_mut()
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
