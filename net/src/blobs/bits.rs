//! A set of small numbers: which groups of a blob somebody has.

/// A bit for each of `len` numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    len: u32,
    count: u32,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub(crate) fn none(len: u32) -> Self {
        Self { bytes: vec![0; len.div_ceil(8) as usize], len, count: 0 }
    }

    /// A set of numbers below `len` as a peer sent it; `None` if it does not have the form of one.
    pub(crate) fn read(bytes: Vec<u8>, len: u32) -> Option<Self> {
        let spare = match len % 8 {
            0 => 0,
            used => bytes.last().copied().unwrap_or(0) >> used,
        };
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        (bytes.len() == len.div_ceil(8) as usize && spare == 0).then_some(Self { bytes, len, count })
    }

    /// The set's bytes, the lowest number in the lowest bit of the first.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds `number`, if it is in range; whether it was new.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let fresh = number < self.len && !self.contains(number);
        if fresh && let Some(byte) = self.bytes.get_mut(number as usize / 8) {
            *byte |= 1 << (number % 8);
            self.count += 1;
        }
        fresh
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.bytes.get(number as usize / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }

    /// How many numbers are in the set.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Whether every number is in the set.
    pub(crate) const fn is_full(&self) -> bool {
        self.count == self.len
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_set_of_that_size_is_refused() {
        assert!(Bits::read(vec![0xff, 0x01], 9).unwrap().is_full());
        assert_eq!(Bits::read(vec![0xff, 0x02], 9), None);
        assert_eq!(Bits::read(vec![0xff], 9), None);
        assert_eq!(Bits::read(vec![0; 3], 9), None);
        assert!(Bits::read(Vec::new(), 0).unwrap().is_full());
    }

    proptest! {
        #[test]
        fn prop_a_set_holds_what_was_put_in(len in 1_u32..100, numbers in prop::collection::vec(0_u32..120, 0..60)) {
            let mut bits = Bits::none(len);
            let expected: BTreeSet<u32> = numbers.iter().copied().filter(|number| *number < len).collect();
            for number in &numbers {
                bits.insert(*number);
            }
            prop_assert_eq!((0..200).filter(|number| bits.contains(*number)).collect::<BTreeSet<_>>(), expected.clone());
            prop_assert_eq!(bits.count() as usize, expected.len());
            prop_assert_eq!(Bits::read(bits.as_bytes().to_vec(), len), Some(bits));
        }
    }
}
