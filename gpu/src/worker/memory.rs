//! Steps that are repeated with smaller micro-batches until the device's memory suffices.

use super::Rank;
use crate::GpuError;

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
            let rank = match attempt(self) {
                Ok(result) => return Ok(result),
                Err(GpuError::OutOfMemory { rank }) => {
                    self.mesh.abort();
                    rank
                }
                Err(GpuError::MeshAborted { rank }) => rank,
                Err(error) => return Err(self.broken(error)),
            };
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
