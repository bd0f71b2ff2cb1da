#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use tch::{Device, Kind};

use super::*;

/// Leaves of `kind` with reproducible numbers, and the same in f64.
fn leaves(kind: Kind, shapes: &[&[i64]]) -> (Vec<Tensor>, Vec<Tensor>) {
    let numbers = |(index, shape): (usize, &&[i64])| {
        let count: i64 = shape.iter().product();
        let ramp = Tensor::arange(count, (Kind::Double, Device::Cpu));
        (ramp * (0.7 + index as f64)).sin().reshape(*shape).to_kind(kind)
    };
    let leaf = |tensor: Tensor| tensor.detach().set_requires_grad(true);
    let rounded: Vec<Tensor> = shapes.iter().enumerate().map(numbers).collect();
    let exact = rounded.iter().map(|tensor| leaf(tensor.to_kind(Kind::Double))).collect();
    (rounded.into_iter().map(leaf).collect(), exact)
}

/// The result of `operation` and, by leaf, the gradient of its product with a fixed tensor.
fn with_gradients(leaves: &[Tensor], operation: impl Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let output = operation(leaves);
    // Exact in every type: the comparison is of what the operation rounds.
    let weights = Tensor::arange(output.numel() as i64, (Kind::Double, Device::Cpu)).cos().view_as(&output);
    let weights = weights.to_kind(Kind::BFloat16);
    crate::shim::backward(&output, &weights.to_kind(output.kind())).unwrap();
    std::iter::once(output.detach()).chain(leaves.iter().map(Tensor::grad)).collect()
}

/// Compares with f64; every number may be off by a few roundings of the largest.
fn assert_agree(kind: Kind, shapes: &[&[i64]], ours: impl Fn(&[Tensor]) -> Tensor, plain: impl Fn(&[Tensor]) -> Tensor) {
    let (rounded, exact) = leaves(kind, shapes);
    let tolerance = if kind == Kind::Float { 1e-5 } else { 1.5e-2 };
    for (ours, plain) in with_gradients(&rounded, ours).iter().zip(with_gradients(&exact, plain)) {
        assert_eq!((ours.kind(), ours.size()), (kind, plain.size()));
        let difference = (ours.to_kind(Kind::Double) - &plain).abs().max().double_value(&[]);
        let scale = plain.abs().max().double_value(&[]);
        assert!(difference <= tolerance * scale, "{kind:?} {shapes:?}: off by {difference} of {scale}");
    }
}

/// Tables of made-up angles, f32 and f64; the sign of the rotation in the first half.
fn tables(positions: i64, width: i64) -> [(Tensor, Tensor); 2] {
    let angles = Tensor::arange(positions * width / 2, (Kind::Double, Device::Cpu)).reshape([positions, 1, width / 2]) * 0.37;
    let cosine = Tensor::cat(&[angles.cos(), angles.cos()], -1);
    let sine = Tensor::cat(&[-angles.sin(), angles.sin()], -1);
    [(cosine.to_kind(Kind::Float), sine.to_kind(Kind::Float)), (cosine, sine)]
}

fn rotate_plainly(input: &Tensor, (cosine, sine): &(Tensor, Tensor)) -> Tensor {
    let positions = input.size()[1];
    let halves = input.chunk(2, -1);
    let swapped = Tensor::cat(&[&halves[1], &halves[0]], -1);
    input * cosine.narrow(0, 0, positions) + swapped * sine.narrow(0, 0, positions)
}

#[test]
fn results_and_gradients_are_those_of_the_plain_operations() {
    crate::devices::init_threads(1);
    for kind in [Kind::Float, Kind::BFloat16] {
        for shape in [[1, 1, 5], [2, 3, 33], [3, 50, 64], [1, 700, 256]] {
            let norm = |leaves: &[Tensor]| leaves[0].rms_norm([shape[2]], Some(&leaves[1]), 1e-5);
            assert_agree(kind, &[&shape, &shape[2..]], |leaves| rms_norm(&leaves[0], &leaves[1], 1e-5).unwrap(), norm);
            let glu = |leaves: &[Tensor]| leaves[0].silu() * &leaves[1];
            assert_agree(kind, &[&shape, &shape], |leaves| swiglu(&leaves[0], &leaves[1]).unwrap(), glu);
        }
        for shape in [[1, 1, 1, 2], [3, 5, 2, 6], [2, 40, 4, 64], [5, 120, 16, 32]] {
            let [rounded, exact] = tables(130, shape[3]);
            let turned = |leaves: &[Tensor]| rotate(&leaves[0], &rounded.0, &rounded.1).unwrap();
            assert_agree(kind, &[&shape], turned, |leaves| rotate_plainly(&leaves[0], &exact));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let by_threads = |threads| {
        let work = move || {
            // Without this the first parallel operation of a new thread would set another number.
            tch::get_num_threads();
            tch::set_num_threads(threads);
            let (leaves, _) = leaves(Kind::Float, &[&[2, 999, 4, 64], &[64]]);
            let [(cosine, sine), _] = tables(999, 64);
            with_gradients(&leaves, |leaves| rotate(&rms_norm(&leaves[0], &leaves[1], 1e-5).unwrap(), &cosine, &sine).unwrap())
        };
        std::thread::spawn(work).join().unwrap()
    };
    let (one, three) = (by_threads(1), by_threads(3));
    crate::devices::init_threads(1);
    assert!(one.iter().zip(&three).all(|(a, b)| a.equal(b)));
}

#[test]
fn what_the_loops_cannot_read_is_refused() {
    let rows = Tensor::zeros([4, 6], (Kind::Float, Device::Cpu));
    let weight = Tensor::ones([6], (Kind::Float, Device::Cpu));
    assert!(rms_norm(&rows.transpose(0, 1), &weight.narrow(0, 0, 4), 1e-5).is_err());
    assert!(rms_norm(&rows, &weight.narrow(0, 0, 4), 1e-5).is_err());
    assert!(rms_norm(&rows.to_kind(Kind::Double), &weight.to_kind(Kind::Double), 1e-5).is_err());
    assert!(rms_norm(&rows, &weight.to_kind(Kind::BFloat16), 1e-5).is_err());
    let [(cosine, sine), (exact, _)] = tables(3, 6);
    let heads = rows.view([1, 4, 1, 6]);
    assert!(rotate(&heads, &cosine, &sine).is_err(), "more positions than rows of the tables");
    assert!(rotate(&heads.narrow(1, 0, 3), &exact, &sine).is_err());
    assert!(rotate(&heads.narrow(1, 0, 3), &cosine, &sine).is_ok());
}
