//! `out = aᵀ · b` on small row-major matrices, in f32 and f64.
//!
//! Twice this product is a two-dimensional transform without any transposition: `(Xᵀ L)ᵀ R = Lᵀ X R`. The kernel keeps
//! a tile of the result in registers and is compiled for the vector units of newer x86 processors beside the baseline.
//! f32 results may differ in the last bits between processors; f64 results on integers below 2^53 may not.

use std::ops::{Add, Mul};

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
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { product_avx512(sizes, a, b, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { product_avx2(sizes, a, b, out) };
        }
    }
    product::<T, { cfg!(target_arch = "aarch64") }, 4, 8>(sizes, a, b, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn product_avx512<T: Real>(sizes: Sizes, a: Strided<'_, T>, b: Strided<'_, T>, out: &mut [T]) {
    product::<T, true, 8, 32>(sizes, a, b, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn product_avx2<T: Real>(sizes: Sizes, a: Strided<'_, T>, b: Strided<'_, T>, out: &mut [T]) {
    product::<T, true, 4, 16>(sizes, a, b, out);
}

#[inline(always)]
fn product<T: Real, const FUSED: bool, const H: usize, const W: usize>(
    sizes: Sizes,
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    out: &mut [T],
) {
    let (tiled_height, tiled_width) = (sizes.height - sizes.height % H, sizes.width - sizes.width % W);
    for i in (0..tiled_height).step_by(H) {
        for j in (0..tiled_width).step_by(W) {
            tile::<T, FUSED, H, W>(sizes, (a, i), (b, j), out);
        }
        for j in tiled_width..sizes.width {
            tile::<T, FUSED, H, 1>(sizes, (a, i), (b, j), out);
        }
    }
    for i in tiled_height..sizes.height {
        for j in (0..tiled_width).step_by(W) {
            tile::<T, FUSED, 1, W>(sizes, (a, i), (b, j), out);
        }
        for j in tiled_width..sizes.width {
            tile::<T, FUSED, 1, 1>(sizes, (a, i), (b, j), out);
        }
    }
}

#[inline(always)]
fn tile<T: Real, const FUSED: bool, const H: usize, const W: usize>(
    sizes: Sizes,
    (a, i): (Strided<'_, T>, usize),
    (b, j): (Strided<'_, T>, usize),
    out: &mut [T],
) {
    let mut sums = [[T::default(); W]; H];
    for p in 0..sizes.depth {
        let left = &a.data[p * a.stride + i..][..H];
        let right = &b.data[p * b.stride + j..][..W];
        for (row, &factor) in sums.iter_mut().zip(left) {
            for (sum, &value) in row.iter_mut().zip(right) {
                *sum = if FUSED { factor.fused(value, *sum) } else { factor * value + *sum };
            }
        }
    }
    for (r, row) in sums.iter().enumerate() {
        out[(i + r) * sizes.width + j..][..W].copy_from_slice(row);
    }
}
