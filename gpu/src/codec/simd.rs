//! Vectors: one source for several instruction sets; the processor decides which of them runs.
//!
//! Inner loops are written with the operations of [`Isa`] and not left to the compiler's own vectoriser, which gives up
//! on them: then a transform takes several times as long.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use portable::Portable;

/// f32 of one vector.
pub(crate) const LANES: usize = 16;
/// f64 of one vector.
pub(crate) const DOUBLES: usize = 8;
/// Sums that are made side by side.
pub(crate) const TOGETHER: usize = 8;

/// The elements of a vector in memory.
pub(crate) type Lanes = [f32; LANES];

/// The operations of one instruction set. Each is exact or rounds as IEEE 754 says, so that results are the same with all
/// sets that fuse products and sums, and with all that don't.
///
/// Methods are compiled for the instruction set only inside [`Simd::run`], and must be called only there.
pub(crate) trait Isa: Copy {
    /// [`LANES`] f32.
    type Floats: Copy;
    /// [`DOUBLES`] f64.
    type Doubles: Copy;
    /// Whether products and sums are rounded once.
    const FUSED: bool;
    /// Vectors of sums for which there are registers: 4 or [`TOGETHER`].
    const SUMS: usize;

    fn load(from: &Lanes) -> Self::Floats;
    fn store(floats: Self::Floats, to: &mut Lanes);
    /// Brings the memory around an element nearer, which is needed soon.
    fn prefetch(element: &f32);
    fn zero() -> Self::Floats;
    fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `factor · x + sum`.
    fn multiply_add(factor: f32, x: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// Rows become columns.
    fn transpose(rows: [Self::Floats; LANES]) -> [Self::Floats; LANES];
    /// By lane the larger magnitude, `largest` being one already; NaN is the largest.
    fn larger_magnitude(largest: Self::Floats, other: Self::Floats) -> Self::Floats;
    /// A bit for each lane whose magnitude's bits are at least `threshold`.
    fn reach(floats: Self::Floats, threshold: i32) -> u16;
    /// `w − lr` where the sum is above 0, `w + lr` where it is below, `w` with its bits elsewhere.
    fn step(weights: Self::Floats, sums: Self::Floats, lr: f32) -> Self::Floats;

    fn load_doubles(from: &[f64; DOUBLES]) -> Self::Doubles;
    fn store_doubles(doubles: Self::Doubles, to: &mut [f64; DOUBLES]);
    fn zero_doubles() -> Self::Doubles;
    fn add_doubles(a: Self::Doubles, b: Self::Doubles) -> Self::Doubles;
    fn sub_doubles(a: Self::Doubles, b: Self::Doubles) -> Self::Doubles;
    /// `factor · x + sum`.
    fn multiply_add_doubles(factor: f64, x: Self::Doubles, sum: Self::Doubles) -> Self::Doubles;
    /// The last element first.
    fn reverse(doubles: Self::Doubles) -> Self::Doubles;
    /// As f32, the elements of `front` before those of `back`.
    fn narrow(front: Self::Doubles, back: Self::Doubles) -> Self::Floats;
}

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// What the build is for; products and sums are fused only where every such processor can.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// A loop nest. `run` must be `#[inline(always)]`, so that it takes on its caller's instruction set.
pub(crate) trait Kernel {
    /// Runs it.
    fn run<I: Isa>(self);
}

impl Simd {
    /// What every processor that the build is for can do.
    #[cfg(test)]
    pub(crate) const PORTABLE: Self = Self(Set::Portable);

    /// The widest that this processor has.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma && is_x86_feature_detected!("avx512f") {
                return Self(Set::Avx512);
            }
            if fma {
                return Self(Set::Avx2);
            }
        }
        Self(Set::Portable)
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::best().0 == Set::Avx512 {
            return vec![Self::PORTABLE, Self(Set::Avx2), Self(Set::Avx512)];
        }
        if Self::best() == Self::PORTABLE { vec![Self::PORTABLE] } else { vec![Self::PORTABLE, Self::best()] }
    }

    /// Whether results are those of fused multiply-add.
    #[cfg(test)]
    pub(crate) fn fused(self) -> bool {
        self.0 != Set::Portable || Portable::FUSED
    }

    /// Runs `kernel` with this instruction set.
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `best` and `all` make this value, where the processor has the features.
            Set::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Set::Avx2 => unsafe { run_avx2(kernel) },
            Set::Portable => kernel.run::<Portable>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn run_avx512(kernel: impl Kernel) {
    kernel.run::<x86::Avx512>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(kernel: impl Kernel) {
    kernel.run::<x86::Avx2>();
}

/// Prefetches the first `width` elements of `count` rows, the first of which begins with `from` and which are `stride`
/// apart.
#[inline(always)]
pub(crate) fn prefetch<I: Isa>(from: &[f32], count: usize, width: usize, stride: usize) {
    for row in from.chunks(stride).take(count) {
        let row = &row[..width.min(row.len())];
        for line in row.chunks(LANES) {
            I::prefetch(&line[0]);
        }
        // Rows seldom begin where a line of the cache does.
        row.last().into_iter().for_each(I::prefetch);
    }
}
