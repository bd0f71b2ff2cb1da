//! The root over an ordered list of 32-byte leaves: the tree of RFC 6962, with leaves and nodes hashed apart.

use crate::hash::sha256;

/// The root of no leaves.
pub const EMPTY_ROOT: [u8; 32] = [0; 32];
/// One perfect subtree for each bit of the leaf count.
const DEPTH: usize = 32;

/// Builds the root leaf by leaf, in constant memory.
#[derive(Clone, Debug)]
pub struct MerkleBuilder {
    /// Roots of perfect subtrees; `peaks[d]` is in use where bit `d` of `leaves` is set.
    peaks: [[u8; 32]; DEPTH],
    leaves: u32,
}

impl MerkleBuilder {
    /// A tree without leaves.
    #[must_use]
    pub const fn new() -> Self {
        Self { peaks: [EMPTY_ROOT; DEPTH], leaves: 0 }
    }

    /// Appends a leaf; false, and no change, after 2^32 - 1 of them.
    #[must_use]
    pub fn push(&mut self, leaf: &[u8; 32]) -> bool {
        let Some(leaves) = self.leaves.checked_add(1) else { return false };
        let mut carry = hash_leaf(leaf);
        for (depth, peak) in self.peaks.iter_mut().enumerate() {
            if (self.leaves >> depth) & 1 == 0 {
                *peak = carry;
                break;
            }
            carry = hash_node(peak, &carry);
        }
        self.leaves = leaves;
        true
    }

    /// The root over the leaves so far.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut root = None;
        for (depth, peak) in self.peaks.iter().enumerate() {
            if (self.leaves >> depth) & 1 == 1 {
                root = Some(root.map_or(*peak, |right| hash_node(peak, &right)));
            }
        }
        root.unwrap_or(EMPTY_ROOT)
    }
}

impl Default for MerkleBuilder {
    fn default() -> Self {
        Self::new()
    }
}

fn hash_leaf(leaf: &[u8; 32]) -> [u8; 32] {
    sha256(&[&[0], leaf])
}

fn hash_node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256(&[&[1], left, right])
}

/// The root over `leaves` in their order.
#[must_use]
pub fn merkle_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    let mut builder = MerkleBuilder::new();
    for leaf in leaves {
        if !builder.push(leaf) {
            break;
        }
    }
    builder.root()
}
