//! How a node's ranks are numbered and grouped.

use super::RANKS_MAX;
use crate::GpuError;

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

    /// Where `rank` sits in its group of this kind.
    pub(crate) fn seat(&self, group: Group, rank: usize) -> Seat {
        let (number, place) = match group {
            Group::World => (0, rank),
            Group::Tensor => (self.data_index(rank), self.tensor_index(rank)),
            Group::Data => (self.tensor_index(rank), self.data_index(rank)),
        };
        Seat { group, number, place, size: self.group_size(group) }
    }

    /// Ranks of one group of this kind.
    pub(crate) fn group_size(&self, group: Group) -> usize {
        match group {
            Group::World => self.ranks(),
            Group::Tensor => self.tensor_parallel,
            Group::Data => self.data_parallel,
        }
    }
}

/// Which ranks a collective is among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// All of the node.
    World,
    /// Those that share one replica of the model.
    Tensor,
    /// Those that hold the same part of each replica.
    Data,
}

/// One rank's place in one of its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) group: Group,
    /// Which of the groups of this kind.
    pub(crate) number: usize,
    /// Which of its members.
    pub(crate) place: usize,
    /// Its number of members.
    pub(crate) size: usize,
}
