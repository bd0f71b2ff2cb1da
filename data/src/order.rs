//! The order in which samples are read: a permutation that is computed for one position at a time, so that nobody holds a table
//! of a billion entries.
//!
//! A Feistel network permutes the smallest power of four that holds all positions; positions that land outside are sent through
//! again until they land inside ("cycle walking"), which keeps it a permutation. The round function is keyed BLAKE3.

use psyche_protocol::model::Shuffle;

/// Rounds of the network; four with a pseudo-random function are indistinguishable from a random permutation (Luby and
/// Rackoff), the rest is margin for small domains.
const ROUNDS: u8 = 8;

/// Domain of the round function; changes whenever the order does.
const ORDER_DOMAIN: &str = "psyche-solana-client 2026-11 sample order v1";

/// The order of `count` samples, pass after pass.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    count: u64,
    key: Option<[u8; 32]>,
    half_bits: u32,
}

impl Order {
    /// The order of `count` samples, at least one.
    pub(crate) fn new(count: u64, shuffle: &Shuffle) -> Self {
        let key = match shuffle {
            Shuffle::DontShuffle => None,
            Shuffle::Seeded(seed) => Some(blake3::derive_key(ORDER_DOMAIN, seed)),
        };
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count: count.max(1), key, half_bits: bits.div_ceil(2) }
    }

    /// The sample at global position `index`; each pass over the data has an order of its own.
    pub(crate) fn sample_at(&self, index: u64) -> u64 {
        let (pass, mut position) = (index / self.count, index % self.count);
        let Some(key) = &self.key else { return position };
        // A permutation of the larger domain comes back to where it started, which is inside; four steps are the mean.
        loop {
            position = self.permute(key, pass, position);
            if position < self.count {
                return position;
            }
        }
    }

    fn permute(&self, key: &[u8; 32], pass: u64, position: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (position >> self.half_bits, position & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (round_value(key, pass, round, right) & mask));
        }
        (left << self.half_bits) | right
    }
}

fn round_value(key: &[u8; 32], pass: u64, round: u8, half: u64) -> u64 {
    let mut input = [0; 17];
    input[..8].copy_from_slice(&pass.to_le_bytes());
    input[8] = round;
    input[9..].copy_from_slice(&half.to_le_bytes());
    let mut value = [0; 8];
    value.copy_from_slice(&blake3::keyed_hash(key, &input).as_bytes()[..8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_pinned() {
        let order = Order::new(10, &Shuffle::Seeded([7; 32]));
        let passes: Vec<Vec<u64>> = (0..2).map(|pass| (0..10).map(|at| order.sample_at(pass * 10 + at)).collect()).collect();
        assert_eq!(passes, [[9, 0, 7, 2, 3, 4, 8, 1, 6, 5], [5, 6, 8, 1, 0, 4, 3, 2, 9, 7]]);
    }

    #[test]
    fn without_a_shuffle_samples_come_as_they_lie_pass_after_pass() {
        let order = Order::new(3, &Shuffle::DontShuffle);
        assert_eq!((0..7).map(|at| order.sample_at(at)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn seeds_and_passes_have_orders_of_their_own() {
        let orders: Vec<Vec<u64>> = [([1; 32], 0), ([1; 32], 1), ([2; 32], 0)]
            .map(|(seed, pass)| {
                let order = Order::new(100, &Shuffle::Seeded(seed));
                (0..100).map(|at| order.sample_at(pass * 100 + at)).collect()
            })
            .to_vec();
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
    }

    #[test]
    fn huge_counts_and_positions_stay_inside() {
        for count in [1, 2, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let order = Order::new(count, &Shuffle::Seeded([3; 32]));
            for index in [0, 1, count - 1, u64::MAX] {
                assert!(order.sample_at(index) < count);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn prop_every_pass_reads_every_sample_exactly_once(count in 1_u64..600, pass in 0_u64..1 << 40, seed: [u8; 32]) {
            let order = Order::new(count, &Shuffle::Seeded(seed));
            let mut samples: Vec<u64> = (0..count).map(|at| order.sample_at(pass * count + at)).collect();
            samples.sort_unstable();
            prop_assert_eq!(samples, (0..count).collect::<Vec<_>>());
        }
    }
}
