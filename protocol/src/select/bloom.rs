//! The 1,024-bit Bloom filter with eight keyed FNV-1a hashes.

use crate::Pubkey;
use crate::hash::sha256;
use crate::layout::Bloom;

const BITS: u64 = 1024;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Bloom {
    /// An empty filter with these keys.
    #[must_use]
    pub const fn new(keys: [u64; 8]) -> Self {
        Self { keys, bits: [0; 16] }
    }

    /// Adds `item`.
    pub fn add(&mut self, item: &[u8]) {
        for key in self.keys {
            let position = bit_of(key, item);
            if let Some(word) = self.bits.get_mut((position / 64) as usize) {
                *word |= 1 << (position % 64);
            }
        }
    }

    /// Whether `item` was added, or looks as if.
    #[must_use]
    pub fn contains(&self, item: &[u8]) -> bool {
        self.keys.iter().all(|key| {
            let position = bit_of(*key, item);
            self.bits.get((position / 64) as usize).is_some_and(|word| (word >> (position % 64)) & 1 == 1)
        })
    }

    /// How many bits are set; half of them is where a filter stops telling much.
    #[must_use]
    pub fn ones(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }
}

/// 64-bit FNV-1a of `item` with `key` in place of the offset basis, modulo the number of bits.
fn bit_of(key: u64, item: &[u8]) -> u64 {
    let hash = item.iter().fold(key, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
    hash % BITS
}

/// What a participant bloom holds for a client.
#[must_use]
pub fn participant_item(signer: &Pubkey) -> [u8; 32] {
    sha256(&[signer])
}
