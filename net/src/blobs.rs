//! The content-addressed store: one file per blob, named by its BLAKE3 hash, under one directory with a quota.
//!
//! A blob appears by renaming a complete file, so a reader never sees half of one. Files are not synced to the disk: whatever a
//! power cut leaves behind is caught because a blob is verified before its first use after a start. Room is made by dropping
//! blobs that nobody pinned and no round claims, the longest unused first; [`BlobStore::retain_rounds_from`] and
//! [`BlobStore::collect_garbage`] drop the rest. Tags and pins live in memory: after a restart every blob is unclaimed until it
//! is tagged again, and its age decides.
//!
//! The functions block on the disk; from async code go through the network handle, or a blocking task.

mod incoming;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use psyche_messages::{Backoff, BlobHash, Retry, RoundKey};
use thiserror::Error;

pub(crate) use incoming::Incoming;

/// How much of a file is read or written at a time.
const COPY_BYTES: usize = 256 * 1024;

/// Why the store refused.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The disk refused.
    #[error("use {path}")]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The blob does not fit, even after everything that may go has gone.
    #[error("store {len} bytes: {free} of {bytes_max} are free")]
    Full {
        /// Length of the blob.
        len: u64,
        /// What is left.
        free: u64,
        /// The quota.
        bytes_max: u64,
    },
    /// Bytes do not have the hash or the length that they were announced with.
    #[error("verify blob {hash}")]
    Wrong {
        /// The announced name.
        hash: BlobHash,
    },
    /// The caller asked for a blob that is not there.
    #[error("find blob {hash}")]
    Missing {
        /// Its name.
        hash: BlobHash,
    },
}

impl BlobError {
    /// A full store empties as rounds pass; the rest stays.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full { .. } => {
                Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 200, 30).map_or(Retry::Never, Retry::After)
            }
            Self::Wrong { .. } => Retry::NextEndpoint,
            Self::Io { .. } | Self::Missing { .. } => Retry::Never,
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { path, source }
}

#[derive(Debug)]
struct Entry {
    len: u64,
    /// The newest round that claims it.
    tag: Option<RoundKey>,
    pins: u32,
    touched: SystemTime,
    /// Whether its bytes were compared with its name since the store was opened.
    verified: bool,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<BlobHash, Entry>,
    /// Bytes of all entries.
    stored: u64,
    /// Bytes promised to transfers under way.
    reserved: u64,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    bytes_max: u64,
    ttl: Duration,
    index: Mutex<Index>,
}

/// A handle to the store; clones share it.
#[derive(Clone, Debug)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

impl BlobStore {
    /// Opens the store in `dir`, which belongs to it alone, and takes over the blobs found there. At most `bytes_max` bytes are
    /// kept; a blob without claims goes when it was not used for `ttl`.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the directory can't be made or read.
    pub fn open(dir: &Path, bytes_max: u64, ttl: Duration) -> Result<Self, BlobError> {
        let partial = dir.join(incoming::PARTIAL_DIR);
        // What an earlier process was receiving is of no use.
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(io_error(&partial))?;
        }
        fs::create_dir_all(&partial).map_err(io_error(&partial))?;
        let mut index = Index::default();
        for file in fs::read_dir(dir).map_err(io_error(dir))? {
            let file = file.map_err(io_error(dir))?;
            let Some(hash) = file.file_name().to_str().and_then(|name| name.parse::<BlobHash>().ok()) else { continue };
            let meta = file.metadata().map_err(io_error(&file.path()))?;
            if meta.is_file() {
                let touched = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                index.insert(hash, Entry { len: meta.len(), tag: None, pins: 0, touched, verified: false });
            }
        }
        let store = Self { inner: Arc::new(Inner { dir: dir.to_owned(), bytes_max, ttl, index: Mutex::new(index) }) };
        store.collect_garbage();
        Ok(store)
    }

    /// Stores `bytes` and returns their name.
    ///
    /// # Errors
    /// [`BlobError::Full`] if they exceed the quota, [`BlobError::Io`] if the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobHash, BlobError> {
        let hash = BlobHash::of(bytes);
        if !self.touch(&hash) {
            let mut incoming = self.receive(hash, bytes.len() as u64)?;
            incoming.write(bytes)?;
            incoming.finish()?;
        }
        Ok(hash)
    }

    /// Stores a copy of the file at `path`; returns its name and length.
    ///
    /// # Errors
    /// As [`BlobStore::put`]; [`BlobError::Wrong`] if the file changes while it is copied.
    pub fn put_file(&self, path: &Path) -> Result<(BlobHash, u64), BlobError> {
        let mut file = File::open(path).map_err(io_error(path))?;
        let (hash, len) = hash_file(&mut file).map_err(io_error(path))?;
        if !self.touch(&hash) {
            let mut file = File::open(path).map_err(io_error(path))?;
            let mut incoming = self.receive(hash, len)?;
            let mut buffer = vec![0; COPY_BYTES];
            loop {
                let read = file.read(&mut buffer).map_err(io_error(path))?;
                if read == 0 {
                    break;
                }
                incoming.write(&buffer[..read])?;
            }
            incoming.finish()?;
        }
        Ok((hash, len))
    }

    /// The bytes of a blob, verified; `None` if it is not there. A blob whose file was damaged is dropped, and is not there.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the disk refuses.
    pub fn get(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, BlobError> {
        if !self.touch(hash) {
            return Ok(None);
        }
        let path = self.file_of(hash);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(hash);
                return Ok(None);
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        if BlobHash::of(&bytes) == *hash {
            Ok(Some(bytes))
        } else {
            self.forget(hash);
            Ok(None)
        }
    }

    /// Whether the blob is there, as far as the index knows.
    #[must_use]
    pub fn contains(&self, hash: &BlobHash) -> bool {
        self.lock().entries.contains_key(hash)
    }

    /// The blob's length in bytes, if it is there.
    #[must_use]
    pub fn len_of(&self, hash: &BlobHash) -> Option<u64> {
        self.lock().entries.get(hash).map(|entry| entry.len)
    }

    /// Where the blob's file is, for readers that map it. The file stays until the blob is dropped: pin it first. Its bytes are
    /// verified if this is their first use since the store was opened.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if it is not there or damaged, [`BlobError::Io`] if the disk refuses.
    pub fn path_of(&self, hash: &BlobHash) -> Result<PathBuf, BlobError> {
        self.verify_once(hash)?;
        Ok(self.file_of(hash))
    }

    /// Bytes on disk.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.lock().stored
    }

    /// Claims the blob for `round`: it stays until [`BlobStore::retain_rounds_from`] is called with a later one. Of several
    /// rounds the latest counts. Returns whether the blob is there.
    pub fn tag(&self, hash: &BlobHash, round: RoundKey) -> bool {
        self.lock().entries.get_mut(hash).map(|entry| entry.tag = entry.tag.max(Some(round))).is_some()
    }

    /// Keeps the blob until as many [`BlobStore::unpin`] follow. Returns whether the blob is there.
    pub fn pin(&self, hash: &BlobHash) -> bool {
        self.lock().entries.get_mut(hash).map(|entry| entry.pins = entry.pins.saturating_add(1)).is_some()
    }

    /// Takes one pin back.
    pub fn unpin(&self, hash: &BlobHash) {
        if let Some(entry) = self.lock().entries.get_mut(hash) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// Drops the unpinned blobs whose latest tag is before `round`; returns how many.
    pub fn retain_rounds_from(&self, round: RoundKey) -> usize {
        self.drop_where(|entry| entry.tag.is_some_and(|tag| tag < round))
    }

    /// Drops unpinned, untagged blobs that were not used for the store's time to live; returns how many.
    pub fn collect_garbage(&self) -> usize {
        let now = SystemTime::now();
        let ttl = self.inner.ttl;
        self.drop_where(|entry| entry.tag.is_none() && now.duration_since(entry.touched).is_ok_and(|age| age > ttl))
    }

    /// Starts receiving a blob of known name and length.
    pub(crate) fn receive(&self, hash: BlobHash, len: u64) -> Result<Incoming, BlobError> {
        Incoming::start(self.clone(), hash, len)
    }

    /// Part of a blob for a peer; `None` if there is no such blob, or it is not `total` bytes long, or the range is not in it.
    pub(crate) fn read_range(&self, hash: &BlobHash, total: u64, range: Range) -> Result<Option<Vec<u8>>, BlobError> {
        let end = range.offset.checked_add(u64::from(range.len));
        if self.len_of(hash) != Some(total) || end.is_none_or(|end| end > total) {
            return Ok(None);
        }
        match self.verify_once(hash) {
            Ok(()) => {}
            Err(BlobError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let path = self.file_of(hash);
        let mut bytes = vec![0; range.len as usize];
        let file = File::open(&path).map_err(io_error(&path))?;
        file.read_exact_at(&mut bytes, range.offset).map_err(io_error(&path))?;
        Ok(Some(bytes))
    }

    /// Compares the bytes with the name if nobody did since the store was opened; drops the blob if they differ.
    fn verify_once(&self, hash: &BlobHash) -> Result<(), BlobError> {
        match self.lock().entries.get_mut(hash) {
            None => return Err(BlobError::Missing { hash: *hash }),
            Some(entry) => {
                entry.touched = SystemTime::now();
                if entry.verified {
                    return Ok(());
                }
            }
        }
        let path = self.file_of(hash);
        let sound = match File::open(&path).and_then(|mut file| hash_file(&mut file)) {
            Ok((found, _)) => found == *hash,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(io_error(&path)(error)),
        };
        if !sound {
            self.forget(hash);
            return Err(BlobError::Missing { hash: *hash });
        }
        if let Some(entry) = self.lock().entries.get_mut(hash) {
            entry.verified = true;
        }
        Ok(())
    }

    fn touch(&self, hash: &BlobHash) -> bool {
        self.lock().entries.get_mut(hash).map(|entry| entry.touched = SystemTime::now()).is_some()
    }

    fn forget(&self, hash: &BlobHash) {
        let mut index = self.lock();
        if index.remove(hash) {
            self.unlink(hash);
        }
    }

    fn drop_where(&self, condition: impl Fn(&Entry) -> bool) -> usize {
        let mut index = self.lock();
        let dropped: Vec<_> =
            index.entries.iter().filter(|(_, entry)| entry.pins == 0 && condition(entry)).map(|(hash, _)| *hash).collect();
        for hash in &dropped {
            index.remove(hash);
            self.unlink(hash);
        }
        dropped.len()
    }

    /// Sets `len` bytes of the quota aside, dropping unclaimed blobs as needed.
    fn reserve(&self, len: u64) -> Result<(), BlobError> {
        let bytes_max = self.inner.bytes_max;
        let mut index = self.lock();
        loop {
            let free = bytes_max.saturating_sub(index.stored).saturating_sub(index.reserved);
            if len <= free {
                index.reserved += len;
                return Ok(());
            }
            let unclaimed = index.entries.iter().filter(|(_, entry)| entry.pins == 0 && entry.tag.is_none());
            let reclaimable: u64 = unclaimed.clone().map(|(_, entry)| entry.len).sum();
            let oldest = unclaimed.min_by_key(|(hash, entry)| (entry.touched, **hash)).map(|(hash, _)| *hash);
            let Some(oldest) = oldest.filter(|_| len <= free.saturating_add(reclaimable)) else {
                return Err(BlobError::Full { len, free, bytes_max });
            };
            index.remove(&oldest);
            self.unlink(&oldest);
        }
    }

    fn file_of(&self, hash: &BlobHash) -> PathBuf {
        self.inner.dir.join(hash.to_string())
    }

    /// Removes a file whose entry is gone. What can't be removed is found again at the next start.
    fn unlink(&self, hash: &BlobHash) {
        let path = self.file_of(hash);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(blob = hash.short(), error = &error as &dyn std::error::Error, "blob file can't be removed");
        }
    }

    /// The index; no code panics while it holds the lock halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, hash: BlobHash, entry: Entry) {
        self.stored += entry.len;
        if let Some(old) = self.entries.insert(hash, entry) {
            self.stored -= old.len;
        }
    }

    fn remove(&mut self, hash: &BlobHash) -> bool {
        let removed = self.entries.remove(hash);
        self.stored -= removed.as_ref().map_or(0, |entry| entry.len);
        removed.is_some()
    }
}

/// A part of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) len: u32,
}

fn hash_file(file: &mut File) -> io::Result<(BlobHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((BlobHash(*hasher.finalize().as_bytes()), hasher.count()));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests;
