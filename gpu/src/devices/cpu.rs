//! What the CPU offers this process: the cores that its affinity mask leaves, how many of them a quota lets it use at once,
//! and memory, all within the limits of the container.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// CPUs that a mask can name.
const CPUS_MAX: usize = 8192;
const WORD_BITS: usize = 64;

/// An affinity mask as the kernel reads and writes it: bit `n` is CPU `n`.
pub(super) struct Mask([u64; CPUS_MAX / WORD_BITS]);

impl Mask {
    /// The mask of these CPUs.
    pub(super) fn of(cores: &[usize]) -> Self {
        let mut mask = Self([0; CPUS_MAX / WORD_BITS]);
        for &core in cores.iter().filter(|&&core| core < CPUS_MAX) {
            mask.0[core / WORD_BITS] |= 1 << (core % WORD_BITS);
        }
        mask
    }

    /// The CPUs of this mask, ascending.
    pub(super) fn cores(&self) -> Vec<usize> {
        (0..CPUS_MAX).filter(|core| self.0[core / WORD_BITS] & (1 << (core % WORD_BITS)) != 0).collect()
    }

    /// The mask of a thread; 0 is the caller's, the process's id that of its first thread.
    pub(super) fn of_thread(thread: libc::pid_t) -> Option<Self> {
        let mut mask = Self::of(&[]);
        // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
        let code = unsafe { libc::sched_getaffinity(thread, size_of_val(&mask.0), mask.0.as_mut_ptr().cast()) };
        (code == 0).then_some(mask)
    }

    /// Makes this the mask of the calling thread, and of the threads that it starts from now on.
    pub(super) fn set_here(&self) -> std::io::Result<()> {
        // SAFETY: the kernel reads the given number of bytes, which is the array's size.
        let code = unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), self.0.as_ptr().cast()) };
        if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// The CPU as this process may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CpuReport {
    /// Numbers of the logical CPUs in the process's affinity mask, those of one physical core next to each other.
    pub cores: Vec<usize>,
    /// How many threads can run at once: the number of cores, or less under a quota.
    pub threads: usize,
    /// Most threads of one rank, where `OMP_NUM_THREADS` says it.
    pub threads_per_rank_max: Option<usize>,
    /// Memory of the machine or of the container, whichever is less, in bytes; 0 if the system does not say.
    pub memory_bytes: u64,
    /// Of it, what is free or can be made so at once.
    pub memory_free_bytes: u64,
}

impl fmt::Display for CpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.cores.len();
        write!(f, "{count} {}", if count == 1 { "core" } else { "cores" })?;
        if self.threads < count {
            write!(f, ", of which a quota allows {} at once", self.threads)?;
        }
        write!(f, ", {} memory, {} free", super::cuda::gib(self.memory_bytes), super::cuda::gib(self.memory_free_bytes))
    }
}

impl CpuReport {
    /// What this process may use. Threads that were pinned to their share do not change it.
    #[must_use]
    pub fn read() -> Self {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        // The first thread's mask: ours may be that of one rank.
        let first = libc::pid_t::try_from(std::process::id()).ok().and_then(Mask::of_thread);
        let mask = first.map(|mask| mask.cores()).filter(|cores| !cores.is_empty());
        let cores = mask.unwrap_or_else(|| (0..available).collect());
        let quota = quota_of(&read("/sys/fs/cgroup/cpu.max")).or_else(|| {
            let part = |name: &str| read(&format!("/sys/fs/cgroup/cpu/cpu.cfs_{name}_us"));
            quota_of(&format!("{} {}", part("quota").trim(), part("period").trim()))
        });
        let threads = quota.map_or(cores.len(), |quota| quota.clamp(1, cores.len()));
        let per_rank = std::env::var("OMP_NUM_THREADS").ok().and_then(|text| first_number(&text));
        let (memory_bytes, memory_free_bytes) = memory_of(&read("/proc/meminfo"), limit());
        let cores = siblings_together(cores, place_of);
        Self { cores, threads, threads_per_rank_max: per_rank, memory_bytes, memory_free_bytes }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// The first of OpenMP's numbers of threads, one per level of nesting.
pub(super) fn first_number(text: &str) -> Option<usize> {
    text.split(',').next()?.trim().parse().ok().filter(|&threads| threads > 0)
}

/// Whole CPUs of a quota, from "quota period" in microseconds; none for "max" or a negative one.
pub(super) fn quota_of(text: &str) -> Option<usize> {
    let mut numbers = text.split_whitespace();
    let (quota, period) = (numbers.next()?.parse::<u64>().ok()?, numbers.next()?.parse::<u64>().ok()?);
    usize::try_from(quota.checked_div(period)?).ok().map(|cpus| cpus.max(1))
}

/// Package and physical core of a logical CPU.
fn place_of(core: usize) -> Option<(u64, u64)> {
    let number = |name: &str| read(&format!("/sys/devices/system/cpu/cpu{core}/topology/{name}")).trim().parse().ok();
    Some((number("physical_package_id")?, number("core_id")?))
}

/// Orders logical CPUs so that a consecutive run of them shares as few packages and physical cores with others as can be.
pub(super) fn siblings_together(mut cores: Vec<usize>, place: impl Fn(usize) -> Option<(u64, u64)>) -> Vec<usize> {
    cores.sort_by_cached_key(|&core| (place(core).unwrap_or((u64::MAX, u64::MAX)), core));
    cores
}

/// A container's limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    /// What the container uses and can't give back at once.
    pub(super) used: u64,
}

fn limit() -> Option<Limit> {
    let of = |max: &str, used: &str, folder: &str, stat: &str| {
        limit_of(
            &read(&format!("{folder}/{max}")),
            &read(&format!("{folder}/{used}")),
            &read(&format!("{folder}/memory.stat")),
            stat,
        )
    };
    of("memory.max", "memory.current", "/sys/fs/cgroup", "inactive_file")
        .or_else(|| of("memory.limit_in_bytes", "memory.usage_in_bytes", "/sys/fs/cgroup/memory", "total_inactive_file"))
}

/// From the texts of a control group's files; none where there is no limit.
pub(super) fn limit_of(max: &str, used: &str, stat: &str, reclaimable: &str) -> Option<Limit> {
    let bytes = max.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let cached = stat.lines().find_map(|line| line.strip_prefix(reclaimable)?.trim().parse::<u64>().ok());
    Some(Limit { bytes, used: used.saturating_sub(cached.unwrap_or(0)) })
}

/// Total and free bytes, from the text of /proc/meminfo and the container's limit.
pub(super) fn memory_of(meminfo: &str, limit: Option<Limit>) -> (u64, u64) {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
    };
    let (total, free) = (field("MemTotal"), field("MemAvailable"));
    match limit {
        Some(limit) => (total.min(limit.bytes), free.min(limit.bytes.saturating_sub(limit.used))),
        None => (total, free),
    }
}
