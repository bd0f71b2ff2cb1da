//! The optimiser's inner loops on a CUDA device: look-ahead, momentum, transform, selection, exact apply, digests.
//!
//! Weights and momentum stay on the device. What is chosen comes to the host, which makes the payload; senders' votes are
//! counted on the host and go to the device as sparse lists; of the weights only 32 bytes per block come back.
//!
//! # What is equal to the CPU's
//! Everything, bit for bit, on processors with fused multiply-add, because every sum has one order and is fused where the
//! CPU's is: look-ahead, momentum, coefficients, index sets, weights, digests. Processors without it may round
//! coefficients otherwise; the apply and the digest are equal there, too.
//!
//! The kernels are `kernels/*.cu`, compiled by NVRTC for the device at hand. Tests run the same sources on the CPU.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::GpuError;
use crate::codec::{CodecError, Layout, ParameterLayout, Part, Selection, Threads, ValidPayload, check_selection};
use crate::digest::{BLOCK_KEY_CONTEXT, BlockDigest, block_header};
use crate::exact::{Votes, integer_basis};

mod arguments;
mod compile;
mod engine;
#[cfg(test)]
mod tests;

use engine::{Engine, Size, address};

/// Most bytes of scratch memory that one kernel is given; more of its blocks then take turns.
const SCRATCH_MAX: usize = 256 << 20;
/// Chunks whose votes go to the device at a time, which bounds the memory for them.
const CHUNKS_AT_A_TIME: usize = 1 << 16;
/// Bytes of one leaf of BLAKE3's tree.
const LEAF_BYTES: usize = 1024;

/// Coefficients chosen from a part's chunks, as [`Selection`], on the device.
#[derive(Debug)]
pub struct DeviceSelection {
    /// `[chunks, k]`, 16-bit patterns of the indices.
    indices: Tensor,
    /// `[chunks, k]` f32.
    values: Tensor,
}

impl DeviceSelection {
    /// A copy on the host.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn fetch(&self) -> Result<Selection, GpuError> {
        let indices: Vec<i16> = self.indices.f_to_device(Device::Cpu)?.f_view(-1)?.try_into()?;
        let values: Vec<f32> = self.values.f_to_device(Device::Cpu)?.f_view(-1)?.try_into()?;
        Ok(Selection { indices: indices.into_iter().map(|index| u32::from(index.cast_unsigned())).collect(), values })
    }
}

/// A gradient on its way into the momentum: `momentum = decay · momentum + rate · gradient`.
#[derive(Debug, Clone, Copy)]
pub struct Intake<'a> {
    /// The part's elements.
    pub gradient: &'a Tensor,
    /// Share of the momentum that survives.
    pub decay: f32,
    /// Factor of the gradient.
    pub rate: f32,
}

/// One basis in both forms, `[n, n]`.
struct Basis {
    floats: Tensor,
    integers: Tensor,
}

/// The kernels of one device. Tensors that its methods take lie there, are f32 and contiguous.
///
/// Calls queue work on libtorch's stream and return before it is done, unless they return something for the host.
pub struct Kernels {
    engine: Engine,
    bases: HashMap<usize, Basis>,
}

impl Kernels {
    /// Loads the kernels for a CUDA device. They are compiled unless the folder `cache` has them from an earlier start.
    ///
    /// # Errors
    /// [`GpuError::Device`] for a device that is not CUDA or not there, or without NVRTC.
    pub fn load(device: Device, cache: Option<&Path>) -> Result<Self, GpuError> {
        let Device::Cuda(index) = device else {
            let problem = "kernels are for CUDA devices".to_owned();
            return Err(GpuError::Device { device: format!("{device:?}"), problem });
        };
        Ok(Self { engine: Engine::cuda(index, cache)?, bases: HashMap::new() })
    }

    /// The kernels on the CPU, with the threads of a block in either order.
    #[cfg(test)]
    pub(crate) fn on_host(descending: bool) -> Self {
        Self { engine: Engine::Host { descending }, bases: HashMap::new() }
    }

    /// Whether a part's chunks are small, so that the kernels take them. Large ones, with an edge above
    /// [`MAX_SMALL_EDGE`](crate::codec::MAX_SMALL_EDGE), are the host's.
    pub fn take(layout: &Layout, part: &Part) -> bool {
        layout.parameters().get(part.parameter()).is_some_and(|parameter| !parameter.geometry().is_large())
    }

    /// `ahead = master − rate · sign(momentum)`.
    ///
    /// # Errors
    /// Tensors of other lengths or elsewhere; what the driver says.
    pub fn look_ahead(&self, master: &Tensor, momentum: &Tensor, rate: f32, ahead: &Tensor) -> Result<(), GpuError> {
        let len = master.numel();
        let [master, momentum, ahead] = self.addresses([master, momentum, ahead], len)?;
        let arguments = arguments::LookAhead { master, momentum, ahead, len: len as u64, rate, padding: 0 };
        // SAFETY: three tensors of `len` elements on this device.
        unsafe { self.engine.launch("psyche_look_ahead", self.elementwise(len), &arguments) }
    }

    /// `weights = factor · weights`: the weight decay where there is nothing to apply.
    ///
    /// # Errors
    /// A tensor elsewhere; what the driver says.
    pub fn scale(&self, weights: &Tensor, factor: f32) -> Result<(), GpuError> {
        let len = weights.numel();
        let [values] = self.addresses([weights], len)?;
        let arguments = arguments::Scale { values, len: len as u64, factor, padding: 0 };
        // SAFETY: a tensor of `len` elements on this device.
        unsafe { self.engine.launch("psyche_scale", self.elementwise(len), &arguments) }
    }

    /// Brings a part's momentum up to date and keeps the top-k coefficients of its chunks' transforms, in one pass: first
    /// what was `sent` leaves the momentum, then the gradient comes in.
    ///
    /// # Shapes
    /// `momentum`: the part's elements; `sent`: of the same part.
    ///
    /// # Errors
    /// A part of another layout, tensors of other lengths or elsewhere; what the driver and libtorch say.
    pub fn compress(
        &mut self,
        layout: &Layout,
        part: &Part,
        momentum: &Tensor,
        intake: Option<Intake<'_>>,
        sent: Option<&DeviceSelection>,
    ) -> Result<DeviceSelection, GpuError> {
        let parameter = layout.parameter_of(part, momentum.numel())?;
        self.check_small(parameter)?;
        let (geometry, k) = (*parameter.geometry(), parameter.k());
        let (h, w) = (geometry.chunk_height(), geometry.chunk_width());
        let [basis_height, basis_width] = [h, w].map(|n| self.basis(n).map(|basis| address(&basis.floats)));
        let chosen = self.selection(part.chunks().len(), k)?;
        let len = momentum.numel();
        let gradient = intake.map(|intake| self.addresses([intake.gradient], len)).transpose()?;
        if let Some(sent) = sent.filter(|sent| sent.values.size() != chosen.values.size()) {
            let (expected, actual) = (chosen.values.numel(), sent.values.numel());
            return Err(CodecError::BufferLength { unit: "coefficients", expected, actual }.into());
        }
        let registers = (h, w) == (64, 64);
        let scratch_each = if registers { 0 } else { 8 * geometry.chunk_len() };
        let size = self.per_chunk(part.chunks().len(), if registers { 64 } else { 256 }, scratch_each);
        let scratch = self.empty(size.blocks as usize * scratch_each / 4, Kind::Float)?;
        let arguments = arguments::Compress {
            momentum: self.addresses([momentum], len)?[0],
            gradient: gradient.map_or(0, |[address]| address),
            basis_height: basis_height?,
            basis_width: basis_width?,
            sent_indices: sent.map_or(0, |sent| address(&sent.indices)),
            sent_values: sent.map_or(0, |sent| address(&sent.values)),
            indices: address(&chosen.indices),
            values: address(&chosen.values),
            scratch: address(&scratch),
            chunks: part.chunks().len() as u64,
            width: geometry.width() as u64,
            height_of_chunk: h as u32,
            width_of_chunk: w as u32,
            chunks_per_row: geometry.chunks_per_row() as u32,
            k: k as u32,
            decay: intake.map_or(0.0, |intake| intake.decay),
            rate: intake.map_or(0.0, |intake| intake.rate),
        };
        let name = if registers { "psyche_compress_64" } else { "psyche_compress" };
        // SAFETY: momentum, gradient and selections have the part's lengths, the bases are `[h, h]` and `[w, w]`, the
        // scratch memory is enough for every block; libtorch reuses freed memory only in the order of its stream.
        unsafe { self.engine.launch(name, size, &arguments)? };
        Ok(chosen)
    }

    /// Applies payloads to a part of the weights: `w ← factor · w` unless the factor is 1, then the exact update.
    ///
    /// # Shapes
    /// `weights`: the part's elements.
    ///
    /// # Errors
    /// A part or payload of another layout, a tensor of another length or elsewhere; what driver and libtorch say.
    pub fn apply(
        &mut self,
        layout: &Layout,
        part: &Part,
        payloads: &[ValidPayload<'_>],
        weights: &Tensor,
        (lr, factor): (f32, f32),
        threads: Threads,
    ) -> Result<(), GpuError> {
        let parameter = layout.parameter_of(part, weights.numel())?;
        self.check_small(parameter)?;
        if payloads.is_empty() {
            return if factor == 1.0 { Ok(()) } else { self.scale(weights, factor) };
        }
        let geometry = *parameter.geometry();
        let (h, w) = (geometry.chunk_height(), geometry.chunk_width());
        let [basis_height, basis_width] = [h, w].map(|n| self.basis(n).map(|basis| address(&basis.integers)));
        let (basis_height, basis_width) = (basis_height?, basis_width?);
        let [first] = self.addresses([weights], weights.numel())?;
        let blocks_at_a_time = (CHUNKS_AT_A_TIME / parameter.block_chunks()).max(1);
        for block in part.blocks().step_by(blocks_at_a_time) {
            let piece = layout.part(part.parameter(), block..(block + blocks_at_a_time).min(part.blocks().end))?;
            let votes = Votes::count(layout, &piece, payloads, threads)?;
            let chunks = piece.chunks().len();
            let scratch_each = if h * w > 4096 { 4 * h * w } else { 0 };
            let size = self.per_chunk(chunks, 128, scratch_each);
            let scratch = self.empty(size.blocks as usize * scratch_each / 4, Kind::Int)?;
            let starts = self.upload(bytemuck::cast_slice::<u64, i64>(&votes.starts))?;
            let indices = self.upload(bytemuck::cast_slice::<u16, i16>(&votes.indices))?;
            let means = self.upload(&votes.means)?;
            let arguments = arguments::Apply {
                weights: first + 4 * (piece.elements().start - part.elements().start) as u64,
                starts: address(&starts),
                indices: address(&indices),
                means: address(&means),
                basis_height,
                basis_width,
                scratch: address(&scratch),
                chunks: chunks as u64,
                width: geometry.width() as u64,
                height_of_chunk: h as u32,
                width_of_chunk: w as u32,
                chunks_per_row: geometry.chunks_per_row() as u32,
                factor,
                rate: lr,
                padding: 0,
            };
            // SAFETY: the weights are the part's, of which this piece is a part; the votes are a list per chunk with
            // indices inside it; bases and scratch memory as the kernel wants them.
            unsafe { self.engine.launch("psyche_apply", size, &arguments)? };
        }
        Ok(())
    }

    /// Digests a part's blocks, as [`crate::digest::block_digests`] does.
    ///
    /// # Shapes
    /// `rows`: the part's elements.
    ///
    /// # Errors
    /// A part of another layout, a tensor of another length or elsewhere; what driver and libtorch say.
    pub fn block_digests(&self, layout: &Layout, part: &Part, rows: &Tensor) -> Result<Vec<BlockDigest>, GpuError> {
        let parameter = layout.parameter_of(part, rows.numel())?;
        let header = block_header(parameter.spec());
        let message_max = header.len() + 8 + 4 * parameter.block_elements().min(rows.numel());
        let (blocks, leaves_max) = (part.blocks().len(), message_max.div_ceil(LEAF_BYTES));
        let key = blake3::hazmat::hash_derive_key_context(BLOCK_KEY_CONTEXT);
        let device_header = self.upload(&header)?;
        let chaining = self.empty(blocks * 2 * leaves_max * 8, Kind::Int)?;
        let digests = self.empty(blocks * 8, Kind::Int)?;
        let arguments = arguments::Digest {
            elements: self.addresses([rows], rows.numel())?[0],
            header: address(&device_header),
            chaining: address(&chaining),
            digests: address(&digests),
            blocks: blocks as u64,
            first_block: part.blocks().start as u64,
            block_elements: parameter.block_elements() as u64,
            len: rows.numel() as u64,
            header_len: header.len() as u32,
            leaves_max: leaves_max as u32,
            key: std::array::from_fn(|i| u32::from_le_bytes([0, 1, 2, 3].map(|byte| key[4 * i + byte]))),
        };
        // SAFETY: the rows are the part's elements; both lists have room for every leaf and every block.
        unsafe {
            self.engine.launch("psyche_digest_leaves", self.elementwise(blocks * leaves_max), &arguments)?;
            self.engine.launch("psyche_digest_trees", self.per_chunk(blocks, 128, 0), &arguments)?;
        }
        let words: Vec<i32> = digests.f_to_device(Device::Cpu)?.try_into()?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Ok(bytes.as_chunks::<32>().0.to_vec())
    }

    /// Puts a selection of a part on the device, as one that a snapshot brought back.
    ///
    /// # Errors
    /// A selection of another part; what libtorch says.
    pub fn put_selection(&self, layout: &Layout, part: &Part, selection: &Selection) -> Result<DeviceSelection, GpuError> {
        let parameter = layout.known(part)?;
        self.check_small(parameter)?;
        check_selection(parameter, part, selection)?;
        let shape = [part.chunks().len() as i64, parameter.k() as i64];
        // Indices of small chunks stay within 16 bits.
        let indices: Vec<i16> = selection.indices.iter().map(|&index| (index as u16).cast_signed()).collect();
        let indices = self.upload(&indices)?.f_view(shape)?;
        let values = self.upload(&selection.values)?.f_view(shape)?;
        Ok(DeviceSelection { indices, values })
    }

    fn check_small(&self, parameter: &ParameterLayout) -> Result<(), GpuError> {
        if !parameter.geometry().is_large() {
            return Ok(());
        }
        let problem = format!("the kernels don't take the large chunks of {}", parameter.spec().name);
        Err(GpuError::Device { device: format!("{:?}", self.engine.device()), problem })
    }

    /// Addresses of tensors that must be here, f32, contiguous and of one length.
    fn addresses<const N: usize>(&self, tensors: [&Tensor; N], len: usize) -> Result<[u64; N], GpuError> {
        for tensor in tensors {
            let here = tensor.device() == self.engine.device() && tensor.kind() == Kind::Float && tensor.is_contiguous();
            if !here {
                let problem = "a tensor lies elsewhere, is not f32 or not contiguous".to_owned();
                return Err(GpuError::Device { device: format!("{:?}", self.engine.device()), problem });
            }
            if tensor.numel() != len {
                let (expected, actual) = (len, tensor.numel());
                return Err(CodecError::BufferLength { unit: "elements", expected, actual }.into());
            }
        }
        Ok(tensors.map(address))
    }

    fn basis(&mut self, n: usize) -> Result<&Basis, GpuError> {
        if !self.bases.contains_key(&n) {
            let floats: Vec<f32> = crate::codec::dct_basis(n).into_iter().map(|value| value as f32).collect();
            let basis = Basis { floats: self.upload(&floats)?, integers: self.upload(&integer_basis(n))? };
            self.bases.insert(n, basis);
        }
        self.bases.get(&n).ok_or_else(|| device_error(0, "a basis is missing"))
    }

    fn selection(&self, chunks: usize, k: usize) -> Result<DeviceSelection, GpuError> {
        let shape = [chunks as i64, k as i64];
        let make = |kind| Tensor::f_empty(shape, (kind, self.engine.device()));
        Ok(DeviceSelection { indices: make(Kind::Int16)?, values: make(Kind::Float)? })
    }

    fn empty(&self, len: usize, kind: Kind) -> Result<Tensor, GpuError> {
        Ok(Tensor::f_empty([len as i64], (kind, self.engine.device()))?)
    }

    fn upload<T: tch::kind::Element>(&self, values: &[T]) -> Result<Tensor, GpuError> {
        Ok(Tensor::f_from_slice(values)?.f_to_device(self.engine.device())?)
    }

    fn elementwise(&self, len: usize) -> Size {
        let threads = 256;
        Size { blocks: blocks(len.div_ceil(threads), self.engine.blocks_max()), threads: threads as u32 }
    }

    /// A block per chunk, or fewer where scratch memory or the device has no room for so many.
    fn per_chunk(&self, chunks: usize, threads: u32, scratch_each: usize) -> Size {
        let room = SCRATCH_MAX.checked_div(scratch_each).map_or(u32::MAX, |room| u32::try_from(room).unwrap_or(u32::MAX));
        Size { blocks: blocks(chunks, self.engine.blocks_max().min(room)), threads }
    }
}

fn blocks(wanted: usize, at_most: u32) -> u32 {
    u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, at_most.max(1))
}

/// What is wrong with CUDA device `index`.
fn device_error(index: usize, problem: &str) -> GpuError {
    GpuError::Device { device: format!("cuda:{index}"), problem: problem.to_owned() }
}
