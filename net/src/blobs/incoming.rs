//! A local file or bytes on their way into the store: an unfinished file that is hashed while it is written.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use psyche_messages::BlobHash;

use super::partial::PARTIAL_DIR;
use super::tree::{Tree, TreeBuilder};
use super::{BlobError, BlobStore, io_error};

/// Makes names of unfinished files unique within the process, which owns the directory.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Bytes written so far, their tree, and the quota set aside for them. Dropped unfinished, it leaves nothing behind.
pub(super) struct Incoming {
    store: BlobStore,
    len: u64,
    path: PathBuf,
    file: File,
    builder: TreeBuilder,
}

impl Incoming {
    /// Starts with room for `len` bytes.
    pub(super) fn start(store: &BlobStore, len: u64) -> Result<Self, BlobError> {
        store.reserve(len)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.inner.dir.join(PARTIAL_DIR).join(format!("put.{number}"));
        let opened = store.lock().spares.open(&store.inner.dir, &path, len);
        match opened {
            Ok(file) => Ok(Self { store: store.clone(), len, path, file, builder: TreeBuilder::default() }),
            Err(error) => {
                store.lock().release(len);
                Err(io_error(&path)(error))
            }
        }
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let written = self.builder.len().saturating_add(bytes.len() as u64);
        if written > self.len {
            return Err(BlobError::Changed { len: self.len });
        }
        self.builder.update(bytes);
        self.file.write_all(bytes).map_err(io_error(&self.path))
    }

    /// Turns the file into the blob, whose name and length it returns.
    pub(super) fn finish(mut self) -> Result<(BlobHash, u64), BlobError> {
        if self.builder.len() != self.len {
            return Err(BlobError::Changed { len: self.len });
        }
        let (hash, tree) = std::mem::take(&mut self.builder).finish();
        self.place(hash, tree)?;
        Ok((hash, self.len))
    }

    /// Makes `bytes`, all there are, the blob of that name and tree.
    pub(super) fn finish_with(mut self, bytes: &[u8], hash: BlobHash, tree: Tree) -> Result<(), BlobError> {
        self.file.write_all(bytes).map_err(io_error(&self.path))?;
        self.place(hash, tree)
    }

    fn place(&self, hash: BlobHash, tree: Tree) -> Result<(), BlobError> {
        let target = self.store.file_of(&hash);
        let mut index = self.store.lock();
        if let Some(entry) = index.entries.get_mut(&hash) {
            entry.touched = SystemTime::now();
        } else {
            fs::rename(&self.path, &target).map_err(io_error(&target))?;
            index.insert_verified(hash, Arc::new(tree), Weak::new());
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.store.lock().release(self.len);
        // After `finish` the file is gone from here; otherwise a leftover is removed when the store is opened next.
        let _removed = fs::remove_file(&self.path);
    }
}
