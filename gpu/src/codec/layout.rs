//! Where every chunk of a model lies: in its tensor, in the payload, and with which owner.
//!
//! The unit in which tensors are split is the *block*: as few consecutive chunk rows of one parameter as hold at least
//! [`BLOCK_CHUNKS`] chunks (the last block of a parameter may hold fewer). A block is contiguous in the tensor and whole
//! bytes in the payload, so that owners encode, apply and digest their blocks independently.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::subset::SubsetCode;
use super::{CodecError, Geometry, Transform};
use crate::config::ParameterSpec;

/// Fewest chunks of a block that is not the last: padding to whole bytes then costs less than a bit per chunk.
pub const BLOCK_CHUNKS: usize = 8;

/// What a payload carries per coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// One sign bit: −1 where the coefficient is negative, +1 otherwise.
    OneBit,
    /// The value as bf16, rounded to nearest even and clamped to the largest finite one.
    Bf16,
}

impl Quantization {
    /// First byte of every payload.
    pub(super) fn format_byte(self) -> u8 {
        match self {
            Self::OneBit => 1,
            Self::Bf16 => 2,
        }
    }

    pub(super) fn bits(self) -> usize {
        match self {
            Self::OneBit => 1,
            Self::Bf16 => 16,
        }
    }
}

/// Whole blocks of one parameter; made by [`Layout::part`], valid in that layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    parameter: usize,
    blocks: Range<usize>,
    chunk_rows: Range<usize>,
    chunks: Range<usize>,
    rows: Range<usize>,
    elements: Range<usize>,
    bytes: Range<usize>,
}

impl Part {
    /// Index of the parameter in the layout.
    pub fn parameter(&self) -> usize {
        self.parameter
    }

    /// Blocks of the parameter.
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    /// Chunk rows of the parameter.
    pub fn chunk_rows(&self) -> Range<usize> {
        self.chunk_rows.clone()
    }

    /// Chunks of the parameter, numbered along its chunk rows.
    pub fn chunks(&self) -> Range<usize> {
        self.chunks.clone()
    }

    /// Element rows of the tensor seen as `[product of leading dimensions, last dimension]`.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Elements of the flat row-major tensor.
    pub fn elements(&self) -> Range<usize> {
        self.elements.clone()
    }

    /// Bytes of the whole payload.
    pub fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }
}

/// One parameter's place in the layout.
#[derive(Debug, Clone)]
pub struct ParameterLayout {
    spec: ParameterSpec,
    geometry: Geometry,
    k: usize,
    chunk_rows_per_block: usize,
    payload: Range<usize>,
    transform: Transform,
    pub(super) code: Arc<SubsetCode>,
    chunk_bits: usize,
}

impl ParameterLayout {
    /// Name and shape.
    pub fn spec(&self) -> &ParameterSpec {
        &self.spec
    }

    /// How the tensor falls into chunks.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Coefficients sent per chunk: the configured top-k, at most the chunk's length.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The transform of this parameter's chunks.
    pub fn transform(&self) -> &Transform {
        &self.transform
    }

    /// Blocks of the parameter.
    pub fn blocks(&self) -> usize {
        self.geometry.chunk_rows().div_ceil(self.chunk_rows_per_block)
    }

    /// Elements of every block but the last, which may be shorter.
    pub fn block_elements(&self) -> usize {
        self.chunk_rows_per_block * self.geometry.slab_len()
    }

    /// Bytes of the whole payload.
    pub(super) fn payload(&self) -> Range<usize> {
        self.payload.clone()
    }

    /// Bits of one chunk in the payload.
    pub(super) fn chunk_bits(&self) -> usize {
        self.chunk_bits
    }

    /// Chunks of every block but the last, which may hold fewer.
    pub(crate) fn block_chunks(&self) -> usize {
        self.chunk_rows_per_block * self.geometry.chunks_per_row()
    }

    /// Bytes of every block but the last.
    pub(super) fn block_bytes(&self) -> usize {
        (self.block_chunks() * self.chunk_bits).div_ceil(8)
    }
}

/// The layout of a whole model: which chunks exist, what a payload looks like.
#[derive(Debug, Clone)]
pub struct Layout {
    parameters: Vec<ParameterLayout>,
    quantization: Quantization,
    payload_len: usize,
}

impl Layout {
    /// Lays out `specs`, whose order is the payload's order, for chunks with edges of at most `chunk` and the `topk`
    /// largest coefficients of each.
    ///
    /// # Errors
    /// A shape without elements, an edge outside `1..=MAX_CHUNK`, a top-k of 0, a name used twice, sizes that overflow.
    pub fn new(specs: &[ParameterSpec], chunk: usize, topk: usize, quantize_1bit: bool) -> Result<Self, CodecError> {
        if topk == 0 {
            return Err(CodecError::ZeroTopK);
        }
        let quantization = if quantize_1bit { Quantization::OneBit } else { Quantization::Bf16 };
        let mut layout = Self { parameters: Vec::with_capacity(specs.len()), quantization, payload_len: 1 };
        let (mut names, mut transforms, mut codes) = (HashSet::new(), HashMap::new(), HashMap::new());
        for spec in specs {
            if !names.insert(&spec.name) {
                return Err(CodecError::DuplicateParameter { name: spec.name.clone() });
            }
            let geometry = Geometry::new(&spec.shape, chunk)?;
            let (height, width) = (geometry.chunk_height(), geometry.chunk_width());
            let (n, k) = (geometry.chunk_len(), topk.min(geometry.chunk_len()));
            let transform = transforms.entry((height, width)).or_insert_with(|| Transform::new(height, width)).clone();
            let code = Arc::clone(codes.entry((n, k)).or_insert_with(|| Arc::new(SubsetCode::new(n, k))));
            layout.push(spec, geometry, (k, transform, code))?;
        }
        Ok(layout)
    }

    fn push(
        &mut self,
        spec: &ParameterSpec,
        geometry: Geometry,
        (k, transform, code): (usize, Transform, Arc<SubsetCode>),
    ) -> Result<(), CodecError> {
        let chunk_bits = code.bits() + k * self.quantization.bits();
        let too_large = || CodecError::TooLarge { name: spec.name.clone() };
        geometry.chunks().checked_mul(chunk_bits).ok_or_else(too_large)?;
        let chunk_rows_per_block = BLOCK_CHUNKS.div_ceil(geometry.chunks_per_row()).min(geometry.chunk_rows());
        let mut parameter = ParameterLayout {
            spec: spec.clone(),
            geometry,
            k,
            chunk_rows_per_block,
            payload: 0..0,
            transform,
            code,
            chunk_bits,
        };
        let full = geometry.chunk_rows() / chunk_rows_per_block;
        let rest = geometry.chunks() - full * parameter.block_chunks();
        let bytes = full.checked_mul(parameter.block_bytes()).ok_or_else(too_large)?;
        let end = bytes.checked_add((rest * chunk_bits).div_ceil(8)).and_then(|b| b.checked_add(self.payload_len));
        parameter.payload = self.payload_len..end.ok_or_else(too_large)?;
        self.payload_len = parameter.payload.end;
        self.parameters.push(parameter);
        Ok(())
    }

    /// The parameters, in payload order.
    pub fn parameters(&self) -> &[ParameterLayout] {
        &self.parameters
    }

    /// What is sent per coefficient.
    pub fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// Length of every payload of this layout, in bytes.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Blocks `blocks` of parameter number `parameter`.
    ///
    /// # Errors
    /// No such parameter, no such blocks, or an empty range.
    pub fn part(&self, parameter: usize, blocks: Range<usize>) -> Result<Part, CodecError> {
        let outside = CodecError::OutsideLayout { parameter, start: blocks.start, end: blocks.end };
        let layout = self.parameters.get(parameter).ok_or_else(|| outside.clone())?;
        if blocks.is_empty() || blocks.end > layout.blocks() {
            return Err(outside);
        }
        let geometry = &layout.geometry;
        let last = blocks.end == layout.blocks();
        let end = (blocks.end * layout.chunk_rows_per_block).min(geometry.chunk_rows());
        let chunk_rows = blocks.start * layout.chunk_rows_per_block..end;
        let scaled = |by: usize| chunk_rows.start * by..chunk_rows.end * by;
        let byte = |block: usize| layout.payload.start + block * layout.block_bytes();
        Ok(Part {
            parameter,
            chunks: scaled(geometry.chunks_per_row()),
            rows: scaled(geometry.chunk_height()),
            elements: scaled(geometry.slab_len()),
            bytes: byte(blocks.start)..if last { layout.payload.end } else { byte(blocks.end) },
            chunk_rows,
            blocks,
        })
    }

    /// All of parameter number `parameter`.
    ///
    /// # Errors
    /// No such parameter.
    pub fn whole(&self, parameter: usize) -> Result<Part, CodecError> {
        let blocks = self.parameters.get(parameter).map_or(0, ParameterLayout::blocks);
        self.part(parameter, 0..blocks)
    }

    /// Splits the model among `owners`: every block has exactly one, each owner's blocks are consecutive in payload
    /// order, and owners hold about equally many elements. Owner `o`'s parts are at index `o`.
    pub fn split(&self, owners: usize) -> Vec<Vec<Part>> {
        let mut parts = vec![Vec::new(); owners.max(1)];
        let total: u128 = self.parameters.iter().map(|p| p.geometry.elements() as u128).sum();
        let mut before = 0_u128;
        for (index, parameter) in self.parameters.iter().enumerate() {
            let owner_of = |block: usize| {
                let start = before + (block * parameter.block_elements()) as u128;
                (start * parts.len() as u128 / total.max(1)) as usize
            };
            let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
            for block in 0..parameter.blocks() {
                match runs.last_mut() {
                    Some((owner, run)) if *owner == owner_of(block) => run.end = block + 1,
                    _ => runs.push((owner_of(block), block..block + 1)),
                }
            }
            for (owner, run) in runs {
                parts[owner].extend(self.part(index, run));
            }
            before += parameter.geometry.elements() as u128;
        }
        parts
    }
}
