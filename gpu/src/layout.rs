//! Which rank computes with, and which rank owns, which part of which parameter.
//!
//! Two divisions exist side by side. *Shards*: tensor parallelism splits each parameter by rows or columns over the
//! ranks of a replica, in the manner of Megatron-LM (Shoeybi et al., 2019); they hold the compute copies. *Pieces*: the
//! f32 master weights and the optimiser state lie once on the node, in runs of the codec's blocks of the unsharded
//! tensors, balanced over all ranks (as ZeRO stage 1, Rajbhandari et al., 2020).
//!
//! A rank-1 parameter counts as one row.

use std::ops::Range;

use crate::GpuError;
use crate::codec::{Layout, Part};
use crate::config::LlamaConfig;
use crate::mesh::{RANKS_MAX, Topology};

#[cfg(test)]
mod tests;

/// How tensor parallelism divides a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// Every rank has all of it.
    Replicated,
    /// Consecutive rows: vocabulary or output features.
    Rows,
    /// Consecutive columns: input features.
    Columns,
}

/// A rectangle of an unsharded parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rectangle {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

impl Rectangle {
    /// What two rectangles have in common, if anything.
    fn intersection(&self, other: &Self) -> Option<Self> {
        let meet = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        let common = Self { rows: meet(&self.rows, &other.rows), columns: meet(&self.columns, &other.columns) };
        (!common.rows.is_empty() && !common.columns.is_empty()).then_some(common)
    }

    fn width(&self) -> usize {
        self.columns.len()
    }

    /// Offset of element (`row`, `column`) of the parameter in a row-major copy of this rectangle.
    fn offset(&self, row: usize, column: usize) -> usize {
        (row - self.rows.start) * self.width() + (column - self.columns.start)
    }
}

/// Blocks of one parameter that one rank owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which blocks.
    pub(crate) part: Part,
    /// Elements of the owner's flat buffers that hold them, row-major.
    pub(crate) at: Range<usize>,
}

/// Where a rectangle lies in a row-major buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its first element.
    pub(crate) start: usize,
    /// From one of its rows to the next.
    pub(crate) stride: usize,
}

/// A rectangle that is part of both a piece and a shard: what its owner and its user exchange.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// Rows of the rectangle.
    pub(crate) rows: usize,
    /// Columns of the rectangle.
    pub(crate) columns: usize,
    /// Where it lies in the owner's flat buffer.
    pub(crate) in_piece: Place,
    /// Where it lies in the shard.
    pub(crate) in_shard: Place,
}

/// The whole node's division of a model.
#[derive(Debug)]
pub(crate) struct NodeLayout {
    pub(crate) topology: Topology,
    /// Canonical order, chunks and payload of the parameters.
    pub(crate) codec: Layout,
    splits: Vec<Split>,
    /// By rank.
    pieces: Vec<Vec<Piece>>,
}

impl NodeLayout {
    /// Divides a model whose parameters `codec` lays out.
    ///
    /// # Errors
    /// [`GpuError::Layout`] if the tensor parallelism does not divide heads, feed-forward width and vocabulary.
    pub(crate) fn new(config: &LlamaConfig, codec: Layout, topology: Topology) -> Result<Self, GpuError> {
        check_divisible(config, topology.tensor_parallel())?;
        let splits = codec.parameters().iter().map(|parameter| split_of(&parameter.spec().name)).collect();
        let pieces = codec.split(topology.ranks()).into_iter().map(in_flat_buffer).collect();
        Ok(Self { topology, codec, splits, pieces })
    }

    /// What `rank` owns, in canonical order.
    pub(crate) fn pieces(&self, rank: usize) -> &[Piece] {
        &self.pieces[rank]
    }

    /// The rectangle of `parameter` that ranks with this tensor-parallel index compute with.
    pub(crate) fn shard(&self, parameter: usize, tensor_index: usize) -> Rectangle {
        let size = self.topology.tensor_parallel();
        let part = |n: usize| n * tensor_index / size..n * (tensor_index + 1) / size;
        let geometry = self.codec.parameters()[parameter].geometry();
        let (rows, columns) = (geometry.rows(), geometry.width());
        match self.splits[parameter] {
            Split::Replicated => Rectangle { rows: 0..rows, columns: 0..columns },
            Split::Rows => Rectangle { rows: part(rows), columns: 0..columns },
            Split::Columns => Rectangle { rows: 0..rows, columns: part(columns) },
        }
    }

    /// Shape of that rectangle as a tensor.
    pub(crate) fn shard_shape(&self, parameter: usize, tensor_index: usize) -> Vec<i64> {
        let shard = self.shard(parameter, tensor_index);
        let rank_one = self.codec.parameters()[parameter].spec().shape.len() == 1;
        let dimensions = if rank_one { vec![shard.width()] } else { vec![shard.rows.len(), shard.width()] };
        dimensions.into_iter().map(|n| n as i64).collect()
    }

    /// Tensor-parallel indices of the ranks whose gradients make up the gradient of `parameter`.
    ///
    /// What is replicated has the same gradient on every rank of a replica, so that the first one's is enough.
    pub(crate) fn gradient_sources(&self, parameter: usize) -> Range<usize> {
        match self.splits[parameter] {
            Split::Replicated => 0..1,
            Split::Rows | Split::Columns => 0..self.topology.tensor_parallel(),
        }
    }

    /// What `piece` and the shard of its parameter at `tensor_index` have in common.
    pub(crate) fn overlap(&self, piece: &Piece, tensor_index: usize) -> Option<Overlap> {
        let parameter = piece.part.parameter();
        let shard = self.shard(parameter, tensor_index);
        let owned = Rectangle { rows: piece.part.rows(), columns: 0..self.codec.parameters()[parameter].geometry().width() };
        let common = owned.intersection(&shard)?;
        let (row, column) = (common.rows.start, common.columns.start);
        Some(Overlap {
            rows: common.rows.len(),
            columns: common.width(),
            in_piece: Place { start: piece.at.start + owned.offset(row, column), stride: owned.width() },
            in_shard: Place { start: shard.offset(row, column), stride: shard.width() },
        })
    }
}

fn in_flat_buffer(parts: Vec<Part>) -> Vec<Piece> {
    let mut end = 0;
    let place = |part: Part| {
        let start = end;
        end += part.elements().len();
        Piece { part, at: start..end }
    };
    parts.into_iter().map(place).collect()
}

fn split_of(name: &str) -> Split {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends(&["o_proj.weight", "down_proj.weight"]) {
        Split::Columns
    } else if ends(&["_proj.weight", "embed_tokens.weight", "lm_head.weight"]) {
        Split::Rows
    } else {
        Split::Replicated
    }
}

/// Whether a model can be split over `tensor_parallel` devices, before any weights are loaded.
///
/// # Errors
/// [`GpuError::Layout`] with what it does not divide.
pub fn check_divisible(config: &LlamaConfig, tensor_parallel: usize) -> Result<(), GpuError> {
    let sizes = [
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
        ("intermediate_size", config.intermediate_size),
        ("vocab_size", config.vocab_size),
    ];
    let odd: Vec<String> = sizes
        .iter()
        .filter(|(_, size)| !size.is_multiple_of(tensor_parallel))
        .map(|(name, size)| format!("{name} {size}"))
        .collect();
    if odd.is_empty() {
        return Ok(());
    }
    let possible = (1..=RANKS_MAX).filter(|ranks| sizes.iter().all(|(_, size)| size.is_multiple_of(*ranks)));
    let possible: Vec<String> = possible.map(|ranks| ranks.to_string()).collect();
    Err(GpuError::Layout {
        problem: format!(
            "tensor parallelism {tensor_parallel} does not divide {}; TENSOR_PARALLELISM may be one of {}",
            odd.join(", "),
            possible.join(", ")
        ),
    })
}
