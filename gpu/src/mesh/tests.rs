#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::time::Instant;

use super::*;
use tch::{Device, Kind, Tensor};

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

fn column(values: &[f32], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.to_kind(Kind::Float)).unwrap()
}

#[test]
fn every_collective_does_what_it_says_in_every_group_and_element_type() {
    for kind in [Kind::Float, Kind::BFloat16] {
        all_ok(on_ranks((2, 3), |rank| {
            for group in [Group::World, Group::Tensor, Group::Data] {
                let members = match group {
                    Group::World => vec![0, 1, 2, 3, 4, 5],
                    Group::Tensor => (0..3).map(|place| rank.data_index() * 3 + place).collect(),
                    Group::Data => vec![rank.tensor_index(), rank.tensor_index() + 3],
                };
                let collective = rank.group(group);
                let (place, size) = (collective.rank(), collective.size());
                assert_eq!((members[place], members.len()), (rank.rank(), size));
                // Small whole numbers are exact in bf16.
                let of = |member: usize, index: usize| (member * 7 + index) as f32;
                let total = |index| members.iter().map(|&member| of(member, index)).sum::<f32>();
                let mine: Vec<f32> = (0..size * 2).map(|index| of(rank.rank(), index)).collect();

                let mut tensor = column(&mine, kind);
                collective.all_reduce(&mut tensor, Reduction::Sum).unwrap();
                assert_eq!(values(&tensor), (0..size * 2).map(total).collect::<Vec<_>>());

                let mut part = column(&[0.0; 2], kind);
                collective.reduce_scatter(&column(&mine, kind), &mut part).unwrap();
                assert_eq!(values(&part), [total(place * 2), total(place * 2 + 1)]);

                let mut whole = column(&vec![0.0; size * 2], kind);
                collective.all_gather(&column(&mine[..2], kind), &mut whole).unwrap();
                let gathered: Vec<f32> = members.iter().flat_map(|&member| [of(member, 0), of(member, 1)]).collect();
                assert_eq!(values(&whole), gathered);

                let mut tensor = column(&mine, kind);
                collective.broadcast(&mut tensor, size - 1).unwrap();
                assert_eq!(values(&tensor)[0], of(members[size - 1], 0));
            }
            rank.agree(()).unwrap();
        }));
    }
}

#[test]
fn bf16_is_added_in_f32_and_rounded_once() {
    let sums = all_ok(on_ranks((1, 3), |rank| {
        // In bf16, 256 + 1 is 256, and once more: only the sum of all three, 258, is a number of its own.
        let mut tensor = column(&[[256.0, 1.0, 1.0][rank.rank()]; 1500], Kind::BFloat16);
        rank.tensor_group().all_reduce(&mut tensor, Reduction::Sum).unwrap();
        values(&tensor)
    }));
    assert!(sums.iter().flatten().all(|&sum| sum == 258.0));
}

#[test]
fn parts_that_do_not_make_up_the_whole_are_refused_before_anybody_waits() {
    let errors = all_ok(on_ranks((1, 2), |rank| {
        let (input, mut output) = (column(&[0.0; 5], Kind::Float), column(&[0.0; 2], Kind::Float));
        let group = rank.tensor_group();
        let scattered = group.reduce_scatter(&input, &mut output).unwrap_err();
        let mut whole = column(&[0.0; 4], Kind::BFloat16);
        let gathered = group.all_gather(&output, &mut whole).unwrap_err();
        [scattered, gathered, group.broadcast(&mut output, 2).unwrap_err()]
    }));
    assert!(errors.iter().flatten().all(|error| matches!(error, GpuError::Layout { .. })));
}

#[test]
fn ranks_that_disagree_about_operation_or_element_type_all_fail() {
    let errors = all_ok(on_ranks((1, 2), |rank| {
        let kind = [Kind::Float, Kind::BFloat16][rank.rank()];
        rank.tensor_group().all_reduce(&mut column(&[0.0; 4], kind), Reduction::Sum).unwrap_err()
    }));
    assert!(errors.iter().all(|error| matches!(error, GpuError::MeshDesynchronised { .. })));
    let errors = all_ok(on_ranks((1, 2), |rank| {
        let group = rank.tensor_group();
        let mut tensor = column(&[0.0; 4], Kind::Float);
        match rank.rank() {
            0 => group.all_reduce(&mut tensor, Reduction::Sum).unwrap_err(),
            _ => group.broadcast(&mut tensor, 0).unwrap_err(),
        }
    }));
    assert!(errors.iter().all(|error| matches!(error, GpuError::MeshDesynchronised { .. })));
}

#[test]
fn what_carries_tensors_follows_from_the_devices() {
    let cuda = Device::Cuda;
    assert_eq!(carrier(&[Device::Cpu; 3]).unwrap(), Carrier::SharedMemory);
    assert_eq!(carrier(&[cuda(0)]).unwrap(), Carrier::Nccl);
    assert_eq!(carrier(&[cuda(2), cuda(0), cuda(1)]).unwrap(), Carrier::Nccl);
    for refused in [&[cuda(0), Device::Cpu][..], &[cuda(1), cuda(0), cuda(1)], &[Device::Mps]] {
        assert!(matches!(carrier(refused), Err(GpuError::Layout { .. })), "{refused:?}");
    }
}

#[test]
fn ranks_on_the_cpu_are_connected_by_shared_memory_in_every_group() {
    let sizes = all_ok(on_ranks((2, 2), |rank| {
        [Group::World, Group::Tensor, Group::Data].map(|group| {
            let collective = rank.connect(group, Device::Cpu).unwrap();
            let mut tensor = column(&[1.0; 3], Kind::Float);
            collective.all_reduce(&mut tensor, Reduction::Sum).unwrap();
            rank.agree(()).unwrap();
            (collective.size(), values(&tensor)[0])
        })
    }));
    assert!(sizes.iter().all(|groups| *groups == [(4, 4.0), (2, 2.0), (2, 2.0)]));
}
