//! Digests of parameters: what nodes compare after every apply.
//!
//! BLAKE3 in its key-derivation mode, with a context string per level; integers are u64 little-endian:
//! - *block*: name length, name, rank, each dimension, block index, then the block's elements as f32 little-endian.
//! - *parameter*: name length, name, rank, each dimension, number of blocks, then the block digests in order.
//! - *model*: number of parameters, then for each, ascending by the bytes of its name: name length, name, digest.
//!
//! Blocks are those of the run's [`Layout`] (they follow from shape and chunk edge), so owners of parts digest what
//! they hold and whoever combines needs 32 bytes per block, whatever the layout of devices.

use blake3::Hasher;

use crate::codec::{CodecError, Layout, Part, Threads, parallel::scoped};
use crate::config::ParameterSpec;

#[cfg(test)]
mod tests;

pub(crate) const BLOCK_KEY_CONTEXT: &str = "psyche-solana-client v1 parameter block digest";
const PARAMETER_CONTEXT: &str = "psyche-solana-client v1 parameter digest";
const MODEL_CONTEXT: &str = "psyche-solana-client v1 model digest";

/// The digest of one block.
pub type BlockDigest = [u8; 32];

/// The digest of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterDigest {
    /// The parameter's name.
    pub name: String,
    /// Over name, shape and elements.
    pub digest: [u8; 32],
}

/// Digests a part's blocks, one digest each.
///
/// # Shapes
/// `rows`: the part's elements.
///
/// # Errors
/// A part of another layout, a buffer of another length.
pub fn block_digests(layout: &Layout, part: &Part, rows: &[f32], threads: Threads) -> Result<Vec<BlockDigest>, CodecError> {
    let parameter = layout.parameter_of(part, rows.len())?;
    let mut digests = vec![[0; 32]; part.blocks().len()];
    let share = threads.share(digests.len());
    let rows = rows.chunks(share * parameter.block_elements());
    let pieces = part.blocks().step_by(share).zip(rows.zip(digests.chunks_mut(share)));
    scoped(pieces, |(first, (rows, digests))| {
        let blocks = (first..).zip(rows.chunks(parameter.block_elements()));
        for (digest, (index, elements)) in digests.iter_mut().zip(blocks) {
            *digest = block_digest(parameter.spec(), index, elements);
        }
    });
    Ok(digests)
}

/// Combines the block digests of all owners, in any order, to the digests of the parameters, in layout order.
///
/// # Errors
/// Parts that leave a gap or overlap, or a number of digests that is not the part's number of blocks.
pub fn parameter_digests(layout: &Layout, owned: &[(Part, Vec<BlockDigest>)]) -> Result<Vec<ParameterDigest>, CodecError> {
    let mut order: Vec<_> = owned.iter().collect();
    order.sort_by_key(|(part, _)| part.bytes().start);
    let mut order = order.into_iter().peekable();
    let mut digests = Vec::with_capacity(layout.parameters().len());
    for (index, parameter) in layout.parameters().iter().enumerate() {
        let mut hasher = begin(PARAMETER_CONTEXT, parameter.spec());
        hasher.update(&(parameter.blocks() as u64).to_le_bytes());
        let mut next = 0;
        while let Some((part, blocks)) = order.next_if(|(part, _)| part.parameter() == index) {
            layout.known(part)?;
            if part.blocks().start != next {
                return Err(CodecError::Coverage { offset: part.bytes().start });
            }
            if blocks.len() != part.blocks().len() {
                let (expected, actual) = (part.blocks().len(), blocks.len());
                return Err(CodecError::BufferLength { unit: "block digests", expected, actual });
            }
            blocks.iter().for_each(|digest| _ = hasher.update(digest));
            next = part.blocks().end;
        }
        if next != parameter.blocks() {
            return Err(CodecError::Coverage { offset: layout.whole(index)?.bytes().start });
        }
        digests.push(ParameterDigest { name: parameter.spec().name.clone(), digest: hasher.finalize().into() });
    }
    match order.next() {
        Some((part, _)) => Err(CodecError::Coverage { offset: part.bytes().start }),
        None => Ok(digests),
    }
}

/// The digest of a whole model; the order of `parameters` does not matter.
pub fn combine(parameters: &[ParameterDigest]) -> [u8; 32] {
    let mut order: Vec<_> = parameters.iter().collect();
    order.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    let mut hasher = Hasher::new_derive_key(MODEL_CONTEXT);
    hasher.update(&(order.len() as u64).to_le_bytes());
    for parameter in order {
        text(&mut hasher, &parameter.name);
        hasher.update(&parameter.digest);
    }
    hasher.finalize().into()
}

fn block_digest(spec: &ParameterSpec, index: usize, elements: &[f32]) -> BlockDigest {
    let mut hasher = begin(BLOCK_KEY_CONTEXT, spec);
    hasher.update(&(index as u64).to_le_bytes());
    if cfg!(target_endian = "little") {
        hasher.update(bytemuck::cast_slice(elements));
    } else {
        elements.iter().for_each(|element| _ = hasher.update(&element.to_le_bytes()));
    }
    hasher.finalize().into()
}

/// What a block's message begins with, before the block's index.
pub(crate) fn block_header(spec: &ParameterSpec) -> Vec<u8> {
    let mut bytes = (spec.name.len() as u64).to_le_bytes().to_vec();
    bytes.extend(spec.name.as_bytes());
    bytes.extend((spec.shape.len() as u64).to_le_bytes());
    bytes.extend(spec.shape.iter().flat_map(|&dimension| (dimension as u64).to_le_bytes()));
    bytes
}

fn begin(context: &'static str, spec: &ParameterSpec) -> Hasher {
    let mut hasher = Hasher::new_derive_key(context);
    hasher.update(&block_header(spec));
    hasher
}

fn text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
