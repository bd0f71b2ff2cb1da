//! Numbers that the chain's virtual machine cannot compute with directly.
//!
//! *Purpose*: products beyond 64 bits without 128-bit arithmetic, and floats carried as their bits.

use bytemuck::{Pod, Zeroable};

/// The full product of two u64 as `(high, low)`, by 32-bit limbs.
#[must_use]
pub const fn wide_mul(a: u64, b: u64) -> (u64, u64) {
    const LOW: u64 = 0xffff_ffff;
    let (a_high, a_low) = (a >> 32, a & LOW);
    let (b_high, b_low) = (b >> 32, b & LOW);
    let low = a_low.wrapping_mul(b_low);
    let cross = a_high.wrapping_mul(b_low).wrapping_add(low >> 32);
    let middle = a_low.wrapping_mul(b_high).wrapping_add(cross & LOW);
    let high = a_high.wrapping_mul(b_high).wrapping_add(cross >> 32).wrapping_add(middle >> 32);
    (high, (middle << 32) | (low & LOW))
}

/// `a * b`, or `u64::MAX` where it does not fit (the standard method is not available on chain).
#[must_use]
pub const fn saturating_mul(a: u64, b: u64) -> u64 {
    let (high, low) = wide_mul(a, b);
    if high == 0 { low } else { u64::MAX }
}

/// Whether `a * b <= c * d`, exactly.
#[must_use]
pub const fn product_at_most(a: u64, b: u64, c: u64, d: u64) -> bool {
    let (left_high, left_low) = wide_mul(a, b);
    let (right_high, right_low) = wide_mul(c, d);
    left_high < right_high || (left_high == right_high && left_low <= right_low)
}

/// An f32 as its IEEE 754 bits; who may use floats converts with `f32::from_bits` and `f32::to_bits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct F32Bits(pub u32);

/// An f64 as its IEEE 754 bits; who may use floats converts with `f64::from_bits` and `f64::to_bits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct F64Bits(pub u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_wide_mul_equals_the_128_bit_product(a: u64, b: u64) {
            let (high, low) = wide_mul(a, b);
            prop_assert_eq!((u128::from(high) << 64) | u128::from(low), u128::from(a) * u128::from(b));
            prop_assert_eq!(saturating_mul(a, b), a.saturating_mul(b));
        }

        #[test]
        fn prop_products_compare_as_128_bit_ones_do(a: u64, b: u64, c: u64, d: u64) {
            prop_assert_eq!(product_at_most(a, b, c, d), u128::from(a) * u128::from(b) <= u128::from(c) * u128::from(d));
            prop_assert!(product_at_most(a, b, b, a));
        }
    }

    #[test]
    fn wide_mul_carries_at_the_corners() {
        for a in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX - 1, u64::MAX] {
            for b in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX - 1, u64::MAX] {
                let (high, low) = wide_mul(a, b);
                assert_eq!((u128::from(high) << 64) | u128::from(low), u128::from(a) * u128::from(b));
            }
        }
    }
}
