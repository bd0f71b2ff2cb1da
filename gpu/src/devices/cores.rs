//! Each rank's share of the CPU's cores, and how its thread keeps to it.
//!
//! Two workers that run on each other's cores wait for each other twice: once for the core and once at the next
//! collective. So every CPU rank is pinned to cores of its own. All ranks get equally many, since a step takes as long as
//! its slowest rank; what is left over serves the node's other threads. Where there are more ranks than cores nobody is
//! pinned, and the kernel shares the cores out evenly.

use std::fmt;

use super::cpu::{CpuReport, Mask};
use super::thread_count;

/// The cores that a rank owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreShare {
    /// Their numbers; none where the rank is not pinned.
    pub cores: Vec<usize>,
    /// Threads that libtorch, and the rank's own code, use inside one operation.
    pub threads: usize,
}

impl fmt::Display for CoreShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        match self.cores.as_slice() {
            [] => write!(f, "{threads} on any core"),
            [core] => write!(f, "{threads} on core {core}"),
            cores => write!(f, "{threads} on cores {}", ranges(cores)),
        }
    }
}

impl CoreShare {
    /// The shares of `ranks` ranks, pinned where that is fair.
    pub(super) fn of(cpu: &CpuReport, ranks: usize) -> Vec<Self> {
        let each = cpu.cores.len() / ranks.max(1);
        let threads = Self::threads_of(cpu, ranks).min(each.max(1));
        let cores = |rank: usize| if each == 0 { &[] } else { &cpu.cores[rank * each..(rank + 1) * each] };
        (0..ranks).map(|rank| Self { cores: cores(rank).to_vec(), threads }).collect()
    }

    /// The share of one of `ranks` ranks whose main work is elsewhere: a number of threads, on any core.
    pub(super) fn floating(cpu: &CpuReport, ranks: usize) -> Self {
        Self { cores: Vec::new(), threads: Self::threads_of(cpu, ranks) }
    }

    fn threads_of(cpu: &CpuReport, ranks: usize) -> usize {
        let fair = (cpu.threads / ranks.max(1)).max(1);
        cpu.threads_per_rank_max.map_or(fair, |max| fair.min(max.max(1)))
    }

    /// Keeps the calling thread, and the threads that it starts from now on, to this share.
    ///
    /// Where the system does not allow pinning, the rank works on any core: that costs time, not correctness.
    pub(super) fn take(&self) {
        if !self.cores.is_empty()
            && let Err(error) = Mask::of(&self.cores).set_here()
        {
            tracing::warn!(%error, cores = %ranges(&self.cores), "the thread can't be pinned to its cores");
        }
        // A thread that has not computed yet would fall back to the process's number at its first parallel operation,
        // whatever was set before; being asked for it counts as having computed.
        let _initialised = tch::get_num_threads();
        tch::set_num_threads(thread_count(self.threads));
    }
}

/// Numbers as people write them: `0-3,8`.
pub(super) fn ranges(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for core in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let run = |&(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}
