//! A blob on its way here, group by group in any order, from several senders. Each group is verified before it is written, and
//! served to others from then on. What is there survives a restart: beside the data lies a file with the length, the tree's
//! leaves and a byte for each group; what it says is verified before it is believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use psyche_messages::BlobHash;

use super::bits::Bits;
use super::tree::{LEAF_BYTES, Tree, groups_of};
use super::{BlobError, BlobStore, io_error};
use crate::buffers;

/// Subdirectory of the store that holds unfinished files.
pub(super) const PARTIAL_DIR: &str = "partial";

/// Length of the blob, before the leaves.
const HEAD_BYTES: u64 = 8;

/// The open files of an unfinished blob.
#[derive(Debug)]
pub(super) struct Partial {
    tree: Arc<Tree>,
    data: File,
    /// Absent for a blob of one group, which is either there or not.
    side: Option<File>,
    have: Mutex<Bits>,
}

/// Where the bytes lie. A blob of one group can't be taken up again, and its length is no more than what was announced: so that
/// nobody disturbs a transfer by announcing another one, it has a file of its own.
pub(super) fn data_path(dir: &Path, hash: &BlobHash, len: u64) -> PathBuf {
    let name = if groups_of(len) > 1 { hash.to_string() } else { format!("{hash}.{len}") };
    dir.join(PARTIAL_DIR).join(name)
}

pub(super) fn side_path(dir: &Path, hash: &BlobHash) -> PathBuf {
    dir.join(PARTIAL_DIR).join(format!("{hash}.tree"))
}

/// Where the bytes that say which groups are there begin in the side file.
const fn flags_offset(groups: u64) -> u64 {
    HEAD_BYTES + groups * LEAF_BYTES as u64
}

/// The blob's length that a side file names, if the file is as long as such a blob wants it.
pub(super) fn len_in(side: &Path) -> io::Result<Option<u64>> {
    let mut head = [0; HEAD_BYTES as usize];
    let file = File::open(side)?;
    if file.metadata()?.len() < HEAD_BYTES {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let len = u64::from_le_bytes(head);
    let groups = groups_of(len);
    let expected = groups.checked_mul(LEAF_BYTES as u64 + 1).and_then(|bytes| bytes.checked_add(HEAD_BYTES));
    Ok((expected == Some(file.metadata()?.len())).then_some(len))
}

impl Partial {
    /// Starts with nothing but the tree; what is in the file `data` so far means nothing.
    fn create(dir: &Path, hash: &BlobHash, tree: Arc<Tree>, data: File) -> io::Result<Self> {
        let groups = tree.groups();
        let side = if groups > 1 {
            let mut content = tree.len().to_le_bytes().to_vec();
            content.extend(tree.leaves_from(0, groups as usize));
            content.resize(content.len() + groups as usize, 0);
            let side = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(side_path(dir, hash))?;
            side.write_all_at(&content, 0)?;
            Some(side)
        } else {
            None
        };
        Ok(Self { tree, data, side, have: Mutex::new(Bits::none(groups)) })
    }

    /// Takes up what an earlier transfer left, as far as it verifies; `None` if it is of no use.
    fn resume(dir: &Path, hash: &BlobHash, len: u64) -> io::Result<Option<Self>> {
        let side_path = side_path(dir, hash);
        if len_in(&side_path)? != Some(len) {
            return Ok(None);
        }
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (data, side) = (open(&data_path(dir, hash, len))?, open(&side_path)?);
        let mut content = Vec::new();
        (&side).read_to_end(&mut content)?;
        let groups = groups_of(len);
        let (Ok(begin), Ok(flags)) = (usize::try_from(HEAD_BYTES), usize::try_from(flags_offset(groups))) else {
            return Ok(None);
        };
        let leaves = content[begin..flags].chunks_exact(LEAF_BYTES).filter_map(|leaf| leaf.try_into().ok()).collect();
        let Some(tree) = Tree::verified(hash, len, leaves) else { return Ok(None) };
        let partial = Self { have: Mutex::new(Bits::none(tree.groups())), tree: Arc::new(tree), data, side: Some(side) };
        for (index, _) in (0_u32..).zip(&content[flags..]).filter(|(_, flag)| **flag == 1) {
            // A group that the file does not hold, or holds damaged, is fetched again.
            if let Ok(bytes) = partial.read_at(index)
                && partial.tree.verifies(index, &bytes)
            {
                partial.have().insert(index);
            }
        }
        Ok(Some(partial))
    }

    /// The tree.
    pub(super) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Which groups are there.
    pub(super) fn have(&self) -> MutexGuard<'_, Bits> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Group `index`, if it is there.
    pub(super) fn read(&self, index: u32) -> io::Result<Option<Vec<u8>>> {
        if self.have().contains(index) { self.read_at(index).map(Some) } else { Ok(None) }
    }

    fn read_at(&self, index: u32) -> io::Result<Vec<u8>> {
        let (offset, len) = self.tree.place_of(index).ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = buffers::take(len as usize);
        self.data.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Keeps `bytes` if they are group `index`; whether they are.
    fn write(&self, index: u32, bytes: &[u8]) -> io::Result<bool> {
        let Some((offset, _)) = self.tree.place_of(index).filter(|_| self.tree.verifies(index, bytes)) else {
            return Ok(false);
        };
        self.data.write_all_at(bytes, offset)?;
        if let Some(side) = &self.side {
            side.write_all_at(&[1], flags_offset(u64::from(self.tree.groups())) + u64::from(index))?;
        }
        self.have().insert(index);
        Ok(true)
    }
}

/// A transfer under way. Dropped unfinished, it leaves what it got for the next one.
#[derive(Debug)]
pub(crate) struct Transfer {
    store: BlobStore,
    hash: BlobHash,
    partial: Arc<Partial>,
}

impl Transfer {
    /// Takes up an earlier transfer of the blob, if there is one of that length.
    pub(crate) fn resume(store: &BlobStore, hash: BlobHash, len: u64) -> Result<Option<Self>, BlobError> {
        if !store.lock().is_idle(&(hash, len)) {
            return Ok(None);
        }
        let dir = &store.inner.dir;
        // Whatever can't be read is fetched anew.
        let partial = Partial::resume(dir, &hash, len).unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::info!(blob = hash.short(), error, "a partial blob can't be resumed");
            None
        });
        let Some(partial) = partial.map(Arc::new) else {
            store.abandon(&(hash, len));
            return Ok(None);
        };
        store.lock().activate(hash, len, Arc::clone(&partial));
        Ok(Some(Self { store: store.clone(), hash, partial }))
    }

    /// Starts a transfer of the blob whose tree is known, and sets its room aside.
    pub(crate) fn begin(store: &BlobStore, hash: BlobHash, tree: Tree) -> Result<Self, BlobError> {
        let len = tree.len();
        store.abandon(&(hash, len));
        store.reserve(len)?;
        let dir = &store.inner.dir;
        let data = store.lock().spares.open(dir, &data_path(dir, &hash, len), len);
        match data.and_then(|data| Partial::create(dir, &hash, Arc::new(tree), data)) {
            Ok(partial) => {
                let partial = Arc::new(partial);
                store.lock().activate(hash, len, Arc::clone(&partial));
                Ok(Self { store: store.clone(), hash, partial })
            }
            Err(error) => {
                store.lock().release(len);
                Err(io_error(&data_path(dir, &hash, len))(error))
            }
        }
    }

    /// The groups that are there.
    pub(crate) fn have(&self) -> Bits {
        self.partial.have().clone()
    }

    /// Keeps `bytes` if they are group `index`; whether they are.
    pub(crate) fn write(&self, index: u32, bytes: &[u8]) -> Result<bool, BlobError> {
        self.partial.write(index, bytes).map_err(io_error(&self.data_path()))
    }

    /// Turns the complete file into the blob.
    pub(crate) fn finish(&self) -> Result<(), BlobError> {
        if !self.partial.have().is_full() {
            return Err(BlobError::Wrong { hash: self.hash });
        }
        let (from, to) = (self.data_path(), self.store.file_of(&self.hash));
        let mut index = self.store.lock();
        fs::rename(&from, &to).map_err(io_error(&to))?;
        index.complete(self.hash, &self.partial);
        // What is left of it is removed at the next start at the latest.
        let _removed = fs::remove_file(side_path(&self.store.inner.dir, &self.hash));
        Ok(())
    }

    fn data_path(&self) -> PathBuf {
        data_path(&self.store.inner.dir, &self.hash, self.partial.tree.len())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let keeps = self.partial.side.is_some() && self.partial.have().count() > 0;
        let name = (self.hash, self.partial.tree.len());
        let known = self.store.lock().park(&name, &self.partial);
        if known && !keeps {
            self.store.abandon(&name);
        }
    }
}
