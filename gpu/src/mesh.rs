//! The ranks of one node: DP × TP threads, one per device, and how they work together.
//!
//! `rank = data-parallel index × TP + tensor-parallel index`. Ranks are threads of one process, so control values
//! (losses, flags, selections) always travel by [`MeshRank::agree`] and [`MeshRank::exchange`]; tensors inside the
//! autograd graph travel by a [`Collective`], whose implementation for CPU devices is [`SharedMemory`]. Every reduction
//! goes in rank order: results do not depend on timing.
//!
//! A rank that fails, panics or leaves poisons the mesh: every other rank gets a typed error at its present or next
//! collective instead of waiting for ever. A rank that merely needs to repeat a step aborts it; then all ranks rejoin.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use crate::GpuError;
use meeting::{Breakdown, Meeting};

mod meeting;
#[cfg(test)]
mod tests;

/// Most ranks of one node.
pub const RANKS_MAX: usize = 256;

/// How a node's devices divide the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    data_parallel: usize,
    tensor_parallel: usize,
}

impl Topology {
    /// `data_parallel` replicas of the model, each split over `tensor_parallel` devices.
    ///
    /// # Errors
    /// [`GpuError::Layout`] if a factor is 0 or the product exceeds [`RANKS_MAX`].
    pub fn new(data_parallel: usize, tensor_parallel: usize) -> Result<Self, GpuError> {
        let ranks = data_parallel.checked_mul(tensor_parallel).filter(|ranks| (1..=RANKS_MAX).contains(ranks));
        match ranks {
            Some(_) => Ok(Self { data_parallel, tensor_parallel }),
            None => Err(GpuError::Layout {
                problem: format!(
                    "data parallelism {data_parallel} × tensor parallelism {tensor_parallel} is not in 1..={RANKS_MAX} devices"
                ),
            }),
        }
    }

    /// Number of replicas of the model.
    pub fn data_parallel(&self) -> usize {
        self.data_parallel
    }

    /// Number of devices that share one replica.
    pub fn tensor_parallel(&self) -> usize {
        self.tensor_parallel
    }

    /// Number of devices.
    pub fn ranks(&self) -> usize {
        self.data_parallel * self.tensor_parallel
    }

    /// Which replica `rank` belongs to.
    pub fn data_index(&self, rank: usize) -> usize {
        rank / self.tensor_parallel
    }

    /// Which part of its replica `rank` holds.
    pub fn tensor_index(&self, rank: usize) -> usize {
        rank % self.tensor_parallel
    }
}

/// How the elements of all ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum, added in rank order.
    Sum,
    /// Their maximum.
    Max,
}

/// Tensor operations among the ranks of a group; every rank of the group must call the same ones in the same order.
pub trait Collective: Send + Sync {
    /// This rank's place in the group.
    fn rank(&self) -> usize;

    /// Number of ranks in the group.
    fn size(&self) -> usize;

    /// Replaces each element of `tensor` (contiguous f32 or bf16, of equal length on every rank) by its reduction over the group.
    ///
    /// # Errors
    /// A poisoned, aborted or late mesh; tensors of different lengths; a tensor that the implementation can't reach.
    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError>;
}

struct Shared {
    topology: Topology,
    world: Meeting,
    tensor: Vec<Meeting>,
    rejoin: Meeting,
    /// Why the mesh broke down for good.
    cause: OnceLock<Breakdown>,
}

impl Shared {
    fn for_working_meetings(&self, act: impl Fn(&Meeting)) {
        act(&self.world);
        self.tensor.iter().for_each(act);
    }

    /// Breaks every meeting down. Whoever calls this later only spreads the first cause.
    fn fail(&self, rank: usize, reason: &str) {
        let failed = || Breakdown::Failed { rank, reason: reason.to_owned() };
        let cause = self.cause.get_or_init(failed);
        self.for_working_meetings(|meeting| meeting.break_down(cause.clone()));
        self.rejoin.break_down(cause.clone());
    }
}

/// One rank's place in the mesh, owned by its thread. Dropping it poisons the mesh for the ranks that are left.
pub struct MeshRank {
    shared: Arc<Shared>,
    rank: usize,
}

/// Makes the places of all ranks of a node, by rank; each waits at most `wait_max` for the others at a collective.
pub fn mesh(topology: Topology, wait_max: Duration) -> Vec<MeshRank> {
    let meeting = |size| Meeting::new(size, wait_max);
    let shared = Arc::new(Shared {
        topology,
        world: meeting(topology.ranks()),
        tensor: (0..topology.data_parallel).map(|_| meeting(topology.tensor_parallel)).collect(),
        rejoin: meeting(topology.ranks()),
        cause: OnceLock::new(),
    });
    (0..topology.ranks()).map(|rank| MeshRank { shared: Arc::clone(&shared), rank }).collect()
}

impl MeshRank {
    /// This rank's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The node's layout.
    pub fn topology(&self) -> Topology {
        self.shared.topology
    }

    /// Which replica of the model this rank works on.
    pub fn data_index(&self) -> usize {
        self.shared.topology.data_index(self.rank)
    }

    /// Which part of its replica this rank holds.
    pub fn tensor_index(&self) -> usize {
        self.shared.topology.tensor_index(self.rank)
    }

    /// The group of ranks that share this rank's replica, for CPU devices.
    pub fn tensor_group(&self) -> SharedMemory {
        SharedMemory { shared: Arc::clone(&self.shared), rank: self.rank }
    }

    /// Lends `mine` to all ranks and hands `read` what every rank lends, by rank. `read` should only copy or compute.
    ///
    /// # Errors
    /// A poisoned, aborted, late or desynchronised mesh; then `read` did not run.
    pub fn exchange<T: Sync + 'static, R>(&self, mine: &T, read: impl FnOnce(&[&T]) -> R) -> Result<R, GpuError> {
        self.shared.world.exchange(self.rank, mine, read)
    }

    /// The values of all ranks, by rank.
    ///
    /// # Errors
    /// As [`MeshRank::exchange`].
    pub fn agree<T: Copy + Sync + 'static>(&self, mine: T) -> Result<Vec<T>, GpuError> {
        self.exchange(&mine, |all| all.iter().map(|&&value| value).collect())
    }

    /// The values of the ranks that share this rank's replica, by tensor-parallel index.
    ///
    /// # Errors
    /// As [`MeshRank::exchange`].
    pub fn agree_in_tensor_group<T: Copy + Sync + 'static>(&self, mine: T) -> Result<Vec<T>, GpuError> {
        let meeting = &self.shared.tensor[self.data_index()];
        meeting.exchange(self.tensor_index(), &mine, |all| all.iter().map(|&&value| value).collect())
    }

    /// Poisons the mesh: every rank's present or next collective fails with `reason`.
    pub fn fail(&self, reason: &str) {
        self.shared.fail(self.rank, reason);
    }

    /// Ends every rank's present or next collective with [`GpuError::MeshAborted`]; all ranks must then rejoin.
    pub fn abort(&self) {
        self.shared.for_working_meetings(|meeting| meeting.break_down(Breakdown::Aborted { rank: self.rank }));
    }

    /// Waits until all ranks have left the aborted step, then makes collectives work again.
    ///
    /// # Errors
    /// A poisoned or late mesh.
    pub fn rejoin(&self) -> Result<(), GpuError> {
        let shared = &self.shared;
        shared.rejoin.exchange(self.rank, &(), |_| {
            // All ranks are in here, so that none is inside another meeting; one resets for all.
            if self.rank == 0 {
                shared.for_working_meetings(Meeting::reset_after_abort);
            }
        })
    }
}

impl Drop for MeshRank {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "it panicked" } else { "it left the mesh" };
        self.shared.fail(self.rank, reason);
    }
}

/// The collectives of one tensor-parallel group of CPU devices: threads that reduce each other's memory in place.
pub struct SharedMemory {
    shared: Arc<Shared>,
    rank: usize,
}

/// The elements of one tensor, lent to the group for one collective.
pub(crate) struct Window {
    pub(crate) pointer: *mut f32,
    pub(crate) len: usize,
}

// SAFETY: a window is only dereferenced inside an exchange, while its owner waits, and writers keep to disjoint ranges.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Lends a contiguous f32 CPU tensor; anything else is refused.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, GpuError> {
        if tensor.device() != Device::Cpu || tensor.kind() != Kind::Float || !tensor.is_contiguous() {
            return Err(GpuError::Device {
                device: format!("{:?}", tensor.device()),
                problem: format!("shared memory reaches contiguous f32 tensors on the CPU only, not {:?}", tensor.kind()),
            });
        }
        Ok(Self { pointer: tensor.data_ptr().cast(), len: tensor.numel() })
    }
}

impl Collective for SharedMemory {
    fn rank(&self) -> usize {
        self.shared.topology.tensor_index(self.rank)
    }

    fn size(&self) -> usize {
        self.shared.topology.tensor_parallel()
    }

    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        if self.size() == 1 {
            return Ok(());
        }
        if tensor.kind() == Kind::BFloat16 {
            let mut exact = tensor.f_to_kind(Kind::Float)?;
            self.all_reduce(&mut exact, reduction)?;
            return Ok(drop(tensor.f_copy_(&exact)?));
        }
        let mine = Window::of(tensor)?;
        let meeting = &self.shared.tensor[self.shared.topology.data_index(self.rank)];
        let agreed = meeting.exchange(self.rank(), &(mine, reduction), |all| {
            let same = all.iter().all(|(window, other)| window.len == all[0].0.len && *other == reduction);
            if same {
                reduce_own_share(self.rank(), all, reduction);
            }
            same
        })?;
        if agreed { Ok(()) } else { Err(GpuError::MeshDesynchronised { rank: self.rank }) }
    }
}

/// Reduces this rank's share of the elements in rank order and writes the result into every rank's tensor.
fn reduce_own_share(rank: usize, windows: &[&(Window, Reduction)], reduction: Reduction) {
    const BLOCK: usize = 1024;
    let len = windows[0].0.len;
    let (mut from, end) = (len * rank / windows.len(), len * (rank + 1) / windows.len());
    let mut sum = [0.0_f32; BLOCK];
    while from < end {
        let n = BLOCK.min(end - from);
        for (index, (window, _)) in windows.iter().enumerate() {
            // SAFETY: `from..from + n` lies inside every window (all have `len` elements) and inside this rank's share,
            // which no other rank touches; owners keep the memory alive until the exchange ends.
            let part = unsafe { std::slice::from_raw_parts(window.pointer.add(from), n) };
            let pairs = sum[..n].iter_mut().zip(part);
            match (index, reduction) {
                (0, _) => pairs.for_each(|(sum, part)| *sum = *part),
                (_, Reduction::Sum) => pairs.for_each(|(sum, part)| *sum += *part),
                (_, Reduction::Max) => pairs.for_each(|(sum, part)| *sum = sum.max(*part)),
            }
        }
        for (window, _) in windows {
            // SAFETY: as above; the shared slice of this range made above is no longer in use.
            unsafe { std::slice::from_raw_parts_mut(window.pointer.add(from), n) }.copy_from_slice(&sum[..n]);
        }
        from += n;
    }
}
