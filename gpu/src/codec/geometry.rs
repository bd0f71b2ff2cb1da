//! How a row-major tensor falls into chunks.
//!
//! The last two dimensions are cut into `h × w` chunks, `h` and `w` the largest divisors of those dimensions that do
//! not exceed the configured edge; leading dimensions only repeat. A rank-1 tensor counts as one element row. A *chunk
//! row* is the slab of `h` element rows in which chunks lie side by side: it is contiguous in memory.

use super::CodecError;

/// The largest chunk edge, that of a run's configuration: indices inside a chunk stay within u32, and sums of the exact
/// apply within 2^53.
pub const MAX_CHUNK: usize = u16::MAX as usize;
/// The largest edge of small chunks, whose bases are matrices and whose indices stay within u16. Vector loops and the
/// kernels of CUDA devices are for them alone.
pub const MAX_SMALL_EDGE: usize = 256;

/// How one tensor falls into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    rows: usize,
    width: usize,
    chunk_height: usize,
    chunk_width: usize,
}

impl Geometry {
    /// Cuts a tensor of `shape` into chunks with edges of at most `chunk`.
    ///
    /// # Errors
    /// An empty shape, a dimension of length 0, an edge outside `1..=MAX_CHUNK`, an element count beyond usize.
    pub fn new(shape: &[usize], chunk: usize) -> Result<Self, CodecError> {
        if !(1..=MAX_CHUNK).contains(&chunk) {
            return Err(CodecError::ChunkEdge { chunk, max: MAX_CHUNK });
        }
        let empty = || CodecError::EmptyShape { shape: shape.to_vec() };
        let (&width, leading) = shape.split_last().ok_or_else(empty)?;
        if shape.contains(&0) {
            return Err(empty());
        }
        let too_large = || CodecError::TooLarge { name: format!("of shape {shape:?}") };
        let rows = leading.iter().try_fold(1_usize, |product, &d| product.checked_mul(d)).ok_or_else(too_large)?;
        rows.checked_mul(width).and_then(|elements| elements.checked_mul(4)).ok_or_else(too_large)?;
        let height = leading.last().copied().unwrap_or(1);
        Ok(Self { rows, width, chunk_height: largest_divisor(height, chunk), chunk_width: largest_divisor(width, chunk) })
    }

    /// Height of a chunk in element rows; 1 for rank-1 tensors.
    pub fn chunk_height(&self) -> usize {
        self.chunk_height
    }

    /// Width of a chunk in elements.
    pub fn chunk_width(&self) -> usize {
        self.chunk_width
    }

    /// Coefficients per chunk; at most `MAX_CHUNK²`.
    pub fn chunk_len(&self) -> usize {
        self.chunk_height * self.chunk_width
    }

    /// Whether an edge is above [`MAX_SMALL_EDGE`].
    pub fn is_large(&self) -> bool {
        self.chunk_height.max(self.chunk_width) > MAX_SMALL_EDGE
    }

    /// Where a chunk of whole chunk rows begins among their elements.
    pub(crate) fn corner(&self, chunk: usize) -> usize {
        chunk / self.chunks_per_row() * self.slab_len() + chunk % self.chunks_per_row() * self.chunk_width
    }

    /// Elements per element row: the tensor's last dimension.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Element rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of the tensor.
    pub fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Chunks side by side in one chunk row.
    pub fn chunks_per_row(&self) -> usize {
        self.width / self.chunk_width
    }

    /// Chunk rows of the tensor, leading dimensions included.
    pub fn chunk_rows(&self) -> usize {
        self.rows / self.chunk_height
    }

    /// Chunks of the tensor; chunk `c` is number `c % chunks_per_row` in chunk row `c / chunks_per_row`.
    pub fn chunks(&self) -> usize {
        self.chunk_rows() * self.chunks_per_row()
    }

    /// Elements of one chunk row.
    pub fn slab_len(&self) -> usize {
        self.chunk_height * self.width
    }

    /// Copies chunk number `column` of one chunk row, `slab`: `[chunk_height, width]`, to `chunk`:
    /// `[chunk_height, chunk_width]`.
    pub fn gather(&self, slab: &[f32], column: usize, chunk: &mut [f32]) {
        let start = column * self.chunk_width;
        for (from, to) in slab.chunks_exact(self.width).zip(chunk.chunks_exact_mut(self.chunk_width)) {
            to.copy_from_slice(&from[start..start + self.chunk_width]);
        }
    }

    /// The reverse of [`Self::gather`].
    pub fn scatter(&self, chunk: &[f32], column: usize, slab: &mut [f32]) {
        let start = column * self.chunk_width;
        for (to, from) in slab.chunks_exact_mut(self.width).zip(chunk.chunks_exact(self.chunk_width)) {
            to[start..start + self.chunk_width].copy_from_slice(from);
        }
    }
}

fn largest_divisor(length: usize, at_most: usize) -> usize {
    (1..=at_most.min(length)).rev().find(|candidate| length.is_multiple_of(*candidate)).unwrap_or(1)
}
