//! The only place where saving touches the disk: one [`Change`] after another, each durable in its time.
//!
//! Tests watch the changes go by: they end the process before any of them or in the midst of a write, refuse them as a
//! full disk would, and check that what is renamed has been synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use psyche_messages::BlobHash;

use super::error::SnapshotError;
use super::manifest::FileRecord;

/// Bytes that are hashed and written at a time: little enough that what was hashed is still in the cache.
const BLOCK_BYTES: usize = 1 << 20;

/// One thing done to the disk.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// Makes a folder.
    MakeFolder(&'a Path),
    /// Makes an empty file, which must be new.
    Create(&'a Path),
    /// Appends to a file.
    Write(&'a Path, &'a File, &'a [u8]),
    /// Makes a file's content durable.
    Sync(&'a Path, &'a File),
    /// Makes durable which names a folder holds.
    SyncFolder(&'a Path),
    /// Gives the first the name of the second.
    Rename(&'a Path, &'a Path),
    /// Removes a file.
    RemoveFile(&'a Path),
    /// Removes an empty folder.
    RemoveFolder(&'a Path),
}

impl Change<'_> {
    /// What it is done to.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::MakeFolder(path)
            | Self::Create(path)
            | Self::Write(path, ..)
            | Self::Sync(path, _)
            | Self::SyncFolder(path)
            | Self::Rename(_, path)
            | Self::RemoveFile(path)
            | Self::RemoveFolder(path) => path,
        }
    }

    fn carry_out(&self) -> io::Result<()> {
        match self {
            Self::MakeFolder(path) => fs::create_dir(path),
            Self::Create(path) => File::create_new(path).map(drop),
            Self::Write(_, file, bytes) => (&mut &**file).write_all(bytes),
            Self::Sync(_, file) => file.sync_all(),
            Self::SyncFolder(path) => File::open(path)?.sync_all(),
            Self::Rename(from, to) => fs::rename(from, to),
            Self::RemoveFile(path) => fs::remove_file(path),
            Self::RemoveFolder(path) => fs::remove_dir(path),
        }
    }
}

/// Sees every change before it happens; an error keeps it from happening.
#[cfg(test)]
pub(crate) trait Watcher: Send + Sync {
    fn before(&self, change: &Change<'_>) -> io::Result<()>;
}

/// The way to the disk.
#[derive(Clone)]
pub(crate) struct Disk {
    block_bytes: usize,
    #[cfg(test)]
    watcher: Option<std::sync::Arc<dyn Watcher>>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES,
            #[cfg(test)]
            watcher: None,
        }
    }
}

impl Disk {
    /// A disk whose changes `watcher` sees, and that writes `block_bytes` at a time.
    #[cfg(test)]
    pub(crate) fn watched(watcher: std::sync::Arc<dyn Watcher>, block_bytes: usize) -> Self {
        Self { block_bytes, watcher: Some(watcher) }
    }

    /// Makes one change.
    pub(crate) fn change(&self, change: &Change<'_>) -> Result<(), SnapshotError> {
        let done = self.announce(change).and_then(|()| change.carry_out());
        done.map_err(|source| SnapshotError::disk(change.path(), source))
    }

    #[cfg(test)]
    fn announce(&self, change: &Change<'_>) -> io::Result<()> {
        self.watcher.as_ref().map_or(Ok(()), |watcher| watcher.before(change))
    }

    #[cfg(not(test))]
    const fn announce(&self, _: &Change<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Makes a folder and those above it, durably; one that exists is left as it is.
    pub(crate) fn make_folders(&self, folder: &Path) -> Result<(), SnapshotError> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = parent_of(folder);
        if parent != folder {
            self.make_folders(&parent)?;
        }
        self.change(&Change::MakeFolder(folder))?;
        self.change(&Change::SyncFolder(&parent))
    }

    /// Removes a folder that holds nothing but files.
    pub(crate) fn remove_flat_folder(&self, folder: &Path) -> Result<(), SnapshotError> {
        let refused = |source| SnapshotError::disk(folder, source);
        for entry in fs::read_dir(folder).map_err(refused)? {
            self.change(&Change::RemoveFile(&entry.map_err(refused)?.path()))?;
        }
        self.change(&Change::RemoveFolder(folder))
    }

    /// Gives a folder its name, durably.
    pub(crate) fn publish(&self, staging: &Path, folder: &Path) -> Result<(), SnapshotError> {
        self.change(&Change::SyncFolder(staging))?;
        self.change(&Change::Rename(staging, folder))?;
        self.change(&Change::SyncFolder(&parent_of(folder)))
    }
}

/// The folder that holds `path`.
fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// Where the time of writing went, added over all threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) hash: Duration,
    pub(crate) write: Duration,
    pub(crate) sync: Duration,
}

impl Spent {
    pub(crate) fn add(&mut self, other: Self) {
        self.hash += other.hash;
        self.write += other.write;
        self.sync += other.sync;
    }
}

/// A file that is being written, and hashed on the way.
pub(crate) struct NewFile<'a> {
    disk: &'a Disk,
    path: PathBuf,
    name: String,
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    spent: Spent,
}

impl<'a> NewFile<'a> {
    /// Makes the file `name` in `folder`.
    pub(crate) fn create(disk: &'a Disk, folder: &Path, name: &str) -> Result<Self, SnapshotError> {
        let path = folder.join(name);
        disk.change(&Change::Create(&path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| SnapshotError::disk(&path, source))?;
        let (hasher, spent) = (blake3::Hasher::new(), Spent::default());
        Ok(Self { disk, path, name: name.to_owned(), file, hasher, bytes: 0, spent })
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        for block in bytes.chunks(self.disk.block_bytes) {
            let began = Instant::now();
            self.hasher.update(block);
            let hashed = Instant::now();
            self.disk.change(&Change::Write(&self.path, &self.file, block))?;
            self.spent.hash += hashed - began;
            self.spent.write += hashed.elapsed();
            self.bytes += block.len() as u64;
        }
        Ok(())
    }

    /// Makes the content durable, and says what it is.
    pub(crate) fn finish(mut self) -> Result<(FileRecord, Spent), SnapshotError> {
        let began = Instant::now();
        self.disk.change(&Change::Sync(&self.path, &self.file))?;
        self.spent.sync += began.elapsed();
        let blake3 = BlobHash(self.hasher.finalize().into());
        Ok((FileRecord { name: self.name, bytes: self.bytes, blake3 }, self.spent))
    }
}
