//! Snapshots: the node's state on disk, in one unit that is there as a whole or not at all.
//!
//! A snapshot is a folder that loads in Hugging Face's libraries (`config.json`, weights as f32 safetensors, the
//! tokenizer), and beside that holds what the node needs to go on exactly where it was: momentum, what of it was sent, and
//! in `snapshot.json` the run, the round, the learning rate of the look-ahead, the digest of the parameters, and length
//! and BLAKE3 hash of every file.
//!
//! - *Saving* takes two steps. [`Rank::capture`] copies the state at the speed of memory; [`SnapshotStore::save`] writes the
//!   copy, beside the ranks' work if the caller likes. It writes to another name, syncs every file and the folder, and
//!   renames: a process that is killed, or a machine that loses power, leaves the old snapshots or the new one as well.
//! - *Loading* believes nothing: [`Stored::verify`] compares every file with the manifest, and [`Rank::resume`] compares
//!   the digest of the weights that it has read, before it replaces anything. Either all ranks go on from the snapshot, or
//!   all of them keep what they had.
//!
//! Any layout of devices loads what any other has saved, with the same bits.

mod capture;
mod disk;
mod error;
mod manifest;
mod store;
mod write;

use std::path::Path;

use psyche_messages::Digest;

use crate::GpuError;
use crate::codec::{Selection, check_selection};
use crate::config::LlamaConfig;
use crate::layout::{NodeLayout, Piece};
use crate::mesh::MeshRank;
use crate::weights::{MODEL_FILES, WeightFiles, single_file};
use crate::worker::Rank;

pub use capture::Captured;
pub use error::{Obstacle, SnapshotError};
pub use manifest::{FileRecord, MANIFEST_FILE, Manifest, SnapshotLabel, Stored, Verified};
pub use store::{SnapshotStore, StoreSettings};

pub(crate) use manifest::Settings;

#[cfg(test)]
mod tests;

/// How the files of the momentum begin.
const MOMENTUM_FILES: &str = "momentum";
/// What was sent and is still in the momentum.
const SENT_FILES: &str = "sent";

/// Whether a file of a snapshot is part of the model, rather than of this node's own state or of the tokenizer.
#[must_use]
pub fn is_model_file(name: &str) -> bool {
    let weights = name.strip_prefix(MODEL_FILES).filter(|rest| rest.starts_with(['.', '-']));
    name == "config.json" || weights.is_some_and(|rest| rest.ends_with(".safetensors") || rest == ".safetensors.index.json")
}

/// What one rank has read, and not yet taken over.
struct Fresh {
    master: Vec<f32>,
    momentum: Vec<f32>,
    sent: Option<Vec<Selection>>,
}

impl Rank {
    /// Writes the weights (f32, Hugging Face names) and `config.json` to the new folder `folder`, for others to load.
    ///
    /// Files hold whole tensors and at most `file_bytes_max` bytes of them, or one tensor. Collective.
    ///
    /// # Errors
    /// A folder that exists or can't be written: then nothing appears.
    pub fn snapshot(&mut self, folder: &Path, file_bytes_max: u64) -> Result<(), GpuError> {
        let captured = self.capture_with(false)?;
        let written = captured.map_or(Ok(()), |captured| store::export(&captured, folder, file_bytes_max));
        agree(self.state().0, written.map_err(GpuError::from))
    }

    /// Goes on from a snapshot: weights, momentum and what was sent. Collective.
    ///
    /// # Errors
    /// Files that can't be read or belong to another model or other settings, weights of another digest, on whichever rank:
    /// then every rank keeps what it has.
    pub fn resume(&mut self, snapshot: &Verified) -> Result<(), GpuError> {
        let Stored { folder, manifest } = snapshot.stored();
        let config = self.config().clone();
        let (mesh, layout, optimizer) = self.state();
        let read = || {
            check_config(folder, &config)?;
            if manifest.settings != optimizer.settings() {
                let problem = format!("{:?} of the optimiser, not {:?}", manifest.settings, optimizer.settings());
                return Err(SnapshotError::foreign(&folder.join(MANIFEST_FILE), problem).into());
            }
            let parameters = layout.codec.parameters();
            let momentum = WeightFiles::open(folder, MOMENTUM_FILES)?;
            for parameter in parameters {
                momentum.check_shape(&parameter.spec().name, &parameter.spec().shape)?;
            }
            let momentum = momentum.read_pieces(parameters, layout.pieces(mesh.rank()))?;
            let sent = manifest.has(&single_file(SENT_FILES)).then(|| read_sent(mesh.rank(), layout, folder));
            Ok(Fresh { master: read_weights(mesh, layout, &config, folder)?, momentum, sent: sent.transpose()? })
        };
        let fresh = agree(mesh, read())?;
        self.take_over(fresh, folder, Some(manifest.digest)).map(|_| ())
    }

    /// Replaces the weights by those in `folder`, with empty momentum; returns their digest. Collective.
    ///
    /// # Errors
    /// Files that can't be read or don't fit the model, on whichever rank; weights without the digest `expected`, if there is
    /// one: then every rank keeps what it has.
    pub fn load(&mut self, folder: &Path, expected: Option<Digest>) -> Result<Digest, GpuError> {
        let config = self.config().clone();
        let (mesh, layout, _) = self.state();
        let master = agree(mesh, read_weights(mesh, layout, &config, folder))?;
        let fresh = Fresh { momentum: vec![0.0; master.len()], master, sent: None };
        self.take_over(fresh, folder, expected)
    }

    /// Replaces the rank's state, on all ranks or on none.
    fn take_over(&mut self, fresh: Fresh, folder: &Path, expected: Option<Digest>) -> Result<Digest, GpuError> {
        let found = Digest(self.digest_of(&fresh.master)?);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(SnapshotError::Refuted { path: folder.to_owned(), found, expected }.into());
        }
        let (_, _, optimizer) = self.state();
        let replaced = optimizer.replace(fresh.master, fresh.momentum, fresh.sent);
        replaced.map_err(|error| self.broken(error))?;
        self.forget_losses();
        Ok(found)
    }
}

/// This rank's result if every rank succeeded, else an error on every rank.
fn agree<R>(mesh: &MeshRank, result: Result<R, GpuError>) -> Result<R, GpuError> {
    let all = mesh.agree(result.is_ok())?;
    let result = result?;
    match all.iter().position(|succeeded| !succeeded) {
        Some(rank) => Err(GpuError::Files { rank }),
        None => Ok(result),
    }
}

/// Checks that a snapshot's `config.json` describes this network.
fn check_config(folder: &Path, config: &LlamaConfig) -> Result<(), GpuError> {
    let path = folder.join("config.json");
    let text = std::fs::read(&path).map_err(|source| SnapshotError::reading(&path, source))?;
    let saved = LlamaConfig::from_json(&text)?;
    if saved.with_dtype("float32") == config.with_dtype("float32") {
        return Ok(());
    }
    Err(SnapshotError::foreign(&path, "it describes another network").into())
}

/// The weights of the rank's pieces.
fn read_weights(mesh: &MeshRank, layout: &NodeLayout, config: &LlamaConfig, folder: &Path) -> Result<Vec<f32>, GpuError> {
    let files = WeightFiles::open(folder, MODEL_FILES)?;
    files.check(config)?;
    files.read_pieces(layout.codec.parameters(), layout.pieces(mesh.rank()))
}

/// The selections of `rank`'s pieces.
fn read_sent(rank: usize, layout: &NodeLayout, folder: &Path) -> Result<Vec<Selection>, GpuError> {
    let files = WeightFiles::open(folder, SENT_FILES)?;
    let read = |piece: &Piece| {
        let parameter = &layout.codec.parameters()[piece.part.parameter()];
        let (indices, values) = (format!("indices.{}", parameter.spec().name), format!("values.{}", parameter.spec().name));
        let (k, chunks) = (parameter.k(), piece.part.chunks());
        for name in [&indices, &values] {
            files.check_shape(name, &[parameter.geometry().chunks(), k])?;
        }
        let kept = chunks.len() * k;
        let mut selection = Selection { indices: vec![0; kept], values: vec![0.0; kept] };
        files.read_u32(&indices, chunks.start * k, &mut selection.indices)?;
        files.read_f32(&values, chunks.start * k, &mut selection.values)?;
        check_selection(parameter, &piece.part, &selection)?;
        Ok(selection)
    };
    layout.pieces(rank).iter().map(read).collect()
}
