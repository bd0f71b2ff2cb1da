#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use tch::{Device, Kind};

use super::*;
use crate::mesh::{Group, MeshRank, SharedMemory};
use crate::shim;
use crate::testing::on_ranks;

/// A tensor of numbers that look random and are the same every time.
fn numbers(seed: i64, shape: &[i64]) -> Tensor {
    let len = shape.iter().product::<i64>();
    let indices = Tensor::arange(len, (Kind::Double, Device::Cpu));
    ((indices * 12.9898 + seed as f64 * 78.233).sin() * 2.0).to_kind(Kind::Float).view(shape)
}

fn region(rank: &MeshRank) -> Arc<Region> {
    Region::new(Box::new(rank.tensor_group()))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((&a - &b).abs().max() / a.abs().max()).double_value(&[])
}

#[test]
fn split_layers_have_the_outputs_and_gradients_of_whole_ones() {
    // Two linear layers into a product, and one out of it: the columns are split, then the rows.
    for (ranks, kind, tolerance) in [(2, Kind::Float, 1e-6), (3, Kind::Float, 1e-6), (2, Kind::BFloat16, 3e-2)] {
        let (width, inner) = (10, ranks as i64 * 7);
        let leaf = |tensor: Tensor| tensor.to_kind(kind).detach().copy().set_requires_grad(true);
        let weights = || [numbers(1, &[inner, width]), numbers(2, &[inner, width]), numbers(3, &[width, inner])];
        let [first, second, third] = weights().map(leaf);
        let input = leaf(numbers(4, &[2, 3, width]));
        let product = input.linear(&first, None::<&Tensor>) * input.linear(&second, None::<&Tensor>);
        let whole = product.linear(&third, None::<&Tensor>);
        (&whole * numbers(5, &[2, 3, width]).to_kind(kind)).sum(Kind::Float).backward();
        let expected = [whole.detach(), input.grad(), first.grad(), second.grad(), third.grad()];
        // Threads may share tensors only one at a time, so that they get copies in the form of numbers.
        let expected = expected.map(|tensor| Vec::<f32>::try_from(tensor.to_kind(Kind::Float).reshape([-1])).unwrap());
        for result in on_ranks((1, ranks), |rank| {
            let region = region(&rank);
            let (place, part) = (rank.rank() as i64, 7);
            let [first, second, third] = weights();
            let first = leaf(first.narrow(0, place * part, part));
            let second = leaf(second.narrow(0, place * part, part));
            let third = leaf(third.narrow(1, place * part, part));
            let input = leaf(numbers(4, &[2, 3, width]));
            let [a, b] = region.columns(&input, [&first, &second]).unwrap();
            let whole = region.leave((a * b).linear(&third, None::<&Tensor>)).unwrap();
            (&whole * numbers(5, &[2, 3, width]).to_kind(kind)).sum(Kind::Float).backward();
            let whole_of = |index: usize, shape: &[i64]| Tensor::from_slice(&expected[index]).view(shape);
            let pairs = [
                (whole.detach(), whole_of(0, &[2, 3, width])),
                (input.grad(), whole_of(1, &[2, 3, width])),
                (first.grad(), whole_of(2, &[inner, width]).narrow(0, place * part, part)),
                (second.grad(), whole_of(3, &[inner, width]).narrow(0, place * part, part)),
                (third.grad(), whole_of(4, &[width, inner]).narrow(1, place * part, part)),
            ];
            let differences = pairs.map(|(ours, theirs)| difference(&theirs, &ours));
            rank.agree(()).unwrap();
            differences
        }) {
            let differences = result.unwrap();
            assert!(differences.iter().all(|&difference| difference < tolerance), "{ranks} ranks, {kind:?}: {differences:?}");
        }
    }
}

#[test]
fn a_fresh_result_is_summed_where_it_is_and_anything_else_in_a_copy() {
    for result in on_ranks((1, 2), |rank| {
        let region = region(&rank);
        let leaf = numbers(1, &[4, 4]).set_requires_grad(true);
        let fresh = &leaf * 2.0;
        let place = fresh.data_ptr();
        let sum = region.leave(fresh).unwrap();
        assert_eq!(sum.data_ptr(), place);
        assert!(sum.equal(&(&leaf * 4.0)));
        let sum = region.leave(leaf.shallow_clone()).unwrap();
        assert!(sum.data_ptr() != leaf.data_ptr() && sum.equal(&(&leaf * 2.0)));
        // A transposed one has to be copied to be contiguous.
        let sum = region.leave((&leaf * 2.0).transpose(0, 1)).unwrap();
        assert!(sum.is_contiguous() && sum.equal(&(&leaf * 4.0).transpose(0, 1)));
    }) {
        result.unwrap();
    }
}

#[test]
fn a_result_that_its_own_backward_pass_still_needs_is_no_silent_error() {
    for result in on_ranks((1, 2), |rank| {
        let leaf = numbers(1, &[4]).set_requires_grad(true);
        // The gradient of exp is its result, which the sum overwrites.
        let sum = region(&rank).leave(leaf.exp()).unwrap().sum(Kind::Float);
        let error = sum.f_backward().unwrap_err().to_string();
        assert!(error.contains("modified by an inplace operation"), "{error}");
        rank.agree(()).unwrap();
    }) {
        result.unwrap();
    }
}

/// A group whose sums panic from some call on.
struct Explosive {
    group: SharedMemory,
    calls_left: Mutex<usize>,
}

impl Collective for Explosive {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        let mut left = self.calls_left.lock().unwrap();
        *left = left.checked_sub(1).expect("the test wants it");
        self.group.all_reduce(tensor, reduction)
    }

    fn reduce_scatter(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        self.group.reduce_scatter(input, output)
    }

    fn all_gather(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError> {
        self.group.all_gather(input, output)
    }

    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), GpuError> {
        self.group.broadcast(tensor, root)
    }
}

#[test]
fn a_panic_inside_a_collective_of_either_pass_ends_the_mesh_in_typed_errors() {
    for calls_before in [0, 1] {
        let errors = on_ranks((1, 2), |rank| {
            let group = rank.group(Group::Tensor);
            let calls_left = if rank.rank() == 0 { calls_before } else { usize::MAX };
            let region = Region::new(Box::new(Explosive { group, calls_left: Mutex::new(calls_left) }));
            let step = || {
                let leaf = numbers(1, &[4, 4]).set_requires_grad(true);
                let [middle] = region.columns(&leaf, [&numbers(2, &[4, 4]).set_requires_grad(true)])?;
                let sum = region.leave(middle * 2.0)?;
                // The first sum is the forward pass's, the second one the backward pass's.
                shim::backward(&sum, &sum.ones_like())
            };
            let error = step().map_err(|error| region.cause_of(error)).unwrap_err();
            rank.fail(&error.to_string());
            error
        });
        let errors: Vec<GpuError> = errors.into_iter().map(|result| result.unwrap()).collect();
        assert!(matches!(&errors[0], GpuError::Shim { message } if message == "a collective panicked"), "{errors:?}");
        assert!(matches!(errors[1], GpuError::MeshPoisoned { rank: 0, .. }), "{errors:?}");
    }
}
