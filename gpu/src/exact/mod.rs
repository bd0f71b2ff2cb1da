//! The update that every node computes to the last bit: votes to signs to weights, and the learning rate.
//!
//! # Definition
//! For each coefficient that at least one accepted sender sent, with `F = 20`, and for a basis of length `n` with `G = 22`
//! where `n ≤ 256` and `G = 18` where `n` is larger:
//! 1. `2^E` is the smallest power of two not below any magnitude sent for the chunk (with one-bit payloads 1). Each
//!    value counts as the integer nearest to `value · 2^(F − E)`, halves away from zero; so one-bit votes are `±2^F`.
//! 2. The coefficient is the mean over the senders that sent it: `sum / count`, halves away from zero.
//! 3. The inverse DCT runs on integers: `B_n` is `2^G` times the orthonormal basis, rounded, halves away from zero
//!    ([`integer_basis`]). First over the vertical index, `A[i][v] = Σ_u B_h[u][i] · V[u][v]`; each `A` is divided by
//!    `2^F` and rounded to nearest, ties to even; then `x[i][j] = Σ_v A[i][v] · B_w[v][j]`.
//! 4. `w ← w − lr` where `x > 0`, `w ← w + lr` where `x < 0`, each one correctly rounded f32 operation; `w` keeps its
//!    bits where `x = 0`.
//!
//! # Why it is exact
//! The columns and rows of an orthogonal matrix have norm 1, hence `Σ_u |B_n[u][i]|` and `Σ_v |B_n[v][j]|` are at most
//! `2^G · √n + n/2`. Edges are at most 2^16, so that this is at most `2^22 · 2^4 + 2^7` for the small bases and
//! `2^18 · 2^8 + 2^15` for the large ones: at most `2^26 + 2^15` for all. So `|A| ≤ 2^20 · (2^26 + 2^15) < 2^47`, after
//! rounding at most `2^26 + 2^15 + 1`, and `|x| ≤ (2^26 + 2^16)² < 2^53`, whichever bases meet. The same bounds hold for
//! every partial sum in any order. All of it is therefore exact in i64 and in f64 alike, with or without fused
//! operations, on CPU and GPU; this module computes in f64. Only the sign of `x` is used, so that its scale may depend on
//! the chunk's shape.

mod accumulate;
mod inverse;
mod lr;
pub(crate) mod trig;
mod votes;

#[cfg(test)]
mod tests;

pub use accumulate::{Accumulator, apply_payloads};
pub(crate) use inverse::IntegerBasis;
pub use lr::{ColdStart, LrSchedule, LrScheduleError};
pub(crate) use votes::Votes;

use crate::codec::{MAX_SMALL_EDGE, dct_basis};

/// Fractional bits of a coefficient (`F`), and of the shift between the passes.
pub const COEFFICIENT_BITS: u32 = 20;

/// Fractional bits of the basis of length `n` (`G`).
pub const fn basis_bits(n: usize) -> u32 {
    if n <= MAX_SMALL_EDGE { 22 } else { 18 }
}

/// `B_n` as integers: `[n, n]`, row `u` is the `u`-th basis function times `2^G`.
pub fn integer_basis(n: usize) -> Vec<i32> {
    let scale = f64::from(1_u32 << basis_bits(n));
    dct_basis(n).into_iter().map(|value| (value * scale).round() as i32).collect()
}

/// At 1.5 · 2^52 neighbouring f64 lie 1 apart, so that adding it rounds to an integer, by the default rounding mode.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// `sum / 2^F` rounded to nearest, ties to even, for integers below 2^53 / 2.
fn shift(sum: f64) -> f64 {
    (sum * (1.0 / (1_u64 << COEFFICIENT_BITS) as f64) + ROUNDER) - ROUNDER
}
