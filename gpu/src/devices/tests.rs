#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::BTreeSet;
use std::sync::Barrier;

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::cores::ranges;
use super::cpu::{Limit, Mask, first_number, limit_of, memory_of, quota_of, siblings_together};
use super::*;
use crate::GpuError;
use crate::mesh::{RANKS_MAX, Topology};

mod placing;

fn cpu(cores: usize) -> CpuReport {
    CpuReport {
        cores: (0..cores).collect(),
        threads: cores,
        threads_per_rank_max: None,
        memory_bytes: 8 << 30,
        memory_free_bytes: 4 << 30,
    }
}

#[test]
fn device_names_read_back_as_they_are_written() {
    for text in ["auto", "cpu", "cpu:4", "cpu:256", "cuda", "cuda:0", "cuda:3,1", "cuda:127"] {
        assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
    }
}

#[test]
fn malformed_device_names_are_refused() {
    let texts = [
        "", "gpu", "cpu:0", "cpu:x", "cpu:257", "cpu:", "cuda:", "cuda:1,1", "cuda:-1", "cuda:128", "cuda:0,", "auto:1", "CPU",
    ];
    for text in texts {
        assert!(matches!(text.parse::<DeviceSpec>(), Err(GpuError::Device { .. })), "{text}");
    }
}

#[test]
fn the_report_of_this_machines_cpu_makes_sense() {
    let report = CpuReport::read();
    assert!(!report.cores.is_empty() && (1..=report.cores.len()).contains(&report.threads), "{report:?}");
    assert!(report.memory_bytes > 0 && report.memory_free_bytes <= report.memory_bytes, "{report:?}");
    let text = report.to_string();
    assert!(text.contains("core") && text.contains("GiB") && !text.contains('\n'), "{text}");
}

#[test]
fn quotas_are_whole_cpus_and_at_least_one() {
    for (text, cpus) in [
        ("max 100000", None),
        ("-1 100000", None),
        ("", None),
        ("250000 100000", Some(2)),
        ("5000 100000", Some(1)),
        ("1 0", None),
    ] {
        assert_eq!(quota_of(text), cpus, "{text}");
    }
}

#[test]
fn openmps_number_of_threads_is_its_first_level() {
    for (text, threads) in [("4", Some(4)), (" 2,3 ", Some(2)), ("0", None), ("x", None), ("", None)] {
        assert_eq!(first_number(text), threads, "{text}");
    }
}

#[test]
fn memory_is_the_machines_or_the_containers_whichever_is_less() {
    let meminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n";
    assert_eq!(memory_of(meminfo, None), (1_024_000, 614_400));
    let limit = limit_of("500000\n", "300000\n", "anon 1\ninactive_file 100000\nslab 2", "inactive_file");
    assert_eq!(limit, Some(Limit { bytes: 500_000, used: 200_000 }));
    assert_eq!(memory_of(meminfo, limit), (500_000, 300_000));
    assert_eq!(memory_of(meminfo, Some(Limit { bytes: 1 << 50, used: 1 << 60 })), (1_024_000, 0));
    assert_eq!(limit_of("max", "1", "", "inactive_file"), None);
    assert_eq!(limit_of("9", "1", "", "inactive_file"), Some(Limit { bytes: 9, used: 1 }));
    assert_eq!(memory_of("nothing of the kind", None), (0, 0));
}

#[test]
fn hardware_threads_of_one_core_stay_together() {
    // Numbered as most servers number them: first all cores of both packages, then their second threads.
    let place = |core: usize| Some(((core % 4 / 2) as u64, (core % 2) as u64));
    assert_eq!(siblings_together((0..8).collect(), place), [0, 4, 1, 5, 2, 6, 3, 7]);
    assert_eq!(siblings_together(vec![3, 1, 2], |_| None), [1, 2, 3]);
}

#[test]
fn masks_hold_what_they_were_made_of() {
    for cores in [vec![], vec![0], vec![1, 63, 64, 8191]] {
        assert_eq!(Mask::of(&cores).cores(), cores);
    }
    assert_eq!(Mask::of(&[8192, 5]).cores(), [5]);
    assert!(!Mask::of_thread(0).unwrap().cores().is_empty());
}

#[test]
fn numbers_of_cores_are_written_as_ranges() {
    assert_eq!(ranges(&[]), "");
    assert_eq!(ranges(&[3]), "3");
    assert_eq!(ranges(&[8, 0, 4, 1, 2, 5]), "0-2,4-5,8");
}

#[test]
fn shares_are_equal_and_what_is_left_over_is_nobodys() {
    let shares = CoreShare::of(&cpu(7), 3);
    assert_eq!(shares.iter().map(|share| share.cores.clone()).collect::<Vec<_>>(), [[0, 1], [2, 3], [4, 5]]);
    assert!(shares.iter().all(|share| share.threads == 2));
}

#[test]
fn more_ranks_than_cores_float_with_one_thread_each() {
    let shares = CoreShare::of(&cpu(2), 3);
    assert!(shares.iter().all(|share| share.cores.is_empty() && share.threads == 1), "{shares:?}");
}

#[test]
fn quotas_and_openmps_variable_lower_the_threads_of_a_share_and_not_its_cores() {
    let quota = CpuReport { threads: 4, ..cpu(8) };
    assert!(CoreShare::of(&quota, 2).iter().all(|share| share.cores.len() == 4 && share.threads == 2));
    let openmp = CpuReport { threads_per_rank_max: Some(1), ..cpu(8) };
    assert!(CoreShare::of(&openmp, 2).iter().all(|share| share.cores.len() == 4 && share.threads == 1));
    assert_eq!(CoreShare::floating(&openmp, 1), CoreShare { cores: vec![], threads: 1 });
    assert_eq!(CoreShare::floating(&cpu(8), 3), CoreShare { cores: vec![], threads: 2 });
}

proptest! {
    #[test]
    fn prop_shares_are_disjoint_equal_and_within_the_quota(cores in 1_usize..300, quota in 1_usize..300, ranks in 1..=RANKS_MAX) {
        let report = CpuReport { threads: quota.min(cores), ..cpu(cores) };
        let shares = CoreShare::of(&report, ranks);
        prop_assert_eq!(shares.len(), ranks);
        let owned: Vec<usize> = shares.iter().flat_map(|share| share.cores.iter().copied()).collect();
        let distinct: BTreeSet<usize> = owned.iter().copied().collect();
        prop_assert_eq!(distinct.len(), owned.len());
        prop_assert!(owned.iter().all(|core| *core < cores));
        prop_assert_eq!(owned.len(), if ranks > cores { 0 } else { cores / ranks * ranks });
        let threads: usize = shares.iter().map(|share| share.threads).sum();
        prop_assert!(shares.iter().all(|share| share.threads == shares[0].threads && share.threads >= 1));
        prop_assert!(threads <= report.threads.max(ranks));
    }
}

/// What a rank's thread is after it took its seat: its mask, libtorch's threads in it and in a thread that it starts.
fn settled(seat: &Seat, all_there: &Barrier) -> (Vec<usize>, i32, Vec<usize>) {
    seat.take().unwrap();
    // Nobody looks before everybody has set its own number: a process-wide one would show.
    all_there.wait();
    // The first parallel operation is where a thread's number is lost if it was set too early.
    let ones = Tensor::ones([1 << 17], (Kind::Float, Device::Cpu));
    assert_eq!(ones.sum(Kind::Float).double_value(&[]), f64::from(1 << 17));
    let inherited = std::thread::scope(|scope| scope.spawn(|| Mask::of_thread(0).unwrap().cores()).join().unwrap());
    (Mask::of_thread(0).unwrap().cores(), tch::get_num_threads(), inherited)
}

#[test]
fn two_workers_run_on_disjoint_cores_and_with_their_share_of_threads() {
    let machine = Machine { cpu: CpuReport::read(), cuda: CudaReport::NoDriver };
    let placement = DeviceSpec::Cpu(None).place(Topology::new(2, 1).unwrap(), &machine, || Ok(())).unwrap();
    let all_there = Barrier::new(2);
    let settled: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = placement.seats.iter().map(|seat| scope.spawn(|| settled(seat, &all_there))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (seat, (mask, threads, inherited)) in placement.seats.iter().zip(&settled) {
        assert_eq!(usize::try_from(*threads).unwrap(), seat.cores.threads);
        assert_eq!(mask, inherited, "threads of the worker keep to its cores");
        if !seat.cores.cores.is_empty() {
            assert_eq!(BTreeSet::from_iter(mask), BTreeSet::from_iter(&seat.cores.cores));
        }
    }
    if machine.cpu.cores.len() >= 2 {
        assert!(settled[0].0.iter().all(|core| !settled[1].0.contains(core)), "{settled:?}");
    }
    assert_eq!(CpuReport::read().cores, machine.cpu.cores, "pinned threads do not change what the process may use");
}

#[test]
fn workers_with_different_numbers_of_threads_keep_their_own() {
    let all_there = Barrier::new(3);
    std::thread::scope(|scope| {
        for threads in 1..=3 {
            let seat = Seat { device: Device::Cpu, cores: CoreShare { cores: Vec::new(), threads } };
            let all_there = &all_there;
            scope.spawn(move || assert_eq!(settled(&seat, all_there).1, i32::try_from(threads).unwrap()));
        }
    });
}

#[test]
fn a_cuda_seat_is_taken_where_there_is_a_device_and_refused_elsewhere() {
    let seat = Seat { device: Device::Cuda(0), cores: CoreShare { cores: Vec::new(), threads: 1 } };
    if crate::testing::cuda_device().is_some() {
        seat.take().unwrap();
    } else {
        println!("no CUDA device here");
        assert!(matches!(seat.take(), Err(GpuError::Shim { .. })));
    }
    let nowhere = Seat { device: Device::Cuda(1 << 20), ..seat };
    assert!(matches!(nowhere.take(), Err(GpuError::Device { .. })));
}
