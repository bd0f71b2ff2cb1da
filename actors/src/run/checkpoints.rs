//! Checkpoints for the world outside the run: the weights of a saved snapshot, without the node's own state, as a folder that
//! is there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use psyche_gpu::snapshot::SnapshotStore;
use psyche_messages::RoundKey;

use super::snapshots::SnapshotError;

/// Files of a snapshot that are the node's own: momentum, and what of it was sent.
const OWN_FILES: [&str; 2] = ["momentum", "sent"];
/// What the folder of a checkpoint that is being written ends with.
const PARTIAL: &str = ".partial";

/// Where checkpoints are kept.
#[derive(Clone)]
pub struct CheckpointFolder {
    dir: PathBuf,
    keep: NonZeroUsize,
    snapshots: Arc<SnapshotStore>,
}

impl CheckpointFolder {
    /// Checkpoints of what `snapshots` holds in `dir`, of which the newest `keep` stay.
    #[must_use]
    pub const fn new(dir: PathBuf, keep: NonZeroUsize, snapshots: Arc<SnapshotStore>) -> Self {
        Self { dir, keep, snapshots }
    }

    /// Copies the weights, their configuration and the tokenizer of the snapshot after `round`: the folder. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`SnapshotError`] if there is no such snapshot, or the file system refuses; nothing is left then but a folder that
    /// the next one replaces.
    pub fn write(&self, round: RoundKey) -> Result<PathBuf, SnapshotError> {
        let stored = self.snapshots.find(round.step, None)?.ok_or(SnapshotError::None { step: round.step })?;
        let folder = self.dir.join(name(round));
        if folder.is_dir() {
            return Ok(folder);
        }
        let partial = self.dir.join(name(round) + PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(at(&partial))?;
        }
        fs::create_dir_all(&partial).map_err(at(&partial))?;
        let names = stored.manifest.files.iter().map(|file| file.name.as_str());
        for file in names.filter(|file| !OWN_FILES.iter().any(|own| file.starts_with(own))) {
            let to = partial.join(file);
            fs::copy(stored.folder.join(file), &to).map_err(at(&to))?;
            sync(&to)?;
        }
        sync(&partial)?;
        fs::rename(&partial, &folder).map_err(at(&folder))?;
        sync(&self.dir)?;
        self.prune()?;
        Ok(folder)
    }

    /// Lets the oldest go; what has another name is the operator's.
    fn prune(&self) -> Result<(), SnapshotError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            if let Some(round) = path.file_name().and_then(|name| round_of(name.to_str()?)) {
                found.push((round, path));
            }
        }
        found.sort_by_key(|(round, _)| core::cmp::Reverse(*round));
        for (_, old) in found.iter().skip(self.keep.get()) {
            fs::remove_dir_all(old).map_err(at(old))?;
        }
        Ok(())
    }
}

fn name(round: RoundKey) -> String {
    format!("epoch-{}-step-{}", round.epoch.0, round.step.0)
}

fn round_of(name: &str) -> Option<RoundKey> {
    let (epoch, step) = name.strip_prefix("epoch-")?.split_once("-step-")?;
    Some(RoundKey::new(epoch.parse().ok()?, step.parse().ok()?))
}

fn sync(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_this_node_named_are_its_own() {
        let round = RoundKey::new(3, 77);
        assert_eq!(round_of(&name(round)), Some(round));
        for other in ["epoch-3", "epoch-3-step-77.partial", "notes", "epoch-x-step-1"] {
            assert_eq!(round_of(other), None, "{other}");
        }
    }
}
