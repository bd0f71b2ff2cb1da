//! Everything that can go wrong in this crate, as one enum.

use std::path::PathBuf;
use std::time::Duration;

use psyche_messages::{Backoff, Retry};

use crate::codec::CodecError;
use crate::config::ConfigError;
use crate::snapshot::SnapshotError;

/// Files may become readable, and disks get room again.
const FILES_BACKOFF: Backoff = match Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 200, 50) {
    Ok(backoff) => backoff,
    Err(_) => panic!("the schedule waits and grows"),
};

/// What failed, each a lowercase fragment that completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// A `config.json` that this crate can't use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The codec refused a configuration, a part or a payload.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A snapshot was not saved, or is not used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// libtorch refused an operation.
    #[error("run a tensor operation")]
    Torch(#[from] tch::TchError),
    /// The C++ shim refused an operation.
    #[error("run a tensor operation: {message}")]
    Shim {
        /// What the exception said.
        message: String,
    },
    /// The device's memory does not hold even one sample.
    #[error("fit one sample into the memory of rank {rank}'s device")]
    OutOfMemory {
        /// Rank whose device ran out.
        rank: usize,
    },
    /// Another rank of the node failed for good; this one can't go on without it.
    #[error("work with rank {rank} of the node: {reason}")]
    MeshPoisoned {
        /// Rank that failed first.
        rank: usize,
        /// What it said.
        reason: String,
    },
    /// Another rank gave the current step up; all ranks may rejoin and repeat it.
    #[error("finish the step with rank {rank}: it asked to repeat it")]
    MeshAborted {
        /// Rank that asked.
        rank: usize,
    },
    /// A rank did not arrive at a collective in time.
    #[error("meet ranks {missing:?} of the node within {waited_ms} ms")]
    MeshTimeout {
        /// Ranks that were not there.
        missing: Vec<usize>,
        /// How long was waited.
        waited_ms: u64,
    },
    /// Ranks called different collectives at the same point: a bug of the caller or of this crate.
    #[error("meet the node's other ranks: rank {rank} called another collective than the others")]
    MeshDesynchronised {
        /// Rank that noticed.
        rank: usize,
    },
    /// NCCL is not on this machine, or not one that is known.
    #[error("load NCCL, which more than one CUDA device needs: {problem}; put the folder of libnccl.so.2 on LD_LIBRARY_PATH")]
    NcclMissing {
        /// What the loader said.
        problem: String,
    },
    /// NCCL refused or did not finish an operation.
    #[error("have NCCL {operation}: {message}")]
    Nccl {
        /// What it was asked for.
        operation: &'static str,
        /// Its own words, or how long was waited.
        message: String,
    },
    /// A number of devices that the node or the model can't be split over.
    #[error("lay the model out over the node's devices: {problem}")]
    Layout {
        /// What does not fit, with the numbers.
        problem: String,
    },
    /// A device that this machine or this build does not have.
    #[error("use device {device}: {problem}")]
    Device {
        /// The device as the operator named it.
        device: String,
        /// Why not.
        problem: String,
    },
    /// A driver and devices are there, but libtorch can't use them.
    #[error(
        "use CUDA: libtorch_cuda.so can't be loaded: {reason}; put the libraries of a PyTorch for CUDA into LD_LIBRARY_PATH \
         (docs/OPERATORS.md says how), or set DEVICE=cpu"
    )]
    NoTorchCuda {
        /// What the loader or libtorch said.
        reason: String,
    },
    /// A plan that no rank can carry out.
    #[error("carry out the plan of step {step}: {problem}")]
    Plan {
        /// Step of the plan.
        step: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// An optimiser setting out of its range.
    #[error("configure the optimiser: {problem}")]
    Optimizer {
        /// Setting and range.
        problem: String,
    },
    /// A model that can't go on from the given tokens.
    #[error("generate text: {problem}")]
    Generate {
        /// Why.
        problem: String,
    },
    /// A file that can't be read or written.
    #[error("access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another rank of the node could not do its part of reading or writing files; its own error says why.
    #[error("finish the files of the node: rank {rank} failed")]
    Files {
        /// The rank that failed.
        rank: usize,
    },
    /// A weight file whose content does not fit the model.
    #[error("load weights from {path}: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
}

impl GpuError {
    /// Whether the same call may work later.
    ///
    /// Errors of the mesh say no: the node's ranks must be made anew, after which another call is made.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. } | Self::Files { .. } | Self::Snapshot(SnapshotError::Disk { .. }) => Retry::After(FILES_BACKOFF),
            _ => Retry::Never,
        }
    }

    /// An [`GpuError::Io`] of `path`, for `map_err`.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
