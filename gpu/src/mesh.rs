//! The ranks of one node: DP × TP threads, one per device, and how they work together.
//!
//! `rank = data-parallel index × TP + tensor-parallel index`. Ranks are threads of one process, so control values
//! (losses, flags, selections) always travel by [`MeshRank::agree`] and [`MeshRank::exchange`]; tensors inside the
//! autograd graph travel by a [`Collective`], whose implementation for CPU devices is [`SharedMemory`]. Every reduction
//! goes in rank order: results do not depend on timing.
//!
//! A rank that fails, panics or leaves poisons the mesh: every other rank gets a typed error at its present or next
//! collective instead of waiting for ever. A rank that merely needs to repeat a step aborts it; then all ranks rejoin.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tch::Device;

use crate::GpuError;
use meeting::{Breakdown, Meeting};
use nccl::Link;
use topology::Seat;

mod collective;
#[cfg(test)]
mod equality;
pub(crate) mod lanes;
mod meeting;
mod nccl;
mod shared_memory;
#[cfg(test)]
mod tests;
mod topology;

pub(crate) use collective::Element;
pub use collective::{Collective, Reduction};
pub use nccl::Nccl;
pub use shared_memory::SharedMemory;
pub(crate) use shared_memory::Window;
pub use topology::{Group, Topology};

/// Most ranks of one node.
pub const RANKS_MAX: usize = 256;

/// How the ranks of a node work together.
#[derive(Debug, Clone, Copy)]
pub struct MeshOptions {
    /// How long a rank waits for the others at a collective.
    pub wait_max: Duration,
    /// Whether CUDA devices may exchange gradients while they compute others; results are the same either way.
    pub overlap: bool,
}

impl From<Duration> for MeshOptions {
    fn from(wait_max: Duration) -> Self {
        Self { wait_max, overlap: true }
    }
}

struct Shared {
    topology: Topology,
    options: MeshOptions,
    world: Meeting,
    tensor: Vec<Meeting>,
    data: Vec<Meeting>,
    rejoin: Meeting,
    /// Why the mesh broke down for good.
    cause: OnceLock<Breakdown>,
    /// The communicators of all ranks on CUDA devices, so that whoever breaks the mesh down can end them.
    links: Mutex<Vec<Weak<Link>>>,
}

impl Shared {
    fn for_working_meetings(&self, act: impl Fn(&Meeting)) {
        act(&self.world);
        self.tensor.iter().chain(&self.data).for_each(act);
    }

    fn meeting(&self, seat: Seat) -> &Meeting {
        match seat.group {
            Group::World => &self.world,
            Group::Tensor => &self.tensor[seat.number],
            Group::Data => &self.data[seat.number],
        }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Weak<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, link: &Arc<Link>) {
        let mut links = self.links();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// Ends every communicator. The meetings are broken down before, so that whoever waits learns why.
    fn sever(&self) {
        let links: Vec<Arc<Link>> = self.links().iter().filter_map(Weak::upgrade).collect();
        links.iter().for_each(|link| link.sever());
    }

    /// Breaks every meeting down. Whoever calls this later only spreads the first cause.
    fn fail(&self, rank: usize, reason: &str) {
        let failed = || Breakdown::Failed { rank, reason: reason.to_owned() };
        let cause = self.cause.get_or_init(failed);
        self.for_working_meetings(|meeting| meeting.break_down(cause.clone()));
        self.rejoin.break_down(cause.clone());
        self.sever();
    }
}

/// One rank's place in the mesh, owned by its thread. Dropping it poisons the mesh for the ranks that are left.
pub struct MeshRank {
    shared: Arc<Shared>,
    rank: usize,
}

/// Makes the places of all ranks of a node, by rank. A duration alone is how long they wait for each other.
pub fn mesh(topology: Topology, options: impl Into<MeshOptions>) -> Vec<MeshRank> {
    let options = options.into();
    let meeting = |size| Meeting::new(size, options.wait_max);
    let shared = Arc::new(Shared {
        topology,
        options,
        world: meeting(topology.ranks()),
        tensor: (0..topology.data_parallel()).map(|_| meeting(topology.tensor_parallel())).collect(),
        data: (0..topology.tensor_parallel()).map(|_| meeting(topology.data_parallel())).collect(),
        rejoin: meeting(topology.ranks()),
        cause: OnceLock::new(),
        links: Mutex::new(Vec::new()),
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

    /// The collectives of one of this rank's groups, by what carries them between the devices of this node: every rank
    /// calls this with its own device.
    ///
    /// # Errors
    /// Devices that can't work together; NCCL missing or failing; a broken mesh.
    pub fn connect(&self, group: Group, device: Device) -> Result<Box<dyn Collective>, GpuError> {
        match carrier(&self.agree(device)?)? {
            // A group of one has nothing to carry.
            Carrier::Nccl if self.topology().group_size(group) > 1 => {
                let link = Link::connect(self, group, device, (nccl::library()?, self.shared.options.overlap))?;
                Ok(Box::new(Nccl::new(link)))
            }
            _ => Ok(Box::new(self.group(group))),
        }
    }

    /// The collectives of one of this rank's groups, for CPU devices.
    pub fn group(&self, group: Group) -> SharedMemory {
        SharedMemory::new(Arc::clone(&self.shared), self.rank, group)
    }

    /// The group of ranks that share this rank's replica, for CPU devices.
    pub fn tensor_group(&self) -> SharedMemory {
        self.group(Group::Tensor)
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
        self.shared.sever();
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
        })?;
        let own: Vec<Arc<Link>> = shared.links().iter().filter_map(Weak::upgrade).collect();
        own.iter().filter(|link| link.rank() == self.rank).try_for_each(|link| link.establish(self))
    }
}

/// What carries tensors between the devices of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    SharedMemory,
    Nccl,
}

/// Chooses what the devices of a node, by rank, work together by.
fn carrier(devices: &[Device]) -> Result<Carrier, GpuError> {
    let refuse = |problem: String| Err(GpuError::Layout { problem });
    let cuda: Vec<usize> = devices
        .iter()
        .filter_map(|device| match device {
            Device::Cuda(index) => Some(*index),
            _ => None,
        })
        .collect();
    let (all, distinct) = (devices.len(), cuda.iter().collect::<HashSet<_>>().len());
    match (cuda.len(), devices.iter().filter(|device| **device == Device::Cpu).count()) {
        (0, cpu) if cpu == all => Ok(Carrier::SharedMemory),
        (of_all, 0) if of_all == all && distinct == all => Ok(Carrier::Nccl),
        (of_all, 0) if of_all == all => refuse(format!("{all} ranks on {distinct} CUDA devices, each needs its own")),
        _ => refuse(format!("a node's devices must be all of one kind, not {devices:?}")),
    }
}

impl Drop for MeshRank {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "it panicked" } else { "it left the mesh" };
        self.shared.fail(self.rank, reason);
    }
}
