#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::codec::Threads;
use crate::config::ParameterSpec;

#[test]
fn the_matrix_products_choose_what_the_plain_transform_chooses() {
    let shapes: [&[usize]; 5] = [&[64, 96], &[48], &[7, 24], &[40, 5], &[2, 24, 16]];
    let specs: Vec<ParameterSpec> = shapes
        .iter()
        .enumerate()
        .map(|(index, shape)| ParameterSpec { name: format!("w{index}"), shape: shape.to_vec() })
        .collect();
    // Everything is kept, so that rounding can't change the choice.
    let layout = Layout::new(&specs, 16, 256, true).unwrap();
    let bases = Bases::new(&layout).unwrap();
    for (parameter, spec) in specs.iter().enumerate() {
        let blocks = layout.parameters()[parameter].blocks();
        for part in [layout.whole(parameter).unwrap(), layout.part(parameter, blocks - 1..blocks).unwrap()] {
            let rows: Vec<f32> = part.elements().map(|index| ((index * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let expected = layout.compress(&part, &rows, Threads::ONE).unwrap();
            let found = bases.compress(&layout, &part, &rows).unwrap();
            assert_eq!(found.indices, expected.indices);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            assert!(found.values.iter().zip(&expected.values).all(close), "{:?}", spec.shape);
        }
    }
}
