//! Whether a node's ranks fit into the memory of the devices that they were given.

use tch::Device;

use super::RankMemory;
use crate::GpuError;
use crate::devices::{Machine, Seat, gib};

/// Of a CUDA device, what the driver's context and the kernels of libtorch take before any tensor is made, in bytes.
const CUDA_CONTEXT: u64 = 768 << 20;

/// Memory that some of the ranks share.
struct Pool {
    name: String,
    total: u64,
    free: u64,
    /// The sum over these ranks.
    needs: RankMemory,
    /// Bytes beside: copies for a snapshot, which lie in the host's memory.
    beside: u64,
}

/// Compares what the ranks need (by rank) with the memory of their seats: what does not fit into what is free now is told
/// in words, with the largest micro-batch that does. The host's memory also takes the copies of a snapshot.
///
/// # Errors
/// [`GpuError::Layout`] if a device could not hold its ranks with one sample at a time even if all of it were free.
pub fn check_fit(
    needs: &[RankMemory],
    seats: &[Seat],
    machine: &Machine,
    micro_batch_size: usize,
) -> Result<Vec<String>, GpuError> {
    let mut warnings = Vec::new();
    for pool in pools(needs, seats, machine) {
        let Pool { name, total, free, needs, beside } = pool;
        let least = needs.training(1).saturating_add(beside);
        if least > total {
            let problem = format!(
                "the model needs {} on {name} with one sample at a time, which has {}; raise TENSOR_PARALLELISM, or use larger \
                 devices",
                gib(least),
                gib(total)
            );
            return Err(GpuError::Layout { problem });
        }
        let wanted = needs.training(micro_batch_size).saturating_add(beside);
        if wanted > free {
            let remedy = match needs.largest_micro_batch(free.saturating_sub(beside)) {
                Some(largest) => format!("MICRO_BATCH_SIZE={largest} would fit"),
                None => "not even one sample fits".to_owned(),
            };
            let (wanted, free) = (gib(wanted), gib(free));
            warnings.push(format!(
                "micro-batches of {micro_batch_size} need about {wanted} on {name}, where {free} are free: {remedy} \
                 (ACTIVATION_CHECKPOINTING and TENSOR_PARALLELISM save memory)"
            ));
        }
    }
    warnings.extend(host_without_room(needs, seats, machine));
    Ok(warnings)
}

/// The largest micro-batch that fits into what is free now on every device; none if not even one sample does, or nobody knows
/// how much memory there is.
#[must_use]
pub fn largest_micro_batch(needs: &[RankMemory], seats: &[Seat], machine: &Machine) -> Option<usize> {
    let pools = pools(needs, seats, machine);
    let largest = |pool: &Pool| pool.needs.largest_micro_batch(pool.free.saturating_sub(pool.beside)).unwrap_or(0);
    pools.iter().map(largest).min().filter(|&samples| samples > 0)
}

/// A warning where all ranks compute on CUDA devices and the host has no room for the copies of a snapshot.
fn host_without_room(needs: &[RankMemory], seats: &[Seat], machine: &Machine) -> Option<String> {
    let copies = needs.iter().map(RankMemory::snapshot_copy).sum();
    let free = machine.cpu.memory_free_bytes;
    let scarce = machine.cpu.memory_bytes > 0 && seats.iter().all(Seat::is_cuda) && copies > free;
    scarce.then(|| {
        let (copies, free) = (gib(copies), gib(free));
        format!(
            "a snapshot is copied to the host's memory before it is written and needs {copies} there, where {free} are free"
        )
    })
}

/// The CPU's memory with all ranks on it, and each CUDA device's with its rank; what nobody knows the size of is left out.
fn pools(needs: &[RankMemory], seats: &[Seat], machine: &Machine) -> Vec<Pool> {
    let ranks = || seats.iter().zip(needs);
    let on_cpu = ranks().filter(|(seat, _)| !seat.is_cuda()).map(|(_, needs)| *needs).reduce(RankMemory::plus);
    let cpu = on_cpu.filter(|_| machine.cpu.memory_bytes > 0).map(|needs| Pool {
        name: "the CPU".to_owned(),
        total: machine.cpu.memory_bytes,
        free: machine.cpu.memory_free_bytes,
        beside: needs.snapshot_copy(),
        needs,
    });
    let cuda = ranks().filter_map(|(seat, needs)| {
        let Device::Cuda(index) = seat.device else { return None };
        let device = machine.cuda.devices().iter().find(|device| device.index == index)?;
        let free = device.memory_free_bytes.unwrap_or(device.memory_bytes).saturating_sub(CUDA_CONTEXT);
        Some(Pool { name: seat.to_string(), total: device.memory_bytes, free, needs: *needs, beside: 0 })
    });
    cpu.into_iter().chain(cuda).collect()
}

impl RankMemory {
    /// What two ranks need together.
    fn plus(self, other: Self) -> Self {
        Self {
            compute_copies: self.compute_copies + other.compute_copies,
            rotary_tables: self.rotary_tables + other.rotary_tables,
            gradient_sums: self.gradient_sums + other.gradient_sums,
            master: self.master + other.master,
            momentum: self.momentum + other.momentum,
            scratch: self.scratch + other.scratch,
            sent: self.sent + other.sent,
            temporaries: self.temporaries + other.temporaries,
            per_sample: self.per_sample + other.per_sample,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;
    use crate::devices::{CudaDevice, CudaReport, DeviceSpec, Driver};
    use crate::mesh::Topology;

    const GIB: u64 = 1 << 30;

    /// 4 GiB all the time, half of it the optimiser's, and 1 GiB a sample.
    fn needs() -> RankMemory {
        RankMemory {
            compute_copies: GIB,
            rotary_tables: 0,
            gradient_sums: GIB,
            master: GIB,
            momentum: GIB / 2,
            scratch: GIB / 2,
            sent: 0,
            temporaries: 0,
            per_sample: GIB,
        }
    }

    fn machine(cpu: (u64, u64), cuda: (u64, u64)) -> Machine {
        let mut machine = Machine::look();
        (machine.cpu.memory_bytes, machine.cpu.memory_free_bytes) = (cpu.0 * GIB, cpu.1 * GIB);
        let device = |index| CudaDevice {
            index,
            name: "Card".to_owned(),
            memory_bytes: cuda.0 * GIB,
            memory_free_bytes: Some(cuda.1 * GIB),
            compute_capability: (9, 0),
            peers: Vec::new(),
        };
        let driver = Driver { release: None, cuda: (13, 0) };
        Machine { cuda: CudaReport::Devices(driver, vec![device(0), device(1)]), ..machine }
    }

    fn check(device: &str, machine: &Machine, micro_batch_size: usize) -> Result<Vec<String>, GpuError> {
        let spec: DeviceSpec = device.parse().unwrap();
        let placement = spec.place(Topology::new(2, 1).unwrap(), machine, || Ok(())).unwrap();
        check_fit(&[needs(), needs()], &placement.seats, machine, micro_batch_size)
    }

    #[test]
    fn ranks_on_the_cpu_share_its_memory() {
        let machine = machine((27, 23), (0, 0));
        assert!(check("cpu", &machine, 6).unwrap().is_empty());
        let seats =
            "cpu".parse::<DeviceSpec>().unwrap().place(Topology::new(2, 1).unwrap(), &machine, || Ok(())).unwrap().seats;
        assert_eq!(largest_micro_batch(&[needs(), needs()], &seats, &machine), Some(6));
        let warnings = check("cpu", &machine, 7).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in ["micro-batches of 7", "25.0 GiB", "23.0 GiB are free", "MICRO_BATCH_SIZE=6"] {
            assert!(warnings[0].contains(part), "{part} in {warnings:?}");
        }
    }

    #[test]
    fn each_rank_on_a_cuda_device_has_that_devices_memory() {
        let machine = machine((4, 3), (80, 10));
        assert!(check("cuda", &machine, 5).unwrap().is_empty());
        let warnings = check("cuda", &machine, 6).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].contains("cuda:1") && warnings[1].contains("MICRO_BATCH_SIZE=5"), "{warnings:?}");
    }

    #[test]
    fn copies_for_snapshots_lie_in_the_hosts_memory_whatever_the_device() {
        let warnings = check("cuda", &machine((4, 2), (80, 80)), 1).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("needs 3.0 GiB there, where 2.0 GiB are free"), "{warnings:?}");
    }

    #[test]
    fn what_is_used_by_others_is_warned_of_and_what_can_never_fit_is_refused() {
        let busy = check("cpu", &machine((16, 1), (0, 0)), 1).unwrap();
        assert!(busy[0].contains("not even one sample fits"), "{busy:?}");
        for (device, machine) in [("cpu", machine((12, 12), (0, 0))), ("cuda", machine((64, 64), (4, 4)))] {
            let error = check(device, &machine, 1).unwrap_err();
            assert!(matches!(&error, GpuError::Layout { problem } if problem.contains("TENSOR_PARALLELISM")), "{error}");
        }
        assert!(check("cuda", &machine((64, 64), (5, 5)), 1).is_ok());
    }
}
