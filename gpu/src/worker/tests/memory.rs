//! Too little memory: pretended, and true.

use std::process::Command;

use super::*;

/// Set in the process that is to run out of memory.
const CHILD: &str = "PSYCHE_TEST_OUT_OF_MEMORY";

#[test]
fn too_little_memory_halves_the_micro_batch_and_repeats_the_step() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let run = |limit: usize| {
        on_loaded_ranks((2, 2), (&config, one_bit()), folder.path(), 8, |rank| {
            // Only one device is that small; its micro-batch becomes everybody's.
            if rank.mesh.rank() == 2 {
                rank.out_of_memory_above = limit;
            }
            let first = trained(rank.train(&plan(0, 12)).unwrap());
            let later = trained(rank.train(&plan(1, 12)).unwrap());
            (first.loss, first.micro_batch_size, later.micro_batch_size)
        })
    };
    let (roomy, tight) = (run(usize::MAX), run(3));
    assert!(roomy.iter().all(|&(_, size, _)| size == 8));
    assert!(tight.iter().all(|&(_, size, remembered)| size == 2 && remembered == 2));
    assert!((roomy[0].0 / tight[0].0 - 1.0).abs() < 1e-5);
}

#[test]
fn memory_for_less_than_one_sample_is_an_error_on_every_rank() {
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((1, 2), (&config, one_bit()), folder.path(), 4, |rank| {
        if rank.mesh.rank() == 1 {
            rank.out_of_memory_above = 0;
        }
        assert!(matches!(rank.train(&plan(0, 4)), Err(GpuError::OutOfMemory { rank: 1 })));
        rank.out_of_memory_above = usize::MAX;
        trained(rank.train(&plan(0, 4)).unwrap());
    });
}

/// The process's address space in KiB.
fn address_space_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn memory_that_the_system_refuses_halves_the_micro_batch_too() {
    const SAMPLES: usize = 8192;
    if std::env::var_os(CHILD).is_none() {
        // The limit counts for the whole process, so that a process of its own runs this test once more.
        let name = "worker::tests::memory::memory_that_the_system_refuses_halves_the_micro_batch_too";
        let this = std::env::current_exe().unwrap();
        let child = Command::new(this).args(["--exact", name, "--test-threads=1", "--nocapture"]).env(CHILD, "1").output();
        let child = child.unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((1, 1), (&config, one_bit()), folder.path(), SAMPLES, |rank| {
        // Whatever is loaded and started lazily should be there before the limit is.
        trained(rank.train(&plan(0, 1)).unwrap());
        let plan = plan(1, SAMPLES);
        let limit = address_space_kib() + (96 << 10);
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--pid={}", std::process::id())).arg(format!("--as={}", limit << 10));
        assert!(limited.status().unwrap().success());
        let size = trained(rank.train(&plan).unwrap()).micro_batch_size;
        assert!((1..SAMPLES).contains(&size), "micro-batches of {size}");
        assert_eq!(rank.micro_batch_size(), size);
    });
}
