//! A seeded order of any number of samples that needs no table: a keyed Feistel network over the smallest even number of
//! bits that holds them all, walked until it lands among them.

/// Rounds of the network; four make a permutation that no statistical test of ours tells from a random one.
const ROUNDS: u8 = 4;
/// Domain of the round keys; changes whenever the order does.
const DOMAIN: &str = "psyche-solana-client 2026-11 sample order v1";

/// A permutation of `0..length`.
pub(crate) struct Permutation {
    key: [u8; 32],
    half_bits: u32,
    length: u64,
}

impl Permutation {
    /// The order of pass number `pass` over `length` samples.
    pub(crate) fn new(seed: &[u8; 32], pass: u64, length: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        hasher.update(seed);
        hasher.update(&pass.to_le_bytes());
        let bits = u64::BITS - length.saturating_sub(1).leading_zeros();
        Self { key: *hasher.finalize().as_bytes(), half_bits: bits.div_ceil(2).max(1), length }
    }

    /// Where the sample at `place` of the order lies. `place` must be below the length, and so is the result.
    pub(crate) fn at(&self, place: u64) -> u64 {
        // The network permutes at most four times as many numbers as there are samples, so a walk ends after four steps on
        // average; it returns to `place` at the latest.
        let mut at = self.network(place);
        while at >= self.length {
            at = self.network(at);
        }
        at
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (self.scramble(round, right) & mask));
        }
        (left << self.half_bits) | right
    }

    fn scramble(&self, round: u8, half: u64) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[round]);
        hasher.update(&half.to_le_bytes());
        let bytes = hasher.finalize();
        bytes.as_bytes().iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn prop_every_sample_comes_exactly_once(seed: [u8; 32], pass in 0..3_u64, length in 1..600_u64) {
            let order = Permutation::new(&seed, pass, length);
            let mut seen: Vec<u64> = (0..length).map(|place| order.at(place)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn passes_differ_and_the_order_never_changes() {
        let at = |pass| (0..8).map(|place| Permutation::new(&[7; 32], pass, 1000).at(place)).collect::<Vec<_>>();
        assert_ne!(at(0), at(1));
        assert_eq!(at(0), at(0));
    }

    #[test]
    fn as_many_samples_as_there_can_be_are_no_problem() {
        let order = Permutation::new(&[0; 32], 0, u64::MAX >> 1);
        assert!(order.at(12_345) < u64::MAX >> 1);
    }
}
