//! A folder of snapshots: each one a folder of its own that appears all at once, the oldest go.
//!
//! Names are `<number>-epoch-<e>-step-<s>`; numbers grow with every save, so that the newest snapshot is the one that was
//! saved last, whatever its step. `.partial` is being written, `.gone` being removed, `.damaged` was refused and waits for
//! the operator. A save that was interrupted leaves a `.partial`, which the next start removes.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use psyche_messages::{Address, Digest, RoundKey, Step};

use super::capture::Captured;
use super::disk::{Change, Disk, NewFile, Spent};
use super::error::SnapshotError;
use super::manifest::{MANIFEST_FILE, Manifest, SnapshotLabel, Stored};
use super::write::{FilePlan, model_files, state_files, tokenizer_files, write_files};
use crate::GpuError;

/// Entries of the folder that are looked at; ours are few.
const ENTRIES_MAX: usize = 10_000;
const PARTIAL: &str = "partial";
const GONE: &str = "gone";
const DAMAGED: &str = "damaged";

/// How snapshots are kept.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The folder that holds them; it is made when it is needed.
    pub root: PathBuf,
    /// The run's coordinator account: snapshots of other runs are not used.
    pub run: Address,
    /// How many stay.
    pub keep: NonZeroUsize,
    /// Most bytes of tensors in one file, if it holds more than one tensor.
    pub file_bytes_max: u64,
    /// Where the model came from: its tokenizer goes along. Where this folder is gone, that of the snapshot before does.
    pub source: Option<PathBuf>,
}

/// The snapshots of one run on this disk. One process at a time may use the folder.
pub struct SnapshotStore {
    settings: StoreSettings,
    disk: Disk,
}

/// A folder's name, taken apart.
struct Name {
    number: u64,
    round: RoundKey,
    suffix: Option<String>,
}

impl Name {
    fn of(number: u64, round: RoundKey) -> String {
        format!("{number:06}-epoch-{}-step-{}", round.epoch, round.step)
    }

    /// Only what [`Name::of`] makes, with one of our suffixes or none.
    fn parse(text: &str) -> Option<Self> {
        let (base, suffix) = match text.split_once('.') {
            Some((base, suffix)) if [PARTIAL, GONE, DAMAGED].contains(&suffix) => (base, Some(suffix.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        let mut words = base.split('-');
        let (number, epoch) = (words.next()?, words.next().filter(|word| *word == "epoch").and_then(|_| words.next())?);
        let step = words.next().filter(|word| *word == "step").and_then(|_| words.next())?;
        let (number, round) = (number.parse().ok()?, RoundKey::new(epoch.parse().ok()?, step.parse().ok()?));
        (base == Self::of(number, round)).then_some(Self { number, round, suffix })
    }
}

impl SnapshotStore {
    /// The snapshots under `settings.root`, after what earlier crashes left has been removed.
    ///
    /// # Errors
    /// A folder that can't be read. What can't be removed only costs room, and is named in the log.
    pub fn open(settings: StoreSettings) -> Result<Self, SnapshotError> {
        Self::open_on(settings, Disk::default())
    }

    /// The snapshots under `settings.root` for somebody who only looks: nothing is removed, as a node may use the folder.
    #[must_use]
    pub fn look(settings: StoreSettings) -> Self {
        Self { settings, disk: Disk::default() }
    }

    pub(crate) fn open_on(settings: StoreSettings, disk: Disk) -> Result<Self, SnapshotError> {
        let store = Self { settings, disk };
        for (path, name) in store.entries()? {
            if matches!(name.suffix.as_deref(), Some(PARTIAL | GONE))
                && let Err(error) = store.disk.remove_flat_folder(&path)
            {
                tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "can't remove an old snapshot");
            }
        }
        Ok(store)
    }

    /// The folder that holds the snapshots.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.settings.root
    }

    /// What in the folder is ours, ascending by number.
    fn entries(&self) -> Result<Vec<(PathBuf, Name)>, SnapshotError> {
        let refused = |source| SnapshotError::disk(&self.settings.root, source);
        let entries = match fs::read_dir(&self.settings.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused(error)),
        };
        let mut ours = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            let entry = entry.map_err(refused)?;
            let name = entry.file_name().to_str().and_then(Name::parse);
            if let Some(name) = name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                ours.push((entry.path(), name));
            }
        }
        ours.sort_by_key(|(_, name)| name.number);
        Ok(ours)
    }

    /// The snapshots whose manifest is right and whose files have the right lengths, the newest last. Any other is named in
    /// the log.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn list(&self) -> Result<Vec<Stored>, SnapshotError> {
        let complete = self.entries()?.into_iter().filter(|(_, name)| name.suffix.is_none());
        let usable = complete.filter_map(|(folder, name)| match self.inspect(&folder, &name) {
            Ok(stored) => Some(stored),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(folder = %folder.display(), error, "a snapshot can't be used");
                None
            }
        });
        Ok(usable.collect())
    }

    fn inspect(&self, folder: &Path, name: &Name) -> Result<Stored, SnapshotError> {
        let path = folder.join(MANIFEST_FILE);
        let manifest = Manifest::read(folder)?.ok_or_else(|| SnapshotError::damaged(&path, "it is missing"))?;
        if manifest.run != self.settings.run {
            return Err(SnapshotError::foreign(&path, format!("it is of the run {}", manifest.run)));
        }
        if manifest.round != name.round {
            return Err(SnapshotError::damaged(&path, format!("it is of the round {}, unlike its folder", manifest.round)));
        }
        manifest.check_lengths(folder)?;
        Ok(Stored { folder: folder.to_owned(), manifest: Arc::new(manifest) })
    }

    /// The snapshot that was saved last, as [`SnapshotStore::list`] sees it.
    ///
    /// # Errors
    /// As [`SnapshotStore::list`].
    pub fn newest(&self) -> Result<Option<Stored>, SnapshotError> {
        Ok(self.list()?.pop())
    }

    /// The newest snapshot of the parameters after `step`, and with this digest if one is given.
    ///
    /// # Errors
    /// As [`SnapshotStore::list`].
    pub fn find(&self, step: Step, digest: Option<Digest>) -> Result<Option<Stored>, SnapshotError> {
        let fits = |stored: &Stored| {
            stored.manifest.round.step == step && digest.is_none_or(|digest| digest == stored.manifest.digest)
        };
        Ok(self.list()?.into_iter().rev().find(fits))
    }

    /// Puts a damaged snapshot aside, so that it is not used again; the operator may want to look at it.
    ///
    /// # Errors
    /// A folder that can't be renamed.
    pub fn put_aside(&self, damaged: &Stored) -> Result<(), SnapshotError> {
        self.disk.publish(&damaged.folder, &damaged.folder.with_extension(DAMAGED))
    }

    /// Saves a captured state as one unit: it is there as a whole, or not at all. Old ones go once it is.
    ///
    /// # Errors
    /// Whatever the disk refuses; then what was there before is untouched.
    pub fn save(&self, captured: &Captured, label: &SnapshotLabel) -> Result<Stored, GpuError> {
        let began = Instant::now();
        let digest = Digest(captured.digest()?);
        let digested = began.elapsed();
        self.disk.make_folders(&self.settings.root)?;
        let number = self.entries()?.last().map_or(0, |(_, name)| name.number).saturating_add(1);
        let folder = self.settings.root.join(Name::of(number, label.round));
        let staging = folder.with_extension(PARTIAL);
        let written = self.write(captured, label, digest, &staging).and_then(|written| {
            self.disk.publish(&staging, &folder)?;
            Ok(written)
        });
        let (manifest, spent) = match written {
            Ok(written) => written,
            Err(error) => {
                self.discard(&staging);
                return Err(error);
            }
        };
        tracing::info!(
            folder = %folder.display(),
            bytes = manifest.bytes(),
            capture_ms = millis(captured.took),
            digest_ms = millis(digested),
            hash_ms = millis(spent.hash),
            write_ms = millis(spent.write),
            sync_ms = millis(spent.sync),
            total_ms = millis(began.elapsed()),
            "saved a snapshot"
        );
        self.prune();
        Ok(Stored { folder, manifest: Arc::new(manifest) })
    }

    fn write(
        &self,
        captured: &Captured,
        label: &SnapshotLabel,
        digest: Digest,
        staging: &Path,
    ) -> Result<(Manifest, Spent), GpuError> {
        self.disk.change(&Change::MakeFolder(staging))?;
        let file_bytes_max = self.settings.file_bytes_max;
        let text = |error| SnapshotError::disk(staging, io::Error::from(error));
        let mut plans = model_files(captured, file_bytes_max).map_err(text)?;
        plans.extend(state_files(captured, file_bytes_max));
        plans.extend(self.tokenizer());
        let (files, mut spent) = write_files(&self.disk, staging, captured, &plans)?;
        let manifest = Manifest::new(self.settings.run, label, digest, captured.settings, files);
        let mut file = NewFile::create(&self.disk, staging, MANIFEST_FILE)?;
        file.write(&manifest.encode().map_err(text)?)?;
        spent.add(file.finish()?.1);
        Ok((manifest, spent))
    }

    fn tokenizer(&self) -> Vec<FilePlan> {
        match self.settings.source.as_deref() {
            None => Vec::new(),
            Some(source) if source.is_dir() => tokenizer_files(source),
            Some(_gone) => self.newest().ok().flatten().map_or_else(Vec::new, |before| tokenizer_files(&before.folder)),
        }
    }

    /// Removes what a failed save left; what can't be removed now goes at the next start.
    fn discard(&self, staging: &Path) {
        if staging.is_dir()
            && let Err(error) = self.disk.remove_flat_folder(staging)
        {
            tracing::warn!(path = %staging.display(), error = &error as &dyn std::error::Error, "can't remove half a snapshot");
        }
    }

    /// Lets old snapshots go, and all but the last of those put aside. Never fails a save that has succeeded.
    fn prune(&self) {
        let old = || {
            let mut usable = self.list()?;
            usable.truncate(usable.len().saturating_sub(self.settings.keep.get()));
            let mut aside: Vec<_> = self.entries()?;
            aside.retain(|(_, name)| name.suffix.as_deref() == Some(DAMAGED));
            aside.pop();
            Ok::<_, SnapshotError>(usable.into_iter().map(|old| old.folder).chain(aside.into_iter().map(|(path, _)| path)))
        };
        let removed = old().and_then(|mut folders| folders.try_for_each(|folder| self.remove(&folder)));
        if let Err(error) = removed {
            tracing::warn!(error = &error as &dyn std::error::Error, "can't remove an old snapshot");
        }
    }

    /// Removes a snapshot: first its name, so that nobody takes what is left for one.
    fn remove(&self, folder: &Path) -> Result<(), SnapshotError> {
        let gone = folder.with_extension(GONE);
        self.disk.publish(folder, &gone)?;
        self.disk.remove_flat_folder(&gone)
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes `plans` to the new folder `folder`, which appears all at once.
pub(super) fn export(captured: &Captured, folder: &Path, file_bytes_max: u64) -> Result<(), SnapshotError> {
    let disk = Disk::default();
    if folder.exists() {
        return Err(SnapshotError::disk(folder, io::ErrorKind::AlreadyExists.into()));
    }
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(PARTIAL);
    let staging = folder.with_file_name(name);
    if staging.is_dir() {
        disk.remove_flat_folder(&staging)?;
    }
    disk.make_folders(&staging)?;
    let plans = model_files(captured, file_bytes_max).map_err(|error| SnapshotError::disk(folder, error.into()))?;
    write_files(&disk, &staging, captured, &plans)?;
    disk.publish(&staging, folder)
}
