//! The vectors of x86-64's AVX-512 and AVX2.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{DOUBLES, Isa, LANES, Lanes};

/// Calls intrinsics. Vectors come from memory and go there by `transmute`, since the intrinsics for it check their pointers
/// in builds with assertions, and keep vectors on the stack for that.
macro_rules! intrinsics {
    ($call:expr) => {{
        // SAFETY: by the promise of `Isa` this runs only inside `Simd::run`, on a processor that has the instructions;
        // arrays and vectors of floats that become one another are equally long, and all bits are good in both.
        unsafe { $call }
    }};
}

const MAGNITUDE: i32 = i32::MAX;

/// AVX-512F and FMA.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512;

impl Isa for Avx512 {
    type Floats = __m512;
    type Doubles = __m512d;
    const FUSED: bool = true;
    const SUMS: usize = 8;

    #[inline(always)]
    fn load(from: &Lanes) -> __m512 {
        intrinsics!(transmute::<Lanes, __m512>(*from))
    }

    #[inline(always)]
    fn store(floats: __m512, to: &mut Lanes) {
        *to = intrinsics!(transmute::<__m512, Lanes>(floats));
    }

    #[inline(always)]
    fn prefetch(element: &f32) {
        intrinsics!(_mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()));
    }

    #[inline(always)]
    fn zero() -> __m512 {
        intrinsics!(_mm512_setzero_ps())
    }

    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn multiply_add(factor: f32, x: __m512, sum: __m512) -> __m512 {
        intrinsics!(_mm512_fmadd_ps(_mm512_set1_ps(factor), x, sum))
    }

    #[inline(always)]
    fn transpose(rows: [__m512; LANES]) -> [__m512; LANES] {
        // Loops, as closures might not be compiled for the instruction set.
        let (mut a, mut b) = (rows, rows);
        for at in (0..LANES).step_by(2) {
            a[at] = intrinsics!(_mm512_unpacklo_ps(rows[at], rows[at + 1]));
            a[at + 1] = intrinsics!(_mm512_unpackhi_ps(rows[at], rows[at + 1]));
        }
        // Pairs, then quads: b[4 q + c] holds columns c, 4 + c, 8 + c, 12 + c of rows 4 q to 4 q + 3.
        for at in (0..LANES).step_by(4) {
            for c in 0..2 {
                intrinsics!({
                    let (above, below) = (_mm512_castps_pd(a[at + c]), _mm512_castps_pd(a[at + c + 2]));
                    b[at + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(above, below));
                    b[at + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(above, below));
                });
            }
        }
        let mut columns = rows;
        for c in 0..4 {
            let [b0, b1, b2, b3] = [b[c], b[4 + c], b[8 + c], b[12 + c]];
            intrinsics!({
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(b0, b1), _mm512_shuffle_f32x4::<0xdd>(b0, b1));
                let (even_below, odd_below) = (_mm512_shuffle_f32x4::<0x88>(b2, b3), _mm512_shuffle_f32x4::<0xdd>(b2, b3));
                columns[c] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
                columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
                columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
                columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
            });
        }
        columns
    }

    #[inline(always)]
    fn larger_magnitude(largest: __m512, other: __m512) -> __m512 {
        intrinsics!({
            let magnitude = _mm512_and_si512(_mm512_castps_si512(other), _mm512_set1_epi32(MAGNITUDE));
            _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(largest), magnitude))
        })
    }

    #[inline(always)]
    fn reach(floats: __m512, threshold: i32) -> u16 {
        intrinsics!({
            let magnitude = _mm512_and_si512(_mm512_castps_si512(floats), _mm512_set1_epi32(MAGNITUDE));
            _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(threshold))
        })
    }

    #[inline(always)]
    fn step(weights: __m512, sums: __m512, lr: f32) -> __m512 {
        intrinsics!({
            let (zero, lr) = (_mm512_setzero_ps(), _mm512_set1_ps(lr));
            let down = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(sums, zero);
            let up = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(sums, zero);
            _mm512_mask_add_ps(_mm512_mask_sub_ps(weights, down, weights, lr), up, weights, lr)
        })
    }

    #[inline(always)]
    fn load_doubles(from: &[f64; DOUBLES]) -> __m512d {
        intrinsics!(transmute::<[f64; DOUBLES], __m512d>(*from))
    }

    #[inline(always)]
    fn store_doubles(doubles: __m512d, to: &mut [f64; DOUBLES]) {
        *to = intrinsics!(transmute::<__m512d, [f64; DOUBLES]>(doubles));
    }

    #[inline(always)]
    fn zero_doubles() -> __m512d {
        intrinsics!(_mm512_setzero_pd())
    }

    #[inline(always)]
    fn add_doubles(a: __m512d, b: __m512d) -> __m512d {
        intrinsics!(_mm512_add_pd(a, b))
    }

    #[inline(always)]
    fn sub_doubles(a: __m512d, b: __m512d) -> __m512d {
        intrinsics!(_mm512_sub_pd(a, b))
    }

    #[inline(always)]
    fn multiply_add_doubles(factor: f64, x: __m512d, sum: __m512d) -> __m512d {
        intrinsics!(_mm512_fmadd_pd(_mm512_set1_pd(factor), x, sum))
    }

    #[inline(always)]
    fn reverse(doubles: __m512d) -> __m512d {
        intrinsics!(_mm512_permutexvar_pd(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), doubles))
    }

    #[inline(always)]
    fn narrow(front: __m512d, back: __m512d) -> __m512 {
        intrinsics!({
            let (front, back) = (_mm256_castps_pd(_mm512_cvtpd_ps(front)), _mm256_castps_pd(_mm512_cvtpd_ps(back)));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(front), back))
        })
    }
}

/// AVX2 and FMA; a vector is two registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2;

impl Avx2 {
    #[inline(always)]
    fn magnitude(floats: __m256) -> __m256i {
        intrinsics!(_mm256_and_si256(_mm256_castps_si256(floats), _mm256_set1_epi32(MAGNITUDE)))
    }

    /// Rows of 8 become columns.
    #[inline(always)]
    fn transpose_eight(rows: [__m256; 8]) -> [__m256; 8] {
        let (mut a, mut b, mut columns) = (rows, rows, rows);
        for at in (0..8).step_by(2) {
            a[at] = intrinsics!(_mm256_unpacklo_ps(rows[at], rows[at + 1]));
            a[at + 1] = intrinsics!(_mm256_unpackhi_ps(rows[at], rows[at + 1]));
        }
        for at in (0..8).step_by(4) {
            for c in 0..2 {
                intrinsics!({
                    let (above, below) = (_mm256_castps_pd(a[at + c]), _mm256_castps_pd(a[at + c + 2]));
                    b[at + 2 * c] = _mm256_castpd_ps(_mm256_unpacklo_pd(above, below));
                    b[at + 2 * c + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(above, below));
                });
            }
        }
        for c in 0..4 {
            columns[c] = intrinsics!(_mm256_permute2f128_ps::<0x20>(b[c], b[4 + c]));
            columns[4 + c] = intrinsics!(_mm256_permute2f128_ps::<0x31>(b[c], b[4 + c]));
        }
        columns
    }

    #[inline(always)]
    fn larger(largest: __m256, other: __m256) -> __m256 {
        intrinsics!(_mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(largest), Self::magnitude(other))))
    }

    #[inline(always)]
    fn below(half: __m256, threshold: i32) -> u16 {
        intrinsics!({
            let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(threshold), Self::magnitude(half));
            _mm256_movemask_ps(_mm256_castsi256_ps(below)) as u16
        })
    }

    #[inline(always)]
    fn step_half(weights: __m256, sums: __m256, lr: f32) -> __m256 {
        intrinsics!({
            let (zero, lr) = (_mm256_setzero_ps(), _mm256_set1_ps(lr));
            let down = _mm256_cmp_ps::<_CMP_GT_OQ>(sums, zero);
            let up = _mm256_cmp_ps::<_CMP_LT_OQ>(sums, zero);
            let moved = _mm256_blendv_ps(weights, _mm256_sub_ps(weights, lr), down);
            _mm256_blendv_ps(moved, _mm256_add_ps(weights, lr), up)
        })
    }

    #[inline(always)]
    fn narrow_half([front, back]: [__m256d; 2]) -> __m256 {
        intrinsics!(_mm256_set_m128(_mm256_cvtpd_ps(back), _mm256_cvtpd_ps(front)))
    }
}

impl Isa for Avx2 {
    type Floats = [__m256; 2];
    type Doubles = [__m256d; 2];
    const FUSED: bool = true;
    const SUMS: usize = 4;

    #[inline(always)]
    fn load(from: &Lanes) -> [__m256; 2] {
        intrinsics!(transmute::<Lanes, [__m256; 2]>(*from))
    }

    #[inline(always)]
    fn store(floats: [__m256; 2], to: &mut Lanes) {
        *to = intrinsics!(transmute::<[__m256; 2], Lanes>(floats));
    }

    #[inline(always)]
    fn prefetch(element: &f32) {
        Avx512::prefetch(element);
    }

    #[inline(always)]
    fn zero() -> [__m256; 2] {
        intrinsics!([_mm256_setzero_ps(); 2])
    }

    #[inline(always)]
    fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        intrinsics!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        intrinsics!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn multiply_add(factor: f32, x: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
        intrinsics!({
            let factor = _mm256_set1_ps(factor);
            [_mm256_fmadd_ps(factor, x[0], sum[0]), _mm256_fmadd_ps(factor, x[1], sum[1])]
        })
    }

    #[inline(always)]
    fn transpose(rows: [[__m256; 2]; LANES]) -> [[__m256; 2]; LANES] {
        let mut columns = rows;
        for (above, left) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut block = [rows[0][0]; 8];
            for (to, row) in block.iter_mut().zip(&rows[8 * above..]) {
                *to = row[left];
            }
            block = Self::transpose_eight(block);
            for (column, from) in columns[8 * left..].iter_mut().zip(&block) {
                column[above] = *from;
            }
        }
        columns
    }

    #[inline(always)]
    fn larger_magnitude(largest: [__m256; 2], other: [__m256; 2]) -> [__m256; 2] {
        [Self::larger(largest[0], other[0]), Self::larger(largest[1], other[1])]
    }

    #[inline(always)]
    fn reach(floats: [__m256; 2], threshold: i32) -> u16 {
        !(Self::below(floats[0], threshold) | Self::below(floats[1], threshold) << 8)
    }

    #[inline(always)]
    fn step(weights: [__m256; 2], sums: [__m256; 2], lr: f32) -> [__m256; 2] {
        [Self::step_half(weights[0], sums[0], lr), Self::step_half(weights[1], sums[1], lr)]
    }

    #[inline(always)]
    fn load_doubles(from: &[f64; DOUBLES]) -> [__m256d; 2] {
        intrinsics!(transmute::<[f64; DOUBLES], [__m256d; 2]>(*from))
    }

    #[inline(always)]
    fn store_doubles(doubles: [__m256d; 2], to: &mut [f64; DOUBLES]) {
        *to = intrinsics!(transmute::<[__m256d; 2], [f64; DOUBLES]>(doubles));
    }

    #[inline(always)]
    fn zero_doubles() -> [__m256d; 2] {
        intrinsics!([_mm256_setzero_pd(); 2])
    }

    #[inline(always)]
    fn add_doubles(a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] {
        intrinsics!([_mm256_add_pd(a[0], b[0]), _mm256_add_pd(a[1], b[1])])
    }

    #[inline(always)]
    fn sub_doubles(a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] {
        intrinsics!([_mm256_sub_pd(a[0], b[0]), _mm256_sub_pd(a[1], b[1])])
    }

    #[inline(always)]
    fn multiply_add_doubles(factor: f64, x: [__m256d; 2], sum: [__m256d; 2]) -> [__m256d; 2] {
        intrinsics!({
            let factor = _mm256_set1_pd(factor);
            [_mm256_fmadd_pd(factor, x[0], sum[0]), _mm256_fmadd_pd(factor, x[1], sum[1])]
        })
    }

    #[inline(always)]
    fn reverse([front, back]: [__m256d; 2]) -> [__m256d; 2] {
        intrinsics!([_mm256_permute4x64_pd::<0x1b>(back), _mm256_permute4x64_pd::<0x1b>(front)])
    }

    #[inline(always)]
    fn narrow(front: [__m256d; 2], back: [__m256d; 2]) -> [__m256; 2] {
        [Self::narrow_half(front), Self::narrow_half(back)]
    }
}
