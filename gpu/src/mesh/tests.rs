#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::time::Instant;

use super::*;
use crate::testing::on_ranks;

fn all_ok<R>(results: Vec<std::thread::Result<R>>) -> Vec<R> {
    results.into_iter().map(|result| result.unwrap()).collect()
}

#[test]
fn all_reduce_adds_in_rank_order_within_each_replica() {
    let sums = all_ok(on_ranks((2, 3), |rank| {
        let group = rank.tensor_group();
        // Added in another order these would give another sum: 1 is lost beside 1e8.
        let value = [1e8_f32, -1e8, 1.0][rank.tensor_index()] + rank.data_index() as f32;
        let mut tensor = Tensor::full([2500], f64::from(value), (Kind::Float, Device::Cpu));
        group.all_reduce(&mut tensor, Reduction::Sum).unwrap();
        let values = Vec::<f32>::try_from(&tensor).unwrap();
        assert!(values.iter().all(|v| *v == values[0]));
        // A replica that left now would end the other one's collective.
        rank.agree(()).unwrap();
        values[0]
    }));
    assert_eq!(sums, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
}

#[test]
fn all_reduce_takes_the_maximum() {
    let maxima = all_ok(on_ranks((1, 2), |rank| {
        let mut tensor = Tensor::from_slice(&[rank.rank() as f32, -(rank.rank() as f32)]);
        rank.tensor_group().all_reduce(&mut tensor, Reduction::Max).unwrap();
        Vec::<f32>::try_from(&tensor).unwrap()
    }));
    assert_eq!(maxima, [[1.0, 0.0], [1.0, 0.0]]);
}

#[test]
fn a_failed_rank_poisons_every_collective_of_the_others_at_once() {
    let started = Instant::now();
    let errors = all_ok(on_ranks((2, 2), |rank| match rank.rank() {
        3 => {
            rank.fail("out of luck");
            None
        }
        // Rank 2 waits in its tensor-parallel group, the others in the world.
        2 => rank.tensor_group().all_reduce(&mut Tensor::ones([4], (Kind::Float, Device::Cpu)), Reduction::Sum).err(),
        _ => rank.agree(0_u32).err(),
    }));
    for error in errors.into_iter().take(3) {
        assert!(matches!(error, Some(GpuError::MeshPoisoned { rank: 3, reason }) if reason == "out of luck"));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_panicking_rank_poisons_the_others() {
    let mut results = on_ranks((3, 1), |rank| {
        assert!(rank.rank() != 1, "the test wants it");
        rank.agree(1_u8).unwrap_err()
    });
    assert!(results.remove(1).is_err());
    for error in all_ok(results) {
        assert!(matches!(error, GpuError::MeshPoisoned { rank: 1, .. }));
    }
}

#[test]
fn a_panic_while_reading_reaches_the_others_at_their_next_collective() {
    let mut results = on_ranks((2, 1), |rank| {
        let read = rank.exchange(&7_u32, |all| {
            assert!(rank.rank() != 0, "the test wants it");
            *all[0]
        });
        (read.unwrap(), rank.agree(0_u32).unwrap_err())
    });
    let (read, error) = results.pop().unwrap().unwrap();
    assert_eq!(read, 7);
    assert!(matches!(error, GpuError::MeshPoisoned { rank: 0, .. }));
    assert!(results.pop().unwrap().is_err());
}

#[test]
fn a_missing_rank_ends_the_wait_in_a_typed_error() {
    let topology = Topology::new(2, 1).unwrap();
    let mut ranks = mesh(topology, Duration::from_millis(50));
    let absent = ranks.pop().unwrap();
    let error = ranks[0].agree(0_u32).unwrap_err();
    assert!(matches!(error, GpuError::MeshTimeout { ref missing, waited_ms: 50 } if missing == &[1]), "{error:?}");
    assert!(absent.agree(0_u32).is_err());
}

#[test]
fn ranks_that_call_different_collectives_all_fail() {
    let errors = all_ok(on_ranks((2, 1), |rank| match rank.rank() {
        0 => rank.agree(0_u32).unwrap_err(),
        _ => rank.agree(0_u64).unwrap_err(),
    }));
    assert!(errors.iter().all(|error| matches!(error, GpuError::MeshDesynchronised { .. })));
    let errors = all_ok(on_ranks((1, 2), |rank| {
        let mut tensor = Tensor::ones([3 + rank.rank() as i64], (Kind::Float, Device::Cpu));
        rank.tensor_group().all_reduce(&mut tensor, Reduction::Sum).unwrap_err()
    }));
    assert!(errors.iter().all(|error| matches!(error, GpuError::MeshDesynchronised { .. })));
}

#[test]
fn an_aborted_step_can_be_repeated_after_all_have_rejoined() {
    let values = all_ok(on_ranks((2, 2), |rank| {
        for attempt in 0..50_u32 {
            let aborter = (attempt % 4) as usize;
            let met = if rank.rank() == aborter {
                rank.abort();
                rank.agree(attempt)
            } else if rank.data_index() == aborter / 2 {
                rank.agree_in_tensor_group(attempt)
            } else {
                rank.agree(attempt)
            };
            assert!(matches!(met, Err(GpuError::MeshAborted { .. })));
            rank.rejoin().unwrap();
        }
        rank.agree(rank.rank()).unwrap()
    }));
    assert!(values.iter().all(|all| *all == [0, 1, 2, 3]));
}

#[test]
fn tensors_that_shared_memory_cannot_reach_are_refused() {
    let errors = all_ok(on_ranks((1, 2), |rank| {
        let mut tensor = Tensor::ones([3], (Kind::Double, Device::Cpu));
        rank.tensor_group().all_reduce(&mut tensor, Reduction::Sum).unwrap_err()
    }));
    assert!(errors.iter().all(|error| matches!(error, GpuError::Device { .. })));
}
