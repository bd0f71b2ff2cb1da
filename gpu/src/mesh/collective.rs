//! The tensor operations that ranks of a group perform together, whatever carries them.

use tch::{Kind, Tensor};

use crate::GpuError;

/// How the elements of all ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum, in f32 whatever the elements are; shared memory adds in rank order.
    Sum,
    /// Their maximum.
    Max,
}

/// Tensor operations among the ranks of a group; every rank of the group must call the same ones in the same order.
///
/// All tensors are contiguous, f32 or bf16, and of equal length and element type on every rank. On a CUDA device an
/// operation is ordered with the others on torch's current stream, and has not necessarily happened when it returns.
///
/// Every operation fails when the mesh is poisoned, aborted or late, when ranks disagree about it, and for a tensor that
/// the implementation can't reach.
pub trait Collective: Send + Sync {
    /// This rank's place in the group.
    fn rank(&self) -> usize;

    /// Number of ranks in the group.
    fn size(&self) -> usize;

    /// Replaces each element of `tensor` by its reduction over the group; all ranks get the same bits.
    ///
    /// # Errors
    /// As the trait says.
    fn all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError>;

    /// Fills `output` with this rank's part of the sum of all `input`s: part `r` of as many equal ones as there are ranks.
    ///
    /// # Shapes
    /// `input`: `size()` times the elements of `output`.
    ///
    /// # Errors
    /// As the trait says.
    fn reduce_scatter(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError>;

    /// Fills `output` with the `input`s of all ranks, one after the other.
    ///
    /// # Shapes
    /// `output`: `size()` times the elements of `input`.
    ///
    /// # Errors
    /// As the trait says.
    fn all_gather(&self, input: &Tensor, output: &mut Tensor) -> Result<(), GpuError>;

    /// Replaces `tensor` by that of the rank at place `root`.
    ///
    /// # Errors
    /// As the trait says; a place that the group does not have.
    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), GpuError>;

    /// Begins what [`Collective::all_reduce`] would do; until [`Collective::finish`] nobody may touch `tensor`.
    ///
    /// The device may compute beside it. Shared memory is worked on by the very cores that compute, so that there is
    /// nothing to win: it does everything at once, as this default does.
    ///
    /// # Errors
    /// As the trait says.
    fn begin_all_reduce(&self, tensor: &mut Tensor, reduction: Reduction) -> Result<(), GpuError> {
        self.all_reduce(tensor, reduction)
    }

    /// Orders what this rank does from now on after the operation that it began last; harmless if there is none.
    ///
    /// # Errors
    /// libtorch's.
    fn finish(&self) -> Result<(), GpuError> {
        Ok(())
    }

    /// Waits until this rank's device has done what it was told, and watches the group meanwhile: without this, a rank
    /// that reads a result could wait for ever for one that is gone.
    ///
    /// # Errors
    /// A poisoned, aborted or late mesh; an error that the device reports.
    fn settle(&self) -> Result<(), GpuError> {
        Ok(())
    }
}

/// The element types that collectives know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    Bf16,
}

impl Element {
    /// The element type of a tensor that a collective may work on.
    ///
    /// # Errors
    /// Others, and tensors with holes.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, GpuError> {
        match tensor.kind() {
            Kind::Float if tensor.is_contiguous() => Ok(Self::F32),
            Kind::BFloat16 if tensor.is_contiguous() => Ok(Self::Bf16),
            kind => {
                let holes = if tensor.is_contiguous() { "" } else { " with holes" };
                let problem = format!("collectives work on contiguous f32 and bf16 tensors, not on {kind:?}{holes}");
                Err(GpuError::Device { device: format!("{:?}", tensor.device()), problem })
            }
        }
    }

    /// Bytes of one.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}
