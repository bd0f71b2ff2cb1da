//! The index shuffle: a swap-or-not network of 90 rounds (Hoang, Morris and Rogaway 2012; the parameters are those of
//! the Ethereum consensus specifications).

use crate::hash::{low_u64, sha256};

const ROUNDS: u8 = 90;

/// Where `index` lands in the order of `count` that `seed` gives; `None` unless `index < count`, and `count` fits u32.
#[must_use]
pub fn shuffled_index(index: u64, count: u64, seed: &[u8; 32]) -> Option<u64> {
    if index >= count || count > u64::from(u32::MAX) {
        return None;
    }
    let mut at = index;
    for round in 0..ROUNDS {
        let pivot = low_u64(&sha256(&[seed, &[round]])) % count;
        let mirrored = (pivot + count - at) % count;
        let decider = at.max(mirrored);
        let block = ((decider / 256) as u32).to_le_bytes();
        let bits = sha256(&[seed, &[round], &block]);
        let byte = bits.get((decider % 256 / 8) as usize).copied().unwrap_or(0);
        if (byte >> (decider % 8)) & 1 == 1 {
            at = mirrored;
        }
    }
    Some(at)
}
