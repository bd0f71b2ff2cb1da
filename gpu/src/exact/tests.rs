#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod apply;
mod lr;

use std::f64::consts::PI;

use super::trig::{cos_pi, cos_pi_ratio};
use super::*;
use crate::codec::MAX_CHUNK;
use crate::codec::wave::Wave;

/// The value of `key` in a committed golden file of `key = value` lines.
fn golden(file: &'static str, key: &str) -> String {
    let line = file.lines().find_map(|line| line.split_once(" = ").filter(|(found, _)| *found == key));
    line.unwrap_or_else(|| panic!("no golden value for {key}")).1.to_owned()
}

const GOLDEN: &str = include_str!("../../tests/golden/exact.txt");

#[test]
fn the_own_cosine_is_accurate_and_has_exact_special_values() {
    for i in 0..=100_000 {
        let fraction = f64::from(i) / 100_000.0;
        let expected = (PI * fraction).cos();
        assert!((cos_pi(fraction) - expected).abs() < 4e-16, "{fraction}");
    }
    assert_eq!([0.0, 0.5, 1.0].map(cos_pi), [1.0, 0.0, -1.0]);
    assert_eq!([-1.0, 2.0, f64::NAN].map(cos_pi), [1.0, -1.0, 1.0]);
    for half in [1_u64, 2, 3, 64, 100, 256] {
        for numerator in 0..8 * half {
            let value = cos_pi_ratio(numerator, half);
            let expected = (PI * numerator as f64 / (2 * half) as f64).cos();
            assert!((value - expected).abs() < 1e-14, "{numerator}/{half}");
            assert_eq!(value, -cos_pi_ratio(numerator + 2 * half, half));
            assert_eq!(value == 0.0, numerator % (2 * half) == half);
        }
    }
}

#[test]
fn basis_sums_stay_within_the_bound_that_exactness_rests_on() {
    for n in 1..=256 {
        let basis = integer_basis(n);
        for j in 0..n {
            let sum: i64 = (0..n).map(|u| i64::from(basis[u * n + j]).abs()).sum();
            assert!(sum <= (1 << 26) + (1 << 7), "n {n}, column {j}: {sum}");
        }
    }
    for n in [257, 258, 1024, 4093, 65_535] {
        let basis = Wave::integers(n);
        for j in [0, 1, n / 3, n / 2, n - 1] {
            let [column, row] = [0, 1].map(|way| {
                let entry = |u: usize| if way == 0 { basis.at(u, j) } else { basis.at(j, u) };
                (0..n).map(|u| entry(u).abs()).sum::<f64>()
            });
            assert!(column.max(row) <= f64::from((1 << 26) + (1 << 15)), "n {n}, {j}: {column} {row}");
        }
    }
    let bound = (1_i128 << 26) + (1 << 16);
    assert!(bound * bound < 1 << 53 && bound << COEFFICIENT_BITS < 1 << 47);
    // What the bound rests on, for every edge that a run may ask for.
    for n in 1..=MAX_CHUNK {
        let column = f64::from(1 << basis_bits(n)) * (n as f64).sqrt() + n as f64 / 2.0;
        assert!(column <= f64::from((1 << 26) + (1 << 15)), "{n}");
    }
}

#[test]
fn looked_up_bases_are_the_matrices() {
    for n in [1, 2, 7, 64, 256, 257, 300] {
        let (wave, matrix) = (Wave::integers(n), integer_basis(n));
        for (at, &entry) in matrix.iter().enumerate() {
            assert_eq!(wave.at(at / n, at % n), f64::from(entry), "{n}, {at}");
        }
    }
}

#[test]
fn the_integer_basis_is_the_committed_one_for_every_size() {
    let mut hasher = blake3::Hasher::new();
    for n in 1..=256 {
        integer_basis(n).iter().for_each(|value| _ = hasher.update(&value.to_le_bytes()));
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), golden(GOLDEN, "bases"));
    let scale = f64::from(1 << basis_bits(2));
    assert_eq!(integer_basis(1), [1 << 22]);
    assert_eq!(integer_basis(2), [1, 1, 1, -1].map(|sign| sign * (0.5_f64.sqrt() * scale).round() as i32));
}
