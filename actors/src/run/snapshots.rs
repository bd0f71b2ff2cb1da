//! The node's snapshots: saved at the end of epochs, served to joiners, fetched from peers.
//!
//! What lies on the disk is [`psyche_gpu::snapshot`]'s; here its model files become blobs, which peers fetch by the index
//! that is gossiped. The node's own state (momentum) and the tokenizer are not served: every node that holds the same
//! parameters serves the same files under the same index.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use psyche_gpu::GpuError;
use psyche_gpu::snapshot::{Captured, SnapshotLabel, SnapshotStore, Stored, Verified, is_model_file};
use psyche_messages::{BlobHash, Digest, PeerKey, SnapshotAnnounced, Step};
use psyche_net::{FetchError, NetError, SnapshotFile, SnapshotIndex, WireError};
use thiserror::Error;

use crate::engine::DiskSnapshot;
use crate::gossip::{CopyBlob, FetchBlob, GradientGossip, ReadBlob, StoreBlob, StoreFile, Unpin};
use crate::supervisor::{AskError, Supervised};

/// Snapshots that are served.
const SERVED: usize = 2;
/// Most bytes of a snapshot beside the parameters: headers and the configuration.
const OVERHEAD_BYTES_MAX: u64 = 64 << 20;
/// Folder for what is fetched from peers.
const INCOMING: &str = "incoming";
/// Threads that compare a snapshot's files with its manifest.
const VERIFY_THREADS: usize = 4;

/// Why a snapshot could not be saved, read or fetched.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Saving or reading failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The file system refuses.
    #[error("use {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such snapshot on this disk.
    #[error("find a snapshot of step {step} on this disk")]
    None {
        /// The step that was asked for.
        step: Step,
    },
    /// A file of a snapshot on this disk is not what its manifest says.
    #[error("copy {}: it is not what was saved there", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
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
    /// The thread that worked on the files died.
    #[error("work on the files of a snapshot")]
    Thread,
}

impl From<psyche_gpu::snapshot::SnapshotError> for SnapshotError {
    fn from(error: psyche_gpu::snapshot::SnapshotError) -> Self {
        Self::Gpu(error.into())
    }
}

/// The snapshots of a node. Whoever holds this works on them alone.
pub(super) struct Snapshots {
    store: Arc<SnapshotStore>,
    gossip: Supervised<GradientGossip>,
    bytes_max: u64,
    /// Blobs of each served snapshot, the newest last.
    served: Vec<Vec<BlobHash>>,
}

impl Snapshots {
    /// Snapshots in `store`, each of a model with `parameters` parameters.
    pub(super) const fn new(store: Arc<SnapshotStore>, gossip: Supervised<GradientGossip>, parameters: u64) -> Self {
        let bytes_max = parameters.saturating_mul(size_of::<f32>() as u64).saturating_add(OVERHEAD_BYTES_MAX);
        Self { store, gossip, bytes_max, served: Vec::new() }
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SnapshotStore) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_died| SnapshotError::Thread)?
    }

    /// The snapshot that was saved last, as far as its manifest tells.
    pub(super) async fn newest(&self) -> Result<Option<Stored>, SnapshotError> {
        self.on_disk(|store| Ok(store.newest()?)).await
    }

    /// The newest snapshot after `step`, with this digest if one is given, once all its files are verified. A damaged one is
    /// put aside.
    pub(super) async fn verified(&self, step: Step, digest: Option<Digest>) -> Result<Verified, SnapshotError> {
        let find = move |store: &SnapshotStore| {
            let stored = store.find(step, digest)?.ok_or(SnapshotError::None { step })?;
            stored.verify(VERIFY_THREADS).map_err(|error| {
                if error.is_damage() {
                    put_aside(store, &stored);
                }
                error.into()
            })
        };
        self.on_disk(find).await
    }

    /// Sees to it that a snapshot that can't be trusted is not used again.
    pub(super) async fn refuse(&self, damaged: Stored) {
        let aside = move |store: &SnapshotStore| {
            put_aside(store, &damaged);
            Ok(())
        };
        if let Err(error) = self.on_disk(aside).await {
            tracing::warn!(actor = "devices", error = %crate::chain_of(&error), "a damaged snapshot stays where it is");
        }
    }

    /// Saves a captured state and serves its model; lets old ones go.
    pub(super) async fn save(&mut self, captured: Captured, label: SnapshotLabel) -> Result<SnapshotAnnounced, SnapshotError> {
        let stored = self.on_disk(move |store| Ok(store.save(&captured, &label)?)).await?;
        let mut files = Vec::new();
        for record in stored.manifest.files.iter().filter(|file| is_model_file(&file.name)) {
            let name = record.name.clone();
            let (blob, len) = self.gossip.ask(StoreFile(stored.folder.join(&name))).await??;
            files.push(SnapshotFile { name, blob, len });
        }
        let mut blobs: Vec<_> = files.iter().map(|file| file.blob).collect();
        let bytes = SnapshotIndex::new(files)?.encode()?;
        let index_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let index = self.gossip.ask(StoreBlob { bytes, round: None }).await??;
        blobs.push(index);
        self.served.push(blobs);
        if self.served.len() > SERVED {
            self.gossip.ask(Unpin(self.served.remove(0))).await?;
        }
        Ok(SnapshotAnnounced { round: label.round, digest: stored.manifest.digest, index, index_len })
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
        let folder = self.store.root().join(INCOMING);
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

    /// Removes the copies that [`Snapshots::fetch`] made.
    pub(super) fn forget_fetched(&self) {
        let folder = self.store.root().join(INCOMING);
        if let Err(error) = remove_folder(&folder) {
            tracing::warn!(actor = "devices", error = %crate::chain_of(&error), "fetched files stay on the disk");
        }
    }
}

/// What the engine needs to know of a stored snapshot.
pub fn on_disk(stored: &Stored) -> DiskSnapshot {
    DiskSnapshot { step: stored.manifest.round.step, digest: stored.manifest.digest }
}

fn put_aside(store: &SnapshotStore, damaged: &Stored) {
    if let Err(error) = store.put_aside(damaged) {
        tracing::warn!(actor = "devices", error = %crate::chain_of(&error), "a damaged snapshot stays where it is");
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
