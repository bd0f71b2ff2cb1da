//! Looking at the model that a rank trains.

use tch::{Kind, Tensor};

use super::Rank;
use super::plan::check_inputs;
use crate::{GpuError, transfer};

impl Rank {
    /// Logits after every token of `inputs`, with the weights as applied so far: by sample, position and token.
    ///
    /// For comparisons and for looking at a model: the only place where logits are whole. Collective; every rank gets all.
    ///
    /// # Errors
    /// As [`Rank::evaluate`].
    pub fn logits(&mut self, step: u64, inputs: &[Vec<u32>]) -> Result<Vec<f32>, GpuError> {
        check_inputs(step, inputs, (self.sequence_len, self.config.vocab_size))?;
        self.gathered_logits(inputs).map_err(|error| self.broken(error))
    }

    fn gathered_logits(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<f32>, GpuError> {
        transfer::spread(&self.mesh, &self.layout, self.optimizer.master().view(), self.model.parameters())?;
        let width = inputs.first().map_or(0, Vec::len);
        let tokens: Vec<i64> = inputs.iter().flatten().map(|&token| i64::from(token)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_view([inputs.len() as i64, width as i64])?;
        let slice = self.model.logits(&tokens.f_to_device(self.model.device())?)?;
        let slice = slice.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let columns = slice.size().last().map_or(1, |&size| size.max(1) as usize);
        let mut own = vec![0.0_f32; slice.numel()];
        slice.f_copy_data(&mut own, slice.numel())?;
        let replica = self.mesh.rank() - self.mesh.tensor_index();
        let slices = replica..replica + self.mesh.topology().tensor_parallel();
        self.mesh.exchange(&own, |all| {
            let rows = 0..own.len() / columns;
            rows.flat_map(|row| all[slices.clone()].iter().flat_map(move |slice| &slice[row * columns..(row + 1) * columns]))
                .copied()
                .collect()
        })
    }
}
