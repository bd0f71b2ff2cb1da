//! A blob on its way into the store: a partial file that becomes the blob only if every byte fits its name.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use psyche_messages::BlobHash;

use super::{BlobError, BlobStore, Entry, io_error};

/// Subdirectory of the store that holds partial files.
pub(super) const PARTIAL_DIR: &str = "partial";

/// Makes names of partial files unique within the process, which owns the directory.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Bytes written so far, their hash, and the quota set aside for them. Dropped unfinished, it leaves nothing behind.
pub(crate) struct Incoming {
    store: BlobStore,
    hash: BlobHash,
    len: u64,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
}

impl Incoming {
    pub(super) fn start(store: BlobStore, hash: BlobHash, len: u64) -> Result<Self, BlobError> {
        store.reserve(len)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.inner.dir.join(PARTIAL_DIR).join(format!("{hash}.{number}"));
        match File::create_new(&path) {
            Ok(file) => Ok(Self { store, hash, len, path, file, hasher: blake3::Hasher::new() }),
            Err(error) => {
                store.lock().reserved -= len;
                Err(io_error(&path)(error))
            }
        }
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.hasher.count().saturating_add(bytes.len() as u64) > self.len {
            return Err(BlobError::Wrong { hash: self.hash });
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(io_error(&self.path))
    }

    /// Turns the partial file into the blob.
    pub(crate) fn finish(self) -> Result<(), BlobError> {
        if self.hasher.count() != self.len || *self.hasher.finalize().as_bytes() != self.hash.0 {
            return Err(BlobError::Wrong { hash: self.hash });
        }
        let target = self.store.file_of(&self.hash);
        let mut index = self.store.lock();
        fs::rename(&self.path, &target).map_err(io_error(&target))?;
        // Two transfers of one blob may both end here: claims on the first stay.
        let (tag, pins) = index.entries.get(&self.hash).map_or((None, 0), |entry| (entry.tag, entry.pins));
        index.insert(self.hash, Entry { len: self.len, tag, pins, touched: SystemTime::now(), verified: true });
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.store.lock().reserved -= self.len;
        // After `finish` the file is gone from here; otherwise a leftover is removed when the store is opened next.
        let _removed = fs::remove_file(&self.path);
    }
}
