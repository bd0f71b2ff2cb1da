//! `out = aᵀ · b` on small row-major matrices, in f32 and f64.
//!
//! Twice this product is a two-dimensional transform without any transposition: `(Xᵀ L)ᵀ R = Lᵀ X R`. The kernel adds
//! several rows to a line of the result at a time, so that lines stay in the first cache. f32 results may differ in the last bits between processors; f64
//! results on integers below 2^53 may not.

use std::ops::{Add, Mul};

use super::simd::{Isa, Kernel, Simd};

/// A float type of the kernel.
pub(crate) trait Real: Copy + Default + Add<Output = Self> + Mul<Output = Self> {
    /// `self · a + b`, rounded once.
    fn fused(self, a: Self, b: Self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
}

/// A row-major matrix inside a longer slice: rows start `stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strided<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
}

/// Sizes of a product: `a: [depth, height]`, `b: [depth, width]`, `out: [height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) depth: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// `out = aᵀ · b`; `out` is dense.
///
/// # Panics
/// Where a slice is shorter than `sizes` says: the callers derive both from one geometry.
pub(crate) fn transposed_product<T: Real>(sizes: Sizes, a: Strided<'_, T>, b: Strided<'_, T>, out: &mut [T]) {
    Simd::best().run(Product { sizes, a, b, out });
}

struct Product<'a, T> {
    sizes: Sizes,
    a: Strided<'a, T>,
    b: Strided<'a, T>,
    out: &'a mut [T],
}

impl<T: Real> Kernel for Product<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        if I::FUSED {
            product::<T, true>(self.sizes, self.a, self.b, self.out);
        } else {
            product::<T, false>(self.sizes, self.a, self.b, self.out);
        }
    }
}

#[inline(always)]
fn product<T: Real, const FUSED: bool>(sizes: Sizes, a: Strided<'_, T>, b: Strided<'_, T>, out: &mut [T]) {
    let last = sizes.depth.saturating_sub(1);
    for (i, line) in out.chunks_exact_mut(sizes.width).enumerate().take(sizes.height) {
        line.fill(T::default());
        for p in (0..sizes.depth).step_by(4) {
            // Rows past the end count as the last one, times zero.
            let row = |p: usize| &b.data[p.min(last) * b.stride..][..sizes.width];
            let factor = |p: usize| if p > last { T::default() } else { a.data[p * a.stride + i] };
            let factors = [factor(p), factor(p + 1), factor(p + 2), factor(p + 3)];
            add_rows::<T, FUSED>(factors, line, row(p), row(p + 1), row(p + 2), row(p + 3));
        }
    }
}

/// `line += Σ factors[r] · row r`. The rows are arguments of their own so that the compiler knows them not to overlap
/// with the line, and uses vectors.
#[inline(always)]
fn add_rows<T: Real, const FUSED: bool>(factors: [T; 4], line: &mut [T], r0: &[T], r1: &[T], r2: &[T], r3: &[T]) {
    for ((((sum, &x0), &x1), &x2), &x3) in line.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
        let add = |sum: T, factor: T, x: T| if FUSED { factor.fused(x, sum) } else { factor * x + sum };
        let pair = add(add(*sum, factors[0], x0), factors[1], x1);
        *sum = add(add(pair, factors[2], x2), factors[3], x3);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    /// Integers up to `2^bits` in size, as f64.
    fn integers(seed: u64, len: usize, bits: u32) -> Vec<f64> {
        let mix = |i: u64| (i + 1).wrapping_mul(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1) >> (63 - bits);
        (0..len as u64).map(|i| mix(i) as f64 - f64::from(1_u32 << bits)).collect()
    }

    #[test]
    fn every_kernel_gives_the_same_integers() {
        for (depth, height, width) in [(1, 1, 1), (3, 5, 7), (64, 64, 64), (9, 43, 64), (33, 17, 130), (0, 2, 2)] {
            let sizes = Sizes { depth, height, width };
            let (a, b) = (integers(3, depth * (height + 2), 26), integers(5, depth * width, 20));
            let (a, b) = (Strided { data: &a[..], stride: height + 2 }, Strided { data: &b[..], stride: width });
            let [mut plain, mut fused, mut chosen] = [(); 3].map(|()| vec![f64::NAN; height * width]);
            product::<f64, false>(sizes, a, b, &mut plain);
            product::<f64, true>(sizes, a, b, &mut fused);
            transposed_product(sizes, a, b, &mut chosen);
            let term = |p: usize, at: usize| a.data[p * a.stride + at / width] as i64 * b.data[p * width + at % width] as i64;
            let expected: Vec<i64> = (0..height * width).map(|at| (0..depth).map(|p| term(p, at)).sum()).collect();
            for found in [plain, fused, chosen] {
                assert!(found.iter().map(|&value| value as i64).eq(expected.iter().copied()), "{depth} {height} {width}");
            }
        }
    }
}
