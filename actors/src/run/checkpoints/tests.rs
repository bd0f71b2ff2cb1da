//! Checkpoints on a real disk, and what disks, crashes and operators do to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use psyche_gpu::snapshot::{MANIFEST_FILE, Manifest, StoreSettings};
use psyche_messages::Address;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const RUN: Address = Address([3; 32]);
/// What a checkpoint holds of the files below.
const WEIGHTS: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

/// A node's disk: snapshots, and the folder of checkpoints.
struct Disk {
    dir: TempDir,
    checkpoints: CheckpointFolder,
}

impl Disk {
    fn new(keep: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep = NonZeroUsize::new(keep).unwrap();
        let settings =
            StoreSettings { root: dir.path().join("snapshots"), run: RUN, keep, file_bytes_max: 1 << 20, source: None };
        let store = Arc::new(SnapshotStore::open(settings).unwrap());
        let checkpoints = CheckpointFolder::new(dir.path().join("out"), keep, store);
        Self { dir, checkpoints }
    }

    /// Saves a snapshot after `round` whose files hold `content`.
    fn snapshot(&self, number: u32, round: RoundKey, content: &str) -> PathBuf {
        let folder = self.dir.path().join(format!("snapshots/{number:06}-{}", name(round)));
        fs::create_dir_all(&folder).unwrap();
        let mut files = Vec::new();
        for file in ["config.json", "model.safetensors", "momentum-0.safetensors", "sent-0.safetensors", "tokenizer.json"] {
            let text = format!("{file} {content}").repeat(50_000);
            fs::write(folder.join(file), &text).unwrap();
            files.push(json!({"name": file, "bytes": text.len(), "blake3": BlobHash::of(text.as_bytes())}));
        }
        let manifest: Manifest = serde_json::from_value(json!({
            "version": 1, "run": RUN, "round": round, "digest": "00".repeat(32), "look_ahead_lr_bits": 0,
            "settings": {"chunk": 16, "topk": 8, "quantize_1bit": true}, "files": files,
        }))
        .unwrap();
        let manifest = serde_json::to_string(&manifest).unwrap();
        let hash = serde_json::to_string(&BlobHash::of(manifest.as_bytes())).unwrap();
        fs::write(folder.join(MANIFEST_FILE), format!("{{\"manifest\":{manifest},\"blake3\":{hash}}}")).unwrap();
        folder
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Names in the folder of checkpoints, ascending.
    fn names(&self) -> Vec<String> {
        names(&self.out())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn weights(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("model.safetensors")).unwrap();
    text[..text.len() / 50_000].to_owned()
}

/// Sets when a checkpoint was written, as far as anybody can tell.
fn age(folder: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(3600 * hours);
    File::open(folder).unwrap().set_modified(then).unwrap();
}

#[test]
fn only_folders_that_this_node_named_are_its_own() {
    let round = RoundKey::new(3, 77);
    assert_eq!(round_of(&name(round)), Some(round));
    for other in ["epoch-3", "epoch-3-step-77.partial", "notes", "epoch-x-step-1", "epoch-03-step-77", "epoch-3-step-+7"] {
        assert_eq!(round_of(other), None, "{other}");
    }
}

#[test]
fn a_checkpoint_is_the_snapshot_without_what_is_the_nodes_own() {
    let disk = Disk::new(2);
    let round = RoundKey::new(1, 8);
    let missing = disk.checkpoints.write(round).unwrap_err();
    assert!(matches!(missing, SnapshotError::None { step } if step == round.step), "{missing}");
    disk.snapshot(1, round, "a");
    let folder = disk.checkpoints.write(round).unwrap();
    assert_eq!((folder.clone(), names(&folder)), (disk.out().join("epoch-1-step-8"), WEIGHTS.map(str::to_owned).to_vec()));
    assert_eq!(weights(&folder), "model.safetensors a");
    // Once more, after a restart: it is there, and is left as it is.
    age(&folder, 5);
    let written = fs::metadata(&folder).unwrap().modified().unwrap();
    assert_eq!(disk.checkpoints.write(round).unwrap(), folder);
    assert_eq!(fs::metadata(&folder).unwrap().modified().unwrap(), written);
}

#[test]
fn a_full_disk_is_told_and_what_it_leaves_is_in_nobodys_way() {
    let disk = Disk::new(2);
    let (before, round) = (RoundKey::new(0, 4), RoundKey::new(1, 8));
    disk.snapshot(1, before, "a");
    let kept = disk.checkpoints.write(before).unwrap();
    let snapshot = disk.snapshot(2, round, "b");
    // A disk on which no byte finds room, where the new checkpoint is to be written.
    let partial = disk.out().join("epoch-1-step-8.partial");
    fs::create_dir(&partial).unwrap();
    let record = |file: &str| {
        let bytes = fs::read(snapshot.join(file)).unwrap();
        FileRecord { name: file.to_owned(), bytes: bytes.len() as u64, blake3: BlobHash::of(&bytes) }
    };
    symlink("/dev/full", partial.join("model.safetensors")).unwrap();
    let full = copy(&snapshot.join("model.safetensors"), &partial.join("model.safetensors"), &record("model.safetensors"));
    let SnapshotError::Io { source, .. } = full.unwrap_err() else { panic!("it is the disk's fault") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    // What such a node leaves is in nobody's way.
    assert_eq!(weights(&disk.checkpoints.write(round).unwrap()), "model.safetensors b");
    assert_eq!((weights(&kept).as_str(), disk.names().len()), ("model.safetensors a", 2));
}

#[test]
fn a_damaged_snapshot_becomes_no_checkpoint() {
    let disk = Disk::new(2);
    let (before, round) = (RoundKey::new(0, 4), RoundKey::new(1, 8));
    disk.snapshot(1, before, "a");
    disk.checkpoints.write(before).unwrap();
    let snapshot = disk.snapshot(2, round, "b");
    let path = snapshot.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = disk.checkpoints.write(round).unwrap_err();
    assert!(matches!(&refused, SnapshotError::Damaged { path: named } if *named == path), "{refused}");
    assert_eq!(disk.names(), ["epoch-0-step-4"], "and nothing of it stays");
}

#[test]
fn what_a_crash_left_is_replaced_or_removed() {
    let disk = Disk::new(2);
    let round = RoundKey::new(1, 8);
    disk.snapshot(1, round, "a");
    for (left, file) in
        [("epoch-1-step-8.partial", "model.safetensors"), ("epoch-0-step-4.partial", "half"), ("epoch-0-step-2.gone", "old")]
    {
        fs::create_dir_all(disk.out().join(left)).unwrap();
        fs::write(disk.out().join(left).join(file), "half a file").unwrap();
    }
    assert_eq!(weights(&disk.checkpoints.write(round).unwrap()), "model.safetensors a");
    assert_eq!(disk.names(), ["epoch-1-step-8"]);
}

#[test]
fn a_run_that_begins_anew_replaces_what_has_the_same_name_and_keeps_what_it_writes() {
    let disk = Disk::new(2);
    for (number, round) in [(1, RoundKey::new(0, 4)), (2, RoundKey::new(9, 80)), (3, RoundKey::new(10, 88))] {
        disk.snapshot(number, round, "old");
        age(&disk.checkpoints.write(round).unwrap(), 100 - u64::from(number));
    }
    assert_eq!(disk.names(), ["epoch-10-step-88", "epoch-9-step-80"]);
    // Early rounds again, whose snapshots are newer.
    for (number, round) in [(4, RoundKey::new(0, 4)), (5, RoundKey::new(1, 8))] {
        disk.snapshot(number, round, "new");
        let folder = disk.checkpoints.write(round).unwrap();
        assert_eq!(weights(&folder), "model.safetensors new", "what was just written stays");
    }
    assert_eq!(disk.names(), ["epoch-0-step-4", "epoch-1-step-8"]);
    // Of the same round, with other weights.
    disk.snapshot(6, RoundKey::new(1, 8), "newest");
    let folder = disk.checkpoints.write(RoundKey::new(1, 8)).unwrap();
    assert_eq!((weights(&folder).as_str(), disk.names().len()), ("model.safetensors newest", 2));
}

#[test]
fn the_oldest_go_and_what_is_the_operators_stays() {
    let disk = Disk::new(2);
    fs::create_dir_all(disk.out().join("my-upload")).unwrap();
    fs::write(disk.out().join("epoch-0-step-1"), "a file of that name").unwrap();
    for number in 1..=4 {
        let round = RoundKey::new(number, 8 * u32::from(number));
        disk.snapshot(number.into(), round, "a");
        age(&disk.checkpoints.write(round).unwrap(), 100 - u64::from(number));
    }
    assert_eq!(disk.names(), ["epoch-0-step-1", "epoch-3-step-24", "epoch-4-step-32", "my-upload"]);
}

#[test]
fn whoever_reads_meanwhile_sees_a_whole_checkpoint_or_none() {
    let disk = Disk::new(1);
    let (out, over) = (disk.out(), Arc::new(AtomicBool::new(false)));
    let reader = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                for found in names(&out).into_iter().filter(|name| round_of(name).is_some()) {
                    let held = names(&out.join(&found));
                    // It may be gone by now; it is never there in part.
                    if !held.is_empty() && out.join(&found).exists() {
                        assert_eq!(held, WEIGHTS, "{found}");
                        seen += 1;
                    }
                }
            }
            seen
        }
    });
    for number in 1..=30 {
        let round = RoundKey::new(number, 8 * u32::from(number));
        disk.snapshot(number.into(), round, "a");
        disk.checkpoints.write(round).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    assert_eq!(disk.names(), ["epoch-30-step-240"]);
}
