//! `snapshot.json`: what a snapshot holds, written last. A folder without it is no snapshot.
//!
//! The file has one canonical form, and its own hash is in it: no bit of it can change without notice. Files are
//! believed only after their lengths and their BLAKE3 hashes were compared with it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use psyche_messages::{Address, BlobHash, Digest, RoundKey};
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;

/// Name of the manifest's file.
pub const MANIFEST_FILE: &str = "snapshot.json";
/// The only version of the format so far.
const VERSION: u32 = 1;
/// Longest manifest that is read, in bytes.
const BYTES_MAX: u64 = 4 << 20;
/// Most files of one snapshot.
pub(crate) const FILES_MAX: usize = 8192;
/// Bytes that are read and hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// After so many bytes of verification the log says how far it is.
const PROGRESS_BYTES: u64 = 4 << 30;

/// What the owner of the state knows about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SnapshotLabel {
    /// The round whose results were applied last.
    pub round: RoundKey,
    /// The learning rate of the step that was trained last, for the next step's look-ahead.
    pub look_ahead_lr: f32,
}

/// The settings that momentum and digest depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) chunk: usize,
    pub(crate) topk: usize,
    pub(crate) quantize_1bit: bool,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name in the snapshot's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The BLAKE3 hash of its content.
    pub blake3: BlobHash,
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// The run's coordinator account.
    pub run: Address,
    /// The round whose results were applied last.
    pub round: RoundKey,
    /// The digest of the parameters.
    pub digest: Digest,
    /// As bits, which no text form rounds.
    look_ahead_lr_bits: u32,
    pub(crate) settings: Settings,
    /// Every file but the manifest, ascending by name.
    pub files: Vec<FileRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    /// Over the manifest's compact JSON.
    blake3: BlobHash,
}

/// Enough of a manifest to see that another version wrote it.
#[derive(Deserialize)]
struct AnyVersion {
    manifest: VersionOnly,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Manifest {
    pub(crate) fn new(
        run: Address,
        label: &SnapshotLabel,
        digest: Digest,
        settings: Settings,
        mut files: Vec<FileRecord>,
    ) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let SnapshotLabel { round, look_ahead_lr } = *label;
        let look_ahead_lr_bits = look_ahead_lr.to_bits();
        Self { version: VERSION, run, round, digest, look_ahead_lr_bits, settings, files }
    }

    /// The file's content.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let blake3 = BlobHash::of(&serde_json::to_vec(self)?);
        serde_json::to_vec(&Sealed { manifest: self.clone(), blake3 })
    }

    /// Reads the manifest in `folder`; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, SnapshotError> {
        let path = folder.join(MANIFEST_FILE);
        let refused = |source| SnapshotError::disk(&path, source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refused)?;
        Self::decode(&bytes, &path).map(Some)
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, SnapshotError> {
        let damaged = |problem: &str| SnapshotError::damaged(path, problem);
        if bytes.len() as u64 > BYTES_MAX {
            return Err(damaged("it is longer than any manifest"));
        }
        let sealed: Sealed = serde_json::from_slice(bytes).map_err(|_| match serde_json::from_slice::<AnyVersion>(bytes) {
            Ok(other) if other.manifest.version != VERSION => {
                let version = other.manifest.version;
                SnapshotError::foreign(path, format!("it has version {version}, this program reads version {VERSION}"))
            }
            _ => damaged("it is no manifest"),
        })?;
        let manifest = sealed.manifest;
        let canonical = manifest.encode().map_err(|_| damaged("it is no manifest"))?;
        if canonical != bytes {
            return Err(damaged("its content does not have the hash that it names"));
        }
        if manifest.version != VERSION {
            let version = manifest.version;
            return Err(SnapshotError::foreign(
                path,
                format!("it has version {version}, this program reads version {VERSION}"),
            ));
        }
        let safe = |file: &FileRecord| Path::new(&file.name).file_name() == Some(file.name.as_ref());
        if manifest.files.len() > FILES_MAX || !manifest.files.iter().all(safe) {
            return Err(damaged("it names too many files, or files of other folders"));
        }
        if !manifest.files.is_sorted_by(|a, b| a.name < b.name) {
            return Err(damaged("it names a file twice, or not in order"));
        }
        Ok(manifest)
    }

    /// Whether the snapshot has a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.binary_search_by(|file| file.name.as_str().cmp(name)).is_ok()
    }

    /// The learning rate of the step that was trained last, for the next step's look-ahead.
    #[must_use]
    pub const fn look_ahead_lr(&self) -> f32 {
        f32::from_bits(self.look_ahead_lr_bits)
    }

    /// Bytes of all files but the manifest.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Checks that every file is there in its length.
    pub(crate) fn check_lengths(&self, folder: &Path) -> Result<(), SnapshotError> {
        for record in &self.files {
            let path = folder.join(&record.name);
            let meta = fs::metadata(&path).map_err(|source| SnapshotError::reading(&path, source))?;
            if !meta.is_file() || meta.len() != record.bytes {
                return Err(SnapshotError::damaged(&path, format!("{} bytes, not {}", meta.len(), record.bytes)));
            }
        }
        Ok(())
    }
}

/// A complete snapshot, as far as its manifest and the lengths of its files tell.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds.
    pub manifest: Arc<Manifest>,
}

/// A snapshot whose files were all read and have the hashes that the manifest names.
#[derive(Debug, Clone)]
pub struct Verified(Stored);

impl Verified {
    /// The snapshot.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        &self.0
    }
}

impl Stored {
    /// Reads every file and compares it with the manifest, with `threads` threads.
    ///
    /// # Errors
    /// The first file, by name, that is missing, unreadable or not what was saved.
    pub fn verify(&self, threads: usize) -> Result<Verified, SnapshotError> {
        let files = &self.manifest.files;
        let threads = threads.clamp(1, files.len().max(1));
        let done = AtomicU64::new(0);
        let share = |first: usize| {
            let mut mine = files.iter().enumerate().skip(first).step_by(threads);
            mine.try_for_each(|(index, record)| self.verify_file(record, &done).map_err(|error| (index, error)))
        };
        let share = &share;
        let outcomes = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|first| scope.spawn(move || share(first))).collect();
            let mut outcomes = vec![share(0)];
            outcomes.extend(others.into_iter().map(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            outcomes
        });
        match outcomes.into_iter().filter_map(Result::err).min_by_key(|(index, _)| *index) {
            Some((_, error)) => Err(error),
            None => Ok(Verified(self.clone())),
        }
    }

    fn verify_file(&self, record: &FileRecord, done: &AtomicU64) -> Result<(), SnapshotError> {
        let path = self.folder.join(&record.name);
        let reading = |source| SnapshotError::reading(&path, source);
        let mut file = File::open(&path).map_err(reading)?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut bytes = 0_u64;
        loop {
            let read = file.read(&mut block).map_err(reading)?;
            bytes += read as u64;
            if read == 0 || bytes > record.bytes {
                break;
            }
            hasher.update(&block[..read]);
            let before = done.fetch_add(read as u64, Ordering::Relaxed);
            if before / PROGRESS_BYTES != (before + read as u64) / PROGRESS_BYTES {
                let (read_bytes, of_bytes) = (before + read as u64, self.manifest.bytes());
                tracing::info!(folder = %self.folder.display(), read_bytes, of_bytes, "verifying a snapshot");
            }
        }
        if bytes != record.bytes {
            let more = if bytes > record.bytes { "more" } else { "fewer" };
            return Err(SnapshotError::damaged(&path, format!("it has {more} than the {} bytes saved", record.bytes)));
        }
        if hasher.finalize() != blake3::Hash::from(record.blake3.0) {
            return Err(SnapshotError::damaged(&path, "its content does not have the hash that the manifest names"));
        }
        Ok(())
    }
}
