#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod demo;
mod fuzz;
mod geometry;
mod payload;
mod shapes;
mod subset;
mod transform;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::config::ParameterSpec;

fn spec(name: &str, shape: &[usize]) -> ParameterSpec {
    ParameterSpec { name: name.into(), shape: shape.to_vec() }
}

/// Reproducible values in (−1, 1).
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (rng.next_u32() as i32 as f32) / 2_147_483_648.0).collect()
}

/// A layout with every kind of parameter: wide, narrow, rank 1, rank 3, dimensions that 64 does not divide.
fn mixed_layout(chunk: usize, topk: usize, quantize_1bit: bool) -> Layout {
    let specs = [
        spec("wide", &[128, 320]),
        spec("narrow", &[640, 64]),
        spec("norm", &[192]),
        spec("odd", &[3, 35, 22]),
        spec("prime", &[31, 37]),
    ];
    Layout::new(&specs, chunk, topk, quantize_1bit).unwrap()
}

/// Compresses and encodes a whole model of noise.
fn noisy_payload(layout: &Layout, seed: u64) -> Vec<u8> {
    let parts: Vec<_> = (0..layout.parameters().len())
        .map(|index| {
            let part = layout.whole(index).unwrap();
            let rows = noise(seed + index as u64, part.elements().len());
            let selection = layout.compress(&part, &rows, Threads::ONE).unwrap();
            let bytes = layout.encode_part(&part, &selection).unwrap();
            (part, bytes)
        })
        .collect();
    layout.assemble(&parts).unwrap()
}
