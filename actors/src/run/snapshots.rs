//! The node's snapshots on disk: written at the end of epochs, served to joiners, fetched from peers.
//!
//! A snapshot is a folder with the model's files and, written last, `snapshot.json` with its round and digest. The newest
//! two stay; their files are also blobs, which peers fetch by the index that is gossiped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use psyche_messages::{BlobHash, Digest, PeerKey, RoundKey, SnapshotAnnounced};
use psyche_net::{FetchError, NetError, SnapshotFile, SnapshotIndex, WireError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::gossip::{CopyBlob, FetchBlob, GradientGossip, ReadBlob, StoreBlob, StoreFile, Unpin};
use crate::supervisor::{AskError, Supervised};

/// Snapshots that stay on disk and are served.
const KEPT: usize = 2;
/// Name of the file that makes a snapshot complete.
const META: &str = "snapshot.json";
/// Largest such file, in bytes.
const META_BYTES_MAX: u64 = 4096;
/// Most bytes of a snapshot beside the parameters: headers and the configuration.
const OVERHEAD_BYTES_MAX: u64 = 64 << 20;
/// Folder for what is fetched from peers.
const INCOMING: &str = "incoming";

/// Why a snapshot could not be written, read or fetched.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file system refuses.
    #[error("use {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `snapshot.json` is malformed.
    #[error("read {}", path.display())]
    Meta {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no snapshot on this disk.
    #[error("find a snapshot on this disk")]
    None,
    /// The index names files that no snapshot has.
    #[error("read the index of a snapshot")]
    Index(#[from] WireError),
    /// The index was fetched, and is gone.
    #[error("find the index of a snapshot")]
    IndexGone,
    /// The files are larger than the model can be.
    #[error("accept a snapshot of {bytes} bytes: the model's has at most {bytes_max}")]
    TooLarge {
        /// What the index announces.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A blob could not be stored or copied.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The network's actor died.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// What `snapshot.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The round whose results were applied last.
    pub round: RoundKey,
    /// The digest of the parameters.
    pub digest: Digest,
}

/// A complete snapshot.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds.
    pub meta: SnapshotMeta,
}

/// The newest complete snapshot in `root`, if there is one.
///
/// # Errors
/// [`SnapshotError`] if the folder can't be read; incomplete snapshots are passed over.
pub fn newest_in(root: &Path) -> Result<Option<Stored>, SnapshotError> {
    Ok(all_in(root)?.pop())
}

/// All complete snapshots, the newest last.
fn all_in(root: &Path) -> Result<Vec<Stored>, SnapshotError> {
    let refused = |source| SnapshotError::Io { path: root.to_owned(), source };
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let folder = entry.map_err(refused)?.path();
        match read_meta(&folder.join(META)) {
            Ok(Some(meta)) => found.push(Stored { folder, meta }),
            Ok(None) => {}
            Err(error) => tracing::warn!(actor = "devices", error = %crate::chain_of(&error), "a snapshot is unreadable"),
        }
    }
    found.sort_by_key(|stored| stored.meta.round);
    Ok(found)
}

fn read_meta(path: &Path) -> Result<Option<SnapshotMeta>, SnapshotError> {
    let refused = |source| SnapshotError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > META_BYTES_MAX => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    }
    let json = fs::read(path).map_err(refused)?;
    serde_json::from_slice(&json).map(Some).map_err(|source| SnapshotError::Meta { path: path.to_owned(), source })
}

/// The snapshots of a node.
pub(super) struct Snapshots {
    root: PathBuf,
    gossip: Supervised<GradientGossip>,
    bytes_max: u64,
    /// Blobs of each served snapshot, the newest last.
    served: Vec<Vec<BlobHash>>,
}

impl Snapshots {
    /// Snapshots in `root`, each of a model with `parameters` parameters.
    pub(super) const fn new(root: PathBuf, gossip: Supervised<GradientGossip>, parameters: u64) -> Self {
        let bytes_max = parameters.saturating_mul(size_of::<f32>() as u64).saturating_add(OVERHEAD_BYTES_MAX);
        Self { root, gossip, bytes_max, served: Vec::new() }
    }

    pub(super) fn newest(&self) -> Result<Option<Stored>, SnapshotError> {
        newest_in(&self.root)
    }

    fn folder_of(&self, round: RoundKey) -> PathBuf {
        self.root.join(format!("epoch-{}-step-{}", round.epoch, round.step))
    }

    /// The folder for the snapshot of `round`, which does not exist yet.
    pub(super) fn begin(&self, round: RoundKey) -> Result<PathBuf, SnapshotError> {
        let folder = self.folder_of(round);
        remove_folder(&folder)?;
        fs::create_dir_all(&self.root).map_err(|source| SnapshotError::Io { path: self.root.clone(), source })?;
        Ok(folder)
    }

    /// Completes and serves the snapshot in the folder of `round`, and lets old ones go.
    pub(super) async fn finish(&mut self, round: RoundKey, digest: Digest) -> Result<SnapshotAnnounced, SnapshotError> {
        let folder = self.folder_of(round);
        let mut files = Vec::new();
        for name in names_in(&folder)? {
            let (blob, len) = self.gossip.ask(StoreFile(folder.join(&name))).await??;
            files.push(SnapshotFile { name, blob, len });
        }
        let mut blobs: Vec<_> = files.iter().map(|file| file.blob).collect();
        let bytes = SnapshotIndex::new(files)?.encode()?;
        let index_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let index = self.gossip.ask(StoreBlob { bytes, round: None }).await??;
        blobs.push(index);
        self.served.push(blobs);
        if self.served.len() > KEPT {
            self.gossip.ask(Unpin(self.served.remove(0))).await?;
        }
        write_meta(&folder.join(META), &SnapshotMeta { round, digest })?;
        self.remove_old()?;
        Ok(SnapshotAnnounced { round, digest, index, index_len })
    }

    fn remove_old(&self) -> Result<(), SnapshotError> {
        let mut all = all_in(&self.root)?;
        all.truncate(all.len().saturating_sub(KEPT));
        for old in all {
            fs::remove_dir_all(&old.folder).map_err(|source| SnapshotError::Io { path: old.folder, source })?;
        }
        Ok(())
    }

    /// Fetches the files under `index` from peers: the folder that they are in.
    pub(super) async fn fetch(&self, index: BlobHash, len: u32, providers: &[PeerKey]) -> Result<PathBuf, SnapshotError> {
        let fetch = |blob, len| FetchBlob { blob, len, providers: providers.to_vec(), round: None };
        self.gossip.ask(fetch(index, u64::from(len))).await??;
        let bytes = self.gossip.ask(ReadBlob(index)).await?.ok_or(SnapshotError::IndexGone)?;
        let index_of = SnapshotIndex::decode(&bytes)?;
        if index_of.total_len() > self.bytes_max {
            return Err(SnapshotError::TooLarge { bytes: index_of.total_len(), bytes_max: self.bytes_max });
        }
        let folder = self.root.join(INCOMING);
        empty_folder(&folder)?;
        let mut fetched = vec![index];
        for file in index_of.files() {
            self.gossip.ask(fetch(file.blob, file.len)).await??;
            fetched.push(file.blob);
            self.gossip.ask(CopyBlob { blob: file.blob, to: folder.join(&file.name) }).await??;
        }
        // They stay for others until the store needs their room.
        self.gossip.ask(Unpin(fetched)).await?;
        Ok(folder)
    }
}

fn empty_folder(folder: &Path) -> Result<(), SnapshotError> {
    remove_folder(folder)?;
    fs::create_dir_all(folder).map_err(|source| SnapshotError::Io { path: folder.to_owned(), source })
}

fn remove_folder(folder: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SnapshotError::Io { path: folder.to_owned(), source }),
        _ => Ok(()),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, SnapshotError> {
    let refused = |source| SnapshotError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        if let Some(name) = name.to_str() {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Writes beside and renames, so that the file is there whole or not at all.
fn write_meta(path: &Path, meta: &SnapshotMeta) -> Result<(), SnapshotError> {
    let refused = |source| SnapshotError::Io { path: path.to_owned(), source };
    let json = serde_json::to_vec(meta).map_err(|source| SnapshotError::Meta { path: path.to_owned(), source })?;
    let beside = path.with_extension("new");
    fs::write(&beside, json).map_err(refused)?;
    fs::rename(&beside, path).map_err(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    fn snapshot(root: &Path, step: u32) {
        let folder = root.join(format!("epoch-0-step-{step}"));
        fs::create_dir_all(&folder).unwrap();
        write_meta(&folder.join(META), &SnapshotMeta { round: RoundKey::new(0, step), digest: Digest([7; 32]) }).unwrap();
    }

    #[test]
    fn the_newest_complete_snapshot_is_found() {
        let root = tempfile::tempdir().unwrap();
        assert!(newest_in(&root.path().join("absent")).unwrap().is_none());
        snapshot(root.path(), 9);
        snapshot(root.path(), 10);
        fs::create_dir_all(root.path().join("epoch-0-step-11")).unwrap();
        let newest = newest_in(root.path()).unwrap().unwrap();
        assert_eq!(newest.meta.round, RoundKey::new(0, 10));
    }

    #[test]
    fn an_unreadable_snapshot_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        snapshot(root.path(), 1);
        let broken = root.path().join("epoch-0-step-2");
        fs::create_dir_all(&broken).unwrap();
        fs::write(broken.join(META), "{").unwrap();
        assert_eq!(newest_in(root.path()).unwrap().unwrap().meta.round, RoundKey::new(0, 1));
    }
}
