//! The BLAKE3 tree of a blob, cut at groups of 256 chunks: each group can be verified by itself, whoever sent it, against its
//! chaining value, and the chaining values against the blob's name.
//!
//! Source: "BLAKE3: one function, fast everywhere", section 2.1; the hashing itself is the `blake3` crate's, by its interface
//! for subtrees.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use psyche_messages::BlobHash;

/// Bytes of a group. The last one of a blob may be shorter.
pub(crate) const GROUP_BYTES: u32 = 256 * 1024;

/// Bytes of a chaining value.
pub(crate) const LEAF_BYTES: usize = 32;

type Leaf = [u8; LEAF_BYTES];

/// Length of a blob and the chaining values of its groups, which belong to its name. Takes an eight thousandth of the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    len: u64,
    /// Of a blob of one group: the blob's hash.
    leaves: Vec<Leaf>,
}

/// How many groups a blob of `len` bytes has. An empty blob has one empty group.
pub(crate) fn groups_of(len: u64) -> u64 {
    len.div_ceil(u64::from(GROUP_BYTES)).max(1)
}

impl Tree {
    /// The tree of `bytes`, and their name.
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> (BlobHash, Self) {
        let mut builder = TreeBuilder::default();
        builder.update(bytes);
        builder.finish()
    }

    /// The tree of the blob `hash` of `len` bytes from its leaves; `None` if they do not belong to that name.
    pub(crate) fn verified(hash: &BlobHash, len: u64, leaves: Vec<Leaf>) -> Option<Self> {
        let tree = Self { len, leaves };
        (groups_of(len) == tree.leaves.len() as u64 && tree.root() == *hash).then_some(tree)
    }

    /// The tree of a blob that is a single group, which its name is all there is to know of; `None` if it has more.
    pub(crate) fn single(hash: &BlobHash, len: u64) -> Option<Self> {
        (groups_of(len) == 1).then(|| Self { len, leaves: vec![hash.0] })
    }

    /// The blob's length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> u32 {
        // Group indices travel as 32 bits, and trees of more are made nowhere: they would be of 1 PiB.
        u32::try_from(self.leaves.len()).unwrap_or(u32::MAX)
    }

    /// Chaining values from the one of group `first` on, `count_max` at most, as bytes.
    pub(crate) fn leaves_from(&self, first: u32, count_max: usize) -> Vec<u8> {
        let leaves = self.leaves.iter().skip(first as usize).take(count_max);
        leaves.flatten().copied().collect()
    }

    /// Where group `index` lies: its first byte and its length. `None` if there is no such group.
    pub(crate) fn place_of(&self, index: u32) -> Option<(u64, u32)> {
        let offset = u64::from(index).checked_mul(u64::from(GROUP_BYTES))?;
        if index >= self.groups() {
            return None;
        }
        let len = u32::try_from(self.len.checked_sub(offset)?.min(u64::from(GROUP_BYTES))).ok()?;
        Some((offset, len))
    }

    /// Whether `bytes` are group `index`.
    pub(crate) fn verifies(&self, index: u32, bytes: &[u8]) -> bool {
        let Some((offset, len)) = self.place_of(index) else { return false };
        let expected = self.leaves.get(index as usize);
        bytes.len() == len as usize && expected == Some(&leaf_of(offset, bytes, self.leaves.len() == 1))
    }

    fn root(&self) -> BlobHash {
        match self.leaves.as_slice() {
            [] => BlobHash(*blake3::hash(&[]).as_bytes()),
            [only] => BlobHash(*only),
            leaves => {
                let (left, right, split) = halves(leaves, self.len);
                let (left, right) = (subtree(left, split), subtree(right, self.len - split));
                BlobHash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
            }
        }
    }
}

/// The chaining value over `leaves`, which cover `len` bytes. As deep as the tree is high.
fn subtree(leaves: &[Leaf], len: u64) -> Leaf {
    match leaves {
        [] => Leaf::default(),
        [only] => *only,
        leaves => {
            let (left, right, split) = halves(leaves, len);
            merge_subtrees_non_root(&subtree(left, split), &subtree(right, len - split), Mode::Hash)
        }
    }
}

/// The leaves left and right of the root of a tree over `len` bytes, more than a group, and the bytes left of it.
fn halves(leaves: &[Leaf], len: u64) -> (&[Leaf], &[Leaf], u64) {
    let split = left_subtree_len(len);
    // Left subtrees are powers of two of at least a group.
    let count = usize::try_from(split / u64::from(GROUP_BYTES)).unwrap_or(usize::MAX).min(leaves.len());
    let (left, right) = leaves.split_at(count);
    (left, right, split)
}

fn leaf_of(offset: u64, bytes: &[u8], single: bool) -> Leaf {
    if single {
        return *blake3::hash(bytes).as_bytes();
    }
    Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// Hashes a blob piece by piece.
#[derive(Default)]
pub(crate) struct TreeBuilder {
    leaves: Vec<Leaf>,
    /// The unfinished group; begun with its first byte, so that none is empty.
    group: Option<Hasher>,
    len: u64,
}

impl TreeBuilder {
    /// Appends `bytes`.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = self.len % u64::from(GROUP_BYTES);
            if filled == 0
                && let Some(full) = self.group.take()
            {
                self.leaves.push(full.finalize_non_root());
            }
            let room = usize::try_from(u64::from(GROUP_BYTES) - filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let start = self.len;
            let group = self.group.get_or_insert_with(|| {
                let mut hasher = Hasher::new();
                hasher.set_input_offset(start);
                hasher
            });
            group.update(now);
            self.len += now.len() as u64;
            bytes = later;
        }
    }

    /// How many bytes there were so far.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// The name and the tree of all bytes.
    pub(crate) fn finish(mut self) -> (BlobHash, Tree) {
        let last = self.group.unwrap_or_default();
        let leaf = if self.leaves.is_empty() { *last.finalize().as_bytes() } else { last.finalize_non_root() };
        self.leaves.push(leaf);
        let tree = Tree { len: self.len, leaves: self.leaves };
        (tree.root(), tree)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    const GROUP: usize = GROUP_BYTES as usize;

    fn bytes(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_root_is_the_hash_for_every_shape_of_tree() {
        for len in
            [0, 1, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP + 7, 4 * GROUP, 5 * GROUP, 7 * GROUP - 1]
        {
            let bytes = bytes(len);
            let (hash, tree) = Tree::of(&bytes);
            assert_eq!(hash, BlobHash::of(&bytes), "{len}");
            assert_eq!((tree.len(), u64::from(tree.groups())), (len as u64, groups_of(len as u64)), "{len}");
            assert_eq!(Tree::verified(&hash, len as u64, tree.leaves.clone()), Some(tree.clone()));
            assert_eq!(Tree::single(&hash, len as u64), (len <= GROUP).then_some(tree));
        }
    }

    #[test]
    fn every_group_is_verified_by_itself_and_at_its_place_only() {
        let bytes = bytes(3 * GROUP + 100);
        let (_, tree) = Tree::of(&bytes);
        for index in 0..4_u32 {
            let (offset, len) = tree.place_of(index).unwrap();
            let offset = usize::try_from(offset).unwrap();
            let group = &bytes[offset..offset + len as usize];
            for place in 0..5 {
                assert_eq!(tree.verifies(place, group), place == index);
            }
            let mut wrong = group.to_vec();
            wrong[0] ^= 1;
            assert!(!tree.verifies(index, &wrong));
            assert!(!tree.verifies(index, &group[1..]));
        }
        assert_eq!(tree.place_of(4), None);
        assert_eq!(tree.leaves_from(2, 100), [tree.leaves[2], tree.leaves[3]].concat());
        assert_eq!(tree.leaves_from(1, 1), tree.leaves[1]);
        assert!(tree.leaves_from(9, 1).is_empty());
    }

    #[test]
    fn leaves_of_another_blob_or_length_are_refused() {
        let bytes = bytes(4 * GROUP);
        let (hash, tree) = Tree::of(&bytes);
        let len = tree.len();
        for wrong in [len + 1, len - u64::from(GROUP_BYTES), 0, u64::MAX] {
            assert_eq!(Tree::verified(&hash, wrong, tree.leaves.clone()), None, "{wrong}");
        }
        let mut swapped = tree.leaves.clone();
        swapped.swap(0, 1);
        assert_eq!(Tree::verified(&hash, len, swapped), None);
        assert_eq!(Tree::verified(&hash, len, tree.leaves[..3].to_vec()), None);
        assert_eq!(Tree::verified(&hash, len, Vec::new()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn prop_pieces_of_any_size_make_the_same_tree(len in 0..3 * GROUP, pieces in prop::collection::vec(1..GROUP, 1..20)) {
            let bytes = bytes(len);
            let (mut builder, mut rest, mut turn) = (TreeBuilder::default(), bytes.as_slice(), 0);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(pieces[turn % pieces.len()].min(rest.len()));
                builder.update(now);
                (rest, turn) = (later, turn + 1);
            }
            prop_assert_eq!(builder.len(), len as u64);
            prop_assert_eq!(builder.finish(), Tree::of(&bytes));
        }
    }
}
