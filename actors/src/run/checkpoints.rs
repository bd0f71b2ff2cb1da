//! Checkpoints for the world outside the run: the weights of a saved snapshot, without the node's own state, as a folder that
//! is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use psyche_gpu::snapshot::{FileRecord, SnapshotStore};
use psyche_messages::{BlobHash, RoundKey};

use super::snapshots::SnapshotError;
use crate::chain_of;

#[cfg(test)]
mod tests;

/// Files of a snapshot that are the node's own: momentum, and what of it was sent.
const OWN_FILES: [&str; 2] = ["momentum", "sent"];
/// What the folder of a checkpoint that is being written ends with.
const PARTIAL: &str = ".partial";
/// And that of one that is being removed.
const GONE: &str = ".gone";
/// Bytes that are copied and hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Where the checkpoints of a run are kept. One node at a time may use the folder.
#[derive(Clone)]
pub struct CheckpointFolder {
    dir: PathBuf,
    keep: NonZeroUsize,
    snapshots: Arc<SnapshotStore>,
}

impl CheckpointFolder {
    /// Checkpoints of what `snapshots` holds in `dir`, which is this run's, of which the newest `keep` stay.
    #[must_use]
    pub const fn new(dir: PathBuf, keep: NonZeroUsize, snapshots: Arc<SnapshotStore>) -> Self {
        Self { dir, keep, snapshots }
    }

    /// Copies the weights, their configuration and the tokenizer of the snapshot after `round`: the folder. Every file is
    /// compared with what the snapshot's manifest says of it. Blocks on the disk.
    ///
    /// # Errors
    /// [`SnapshotError`] if there is no such snapshot, it is damaged, or the file system refuses; nothing is left then of the
    /// checkpoint, and the ones before it are as they were.
    pub fn write(&self, round: RoundKey) -> Result<PathBuf, SnapshotError> {
        let stored = self.snapshots.find(round.step, None)?.ok_or(SnapshotError::None { step: round.step })?;
        let own = |file: &&FileRecord| OWN_FILES.iter().any(|own| file.name.starts_with(own));
        let files: Vec<_> = stored.manifest.files.iter().filter(|file| !own(file)).collect();
        let folder = self.dir.join(name(round));
        if !holds(&folder, &files) {
            let partial = self.dir.join(name(round) + PARTIAL);
            let made = make(&stored.folder, &files, &partial).and_then(|()| put(&partial, &folder));
            if let Err(error) = made {
                // On a disk that is full, half a checkpoint is in the way of everything else.
                remove(&partial);
                return Err(error);
            }
            sync(&self.dir)?;
        }
        // It is there, whatever becomes of the others.
        if let Err(error) = self.prune(&folder) {
            tracing::warn!(actor = "run", error = %chain_of(&error), "old checkpoints stay");
        }
        Ok(folder)
    }

    /// Lets go those that were written first, beside `newest`, and what crashes left; what has another name is the operator's.
    fn prune(&self, newest: &Path) -> Result<(), SnapshotError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let entry = entry.map_err(at(&self.dir))?;
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || path == newest {
                continue;
            }
            if let Some(round) = round_of(name) {
                // By when it was written, since a run that begins anew begins with early rounds.
                let written = entry.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(((written, round), path));
            } else if [PARTIAL, GONE].iter().any(|end| name.strip_suffix(end).and_then(round_of).is_some()) {
                remove(&path);
            }
        }
        found.sort_by_key(|(written, _)| core::cmp::Reverse(*written));
        for (_, old) in found.iter().skip(self.keep.get() - 1) {
            // Under another name first: a reader sees a whole checkpoint or none.
            let gone = beside(old, GONE);
            fs::rename(old, &gone).map_err(at(old))?;
            remove(&gone);
        }
        Ok(())
    }
}

/// Writes a checkpoint to `partial`, which is made anew.
fn make(from: &Path, files: &[&FileRecord], partial: &Path) -> Result<(), SnapshotError> {
    if partial.exists() {
        fs::remove_dir_all(partial).map_err(at(partial))?;
    }
    fs::create_dir_all(partial).map_err(at(partial))?;
    for file in files {
        copy(&from.join(&file.name), &partial.join(&file.name), file)?;
    }
    sync(partial)
}

/// Gives `partial` its name; what has it, and is something else, goes.
fn put(partial: &Path, folder: &Path) -> Result<(), SnapshotError> {
    let gone = beside(folder, GONE);
    if fs::symlink_metadata(folder).is_ok() {
        remove(&gone);
        fs::rename(folder, &gone).map_err(at(folder))?;
    }
    fs::rename(partial, folder).map_err(at(folder))?;
    remove(&gone);
    Ok(())
}

/// Copies a file to `to` and the disk, if it is what `record` says.
fn copy(from: &Path, to: &Path, record: &FileRecord) -> Result<(), SnapshotError> {
    let mut out = File::create(to).map_err(at(to))?;
    let (bytes, hash) = read(from, |block| out.write_all(block).map_err(at(to)))?;
    out.sync_all().map_err(at(to))?;
    if (bytes, hash) != (record.bytes, record.blake3) {
        return Err(SnapshotError::Damaged { path: from.to_owned() });
    }
    Ok(())
}

/// Reads a file in blocks: its length and hash.
fn read(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), SnapshotError>) -> Result<(u64, BlobHash), SnapshotError> {
    let mut file = File::open(path).map_err(at(path))?;
    let (mut block, mut hasher, mut bytes) = (vec![0; BLOCK_BYTES], blake3::Hasher::new(), 0);
    loop {
        let read = match file.read(&mut block) {
            Ok(0) => return Ok((bytes, BlobHash(*hasher.finalize().as_bytes()))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(at(path))?,
        };
        let block = block.get(..read).unwrap_or_default();
        hasher.update(block);
        bytes += block.len() as u64;
        take(block)?;
    }
}

/// Whether the folder holds exactly these files.
fn holds(folder: &Path, files: &[&FileRecord]) -> bool {
    let as_recorded = |file: &&&FileRecord| {
        let path = folder.join(&file.name);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == file.bytes);
        is_file && read(&path, |_| Ok(())).is_ok_and(|found| found == (file.bytes, file.blake3))
    };
    let count = fs::read_dir(folder).map(Iterator::count).unwrap_or_default();
    !files.is_empty() && count == files.len() && files.iter().filter(as_recorded).count() == files.len()
}

fn name(round: RoundKey) -> String {
    format!("epoch-{}-step-{}", round.epoch.0, round.step.0)
}

fn round_of(text: &str) -> Option<RoundKey> {
    let (epoch, step) = text.strip_prefix("epoch-")?.split_once("-step-")?;
    let round = RoundKey::new(epoch.parse().ok()?, step.parse().ok()?);
    (name(round) == text).then_some(round)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(end);
    text.into()
}

/// Removes what may be there; what can't be removed only costs room.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(actor = "run", path = %path.display(), %error, "what is left of a checkpoint stays on the disk");
    }
}

fn sync(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path: path.clone(), source }
}
