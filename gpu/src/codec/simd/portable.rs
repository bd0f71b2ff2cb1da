//! Vectors as arrays, for any processor.

use std::array::from_fn;

use super::{DOUBLES, Isa, LANES, Lanes};

/// What every processor that the build is for can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Isa for Portable {
    type Floats = Lanes;
    type Doubles = [f64; DOUBLES];
    const FUSED: bool = cfg!(target_arch = "aarch64");
    const SUMS: usize = 4;

    #[inline(always)]
    fn load(from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(floats: Lanes, to: &mut Lanes) {
        *to = floats;
    }

    #[inline(always)]
    fn prefetch(_: &f32) {}

    #[inline(always)]
    fn zero() -> Lanes {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add(a: Lanes, b: Lanes) -> Lanes {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(a: Lanes, b: Lanes) -> Lanes {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn multiply_add(factor: f32, x: Lanes, sum: Lanes) -> Lanes {
        from_fn(|lane| if Self::FUSED { factor.mul_add(x[lane], sum[lane]) } else { factor * x[lane] + sum[lane] })
    }

    #[inline(always)]
    fn transpose(rows: [Lanes; LANES]) -> [Lanes; LANES] {
        from_fn(|column| from_fn(|row| rows[row][column]))
    }

    #[inline(always)]
    fn larger_magnitude(largest: Lanes, other: Lanes) -> Lanes {
        from_fn(|lane| f32::from_bits(largest[lane].to_bits().max(other[lane].abs().to_bits())))
    }

    #[inline(always)]
    fn reach(floats: Lanes, threshold: i32) -> u16 {
        let reaches = |value: f32| (value.abs().to_bits() as i32) >= threshold;
        floats.iter().rev().fold(0, |mask, &value| mask << 1 | u16::from(reaches(value)))
    }

    #[inline(always)]
    fn step(weights: Lanes, sums: Lanes, lr: f32) -> Lanes {
        from_fn(|lane| match weights[lane] {
            weight if sums[lane] > 0.0 => weight - lr,
            weight if sums[lane] < 0.0 => weight + lr,
            weight => weight,
        })
    }

    #[inline(always)]
    fn load_doubles(from: &[f64; DOUBLES]) -> [f64; DOUBLES] {
        *from
    }

    #[inline(always)]
    fn store_doubles(doubles: [f64; DOUBLES], to: &mut [f64; DOUBLES]) {
        *to = doubles;
    }

    #[inline(always)]
    fn zero_doubles() -> [f64; DOUBLES] {
        [0.0; DOUBLES]
    }

    #[inline(always)]
    fn add_doubles(a: [f64; DOUBLES], b: [f64; DOUBLES]) -> [f64; DOUBLES] {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub_doubles(a: [f64; DOUBLES], b: [f64; DOUBLES]) -> [f64; DOUBLES] {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn multiply_add_doubles(factor: f64, x: [f64; DOUBLES], sum: [f64; DOUBLES]) -> [f64; DOUBLES] {
        from_fn(|lane| if Self::FUSED { factor.mul_add(x[lane], sum[lane]) } else { factor * x[lane] + sum[lane] })
    }

    #[inline(always)]
    fn reverse(doubles: [f64; DOUBLES]) -> [f64; DOUBLES] {
        from_fn(|lane| doubles[DOUBLES - 1 - lane])
    }

    #[inline(always)]
    fn narrow(front: [f64; DOUBLES], back: [f64; DOUBLES]) -> Lanes {
        from_fn(|lane| if lane < DOUBLES { front[lane] as f32 } else { back[lane - DOUBLES] as f32 })
    }
}
