//! Loops over rows of numbers, written so that they are vectorised; bf16 numbers are u16 bit patterns.

/// The f32 of the same value.
#[inline(always)]
pub(crate) fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    // Rounding could carry a NaN's mantissa over into the sign: its upper half with the quiet bit is kept instead.
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// Defines loops twice, for any processor and for AVX2, and chooses when called. The results have the same bits.
macro_rules! lanes {
    ($($(#[$doc:meta])* fn $name:ident($to:ident: &mut [$To:ty], $from:ident: &[$From:ty]) $body:block)+) => {$(
        $(#[$doc])*
        pub(crate) fn $name($to: &mut [$To], $from: &[$From]) {
            #[inline(always)]
            fn plain($to: &mut [$To], $from: &[$From]) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide(to: &mut [$To], from: &[$From]) {
                    plain(to, from);
                }

                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the instructions, as was just asked.
                    return unsafe { wide($to, $from) };
                }
            }
            plain($to, $from);
        }
    )+};
}

lanes! {
    /// `to = from`, widened.
    fn widen(to: &mut [f32], from: &[u16]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = widened(from));
    }

    /// `to = from`, rounded.
    fn narrow(to: &mut [u16], from: &[f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = narrowed(from));
    }

    /// `sum += part`.
    fn add(sum: &mut [f32], part: &[f32]) {
        sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part);
    }

    /// `sum += part`, widened.
    fn add_widened(sum: &mut [f32], part: &[u16]) {
        sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += widened(part));
    }

    /// `most = max(most, part)`; NaN loses, as in [`f32::max`].
    fn max(most: &mut [f32], part: &[f32]) {
        most.iter_mut().zip(part).for_each(|(most, &part)| *most = most.max(part));
    }

    /// `most = max(most, part)`, widened.
    fn max_widened(most: &mut [f32], part: &[u16]) {
        most.iter_mut().zip(part).for_each(|(most, &part)| *most = most.max(widened(part)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn rounding_to_bf16_agrees_with_libtorch() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, 1.0 + 1.0 / 256.0];
        // A stride through all bit patterns meets ties, carries and denormals.
        let all = special.into_iter().chain((0..=u32::MAX).step_by(65_521 / 3).map(f32::from_bits)).filter(|x| !x.is_nan());
        let values: Vec<f32> = all.collect();
        let theirs = Vec::<f32>::try_from(Tensor::from_slice(&values).to_kind(Kind::BFloat16).to_kind(Kind::Float)).unwrap();
        for (value, theirs) in values.iter().zip(theirs) {
            assert_eq!(widened(narrowed(*value)).to_bits(), theirs.to_bits(), "{value:e}");
        }
    }

    #[test]
    fn a_nan_stays_one_in_bf16() {
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff_u32] {
            assert!(widened(narrowed(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
    }
}
