//! Cosines with the same bits on every machine.
//!
//! Only `+ − × ÷` on f64 are used, which IEEE 754 rounds correctly everywhere (Rust never contracts them to fused
//! operations); libm's `cos` differs between platforms in the last place. The error stays below 2e-16.

use std::f64::consts::PI;

/// `cos(π · fraction)` for `fraction` in `[0, 1]`; outside it is clamped, NaN counts as 0.
pub(crate) fn cos_pi(fraction: f64) -> f64 {
    let fraction = if fraction > 0.0 { fraction.min(1.0) } else { 0.0 };
    // 1 − f and 0.5 − f are exact where they are used (Sterbenz), so the reduction adds no error.
    if fraction > 0.5 { -half_turn(1.0 - fraction) } else { half_turn(fraction) }
}

/// `cos(π · fraction)` for `fraction` in `[0, 1/2]`.
fn half_turn(fraction: f64) -> f64 {
    if fraction > 0.25 {
        let x = PI * (0.5 - fraction);
        x * taylor(x * x, 1)
    } else {
        let x = PI * fraction;
        taylor(x * x, 0)
    }
}

/// Horner's scheme of `Σ (−square)^i · offset! / (2i + offset)!`, up to degree 22: the series of cos for offset 0, of
/// sin(x)/x for offset 1.
fn taylor(square: f64, offset: u32) -> f64 {
    (1..=11_u32).rev().fold(1.0, |sum, i| {
        let last = 2 * i + offset;
        1.0 - square / f64::from(last * (last - 1)) * sum
    })
}

/// `cos(π · numerator / (2 · half))`, its symmetries resolved in integers: exact zeros, exactly opposite values.
///
/// `half` must lie in `1..=2^31`.
pub(crate) fn cos_pi_ratio(numerator: u64, half: u64) -> f64 {
    let turn = 4 * half;
    let mut angle = numerator % turn;
    angle = angle.min(turn - angle);
    let sign = if angle > half { -1.0 } else { 1.0 };
    angle = angle.min(2 * half - angle);
    sign * half_turn(angle as f64 / (2 * half) as f64)
}
