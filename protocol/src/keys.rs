//! Whether 32 bytes are an ed25519 public key that a node may use: a syscall on chain, a little arithmetic elsewhere.
//!
//! *Purpose*: a member whose peer-to-peer key is no key cannot be reached by anybody, and a careless node may trip over
//! it. Nothing here is secret, so nothing has to take constant time. Tests compare with the crate that validators use.

use crate::Pubkey;

/// The y coordinates of the eight points of small order, as they may be encoded: the five reduced ones, and two that
/// exceed the field's prime. Under such a key one signature fits many messages, so nobody is bound by it.
const SMALL_ORDER: [[u8; 32]; 7] = [
    edge(0x00, 0x00),
    edge(0x01, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05,
        0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa,
        0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    edge(0xec, 0xff),
    edge(0xed, 0xff),
    edge(0xee, 0xff),
];

/// A number close to 0, or close to the field's prime: `first` in the lowest byte, `rest` in the others.
const fn edge(first: u8, rest: u8) -> [u8; 32] {
    let mut bytes = [rest; 32];
    bytes[0] = first;
    bytes[31] &= 0x7f;
    bytes
}

/// Whether `key` is the public key of somebody: it decompresses to a point of the curve, and not to one of small order.
#[must_use]
pub fn is_public_key(key: &Pubkey) -> bool {
    !has_small_order(key) && is_point(key)
}

/// Whether the bytes encode a point of small order, where they encode one at all.
fn has_small_order(key: &Pubkey) -> bool {
    let mut y = *key;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// Whether the y coordinate has an x on the curve -x² + y² = 1 + d·x²·y² (RFC 8032, section 5.1.3): whether
/// (y² - 1) / (d·y² + 1) is a square, which is so when the product of the two is. A y beyond the prime is reduced, and the
/// sign of an x that is zero is not looked at, as by the syscall.
#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
fn is_point(key: &Pubkey) -> bool {
    use field::{D, MINUS_ONE, ONE, add, is_square, multiply};
    let mut bytes = *key;
    bytes[31] &= 0x7f;
    let (words, _) = bytes.as_chunks::<8>();
    let mut y = [0; 4];
    for (limb, word) in y.iter_mut().zip(words) {
        *limb = u64::from_le_bytes(*word);
    }
    let square = multiply(&y, &y);
    is_square(&multiply(&add(&square, &MINUS_ONE), &add(&multiply(&square, &D), &ONE)))
}

/// Numbers modulo 2^255 - 19 as four words, the lowest first; every value below 2^256 stands for its remainder.
#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
mod field {
    type Element = [u64; 4];

    pub(super) const ONE: Element = [1, 0, 0, 0];
    pub(super) const MINUS_ONE: Element = [u64::MAX - 19, u64::MAX, u64::MAX, u64::MAX >> 1];
    /// The curve's d, -121665/121666.
    pub(super) const D: Element = [0x75eb_4dca_1359_78a3, 0x0070_0a4d_4141_d8ab, 0x8cc7_4079_7779_e898, 0x5203_6cee_2b6f_fe73];
    /// 2^256, modulo the prime.
    const FOLD: u64 = 38;

    /// `words` plus `carry` times 2^256.
    fn fold(mut words: Element, mut carry: u64) -> Element {
        // The second round is needed only where the first one overflows, and then leaves a small number.
        while carry != 0 {
            let mut sum = u128::from(carry) * u128::from(FOLD);
            for word in &mut words {
                sum += u128::from(*word);
                *word = sum as u64;
                sum >>= 64;
            }
            carry = sum as u64;
        }
        words
    }

    pub(super) fn add(a: &Element, b: &Element) -> Element {
        let (mut words, mut sum) = ([0; 4], 0u128);
        for ((word, a), b) in words.iter_mut().zip(a).zip(b) {
            sum += u128::from(*a) + u128::from(*b);
            *word = sum as u64;
            sum >>= 64;
        }
        fold(words, sum as u64)
    }

    /// Word by word of `a`, from the highest: what is there moves up by 2^64, and the word's product is added.
    pub(super) fn multiply(a: &Element, b: &Element) -> Element {
        a.iter().rev().fold([0; 4], |[w0, w1, w2, w3], factor| {
            let (mut words, mut sum) = ([0, w0, w1, w2], 0u128);
            for (word, b) in words.iter_mut().zip(b) {
                sum += u128::from(*word) + u128::from(*factor) * u128::from(*b);
                *word = sum as u64;
                sum >>= 64;
            }
            let moved = fold(words, w3);
            fold(moved, sum as u64)
        })
    }

    /// Euler's criterion: the number to the power of (p - 1) / 2 = 2^254 - 10 is 0 or 1.
    pub(super) fn is_square(number: &Element) -> bool {
        let mut power = ONE;
        for bit in (0..254).rev() {
            power = multiply(&power, &power);
            // 2^254 - 10 has all bits below 254, but for the first and the fourth.
            if bit != 0 && bit != 3 {
                power = multiply(&power, number);
            }
        }
        let prime = [u64::MAX - 18, u64::MAX, u64::MAX, u64::MAX >> 1];
        let twice = [u64::MAX - 37, u64::MAX, u64::MAX, u64::MAX];
        let (one_more, one_more_still) =
            ([u64::MAX - 17, u64::MAX, u64::MAX, u64::MAX >> 1], [u64::MAX - 36, u64::MAX, u64::MAX, u64::MAX]);
        [[0; 4], ONE, prime, one_more, twice, one_more_still].contains(&power)
    }
}

#[cfg(any(target_os = "solana", target_arch = "bpf"))]
fn is_point(key: &Pubkey) -> bool {
    const EDWARDS: u64 = 0;
    let mut unused = 0u8;
    // SAFETY: the syscall reads the 32 bytes of the key, and may write one byte to `unused`.
    let outcome =
        unsafe { solana_define_syscall::definitions::sol_curve_validate_point(EDWARDS, key.as_ptr(), &raw mut unused) };
    outcome == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]
    use super::*;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::edwards::CompressedEdwardsY;
    use proptest::prelude::*;

    #[test]
    fn keys_of_small_order_are_refused_in_every_encoding() {
        for point in EIGHT_TORSION {
            assert!(!is_public_key(&point.compress().to_bytes()));
        }
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                assert!(!is_public_key(&bytes));
                assert!(CompressedEdwardsY(bytes).decompress().is_none_or(|point| point.is_small_order()), "{bytes:x?}");
            }
        }
        assert!(is_public_key(&ED25519_BASEPOINT_POINT.compress().to_bytes()));
    }

    proptest! {
        #[test]
        fn prop_a_key_is_a_point_of_large_order(mut bytes: [u8; 32], high: bool) {
            if high {
                // Close to and beyond the field's prime.
                bytes[1..31].fill(0xff);
                bytes[31] |= 0x7f;
            }
            let point = CompressedEdwardsY(bytes).decompress();
            prop_assert_eq!(is_public_key(&bytes), point.is_some_and(|point| !point.is_small_order()));
        }
    }
}
