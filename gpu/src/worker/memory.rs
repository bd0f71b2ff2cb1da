//! Steps that are repeated with smaller micro-batches until the device's memory suffices.

use super::Rank;
use crate::{GpuError, shim};

impl Rank {
    /// Repeats `attempt` with ever smaller micro-batches until no rank runs out of memory.
    ///
    /// Other errors end the mesh.
    pub(super) fn within_memory<R>(
        &mut self,
        step: u64,
        attempt: impl Fn(&mut Self) -> Result<R, GpuError>,
    ) -> Result<R, GpuError> {
        loop {
            let device = self.model.device();
            let before = shim::out_of_memory_count(device)?;
            let error = match attempt(self) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            // libtorch's errors are only text, so its allocators are asked what they have refused.
            let ran_out = shim::out_of_memory_count(device)? > before;
            let rank = match error {
                GpuError::MeshAborted { rank } => rank,
                GpuError::OutOfMemory { rank } => rank,
                _ if ran_out => self.mesh.rank(),
                error => return Err(self.broken(error)),
            };
            if rank == self.mesh.rank() {
                self.mesh.abort();
            }
            shim::release_cached_memory(device)?;
            self.mesh.rejoin()?;
            if self.micro_batch_size == 1 {
                return Err(GpuError::OutOfMemory { rank });
            }
            self.micro_batch_size /= 2;
            let micro_batch_size = self.micro_batch_size;
            tracing::warn!(step, rank, micro_batch_size, "halved the micro-batch for lack of memory");
        }
    }
}
