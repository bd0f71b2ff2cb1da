//! The content-addressed store: one file per blob, named by its BLAKE3 hash, under one directory with a quota.
//!
//! A blob appears by renaming a complete file, so a reader never sees half of one. Files are not synced to the disk: whatever a
//! power cut leaves behind is caught because a blob is verified before its first use after a start. Room is made by dropping
//! blobs that nobody pinned and no round claims, and what was received of blobs that nobody fetches any more, the longest unused
//! first; [`BlobStore::retain_rounds_from`] and [`BlobStore::collect_garbage`] drop the rest. Claims of rounds, and the parts of
//! unfinished blobs, survive a restart; pins are their holder's and end with it.
//!
//! The functions block on the disk; from async code go through the network handle, or a blocking task.

mod bits;
mod claims;
mod error;
mod incoming;
mod index;
mod partial;
mod spares;
#[cfg(test)]
mod tests;
mod tree;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use psyche_messages::{BlobHash, RoundKey};

use crate::buffers;

pub(crate) use bits::Bits;
use claims::Claims;
pub use error::BlobError;
use incoming::Incoming;
use index::{Entry, Index, Kept, Unfinished, Victim};
use partial::PARTIAL_DIR;
pub(crate) use partial::Transfer;
use tree::TreeBuilder;
pub(crate) use tree::{GROUP_BYTES, LEAF_BYTES, Tree, groups_of};

/// How much of a file is read or written at a time.
const COPY_BYTES: usize = 256 * 1024;

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { path, source }
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
        let partial = dir.join(PARTIAL_DIR);
        fs::create_dir_all(&partial).map_err(io_error(&partial))?;
        let (claims, mut tags) = Claims::open(dir).map_err(io_error(dir))?;
        let mut index = Index::new(claims);
        for file in fs::read_dir(dir).map_err(io_error(dir))? {
            let file = file.map_err(io_error(dir))?;
            let Some(hash) = file.file_name().to_str().and_then(|name| name.parse::<BlobHash>().ok()) else { continue };
            let meta = file.metadata().map_err(io_error(&file.path()))?;
            if meta.is_file() {
                let touched = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                index.insert(
                    hash,
                    Entry { len: meta.len(), tag: tags.remove(&hash), pins: 0, touched, tree: None, writer: Weak::new() },
                );
            }
        }
        let store = Self { inner: Arc::new(Inner { dir: dir.to_owned(), bytes_max, ttl, index: Mutex::new(index) }) };
        store.open_partials(&partial)?;
        store.collect_garbage();
        Ok(store)
    }

    /// Takes over what an earlier process was receiving, and removes what is of no use.
    fn open_partials(&self, partial: &Path) -> Result<(), BlobError> {
        let mut useless = Vec::new();
        for file in fs::read_dir(partial).map_err(io_error(partial))? {
            let file = file.map_err(io_error(partial))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".tree").unwrap_or(&name);
            let Ok(hash) = stem.parse::<BlobHash>() else {
                useless.push(file.path());
                continue;
            };
            let side = partial::side_path(&self.inner.dir, &hash);
            let len =
                partial::len_in(&side).ok().flatten().filter(|len| partial::data_path(&self.inner.dir, &hash, *len).exists());
            let mut index = self.lock();
            let room = self.inner.bytes_max.saturating_sub(index.stored).saturating_sub(index.reserved);
            match len {
                Some(len) if index.partials.contains_key(&(hash, len)) => {}
                Some(len) if len <= room && !index.entries.contains_key(&hash) => {
                    let touched = file.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                    index.reserved += len;
                    index.partials.insert((hash, len), Kept { touched, open: None });
                }
                _ => useless.push(file.path()),
            }
        }
        useless.iter().for_each(|path| remove(path));
        Ok(())
    }

    /// Stores `bytes` and returns their name.
    ///
    /// # Errors
    /// [`BlobError::Full`] if they exceed the quota, [`BlobError::Io`] if the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobHash, BlobError> {
        let mut builder = TreeBuilder::default();
        builder.update(bytes);
        let (hash, tree) = builder.finish();
        if !self.touch(&hash) {
            Incoming::start(self, bytes.len() as u64)?.finish_with(bytes, hash, tree)?;
        }
        Ok(hash)
    }

    /// Stores a copy of the file at `path`; returns its name and length.
    ///
    /// # Errors
    /// As [`BlobStore::put`]; [`BlobError::Changed`] if the file changes while it is copied.
    pub fn put_file(&self, path: &Path) -> Result<(BlobHash, u64), BlobError> {
        let mut file = File::open(path).map_err(io_error(path))?;
        let len = file.metadata().map_err(io_error(path))?.len();
        let mut incoming = Incoming::start(self, len)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(io_error(path))?;
            if read == 0 {
                return incoming.finish();
            }
            incoming.write(&buffer[..read])?;
        }
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

    /// Whether a blob of `len` bytes could be stored if everything else went.
    pub(crate) fn check_len(&self, len: u64) -> Result<(), BlobError> {
        let bytes_max = self.inner.bytes_max;
        if len > bytes_max { Err(BlobError::Full { len, free: bytes_max, bytes_max }) } else { Ok(()) }
    }

    /// Where the blob's file is, for readers that map or copy it. The file stays until the blob is dropped, and may be another
    /// blob's from then on: pin it first. Its bytes are verified if this is their first use since the store was opened.
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
        let mut index = self.lock();
        let Some(entry) = index.entries.get_mut(hash) else { return false };
        if entry.tag < Some(round) {
            entry.tag = Some(round);
            if let Err(error) = index.claims.note(hash, round) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(blob = hash.short(), error, "a blob's claim will not survive a restart");
            }
        }
        true
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
        let dropped = self.drop_where(|entry| entry.tag.is_some_and(|tag| tag < round));
        let index = &mut *self.lock();
        let tagged: Vec<_> = index.entries.iter().filter_map(|(hash, entry)| Some((*hash, entry.tag?))).collect();
        if let Err(error) = index.claims.compact(tagged.len(), tagged.into_iter()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the claims of rounds can't be written anew");
        }
        dropped
    }

    /// Drops unpinned, untagged blobs that were not used, and unfinished ones that were not worked on, for the store's time to
    /// live; returns how many blobs.
    pub fn collect_garbage(&self) -> usize {
        let now = SystemTime::now();
        let ttl = self.inner.ttl;
        let old = |touched: SystemTime| now.duration_since(touched).is_ok_and(|age| age > ttl);
        let idle: Vec<_> = self
            .lock()
            .partials
            .iter()
            .filter(|(_, kept)| kept.open.is_none() && old(kept.touched))
            .map(|(name, _)| *name)
            .collect();
        idle.iter().for_each(|name| self.abandon(name));
        self.drop_where(|entry| entry.tag.is_none() && old(entry.touched))
    }

    /// How much of an unfinished blob is here, in bytes to within a quarter MiB, while it is fetched.
    #[must_use]
    pub fn progress(&self, hash: &BlobHash) -> Option<u64> {
        let open = self.lock().partials.iter().find(|((name, _), kept)| name == hash && kept.open.is_some())?.1.open.clone()?;
        let groups = open.have().count();
        Some((u64::from(groups) * u64::from(GROUP_BYTES)).min(open.tree().len()))
    }

    /// Group `group` of the blob `hash` of `total` bytes, for a peer.
    pub(crate) fn read_group(&self, hash: &BlobHash, total: u64, group: u32) -> Result<Found, BlobError> {
        if let Some(open) = self.open_partial(hash, total) {
            let path = partial::data_path(&self.inner.dir, hash, total);
            return Ok(match open.read(group).map_err(io_error(&path))? {
                Some(bytes) => Found::Bytes(bytes),
                None => Found::Part(open.have().clone()),
            });
        }
        let Some(tree) = self.tree_of(hash, total)? else { return Ok(Found::Nothing) };
        let Some((offset, len)) = tree.place_of(group) else { return Ok(Found::Nothing) };
        let path = self.file_of(hash);
        let mut bytes = buffers::take(len as usize);
        let file = File::open(&path).map_err(io_error(&path))?;
        file.read_exact_at(&mut bytes, offset).map_err(io_error(&path))?;
        // Whose bytes these are is not known if the blob was dropped meanwhile.
        Ok(if self.lock().holds(hash, &tree) { Found::Bytes(bytes) } else { Found::Nothing })
    }

    /// Leaves of the tree of the blob `hash` of `total` bytes from `first` on, for a peer; `None` if nothing is known of it.
    pub(crate) fn read_leaves(
        &self,
        hash: &BlobHash,
        total: u64,
        first: u32,
        max: usize,
    ) -> Result<Option<Vec<u8>>, BlobError> {
        let tree = match self.open_partial(hash, total) {
            Some(open) => Some(Arc::clone(open.tree())),
            None => self.tree_of(hash, total)?,
        };
        Ok(tree.map(|tree| tree.leaves_from(first, max)))
    }

    /// Whether group `group` of the blob `hash` of `total` bytes can be handed on, as far as the index knows.
    pub(crate) fn has_group(&self, hash: &BlobHash, total: u64, group: u32) -> bool {
        match self.open_partial(hash, total) {
            Some(open) => open.have().contains(group),
            None => self.len_of(hash) == Some(total),
        }
    }

    fn open_partial(&self, hash: &BlobHash, total: u64) -> Option<Arc<partial::Partial>> {
        let index = self.lock();
        if index.entries.contains_key(hash) {
            return None;
        }
        index.partials.get(&(*hash, total))?.open.clone()
    }

    /// The tree of the blob `hash`, if it is there and `total` bytes long.
    fn tree_of(&self, hash: &BlobHash, total: u64) -> Result<Option<Arc<Tree>>, BlobError> {
        if self.len_of(hash) != Some(total) {
            return Ok(None);
        }
        match self.verify_once(hash) {
            Ok(tree) => Ok(Some(tree)),
            Err(BlobError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compares the bytes with the name if nobody did since the store was opened; drops the blob if they differ.
    fn verify_once(&self, hash: &BlobHash) -> Result<Arc<Tree>, BlobError> {
        match self.lock().entries.get_mut(hash) {
            None => return Err(BlobError::Missing { hash: *hash }),
            Some(entry) => {
                entry.touched = SystemTime::now();
                if let Some(tree) = &entry.tree {
                    return Ok(Arc::clone(tree));
                }
            }
        }
        let path = self.file_of(hash);
        let found = match File::open(&path).and_then(|mut file| tree_of_file(&mut file)) {
            Ok((found, tree)) => Some(tree).filter(|_| found == *hash),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&path)(error)),
        };
        let Some(tree) = found.map(Arc::new) else {
            self.forget(hash);
            return Err(BlobError::Missing { hash: *hash });
        };
        if let Some(entry) = self.lock().entries.get_mut(hash) {
            entry.tree = Some(Arc::clone(&tree));
        }
        Ok(tree)
    }

    /// Drops what is there of an unfinished blob that nobody fetches.
    fn abandon(&self, name: &Unfinished) {
        let mut index = self.lock();
        if index.forget_partial(name) {
            self.unlink_partial(name);
        }
    }

    fn unlink_partial(&self, (hash, len): &Unfinished) {
        remove(&partial::data_path(&self.inner.dir, hash, *len));
        if groups_of(*len) > 1 {
            remove(&partial::side_path(&self.inner.dir, hash));
        }
    }

    fn touch(&self, hash: &BlobHash) -> bool {
        self.lock().entries.get_mut(hash).map(|entry| entry.touched = SystemTime::now()).is_some()
    }

    fn forget(&self, hash: &BlobHash) {
        let mut index = self.lock();
        if index.remove(hash).is_some() {
            self.unlink(hash);
        }
    }

    fn drop_where(&self, condition: impl Fn(&Entry) -> bool) -> usize {
        let mut index = self.lock();
        let dropped: Vec<_> =
            index.entries.iter().filter(|(_, entry)| entry.pins == 0 && condition(entry)).map(|(hash, _)| *hash).collect();
        dropped.iter().for_each(|hash| self.discard(&mut index, hash));
        dropped.len()
    }

    /// Drops a blob; its file is kept to be written anew if nobody else has it open for writing.
    fn discard(&self, index: &mut Index, hash: &BlobHash) {
        let Some(entry) = index.remove(hash) else { return };
        let room = self.inner.bytes_max.saturating_sub(index.stored).saturating_sub(index.reserved);
        let path = self.file_of(hash);
        let free = entry.tree.is_some() && entry.writer.strong_count() == 0;
        if !(free && index.spares.keep(&self.inner.dir, &path, entry.len, room)) {
            remove(&path);
        }
    }

    /// Sets `len` bytes of the quota aside, dropping what nobody claims as needed.
    fn reserve(&self, len: u64) -> Result<(), BlobError> {
        let bytes_max = self.inner.bytes_max;
        let mut index = self.lock();
        loop {
            let free = bytes_max.saturating_sub(index.stored).saturating_sub(index.reserved);
            if len <= free {
                index.reserved += len;
                index.spares.shrink(&self.inner.dir, free - len);
                return Ok(());
            }
            let (oldest, reclaimable) = index.unclaimed();
            let Some(oldest) = oldest.filter(|_| len <= free.saturating_add(reclaimable)) else {
                return Err(BlobError::Full { len, free, bytes_max });
            };
            match oldest {
                Victim::Blob(hash) => {
                    index.remove(&hash);
                    self.unlink(&hash);
                }
                Victim::Partial(name) => {
                    index.forget_partial(&name);
                    self.unlink_partial(&name);
                }
            }
        }
    }

    fn file_of(&self, hash: &BlobHash) -> PathBuf {
        self.inner.dir.join(hash.to_string())
    }

    /// Removes a file whose entry is gone. What can't be removed is found again at the next start.
    fn unlink(&self, hash: &BlobHash) {
        remove(&self.file_of(hash));
    }

    /// The index; no code panics while it holds the lock halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store has of a group.
pub(crate) enum Found {
    /// The group.
    Bytes(Vec<u8>),
    /// Other groups of the blob, which is being fetched.
    Part(Bits),
    /// Nothing of the blob, or it has another length, or no such group.
    Nothing,
}

fn tree_of_file(file: &mut File) -> io::Result<(BlobHash, Tree)> {
    let mut builder = TreeBuilder::default();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(builder.finish());
        }
        builder.update(&buffer[..read]);
    }
}

/// Removes a file that nobody knows any more. What can't be removed is found again at the next start.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "a file can't be removed");
    }
}
